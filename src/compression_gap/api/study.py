"""Studies: opened from a file, planned, run, and looked at while they run."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..records import read_json
from ..store.engine import missing_steps
from ..store.outcome import Outcome, failure_file
from ..store.store import Store, disk_error, write_json
from ..study.file import Study
from ..study.file import load_study as read_study
from ..study.offline import OfflinePlan
from ..study.plan import Plan
from ..study.plans import plan_study
from .build import build
from .options import Running


@dataclass(frozen=True)
class OpenStudy:
    """A study, its graph in a simulator or on recordings, and the store of its artefacts."""

    study: Study
    plan: Plan | OfflinePlan
    store: Store

    @property
    def folder(self) -> Path:
        """Where its report, summary and log lie; made if it is not there."""
        folder = self.store.root / "studies" / self.study.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.store.root) from error
        return folder


def load_study(file: str | Path | None = None, preset: str | None = None) -> Study:
    """Read a study file, or a preset that ships with the program; with both, the file's factors at the preset's scale.

    Raises ``UserError`` with file and line for what is wrong in it.
    """
    return read_study(None if file is None else Path(file), preset)


def open_study(study: Study, store: str | Path = "store", *, sketch: bool = False) -> OpenStudy:
    """Plan a study, and open its store. ``sketch``: to be looked at (``Graph.absent``)."""
    return OpenStudy(study, *plan_study(study, Path(store), sketch=sketch))


def build_study(opened: OpenStudy, running: Running, *, retry: bool = False) -> Outcome:
    """Build what is missing of a study. ``retry``: try trainings again that diverged.

    Raises ``UserError`` now, not in a worker after minutes, when frames cannot be rendered.
    """
    _ = running.seconds, running.workers  # wrong ones are refused before anything is written
    plan = opened.plan
    if plan.rolled_out is not None and plan.rolled_out.sim.sim in ("metaworld", "libero"):
        from ..sims.opengl import render_check

        if any(s.simulated for s in missing_steps(plan, opened.store)):
            render_check()
    write_json(opened.folder / "study.json", opened.study.model_dump(mode="json"))
    return build(plan, opened.store, opened.folder, running, retry=retry)


def describe_plan(study: Study, store: str | Path = "store", *, measure: bool = False) -> dict[str, Any]:
    """The steps of a study by kind, how many are there, and what is left would cost.

    ``measure``: a training step of each policy on this machine, which takes minutes.
    """
    from ..costs.benchmark import measure_steps, read_measured
    from ..costs.estimate import estimate, planned_policies

    opened = open_study(study, store, sketch=True)
    plan, place = opened.plan, opened.store
    missing = {s.key for s in missing_steps(plan, place)}
    if measure:
        measured: dict[str, Any] | None = measure_steps(planned_policies(plan), place, say_measuring)
    else:
        measured = read_measured(place)
    kinds: dict[str, dict[str, float]] = {}
    for step in plan.steps.values():
        row = kinds.setdefault(step.kind, {"steps": 0, "missing": 0, "core_seconds": 0.0})
        row["steps"] += 1
        if step.key in missing:
            row["missing"] += 1
            row["core_seconds"] += step.cost
    return {
        "study": study.name,
        "tasks": list(plan.tasks),
        "protocol": None if plan.rolled_out is None else plan.rolled_out.hash,
        "cells": len(plan.cells),
        "references": [r.actor for r in plan.references],
        "estimate": estimate(plan, place, missing, measured),
        "kinds": kinds,
        "steps": [
            {
                "kind": s.kind,
                "key": s.key,
                "label": s.label,
                "missing": s.key in missing,
                "inputs": {role: i.key for role, i in s.inputs.items()},
            }
            for s in plan.steps.values()
        ],
    }


def say_measuring(done: int, total: int, label: str) -> None:
    """One line for each policy that is measured."""
    print(f"cgap: measuring a training step, {done + 1} of {total}: {label}", file=sys.stderr)


def status(study: Study, store: str | Path = "store") -> dict[str, Any]:
    """How far a study is, and where its policies lie."""
    opened = open_study(study, store)
    plan, place = opened.plan, opened.store
    missing = missing_steps(plan, place)
    failed = [read_json(failure_file(place, s)) for s in missing if failure_file(place, s).exists()]
    return {
        "study": study.name,
        "steps": len(plan.steps),
        "done": len(plan.steps) - len(missing),
        "missing": [s.label for s in missing],
        "failed": failed,
        "policies": [
            {
                "encoder": c.encoder,
                "action": c.action,
                "size": c.size,
                "seed": c.seed,
                "folder": str(place.path(c.policy)) if place.has(c.policy) else None,
            }
            for c in plan.cells
        ],
    }
