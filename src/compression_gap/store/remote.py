"""A store behind a URL (extra ``remote``): any file system that fsspec knows, such as an S3 bucket.

An artefact is two objects: ``KIND/KEY.zip`` with its files, and after it ``KIND/KEY.json``, its manifest, which says
that it is there. Each is put under another name and then moved, so a reader sees all of it or nothing. A machine keeps
what it has read in a folder of its own, verified as any store's; that folder may be removed at any time.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..extras import install
from ..records import parse_json
from .archive import read_archive, write_archive
from .claims import claim
from .store import MANIFEST, STORE_VERSION, Keyed, Recipe, Store, check_manifest, digest

CACHE = "COMPRESSION_GAP_CACHE"  # the folder of what was read, where it is not to be the user's cache folder
FRESH = 5.0  # seconds for which a listing that lacks a key is believed
PUSHED_EVERY = 10.0  # seconds between two looks for a new checkpoint
OBJECTS = {
    "abfs",
    "az",
    "gcs",
    "gs",
    "oss",
    "s3",
    "s3a",
}  # without folders: making one would make a bucket that is missing
Marks = dict[str, tuple[int, int]]  # of files: when each was changed, and its size


def open_store(where: str | Path) -> Store:
    """The store at a URL, or in a folder."""
    return RemoteStore(str(where)) if "://" in str(where) else Store(where)


class RemoteStore(Store):
    """A store behind a URL; ``root`` is this machine's folder of what it has read of it.

    Raises ``UserError`` where it cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self.files, self.base = _file_system(self.url)
        super().__init__(_cache() / digest(self.url))
        self._listed: dict[str, tuple[float, set[str]]] = {}  # by kind: when, and the keys
        with _reaching(self.url):
            if not self.files.exists(f"{self.base}/store.json"):
                self._put(self.root / "store.json", "store.json")
            found = _object(self.files.cat_file(f"{self.base}/store.json"), f"{self.url}/store.json")
        if found.get("store_version") != STORE_VERSION:
            raise UserError(
                f"the store {self.url} has another format than this program: update compression-gap"
            )

    @property
    def address(self) -> str:
        """Its URL."""
        return self.url

    def has(self, of: Keyed) -> bool:
        """Whether it is there, for every machine. What is here alone, since its commit was cut off, is brought there."""
        if self._there(of):
            return True
        if super().has(of):
            self._push(of)
            return True
        return False

    def open(self, of: Keyed) -> Path:
        """As a store does; what is not here yet is fetched."""
        if self._there(of, believed=False):
            self._fetch(of)
        return super().open(of)

    def manifest_file(self, of: Keyed) -> Path:
        """As a store does; a manifest that is not here yet is fetched, without the files."""
        if not super().has(of) and not self._record(of).is_file() and self._there(of, believed=False):
            name = f"{of.kind}/{of.key}.json"
            with _reaching(self.url):
                about = _object(self.files.cat_file(f"{self.base}/{name}"), f"{self.url}/{name}")
            try:
                self.keep_record(check_manifest(about))
            except ValueError as error:
                raise UserError(f"{self.url}/{name} is damaged ({error}): remove it and run again") from error
        return super().manifest_file(of)

    @contextmanager
    def working(self, of: Keyed) -> Iterator[None]:
        """Bring checkpoints here before an artefact is built, and there while it is."""
        there = f"{self.base}/work/{of.kind}-{of.key}"
        ended, pushed = threading.Event(), self._pull(there, of)

        def push_on() -> None:
            while not ended.wait(PUSHED_EVERY):
                self._push_work(there, of, pushed)

        pusher = threading.Thread(target=push_on, daemon=True)
        pusher.start()
        try:
            yield
        finally:
            ended.set()
            pusher.join()
            if super().has(of):
                with suppress(OSError):
                    self.files.rm(there, recursive=True)
            else:
                self._push_work(there, of, pushed)

    def _place(self, recipe: Recipe, folder: Path) -> None:
        super()._place(recipe, folder)
        if not self._there(recipe):
            self._push(recipe)

    def _there(self, of: Keyed, *, believed: bool = True) -> bool:
        """Whether its manifest is listed. A listing that lacks it is ``believed`` for a while: a plan asks for thousands."""
        at, keys = self._listed.get(of.kind, (None, set()))
        if of.key not in keys and (at is None or not believed or time.monotonic() - at > FRESH):
            folder = f"{self.base}/{of.kind}"
            with _reaching(self.url):
                self.files.invalidate_cache(folder)
                names = self.files.ls(folder, detail=False) if self.files.exists(folder) else []
            keys = {Path(n).stem for n in names if n.endswith(".json")}
            self._listed[of.kind] = time.monotonic(), keys
        return of.key in keys

    def _push(self, of: Keyed) -> None:
        with self.scratch("upload") as folder, _reaching(self.url):
            write_archive(folder / "files.zip", Store(self.root), [of], [], compressed=False)
            self._put(folder / "files.zip", f"{of.kind}/{of.key}.zip")
            self._put(self.path(of) / MANIFEST, f"{of.kind}/{of.key}.json")
        self._listed.setdefault(of.kind, (0.0, set()))[1].add(of.key)

    def _fetch(self, of: Keyed) -> None:
        here, name = Store(self.root), f"{of.kind}/{of.key}.zip"
        while not here.has(of):
            with claim(here, of) as mine:
                if mine and not here.has(of):
                    self._take(of, name, here)
            if not mine:
                time.sleep(0.2)  # another process fetches it

    def _take(self, of: Keyed, name: str, here: Store) -> None:
        with self.scratch("download") as folder:
            with _reaching(self.url):
                self.files.get_file(f"{self.base}/{name}", str(folder / "files.zip"))
            try:
                read_archive(folder / "files.zip", here)
                wrong = None if here.has(of) else "it holds another artefact"
            except UserError as error:
                wrong = str(error).partition(": ")[2]
        if wrong:
            raise UserError(
                f"{self.url}/{name} is damaged ({wrong}): remove it and the .json beside it, and run again"
            )

    def _put(self, file: Path, name: str) -> None:
        """Bring a file there, under its name only when all of it is there."""
        parts = f"{self.base}/tmp", f"{self.base}/{name.rpartition('/')[0]}".rstrip("/")
        if not OBJECTS.intersection(
            [protocol] if isinstance(protocol := self.files.protocol, str) else protocol
        ):
            for folder in parts:
                self.files.makedirs(folder, exist_ok=True)
        scratch = f"{parts[0]}/{uuid.uuid4().hex}"
        self.files.put_file(str(file), scratch)
        self.files.mv(scratch, f"{self.base}/{name}")

    def _pull(self, there: str, of: Keyed) -> Marks:
        """The checkpoints of a build that another machine has begun, in place of older ones that may lie here."""
        with _reaching(self.url):
            self.files.invalidate_cache(there)
            names = self.files.find(there) if self.files.exists(there) else []
            if not names:
                return {}
            folder = self.work(of)
            shutil.rmtree(folder)
            for name in names:
                target = folder / name.rpartition(f"{of.kind}-{of.key}/")[2]
                target.parent.mkdir(parents=True, exist_ok=True)
                self.files.get_file(name, str(target))
            return _marks(folder)

    def _push_work(self, there: str, of: Keyed, pushed: Marks) -> None:
        """Bring new checkpoints there: the file that names the others last, and what it no longer names away."""
        folder = self.root / "work" / f"{of.kind}-{of.key}"
        try:
            marks = _marks(folder)
            for name in sorted(marks, key=lambda n: (n == "checkpoint.json", n)):
                if pushed.get(name) != marks[name] and not name.endswith(".tmp"):
                    self._put(folder / name, f"work/{of.kind}-{of.key}/{name}")
                    pushed[name] = marks[name]
            for name in pushed.keys() - marks.keys():
                self.files.rm_file(f"{there}/{name}")
                del pushed[name]
        except OSError:
            pass  # a file was replaced meanwhile, or the network is away: the next look brings it


def _marks(folder: Path) -> Marks:
    found = {str(f.relative_to(folder)): f.stat() for f in folder.rglob("*") if f.is_file()}
    return {name: (about.st_mtime_ns, about.st_size) for name, about in found.items()}


def _cache() -> Path:
    given = os.environ.get(CACHE)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "compression-gap" / "stores"


def _object(text: bytes, where: str) -> Any:
    try:
        found = parse_json(text)
    except ValueError as error:
        raise UserError(f"{where} is damaged ({error}): remove it and run again") from error
    return found if isinstance(found, dict) else {}


def _file_system(url: str) -> tuple[Any, str]:
    try:
        import fsspec
    except ImportError as error:
        raise UserError(f"a store behind a URL needs fsspec: {install('remote')}") from error
    try:
        files, base = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(f"--store {url}: {' '.join(str(error).split())}") from error
    return files, str(base).rstrip("/")


@contextmanager
def _reaching(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way into a sentence; a missing object stays what it is."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"the store {url} cannot be read or written ({words}): check its address, your rights, the network"
        ) from error
