"""Building what is missing of a graph, with progress, and the sentence where that ends early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError, counted
from ..store.engine import Engine, missing_steps, run_plan
from ..store.graph import Graph
from ..store.outcome import Outcome, Watchers
from ..store.store import Store
from .follower import Follower, following
from .options import Running
from .progress import RunWatcher


def build(
    plan: Graph,
    store: Store,
    folder: Path,
    running: Running,
    *,
    retry: bool = False,
    followers: Sequence[Follower] = (),
    engine: Engine | None = None,
) -> Outcome:
    """Build what is missing of a plan; the log lies in ``folder``. ``retry``: also trainings that diverged.

    ``engine``: that of ``running``, where it was made before.
    """
    engine, budget, todo = engine or running.make_engine(), running.seconds, missing_steps(plan, store)
    about = todo, len(plan.steps), max(1, running.workers)
    with (
        RunWatcher(*about, folder / "run.log") as watcher,
        following(followers, *about, watcher.warn) as told,
    ):
        watchers = Watchers(watcher, *told)
        return run_plan(plan, store, engine=engine, watcher=watchers, budget=budget, retry=retry)


def build_all(plan: Graph, store: Store, folder: Path, running: Running) -> None:
    """Build what is missing of a plan, or raise ``UserError`` with what failed or is left."""
    outcome = build(plan, store, folder, running)
    for failure in own_failures(outcome):
        raise UserError(f"{failure['step']}: {failure['sentence']}")
    if stopped := ended_early(outcome, len(missing_steps(plan, store))):
        raise UserError(stopped)


def own_failures(outcome: Outcome) -> list[dict[str, str]]:
    """The records of the steps that failed themselves, and not because of another one."""
    return [f for f in outcome.failures.values() if "because" not in f]


def ended_early(outcome: Outcome, left: int) -> str | None:
    """The sentence that says how to go on with a run that its budget ended, with ``left`` steps to do; else None.

    Raises ``KeyboardInterrupt`` with that sentence where Ctrl-C ended it: what was built is kept.
    """
    sentence = f"stopped with {counted(left, 'step')} to go; the same command goes on from here"
    if outcome.interrupted:
        raise KeyboardInterrupt(sentence)
    return sentence if outcome.stopped else None
