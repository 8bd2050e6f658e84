"""What a simulator is to the program: observations, the ``Sim`` protocol, its specification.

A ``Sim`` is a single, serial environment. It renders only when ``observe`` is called, and its state can be
taken and put back completely, so that an expert can be rolled ahead from a clone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from ..errors import UserError


@dataclass(frozen=True)
class Observation:
    """What a policy may see at B decision points, over T observation steps (oldest first).

    ``state`` is the simulator's true state (objects and goals); the ``oracle`` encoder alone may read it.
    ``proprio`` is the robot's own: never an object's or a goal's position.
    """

    images: dict[str, np.ndarray]  # camera -> uint8 [B, T, h, w, 3]
    proprio: np.ndarray  # float32 [B, T, p]
    task: np.ndarray  # int64 [B], index into the study's tasks
    state: np.ndarray | None = None  # float32 [B, T, s]
    text: tuple[str, ...] | None = None  # B instructions

    @staticmethod
    def history(frames: Sequence[Observation]) -> Observation:
        """Join single-step observations (T = 1 each, oldest first) along the time axis."""
        return _join(frames, axis=1)

    @staticmethod
    def batch(items: Sequence[Observation]) -> Observation:
        """Join observations along the batch axis."""
        joined = _join(items, axis=0)
        texts = [t for item in items for t in item.text or ()]
        return replace(
            joined,
            task=np.concatenate([item.task for item in items]),
            text=tuple(texts) if texts else None,
        )


def _join(items: Sequence[Observation], axis: int) -> Observation:
    first = items[0]
    return replace(
        first,
        images={c: np.concatenate([o.images[c] for o in items], axis=axis) for c in first.images},
        proprio=np.concatenate([o.proprio for o in items], axis=axis),
        state=None
        if first.state is None
        else np.concatenate([o.state for o in items if o.state is not None], axis=axis),
    )


class SimSpec(BaseModel):
    """Which simulator, with which tasks and cameras: everything that changes what a frame or a step is."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sim: str  # "metaworld", "channel", or a name from the entry points `compression_gap.sims`
    tasks: tuple[str, ...]
    cameras: tuple[str, ...] = ()  # empty: the simulator's default camera
    image_size: int = 84  # pixels, square
    rendering: Literal["fast", "default"] = "fast"
    protocol: str = ""  # how episodes start and end, where the simulator has several ways; empty: its default

    @model_serializer(mode="wrap")
    def _without_default_protocol(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Simulators with one protocol keep the hashes that they had before there were several."""
        written: dict[str, Any] = values(self)
        if not self.protocol:
            written.pop("protocol", None)
        return written


@dataclass(frozen=True)
class SimInfo:
    """Sizes and limits that the rest of the program needs before it makes a simulator."""

    action_dim: int
    proprio_dim: int
    state_dim: int
    cameras: tuple[str, ...]
    step_limit: int
    versions: dict[str, str]  # package -> version; travels with every evidence row
    state_names: tuple[str, ...] = ()
    without_expert: tuple[str, ...] = ()  # the tasks of these that have no scripted expert
    evaluation_states: int | None = None  # how many there are of a task; None: as many as are asked for
    control_rate: float | None = None  # steps a second; None where time has no unit
    execute: int | None = None  # actions per decision, where the simulator's protocol says so
    settings: dict[str, str | int] = field(
        default_factory=dict
    )  # the protocol's resolved values, for its hash
    instructions: Mapping[str, str] = field(default_factory=dict)  # task → what it asks for, in words


def instruction_of(task: str, known: Mapping[str, str]) -> str:
    """What a task asks for: the words that are known of it, or else its name ("push-back-v3": "push back").

    Raises ``UserError`` for words that are none.
    """
    words = known.get(task, re.sub(r"[-_\s]+", " ", re.sub(r"-v\d+$", "", task)))
    if not words.strip():
        raise UserError(
            f"no instruction is known for the task '{task}', and factors.task holds 'text': take 'embedding' or "
            "'index', or let the simulator's SimInfo.instructions name one"
        )
    return " ".join(words.split())


class Expert(Protocol):
    """A scripted expert for the running episode; it reads the simulator's privileged state."""

    def act(self, sim: Sim) -> np.ndarray:
        """The expert's action at the simulator's present state: float32 [d], inside the action limits."""


class Sim(Protocol):
    """One serial environment. Tasks are set up lazily, and kept for the next episode where that is cheap."""

    info: SimInfo

    def reset(self, task: str, initial_state: int) -> None:
        """Start an episode of ``task`` from the initial state with that number (the number is the seed)."""

    def observe(self, *, images: bool = True) -> Observation:
        """The present observation (B = T = 1). Renders now, and only now; not at all if not ``images``."""

    def step(self, action: np.ndarray) -> None:
        """Apply one action (float [d]), clipped to the action limits. Physics only: nothing is rendered."""

    @property
    def success(self) -> bool:
        """Whether the task has been solved at any step since ``reset``."""

    def get_state(self) -> Any:
        """The complete state: what follows ``set_state`` equals what would have followed here."""

    def set_state(self, state: Any) -> None:
        """Put back a state taken by ``get_state`` in the same task."""

    def expert(self) -> Expert:
        """A new scripted expert for the running episode."""

    def close(self) -> None:
        """Free the environment and its renderer."""


# Initial states are numbers. Each use has a range of its own, so no two uses ever meet.
DEMONSTRATION_STATES = 0
PRETRAINING_STATES = 500_000  # of the controlled encoders' frames
TUNING_STATES = 1_000_000  # to choose hyperparameters; never reported
EVALUATION_STATES = 2_000_000


def arrays_equal(a: Observation, b: Observation) -> bool:
    """Bitwise equality of two observations."""
    for f in fields(Observation):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, dict):
            if x.keys() != y.keys() or not all(np.array_equal(x[k], y[k]) for k in x):
                return False
        elif not np.array_equal(x, y):
            return False
    return True
