"""The outcomes of one policy's evaluation, whichever program wrote them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from ...errors import UserError

MOST_EPISODES = 2**20  # of one policy
Numbering = Literal["numbered", "by order"]


class Episode(NamedTuple):
    """What two policies' episodes have in common when they start from the same state."""

    task: str
    state: int
    repeat: int


@dataclass(frozen=True)
class PolicyOutcomes:
    """Outcomes in 0 to 1 of one policy, by training seed and episode.

    ``numbering``: whether the file numbers its initial states, or lists them in order; ``protocol``: the hash of the
    evaluation protocol, of files that name one.
    """

    name: str
    seeds: dict[int, dict[Episode, float]]
    numbering: Numbering = "numbered"
    protocol: str | None = None

    def named(self, name: str) -> PolicyOutcomes:
        """The same under another name."""
        return replace(self, name=name)


def collect(
    name: str,
    rows: Iterable[tuple[int, Episode, float]],
    where: str,
    numbering: Numbering = "numbered",
    protocol: str | None = None,
) -> PolicyOutcomes:
    """Outcomes from rows (training seed, episode, outcome). Raises ``UserError`` for none, and for one given twice."""
    seeds: dict[int, dict[Episode, float]] = {}
    for number, (seed, episode, outcome) in enumerate(rows):
        if number == MOST_EPISODES:
            raise UserError(
                f"{where} holds more than {MOST_EPISODES:,} episodes of {name}; name a smaller file"
            )
        of = seeds.setdefault(seed, {})
        if episode in of:
            raise UserError(
                f"{where}: the episode of {episode.task}, initial state {episode.state}, repeat {episode.repeat}, stands "
                f"twice for training seed {seed} of {name}; remove one, or tell the seeds apart"
            )
        of[episode] = outcome
    if not seeds:
        raise UserError(f"{where} holds no episode of {name}; name a file of a finished evaluation")
    return PolicyOutcomes(name, seeds, numbering, protocol)


def outcome(value: Any, where: str) -> float:
    """A success or a score as a number. Raises ``UserError`` for anything else than true, false or 0 to 1."""
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    raise UserError(f"{where}: the outcome is {_shown(value)}; it is true, false, or a number from 0 to 1")


def _shown(value: Any) -> str:
    """A value in a few words; a whole number of thousands of digits has no text."""
    try:
        return repr(str(value)[:40])
    except ValueError:
        return "a number that is far too large"


def joined(name: str, parts: list[PolicyOutcomes]) -> PolicyOutcomes:
    """Several files of one policy: those that name no seeds of their own are its training seeds, in order."""
    if len(parts) == 1:
        return parts[0]
    if len({p.protocol for p in parts}) > 1:
        raise UserError(
            f"the files of {name} are of different evaluation protocols; compare what was measured alike"
        )
    seeds: dict[int, dict[Episode, float]] = {}
    for part in parts:
        for seed, episodes in part.seeds.items():
            free = seed if len(part.seeds) > 1 or seed not in seeds else max(seeds) + 1
            if free in seeds:
                raise UserError(f"training seed {seed} of {name} stands in two files; name one of them")
            seeds[free] = episodes
    numbering: Numbering = "by order" if any(p.numbering == "by order" for p in parts) else "numbered"
    return PolicyOutcomes(name, seeds, numbering, parts[0].protocol)
