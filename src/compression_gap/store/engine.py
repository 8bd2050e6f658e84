"""The local engine: what is missing of a graph is built, here or by worker processes.

A step's result is an artefact in the store, so the engine keeps no state of its own: killed at any moment
and started again, it builds what is missing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence, Set
from functools import partial

from ..errors import Interrupted, UserError
from ..records import read_json
from .artifact import Artifact, build
from .claims import Busy
from .graph import Graph
from .outcome import Outcome, Watcher, after_failures, failure_file, failure_record, note_failure
from .store import Store
from .workers import Pool


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
    processes: int,
    watcher: Watcher,
    budget: float | None = None,
    retry: bool = False,
) -> Outcome:
    """Build what is missing. ``processes`` = 0 builds in this process, step after step.

    ``budget`` (seconds) stops at the end of a step or at a training's checkpoint. A step that failed for
    good (a diverged training) is not tried again unless ``retry``. Nothing is built for results alone that a
    failure has put out of reach.
    """
    return run_steps(
        missing_steps(plan, store),
        store,
        processes=processes,
        watcher=watcher,
        budget=budget,
        retry=retry,
        goals={a.key for a in plan.wanted},
    )


def run_steps(
    steps: Sequence[Artifact],
    store: Store,
    *,
    processes: int,
    watcher: Watcher,
    budget: float | None = None,
    retry: bool = False,
    goals: Set[str] | None = None,
) -> Outcome:
    """Build these steps, which stand in an order in which they can run. See ``run_plan``.

    ``goals``: the keys that are wanted for themselves; all of them, if it is left out.
    """
    steps, goals = list(steps), {s.key for s in steps} if goals is None else goals
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
    if processes == 0:
        _run_here(steps, store, watcher, deadline, outcome, goals)
    else:
        Pool(steps, store, processes, watcher, deadline, outcome, goals).run()
    return outcome


def _run_here(
    steps: list[Artifact],
    store: Store,
    watcher: Watcher,
    deadline: float | None,
    outcome: Outcome,
    goals: Set[str],
) -> None:
    def past() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    after_failures(steps, steps, goals, outcome)
    for at, step in enumerate(steps):
        if step.key in outcome.failures:
            continue
        if past():
            outcome.stopped = True
            return
        watcher.started(step)
        begun = time.monotonic()
        build_it = partial(build, step, store, progress=partial(watcher.progress, step), should_stop=past)
        try:
            try:
                own = build_it(wait=False)
            except Busy:
                watcher.elsewhere(step)
                own = build_it()
        except Interrupted:
            outcome.stopped = True
            return
        except Exception as error:
            note_failure(store, step, failure_record(step, error), outcome)
            after_failures(steps, steps[at + 1 :], goals, outcome)
            watcher.failed(step, outcome.failures[step.key])
            continue
        if own:
            outcome.built.append(step.key)
        watcher.finished(step, time.monotonic() - begun)
