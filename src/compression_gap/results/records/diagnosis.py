"""The diagnosis of one policy, as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...statistics.intervals import Interval
from ...statistics.paired import PairedDifference
from ...study.diagnosis import Group


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The policy under one change, against itself on the same episodes.

    ``size``: where the change lies on its group's axis (bits of the code, σ, pixels, share of the width, actions);
    ``difference``: in rate, changed less undisturbed; ``p``: Holm-adjusted over all changes; ``lost``, ``gained``:
    episodes that failed, or succeeded, only under the change; ``expert``: success of the expert's chunks through the
    same code.
    """

    group: Group
    name: str
    size: float | None
    rate: Interval
    difference: PairedDifference
    p: float
    per_task: Mapping[str, PairedDifference]
    lost: int
    gained: int
    expert: float | None = None


@dataclass(frozen=True, kw_only=True)
class Needed:
    """How far a group's change can go before success falls below ``share`` of the undisturbed one, on its axis.

    ``bound``: "" where that lies within what was tried; "all" where success was kept throughout, "none" where it fell
    at the mildest change already. ``low`` and ``high``: 95 %.
    """

    group: Group
    of: str  # a tokenizer, of codes
    value: float
    low: float
    high: float
    bound: str
    share: float


@dataclass(frozen=True, kw_only=True)
class ChangedError:
    """Chunk error on held-out recordings under one change, less the policy's own: standard deviations², per episode.

    ``p``: Holm-adjusted over all changes.
    """

    group: Group
    name: str
    size: float | None
    error: float
    value: float
    low: float
    high: float
    p: float


@dataclass(frozen=True, kw_only=True)
class DiagnosedErrors:
    """All that a diagnosis on recordings found; ``undisturbed``: the policy's own error."""

    version: str
    policy: str
    served: bool
    tasks: Sequence[str]
    recordings: Sequence[str]
    episodes: int
    points: int
    horizon: int
    undisturbed: float
    changes: Sequence[ChangedError]
    skipped: Mapping[str, str]
    sentences: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Diagnosed:
    """All that a diagnosis found."""

    version: str
    policy: str
    served: bool
    tasks: Sequence[str]
    suite: str
    episodes: int
    execute: int
    horizon: int
    protocol: str
    own_chunks: bool
    undisturbed: Interval
    per_task: Mapping[str, Interval]
    references: Mapping[str, Interval]
    changes: Sequence[Changed]
    needed: Sequence[Needed]
    skipped: Mapping[str, str]
    sentences: Sequence[str]
