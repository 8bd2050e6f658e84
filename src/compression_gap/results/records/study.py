"""The summary of a study: what every study has, and in ``Summary.found`` what its kind of measurement adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from ...encoders.probe import TaskProbe
from ...nn.convergence import Convergence
from ...sims import EvaluationProtocol
from ...statistics.intervals import Span
from ...study.file import Study
from .bits import Ledger
from .cells import Cell, ChunkError, Outcome, Reference, Success
from .comparisons import Bottleneck, Comparison, EncoderTrend, Published, Refusal, Swap, Waterfall
from .json import Flat, IfThere
from .rounds import Sequential


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """What a linear reader recovers of the true state from an encoder's features."""

    encoder: str
    mean: Span
    tasks: Mapping[str, TaskProbe]
    features: int


@dataclass(frozen=True, kw_only=True)
class TokenizerFit:
    """A fitted tokenizer: capacity in bits a chunk, held-out distortion in standard deviations²."""

    label: str
    capacity_bits: float
    distortion: float
    convergence: Convergence | None
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class SelectionRule:
    """Rates are peaks of several checkpoints; ``mark`` says so in words."""

    checkpoints: int
    mark: str


@dataclass(frozen=True, kw_only=True)
class SimulatorFindings:
    """What a simulator's study says beyond every study."""

    protocol: EvaluationProtocol
    selection: SelectionRule | None
    trends: Sequence[EncoderTrend]
    refusals: Sequence[Refusal]
    waterfalls: Sequence[Waterfall]
    verdicts: Sequence[Bottleneck]
    swaps: Sequence[Swap]
    published: Published | None


@dataclass(frozen=True, kw_only=True)
class RecordedSets:
    """The recordings that a study learns from."""

    sets: Sequence[str]
    source: str
    cameras: Sequence[str]
    image_size: int
    action_dim: int
    proprio_dim: int
    true_state_dim: int | None
    episodes: Mapping[str, int]  # by split
    frames: int


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Where chunk errors are measured; ``execute``: the first steps of a chunk, whose error stands apart."""

    episodes: int
    points: int
    execute: int


@dataclass(frozen=True, kw_only=True)
class RecordingsFindings:
    """What a study of recordings says beyond every study."""

    recordings: RecordedSets
    held_out: HeldOut
    encoders: Sequence[str]


Found = TypeVar("Found", SimulatorFindings, RecordingsFindings)


@dataclass(frozen=True, kw_only=True)
class Summary(Generic[Outcome, Found]):
    """Everything that the page and the terminal show of a study. ``command``: what makes its page again."""

    study: Study
    version: str
    tasks: Sequence[str]
    headline: Sequence[str]
    fixed: Sequence[str]  # what was fitted once for all training seeds, a sentence each
    cells: Sequence[Cell[Outcome]]
    references: Sequence[Reference[Outcome]]
    contrasts: Sequence[Comparison]
    probes: Sequence[ProbeScore]
    tokenizers: Sequence[TokenizerFit]
    ledger: Ledger | None
    machine: Mapping[str, str]
    version_words: Sequence[str]
    found: Flat[Found]
    sequential: IfThere[Sequential | None] = None
    command: IfThere[str | None] = None


SuccessSummary = Summary[Success, SimulatorFindings]
ErrorSummary = Summary[ChunkError, RecordingsFindings]


@dataclass(frozen=True, kw_only=True)
class Video:
    """A rollout that was filmed."""

    label: str
    task: str
    success: bool
    path: Path
