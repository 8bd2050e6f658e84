"""The ledger as records: demand, supply, kept, gap, passed and delivered bits, and what is concluded from them.

All bits are per action chunk at one resolution σ (standard deviations of the demonstrations' actions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...information.estimate import Estimate
from ...statistics.intervals import Span
from ...tokenizers.code import OwnSeed
from .json import Flat, IfThere


@dataclass(frozen=True, kw_only=True)
class SigmaStar:
    """σ* with its 95 % interval; ``bound``: "above" or "below" where it lies beyond what was tried, else empty.

    ``rates``: the disturbed expert's success at each σ that was tried; ``undisturbed``: its success without noise.
    """

    value: float
    low: float
    high: float
    bound: str
    rates: Sequence[float]
    undisturbed: float


@dataclass(frozen=True, kw_only=True)
class NoiseTolerance:
    """σ* under one kind of noise, over all tasks and for each."""

    noise: str
    pooled: Flat[SigmaStar]
    per_task: Mapping[str, SigmaStar]


@dataclass(frozen=True, kw_only=True)
class DimensionTolerance:
    """σ* under white noise in one action dimension alone."""

    dimension: int
    pooled: Flat[SigmaStar]


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """σ* as it was measured with disturbed experts; ``episodes``: of each size of noise."""

    episodes: int
    noises: Sequence[NoiseTolerance]
    dimensions: Sequence[DimensionTolerance]

    @property
    def white(self) -> SigmaStar:
        """σ* itself: that of white noise."""
        return next(n.pooled for n in self.noises if n.noise == "white")


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """The resolution at which bits are read. ``assumed``: neither measured nor given."""

    sigma: float
    measured: bool
    assumed: bool
    found: Flat[Tolerances | None]


@dataclass(frozen=True, kw_only=True)
class WidthControl:
    """Bits that each encoder's width loses of what is ``known`` (``information/width.py``)."""

    known: str | None
    lost: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class EncoderBits:
    """I(Z; A_σ) of an encoder's context, and what of it is beyond proprioception and task."""

    encoder: str
    supply: Estimate
    visual_supply: Estimate


@dataclass(frozen=True, kw_only=True)
class PrefixBits:
    """Demand and supply of the first ``steps`` actions of a chunk, which are executed."""

    steps: int
    demand: Estimate
    encoders: Sequence[EncoderBits]


@dataclass(frozen=True, kw_only=True)
class CodeBits:
    """A code's capacity, the bits that it uses, its distortion, and I(T; A_σ) (``kept``)."""

    code: str
    tokenizer_seed: int | OwnSeed | None
    capacity_bits: float
    used_bits: float
    prior_converged: bool
    distortion: float
    kept: Estimate


@dataclass(frozen=True, kw_only=True)
class PairBits:
    """An encoder under a code: I(Z; A_σ | T) (``gap``), and what of the supply passes."""

    encoder: str
    code: str
    used_bits: float
    gap: Estimate
    passes: Estimate


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Which stage holds the bits back: see ``information._binding``. ``gains``: by stage."""

    encoder: str
    code: str
    relaxed_to: str | None
    stage: str | None
    jointly: bool
    share: float
    gains: Mapping[str, Estimate]
    joint: Estimate | None


@dataclass(frozen=True, kw_only=True)
class CodebookLaw:
    """The used bits from which nine tenths of an encoder's supply come through; the curve of gaps behind it."""

    encoder: str
    bits: float | None
    bound: str
    low: float | None
    high: float | None
    used_bits: IfThere[Sequence[float] | None] = None
    gap: IfThere[Sequence[float] | None] = None


@dataclass(frozen=True, kw_only=True)
class PolicyBits:
    """What a policy delivers of the chunk, from its own loss. ``kind``: "continuous", "tokens", or no likelihood."""

    action: str
    encoder: str
    size: str
    kind: str | None
    code: str | None
    seeds: int
    policy: str
    bits: Estimate | None


@dataclass(frozen=True, kw_only=True)
class BeyondSupply:
    """A continuous policy that delivers more than its encoder was found to supply, which cannot be."""

    policy: str
    encoder: str
    delivered: Estimate
    supply: Estimate


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """An encoder upgrade: the bits that it adds, and the success that it gains."""

    label: str
    action: str
    bits: float
    observed: Span


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """Success predicted from bits, over all upgrades; no correlation of fewer than five encoder upgrades."""

    upgrades: Sequence[Upgrade]
    encoder_upgrades: int
    correlation: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All bits of one set of demonstrations. ``hypothesis``: where there is success to predict.

    ``fitted_seed``: the training seed whose tokenizers and encoders these are, where seeds have their own.
    ``training_episodes``: by share. ``file``: where the ledger was written.
    """

    resolution: Resolution
    fitted_seed: int | None
    width_control: WidthControl
    prefix: PrefixBits | None
    demand: Estimate
    encoders: Sequence[EncoderBits]
    codes: Sequence[CodeBits]
    pairs: Sequence[PairBits]
    binding: Sequence[Binding]
    law: Sequence[CodebookLaw]
    delivered: Sequence[PolicyBits]
    beyond_supply: Sequence[BeyondSupply]
    network_converged: bool
    training_episodes: Mapping[int, int]
    chunks: int
    episodes: int
    minutes: float
    hypothesis: IfThere[Hypothesis | None] = None
    file: IfThere[str | None] = None


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a configuration costs: parameters, FLOPs a decision, hours of training; None where not known."""

    what: str
    parameters: int | None
    flops: int | None
    hours: float | None


@dataclass(frozen=True, kw_only=True)
class SuccessAnswer:
    """The bottleneck of one policy under test from success, with costs and what to run next."""

    label: str
    stage: str | None
    kind: str
    sentence: str
    costs: Sequence[Cost]
    unconverged: Mapping[str, str]
    next: str


@dataclass(frozen=True, kw_only=True)
class BitsAnswer:
    """The bottleneck of one encoder and code from bits."""

    binding: Flat[Binding]
    sentence: str
    next: str


@dataclass(frozen=True, kw_only=True)
class Located:
    """Bottlenecks: from success (of a study) and from bits (where there is a ledger)."""

    success: Sequence[SuccessAnswer]
    bits: Sequence[BitsAnswer]
