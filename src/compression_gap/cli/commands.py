"""What the verbs do, apart from reading arguments and drawing tables. Usable from Python."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..artifacts.demonstrations import Demonstrations
from ..errors import UserError, counted
from ..records import read_json
from ..sims import EvaluationProtocol
from ..store.graph import Graph
from ..store.store import Store, disk_error, write_json
from ..study.base import StudyPlan
from ..study.file import Cameras, Study, Tokenizer, load_study
from ..study.offline import OfflinePlan
from ..study.plan import Plan
from ..study.plans import plan_study
from ..study.tokenizer_table import TableSpec
from ..tokenizers.levels import Levels, as_levels
from .options import print_json

if TYPE_CHECKING:
    from ..results.records.study import ErrorSummary, SuccessSummary, Video
    from ..results.records.tokenizers import TokenizerTable
    from ..store.outcome import Outcome


def open_study(
    file: Path | None, preset: str | None, store_root: Path, *, sketch: bool = False
) -> tuple[Study, Plan | OfflinePlan, Store]:
    """A study, its plan and its store. ``sketch``: to be looked at (``Graph.absent``)."""
    study = load_study(file, preset)
    return study, *plan_study(study, store_root, sketch=sketch)


def seconds(budget: str | None) -> float | None:
    """ "90s", "9m", "2h" → seconds."""
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    if not match:
        raise UserError(f"--budget '{budget}' is not a time; write it as 90s, 9m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def processes_of(asked: int | None) -> int:
    """How many workers: as asked, or as many as there are cores."""
    if asked is not None and asked < 0:
        raise UserError(f"--processes {asked} is negative; give 0 (this process alone) or more")
    return (os.cpu_count() or 1) if asked is None else asked


def at_least(least: int, **given: int | None) -> None:
    """Refuse options below their least value."""
    for name, value in given.items():
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value} is too small; give {least} or more")


def check_sigma(sigma: float | None) -> None:
    """Refuse a resolution that is none."""
    if sigma is not None and not 0 < sigma < float("inf"):
        raise UserError(f"--sigma {sigma} is no resolution; give standard deviations above 0")


def folder_of(path: Path) -> Path:
    """Make a folder that the user named."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path} ({error.strerror}); name another one") from error
    return path


def _check_rendering(protocol: EvaluationProtocol) -> None:
    """Fail in a sentence now, not in a worker after minutes, when frames cannot be rendered."""
    if protocol.sim.sim in ("metaworld", "libero"):
        from ..sims.opengl import render_check

        render_check()


def study_folder(study: Study, store: Store) -> Path:
    """Where a study's report, summary and log lie."""
    folder = store.root / "studies" / study.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, store.root) from error
    return folder


def run_study(
    file: Path | None,
    preset: str | None,
    store_root: Path,
    budget: str | None,
    processes: int | None,
    retry: bool,
    report: bool,
    as_json: bool,
) -> int:
    """Run a study and report it; the exit code says whether all of it is there."""
    from ..store.engine import missing_steps, run_plan
    from .terminal import RunWatcher, failures_list, study_tables

    study, plan, store = open_study(file, preset, store_root)
    limit, workers = seconds(budget), processes_of(processes)
    todo = missing_steps(plan, store)
    if plan.rolled_out is not None and any(s.simulated for s in todo):
        _check_rendering(plan.rolled_out)
    folder = study_folder(study, store)
    write_json(folder / "study.json", study.model_dump(mode="json"))
    begun = time.monotonic()
    with RunWatcher(todo, len(plan.steps), max(1, workers), folder / "run.log") as watcher:
        outcome = run_plan(plan, store, processes=workers, watcher=watcher, budget=limit, retry=retry)
    wanted_failures = {k: f for k, f in outcome.failures.items() if "because" not in f}
    failures_list(list(wanted_failures.values()))
    stopped = ended_early(outcome, len(missing_steps(plan, store)))
    if stopped:
        print(stopped)
    crashed = [f for f in wanted_failures.values() if f["kind"] == "crash"]
    refused = [f for f in wanted_failures.values() if f["kind"] in ("user", "simulator")]
    if report and not outcome.stopped and not crashed and not refused:
        path, summary = report_plan(study, plan, store, None, 2, command=_command(file, preset))
        if as_json:
            print_json(summary)
        else:
            study_tables(summary)
            print(
                f"{counted(len(outcome.built), 'step')} built, the rest reused, in {time.monotonic() - begun:.0f} s"
            )
            print(f"report: {path}")
    if refused:
        raise UserError(refused[0]["sentence"])
    return 1 if crashed else 0


def ended_early(outcome: Outcome, left: int) -> str | None:
    """The sentence that says how to go on with a run that its budget ended, with ``left`` steps to do; else None.

    Raises ``KeyboardInterrupt`` with that sentence where Ctrl-C ended it: what was built is kept.
    """
    sentence = f"stopped with {counted(left, 'step')} to go; the same command goes on from here"
    if outcome.interrupted:
        raise KeyboardInterrupt(sentence)
    return sentence if outcome.stopped else None


def _command(file: Path | None, preset: str | None) -> str:
    parts = ["cgap study run", *([file.name] if file else []), *(["--preset", preset] if preset else [])]
    return " ".join(parts)


def describe_plan(
    file: Path | None, preset: str | None, store_root: Path, *, measure: bool = False
) -> dict[str, Any]:
    """The steps of a study by kind, how many are there, and what is left would cost.

    ``measure``: a training step of each policy on this machine, which takes minutes.
    """
    from ..costs.benchmark import measure_steps, read_measured
    from ..costs.estimate import estimate, planned_policies
    from ..store.engine import missing_steps

    study, plan, store = open_study(file, preset, store_root, sketch=True)
    missing = {s.key for s in missing_steps(plan, store)}
    if measure:
        measured: dict[str, Any] | None = measure_steps(planned_policies(plan), store, say_measuring)
    else:
        measured = read_measured(store)
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
        "estimate": estimate(plan, store, missing, measured),
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


def status(file: Path | None, preset: str | None, store_root: Path) -> dict[str, Any]:
    """How far a study is, and where its policies lie."""
    from ..store.engine import missing_steps
    from ..store.outcome import failure_file

    study, plan, store = open_study(file, preset, store_root)
    missing = missing_steps(plan, store)
    failed = [read_json(failure_file(store, s)) for s in missing if failure_file(store, s).exists()]
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
                "folder": str(store.path(c.policy)) if store.has(c.policy) else None,
            }
            for c in plan.cells
        ],
    }


def demos_steps(
    suite_name: str, episodes: int, cameras: Cameras, origin: str = "expert"
) -> list[Demonstrations]:
    """The demonstrations of a suite's tasks; the same artefacts that a study would make."""
    from ..study.parts import demonstrations_of
    from ..study.setting import resolve_suite

    if episodes < 3:
        raise UserError(f"{episodes} episodes are too few: a three-way split needs at least 3 per task")
    spec, info = resolve_suite(suite_name, cameras)
    return [demonstrations_of(spec, task, episodes, info.versions, origin) for task in spec.tasks]


def make_demos(
    suite_name: str,
    episodes: int,
    cameras: tuple[str, ...],
    image_size: int,
    store_root: Path,
    processes: int | None,
    preset: str | None,
) -> list[dict[str, Any]]:
    """Collect demonstrations of a suite's tasks."""
    from ..store.engine import run_steps
    from .terminal import RunWatcher

    at_least(8, image_size=image_size)
    seen = Cameras(names=cameras, image_size=image_size)
    if preset is not None:
        at = load_study(None, preset)
        episodes, seen = max(at.factors.demos), at.cameras
    steps = demos_steps(suite_name, episodes, seen)
    store = Store(store_root)
    missing = [s for s in steps if not store.has(s)]
    workers = processes_of(processes)
    with RunWatcher(missing, len(steps), max(1, workers), store.root / "demos.log") as watcher:
        outcome = run_steps(missing, store, processes=workers, watcher=watcher)
    for failure in outcome.failures.values():
        raise UserError(failure["sentence"])
    ended_early(outcome, sum(not store.has(s) for s in steps))
    return describe_demos(steps, store)


def describe_demos(steps: list[Demonstrations], store: Store) -> list[dict[str, Any]]:
    """The sets that these steps made."""
    out = []
    for step in steps:
        folder, demos = store.open(step), step.load(store)
        out.append(
            {
                "task": step.task,
                "key": step.key,
                "folder": str(folder),
                "episodes": len(demos.episodes),
                "frames": len(demos.actions),
                "cameras": list(demos.images),
                "action_dim": demos.actions.shape[1],
            }
        )
    return out


def codebook(text: str) -> Levels:
    """``fsq-1000`` or ``8,5,5,5`` → levels."""
    if re.fullmatch(r"\d+(,\d+)*", text):
        return as_levels([int(n) for n in text.split(",")])
    return as_levels(text)


def tokenizer_section(
    *, tokens: int, size: Literal["xs", "S", "M"], steps: int, batch_size: int
) -> Tokenizer:
    """The study file's section of that name, from options."""
    at_least(1, tokens=tokens, steps=steps, batch_size=batch_size)
    return Tokenizer.model_validate(
        {"tokens": tokens, "size": size, "steps": steps, "batch_size": batch_size}
    )


def compare_tokenizers(
    demos: tuple[str, ...],
    spec: TableSpec,
    demo_episodes: int,
    preset: str | None,
    store_root: Path,
    processes: int | None,
    budget: str | None,
    out: Path | None,
) -> tuple[Path, TokenizerTable]:
    """Fit and measure tokenizers on demonstrations: a suite's, or those in folders of a store."""
    from ..report.tokenizers import write_tokenizer_page
    from ..results.records.json import as_json
    from ..results.tokenizer_table import read_table
    from ..study.tokenizer_table import plan_table

    at_least(1, horizon=spec.horizon, execute=spec.execute, prior_steps=spec.prior_steps)
    at_least(0, episodes=spec.episodes)
    check_sigma(spec.sigma)
    cameras = Cameras()
    if preset is not None:
        at = load_study(None, preset)
        demo_episodes, cameras = max(at.factors.demos), at.cameras
        spec = replace(spec, section=at.tokenizer, episodes=at.rollout.episodes_per_task)
    found_demos = find_demos(demos, demo_episodes, cameras, store_root)
    if found_demos is None:
        raise UserError(f"{', '.join(demos)}: name one suite, or folders STORE/demos/KEY that exist")
    store, sets, name = found_demos
    plan = plan_table(spec, sets)
    folder = folder_of(store.root / "tokenizer-tables" / name)
    run_all(plan, store, folder, processes, budget)
    found = read_table(plan, store, demos[0] if any(d.found is None for d in sets) else None)
    path = out or folder / "tokenizers.html"
    folder_of(path.parent)
    write_tokenizer_page(found, path)
    write_json(folder / "tokenizers.json", as_json(found))
    return path, found


def find_demos(
    names: tuple[str, ...], episodes: int, cameras: Cameras, store_root: Path
) -> tuple[Store, list[Demonstrations], str] | None:
    """Demonstrations of one suite (to be collected), or in folders of a store; None if the names are neither.

    Their store, the sets, and a name for what is made of them.
    """
    from ..artifacts.demonstrations import open_demos

    if names and all(Path(n).is_dir() for n in names):
        store, sets = open_demos([Path(n) for n in names])
        return store, sets, "-".join(d.key[:8] for d in sets)
    for name in names:
        if len(names) > 1 or _is_path(name):
            _check_folder(name)
    if len(names) != 1:
        return None
    sets = demos_steps(names[0], episodes, cameras)
    return Store(store_root), sets, re.sub(r"[^a-z0-9]+", "-", names[0])


def _is_path(name: str) -> bool:
    """Whether a name can only be a folder's: a suite is written SIMULATOR or SIMULATOR/TASKS."""
    from ..sims.registry import simulators

    sim, *rest = name.split("/")
    return (bool(rest) and sim not in simulators()) or name.startswith((".", "~")) or Path(name).exists()


def _check_folder(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        return
    what = f"{name} is a file" if path.exists() else f"there is no folder {name}"
    raise UserError(f"{what}; name one suite, or folders STORE/demos/KEY as 'cgap demos make' prints them")


def run_all(plan: Graph, store: Store, folder: Path, processes: int | None, budget: str | None) -> None:
    """Build what is missing of a plan, or raise ``UserError`` with what failed or is left."""
    from ..store.engine import missing_steps, run_steps
    from .terminal import RunWatcher

    workers, limit, todo = processes_of(processes), seconds(budget), missing_steps(plan, store)
    with RunWatcher(todo, len(plan.steps), max(1, workers), folder / "run.log") as watcher:
        outcome = run_steps(todo, store, processes=workers, watcher=watcher, budget=limit)
    for failure in outcome.failures.values():
        raise UserError(f"{failure['step']}: {failure['sentence']}")
    if stopped := ended_early(outcome, len(missing_steps(plan, store))):
        raise UserError(stopped)


def write_report(
    file: Path | None, preset: str | None, store_root: Path, out: Path | None, videos: int
) -> tuple[Path, SuccessSummary | ErrorSummary]:
    """The report of what a study has measured so far."""
    study, plan, store = open_study(file, preset, store_root)
    return report_plan(study, plan, store, out, videos, command=_command(file, preset))


def report_plan(
    study: Study, plan: Plan | OfflinePlan, store: Store, out: Path | None, videos: int, *, command: str
) -> tuple[Path, SuccessSummary | ErrorSummary]:
    """Summarise, film, draw, write."""
    from ..report.page import write_page
    from ..results.records.json import as_json

    summary = replace(summarise_study(plan, store), command=command)
    folder = study_folder(study, store)
    path = out or folder / "report.html"
    folder_of(path.parent)
    films = _films(plan, store, videos) if videos else []
    write_page(summary, films, path)
    write_json(folder / "summary.json", as_json(summary))
    return path, summary


def summarise_study(plan: Plan | OfflinePlan, store: Store) -> SuccessSummary | ErrorSummary:
    """What a study has measured so far. Raises ``UserError`` if that is nothing."""
    from ..results.summary import summarise

    return summarise(plan, store)


def _films(plan: StudyPlan[Any], store: Store, cells: int) -> list[Video]:
    """One success and one failure each of the best and the worst policies: artefacts, too."""
    from ..results.films import film_cells

    if plan.rolled_out is not None and find_spec("av") is None:
        print('cgap: no films: they need PyAV (pip install "compression-gap[metaworld]")', file=sys.stderr)
        return []
    return film_cells(plan, store, cells)
