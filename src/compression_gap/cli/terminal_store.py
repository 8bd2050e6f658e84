"""A store in a terminal: what is in it, and what can go."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from ..api.demos import ListedDemos
from ..api.stores import Garbage, Held, Inventory
from ..errors import counted
from .terminal import console, new_table

UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"))


def inventory_tables(found: Inventory) -> None:
    """Studies, kinds, and what is left over."""
    if found.studies:
        table = new_table("study", "of", "last run")
        for study in sorted(found.studies, key=lambda s: -s.last):
            table.add_row(study.name, study.source, ago(study.last))
        console.print(table)
        console.print()
    console.print(_kinds(found.kinds))
    if found.leftovers:
        console.print(f"{size(found.leftovers)} of checkpoints, unfinished builds, and damage set aside")


def garbage_table(found: Garbage) -> None:
    """What goes, by kind, and its sum."""
    if found.kinds:
        console.print(_kinds(found.kinds))
    if found.leftovers:
        console.print(f"{size(found.leftovers)} of checkpoints, unfinished builds, and damage set aside")
    if found.spared:
        console.print(
            f"{counted(found.spared, 'artefact')} spared: imported recordings and episodes of diagnosed policies"
        )
    done = "removed" if found.removed else "can go: say --delete to remove it"
    console.print(f"{size(found.bytes)} {done}")


def demos_table(found: Sequence[ListedDemos]) -> None:
    """A row a set."""
    table = new_table("folder", "of", "tasks", "episodes", "frames", "cameras", "size")
    for d in found:
        tasks = ", ".join(d.tasks[:2]) + (f" and {len(d.tasks) - 2} more" if len(d.tasks) > 2 else "")
        cameras = ", ".join(f"{name} {h} × {w}" for name, (h, w) in d.cameras.items())
        table.add_row(d.folder, d.source, tasks, f"{d.episodes:,}", f"{d.frames:,}", cameras, size(d.bytes))
    console.print(table)


def _kinds(kinds: Mapping[str, Held]) -> object:
    table = new_table("kind", "artefacts", "size", "newest")
    for kind, held in sorted(kinds.items(), key=lambda item: -item[1].bytes):
        table.add_row(kind, f"{held.artefacts:,}", size(held.bytes), ago(held.newest))
    total = sum(h.bytes for h in kinds.values())
    table.add_row("all", f"{sum(h.artefacts for h in kinds.values()):,}", size(total), "")
    return table


def size(number: int) -> str:
    """Bytes in a unit that reads well."""
    value = float(number)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.1f} GB"


def ago(when: float) -> str:
    """How long ago, in the largest unit that fits."""
    seconds = max(0.0, time.time() - when)
    for length, unit in UNITS:
        if seconds >= length:
            return f"{counted(int(seconds // length), unit)} ago"
    return "just now"
