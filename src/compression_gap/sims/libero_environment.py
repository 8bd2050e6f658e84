"""One LIBERO task: robosuite's environment, stepped without cameras, with a complete state.

What a published loop does at every control step, and this does not: run robosuite's observables (they have no
effect on the physics) and render. What it sees at a decision is the same bit by bit, which needs care:

* robosuite does not observe the end of a control step. It samples at one of the 25 physics steps, which one
  depends on how often observations were forced at the reset (the 24th after official initial states, the 25th
  after a random reset), and MuJoCo's positions are those before the last physics step. So the clock of
  robosuite's observables is kept here, and what they would have seen is set aside (26 kB) at the same instant.
* A soft reset (``hard_reset=False``) leaves behind the gripper's last command and the moved fixtures and
  coloured sites of the model; they are put back.
"""

from __future__ import annotations

import atexit
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import UserError
from .base import SimSpec
from .libero_assets import bddl_file, import_libero, initial_states
from .libero_protocols import LiberoProtocol
from .opengl import Renderer, import_mujoco, make_renderer

OPEN_AND_STILL = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)  # what the harnesses send while the scene settles
CONTROL_RATE = 20  # Hz
MOST_DRAWS = 100  # random placements that may collide before a reset gives up

# The oracle's state: the things of the goal, its predicates, and what else stands about.
THINGS, PREDICATES, OTHERS = 4, 3, 9  # as many as any of the 130 tasks has
_THING = ("there", *"xyz", "qw", "qx", "qy", "qz", "joint", *(f"from_hand_{a}" for a in "xyz"))
_OTHER = (*"xyz", "qw", "qx", "qy", "qz")
STATE_NAMES = (
    *(f"goal{i}_{part}" for i in range(THINGS) for part in _THING),
    *(f"predicate{i}_{part}" for i in range(PREDICATES) for part in ("holds", "gap_x", "gap_y", "gap_z")),
    *(f"other{i}_{part}" for i in range(OTHERS) for part in _OTHER),
)

# What a frame and an observation are made from, and what a task moves in the model.
_SEEN = ("qpos", "xpos", "xquat", "xmat", "xipos", "ximat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat",
         "cam_xpos", "cam_xmat", "light_xpos", "light_xdir")  # fmt: skip
_MODEL_FIELDS = ("body_pos", "body_quat", "site_rgba")
_PLAIN = (bool, int, float, str, np.generic, np.ndarray, type(None))


class LiberoEnvironment:
    """The environment of one task. ``seen`` is what a published loop would have observed last."""

    def __init__(self, task: str, spec: SimSpec, protocol: LiberoProtocol) -> None:
        envs = import_libero()
        self.mujoco = import_mujoco()
        from robosuite import load_controller_config
        from robosuite.utils.errors import RandomizationError

        self.task, self.spec, self.protocol = task, spec, protocol
        self._collision = RandomizationError
        file = str(bddl_file(task))
        problem = envs.bddl_utils.get_problem_info(file)["problem_name"]
        self.env: Any = envs.TASK_MAPPING[problem](
            file,
            robots=["Panda"],
            controller_configs=load_controller_config(default_controller="OSC_POSE"),
            initialization_noise=None,
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            control_freq=CONTROL_RATE,
            ignore_done=True,
            hard_reset=False,
        )
        self.env.sim.reset = self._reset_data
        self.model: Any = self.env.sim.model._model
        self.data: Any = self.env.sim.data._data
        self.robot: Any = self.env.robots[0]
        self.goal: list[list[str]] = self.env.parsed_problem["goal_state"]
        self.kind = self.mujoco.mjtState.mjSTATE_INTEGRATION
        self.size = self.mujoco.mj_stateSize(self.model, self.kind)
        self.period = 1.0 / self.env.control_freq
        self.substeps = int(self.env.control_timestep / self.env.model_timestep)
        self.hand = self.model.body(self.robot.robot_model.eef_name).id
        self.things, self.others = self._parts()
        self._official: np.ndarray | None = None
        self._pristine = self._copy(self.model, _MODEL_FIELDS)
        self._unplace_fixtures()
        self._visible = self.mujoco.MjvOption()
        self._visible.geomgroup[0] = 0  # collision shapes are not drawn
        self._renderer: Renderer | None = None
        self.scene: Any = None  # what an expert sees, made when one first acts
        self.seen: dict[str, np.ndarray] = {}
        self.holds: tuple[bool, ...] = ()
        self._since, self._sampled = 0.0, False

    # -- an episode ----------------------------------------------------------------------------------------

    def reset(self, number: int, *, official: int | None) -> None:
        """A random reset seeded by the number, or the official initial state with the index ``official``."""
        self._reset(number)
        if official is not None:
            self._set_official(official)
        first = self.seen
        for _ in range(self.protocol.settling_steps):
            self.step(OPEN_AND_STILL)
        if self.protocol.first_observation == "before-settling":
            self.seen = first
        self.holds = self._predicates()

    def reset_to(self, state: np.ndarray, bodies: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        """Start from a recorded state (see ``flat``), with these bodies of the model at (position, quaternion).

        The scene does not settle: what follows is what followed in the recording.
        """
        self._reset(0)
        for name, (position, quaternion) in bodies.items():
            at = self.model.body(name).id
            self.model.body_pos[at], self.model.body_quat[at] = position, quaternion
        self.set_flat(state)

    def fixtures(self) -> tuple[str, ...]:
        """The bodies that a task moves in the model: they are in no recorded state."""
        return tuple(fixture.root_body for fixture in self.env.fixtures_dict.values())

    def _reset(self, number: int) -> None:
        self._put_back(self.model, self._pristine)
        self.robot.gripper.current_action = np.zeros(self.robot.gripper.dof)
        self.env.seed(number)
        self._draw()
        self._since = 0.0
        self._observe_now()
        self.holds = self._predicates()

    def step(self, action: Sequence[float] | np.ndarray) -> bool:
        """One control step of 50 ms (25 of physics); whether the goal holds after it."""
        env, command = self.env, np.asarray(action, np.float64)
        env.timestep += 1
        for k in range(self.substeps):
            env.sim.forward()
            env._pre_action(command, k == 0)
            env.sim.step()
            self._tick()
        env.cur_time += env.control_timestep
        env._post_action(command)
        self.holds = self._predicates()
        return all(self.holds)

    def _unplace_fixtures(self) -> None:
        """Fixtures where the XML has them, in ``_pristine``: making the environment has already moved them.

        LIBERO's draw adds a fixture's new place to the present one of the region on it, and so needs the
        fixture at the origin: else the bowl "on the stove" falls to the floor half a metre beside it.
        """
        for element in self.env.model.worldbody.iter("body"):
            if element.get("name") in self.fixtures():
                at = self.model.body(element.get("name")).id
                for field, given in (
                    ("body_pos", element.get("pos", "0 0 0")),
                    ("body_quat", element.get("quat")),
                ):
                    self._pristine[field][at] = [float(x) for x in (given or "1 0 0 0").split()]

    def _reset_data(self) -> None:
        """MuJoCo's state as a model that was just loaded has it: what robosuite's hard reset starts from.

        Two forward passes, which its soft reset leaves out, warm the solver up (one after loading the model, one
        when a renderer is made): without them the two differ by 1e-14.
        """
        self.mujoco.mj_resetData(self.model, self.data)
        self.mujoco.mj_forward(self.model, self.data)
        self.mujoco.mj_forward(self.model, self.data)

    def _draw(self) -> None:
        for _ in range(MOST_DRAWS):
            try:
                self.env.reset()
                return
            except self._collision:
                continue
        raise RuntimeError(f"{self.task}: no placement without collisions in {MOST_DRAWS} draws")

    def _set_official(self, index: int) -> None:
        if self._official is None:
            self._official = initial_states(self.task)
            if self._official.shape[1] != 1 + self.model.nq + self.model.nv:
                raise UserError(
                    f"the initial states of {self.task} have {self._official.shape[1]} numbers, its model needs "
                    f"{1 + self.model.nq + self.model.nv}: they belong to another version of LIBERO"
                )
        if index >= len(self._official):
            raise UserError(
                f"{self.task} has {len(self._official)} official initial states, and number {index} was asked for: "
                f"ask for at most {len(self._official)} episodes per task, or take a protocol with random resets"
            )
        self.set_flat(self._official[index])

    def set_flat(self, state: np.ndarray) -> None:
        """Put time, positions and velocities, float64 [1 + nq + nv], as ``set_init_state`` of LIBERO does."""
        nq = self.model.nq
        self.data.time, self.data.qpos[:], self.data.qvel[:] = state[0], state[1 : 1 + nq], state[1 + nq :]
        self.env.sim.forward()
        self.env._check_success()
        self.env._post_process()
        self._observe_now()
        self.holds = self._predicates()

    def flat(self) -> np.ndarray:
        """Time, positions and velocities now, float64 [1 + nq + nv]: the layout of LIBERO's files."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])

    def _predicates(self) -> tuple[bool, ...]:
        return tuple(bool(self.env._eval_predicate(p)) for p in self.goal)

    def _observe_now(self) -> None:
        """What ``force_update`` does in robosuite: sample, and move its clock by one physics step."""
        self._since += self.env.model_timestep
        self._sample()

    def _tick(self) -> None:
        """The clock of robosuite's observables, in its own arithmetic (``Observable.update``)."""
        self._since += self.env.model_timestep
        if not self._sampled and self.period >= self._since:
            self._sample()
        if self._since >= self.period:
            if not self._sampled:
                self._sample()
            self._since %= self.period
            self._sampled = False

    def _sample(self) -> None:
        self.seen = self._now()
        self._sampled = True

    # -- what is seen --------------------------------------------------------------------------------------

    def proprio(self) -> np.ndarray:
        """The gripper's position (3), its orientation as quaternion xyzw (4), both fingers (2); float32 [9]."""
        seen = self.seen
        fingers = seen["qpos"][self.robot._ref_gripper_joint_pos_indexes]
        quaternion = np.roll(seen["xquat"][self.hand], -1)  # MuJoCo writes w first
        return np.concatenate([self._grip(), quaternion, fingers]).astype(np.float32)

    def state(self) -> np.ndarray:
        """The true state, float32 [len(STATE_NAMES)]: see ``STATE_NAMES``; absent parts are 0."""
        hand, rows, where = self._grip(), [], {}
        for name in self.things:
            position, quaternion, joint = self._pose(name)
            where[name] = position
            rows.append([1.0, *position, *quaternion, joint, *(position - hand)])
        goal = _padded(rows, THINGS, len(_THING))
        rows = []
        for predicate, holds in zip(self.goal, self.holds, strict=True):
            gap = where[predicate[2]] - where[predicate[1]] if len(predicate) == 3 else np.zeros(3)
            rows.append([float(holds), *gap])
        held = _padded(rows, PREDICATES, 4)
        rows = [[*position, *quaternion] for position, quaternion, _ in map(self._pose, self.others)]
        return np.concatenate([goal, held, _padded(rows, OTHERS, len(_OTHER))]).astype(np.float32)

    def frame(self, camera: str) -> np.ndarray:
        """One frame of what was seen, uint8 [h, w, 3], upright. The renderer is made at the first."""
        if self._renderer is None:
            self._renderer = make_renderer(self.mujoco, self.model, self.spec)
            atexit.register(self._close_renderer)  # runs before EGL's own exit, which would leave it broken
        present = self._now()
        self._show(self.seen)
        try:
            return self._renderer.render(self.data, camera=camera, option=self._visible)
        finally:
            self._show(present)

    def _grip(self) -> np.ndarray:
        return self.seen["site_xpos"][self.robot.eef_site_id]

    def _parts(self) -> tuple[list[str], list[str]]:
        """The things that the goal names, in its order, and the other objects and fixtures."""
        things = list(dict.fromkeys(name for predicate in self.goal for name in predicate[1:]))
        return things, [name for name in self.env.obj_body_id if name not in things]

    def _pose(self, name: str) -> tuple[np.ndarray, np.ndarray, float]:
        """Position [3], quaternion wxyz [4], and the angle or opening of a drawer, door or knob (else 0)."""
        body = self.env.obj_body_id.get(name)
        if body is not None:
            position, quaternion = self.seen["xpos"][body], self.seen["xquat"][body]
        else:  # a region: a site of the table or of an object
            site = self.model.site(name).id
            position, quaternion = self.seen["site_xpos"][site], np.zeros(4)
            self.mujoco.mju_mat2Quat(quaternion, self.seen["site_xmat"][site])
        joints = [self.model.joint(j) for j in getattr(self.env.get_object(name), "joints", None) or ()]
        moves = [j for j in joints if j.type[0] != self.mujoco.mjtJoint.mjJNT_FREE]
        return position, quaternion, float(self.seen["qpos"][moves[0].qposadr[0]]) if moves else 0.0

    def _now(self) -> dict[str, np.ndarray]:
        return {**self._copy(self.data, _SEEN), "site_rgba": self.model.site_rgba.copy()}

    def _show(self, seen: dict[str, np.ndarray]) -> None:
        """Put what was seen into MuJoCo's memory, to draw it."""
        for name, value in seen.items():
            getattr(self.model if name == "site_rgba" else self.data, name)[:] = value

    # -- the complete state --------------------------------------------------------------------------------

    def get_state(self) -> tuple[Any, ...]:
        """Physics, the positions derived from it, the model's moved parts, the controller's and robot's memory."""
        physics = np.empty(self.size)
        self.mujoco.mj_getState(self.model, self.data, physics, self.kind)
        clock = (self._since, self._sampled, self.env.timestep, self.env.cur_time)
        fields = self._copy(self.model, _MODEL_FIELDS)
        return physics, self._now(), self.seen, fields, self._memory(), clock, self.holds

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Put back what ``get_state`` gave, here or in another environment of the same task."""
        physics, derived, self.seen, fields, memory, clock, self.holds = state
        self._put_back(self.model, fields)
        self.mujoco.mj_setState(self.model, self.data, physics, self.kind)
        self.mujoco.mj_forward(self.model, self.data)
        # Forward overwrites the solver's warm start, and derives positions that are one physics step ahead of
        # those that a step leaves behind, which an expert may read.
        self.mujoco.mj_setState(self.model, self.data, physics, self.kind)
        self._show(derived)
        self._since, self._sampled, self.env.timestep, self.env.cur_time = clock
        for owner, values in zip(self._owners(), memory, strict=True):
            vars(owner).update(copy.deepcopy(values))

    def _owners(self) -> tuple[Any, ...]:
        """The objects that remember something from step to step."""
        robot = self.robot
        buffers = [v for n, v in sorted(vars(robot).items()) if n.startswith("recent_")]
        return robot, robot.controller, robot.gripper, *buffers

    def _memory(self) -> list[dict[str, object]]:
        return [
            {name: copy.deepcopy(value) for name, value in vars(owner).items() if isinstance(value, _PLAIN)}
            for owner in self._owners()
        ]

    @staticmethod
    def _copy(owner: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
        return {name: getattr(owner, name).copy() for name in names}

    @staticmethod
    def _put_back(owner: Any, fields: dict[str, np.ndarray]) -> None:
        for name, value in fields.items():
            getattr(owner, name)[:] = value

    def close(self) -> None:
        """Free the renderer and the environment."""
        atexit.unregister(self._close_renderer)
        self._close_renderer()
        self.env.close()

    def _close_renderer(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None


def _padded(rows: list[list[float]], count: int, width: int) -> np.ndarray:
    """Rows [count × width], flat; those that are missing are 0."""
    out = np.zeros((count, width))
    if rows:
        out[: len(rows)] = rows
    return out.reshape(-1)
