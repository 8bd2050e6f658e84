"""Scripted experts for LIBERO: pick and place from the true state, with the OSC_POSE controller.

The expert has no memory. Each action is a function of the simulator's complete state: joint positions, the
gripper's command and the task's goal. What it is doing follows from where things are: an object that the closed
fingers hold is carried, one that lies where the goal wants it is left alone, any other is picked up. So a clone
of the state continues as the original does, a lost object is picked up again, and a chunk rolled ahead from a
clone is what the expert would have done (``expert-chunked``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import UserError
from .libero_skills import DOWN, PALM, TIP, Scene, rotation_z, wrap
from .libero_tasks import instruction

# The tasks that are solved by placing things from above; benchmarks/libero_experts.py measures them.
_OFFERED = {
    "libero_spatial": range(10),
    "libero_object": range(10),
    "libero_goal": (1, 2, 4, 6, 8, 9),
    "libero_10": (0, 1, 4, 5, 6, 7),
}
EXPERT_TASKS: dict[str, str] = {  # task -> instruction
    f"{suite}-{i}": instruction(f"{suite}-{i}") for suite, tasks in _OFFERED.items() for i in tasks
}

MOVE, TURN = 0.05, 0.5  # what an action of 1 asks for: metres, radians
OPEN, CLOSE = -1.0, 1.0
UP = np.array([0.0, 0.0, 0.06])
AT_REST = 0.01  # m/s, of the fingers
STALLED = 0.03  # rad/s, of the fastest arm joint: something is in the way
SHUT = -0.99  # the gripper's command when closing is complete (it moves by 0.25 a step)


def expert_for(task: str) -> LiberoExpert:
    """The expert of a task. Raises ``UserError``, naming the tasks that have one, for any other."""
    if task not in EXPERT_TASKS:
        raise UserError(
            f"there is no scripted expert for {task}: take the official demonstrations, or one of "
            f"{', '.join(EXPERT_TASKS)}"
        )
    return LiberoExpert()


def scene_of(environment: Any) -> Scene:
    """The environment's scene, made once: it holds a copy of MuJoCo's data, which takes time to make."""
    if environment.scene is None:
        environment.scene = Scene(environment)
    scene: Scene = environment.scene
    return scene


class LiberoExpert:
    """Acts in the running episode of a ``Libero``; stateless."""

    def act(self, sim: Any) -> np.ndarray:
        """The action at the simulator's present state: float32 [7] in [−1, 1]."""
        environment = sim.environment
        scene = scene_of(environment)
        scene.update()
        both = zip(environment.goal, environment.holds, strict=True)
        pairs = [(goal, held) for goal, held in both if len(goal) == 3]  # not a switch or a drawer
        return _action(scene, [goal for goal, _ in pairs], tuple(held for _, held in pairs))


def _action(scene: Scene, goals: list[list[str]], holds: tuple[bool, ...]) -> np.ndarray:
    """Carry what is held, else pick up the first object that is not where it belongs."""
    for i, (_, name, _) in enumerate(goals):
        if scene.command < 0.99 and scene.held(name):
            return _carry(scene, goals, i)
    for i in range(len(goals)):
        if not holds[i]:
            return _leave(scene) if _arrived(scene, goals, i) else _pick(scene, goals, i)
    return _leave(scene)


def _pick(scene: Scene, goals: list[list[str]], i: int) -> np.ndarray:
    """Go above the object, down, and close; up again with open fingers if they closed on nothing."""
    name = goals[i][1]
    place, release = _place(scene, goals, i)
    shift = np.append((place - scene.position(name))[:2], release - scene.points(name)[:, 2].min())
    grasp = scene.grasp(name, shift, _owner(scene, goals[i][2]))
    offset = grasp.position - scene.hand
    away = float(np.hypot(*offset[:2]))
    turn = float(wrap(grasp.yaw - scene.yaw))
    target = rotation_z(scene.yaw + turn) @ DOWN
    there = away < 2 * grasp.tolerance and abs(offset[2]) < 0.008 and abs(turn) < 0.12
    closing = scene.command < 0.99 and away < 0.025 and abs(offset[2]) < 0.02
    if (there or closing) and not _shut(scene):
        return _toward(scene, scene.hand, target, CLOSE)
    if scene.command < 0.5 and scene.opening < 0.06 and away < 0.08 and offset[2] > -0.08:
        return _toward(scene, scene.hand + UP, target, OPEN)
    top = scene.points(name)[:, 2].max()
    clear = max(scene.clear_height(grasp.position, scene.others(name), 0.06), top) + TIP + 0.03
    return _travel(scene, grasp.position, clear, away + 0.04 * abs(turn), grasp.tolerance, target, OPEN)


def _carry(scene: Scene, goals: list[list[str]], i: int) -> np.ndarray:
    """Lift, go above the goal, down, and open."""
    name = goals[i][1]
    points = scene.points(name)
    target = rotation_z(scene.yaw) @ DOWN
    if not _shut(scene) and not _arrived(scene, goals, i):
        return _toward(scene, scene.hand, target, CLOSE)
    place, release = _place(scene, goals, i)
    offset = place[:2] - scene.position(name)[:2]
    away = float(np.hypot(*offset))
    down = float(points[:, 2].min()) - release  # how much further the object has to go
    floor = scene.hand[2] - down
    if goals[i][0] == "in":  # the hand is wider than a basket: it stays above the rim
        rim = scene.points(_owner(scene, goals[i][2]))[:, 2].max()
        floor = max(floor, rim - PALM + 0.012)
        if away < 0.03 and points[:, 2].min() < rim and scene.arm_speed < STALLED:
            floor = scene.hand[2]  # it stands on the rim or on another object: let go here
    tolerance = 0.012
    loose = 2.0 if scene.command > SHUT else 1.0
    if away < tolerance * loose and scene.hand[2] - floor < 0.012 * loose:
        return _toward(scene, scene.hand, target, OPEN)
    hang = float(scene.hand[2] - points[:, 2].min())
    radius = float(np.ptp(points[:, :2], axis=0).max()) / 2 + 0.02
    to = np.append(scene.hand[:2] + offset, floor)
    clear = scene.clear_height(to, scene.others(name), radius) + hang + 0.03
    return _travel(scene, to, max(clear, floor), away, tolerance, target, CLOSE)


def _shut(scene: Scene) -> bool:
    """Whether closing is complete: commanded in full, and the fingers have come to rest."""
    return scene.command <= SHUT and scene.closing_speed < AT_REST


def _leave(scene: Scene) -> np.ndarray:
    """Straight up with open fingers."""
    return _toward(scene, scene.hand + UP, rotation_z(scene.yaw) @ DOWN, OPEN)


def _arrived(scene: Scene, goals: list[list[str]], i: int) -> bool:
    """Whether the object was let go at its goal just now: the hand is still near."""
    name = goals[i][1]
    place, release = _place(scene, goals, i)
    points = scene.points(name)
    away = float(np.hypot(*(place - scene.position(name))[:2]))
    if away > 0.03 or points[:, 2].min() > release + 0.04 + (0.1 if goals[i][0] == "in" else 0.0):
        return False
    return bool(scene.hand[2] < points[:, 2].max() + 0.08)


def _place(scene: Scene, goals: list[list[str]], i: int) -> tuple[np.ndarray, float]:
    """Where the object's body belongs [3], and the height of its lowest point when it is let go."""
    kind, name, where = goals[i]
    place = scene.position(where)
    if kind == "in":
        together = [g for g in goals if g[0] == "in" and g[2] == where]
        # Side by side, across the fingers: along them the open fingers would meet the basket's wall.
        place[:2] += (together.index(goals[i]) - (len(together) - 1) / 2) * 0.06 * _across(scene)
        return place, float(scene.points(_owner(scene, where))[:, 2].min()) + 0.02
    points = scene.points(name)
    below = points[:, 2].min() + 0.06
    top = scene.support(place, 0.03, scene.others(name), below)
    return place, (top if np.isfinite(top) else float(place[2])) + 0.012


def _owner(scene: Scene, where: str) -> str:
    """The object that a region belongs to, or the object itself."""
    return where if where in scene.bodies else str(scene.parents[where])  # "None": the table


def _across(scene: Scene) -> np.ndarray:
    """The horizontal direction [2] perpendicular to the fingers' axis, of the two the one with x + y > 0."""
    axis = np.array([np.cos(scene.yaw), np.sin(scene.yaw)])
    return axis if axis.sum() > 0 else -axis


def _travel(
    scene: Scene, to: np.ndarray, clear: float, error: float, tolerance: float, turn: np.ndarray, grip: float
) -> np.ndarray:
    """Towards ``to`` at the clear height, descending in a funnel; up first if something stands in the way."""
    hand = scene.hand
    z = to[2] + max(0.0, error - tolerance) * 6.0
    z = min(z, max(clear, to[2]))
    far = error > 0.04
    aim = np.array([to[0], to[1], max(clear, to[2]) if far else z])
    if far and hand[2] < aim[2] - 0.03:
        aim[:2] = hand[:2]
    return _toward(scene, aim, turn, grip)


def _toward(scene: Scene, aim: np.ndarray, turn: np.ndarray, grip: float) -> np.ndarray:
    """The action that moves the site to ``aim`` and turns it to ``turn`` [3, 3]."""
    mujoco, quaternion, axis = scene.mujoco, np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, (turn @ scene.turn.T).flatten())
    mujoco.mju_quat2Vel(axis, quaternion, 1.0)
    move = np.clip((aim - scene.hand) / MOVE, -1.0, 1.0)
    return np.concatenate([move, np.clip(axis / TURN, -0.5, 0.5), [grip]]).astype(np.float32)
