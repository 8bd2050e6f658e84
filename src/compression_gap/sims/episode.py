"""One episode on one simulator: from decision to decision, and how it ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .base import Observation, Sim

Asks = Literal["observation", "expert-chunk", "expert", "step"]


@dataclass(frozen=True)
class Drive:
    """How an episode is driven, as far as a worker needs to know."""

    asks: Asks  # what a decision is made from; "step" asks for nothing but the step number
    execute: int  # actions executed per decision
    step_limit: int
    n_obs_steps: int = 1
    horizon: int = 1  # of an expert's chunk
    images: bool = False


@dataclass(frozen=True)
class Outcome:
    """How an episode ended."""

    success: bool
    length: int  # steps until success, or the limit
    decisions: int


class EpisodeRunner:
    """One episode on one ``Sim``, from decision to decision.

    Frames are rendered at decision points and the ``n_obs_steps`` − 1 frames before them, never between.
    """

    def __init__(self, sim: Sim, drive: Drive, *, after_step: Callable[[Sim], None] | None = None) -> None:
        self.sim = sim
        self.drive = drive
        self.after_step = after_step  # also called after reset; for video
        self.steps = self.decisions = 0
        self._frames: deque[Observation] = deque(maxlen=drive.n_obs_steps)

    def start(self, task: str, initial_state: int) -> Any:
        """Reset and run to the first decision: what is asked (see ``_ask``), or the ``Outcome``."""
        self.steps = self.decisions = 0
        self._frames.clear()
        self.sim.reset(task, initial_state)
        if self.after_step:
            self.after_step(self.sim)
        if self.drive.asks == "expert":
            return self._run_expert()
        if self.drive.asks == "observation":
            first = self.sim.observe(images=self.drive.images)
            self._frames.extend([first] * self.drive.n_obs_steps)  # nothing was seen before the start
        return self._ask()

    def execute(self, chunk: np.ndarray) -> Any:
        """Execute the first actions of a chunk (float [n, d]) and run to the next decision.

        An empty chunk ends the episode: there is nothing left to replay.
        """
        actions = chunk[: self.drive.execute]
        if not len(actions):
            self.decisions -= 1
            return self._outcome()
        for left in reversed(range(len(actions))):
            self._step(actions[len(actions) - 1 - left])
            if self._over:
                return self._outcome()
            seen = left < self.drive.n_obs_steps and self.steps + left < self.drive.step_limit
            if seen and self.drive.asks == "observation":
                self._frames.append(self.sim.observe(images=self.drive.images))
        return self._ask()

    @property
    def _over(self) -> bool:
        return self.sim.success or self.steps >= self.drive.step_limit

    def _step(self, action: np.ndarray) -> None:
        self.sim.step(action)
        self.steps += 1
        if self.after_step:
            self.after_step(self.sim)

    def _outcome(self) -> Outcome:
        return Outcome(bool(self.sim.success), self.steps, self.decisions)

    def _run_expert(self) -> Outcome:
        expert = self.sim.expert()
        while not self._over:
            self.decisions += 1
            self._step(expert.act(self.sim))
        return self._outcome()

    def _ask(self) -> Any:
        """An ``Observation`` (B = 1), an expert's chunk (float32 [H, d]), or the step number."""
        self.decisions += 1
        if self.drive.asks == "observation":
            return Observation.history(list(self._frames))
        if self.drive.asks == "expert-chunk":
            return expert_chunk(self.sim, self.drive.horizon)
        return self.steps


def expert_chunk(sim: Sim, horizon: int) -> np.ndarray:
    """The expert's next ``horizon`` actions from the present state, float32 [H, d]; the state is put back."""
    here = sim.get_state()
    expert = sim.expert()
    actions = []
    for _ in range(horizon):
        actions.append(expert.act(sim))
        sim.step(actions[-1])
    sim.set_state(here)
    return np.asarray(actions, np.float32)
