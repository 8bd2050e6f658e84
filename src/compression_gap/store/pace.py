"""How long steps take: their guessed costs, corrected by those that have been built, kind by kind."""

from __future__ import annotations

from collections.abc import Iterable

from .artifact import Artifact
from .store import Store

LOOKED_AT = 40  # built steps of a kind, at most


class Pace:
    """Guesses are core-seconds of some machine; what was measured of a kind, or else of all kinds, corrects them."""

    def __init__(self) -> None:
        self.guessed: dict[str, float] = {}
        self.spent: dict[str, float] = {}

    @classmethod
    def measured(cls, steps: Iterable[Artifact], store: Store) -> Pace:
        """From the records of steps that are there."""
        pace, seen = cls(), dict[str, int]()
        for step in steps:
            if seen.get(step.kind, 0) < LOOKED_AT and store.recorded(step):
                seen[step.kind] = seen.get(step.kind, 0) + 1
                seconds = store.meta(step).get("build_seconds")
                if isinstance(seconds, int | float):
                    pace.note(step, float(seconds))
        return pace

    def note(self, step: Artifact, seconds: float) -> None:
        """A step was built in so many seconds."""
        self.guessed[step.kind] = self.guessed.get(step.kind, 0.0) + step.cost
        self.spent[step.kind] = self.spent.get(step.kind, 0.0) + seconds

    def seconds(self, step: Artifact) -> float:
        """What a step will take."""
        return step.cost * self._factor(step.kind)

    def _factor(self, kind: str) -> float:
        if self.guessed.get(kind):
            return self.spent[kind] / self.guessed[kind]
        guessed = sum(self.guessed.values())
        return sum(self.spent.values()) / guessed if guessed else 1.0


class Ahead:
    """The steps that a run has still to do, and how long they will take with so many ``workers``."""

    def __init__(self, steps: Iterable[Artifact], workers: int) -> None:
        self.left, self.workers, self.pace = {s.key: s for s in steps}, workers, Pace()
        self.shares: dict[str, float] = {}

    def moved(self, step: Artifact, done: int, total: int) -> None:
        """A step has done ``done`` of ``total``."""
        self.shares[step.key] = done / total if total else 0.0

    def ended(self, step: Artifact, seconds: float | None = None) -> bool:
        """A step was built in so many seconds, or has failed; whether it was one of these."""
        if seconds is not None:
            self.pace.note(step, seconds)
        self.shares.pop(step.key, None)
        return self.left.pop(step.key, None) is not None

    @property
    def seconds(self) -> float:
        """The time left."""
        each = (self.pace.seconds(s) * (1 - self.shares.get(k, 0.0)) for k, s in self.left.items())
        return sum(each) / self.workers


def time_left(seconds: float) -> str:
    """In words."""
    if seconds >= 5400:
        return f"about {seconds / 3600:.1f} h left"
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"
