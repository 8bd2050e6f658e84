"""Comparisons of cells: contrasts, trends, waterfalls, verdicts, the matched-head ablation, the published table.

Rates and their differences are fractions, but for ``PublishedContrast``, which is in points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...artifacts.policy import Executed, TrainedOn
from ...statistics.bottleneck import Verdict
from ...statistics.intervals import Contrast, Interval, Trend
from .json import Flat


@dataclass(frozen=True, kw_only=True)
class EncoderGain:
    """Δ_enc of success: what the second encoder gains over the first under one action representation.

    ``code``: the code that all its bits pass; None of a continuous head and of a hybrid.
    """

    encoders: tuple[str, str]
    action: str
    demos: int | None
    code: str | None


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """The difference of Δ_enc between two action representations, in log odds too."""

    log_odds: Contrast


@dataclass(frozen=True, kw_only=True)
class CodeCost:
    """What a code costs the expert: success of its chunks through the code, less success of its chunks."""

    code: str
    capacity_bits: float


@dataclass(frozen=True, kw_only=True)
class ErrorChange:
    """Δ_enc of the chunk error: what the second encoder changes against the first, ``under`` one configuration."""

    encoders: tuple[str, str]
    under: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference of cells, with its p adjusted over all comparisons of the study (Holm)."""

    kind: str
    label: str
    about: Flat[EncoderGain | Interaction | CodeCost | ErrorChange]
    found: Flat[Contrast]
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class EncoderTrend(Trend):
    """Page's trend along the encoders."""

    label: str
    encoders: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A reference significantly below the cell that it should bound: what is not drawn, and what to do."""

    label: str
    reference: str
    contrast: Contrast
    sentence: str
    next: str


@dataclass(frozen=True, kw_only=True)
class Level(Interval):
    """One level of a waterfall."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Drop(Contrast):
    """The difference of two neighbouring levels: the stage that it ``names``, and the level that it leads ``to``."""

    names: str
    to: str


@dataclass(frozen=True, kw_only=True)
class Waterfall:
    """From the expert down to the blind policy. ``steps[i]`` leads from ``levels[i]`` to ``levels[i + 1]``."""

    label: str
    action: str
    levels: Sequence[Level]
    steps: Sequence[Drop]


@dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """The verdict on one policy under test.

    ``relaxed``: the cell that stands for each relaxed stage. ``unconverged``: how the trainings ended that it rests
    on, of those that had not converged.
    """

    label: str
    encoder: str
    action: str
    relaxed: Mapping[str, str]
    verdict: Flat[Verdict]
    unconverged: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class SwapCell(Interval):
    """One cell of the matched-head ablation."""

    trained_on: TrainedOn
    executed: Executed


@dataclass(frozen=True, kw_only=True)
class Swap:
    """The matched-head tokenizer ablation: 2 × 2 rates row by row, and what they say of the code (docs/theory.md)."""

    label: str
    encoder: str
    action: str
    tokenizer: str
    codebook: Sequence[Sequence[int]] | None
    cells: Sequence[SwapCell]
    g_code: Contrast
    training: Contrast
    execution: Contrast
    tokenizer_seeds: int
    tokenizer_is_trained: bool


@dataclass(frozen=True, kw_only=True)
class PublishedContrast:
    """A contrast of the published tables, in points: see ``published.published_contrasts``."""

    name: str
    label: str
    claim: bool
    difference: float
    low: float
    high: float
    p: float
    p_holm: float | None
    stands: bool | None
    max_seed_sd: float | None
    peak_optimism: float
    n: int
    protocol: str


@dataclass(frozen=True, kw_only=True)
class OwnRate:
    """A cell of this study beside a published one."""

    label: str
    seeds: int
    episodes: int
    rate: Interval


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A published rate, and this study's of the same cell."""

    head: str
    size: str
    encoder: str
    published: Interval
    own: Sequence[OwnRate]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of the two protocols."""

    what: str
    published: str
    source: str
    own: str
    same: bool


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published experiment beside the study's own cells; never pooled."""

    experiment: str
    mark: str
    protocol: str
    n: int
    rows: Sequence[PublishedRow]
    settings: Sequence[Setting]
