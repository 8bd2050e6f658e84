"""The verbs that need no study: doctor, published, power."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from .options import print_json


@dataclass(frozen=True)
class DoctorOptions:
    """Check Python, torch, rendering, cores, memory and disk, and say what to do.

    Example: cgap doctor
    """

    store: Path = Path("store")
    """folder of all artefacts."""
    json: bool = False
    """print the result as JSON."""


def doctor(options: DoctorOptions) -> int:
    """Print all checks; the exit code says whether the machine will do."""
    from .doctor import checks

    found = checks(options.store)
    if options.json:
        print_json({"ok": all(c.ok for c in found), "checks": [vars(c) for c in found]})
    else:
        from .terminal import doctor_table

        doctor_table(found)
    return 0 if all(c.ok for c in found) else 2


@dataclass(frozen=True)
class PublishedOptions:
    """Re-analyse the paper's tables: which of the published contrasts stand, with intervals.

    Example: cgap published
    """

    json: bool = False
    """print the result as JSON."""


def published(options: PublishedOptions) -> None:
    """Print the paper's contrasts."""
    from ..results.published import published_contrasts

    contrasts = published_contrasts()
    if options.json:
        print_json({"contrasts": contrasts})
    else:
        from .terminal import published_table

        published_table(contrasts)


@dataclass(frozen=True)
class PowerOptions:
    """How many episodes and seeds find a difference of so many points (power of 80 % or more).

    Example: cgap power 10 --rate 50 --seed-sd 4
    """

    difference: tyro.conf.Positional[float]
    """the difference of two success rates, in points."""
    rate: float = 50.0
    """success of the weaker cell, in percent."""
    seed_sd: float = 4.0
    """standard deviation between training seeds, in points."""
    pairing: float = 0.3
    """correlation of two policies' outcomes on one initial state."""
    tasks: int = 1
    """tasks that the episodes are divided among."""
    json: bool = False
    """print the result as JSON."""


def power(options: PowerOptions) -> None:
    """Print the power of designs."""
    from ..statistics.power import table

    o = options
    rows = table(o.difference, o.rate, o.seed_sd, o.pairing, tasks=o.tasks)
    if o.json:
        print_json({"difference": o.difference, "designs": rows})
    else:
        from .terminal import power_table

        power_table(o.difference, rows)
