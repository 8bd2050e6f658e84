"""Simulators: the protocol, Meta-World, the channel, how they are made, and the worker pool."""

from .base import (
    DEMONSTRATION_STATES,
    EVALUATION_STATES,
    PRETRAINING_STATES,
    TUNING_STATES,
    Expert,
    Observation,
    Sim,
    SimInfo,
    SimSpec,
    instruction_of,
)
from .failure import SimulatorError, simulating
from .pool import SimPool
from .protocol import EvaluationProtocol
from .registry import default_rendering, make_sim, sim_info, suite

__all__ = [
    "DEMONSTRATION_STATES",
    "EVALUATION_STATES",
    "PRETRAINING_STATES",
    "TUNING_STATES",
    "EvaluationProtocol",
    "Expert",
    "Observation",
    "Sim",
    "SimInfo",
    "SimPool",
    "SimSpec",
    "SimulatorError",
    "default_rendering",
    "instruction_of",
    "make_sim",
    "sim_info",
    "simulating",
    "suite",
]
