"""What a plan would cost, as records: what the terminal and, through ``as_json``, programs read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MeasuredStep:
    """The median seconds of a training step."""

    seconds: float
    label: str
    batch_size: int


@dataclass(frozen=True)
class Measured:
    """One machine's training steps, by ``PlannedPolicy.measure_key``."""

    device: str
    threads: int
    torch: str
    steps: Mapping[str, MeasuredStep]


@dataclass(frozen=True)
class PolicyCosts:
    """One encoder, action and size; None where its shape does not tell, or no step was measured."""

    encoder: str
    action: str
    size: str
    task: str
    trainings: int
    parameters: Mapping[str, int] | None
    decision_flops: int | None
    encoder_flops: int | None
    step_flops: int | None
    batch_size: int
    steps: int
    rough: bool
    step_seconds: float | None


@dataclass(frozen=True)
class EncoderSummary:
    """One encoder, for one camera; ``absent``: why its checkpoint is not at hand."""

    encoder: str
    feature_dim: int | None
    frozen_parameters: int | None
    trained_parameters: int | None
    image_flops: int | None
    absent: str | None


@dataclass(frozen=True)
class Frames:
    """Frames of all demonstrations; ``assumed``: those of some are not known yet."""

    count: int
    assumed: bool


@dataclass(frozen=True)
class GpuHours:
    """Hours of training, and the assumption behind them."""

    hours: float
    assumption: str


@dataclass(frozen=True)
class MachineHours:
    """Hours of training on this machine, without ``unmeasured`` trainings."""

    machine: str
    device: str
    threads: int
    hours: float
    unmeasured: int


@dataclass(frozen=True)
class TrainingCosts:
    """Of the trainings that are left, ``unknown`` ones without FLOPs."""

    trainings: int
    steps: int
    flops: int
    unknown: int
    gpu: GpuHours
    measured: MachineHours | None


@dataclass(frozen=True)
class FeatureCosts:
    """Of computing once the features that are left."""

    flops: float
    gpu_hours: float


@dataclass(frozen=True)
class RolloutCosts:
    """Episodes that are left, at most the step limit long."""

    episodes: int
    core_hours: float


@dataclass(frozen=True)
class Estimate:
    """The costs of a plan. Bytes and memory are of all of it, hours of what is left."""

    policies: Sequence[PolicyCosts]
    encoders: Sequence[EncoderSummary]
    frames: Frames
    disk: Mapping[str, int]  # bytes by kind
    device_memory: int  # bytes of the largest training's data
    training: TrainingCosts
    features: FeatureCosts
    rollouts: RolloutCosts | None  # None for recordings
    unknown: Sequence[str]
