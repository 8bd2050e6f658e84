"""What a mirror is: runs that take numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class Mirror(Protocol):
    """Runs that take numbers. Made as ``Mirror(study, folder, say)``: the study's name, a folder for its files, and
    what says a sentence to the user. What it raises ends it, and not the study.
    """

    def begin(self, run: Run) -> None:
        """A run begins, or goes on where an earlier study run left it; several may be open."""

    def log(self, run: Run, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a run, by name, at a step: of training, or of the study. Steps may come out of order."""

    def end(self, run: Run, *, failed: bool) -> None:
        """Nothing more comes of this run."""

    def close(self) -> None:
        """All of it is there: write what is not written."""


@dataclass(frozen=True)
class Run:
    """One run of a mirror: a training with its evidence, a reference, or the study itself.

    ``key``: the same for the same run of the same store, whenever the study is run; ``name``: for people.
    """

    key: str
    name: str
    config: Mapping[str, Any] = field(compare=False)

    @property
    def file_name(self) -> str:
        """The name, as a folder can have it."""
        return f"{re.sub(r'[^A-Za-z0-9.+-]+', '-', self.name).strip('-')}-{self.key[:6]}"
