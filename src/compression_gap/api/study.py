"""Studies: opened from a file, planned, run, and looked at while they run."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..costs.records import Estimate, Measured
from ..records import read_json
from ..statistics.sequential import LEAST_SEEDS
from ..store.claims import under_way
from ..store.engine import missing_steps
from ..store.outcome import Outcome, lasting_failure
from ..store.pace import Pace
from ..store.store import Store, disk_error, write_json
from ..study.file import Study, Until
from ..study.file import load_study as read_study
from ..study.offline import OfflinePlan
from ..study.plan import Plan
from ..study.plans import plan_study
from .build import build
from .follower import Follower
from .options import Running

STUDY = "study.json"  # in a study's folder: as it was run last


@dataclass(frozen=True)
class OpenStudy:
    """A study, its graph in a simulator or on recordings, and the store of its artefacts."""

    study: Study
    plan: Plan | OfflinePlan
    store: Store

    @property
    def folder(self) -> Path:
        """Where its report, summary and log lie; made if it is not there."""
        folder = _folder(self.store, self.study)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.store.root) from error
        return folder


def _folder(store: Store, study: Study) -> Path:
    return store.root / "studies" / study.name


def load_study(file: str | Path | None = None, preset: str | None = None) -> Study:
    """Read a study file, or a preset that ships with the program; with both, the file's factors at the preset's scale.

    Raises ``UserError`` with file and line for what is wrong in it.
    """
    return read_study(None if file is None else Path(file), preset)


def open_study(study: Study, store: str | Path = "store", *, sketch: bool = False) -> OpenStudy:
    """Plan a study, and open its store. ``sketch``: to be looked at (``Graph.absent``).

    A study that grew by seeds under its name goes on so: its results know of the looks (``results.rounds``).
    """
    plan, place = plan_study(study, store, sketch=sketch)
    if (
        study.until is None
        and len(study.factors.seed) >= LEAST_SEEDS
        and (file := _folder(place, study) / STUDY).is_file()
    ):
        until = read_json(file).get("until")
        study = study.model_copy(update={"until": None if until is None else Until.model_validate(until)})
        plan = replace(plan, study=study)
    return OpenStudy(study, plan, place)


def build_study(
    opened: OpenStudy, running: Running, *, retry: bool = False, followers: Sequence[Follower] = ()
) -> Outcome:
    """Build what is missing of a study. ``retry``: try trainings again that diverged; ``followers``: see ``beside``.

    Raises ``UserError`` now, not in a worker after minutes, when frames cannot be rendered.
    """
    _, engine = running.seconds, running.make_engine()  # wrong ones are refused before anything is written
    plan = opened.plan
    if plan.rolled_out is not None and plan.rolled_out.sim.sim in ("metaworld", "libero"):
        from ..sims.opengl import render_check

        if any(s.simulated for s in missing_steps(plan, opened.store)):
            render_check()
    keep_study(opened)
    return build(plan, opened.store, opened.folder, running, retry=retry, followers=followers, engine=engine)


def keep_study(opened: OpenStudy) -> None:
    """Write down the study as it is run: ``store list`` reads it, and a study that grows goes on so."""
    write_json(opened.folder / STUDY, opened.study.model_dump(mode="json"))


@dataclass(frozen=True)
class KindOfStep:
    """How many steps of a kind a plan has, and what the missing ones take, roughly."""

    steps: int
    missing: int
    core_seconds: float


@dataclass(frozen=True)
class PlannedStep:
    """One step; ``inputs``: the keys of those that it needs, by role."""

    kind: str
    key: str
    label: str
    missing: bool
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class PlanSummary:
    """What a study would build. ``protocol``: the hash of its rollouts' settings; None for recordings."""

    study: str
    tasks: Sequence[str]
    protocol: str | None
    cells: int
    references: Sequence[str]
    estimate: Estimate
    kinds: Mapping[str, KindOfStep]
    steps: Sequence[PlannedStep]


def describe_plan(study: Study, store: str | Path = "store", *, measure: bool = False) -> PlanSummary:
    """The steps of a study by kind, how many are there, and what is left would cost.

    ``measure``: a training step of each policy on this machine, which takes minutes.
    """
    from ..costs.benchmark import measure_steps, read_measured
    from ..costs.estimate import estimate, planned_policies

    opened = open_study(study, store, sketch=True)
    plan, place = opened.plan, opened.store
    missing = {s.key for s in missing_steps(plan, place)}
    if measure:
        measured: Measured | None = measure_steps(planned_policies(plan), place, say_measuring)
    else:
        measured = read_measured(place)
    kinds = {}
    for kind in dict.fromkeys(s.kind for s in plan.steps.values()):
        own = [s for s in plan.steps.values() if s.kind == kind]
        left = [s.cost for s in own if s.key in missing]
        kinds[kind] = KindOfStep(len(own), len(left), sum(left, 0.0))
    return PlanSummary(
        study=study.name,
        tasks=plan.tasks,
        protocol=None if plan.rolled_out is None else plan.rolled_out.hash,
        cells=len(plan.cells),
        references=[r.actor for r in plan.references],
        estimate=estimate(plan, place, missing, measured),
        kinds=kinds,
        steps=[
            PlannedStep(s.kind, s.key, s.label, s.key in missing, {r: i.key for r, i in s.inputs.items()})
            for s in plan.steps.values()
        ],
    )


def say_measuring(done: int, total: int, label: str) -> None:
    """One line for each policy that is measured."""
    print(f"cgap: measuring a training step, {done + 1} of {total}: {label}", file=sys.stderr)


@dataclass(frozen=True)
class PolicyPlace:
    """A policy of a study; ``folder``: where it lies, None before it is trained."""

    encoder: str
    action: str
    size: str
    seed: int
    folder: Path | None


@dataclass(frozen=True)
class StepUnderWay:
    """A step that some run is at, on this machine or on another. ``done`` of ``total``: 0 of 0 where it does not say."""

    step: str
    done: int
    total: int
    seconds: float


@dataclass(frozen=True)
class Status:
    """How far a study is; ``missing``: labels of steps, ``failed``: the records of failures (``failure_record``).

    ``seconds_left``: from the steps that were measured, with as many at a time as are running now, or as this machine
    has cores.
    """

    study: str
    steps: int
    done: int
    running: Sequence[StepUnderWay]
    seconds_left: float
    missing: Sequence[str]
    failed: Sequence[Mapping[str, str]]
    policies: Sequence[PolicyPlace]


def status(study: Study, store: str | Path = "store") -> Status:
    """How far a study is, and where its policies lie."""
    return status_of(open_study(study, store))


def status_of(opened: OpenStudy) -> Status:
    """How far an open study is; of one that grows by seeds, on the way to its next look."""
    from ..results.rounds import next_plan

    place = opened.store
    plan = opened.plan if opened.study.until is None else next_plan(opened.plan, place)
    missing = missing_steps(plan, place)
    by_key = {s.key: s for s in missing}
    at = {u.key: u for u in under_way(place) if u.key in by_key}
    pace = Pace.measured(plan.steps.values(), place)
    shares = {key: 1 - (u.done / u.total if u.total else 0) for key, u in at.items()}
    left = sum(pace.seconds(s) * shares.get(s.key, 1.0) for s in missing)
    policies = []
    for c in plan.cells:
        folder = place.path(c.policy) if place.has(c.policy) else None
        policies.append(PolicyPlace(c.encoder, c.action, c.size, c.seed, folder))
    return Status(
        study=opened.study.name,
        steps=len(plan.steps),
        done=len(plan.steps) - len(missing),
        running=[
            StepUnderWay(by_key[u.key].label, u.done, u.total, max(0.0, time.time() - u.since))
            for u in at.values()
        ],
        seconds_left=left / min(len(at) or os.cpu_count() or 1, max(1, len(missing))),
        missing=[s.label for s in missing],
        failed=[read_json(file) for s in missing if (file := lasting_failure(place, s)) is not None],
        policies=policies,
    )
