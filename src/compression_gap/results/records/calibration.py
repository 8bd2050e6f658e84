"""The calibration as records: each instrument's result beside the truth that it was held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...information.estimate import Estimate
from ...statistics.bottleneck import VerdictCounts
from ...statistics.coverage import Coverage, Quantity, Setting
from ...statistics.growing import Growing
from ...statistics.intervals import Interval
from .json import Flat, IfThere


@dataclass(frozen=True, kw_only=True)
class Built:
    """What measured an artefact."""

    machine: Mapping[str, str]
    build_seconds: float


@dataclass(frozen=True, kw_only=True)
class Known:
    """I-MMSE and the Gaussian probe on one distribution. ``within``: its limit; ``covered``: the interval holds it."""

    name: str
    truth: float
    gaussian: bool
    dimensions: int
    estimate: Estimate
    probe: Estimate
    within: bool
    covered: bool
    built: Flat[Built]


@dataclass(frozen=True, kw_only=True)
class WideRow:
    """A setting of known information among many columns: see ``results.calibration``."""

    label: str
    draws: int
    truth: float
    mean: float
    spread: float | None
    probe: float
    within: bool
    covered: float
    flagged: float
    tight_and_wrong: int
    lost: float
    upgrade: float | None
    upgrade_holds_zero: float | None


@dataclass(frozen=True, kw_only=True)
class BitsCheck:
    """One quantity of the channel's ledger against the integral."""

    quantity: str
    encoder: str
    code: str
    truth: float
    estimate: Estimate
    within: bool
    covered: bool


@dataclass(frozen=True, kw_only=True)
class SuccessCheck:
    """Success of a cell against that of a policy that draws from its posterior."""

    label: str
    truth: float
    rate: Interval | None
    training: str


@dataclass(frozen=True, kw_only=True)
class VerdictCheck:
    """A verdict against true gains by stage; ``expected``: None where they tie."""

    label: str
    truth: Mapping[str, float]
    sentence: str
    expected: str | None
    stage: str | None


@dataclass(frozen=True, kw_only=True)
class Accuracy(VerdictCounts):
    """``seeds``: of each cell, where they are all of one number."""

    seeds: IfThere[int | None] = None


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Verdicts on simulated studies: of several seeds, and by their number."""

    all: Flat[Accuracy]
    by_seeds: Sequence[Accuracy]
    built: Flat[Built]


@dataclass(frozen=True, kw_only=True)
class CoverageRow:
    """How often a quantity's intervals hold the truth in one kind of study."""

    quantity: Quantity
    setting: Flat[Setting]
    found: Flat[Coverage]
    built: Flat[Built]


@dataclass(frozen=True, kw_only=True)
class GrowingRow:
    """Studies that grow by seeds, of one setting and true gain in points.

    ``equal_seeds``: of the fixed design that finds this setting's smallest gain as often as they do; ``cost``: the
    seeds that they took as a share of it.
    """

    setting: Setting
    gain: float
    found: Growing
    equal_seeds: float
    cost: float
    built: Flat[Built]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """All of it. ``quick``, ``seconds``: of the run that drew it."""

    known: Sequence[Known]
    wide: Sequence[WideRow]
    bits: Sequence[BitsCheck]
    success: Sequence[SuccessCheck]
    verdicts: Sequence[VerdictCheck]
    simulated: Simulated
    trained: Accuracy
    coverage: Sequence[CoverageRow]
    growing: Sequence[GrowingRow]
    verdict_accuracy: float | None
    interval_coverage: Mapping[str, tuple[float, float]]
    bits_within: float
    bits_covered: float
    machine: Mapping[str, str]
    version: str
    quick: IfThere[bool | None] = None
    seconds: IfThere[float | None] = None
