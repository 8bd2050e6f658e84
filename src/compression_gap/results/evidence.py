"""Evidence: the episode rows of a study, read, checked and gathered by cell.

An evidence row is one episode. Rows are unique in (actor, protocol, task, initial state, repeat); a set of
rows that is not, or that was measured under another protocol, is refused.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..artifacts.episodes import Episodes, read_columns
from ..errors import UserError
from ..sims import EvaluationProtocol
from ..store.store import Keyed, Store
from ..study.cells import Cell, Reference
from ..study.plan import Plan
from .measurement import Group, replicates


class Measured(Protocol):
    """What evidence is read for: a study's plan, or any protocol with its tasks."""

    @property
    def protocol(self) -> EvaluationProtocol:
        """How success was measured."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The protocol's tasks."""


@dataclass(frozen=True, eq=False)
class SuccessGroup(Group[Episodes]):
    """Success by initial state [seeds, states]; ``decode_failures``: a share of decisions."""

    by_step: np.ndarray | None = (
        None  # float [seeds, checkpoints]: success of each; None where one alone is evaluated
    )
    chosen: tuple[int, ...] = ()  # then for each seed the training step whose success counts


@dataclass(frozen=True)
class MeasuredReference:
    """A reference with its evidence: one run, or a run for each fitted tokenizer."""

    reference: Reference
    seeds: tuple[int, ...]  # of the fitted tokenizers; empty where nothing random is fitted
    success: np.ndarray  # float [runs, states]


def read_rows(plan: Measured, store: Store, episodes: Keyed) -> dict[str, np.ndarray] | None:
    """The verified rows of one ``episodes`` artefact by column, or None if it is not there yet."""
    if not store.has(episodes):
        return None
    rows = read_columns(episodes, store)
    if set(rows["protocol"]) != {plan.protocol.hash}:
        raise UserError(
            f"episodes {episodes.key} were measured under another protocol than {plan.protocol.hash}: "
            "rates of two protocols cannot be compared; run the study again"
        )
    return rows


def success_matrix(plan: Measured, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Success per initial state [states], averaged over repeats, in the protocol's order."""
    tasks, states = list(plan.tasks), list(plan.protocol.initial_states)
    place = {(task, state): i for i, (task, state) in enumerate(itertools.product(tasks, states))}
    asked = zip(rows["task"], rows["initial_state"], strict=True)
    at = np.array([place.get((str(task), int(state)), -1) for task, state in asked], dtype=np.int64)
    repeat, success = rows["repeat"].astype(np.int64), rows["success"].astype(np.float64)
    known = np.flatnonzero(at >= 0)
    order = known[np.lexsort((repeat[known], at[known]))]
    twice = np.flatnonzero((np.diff(at[order]) == 0) & (np.diff(repeat[order]) == 0))
    if len(twice):
        one = order[twice[0]]
        raise UserError(
            f"two rows for {rows['task'][one]}, initial state {int(rows['initial_state'][one])}, repeat {int(repeat[one])}: "
            "evidence counted twice"
        )
    counts = np.bincount(at[known], minlength=len(place))
    if len(known) < len(at) or (counts != plan.protocol.repeats).any():
        raise UserError("the episode rows are not those of the protocol; run the study again")
    return np.asarray(np.bincount(at, weights=success, minlength=len(place)) / plan.protocol.repeats)


def measured_reference(plan: Measured, store: Store, of: Reference) -> MeasuredReference | None:
    """A reference's runs that are there; None without any."""
    runs = {s: rows for s, run in of.runs.items() if (rows := read_rows(plan, store, run)) is not None}
    if not runs:
        return None
    success = np.stack([success_matrix(plan, rows) for rows in runs.values()])
    return MeasuredReference(of, tuple(s for s in runs if s is not None), success)


def strata(plan: Measured) -> np.ndarray:
    """The task index of each initial state [states]."""
    return np.repeat(np.arange(len(plan.tasks)), plan.protocol.episodes_per_task)


def groups(plan: Plan, store: Store) -> list[SuccessGroup]:
    """The cells of the factorial with their evidence, in the plan's order."""
    out = []
    for cells in replicates(plan.cells):
        measured = [(c.seed, e) for c in cells if (e := _evaluated(plan, store, c)) is not None]
        seeds, found = tuple(seed for seed, _ in measured), [e for _, e in measured]
        decisions = sum(int(e.rows["decisions"].sum()) for e in found)
        failures = sum(int(e.rows["decode_failures"].sum()) for e in found)
        out.append(
            SuccessGroup(
                tuple(cells),
                seeds,
                np.stack([e.success for e in found]) if found else None,
                failures / decisions if decisions else None,
                np.stack([e.by_step for e in found]) if found and cells[0].checkpoints else None,
                tuple(e.step for e in found) if cells[0].checkpoints else (),
            )
        )
    return out


@dataclass(frozen=True)
class _Evaluated:
    """The evaluation of one training that counts, and the success of all its checkpoints."""

    step: int
    rows: dict[str, np.ndarray]
    success: np.ndarray  # [states]
    by_step: np.ndarray  # [checkpoints]; NaN where one is not measured


def _evaluated(plan: Plan, store: Store, cell: Cell) -> _Evaluated | None:
    """``rollout.select``: the final checkpoint, or the best one, of equals the latest.

    None until that is known: a peak is one of all its evaluations.
    """
    final = (int(cell.policy.training["steps"]), cell.evidence) if cell.checkpoints else (0, cell.evidence)
    runs = [(step, read_rows(plan, store, run)) for step, run in (*cell.checkpoints, final)]
    success = [None if rows is None else success_matrix(plan, rows) for _, rows in runs]
    by_step = np.array([np.nan if s is None else s.mean() for s in success])
    at = len(runs) - 1
    if plan.study.rollout.select == "peak":
        if np.isnan(by_step).any():
            return None
        at = int(np.flatnonzero(by_step == by_step.max())[-1])
    (step, rows), counted = runs[at], success[at]
    return None if rows is None or counted is None else _Evaluated(step, rows, counted, by_step)
