"""A study that grows by seeds until its question is answered: what its looks say, and what the next one needs."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ..errors import counted
from ..statistics.rounds import Rounds
from ..statistics.sequential import look_seeds
from ..store.store import Store
from ..study.base import StudyPlan
from ..study.offline import OfflinePlan
from ..study.plan import Plan
from .chunk_error import ChunkErrors
from .measurement import Asked, G, Measurement
from .records.comparisons import Comparison
from .records.rounds import Ended, Looked, LookedContrast, Sequential
from .success import SuccessRates

WORDS: dict[Ended, str] = {
    "settled": "settled",
    "open": "open, with seeds to come",
    "used up": "open, with every seed used",
}
P = TypeVar("P", bound=StudyPlan[Any])
M = TypeVar("M", bound=Measurement[Any, Any, Any])
Levels = tuple[Any, ...]  # of a configuration, as ``Cell.levels``


def seeds_wanted(of: Measurement[G, Any, Any]) -> dict[Levels, int]:
    """How many of the study's first seeds each configuration needs for the next look; the first look's, at least."""
    first = look_seeds(len(of.study.factors.seed))[0]
    wanted: dict[Levels, int] = {g.cell.levels: first for g in of.groups}
    for asked, rounds in of.rounds:
        seeds = [rounds.next_seeds if i in rounds.growing else n for i, n in enumerate(rounds.seeds)]
        along = [(g, max(seeds)) for g in asked.beside]
        for g, needed in (*zip(asked.cells, seeds, strict=True), *along):
            wanted[g.cell.levels] = max(wanted[g.cell.levels], needed)
    return wanted


def measurement(plan: Plan | OfflinePlan, store: Store) -> Measurement[Any, Any, Any]:
    """What a study has measured so far."""
    return SuccessRates(plan, store) if isinstance(plan, Plan) else ChunkErrors(plan, store)


def next_plan(plan: Plan | OfflinePlan, store: Store) -> Plan | OfflinePlan:
    """``narrowed``, by what is in the store."""
    return narrowed(plan, measurement(plan, store))


def narrowed(plan: P, of: Measurement[G, Any, Any]) -> P:
    """The plan with the cells that the next look needs; with those that were looked at, when no look is left."""
    wanted = seeds_wanted(of)
    keep = set[tuple[Levels, int]]()
    for g in of.groups:
        lost = of.diverged(g)
        seeds = [s for s in plan.study.factors.seed if s not in lost][: wanted[g.cell.levels]]
        keep |= {(g.cell.levels, seed) for seed in (*seeds, *lost)}
    cells: list[Any] = [c for c in plan.cells if (c.levels, c.seed) in keep]
    return plan.with_cells(cells)


def as_if_measured(of: M) -> M:
    """A measurement of two seeds without a success, of every configuration: what could be asked of it."""
    made = copy(of)
    made.strata = of.strata if len(of.strata) else np.zeros(2, np.int64)
    rows, seeds = np.zeros((2, len(made.strata))), of.study.factors.seed[:2]
    made.groups = [replace(g, rows=rows, seeds=seeds) for g in of.groups]
    return made


def sequential(of: Measurement[G, Any, Any]) -> Sequential | None:
    """What the looks say; None of a study without."""
    until = of.until
    if until is None:
        return None
    return Sequential(
        question=until.question,
        within=until.within,
        looked=[_looked(of, asked, rounds) for asked, rounds in of.rounds],
        measured=sum(len(g.seeds) for g in of.groups),
        most=len(of.groups) * len(of.study.factors.seed),
        state=state(of),
    )


def _looked(of: Measurement[G, Any, Any], asked: Asked[G], rounds: Rounds) -> Looked:
    return Looked(
        label=asked.label,
        looks=rounds.looks,
        ended=_ended(rounds),
        seeds={of.label(g): n for g, n in zip(asked.cells, rounds.seeds, strict=True)},
        contrasts=[
            LookedContrast(**vars(judged.found), label=name)
            for name, judged in zip(asked.contrasts, rounds.judged, strict=True)
            if judged is not None
        ],
    )


def state(of: Measurement[G, Any, Any]) -> str:
    """How many questions are settled, in words; it needs no intervals."""
    ends = [_ended(rounds) for _, rounds in of.rounds]
    told = ", ".join(f"{ends.count(e)} {words}" for e, words in WORDS.items() if e in ends)
    return f"of {counted(len(ends), 'question')} {told}" if told else "no look yet"


def _ended(rounds: Rounds) -> Ended:
    if rounds.growing:
        return "open"
    return "settled" if rounds.settled else "used up"


def with_looks(of: Measurement[G, Any, Any], comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons; those that were asked as their last look has them."""
    judged = {
        name: found
        for asked, rounds in of.rounds
        for name, found in zip(asked.contrasts, rounds.judged, strict=True)
        if found is not None
    }
    return [
        replace(c, found=judged[c.label].found, p_holm=judged[c.label].found.p) if c.label in judged else c
        for c in comparisons
    ]
