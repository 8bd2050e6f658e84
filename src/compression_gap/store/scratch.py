"""A temporary folder that is gone at the end, however that comes."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new temporary folder in ``parent``, removed at the end however that comes: also by SIGTERM or SIGHUP.

    These signals end a process where it stands. While the folder is there they remove it first, unless the program
    handles them itself or this is not its main thread.
    """
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    owner = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() == owner:  # a forked child inherits this, and the folder is not its own
            shutil.rmtree(folder, ignore_errors=True)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    taken = []
    if threading.current_thread() is threading.main_thread():
        ends = (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
        taken = [n for n in dict.fromkeys(ends) if signal.getsignal(n) == signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, end)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
