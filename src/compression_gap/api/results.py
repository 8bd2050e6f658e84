"""Results of a study: tables to work with, and the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from ..errors import UserError
from ..results.records.json import as_json
from ..results.records.study import ErrorSummary, SuccessSummary, Video
from ..store.store import write_json
from ..study.file import Study
from ..study.plan import Plan
from .beside import beside
from .build import ended_early, own_failures
from .options import Running, can_film, folder_of
from .rounds import asked_until, run_study
from .study import OpenStudy, open_study
from .table import Table


@dataclass(frozen=True)
class Results:
    """What a study has measured so far; a number that is still missing is None.

    ``command``: what makes the report again, as it says of itself.
    """

    opened: OpenStudy
    command: str

    @classmethod
    def load(cls, study: Study, store: str | Path = "store") -> Results:
        """The results that are in the store, without building what is missing."""
        return cls(open_study(study, store), f"compression_gap.run(study, store={str(store)!r})")

    @cached_property
    def summary(self) -> SuccessSummary | ErrorSummary:
        """All of it. Raises ``UserError`` if nothing has been measured."""
        return replace(summarise_study(self.opened), command=self.command)

    def to_json(self) -> dict[str, Any]:
        """All of it, as it stands in ``summary.json``."""
        return dict(as_json(self.summary))

    @property
    def headline(self) -> list[str]:
        """What was found, a sentence an action representation."""
        return list(self.summary.headline)

    @property
    def cells(self) -> Table:
        """One row a configuration: its levels, its success rate or chunk error with a 95 % interval, its trainings."""
        return Table.of(as_json(self.summary.cells))

    @property
    def references(self) -> Table:
        """One row a reference: experts in a simulator, simple predictors on recordings."""
        return Table.of(as_json(self.summary.references))

    @property
    def contrasts(self) -> Table:
        """One row a comparison of two configurations, with a 95 % interval and Holm's p."""
        return Table.of(as_json(self.summary.contrasts))

    @property
    def episodes(self) -> Table:
        """One row an episode, with the levels of the policy that played it. Raises ``UserError`` for recordings."""
        from ..results.rows import episode_rows

        if not isinstance(self.opened.plan, Plan):
            raise UserError(f"{self.opened.study.name} is a study of recordings: it has rolled nothing out")
        return Table(episode_rows(self.opened.plan, self.opened.store))

    def write_report(self, out: str | Path | None = None, videos: int = 2) -> Path:
        """Write the page ``out`` (by default in the store) and ``summary.json``; film rollouts of ``videos`` cells."""
        from ..report.page import write_page

        folder, plan = self.opened.folder, self.opened.plan
        path = folder / "report.html" if out is None else Path(out)
        folder_of(path.parent)
        write_page(self.summary, self._videos(videos) if videos and plan.rolled_out is not None else [], path)
        write_json(folder / "summary.json", self.to_json())
        return path

    def _videos(self, cells: int) -> list[Video]:
        """One success and one failure each of the best and the worst policies: artefacts, too."""
        from ..results.videos import videos_of_cells

        return videos_of_cells(self.opened.plan, self.opened.store, cells) if can_film() else []


def run(
    study: Study,
    store: str | Path = "store",
    *,
    processes: int | None = None,
    budget: str | None = None,
    retry: bool = False,
    mirrors: Sequence[str] = (),
    page: bool = False,
    until: Literal["separated"] | None = None,
    within: float | None = None,
) -> Results:
    """Build what is missing of a study, and return its results. Artefacts that are in the store are reused.

    ``processes``: as many as cores by default, 0 for this process alone. ``budget``: as in "90s", "9m" or "2h".
    ``retry``: try trainings again that diverged. ``mirrors``: names of mirrors, as in ["tensorboard"]; ``page``: keep
    the report in the store up to date meanwhile. ``until``, ``within``: as ``--until`` and ``--within``. Raises
    ``UserError`` with the step and the sentence if one failed otherwise, or if the budget was spent; what was built is
    kept.
    """
    results = Results.load(asked_until(study, until, within), store)
    followers = beside(results.opened, results.command, mirrors=mirrors, page=page)
    running = Running(processes=processes, budget=budget)
    outcome, left = run_study(results.opened, running, retry=retry, followers=followers)
    for failure in own_failures(outcome):
        if failure["kind"] != "diverged":
            raise UserError(f"{failure['step']}: {failure['sentence']}")
    if stopped := ended_early(outcome, left):
        raise UserError(stopped)
    return results


def summarise_study(opened: OpenStudy) -> SuccessSummary | ErrorSummary:
    """What a study has measured so far. Raises ``UserError`` if that is nothing."""
    from ..results.summary import summarise

    return summarise(opened.plan, opened.store)
