"""Who builds what: a claim on one artefact, held by one process at a time of all runs on a store.

It is a lock of the operating system, so it ends with its process however that ends, and runs on several machines that
share a folder see each other's where the file system has such locks (NFS does). Where it has none, two runs may build
the same artefact, as the store allows: the first to commit it wins.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .store import Keyed, Store

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

WITHOUT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of a file system that has no locks


class Busy(Exception):
    """Another process builds the artefact."""


@contextmanager
def claim(store: Store, of: Keyed) -> Iterator[bool]:
    """Whether the artefact is this process's to build, until the end; False where another one builds it."""
    if fcntl is None:
        yield True
        return
    file = store.root / "claims" / f"{of.kind}-{of.key}"
    file.parent.mkdir(exist_ok=True)
    handle = _locked(file)
    if handle is None:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(FileNotFoundError):
            file.unlink()  # while it is still locked: whoever opened it meanwhile sees that it is gone (``_locked``)
        os.close(handle)


def _locked(file: Path) -> int | None:
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(file).st_ino == os.fstat(handle).st_ino:
                return handle
        except FileNotFoundError:
            pass  # its last holder has removed it between our opening and our lock
        except OSError as error:
            if error.errno in WITHOUT:
                return handle
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        os.close(handle)
