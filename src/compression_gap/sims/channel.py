"""The channel: a visuomotor task in which every quantity is known (docs/theory.md). NumPy only.

A goal g is uniform on [−1, 1]²; the image shows g as a soft blob; the agent starts at 0 and has 16 steps.
The expert follows the minimum-jerk path to g (Flash and Hogan 1985),

    x(τ) = g · s(τ),   s(τ) = 10 τ³ − 15 τ⁴ + 6 τ⁵,   τ = t / 16,

and the episode succeeds if, after step 16, |x − g| ≤ ε in both dimensions (ε = 0.1).

Actions lie in [−1, 1]; an action of 1 moves by ``STEP`` = 1/8. The fastest step of a path to a corner is
0.117, an action of 0.94, so no path is clipped.

With Z = g quantised uniformly to b bits per dimension, a cell is 2 / 2ᵇ wide, and the best end point (the
cell's middle, or any other that keeps the window of width 2ε inside the cell) succeeds with probability
min(1, ε · 2ᵇ) per dimension, its square in two: ``optimal_success``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import unknown_name
from .base import Observation, SimInfo, SimSpec

TASKS = ("reach",)
CAMERAS = ("channel",)
DIMENSIONS = 2
STEPS = 16  # an episode; also the length of an expert's whole path
EPSILON = 0.1
STEP = 0.125  # displacement of an action of 1; a power of two, so that scaling is exact
VIEW = 1.25  # the image spans [−VIEW, VIEW]² in any size
BLOB = 0.15  # standard deviation of the blob, in the goal's units
_SEED = 0xC4A77E1  # separates these draws from others with the same small numbers


def min_jerk(tau: float | np.ndarray) -> Any:
    """The minimum-jerk profile s(τ) = 10 τ³ − 15 τ⁴ + 6 τ⁵, from s(0) = 0 to s(1) = 1."""
    return tau**3 * (10.0 - 15.0 * tau + 6.0 * tau**2)


def optimal_success(bits: float, *, dimensions: int = DIMENSIONS, epsilon: float = EPSILON) -> float:
    """Success of the best policy that knows g quantised to ``bits`` bits per dimension.

    Given its cell, g is uniform over a width 2 / 2ᵇ; a window of width 2ε covers min(1, ε · 2ᵇ) of it.
    """
    return float(min(1.0, epsilon * 2.0**bits) ** dimensions)


def quantise(goal: np.ndarray, bits: int) -> np.ndarray:
    """The middle of each value's cell, [−1, 1] being cut into 2ᵇ equal cells (nested in b)."""
    levels = 2**bits
    cell = np.clip(np.floor((np.asarray(goal) + 1.0) * levels / 2.0), 0, levels - 1)
    return (cell + 0.5) * 2.0 / levels - 1.0


class Channel:
    """The channel as a ``Sim``."""

    def __init__(self, spec: SimSpec) -> None:
        self.info = self.describe(spec)
        self.spec = spec
        self.goal = np.zeros(DIMENSIONS)
        self.position = np.zeros(DIMENSIONS)
        self.time = 0
        self._success = False
        self._image: np.ndarray | None = None  # of the present goal

    @staticmethod
    def describe(spec: SimSpec) -> SimInfo:
        """Sizes and limits. Raises ``UserError`` for an unknown task or camera."""
        for task in spec.tasks:
            if task not in TASKS:
                raise unknown_name("channel task", task, TASKS)
        for camera in spec.cameras:
            if camera not in CAMERAS:
                raise unknown_name("channel camera", camera, CAMERAS)
        return SimInfo(
            action_dim=DIMENSIONS,
            proprio_dim=DIMENSIONS + 1,
            state_dim=DIMENSIONS,
            cameras=CAMERAS,
            step_limit=STEPS,
            versions={"channel": "1"},
            state_names=("goal_x", "goal_y"),
            control_rate=float(STEPS),  # τ from 0 to 1 counts as a second
        )

    def reset(self, task: str, initial_state: int) -> None:
        """Draw the goal of that initial state and return to 0."""
        if task not in self.spec.tasks:
            raise unknown_name("task of this simulator", task, self.spec.tasks)
        self.goal = np.random.default_rng([_SEED, initial_state]).uniform(-1.0, 1.0, DIMENSIONS)
        self.position = np.zeros(DIMENSIONS)
        self.time, self._success, self._image = 0, False, None

    def observe(self, *, images: bool = True) -> Observation:
        """Image of g; proprio: own position [2] and phase t / 16; state: g [2] (B = T = 1)."""
        if images and self._image is None:
            self._image = _blob(self.goal, self.spec.image_size)
        proprio = np.append(self.position, self.time / STEPS)
        return Observation(
            images={CAMERAS[0]: self._image[None, None]} if images and self._image is not None else {},
            proprio=proprio.astype(np.float32)[None, None],
            task=np.zeros(1, np.int64),
            state=self.goal.astype(np.float32)[None, None],
        )

    def step(self, action: np.ndarray) -> None:
        """Move by ``STEP`` × action (float [2], clipped to [−1, 1]); success is decided at step 16."""
        self.position = self.position + STEP * np.clip(np.asarray(action, np.float64), -1.0, 1.0)
        self.time += 1
        if self.time == STEPS:
            self._success = bool(np.abs(self.position - self.goal).max() <= EPSILON)

    @property
    def success(self) -> bool:
        """Whether the agent stood within ε of the goal after step 16."""
        return self._success

    def get_state(self) -> Any:
        """The complete state."""
        return self.goal.copy(), self.position.copy(), self.time, self._success

    def set_state(self, state: Any) -> None:
        """Put back a state."""
        goal, position, self.time, self._success = state
        if not np.array_equal(goal, self.goal):
            self._image = None
        self.goal, self.position = goal.copy(), position.copy()

    def expert(self) -> MinJerkExpert:
        """A new expert."""
        return MinJerkExpert()

    def close(self) -> None:
        """Nothing to free."""


class MinJerkExpert:
    """Covers, from where it stands, the share of the remaining way that the min-jerk path would.

    On the path this is the path; off it the rest of the way is scaled, and the goal is still reached at
    step 16 as far as the action limits let it.
    """

    def act(self, sim: Any) -> np.ndarray:
        """The action for the present position and time: float32 [2] in [−1, 1]; 0 after step 16."""
        if sim.time >= STEPS:
            return np.zeros(DIMENSIONS, np.float32)
        now, after = min_jerk(sim.time / STEPS), min_jerk((sim.time + 1) / STEPS)
        move = (sim.goal - sim.position) * (after - now) / (1.0 - now)
        return np.clip(move / STEP, -1.0, 1.0).astype(np.float32)


def _blob(goal: np.ndarray, size: int) -> np.ndarray:
    """A Gaussian blob at the goal, x to the right and y upwards: uint8 [size, size, 3], grey."""
    centres = ((np.arange(size) + 0.5) / size * 2.0 - 1.0) * VIEW
    across = np.exp(-0.5 * ((centres - goal[0]) / BLOB) ** 2)
    down = np.exp(-0.5 * ((-centres - goal[1]) / BLOB) ** 2)
    grey = np.round(255.0 * down[:, None] * across[None, :]).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
