"""Cells of a study and what they are held against, with their outcome: success, or a chunk error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...artifacts.policy import Executed, TrainedOn
from ...nn.convergence import Convergence, in_words
from ...statistics.intervals import Interval
from ...tokenizers.code import OwnSeed
from ...tokenizers.levels import Levels
from .json import Flat


@dataclass(frozen=True, kw_only=True)
class CodeLevels:
    """A code's levels, and its capacity in bits a chunk; None throughout where actions pass through no code."""

    tokenizer: str | None = None
    codebook: Levels | None = None
    tokenizer_seed: int | OwnSeed | None = None
    capacity_bits: float | None = None  # of the first seed's fit; None before it is there


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A training that failed: ``record`` is the JSON text that the engine wrote of it."""

    seed: int
    record: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Losses of one training, one entry a validation."""

    seed: int
    step: Sequence[int]
    train: Sequence[float]
    validation: Sequence[float]
    seconds: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Trainings:
    """What the trainings of one cell's replicates report, in the seeds' order; None where there is none yet.

    ``converged``: whether all had. ``parameters``: by part of the network. ``flops``: of a decision. ``policies``:
    their folders.
    """

    failures: Sequence[Failure]
    convergence: Sequence[Convergence]
    converged: bool | None
    parameters: Mapping[str, int] | None
    flops: int | None
    latency_seconds: float | None
    train_seconds: float | None
    curves: Sequence[Curve]
    policies: Sequence[str]

    @property
    def ended(self) -> str:
        """How they ended, in words."""
        return in_words(self.convergence)


# Outcomes


@dataclass(frozen=True, kw_only=True)
class TaskRate(Interval):
    """The success rate on one task."""

    task: str


@dataclass(frozen=True, kw_only=True)
class Success:
    """Success rates of a cell or a reference in a simulator; None without evidence."""

    demos: int | None
    episodes: int  # of each seed
    rate: Interval | None
    per_task: Sequence[TaskRate] | None


@dataclass(frozen=True, kw_only=True)
class ErrorSpan:
    """A mean chunk error; without an interval where a single held-out episode says nothing of it."""

    value: float
    low: float | None
    high: float | None
    method: str
    seed_variance_unknown: bool


@dataclass(frozen=True, kw_only=True)
class TaskError(ErrorSpan):
    """The chunk error on one task's held-out episodes."""

    task: str
    episodes: int


@dataclass(frozen=True, kw_only=True)
class ChunkError:
    """Held-out chunk errors of a cell or a predictor, of the whole chunk and of its executed steps.

    ``rmse``: root mean square error of each action dimension, in raw units.
    """

    error: ErrorSpan | None
    executed_error: ErrorSpan | None
    rmse: Sequence[float] | None
    per_task: Sequence[TaskError] | None


Outcome = TypeVar("Outcome", Success, ChunkError)


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Success of every evaluated checkpoint [seeds][checkpoints], and the training step that counts for each seed.

    ``optimism``: by how much the best of so many evaluations lies above the true rate by luck, if all checkpoints
    were as good as the ``final`` one and their evaluations independent.
    """

    select: str
    steps: Sequence[int]
    rates: Sequence[Sequence[float | None]]
    chosen: Sequence[int]
    final: float
    optimism: float


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The checkpoints of a cell in a simulator; None where the final one alone is evaluated."""

    selection: Checkpoints | None


@dataclass(frozen=True, kw_only=True)
class Cell(Generic[Outcome]):
    """The replicates of one configuration: the same levels, several training seeds."""

    label: str
    encoder: str
    action: str  # the action representation in words
    size: str
    task: str  # how the task enters the policy
    code: Flat[CodeLevels]
    trained_on: TrainedOn
    executed: Executed
    seeds: Sequence[int]  # those with evidence
    outcome: Flat[Outcome]
    per_seed: Sequence[float] | None
    decode_failures: float | None  # share of decisions, or of chunks
    selected: Flat[Selected | None]
    training: Flat[Trainings]


@dataclass(frozen=True, kw_only=True)
class Actor:
    """A reference in a simulator: expert, expert-chunked, expert-coded."""

    actor: str


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A reference on recordings: the mean action, the last one, a code's round trip."""

    predictor: str


@dataclass(frozen=True, kw_only=True)
class Reference(Generic[Outcome]):
    """What policies are held against. ``fitted_seeds``: of the fitted tokenizers, where something random is fitted."""

    label: str
    of: Flat[Actor | Baseline]
    code: Flat[CodeLevels]
    fitted_seeds: Sequence[int]
    outcome: Flat[Outcome]
