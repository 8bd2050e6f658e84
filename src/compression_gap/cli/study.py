"""The verbs on a study: study plan, study run, study status, report."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from ..errors import UserError, counted
from .options import OneStudy, Running, Runs, print_json

if TYPE_CHECKING:
    from ..api.study import OpenStudy


@dataclass(frozen=True)
class PlanOptions(OneStudy):
    """Show what a study would build, what of it is there already, and what it would cost.

    Example: cgap study plan --preset demo
    """

    measure: bool = False
    """run a few training steps of each policy on this machine first (minutes); the store keeps them."""


def plan(options: PlanOptions) -> None:
    """Print the steps and the costs."""
    from ..api.study import describe_plan

    found = describe_plan(options.load(), options.store, measure=options.measure)
    if options.json:
        print_json(found)
    else:
        from .terminal_plan import plan_table

        plan_table(found)


@dataclass(frozen=True)
class RunOptions(OneStudy):
    """Run a study: build what is missing, then write the report. The same command goes on where it stopped.

    Example: cgap study run --preset tiny
    """

    running: Runs = field(default_factory=Running)
    retry: bool = False
    """try cells again whose training diverged."""
    until: Literal["separated"] | None = None
    """add seeds in rounds, where the study's question (until.question) is open, and stop when it is answered."""
    within: float | None = None
    """with --until: an interval of ± so many percentage points is narrow enough (of recordings: standard deviations²)."""
    report: bool = True
    """write the report at the end."""
    mirror: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """show the run in other programs meanwhile: tensorboard, wandb, trackio; again, or with commas, for several."""
    page: bool = False
    """keep the report up to date while the study runs."""

    @property
    def command(self) -> str:
        """What runs the study so."""
        until = [] if self.until is None else ["--until", self.until]
        within = [] if self.within is None else ["--within", f"{self.within:g}"]
        return " ".join([super().command, *until, *within])


def run(options: RunOptions) -> int:
    """Build, then report; the exit code says whether all of it is there."""
    from ..api.beside import beside
    from ..api.build import ended_early, own_failures
    from ..api.results import Results
    from ..api.rounds import asked_until, run_study
    from ..api.study import open_study
    from .terminal import failures_list, say_look, study_tables

    begun = time.monotonic()
    opened = open_study(asked_until(options.load(), options.until, options.within), options.store)
    followers = beside(opened, options.command, mirrors=options.mirror, page=options.page)
    outcome, left = run_study(opened, options.running, retry=options.retry, followers=followers, say=say_look)
    failures = own_failures(outcome)
    failures_list(failures)
    if stopped := ended_early(outcome, left):
        print(stopped)
    kinds = [f["kind"] for f in failures]
    refused = [f for f in failures if f["kind"] in ("user", "simulator")]
    if options.report and not outcome.stopped and "crash" not in kinds and not refused:
        results = Results(opened, options.command)
        path = results.write_report()
        if options.json:
            print_json(results.summary)
        else:
            study_tables(results.summary)
            built, seconds = counted(len(outcome.built), "step"), time.monotonic() - begun
            print(f"{built} built, the rest reused, in {seconds:.0f} s")
            print(f"report: {path}")
    if refused:
        raise UserError(refused[0]["sentence"])
    return int("crash" in kinds)


@dataclass(frozen=True)
class StatusOptions(OneStudy):
    """Say how far a study is: steps done, running with their progress, failed with their reason, and the time left.

    Example: cgap study status --preset demo --watch
    """

    watch: bool = False
    """go on until nothing is left or running; Ctrl-C ends the watching, not the run."""
    every: float = 5.0
    """seconds between two looks."""
    page: bool = False
    """write the report of what there is, with what is missing; with --watch, again and again."""


def status(options: StatusOptions) -> None:
    """Print it once, or until the study is done."""
    from ..api.live_page import LivePage
    from ..api.study import Status, status_of
    from .terminal import follow, status_lines

    opened = options.open()
    page = None
    if options.page:
        page = LivePage(opened, options.command, opened.folder / "report.html")
        if not options.json:
            print(f"page: {page.path}")
    if options.json or not options.watch:
        state = status_of(opened)
        if options.json:
            print_json(state)
        else:
            print("\n".join(status_lines(state)))
        if page is not None:
            page.write(state)
        return

    def look() -> Status:
        state = status_of(opened)
        if page is not None:
            page.show(state)
        return state

    try:
        follow(look, options.every)
    finally:
        if page is not None:
            page.close()


@dataclass(frozen=True)
class ReportOptions(OneStudy):
    """Write the one-page HTML report of what a study has measured so far; of an exported study, from its folder alone.

    Example: cgap report --preset demo --out report.html
    """

    out: Path | None = None
    """the page; by default in the store, under studies/, or in the folder of an exported study."""
    videos: int = 2
    """cells whose rollouts are filmed (one success, one failure each); 0 for none."""


def report(options: ReportOptions) -> None:
    """Write the page, and print the tables."""
    if options.file is None or not options.file.is_dir():
        _report(options, options.open(), options.command, options.out)
        return
    from ..api.exported import opened_export

    with opened_export(options.file) as opened:
        out = options.file / "report.html" if options.out is None else options.out
        _report(options, opened, f"cgap report {options.file}", out)


def _report(options: ReportOptions, opened: OpenStudy, command: str, out: Path | None) -> None:
    from ..api.results import Results

    results = Results(opened, command)
    path = results.write_report(out, options.videos)
    if options.json:
        print_json(results.summary)
    else:
        from .terminal import study_tables

        study_tables(results.summary)
        print(f"report: {path}")
