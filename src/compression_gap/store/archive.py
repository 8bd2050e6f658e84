"""An archive: part of a store as one zip file, laid out as the store is. Equal content gives equal bytes."""

from __future__ import annotations

import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import UserError
from ..records import LARGEST, parse_json
from .outcome import failure_file
from .scratch import scratch_folder
from .store import (
    KIND,
    MANIFEST,
    Keyed,
    Store,
    check_manifest,
    disk_error,
    recipe_in,
    write_json,
)

FAILURE = re.compile(rf"{KIND.pattern}-[0-9a-f]{{20}}\.json")
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first time that a zip file can name
CHUNK = 2**20
DISK_KEPT = 2**28  # bytes that an archive leaves free
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, KeyError),
    *(IsADirectoryError, NotADirectoryError, FileExistsError, OverflowError),
)


@dataclass(frozen=True)
class Taken:
    """What reading an archive brought: artefacts with their files, records alone, and what was there already."""

    artefacts: int
    records: int
    there: int


class Watched(Store):
    """A store that notes which artefacts a reader opens, and of which it reads the manifest alone."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.root)
        self._verified = store._verified  # what one has verified, the other need not read again
        self.opened: set[tuple[str, str]] = set()
        self.read: set[tuple[str, str]] = set()

    def open(self, of: Keyed) -> Path:
        """As a store does."""
        self.opened.add((of.kind, of.key))
        return super().open(of)

    def manifest(self, of: Keyed) -> dict[str, Any]:
        """As a store does."""
        self.read.add((of.kind, of.key))
        return super().manifest(of)


def write_archive(
    file: Path,
    store: Store,
    whole: Iterable[Keyed],
    records: Iterable[Keyed],
    failures: Iterable[Keyed] = (),
    *,
    compressed: bool = True,
) -> None:
    """Write artefacts with their files (``whole``), others' manifests alone, and the records of failed steps.

    Raises ``UserError`` if an artefact is damaged, or the disk is full.
    """
    members: dict[str, Path] = {}
    for of in whole:
        folder = store.open(of)
        names = [MANIFEST, *store.manifest(of)["files"]]
        members |= {f"{of.kind}/{of.key}/{name}": folder / name for name in names}
    for of in records:
        members.setdefault(f"records/{of.kind}/{of.key}.json", store.manifest_file(of))
    for of in failures:
        record = failure_file(store, of)
        members[f"failures/{record.name}"] = record
    try:
        with scratch_folder(file.parent, f".{file.name}-") as scratch:
            with zipfile.ZipFile(scratch / file.name, "w") as archive:
                for name in sorted(members):
                    about = zipfile.ZipInfo(name, EPOCH)
                    about.compress_type = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
                    about.external_attr = 0o644 << 16
                    about.file_size = members[name].stat().st_size  # tells whether 32 bits can count it
                    with members[name].open("rb") as read, archive.open(about, "w") as packed:
                        shutil.copyfileobj(read, packed, CHUNK)
            (scratch / file.name).replace(file)
    except OSError as error:
        raise disk_error(error, file) from error


def read_archive(file: Path, store: Store) -> Taken:
    """Take what is in an archive into a store; what is there already stays as it is.

    Each artefact is checked as a store checks its own, and committed by one rename: an archive that is damaged half
    way leaves whole artefacts alone. Raises ``UserError`` for what is no archive, or does not match its checksums.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            _check_size(archive, store)
            return _take(archive, store)
    except BROKEN as error:
        words = str(error.args[0]) if isinstance(error, KeyError) else " ".join(str(error).split())
        raise UserError(f"{file} is damaged, or no archive of a store: {words}") from error
    except RuntimeError as error:  # zipfile's word for an encrypted member
        raise UserError(f"{file} cannot be read: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{file} is not there") from error
    except OSError as error:
        full = disk_error(error, store.root)
        if full is error:  # zipfile seeks where the file says; a link to itself
            full = UserError(f"{file} is damaged, or no archive of a store: {error}")
        raise full from error


def _check_size(archive: zipfile.ZipFile, store: Store) -> None:
    """Refuse an archive that would fill the disk once it is unpacked."""
    needed = sum(about.file_size for about in archive.infolist())
    free = shutil.disk_usage(store.root).free
    if needed + DISK_KEPT > free:
        raise UserError(
            f"{archive.filename} claims {needed / 1e9:.1f} GB once it is unpacked, and the disk with {store.root} has "
            f"{free / 1e9:.1f} GB free: free some, or do not import it if it should hold less"
        )


def _take(archive: zipfile.ZipFile, store: Store) -> Taken:
    artefacts = records = there = 0
    for name in sorted(archive.namelist()):
        folder, _, last = name.rpartition("/")
        if folder == "failures":
            _take_failure(archive, last, store)
        elif last == MANIFEST or folder.startswith("records/"):
            about = check_manifest(parse_json(_bytes(archive, name)))
            of = recipe_in(about)
            if name not in (f"{of.kind}/{of.key}/{MANIFEST}", f"records/{of.kind}/{of.key}.json"):
                raise ValueError(f"{name} is not where its recipe belongs")
            if store.has(of):
                there += 1
            elif last == MANIFEST:
                _take_artefact(archive, folder, about, store)
                artefacts += 1
            else:
                store.keep_record(about)
                records += 1
    return Taken(artefacts, records, there)


def _take_artefact(archive: zipfile.ZipFile, folder: str, about: dict[str, Any], store: Store) -> None:
    with store.scratch(about["kind"]) as scratch:
        for name, want in about["files"].items():
            target = scratch / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(f"{folder}/{name}") as packed, target.open("wb") as out:
                _copy(packed, out, want["bytes"], f"{folder}/{name}")
        write_json(scratch / MANIFEST, about)
        store.adopt(scratch)


def _take_failure(archive: zipfile.ZipFile, name: str, store: Store) -> None:
    record = parse_json(_bytes(archive, f"failures/{name}"))
    if not isinstance(record, dict) or not all(isinstance(v, str) for v in record.values()):
        raise ValueError(f"failures/{name} is no record of a failed step")
    if not FAILURE.fullmatch(name):
        raise ValueError(f"failures/{name} is no name of such a record")
    target = store.root / "failures" / name
    target.parent.mkdir(exist_ok=True)
    write_json(target, record)


def _copy(packed: IO[bytes], out: IO[bytes], size: int, name: str) -> None:
    """Unpack a member that says of itself how long it is; one that is longer ends there, and does not fill the disk."""
    left = size
    while part := packed.read(min(CHUNK, left + 1)):
        left -= len(part)
        if left < 0:
            raise ValueError(f"{name} is longer than its manifest says")
        out.write(part)


def _bytes(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as packed:
        found = packed.read(LARGEST + 1)
    if len(found) > LARGEST:
        raise ValueError(f"{name} has more than {LARGEST:,} bytes")
    return found
