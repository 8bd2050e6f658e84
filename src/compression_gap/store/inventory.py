"""What is in a store: sizes, ages, damage, and the removal of artefacts."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .claims import claim
from .store import KIND, MANIFEST, Recipe, Store, read_manifest, recipe_in

OWN = ("claims", "damaged", "failures", "records", "studies", "tmp", "work")  # folders that hold no artefacts


@dataclass(frozen=True)
class Entry:
    """An artefact in a store. ``recipe``: None where the manifest is damaged; ``modified``: seconds since 1970."""

    kind: str
    key: str
    bytes: int
    modified: float
    recipe: Recipe | None


def entries(store: Store) -> Iterator[Entry]:
    """Every committed artefact, kind by kind. Files are not read, so not verified (``damage``)."""
    for kind in sorted(p.name for p in store.root.iterdir() if p.is_dir()):
        if kind in OWN or not KIND.fullmatch(kind):
            continue
        for key in sorted(os.listdir(store.root / kind)):
            file = store.root / kind / key / MANIFEST
            try:
                modified = file.stat().st_mtime
            except OSError:
                continue  # never committed, or not an artefact
            try:
                about: dict[str, Any] = read_manifest(file)
            except (OSError, ValueError):
                yield Entry(kind, key, folder_bytes(file.parent), modified, None)
                continue
            size = sum(f["bytes"] for f in about["files"].values())
            yield Entry(kind, key, size, modified, recipe_in(about))


def folder_bytes(folder: Path) -> int:
    """Bytes of all files under a folder; 0 if there is none."""
    return sum(f.lstat().st_size for f in folder.rglob("*") if not f.is_dir())


def damage(
    store: Store, found: list[Entry], progress: Callable[[int, int], None] = lambda done, total: None
) -> list[tuple[Entry, str]]:
    """The artefacts that do not match their checksums, and how. ``progress``: bytes read of all. Nothing is moved."""
    out, done, total = [], 0, sum(e.bytes for e in found)
    for entry in found:
        if problem := store.damage(entry):
            out.append((entry, problem))
        done += entry.bytes
        progress(done, total)
    return out


def remove(store: Store, of: Entry, *, keep_record: bool) -> None:
    """Remove an artefact in one step; with ``keep_record`` its manifest stays behind. One that is being built is left."""
    with claim(store, of) as mine:
        if not mine:
            return
        if keep_record and of.recipe is not None:
            store.keep_record(store.manifest(of))
        with store.scratch(of.kind) as scratch:
            os.rename(store.path(of), scratch / of.key)


def leftovers(store: Store, needed: Container[str]) -> list[Path]:
    """Folders that are no artefacts: checkpoints of builds whose key is not ``needed``, and damage that was set aside."""
    work = [f for f in store.root.glob("work/*") if f.name.rpartition("-")[2] not in needed]
    return [*work, *store.root.glob("damaged/*")]
