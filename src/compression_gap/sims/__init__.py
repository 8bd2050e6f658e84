"""Simulators: the protocol, Meta-World, the channel, and how they are made."""

from .base import (
    DEMONSTRATION_STATES,
    EVALUATION_STATES,
    TUNING_STATES,
    Expert,
    Observation,
    Sim,
    SimInfo,
    SimSpec,
)
from .protocol import EvaluationProtocol

__all__ = [
    "DEMONSTRATION_STATES",
    "EVALUATION_STATES",
    "TUNING_STATES",
    "EvaluationProtocol",
    "Expert",
    "Observation",
    "Sim",
    "SimInfo",
    "SimSpec",
]
