"""What the LIBERO expert sees and how it moves: the scene's boxes, grasps that fit, paths that clear.

Everything is computed from the present joint positions alone, in a MuJoCo ``MjData`` of its own: no contact or
derived position is read from the running simulation, which holds them one physics step late. So the same state,
cloned or not, gives the same numbers.

Lengths are metres. The gripper's frame is that of robosuite's ``grip_site``: x along the fingers' axis, z down
when the gripper points down. In it the open finger pads stand at |x| = 38 to 46 mm, the fingertips end 4 mm
below the site and the hand (204 × 64 mm) begins 31 mm above it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

OPENING = 0.077  # between the open pads
WIDEST = 0.070  # that is still taken between the fingers; wider things are taken by the rim
TIP, PALM = 0.004, 0.031  # below and above the site: where the fingers end and the hand begins
RIM_WALL = 0.006  # from the outside of a rim to where the site goes
RIM_BAND = 0.01  # height of what counts as the rim
ARM = 0.65  # from the robot's base, as far as it reaches with ease; at about 0.8 the elbow locks
DEEPEST = 0.028  # site below an object's top
MARGIN = 0.006  # of the hand to neighbours
DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])

_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float)
# Points of the open gripper in its own x and y, and above the site: both fingers, and the hand.
_GRIPPER = np.array(
    [[i * x, y, z] for i in (-1, 1) for x in (0.042, 0.054) for y in (-0.011, 0, 0.011) for z in (0.0, 0.02)]
    + [[x, y, PALM + 0.01] for x in np.linspace(-0.104, 0.104, 9) for y in (-0.033, 0.0, 0.033)]
)


def rotation_z(yaw: float) -> np.ndarray:
    """The rotation by ``yaw`` about the vertical, [3, 3]."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def wrap(angle: Any, period: float = np.pi) -> Any:
    """The angle brought into [−period / 2, period / 2)."""
    return (np.asarray(angle) + period / 2) % period - period / 2


@dataclass(frozen=True)
class Grasp:
    """Where to close the fingers: the site's position [3], the yaw, and how exactly in x and y (metres)."""

    position: np.ndarray
    yaw: float
    tolerance: float


class Scene:
    """One task's objects, hand and fingers at the present state; call ``update`` first."""

    def __init__(self, environment: Any) -> None:
        self.mujoco, self.model, self.source = environment.mujoco, environment.model, environment.data
        self.gripper = environment.robot.gripper
        self.data = self.mujoco.MjData(self.model)
        self.site = environment.robot.eef_site_id
        self.fingers = environment.robot._ref_gripper_joint_pos_indexes
        self._finger_speeds = environment.robot._ref_gripper_joint_vel_indexes
        self._joint_speeds = environment.robot._ref_joint_vel_indexes
        self.bodies: dict[str, int] = dict(environment.env.obj_body_id)
        regions = environment.env.object_sites_dict
        self.parents = {name: getattr(region, "parent_name", None) for name, region in regions.items()}
        self.base = self.model.body(environment.robot.robot_model.root_body).pos[:2].copy()
        self._geoms, self._owner, self._centre, self._half = self._boxes()
        self._pads = tuple(
            frozenset(self.model.geom(n).id for n in self.gripper.important_geoms[side])
            for side in ("left_finger", "right_finger")
        )

    def update(self) -> None:
        """Read the present joint positions and the gripper's command."""
        data, source = self.data, self.source
        data.qpos[:] = source.qpos
        self.mujoco.mj_kinematics(self.model, data)
        self.mujoco.mj_collision(self.model, data)
        self.hand = data.site_xpos[self.site].copy()
        self.turn = data.site_xmat[self.site].reshape(3, 3).copy()
        self.yaw = float(np.arctan2(-self.turn[0, 0], self.turn[1, 0]))
        self.opening = float(data.qpos[self.fingers[0]] - data.qpos[self.fingers[1]])
        self.closing_speed = float(np.abs(source.qvel[self._finger_speeds]).max())  # m/s
        self.arm_speed = float(np.abs(source.qvel[self._joint_speeds]).max())  # rad/s
        self.command = float(self.gripper.current_action[0])  # 1 open, −1 closed
        self.rotation = rotation = data.geom_xmat[self._geoms].reshape(-1, 3, 3)
        local = self._centre[:, None] + _CORNERS * self._half[:, None]
        self.corners = data.geom_xpos[self._geoms][:, None] + np.einsum("gij,gcj->gci", rotation, local)
        self.low, self.high = self.corners.min(1), self.corners.max(1)

    def position(self, name: str) -> np.ndarray:
        """Where an object (its body) or a region (its site) is, [3]."""
        if name in self.bodies:
            return np.array(self.data.xpos[self.bodies[name]])
        return np.array(self.data.site_xpos[self.model.site(name).id])

    def points(self, name: str) -> np.ndarray:
        """The corners of an object's collision boxes, [n, 3]."""
        return self.corners[self._owner == self.bodies[name]].reshape(-1, 3)

    def touches(self, name: str) -> tuple[bool, bool]:
        """Whether the left and the right finger touch the object."""
        own = set(self._geoms[self._owner == self.bodies[name]].tolist())
        pairs = self.data.contact.geom[: self.data.ncon].tolist()
        met = {a if b in own else b for a, b in pairs if (a in own) != (b in own)}
        left, right = self._pads
        return bool(met & left), bool(met & right)

    def held(self, name: str) -> bool:
        """Whether the closed fingers hold the object: both touch it, or one does and it fills the gap."""
        left, right = self.touches(name)
        if left and right:
            return True
        points = self.points(name)
        inside = (self.hand > points.min(0) - 0.01).all() and (self.hand < points.max(0) + 0.01).all()
        return bool((left or right) and inside and self.opening > 0.004)

    def others(self, *names: str) -> np.ndarray:
        """Which boxes belong to none of these objects, bool [G]."""
        return ~np.isin(self._owner, [self.bodies[n] for n in names if n in self.bodies])

    def clear_height(self, to: np.ndarray, among: np.ndarray, radius: float) -> float:
        """The highest top of the boxes ``among`` that lie within ``radius`` of the straight way to ``to``."""
        ways = np.linspace(self.hand[:2], to[:2], 12)[:, None]
        low, high = self.low[among], self.high[among]
        gap = np.maximum(np.maximum(low[None, :, :2] - ways, ways - high[None, :, :2]), 0.0)
        near = (np.hypot(gap[..., 0], gap[..., 1]) < radius).any(0)
        return float(high[near, 2].max()) if near.any() else -np.inf

    def support(self, centre: np.ndarray, radius: float, among: np.ndarray, below: float) -> float:
        """The highest top of the boxes ``among`` under a disc, at most ``below``; −inf without any."""
        gap = np.maximum(np.maximum(self.low[:, :2] - centre[:2], centre[:2] - self.high[:, :2]), 0.0)
        under = among & (np.hypot(gap[:, 0], gap[:, 1]) < radius) & (self.high[:, 2] < below)
        return float(self.high[under, 2].max()) if under.any() else -np.inf

    def grasp(self, name: str, shift: np.ndarray, where: str) -> Grasp:
        """The best grasp from above: across the narrow side if that fits, else by the rim.

        ``shift`` [3] is how the object will be moved, to ``where`` (an object that may be met there). The cost
        adds the width, the turn of the wrist and 20 mm for each point of the open gripper that a neighbour would
        meet, here or there. The turn is counted from the present one, so a choice, once begun, stays.
        """
        points = self.points(name)
        pinch = self._pinch(name, points, shift, where)
        return pinch if pinch is not None else self._rim(name, points, shift, where)

    # -- inside ----------------------------------------------------------------------------------------------

    def _pinch(self, name: str, points: np.ndarray, shift: np.ndarray, where: str) -> Grasp | None:
        low, high = points[:, 2].min(), points[:, 2].max()
        height = high - low
        z = max(high - DEEPEST, low + height / 2, low + TIP + 0.004)
        band = points[:, :2]
        yaws = np.deg2rad(np.arange(-90, 90, 5.0))
        axes = np.stack([-np.sin(yaws), np.cos(yaws)], 1)  # of the fingers
        along, across = band @ axes.T, band @ np.stack([axes[:, 1], -axes[:, 0]], 1).T
        widths = np.ptp(along, axis=0)
        fits = widths < WIDEST
        if not fits.any():
            return None
        middle = (along.max(0) + along.min(0)) / 2, (across.max(0) + across.min(0)) / 2
        sides = np.stack([axes[:, 1], -axes[:, 0]], 1)
        centres = axes * middle[0][:, None] + sides * middle[1][:, None]
        hits = self._hits(centres, yaws, z, name) + self._hits(
            centres + shift[:2], yaws, z + shift[2], name, where
        )
        cost = widths + 0.006 * np.abs(wrap(yaws - self.yaw)) + 0.02 * hits
        k = int(np.argmin(np.where(fits, cost, np.inf)))
        room = (OPENING - widths[k]) / 2
        return Grasp(np.append(centres[k], z), float(yaws[k]), float(np.clip(room - 0.002, 0.003, 0.008)))

    def _rim(self, name: str, points: np.ndarray, shift: np.ndarray, where: str) -> Grasp:
        top = points[:, 2].max()
        rim = points[points[:, 2] > top - RIM_BAND][:, :2]
        z = max(top - DEEPEST, points[:, 2].min() + TIP + 0.008)
        middle = (rim.max(0) + rim.min(0)) / 2
        angles = np.deg2rad(np.arange(0, 360, 15.0))
        rays = np.stack([np.cos(angles), np.sin(angles)], 1)
        reach = ((rim - middle) @ rays.T).max(0) - RIM_WALL
        centres, yaws = middle + rays * reach[:, None], wrap(angles - np.pi / 2)
        way = np.hypot(*(centres - self.hand[:2]).T)
        stretch = np.maximum(np.hypot(*(centres - self.base).T) - ARM, 0.0)
        cost = 0.02 * np.abs(wrap(yaws - self.yaw)) + 0.2 * way + stretch
        cost += 0.02 * self._hits(centres, yaws, z, name)
        cost += 0.02 * self._hits(centres + shift[:2], yaws, z + shift[2], name, where)
        k = int(np.argmin(cost))
        return Grasp(np.append(centres[k], z), float(yaws[k]), 0.006)

    def _hits(self, centres: np.ndarray, yaws: np.ndarray, z: float, *names: str) -> np.ndarray:
        """How many points of the open gripper at each of K places stand in a box that is not the names', [K]."""
        far = (
            np.abs((self.low + self.high)[:, :2] / 2 - centres.mean(0))
            > 0.2 + (self.high - self.low)[:, :2] / 2
        )
        among = self.others(*names) & (self.high[:, 2] > z - TIP) & ~far.any(1)
        if not among.any():
            return np.zeros(len(yaws))
        c, s = np.cos(yaws), np.sin(yaws)
        x, y = np.stack([-s, c, 0 * c], 1), np.stack([c, s, 0 * c], 1)
        spots = np.append(centres, np.full((len(yaws), 1), z), 1)[:, None]
        spots = spots + _GRIPPER[:, :1] * x[:, None] + _GRIPPER[:, 1:2] * y[:, None]
        spots[..., 2] += _GRIPPER[:, 2]
        middle = self.data.geom_xpos[self._geoms[among]]
        seen = np.einsum("kpgj,gji->kpgi", spots[:, :, None] - middle, self.rotation[among])
        return (np.abs(seen - self._centre[among]) < self._half[among] + MARGIN).all(-1).any(-1).sum(1)

    def _boxes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The objects' and fixtures' collision geoms: their ids, owners' bodies, boxes' centres and half sizes."""
        model, roots = self.model, set(self.bodies.values())
        geoms, owners, centres, halves = [], [], [], []
        for g in range(model.ngeom):
            body = int(model.geom_bodyid[g])
            while body > 0 and body not in roots:
                body = int(model.body_parentid[body])
            if body in roots and model.geom_contype[g]:
                geoms.append(g)
                owners.append(body)
                centres.append(model.geom_aabb[g, :3])  # of any geom's shape, in its own frame
                halves.append(model.geom_aabb[g, 3:])
        return np.array(geoms), np.array(owners), np.array(centres), np.array(halves)
