"""Engines: what is missing of a graph is built, by this process, by worker processes, or by a cluster.

A step's result is an artefact in the store, so an engine keeps no state of its own: killed at any moment
and started again, or another one in its place, it builds what is missing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Protocol

from ..errors import Interrupted, UserError
from ..records import read_json
from .artifact import AGAIN, Artifact, build
from .claims import Busy
from .graph import Graph
from .outcome import Outcome, Watcher, failure_file, failure_record
from .schedule import Report, Schedule
from .store import Store


class Engine(Protocol):
    """Builds the steps of a schedule."""

    def run(self, schedule: Schedule) -> None:
        """Take steps from the schedule and say how each went, until ``schedule.go_on()`` is false."""


class InProcess:
    """This process alone, step after step."""

    def run(self, schedule: Schedule) -> None:
        """As an engine does."""
        while schedule.go_on():
            if step := schedule.take():
                told = partial(schedule.watcher.progress, step)
                schedule.went(step, attempt(step, schedule.store, told, schedule.should_stop))
            elif not schedule.stopping:
                time.sleep(AGAIN)  # what is left, another run builds


def attempt(
    step: Artifact, store: Store, progress: Callable[[int, int], None], should_stop: Callable[[], bool]
) -> Report:
    """Build a step where its inputs are; how that went, as what can be sent to another process."""
    try:
        return "done", build(step, store, progress=progress, should_stop=should_stop, wait=False)
    except Busy:
        return "busy", None
    except Interrupted:
        return "interrupted", None
    except Exception as error:
        return "failed", failure_record(step, error)


def missing_steps(plan: Graph, store: Store) -> list[Artifact]:
    """The steps still to run: those that a result needs, directly or not, and that are not in the store.

    What is wanted for itself and has left its record (``Store.keep_record``) is done; an input's files are needed.
    """
    missing: dict[str, Artifact] = {}

    def visit(step: Artifact) -> None:
        if step.key in missing or store.has(step):
            return
        if step.key not in plan.steps:
            raise UserError(f"{step.kind} {step.key} is no longer in the store {store.root}")
        for needed in step.inputs.values():
            visit(needed)
        missing[step.key] = step

    for step in plan.wanted:
        if not store.recorded(step):
            visit(step)
    return list(missing.values())


def run_plan(
    plan: Graph,
    store: Store,
    *,
    engine: Engine,
    watcher: Watcher,
    budget: float | None = None,
    retry: bool = False,
) -> Outcome:
    """Build what is missing.

    ``budget`` (seconds) stops at the end of a step or at a training's checkpoint. A step that failed for
    good (a diverged training) is not tried again unless ``retry``. Nothing is built for results alone that a
    failure has put out of reach.
    """
    steps, goals = missing_steps(plan, store), {a.key for a in plan.wanted}
    return run_steps(steps, store, engine=engine, watcher=watcher, budget=budget, retry=retry, goals=goals)


def run_steps(
    steps: Sequence[Artifact],
    store: Store,
    *,
    engine: Engine,
    watcher: Watcher,
    budget: float | None = None,
    retry: bool = False,
    goals: Set[str] | None = None,
) -> Outcome:
    """Build these steps, which stand in an order in which they can run. See ``run_plan``.

    ``goals``: the keys that are wanted for themselves; all of them, if it is left out.
    """
    goals = {s.key for s in steps} if goals is None else goals
    store.sweep()
    outcome = Outcome()
    for step in steps:
        record = failure_file(store, step)
        if record.exists():
            if retry:
                shutil.rmtree(store.work(step))  # its checkpoint may hold what went wrong
                record.unlink()
            else:
                outcome.failures[step.key] = read_json(record)
    deadline = None if budget is None else time.monotonic() + budget
    engine.run(Schedule(steps, store, watcher, outcome, goals, deadline))
    return outcome
