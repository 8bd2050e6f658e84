"""The report of a study that is still running: written anew when something has changed, and not too often.

It costs at most a twentieth of one core, at the lowest priority. The page asks the browser to load it again; the last
one, when the run ends, does not.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..results.measurement import label
from ..results.records.progress import CellProgress, Progress
from ..store.artifact import Artifact
from ..store.pace import time_left
from ..study.cells import Cell
from .follower import Follower, Say
from .study import OpenStudy, Status, status_of

EVERY = 10  # seconds between two pages, at least
SHARE = 0.05  # of the time, at most
PROGRESS = '<section class="progress">'  # of a page that is not the last one (report/templates/progress.html)
PATIENCE = 60.0  # seconds for the last page


def page_follower(opened: OpenStudy, command: str) -> Follower:
    """What keeps the report of a run up to date, in a process of its own."""
    path = opened.folder / "report.html"
    return Follower("the page", partial(_made, opened, command, path), path.with_name("page.log"), PATIENCE)


def _made(opened: OpenStudy, command: str, path: Path, say: Say) -> LivePage:
    say(f"page: {path}, written anew while the study runs")
    return LivePage(opened, command, path)


class LivePage:
    """One page; a ``Following``, and written by ``study status --page`` as well."""

    def __init__(self, opened: OpenStudy, command: str, path: Path) -> None:
        self.opened, self.command, self.path = opened, command, path
        self.failures: dict[str, str] = {}  # of this run; the store keeps those of diverged trainings alone
        self.shown: Any = None
        self.due = 0.0

    def begin(self, steps: Sequence[Artifact], total: int, workers: int) -> None:
        """The store says it."""

    def started(self, step: Artifact) -> None:
        """The store says it."""

    def progress(self, step: Artifact, done: int, total: int) -> None:
        """The store says it."""

    def elsewhere(self, step: Artifact) -> None:
        """The store says it."""

    def finished(self, step: Artifact, seconds: float) -> None:
        """The store says it."""

    def failed(self, step: Artifact, record: dict[str, str]) -> None:
        """A crash is known to its run alone."""
        self.failures[step.label] = record["sentence"]

    def idle(self) -> None:
        """Write, if it is time and something has changed."""
        begun = time.monotonic()
        if begun >= self.due:
            self.show(status_of(self.opened))
            self.due = max(self.due, begun + (time.monotonic() - begun) / SHARE)

    def close(self) -> None:
        """The page that stays."""
        self.write(status_of(self.opened))

    def show(self, state: Status) -> None:
        """Write, if it is time and something has changed."""
        begun = time.monotonic()
        shares = [(r.step, 100 * r.done // max(1, r.total)) for r in state.running]
        shown = (state.done, shares, state.failed, list(self.failures))
        if begun >= self.due and shown != self.shown:
            self.write(state, refresh=EVERY)
            self.shown = shown
            self.due = begun + max(EVERY, (time.monotonic() - begun) / SHARE)

    def _complete(self) -> bool:
        """Whether the report of the whole study is there: it has videos, which this page has not."""
        return self.path.is_file() and PROGRESS not in self.path.read_text(encoding="utf-8")

    def write(self, state: Status, refresh: int | None = None) -> None:
        """Write it now, unless the report is complete. ``refresh``: seconds after which the browser loads it again."""
        from ..report.page import write_page
        from ..results.summary import summarise

        progress = None
        if state.done == state.steps and self._complete():
            return
        if refresh or state.done < state.steps:
            progress = progress_of(self.opened, state, self.failures, refresh=refresh)
        try:
            summary = replace(summarise(self.opened.plan, self.opened.store), command=self.command)
        except UserError as error:  # nothing has been measured
            print(error, file=sys.stderr)
            write_page(None, [], self.path, progress)
        else:
            write_page(summary, [], self.path, progress)


def progress_of(
    opened: OpenStudy, state: Status, failures: Mapping[str, str], *, refresh: int | None
) -> Progress:
    """How far a study is, configuration by configuration. ``failures``: sentences by step, beside the state's."""
    known = {f["step"]: f["sentence"] for f in state.failed} | dict(failures)
    at = {r.step: f", {100 * r.done / r.total:.0f} %" if r.total else "" for r in state.running}
    groups: dict[Any, list[Cell[Any]]] = {}
    for cell in opened.plan.cells:
        groups.setdefault(cell.levels, []).append(cell)
    return Progress(
        study=opened.study.name,
        done=state.done,
        steps=state.steps,
        left=time_left(state.seconds_left),
        running=[f"{r.step}{at[r.step]}, {r.seconds:.0f} s" for r in state.running],
        failed=[f"{step}: {sentence}" for step, sentence in known.items()],
        cells=[_cell(opened, cells, at, known) for cells in groups.values()],
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
        refresh=refresh,
    )


def _cell(
    opened: OpenStudy, cells: Sequence[Cell[Any]], at: Mapping[str, str], failures: Mapping[str, str]
) -> CellProgress:
    has, now = opened.store.recorded, []
    for cell in cells:
        for step, doing in ((cell.policy, "training"), (cell.evidence, "evaluation")):
            if step.label in at:
                now.append(f"seed {cell.seed}: {doing}{at[step.label]}")
            elif step.label in failures:
                now.append(f"seed {cell.seed}: {doing} failed")
    return CellProgress(
        label=label(cells[0], opened.study),
        seeds=len(cells),
        trained=sum(has(c.policy) for c in cells),
        measured=sum(has(c.evidence) for c in cells),
        now=now,
    )
