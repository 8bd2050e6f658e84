"""The verbs on a store: store export, store import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from ..errors import counted
from .options import OneStudy, print_json


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
class StoreImportOptions:
    """Take an exported study into a store; a run of its study.yaml then builds what is missing alone.

    Example: cgap store import results/tiny
    """

    folder: tyro.conf.Positional[Path]
    """what cgap store export wrote."""
    store: Path = Path("store")
    """folder of all artefacts."""
    json: bool = False
    """print the result as JSON."""


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
