"""The evaluation protocol: a named, hashed object that travels with every evidence row."""

from __future__ import annotations

from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ..store.store import digest
from .base import EVALUATION_STATES, SimSpec


class EvaluationProtocol(BaseModel):
    """How success is measured. Two rates may be compared only if their protocols' hashes are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sim: SimSpec
    episodes_per_task: int = Field(ge=1)
    first_initial_state: int = EVALUATION_STATES
    repeats: int = Field(default=1, ge=1)
    execute: int = Field(ge=1)  # actions executed per decision
    n_obs_steps: int = Field(default=2, ge=1)
    step_limit: int = Field(ge=1)
    versions: dict[str, str]  # simulator packages
    settings: dict[str, str | int] = {}  # of the simulator's own protocol, where it has several

    @model_serializer(mode="wrap")
    def _without_empty_settings(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Simulators with one protocol keep the hashes that they had before there were several."""
        written: dict[str, Any] = values(self)
        if not self.settings:
            written.pop("settings", None)
        return written

    @model_validator(mode="after")
    def _states_do_not_wrap(self) -> EvaluationProtocol:
        if self.first_initial_state < 0:
            raise ValueError("first_initial_state must not be negative")
        return self

    @property
    def hash(self) -> str:
        """The protocol's identity."""
        return digest(self.model_dump(mode="json"))

    @property
    def initial_states(self) -> range:
        """The initial states of each task, the same for every actor."""
        return range(self.first_initial_state, self.first_initial_state + self.episodes_per_task)

    def episodes(self) -> list[tuple[str, int, int]]:
        """All episodes as (task, initial state, repeat), in the order in which rows are written."""
        return [
            (task, state, repeat)
            for task in self.sim.tasks
            for state in self.initial_states
            for repeat in range(self.repeats)
        ]
