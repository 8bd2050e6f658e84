"""The verbs on a store: store list, store verify, store gc, store export, store import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from ..errors import UserError, counted
from .options import OneStore, OneStudy, print_json


@dataclass(frozen=True)
class StoreListOptions(OneStore):
    """Say what is in a store: studies, kinds of artefacts, sizes and ages.

    Example: cgap store list
    """


def list_(options: StoreListOptions) -> None:
    """Two tables and a line."""
    from ..api.stores import list_store

    found = list_store(options.store)
    if options.json:
        print_json(found)
        return
    from .terminal_store import inventory_tables

    inventory_tables(found)


@dataclass(frozen=True)
class StoreVerifyOptions(OneStore):
    """Compare every artefact's files with their checksums. Nothing is changed; the exit code is 1 if one is damaged.

    Example: cgap store verify
    """


def verify(options: StoreVerifyOptions) -> int:
    """A line for each that is damaged."""
    from ..api.progress import progress_bar
    from ..api.stores import verify_store

    with progress_bar("verifying", "bytes") as progress:
        artefacts, damaged = verify_store(options.store, progress)
    if options.json:
        print_json({"artefacts": artefacts, "damaged": damaged})
        return int(bool(damaged))
    for one in damaged:
        print(f"damaged: {one.kind} {one.key}: {one.problem}")
    if damaged:
        print(
            f"{len(damaged)} of {counted(artefacts, 'artefact')} damaged; a run that needs one makes it anew"
        )
    else:
        print(f"{counted(artefacts, 'artefact')}, all sound")
    return int(bool(damaged))


@dataclass(frozen=True)
class StoreGcOptions(OneStore):
    """Say what no study needs that is named here, and with --delete remove it. What came from outside stays.

    Example: cgap store gc my-study.yaml --delete
    """

    files: tyro.conf.Positional[tuple[Path, ...]] = ()
    """the study files whose artefacts stay."""
    preset: tuple[str, ...] = ()
    """studies that ship with the program, whose artefacts stay."""
    kinds: tuple[str, ...] = ()
    """remove artefacts of these kinds alone, as cgap store list names them."""
    results_only: bool = False
    """keep what the studies' reports are made from, and of all else (weights, features) the record."""
    delete: bool = False
    """remove it; without this it is only said."""


def gc(options: StoreGcOptions) -> None:
    """A table of what goes."""
    from ..api.stores import collect_garbage
    from ..study.file import load_study

    o = options
    if not o.files and not o.preset:
        raise UserError(
            "name the studies whose artefacts stay, as files or with --preset; all else in the store would go"
        )
    studies = [*(load_study(f, None) for f in o.files), *(load_study(None, p) for p in o.preset)]
    found = collect_garbage(studies, o.store, kinds=o.kinds, results_only=o.results_only, delete=o.delete)
    if o.json:
        print_json(found)
        return
    from .terminal_store import garbage_table

    garbage_table(found)


@dataclass(frozen=True)
class StoreExportOptions(OneStudy):
    """Write a study as a folder that travels: its file, a row an episode, and all that its report needs.

    Example: cgap store export --preset tiny --out results/tiny
    """

    out: Path = Path("exported")
    """the folder."""


def export(options: StoreExportOptions) -> None:
    """Write the folder, and say what it holds."""
    from ..api.exported import export_study

    made = export_study(options.open(), options.out)
    if options.json:
        print_json(made)
        return
    rows = "" if made.episodes is None else f"{counted(made.episodes, 'episode')}, "
    print(
        f"{rows}{counted(made.artefacts, 'artefact')} and {counted(made.records, 'record')} of others, "
        f"{made.bytes / 1e6:.1f} MB: {made.folder}"
    )


@dataclass(frozen=True)
class StoreImportOptions(OneStore):
    """Take an exported study into a store; a run of its study.yaml then builds what is missing alone.

    Example: cgap store import results/tiny
    """

    folder: tyro.conf.Positional[Path]
    """what cgap store export wrote."""


def import_(options: StoreImportOptions) -> None:
    """Take it, and say what was new."""
    from ..api.exported import import_study

    taken = import_study(options.folder, options.store)
    if options.json:
        print_json(taken)
        return
    there = f"; {taken.there} were there already" if taken.there else ""
    print(f"{counted(taken.artefacts, 'artefact')} and {counted(taken.records, 'record')} of others{there}")
    print(f"go on with  cgap study run {options.folder / 'study.yaml'} --store {options.store}")
