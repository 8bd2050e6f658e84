"""LIBERO (Liu et al. 2023, arXiv 2306.03310): 130 tasks of a Panda arm at tables, with language instructions.

How an episode starts and ends is a protocol (``SimSpec.protocol``, see ``libero_protocols``); the default takes
the official initial states. What an initial state's number means:

* ``EVALUATION_STATES`` + k, where the protocol has fixed states: the k-th of the 50 official ones;
* any other number: a random reset of LIBERO's own, seeded by the number. Demonstrations and tuning never see an
  evaluation's state.

Frames are upright: robosuite returns them as OpenGL does, bottom row first, and they are turned over once, rows
only, as in OAT's evaluation. (openpi and lerobot also mirror them, left for right, to match their training data.)
The program re-renders demonstrations with this class, so training and evaluation agree.

``proprio`` is the gripper's position in metres (3), its orientation as a quaternion x, y, z, w (4) and the two
fingers' positions (2). ``state``, which the ``oracle`` encoder alone reads, names the things of the goal first:
pose, joint, place as seen from the hand; then the goal's predicates; then the other objects' poses.

Actions are 7-d in [−1, 1]: OSC_POSE's change of position (1 = 5 cm) and of orientation (axis-angle, 1 = 0.5 rad),
and the gripper (−1 opens, 1 closes).
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError, unknown_name
from .base import EVALUATION_STATES, Observation, SimInfo, SimSpec
from .libero_assets import versions
from .libero_environment import CONTROL_RATE, STATE_NAMES, LiberoEnvironment
from .libero_expert import EXPERT_TASKS
from .libero_protocols import Rendering, protocol
from .libero_tasks import SUITES, TASKS, instruction, resolve, suite_of

__all__ = ["SUITES", "TASKS", "Libero", "resolve"]

CAMERAS = ("agentview", "robot0_eye_in_hand", "frontview", "sideview", "birdview", "galleryview")
DEFAULT_CAMERAS = CAMERAS[:2]
RENDERING: Rendering = "default"  # reported scores use it
OFFICIAL_STATES = 50  # of each task
SEEDS = 2**32  # NumPy's


class Libero:
    """LIBERO as a ``Sim``. The environment of one task is kept; another task's replaces it."""

    def __init__(self, spec: SimSpec) -> None:
        self.info = self.describe(spec)
        self.spec = spec
        self.protocol = protocol(spec.protocol)
        self._now: LiberoEnvironment | None = None
        self._task = ""
        self._success = False

    @staticmethod
    def describe(spec: SimSpec) -> SimInfo:
        """Sizes, limits and versions, without importing LIBERO.

        Raises ``UserError`` for an unknown task, camera or protocol, or when LIBERO is not installed.
        """
        for task in spec.tasks:
            if task not in TASKS:
                raise unknown_name("LIBERO task", task, TASKS)
        for camera in spec.cameras:
            if camera not in CAMERAS:
                raise unknown_name("LIBERO camera", camera, CAMERAS)
        how = protocol(spec.protocol)
        return SimInfo(
            action_dim=7,
            proprio_dim=9,
            state_dim=len(STATE_NAMES),
            cameras=spec.cameras or DEFAULT_CAMERAS,
            step_limit=how.step_limit(tuple(suite_of(t) for t in spec.tasks)),
            versions=versions(),
            state_names=STATE_NAMES,
            without_expert=tuple(t for t in spec.tasks if t not in EXPERT_TASKS),
            instructions={t: instruction(t) for t in spec.tasks},
            evaluation_states=OFFICIAL_STATES if how.fixed_states else None,
            control_rate=CONTROL_RATE,
            execute=how.execute,
            settings=how.settings,
        )

    def reset(self, task: str, initial_state: int) -> None:
        """Start an episode; the same (task, initial state) gives the same state, whatever ran before."""
        if task not in self.spec.tasks:
            raise unknown_name("task of this simulator", task, self.spec.tasks)
        official = self._official(task, initial_state)
        self._now = self._environment(task)
        self._now.reset(initial_state if official is None else official, official=official)
        self._success = False

    def load(self, task: str) -> None:
        """Make the task's environment, or keep it; an episode begins with ``reset`` or ``reset_to``."""
        self._now = self._environment(task)

    def reset_to(
        self, task: str, state: np.ndarray, bodies: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> None:
        """Start an episode from a recorded state; see ``LiberoEnvironment.reset_to``."""
        self._now = self._environment(task)
        self._now.reset_to(state, bodies)
        self._success = False

    def observe(self, *, images: bool = True) -> Observation:
        """What a published loop would have observed now (B = T = 1); see the module's docstring."""
        env = self._running()
        return Observation(
            images={c: env.frame(c)[None, None] for c in self.info.cameras} if images else {},
            proprio=env.proprio()[None, None],
            task=np.array([self.spec.tasks.index(self._task)]),
            state=env.state()[None, None],
            text=(instruction(self._task),),
        )

    def step(self, action: np.ndarray) -> None:
        """One control step of 50 ms; the action (float [7]) is clipped to [−1, 1]."""
        self._success |= self._running().step(np.clip(action, -1.0, 1.0))

    @property
    def success(self) -> bool:
        """Whether the goal of the task held after any step since ``reset``."""
        return self._success

    def get_state(self) -> Any:
        """The complete state of the running episode."""
        return _State(self._task, self._success, self._running().get_state())

    def set_state(self, state: Any) -> None:
        """Put back a state of the same task, taken from this simulator or from another one like it."""
        if state.task != self._task:
            raise ValueError(f"a state of {state.task} was put into an episode of {self._task}")
        self._running().set_state(state.environment)
        self._success = state.success

    def expert(self) -> Any:
        """A scripted expert. Raises ``UserError`` for a task that has none, naming those that do."""
        from .libero_expert import expert_for

        return expert_for(self._task)

    @property
    def environment(self) -> LiberoEnvironment:
        """The running task's environment: ``env`` is robosuite's, ``model`` and ``data`` are MuJoCo's."""
        return self._running()

    def close(self) -> None:
        """Free the environment and its renderer."""
        if self._now is not None:
            self._now.close()
            self._now, self._task = None, ""
            gc.collect()  # robosuite's objects form cycles that hold a gigabyte

    def _running(self) -> LiberoEnvironment:
        if self._now is None:
            raise RuntimeError("reset() comes first")
        return self._now

    def _environment(self, task: str) -> LiberoEnvironment:
        if self._now is None or task != self._task:
            self.close()
            self._now, self._task = LiberoEnvironment(task, self.spec, self.protocol), task
        return self._now

    def _official(self, task: str, initial_state: int) -> int | None:
        """Which official initial state a number names, or None for a random reset."""
        if not 0 <= initial_state < SEEDS:
            raise UserError(
                f"an initial state of LIBERO is a number from 0 to {SEEDS - 1}, not {initial_state}"
            )
        if not self.protocol.fixed_states or initial_state < EVALUATION_STATES:
            return None
        k = initial_state - EVALUATION_STATES
        if k >= OFFICIAL_STATES:
            raise UserError(
                f"{task} has {OFFICIAL_STATES} official initial states, and number {k} was asked for: ask for at "
                f"most {OFFICIAL_STATES} episodes per task, or take the protocol 'oat-as-published'"
            )
        return k


@dataclass(frozen=True)
class _State:
    task: str
    success: bool
    environment: tuple[Any, ...]
