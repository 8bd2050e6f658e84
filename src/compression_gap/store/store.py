"""The content-addressed store: key → folder, committed by one rename, verified when read.

An artefact is a pure function of its recipe: kind, builder version, resolved specification and the keys of
its inputs. The recipe's hash is the key. ``store/<kind>/<key>/artifact.json`` holds the recipe and the
SHA-256 of every file beside it. A write is a temporary folder, then one rename: a reader never sees half an
artefact, and a crash loses the step that was running and nothing else.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..errors import UserError, system_error
from ..records import read_object
from .scratch import scratch_folder

STORE_VERSION = 1
MANIFEST = "artifact.json"
KIND = re.compile("[a-z][a-z0-9-]*")


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def digest(value: Any) -> str:
    """Hash of a JSON value: 20 hex digits (80 bits) of its canonical form's SHA-256."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Recipe:
    """What an artefact is made from, and by which version of which builder."""

    kind: str
    spec: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)  # role -> key
    version: int = 1  # the builder's; raised when its bytes change

    @property
    def key(self) -> str:
        """The artefact's key."""
        return digest({"kind": self.kind, "spec": self.spec, "inputs": self.inputs, "version": self.version})


class Keyed(Protocol):
    """What the store finds a folder by: a recipe, or an artefact."""

    @property
    def kind(self) -> str:
        """The kind of artefact."""

    @property
    def key(self) -> str:
        """The hash of its recipe."""


def commit_point(name: str) -> None:
    """Called before and after each durable change; fault injection replaces it in the tests."""


class Superseded(Exception):
    """The work folder is gone: another process has committed the artefact that was being built."""


class Store:
    """A folder of artefacts. Safe for several processes: the first to commit a key wins, and all agree."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        refuse_url(root)
        self._verified: set[tuple[str, str]] = set()
        marker = self.root / "store.json"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not marker.exists():
                write_json(marker, {"store_version": STORE_VERSION})
            found = read_object(marker)["store_version"]
        except OSError as error:
            raise disk_error(error, self.root) from error
        except (ValueError, KeyError) as error:
            raise UserError(f"{marker} is damaged; restore it, or use another store folder") from error
        if found != STORE_VERSION:
            raise UserError(
                f"the store {self.root} has format {found}, this program reads format {STORE_VERSION}: "
                "update compression-gap, or use another store with --store"
            )

    @property
    def address(self) -> str:
        """Where another process finds it."""
        return str(self.root.resolve())

    def path(self, of: Keyed) -> Path:
        """Where the artefact lies, or will lie."""
        return self.root / of.kind / of.key

    def has(self, of: Keyed) -> bool:
        """Whether the artefact has been committed (its content is verified when it is opened)."""
        return (self.path(of) / MANIFEST).is_file()

    def recorded(self, of: Keyed) -> bool:
        """Whether its manifest can be read: the artefact is here, or its record alone was kept (``keep_record``)."""
        return self.has(of) or self._record(of).is_file()

    def open(self, of: Keyed) -> Path:
        """The artefact's folder, verified against its checksums once per process.

        Raises ``UserError`` if it is missing or damaged; a damaged artefact is moved aside (nothing is
        deleted), so that the same command makes it anew.
        """
        folder = self.path(of)
        if not self.has(of):
            raise UserError(f"{of.kind} {of.key} is not in the store {self.root}; run the study first")
        if (of.kind, of.key) not in self._verified:
            problem = self.damage(of)
            if problem:
                aside = self._set_aside(folder)
                raise UserError(
                    f"{of.kind} {of.key} is damaged ({problem}); it was moved to {aside}: "
                    "run the same command again to make it anew"
                )
            self._verified.add((of.kind, of.key))
        return folder

    def damage(self, of: Keyed) -> str | None:
        """How an artefact differs from its manifest's checksums, or None; all of it is read."""
        return _damage(self.path(of), of.key)

    def manifest(self, of: Keyed) -> dict[str, Any]:
        """The artefact's manifest: recipe, checksums and what its builder reported (``meta``).

        The files beside it are not read, so not verified either: ``open`` does that. Raises as ``open`` does.
        """
        with suppress(OSError, ValueError):
            about = read_manifest(self.manifest_file(of))
            if about["key"] == of.key:
                return about
        return read_manifest(self.open(of) / MANIFEST)  # which says what is wrong

    def manifest_file(self, of: Keyed) -> Path:
        """Where the artefact's manifest lies; that of a record, where this alone is there."""
        record, own = self._record(of), self.path(of) / MANIFEST
        return record if record.is_file() and not own.is_file() else own

    def meta(self, of: Keyed) -> dict[str, Any]:
        """What the artefact's builder reported. Raises as ``open`` does."""
        found: dict[str, Any] = self.manifest(of)["meta"]
        return found

    def keep_record(self, manifest: Mapping[str, Any]) -> None:
        """Keep the manifest of an artefact whose files are not here: what it was made from, and what it reported.

        Results go on naming it, and a plan that wants it for itself does not build it again (``engine.missing_steps``).
        """
        file = self._record(recipe_in(manifest))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, manifest)

    @contextmanager
    def working(self, of: Keyed) -> Iterator[None]:
        """While an artefact is built: what a store that lies elsewhere does with the checkpoints."""
        yield

    def _record(self, of: Keyed) -> Path:
        return self.root / "records" / of.kind / f"{of.key}.json"

    def work(self, of: Keyed) -> Path:
        """A folder for checkpoints of a build that is under way; it outlives a crash, not the commit."""
        folder = self.root / "work" / f"{of.kind}-{of.key}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def create(self, recipe: Recipe, meta: Mapping[str, Any] | None = None) -> Iterator[Path]:
        """Build an artefact: yields an empty folder; on a clean exit its files are committed at once.

        ``meta`` may be filled by the builder; it is stored, but is not part of the key.
        """
        try:
            with self.scratch(recipe.kind) as folder:
                yield folder
                self._commit(recipe, folder, meta or {})
        except Exception as error:
            said = disk_error(system_error(error) or error, self.root)
            if said is error or not isinstance(said, UserError):
                raise
            raise said from error

    def adopt(self, folder: Path) -> None:
        """Commit a folder that has its manifest, such as another store's. Raises ``ValueError`` if it is damaged."""
        about = read_manifest(folder / MANIFEST)
        if problem := _damage(folder, about["key"]):
            raise ValueError(problem)
        self._place(recipe_in(about), folder)

    def _commit(self, recipe: Recipe, folder: Path, meta: Mapping[str, Any]) -> None:
        """Write the manifest, and place the folder."""
        commit_point(f"{recipe.kind}:built")
        manifest = {
            "kind": recipe.kind,
            "key": recipe.key,
            "version": recipe.version,
            "spec": recipe.spec,
            "inputs": dict(recipe.inputs),
            "files": {
                str(f.relative_to(folder)): {"sha256": file_sha256(f), "bytes": f.stat().st_size}
                for f in sorted(folder.rglob("*"))
                if f.is_file()
            },
            "meta": meta,
        }
        write_json(folder / MANIFEST, manifest)
        self._place(recipe, folder)

    def _place(self, recipe: Recipe, folder: Path) -> None:
        """Bring everything to the disk, and rename the folder to its place."""
        for file in [*folder.rglob("*"), folder]:
            _fsync(file)
        target = self.path(recipe)
        target.parent.mkdir(parents=True, exist_ok=True)
        commit_point(f"{recipe.kind}:before-rename")
        if target.exists() and not self.has(recipe):
            self._set_aside(target)  # it has lost its manifest: nothing in it can be verified
        try:
            os.rename(folder, target)
        except OSError as error:
            # Another process committed the same key first: its bytes are as good as ours.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not self.has(recipe):
                raise
        _fsync(target.parent)
        commit_point(f"{recipe.kind}:after-rename")
        self._record(recipe).unlink(missing_ok=True)
        shutil.rmtree(self.root / "work" / f"{recipe.kind}-{recipe.key}", ignore_errors=True)

    def scratch(self, kind: str) -> AbstractContextManager[Path]:
        """A temporary folder of this process, beside the artefacts (``scratch_folder``)."""
        return scratch_folder(self.root / "tmp", f"{os.getpid()}.{_host()}-{kind}-")

    def sweep(self) -> None:
        """Remove the temporary folders of builds whose process is dead; those of other machines are not ours to judge."""
        for folder in (self.root / "tmp").glob("*-*"):
            owner, _, host = folder.name.split("-", 1)[0].partition(".")
            dead = owner.isdecimal() and not Path("/proc", owner).exists() and Path("/proc/self").exists()
            if dead and host in ("", _host()):  # an older program's says no host
                shutil.rmtree(folder, ignore_errors=True)

    def _set_aside(self, folder: Path) -> Path:
        aside = self.root / "damaged"
        aside.mkdir(exist_ok=True)
        target = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=aside))
        os.rename(folder, target)
        return target


def refuse_url(where: Path | str) -> None:
    """Refuse the address of a store elsewhere where a folder is asked for."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(where)):
        raise UserError(
            f"{where} is a URL, and this verb takes a folder; study plan, run and status and report take URLs"
        )


def _host() -> str:
    """This machine's name as six hex digits, which are safe in the name of a folder."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def read_manifest(file: Path) -> dict[str, Any]:
    """A manifest, its fields of the right types. The files beside it are not looked at.

    Raises ``OSError`` if it cannot be read, and ``ValueError``, one line, if it is none.
    """
    return check_manifest(read_object(file))


def check_manifest(about: Any) -> dict[str, Any]:
    """A manifest's content, its fields of the right types. Raises ``ValueError``, one line, if it is none."""
    if not isinstance(about, dict):
        raise ValueError("it is no object")
    kinds = {
        "kind": str,
        "key": str,
        "version": int,
        "spec": dict,
        "inputs": dict,
        "files": dict,
        "meta": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(about.get(name), kind) or isinstance(about[name], bool):
            raise ValueError(f"its '{name}' is missing, or is no {kind.__name__}")
    if not all(isinstance(key, str) and Path(key).name == key for key in about["inputs"].values()):
        raise ValueError("its 'inputs' are not keys")
    for name, want in about["files"].items():
        if not _is_checksum(want) or not _is_inside(name):
            raise ValueError(f"what it says of the file {name!r} is no checksum")
    if not KIND.fullmatch(about["kind"]):
        raise ValueError("its 'kind' is no name")
    if len(about["kind"]) > 64:
        raise ValueError("its 'kind' is too long a name")
    if recipe_in(about).key != about["key"]:
        raise ValueError("its recipe is not that of its key")
    return about


def recipe_in(manifest: Mapping[str, Any]) -> Recipe:
    """The recipe that a manifest holds."""
    return Recipe(manifest["kind"], manifest["spec"], manifest["inputs"], manifest["version"])


def _is_checksum(want: Any) -> bool:
    """Whether a manifest says a size and a SHA-256 of a file."""
    return (
        isinstance(want, dict)
        and set(want) == {"sha256", "bytes"}
        and isinstance(want["sha256"], str)
        and type(want["bytes"]) is int
        and 0 <= want["bytes"] < 2**63
    )


def _is_inside(name: str) -> bool:
    """Whether a file's name leads nowhere but into the folder."""
    place = Path(name)
    return bool(place.parts) and not place.is_absolute() and ".." not in place.parts and "\0" not in name


def _damage(folder: Path, key: str) -> str | None:
    """What is wrong with an artefact's folder, or None."""
    try:
        manifest = read_manifest(folder / MANIFEST)
    except (OSError, ValueError) as error:
        return f"{MANIFEST} cannot be read: {error}"
    if manifest["key"] != key:
        return f"the recipe in {MANIFEST} is not that of its key"
    for name, want in manifest["files"].items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != want["bytes"] or file_sha256(file) != want["sha256"]:
            return f"{name} does not match its checksum"
    return None


def disk_error(error: Exception, where: Path) -> Exception:
    """Turn a full or read-only disk into a ``UserError``; any other error is returned as it is."""
    if not isinstance(error, OSError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"the disk with {where} is full: free some space and run the same command again")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST):
        return UserError(f"cannot write to {where} ({error.strerror}): choose another folder with --store")
    return error


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_json(file: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never a part."""
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        scratch.write_text(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))
        os.replace(scratch, file)
    except OSError as error:
        error.filename = error.filename or str(file)  # a write that fails does not say where
        scratch.unlink(missing_ok=True)
        raise


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
