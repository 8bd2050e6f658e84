"""A study that grows by seeds: what was asked, what its looks say of it, and what it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ...statistics.intervals import Contrast

# settled: established, or narrow enough; open: the next look needs more seeds; used up: no seeds are left
Ended = Literal["settled", "open", "used up"]


@dataclass(frozen=True, kw_only=True)
class LookedContrast(Contrast):
    """A contrast at its last look; its interval and p know of the looks."""

    label: str


@dataclass(frozen=True, kw_only=True)
class Looked:
    """One question: of one policy's bottleneck, of one Δ_enc, or of one interaction. ``seeds``: by configuration."""

    label: str
    looks: int
    ended: Ended
    seeds: Mapping[str, int]
    contrasts: Sequence[LookedContrast]


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """All questions; ``state``: how many are settled, in words.

    ``measured``: configurations times seeds that there are, of ``most`` that the study would have without looks.
    """

    question: str
    within: float | None
    looked: Sequence[Looked]
    measured: int
    most: int
    state: str
