"""Who builds what: a claim on one artefact, held by one process at a time of all runs on a store.

It also says how far the build is, for whoever follows a run. It is a lock of the operating system, so it ends with its process however that ends, and runs on several machines that
share a folder see each other's where the file system has such locks (NFS does). Where it has none, two runs may build
the same artefact, as the store allows: the first to commit it wins.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..records import parse_json
from .store import Keyed, Store, disk_error

try:
    import fcntl
except ImportError:  # no such locks on this system
    fcntl = None  # type: ignore[assignment]

NOTED_EVERY = 1.0  # seconds
LENGTH = 96  # bytes of a note, so that a shorter one leaves nothing of a longer one
WITHOUT = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of a file system that has no locks


class Busy(Exception):
    """Another process builds the artefact."""


@dataclass(frozen=True)
class UnderWay:
    """A build that some process is at. ``done`` of ``total``: 0 of 0 until it says so; ``since``: seconds since 1970."""

    kind: str
    key: str
    done: int
    total: int
    since: float


class Claim:
    """What its holder has of it."""

    def __init__(self, handle: int | None) -> None:
        self.handle, self.since, self.noted = handle, time.time(), 0.0
        self._write(0, 0)

    def note(self, done: int, total: int) -> None:
        """Say how far the build is; often called, seldom written."""
        if time.monotonic() - self.noted > NOTED_EVERY:
            self._write(done, total)

    def _write(self, done: int, total: int) -> None:
        self.noted = time.monotonic()
        if self.handle is not None:
            text = json.dumps({"done": done, "total": total, "since": self.since}).encode()
            with suppress(OSError):  # a full disk is the build's to meet
                os.pwrite(self.handle, text.ljust(LENGTH), 0)


@contextmanager
def claim(store: Store, of: Keyed) -> Iterator[Claim | None]:
    """The artefact is this process's to build, until the end; None where another one builds it."""
    if fcntl is None:
        yield Claim(None)
        return
    file = _file(store, of.kind, of.key)
    try:
        file.parent.mkdir(exist_ok=True)
        handle = _locked(file)
    except OSError as error:
        raise disk_error(error, store.root) from error
    if handle is None:
        yield None
        return
    try:
        yield Claim(handle)
    finally:
        with suppress(FileNotFoundError):
            file.unlink()  # while it is still locked: whoever opened it meanwhile sees that it is gone (``_locked``)
        os.close(handle)


def under_way(store: Store) -> list[UnderWay]:
    """The builds of all runs on a store, on this machine and on others, the oldest first."""
    folder, out = store.root / "claims", []
    for name in os.listdir(folder) if folder.is_dir() and fcntl is not None else []:
        kind, _, key = name.rpartition("-")
        with claim(store, _Named(kind, key)) as free:
            if free:
                continue  # its process is dead
        about = {}
        with suppress(OSError, ValueError, TypeError):
            about = dict(parse_json(_file(store, kind, key).read_bytes()))
        done, total, since = (about.get(n, 0) for n in ("done", "total", "since"))
        out.append(UnderWay(kind, key, int(done), int(total), float(since)))
    return sorted(out, key=lambda b: b.since)


@dataclass(frozen=True)
class _Named:
    kind: str
    key: str


def _file(store: Store, kind: str, key: str) -> Path:
    return store.root / "claims" / f"{kind}-{key}"


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
