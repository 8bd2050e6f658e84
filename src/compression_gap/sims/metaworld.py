"""Meta-World (Yu et al. 2019, arXiv 1910.10897), version 3: 50 tabletop tasks with a scripted expert each.

What differs from its own evaluation loops, and why:

* An initial state is a number, the seed of the environment's own random state. ``reset`` puts back the
  model and the attributes of a new environment first, so an episode never depends on the one before it.
* ``proprio`` is the hand's position (metres) and the gripper's opening (0 to 1). Object and goal, which the
  39-d observation holds too, are ``state``, for the ``oracle`` encoder.
* ``get_state`` is complete: MuJoCo's integration state, the moved bodies and sites of the model, the
  environment's plain attributes, the expert's last observation, the success latch.
* Frames are rendered on request, without multisampling, shadows and reflections (``rendering="fast"``).

Actions are 4-d in [−1, 1]: displacement of the hand (1 = 1 cm) and gripper effort.
"""

from __future__ import annotations

import atexit
import copy
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

import numpy as np

from .. import extras
from ..errors import UserError, unknown_name
from .base import Observation, SimInfo, SimSpec
from .opengl import INSTALL_GL, Renderer, choose_backend, import_mujoco, make_renderer

__all__ = ["INSTALL_GL", "TASKS", "MetaWorld", "canonical_task", "choose_backend"]

# fmt: off
TASKS = (
    "assembly-v3", "basketball-v3", "bin-picking-v3", "box-close-v3", "button-press-v3",
    "button-press-topdown-v3", "button-press-topdown-wall-v3", "button-press-wall-v3", "coffee-button-v3",
    "coffee-pull-v3", "coffee-push-v3", "dial-turn-v3", "disassemble-v3", "door-close-v3", "door-lock-v3",
    "door-open-v3", "door-unlock-v3", "drawer-close-v3", "drawer-open-v3", "faucet-close-v3",
    "faucet-open-v3", "hammer-v3", "hand-insert-v3", "handle-press-v3", "handle-press-side-v3",
    "handle-pull-v3", "handle-pull-side-v3", "lever-pull-v3", "peg-insert-side-v3", "peg-unplug-side-v3",
    "pick-out-of-hole-v3", "pick-place-v3", "pick-place-wall-v3", "plate-slide-v3", "plate-slide-back-v3",
    "plate-slide-back-side-v3", "plate-slide-side-v3", "push-v3", "push-back-v3", "push-wall-v3",
    "reach-v3", "reach-wall-v3", "shelf-place-v3", "soccer-v3", "stick-pull-v3", "stick-push-v3",
    "sweep-v3", "sweep-into-v3", "window-close-v3", "window-open-v3",
)
# fmt: on
PRECISION_4 = ("push-v3", "pick-place-v3", "peg-insert-side-v3", "hammer-v3")
SUITES = {
    "precision-4": PRECISION_4,
    "8": (*PRECISION_4, "basketball-v3", "assembly-v3", "button-press-topdown-v3", "door-open-v3"),
}
CAMERAS = ("corner2", "gripperPOV", "corner", "corner3", "corner4", "topview", "behindGripper")
FLIPPED = frozenset({"corner2"})  # this camera hangs upside down
CLOSE_CORNER2 = (0.75, 0.075, 0.7)  # metres; the published camera stands too far away for small frames
STEP_LIMIT = 250
KEPT_ENVIRONMENTS = 4  # an environment holds a model, its data and a renderer
STATE_NAMES = (
    *(f"object{k}_{part}" for k in (1, 2) for part in ("x", "y", "z", "q0", "q1", "q2", "q3")),
    "goal_x",
    "goal_y",
    "goal_z",
    # Derived, so that a small network need not learn to subtract to the millimetre: the oracle is a limit.
    *(f"object1_from_hand_{axis}" for axis in "xyz"),
    *(f"goal_from_object1_{axis}" for axis in "xyz"),
)

CONTROL_RATE = 80.0  # Hz: a control step is five of physics, of 2.5 ms each
INSTALL_METAWORLD = extras.install("metaworld")

_PLAIN = (int, float, bool, str, bytes, np.generic, np.ndarray, list, tuple, dict, type(None))
# Not part of an episode: what gymnasium and the constructor set once and for all.
_FIXED = frozenset({"metadata", "fullpath", "_ezpickle_args", "_ezpickle_kwargs", "max_path_length"})
_DATA_FIELDS = ("xpos", "site_xpos", "geom_xpos", "xquat", "qpos", "qvel", "mocap_pos")
_MODEL_FIELDS = ("body_pos", "body_quat", "site_pos", "site_quat", "geom_pos", "geom_quat")


def canonical_task(name: str) -> str:
    """``push`` and ``push-v3`` are the same task, written ``push-v3``.

    Raises ``UserError`` for a name that is not a task.
    """
    full = name if name.endswith("-v3") else f"{name}-v3"
    if full not in TASKS:
        raise unknown_name("Meta-World task", name, [t.removesuffix("-v3") for t in TASKS])
    return full


class MetaWorld:
    """Meta-World as a ``Sim``. Environments are made at their first ``reset``; the last four are kept."""

    def __init__(self, spec: SimSpec) -> None:
        self.info = self.describe(spec)
        self.spec = spec
        self._kept: OrderedDict[str, _Environment] = OrderedDict()
        self._now: _Environment | None = None
        self._task = ""
        self._success = False

    @staticmethod
    def describe(spec: SimSpec) -> SimInfo:
        """Sizes and versions, without making an environment.

        Raises ``UserError`` for an unknown task or camera, or when Meta-World is not installed.
        """
        for task in spec.tasks:
            if task not in TASKS:
                raise unknown_name("Meta-World task", task, TASKS)
        for camera in spec.cameras:
            if camera not in CAMERAS:
                raise unknown_name("Meta-World camera", camera, CAMERAS)
        try:
            versions = {name: metadata.version(name) for name in ("metaworld", "mujoco", "gymnasium")}
        except metadata.PackageNotFoundError as error:
            raise UserError(f"Meta-World is not installed ({error}): {INSTALL_METAWORLD}") from error
        return SimInfo(
            action_dim=4,
            proprio_dim=4,
            state_dim=len(STATE_NAMES),
            cameras=spec.cameras or CAMERAS[:1],
            step_limit=STEP_LIMIT,
            versions=versions,
            state_names=STATE_NAMES,
            control_rate=CONTROL_RATE,
        )

    def reset(self, task: str, initial_state: int) -> None:
        """Start an episode; the same (task, initial state) gives the same state, whatever ran before."""
        if task not in self.spec.tasks:
            raise unknown_name("task of this simulator", task, self.spec.tasks)
        self._now = self._environment(task)
        self._now.reset(initial_state)
        self._task, self._success = task, False

    def observe(self, *, images: bool = True) -> Observation:
        """The present observation (B = T = 1); see the module's docstring for what it holds."""
        env = self._running()
        return Observation(
            images={c: env.frame(c)[None, None] for c in self.info.cameras} if images else {},
            proprio=env.robot()[None, None],
            task=np.array([self.spec.tasks.index(self._task)]),
            state=env.objects_and_goal()[None, None],
        )

    def step(self, action: np.ndarray) -> None:
        """One control step of 12.5 ms; the action (float [4]) is clipped to [−1, 1]."""
        self._success |= self._running().step(np.clip(action, -1.0, 1.0))

    @property
    def success(self) -> bool:
        """Whether the task has been solved at any step since ``reset``."""
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

    def expert(self) -> ScriptedExpert:
        """Meta-World's scripted policy for the running task (it has no memory)."""
        return ScriptedExpert(self._task)

    def last_observation(self) -> np.ndarray:
        """Meta-World's own 39-d observation (float64), which the scripted policies read."""
        return self._running().observation

    def close(self) -> None:
        """Free all environments and renderers."""
        while self._kept:
            self._kept.popitem()[1].close()
        self._now = None

    def _running(self) -> _Environment:
        if self._now is None:
            raise RuntimeError("reset() comes first")
        return self._now

    def _environment(self, task: str) -> _Environment:
        if task not in self._kept:
            if len(self._kept) >= KEPT_ENVIRONMENTS:
                self._kept.popitem(last=False)[1].close()
            self._kept[task] = _Environment(task, self.spec)
        self._kept.move_to_end(task)
        return self._kept[task]


class ScriptedExpert:
    """Meta-World's scripted policy; its raw actions reach 25 and are clipped."""

    def __init__(self, task: str) -> None:
        _import_metaworld()
        from metaworld.policies import ENV_POLICY_MAP

        policy: Any = ENV_POLICY_MAP[task]
        self._policy = policy()

    def act(self, sim: Any) -> np.ndarray:
        """The action for the simulator's present state: float32 [4] in [−1, 1]."""
        action = self._policy.get_action(sim.last_observation())
        return np.clip(np.asarray(action, np.float32), -1.0, 1.0)


@dataclass(frozen=True)
class _State:
    task: str
    success: bool
    environment: tuple[Any, ...]


@dataclass(frozen=True)
class _Alias:
    """An attribute that is a window onto MuJoCo's own memory: some tasks keep one, and it moves along."""

    owner: str  # "data" or "model"
    field: str
    offset: int  # bytes
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Environment:
    """One Meta-World task: its environment, the pristine values to start from, and its renderer."""

    def __init__(self, task: str, spec: SimSpec) -> None:
        self.mujoco, classes = _import_metaworld()
        self.spec = spec
        self.env = env = classes[task]()
        env._partially_observable = False
        env.__dict__.pop("sawyer_observation_space", None)  # cached with the goal hidden
        env._set_task_called = True
        env._freeze_rand_vec, env.seeded_rand_vec = False, True
        env.max_path_length = sys.maxsize  # the step limit is the protocol's, not the environment's
        env.model.cam_pos[env.model.camera("corner2").id] = CLOSE_CORNER2
        self.kind = self.mujoco.mjtState.mjSTATE_INTEGRATION
        self.size = self.mujoco.mj_stateSize(env.model, self.kind)
        self.observation = np.zeros(39)
        self.renderer: Renderer | None = None
        self._pristine = (self._model_fields(), self._attributes())

    def reset(self, seed: int) -> None:
        """Two passes with the same draws, as when Meta-World resets to a task it was given.

        The first moves the bodies of the model, the second settles the hand among them.
        """
        env = self.env
        self._put_back(*self._pristine)
        self.mujoco.mj_resetData(env.model, env.data)
        self.mujoco.mj_forward(env.model, env.data)
        for _ in range(2):
            env.seed(seed)
            self.mujoco.mj_resetData(env.model, env.data)
            env.reset_model()
        # The tasks move bodies and sites last: without this, the first frame shows them at the old place.
        self.mujoco.mj_forward(env.model, env.data)
        env.curr_path_length = 0
        env._prev_obs = env._get_curr_obs_combined_no_goal()
        self.observation = env._get_obs()

    def step(self, action: np.ndarray) -> bool:
        """Advance by one action; whether the task is solved at this step."""
        self.observation, _, _, _, info = self.env.step(np.asarray(action, np.float64))
        return bool(info["success"])

    def robot(self) -> np.ndarray:
        """Hand position [3] and gripper opening [1], float32."""
        return np.asarray(self.env._get_curr_obs_combined_no_goal()[:4], np.float32)

    def objects_and_goal(self) -> np.ndarray:
        """The true state, float32 [23]: two objects' position and quaternion [14], the goal [3], the first
        object as seen from the hand [3] and the goal as seen from the object [3]; absent parts are 0.

        Not clipped to the observation space, which does not hold the goal of every task.
        """
        now, goal = self.env._get_curr_obs_combined_no_goal(), self.env._get_pos_goal()
        hand, first = now[:3], now[4:7]
        return np.concatenate([now[4:18], goal, first - hand, goal - first]).astype(np.float32)

    def frame(self, camera: str) -> np.ndarray:
        """One frame, uint8 [h, w, 3]. The renderer is made at the first."""
        if self.renderer is None:
            self.renderer = make_renderer(self.mujoco, self.env.model, self.spec)
            atexit.register(self._close_renderer)  # runs before EGL's own exit, which would leave it broken
        pixels = self.renderer.render(self.env.data, camera=camera, shadows=self.spec.rendering != "fast")
        return np.ascontiguousarray(pixels[::-1] if camera in FLIPPED else pixels)

    def get_state(self) -> tuple[Any, ...]:
        """Physics, model fields, attributes and the last observation, all copied."""
        physics = np.empty(self.size)
        self.mujoco.mj_getState(self.env.model, self.env.data, physics, self.kind)
        return physics, self._model_fields(), self._attributes(), self.observation.copy()

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Put back what ``get_state`` gave; the next steps then are equal bit by bit."""
        physics, fields, attributes, observation = state
        model, data = self.env.model, self.env.data
        self._put_back(fields, attributes)
        self.mujoco.mj_setState(model, data, physics, self.kind)
        self.mujoco.mj_forward(model, data)
        # mj_forward overwrites the solver's warm start, which is part of the state: set it once more.
        self.mujoco.mj_setState(model, data, physics, self.kind)
        self.observation = observation.copy()

    def close(self) -> None:
        """Free the renderer and the environment."""
        atexit.unregister(self._close_renderer)
        self._close_renderer()
        self.env.close()

    def _close_renderer(self) -> None:
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None

    def _model_fields(self) -> dict[str, np.ndarray]:
        """The places of bodies, sites and geoms, which the tasks move at reset."""
        return {name: getattr(self.env.model, name).copy() for name in _MODEL_FIELDS}

    def _attributes(self) -> dict[str, object]:
        """The environment's plain attributes, copied together so that shared arrays stay shared."""
        plain: dict[str, object] = {
            name: self._alias(value) or value if isinstance(value, np.ndarray) else value
            for name, value in vars(self.env).items()
            if isinstance(value, _PLAIN) and name not in _FIXED
        }
        return copy.deepcopy(plain)

    def _put_back(self, fields: dict[str, np.ndarray], attributes: dict[str, object]) -> None:
        for name, value in fields.items():
            getattr(self.env.model, name)[:] = value
        live = vars(self.env)
        for name in [n for n, v in live.items() if isinstance(v, _PLAIN) and n not in _FIXED]:
            if name not in attributes:
                del live[name]  # set by a later step or episode
        for name, kept in copy.deepcopy(attributes).items():
            live[name] = self._window(kept) if isinstance(kept, _Alias) else kept

    def _alias(self, array: np.ndarray) -> _Alias | None:
        """Where in MuJoCo's memory the array lies, or None if it is an ordinary array."""
        root: Any = array
        while isinstance(root, np.ndarray) and root.base is not None:
            root = root.base
        if isinstance(root, np.ndarray):
            return None
        at = array.__array_interface__["data"][0]
        for owner, names in (("data", _DATA_FIELDS), ("model", _MODEL_FIELDS)):
            for field in names:
                whole = getattr(getattr(self.env, owner), field)
                offset = at - whole.__array_interface__["data"][0]
                if 0 <= offset < whole.nbytes:
                    return _Alias(owner, field, offset, array.shape, array.strides)
        raise AssertionError("an attribute lies in a MuJoCo field that get_state does not know")

    def _window(self, alias: _Alias) -> np.ndarray:
        whole = getattr(getattr(self.env, alias.owner), alias.field)
        return np.ndarray(alias.shape, whole.dtype, whole, alias.offset, alias.strides)


def _import_metaworld() -> tuple[ModuleType, Mapping[str, type]]:
    """MuJoCo and the environment classes by task."""
    mujoco = import_mujoco(INSTALL_METAWORLD)
    try:
        from metaworld.env_dict import ENV_CLS_MAP
    except ModuleNotFoundError as error:
        raise UserError(f"Meta-World is not installed ({error}): {INSTALL_METAWORLD}") from error
    # Its policies are clipped on purpose, above.
    warnings.filterwarnings("ignore", message="Constant.s. may be too high")
    return mujoco, ENV_CLS_MAP
