"""How far a study is, as its page shows it while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CellProgress:
    """One configuration: how many of its training seeds are trained and measured, and what runs or has failed."""

    label: str
    seeds: int
    trained: int
    measured: int
    now: Sequence[str]

    @property
    def missing(self) -> bool:
        """Whether a seed is still to be measured."""
        return self.measured < self.seeds


@dataclass(frozen=True, kw_only=True)
class Progress:
    """``running``, ``failed``: a sentence each; ``left``: the time in words; ``refresh``: seconds until the page is
    looked at again, None when the run has ended.
    """

    study: str
    done: int
    steps: int
    left: str
    running: Sequence[str]
    failed: Sequence[str]
    cells: Sequence[CellProgress]
    written: str
    refresh: int | None
