"""Progress of a run with the time left: a bar on the terminal, lines where there is none, and a log file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..errors import counted
from ..store.artifact import Artifact
from ..store.pace import Ahead, time_left


class _LogFile(logging.FileHandler):
    """A log that is not worth a word when it cannot be written: a full disk is the builds' to meet."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing."""

    def close(self) -> None:
        """Close it, whatever could not be written."""
        with suppress(OSError):
            super().close()


class RunWatcher:
    """Progress with the time left, on the terminal and in a log file."""

    def __init__(self, steps: Sequence[Artifact], total: int, workers: int, log: Path) -> None:
        self.ahead = Ahead(steps, workers)
        self.log = logging.getLogger(f"compression_gap.run.{id(self)}")
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        self.handler = _LogFile(log)
        self.handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        self.log.addHandler(self.handler)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self.done, self.total = total - len(steps), total
        self.overall = self.bar.add_task("all steps", total=max(1.0, sum(s.cost for s in steps)), left="")
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> RunWatcher:
        self.bar.start()
        if self.done:
            self._say(
                f"{self.done} of {counted(self.total, 'step')} {'is' if self.total == 1 else 'are'} there already"
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        self.log.removeHandler(self.handler)
        self.handler.close()

    def _say(self, message: str) -> None:
        self.log.info(message)
        if self.bar.disable:
            print(message, file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Say what is wrong beside the steps, also above a bar."""
        self.log.info(message)
        self.bar.console.print(f"cgap: {message}", markup=False, highlight=False, soft_wrap=True)

    def started(self, step: Artifact) -> None:
        """A step begins."""
        self.log.info("begins: %s", step.label)
        self.tasks[step.key] = self.bar.add_task(f"  {step.label}", total=1, left="")

    def progress(self, step: Artifact, done: int, total: int) -> None:
        """A step moves."""
        if step.key in self.tasks:
            self.bar.update(self.tasks[step.key], completed=done, total=total)
        self.ahead.moved(step, done, total)

    def _end(self, step: Artifact, seconds: float | None = None) -> None:
        if step.key in self.tasks:
            self.bar.remove_task(self.tasks.pop(step.key))
        own = self.ahead.ended(step, seconds)
        self.bar.update(self.overall, advance=step.cost if own else 0.0, left=time_left(self.ahead.seconds))

    def elsewhere(self, step: Artifact) -> None:
        """Another run builds a step."""
        if step.key in self.tasks:
            self.bar.remove_task(self.tasks.pop(step.key))
        self._say(f"{step.label}: another run on this store builds it")

    def finished(self, step: Artifact, seconds: float) -> None:
        """A step is committed."""
        self.done += 1
        self._end(step, seconds)
        self._say(f"{self.done}/{self.total} {step.label}: {seconds:.0f} s; {time_left(self.ahead.seconds)}")

    def failed(self, step: Artifact, record: dict[str, str]) -> None:
        """A step failed: its sentence for all to read, its traceback for the log."""
        self._end(step)
        self._say(f"FAILED {step.label}: {record['sentence']}")
        if record["traceback"]:
            self.log.info("%s", record["traceback"].rstrip())


@contextmanager
def progress_bar(what: str, unit: str = "frames") -> Iterator[Any]:
    """A bar with the time left on the terminal: ``progress(done, total)``; nothing where stderr is a file."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {unit},"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=1)
        yield lambda done, total: bar.update(task, completed=done, total=total)
