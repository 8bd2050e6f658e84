"""What a reader must not do: leave its folder, run code, connect, take more than 2 GB, or end in a traceback."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compression_gap.errors import UserError

MEMORY = 2 * 2**30  # bytes, peak of the process
LONGEST = 4000  # characters of a sentence
SLOW = 60  # seconds that one input may take
FORBIDDEN = ("pickle.find_class", "os.system", "subprocess.Popen", "socket.connect", "os.exec")
SECRET = {  # files that lie beside the folder; a reader that follows a link or a path to one has escaped
    "secret.json": b'{"codebase_version": "v3.0", "fps": 10, "features": {}}',
    "secret.txt": b"secret\n",
    "secret.yaml": b"name: secret\n",
}


class Escape(AssertionError):
    """A reader did what none may do."""


class Hang(AssertionError):
    """A reader did not come to an end."""


def _hang(number: int, frame: object) -> None:
    raise Hang(f"a reader ran for more than {SLOW} s")


class Guard:
    """Watches this process while a reader runs; ``outside`` holds what no reader may open."""

    def __init__(self, outside: Path) -> None:
        self.outside = Path(os.path.realpath(outside))
        self.outside.mkdir(parents=True, exist_ok=True)
        for name, content in SECRET.items():
            (self.outside / name).write_bytes(content)
        self._seen: list[str] | None = None
        self._work = self.outside.parent
        sys.addaudithook(self._hook)  # it cannot be taken away again: one guard a process
        self._times = self._sees_reads()

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._seen is None:
            return
        if event in FORBIDDEN and arguments[0] != "uname":  # of ``platform``, when h5py is imported
            self._seen.append(f"{event} {str(arguments)[:80]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            seen, self._seen = self._seen, None  # realpath is not to be watched
            try:
                where = os.path.realpath(os.fsdecode(arguments[0]))
            except (OSError, ValueError):
                where = ""
            self._seen = seen
            if where.startswith(str(self.outside)):
                seen.append(f"opened {Path(where).name} outside of its folder")

    def _sees_reads(self) -> bool:
        """Whether the disk notes when a file was read, which tells of libraries that are not written in Python."""
        self._reset()
        (self.outside / "secret.txt").read_bytes()
        return self._read_since()

    def _reset(self) -> None:
        for name in SECRET:
            os.utime(self.outside / name, (0, 1_000_000_000))  # read long before it was written

    def _read_since(self) -> bool:
        return any((self.outside / n).stat().st_atime > 0 for n in SECRET)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Raises ``Escape`` at the end if the code within did something that no reader may do."""
        self._reset()
        self._seen = []
        try:
            yield
        finally:
            seen, self._seen = self._seen, None
        if seen:
            raise Escape(f"a reader did this: {seen[0]}")
        if self._times and self._read_since():
            raise Escape("a library read a file outside of its folder")
        if set(os.listdir(self.outside)) != set(SECRET):
            raise Escape(f"files were written outside: {sorted(os.listdir(self.outside))}")
        if any((self.outside / n).read_bytes() != content for n, content in SECRET.items()):
            raise Escape("a file outside was changed")


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def check(read: Callable[[], object], guard: Guard, *, slow: int = SLOW) -> str | None:
    """Run a reader: its sentence, or None where it took the input. Anything else is raised."""
    sentence = None
    with guard.watching():
        before = signal.signal(signal.SIGALRM, _hang)
        signal.alarm(slow)
        try:
            read()
        except UserError as error:
            sentence = str(error)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
    if sentence is not None and ("\n" in sentence or not 0 < len(sentence) <= LONGEST):
        raise AssertionError(f"no sentence: {sentence[:200]!r} ({len(sentence)} characters)")
    if peak() > MEMORY:
        raise MemoryError(f"the process took {peak() / 2**30:.2f} GB")
    return sentence
