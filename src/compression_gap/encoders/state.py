"""The simulator's true state as it is standardised: the dimensions that move within a task, over its training frames.

The one place for the oracle's features, the controlled ladder's targets and the probe's. Over several tasks together
a spread says how tasks differ, and hides what moves within one: an object's height that is constant in every task,
and another in each, would look as large as the way that an object is pushed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..demos import DemoSet
from ..errors import UserError

SIGNAL = 1e-4  # of the spread of the dimension that moves most: what varies less is the physics' trembling
ROUNDING = 16  # steps of float32 at a dimension's largest value: what varies less is rounding
FURTHEST = 10.0  # standard deviations: a state beyond is as far as this; demonstrations hold next to none


def moving_dimensions(state: np.ndarray) -> np.ndarray:
    """Indices of the dimensions of one task's states [N, s] that move; int64 [m].

    Relative to the state itself, so that its units do not matter: see ``SIGNAL`` and ``ROUNDING``.
    """
    x = np.asarray(state, np.float64)
    if not x.size:
        return np.zeros(0, np.int64)
    spread = x.std(0)
    rounding = ROUNDING * float(np.finfo(np.float32).eps) * np.abs(x).max(0)
    return np.flatnonzero((spread > rounding) & (spread > SIGNAL * spread.max()))


@dataclass(frozen=True)
class Scale:
    """Which dimensions of a task's state move, and their mean and spread, over its training frames."""

    moving: np.ndarray  # int64 [m]
    mean: np.ndarray  # float64 [m]
    std: np.ndarray  # float64 [m]

    @staticmethod
    def fit(state: np.ndarray) -> Scale:
        """Of the states [N, s] of one task's frames."""
        x = np.asarray(state, np.float64)
        moving = moving_dimensions(x)
        return Scale(moving, x[:, moving].mean(0), x[:, moving].std(0))

    def standardise(self, state: np.ndarray) -> np.ndarray:
        """States [..., s] → float32 [..., m]."""
        return ((np.asarray(state, np.float64)[..., self.moving] - self.mean) / self.std).astype(np.float32)


@dataclass(frozen=True)
class Blocks:
    """The true state as features: one block a task, its moving dimensions; the other tasks' blocks are 0.

    So a linear layer has weights of its own for each task, whatever a dimension stands for in another one.
    """

    tasks: tuple[str, ...]
    scales: tuple[Scale, ...]  # one a task
    state_dim: int

    @staticmethod
    def fit(demosets: Sequence[DemoSet]) -> Blocks:
        """Of the training episodes of all sets. Raises ``UserError`` for a set without state, or of another size."""
        rows: dict[str, list[np.ndarray]] = {}
        for demos in demosets:
            if demos.state is None:
                raise UserError(
                    "the oracle encoder needs the simulator's true state, which this data does not hold: leave it out"
                )
            for e in demos.split("train"):
                rows.setdefault(e.task, []).append(np.asarray(demos.state[e.start : e.start + e.length]))
        tasks = tuple(dict.fromkeys(task for demos in demosets for task in demos.tasks))
        if missing := [task for task in tasks if task not in rows]:
            raise UserError(f"the task {missing[0]} has no training episode: record more of it")
        sizes = {part.shape[1] for of in rows.values() for part in of}
        if len(sizes) != 1:
            raise UserError(
                f"the true states have {' and '.join(map(str, sorted(sizes)))} numbers: study these sets apart"
            )
        scales = tuple(Scale.fit(np.concatenate(rows[task])) for task in tasks)
        return Blocks(tasks, scales, sizes.pop())

    @property
    def width(self) -> int:
        """Numbers of a feature: the moving dimensions of all tasks; 1, always 0, where nothing moves."""
        return max(1, sum(len(s.moving) for s in self.scales))

    def features(self, state: np.ndarray, task: np.ndarray) -> np.ndarray:
        """States [B, T, s] of the tasks with these numbers [B] → float32 [B, T, width].

        Raises ``UserError`` for states of another size and for a task that it was not fitted to.
        """
        if state.shape[-1] != self.state_dim:
            raise UserError(
                f"a true state of {state.shape[-1]} numbers; the oracle was fitted to {self.state_dim}"
            )
        if not ((task >= 0) & (task < len(self.tasks))).all():
            raise UserError(
                f"the oracle has no scale for a task that is not among {', '.join(self.tasks)}: "
                "a new instruction is no task of its"
            )
        out = np.zeros((*state.shape[:-1], self.width), np.float32)
        at = 0
        for number, scale in enumerate(self.scales):
            own = np.flatnonzero(task == number)
            block = np.clip(scale.standardise(state[own]), -FURTHEST, FURTHEST)
            out[own, :, at : at + len(scale.moving)] = block
            at += len(scale.moving)
        return out

    def as_json(self) -> dict[str, Any]:
        """The fields; doubles survive the text exactly."""
        scales = [{k: v.tolist() for k, v in vars(s).items()} for s in self.scales]
        return {"tasks": list(self.tasks), "state_dim": self.state_dim, "scales": scales}

    @staticmethod
    def from_json(about: Mapping[str, Any]) -> Blocks:
        """What ``as_json`` gave. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
        scales = tuple(
            Scale(np.array(s["moving"], np.int64), np.array(s["mean"], float), np.array(s["std"], float))
            for s in about["scales"]
        )
        tasks, size = tuple(map(str, about["tasks"])), int(about["state_dim"])
        for s in scales:
            shapes = {s.moving.shape, s.mean.shape, s.std.shape}
            inside = (s.moving >= 0).all() and (s.moving < size).all()
            if len(shapes) != 1 or s.moving.ndim != 1 or not (inside and np.isfinite(s.mean).all()):
                raise ValueError("a scale that fits no state")
            if not ((s.std > 0) & np.isfinite(s.std)).all():
                raise ValueError("a spread that is not above 0")
        if len(scales) != len(tasks):
            raise ValueError(f"{len(scales)} scales for {len(tasks)} tasks")
        return Blocks(tasks, scales, size)
