"""The probe: how well a linear reader recovers the true state from one frame's features, the same for all encoders.

Ridge regression (Hoerl and Kennard 1970) in closed form, one for each task: with features X [n, p] standardised
and states Y centred over the training frames,

    W(λ) = (XᵀX / n + λ I)⁻¹ XᵀY / n,   or, where p > n,   Xᵀ (XXᵀ / n + λ I)⁻¹ Y / n,

fitted on the training episodes, λ chosen for each dimension on the validation episodes, and scored on the test
episodes by the out-of-sample R² (Campbell and Thompson 2008),

    R² = 1 − Σ (y − ŷ)² / Σ (y − ȳ)²,   ȳ: the mean of the training frames,

which is 0 for features that tell nothing and 1 for features that tell all. Dimensions that do not move within a
task's training frames are left out. Intervals: percentile bootstrap over test episodes. NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..demos import DemoSet
from ..demos.rounding import is_constant
from ..errors import UserError
from ..statistics.intervals import Span
from .state import moving_dimensions

ROWS = 2048  # training frames of a task at most, evenly thinned, for all encoders alike
STRENGTHS = tuple(10.0**k for k in range(-6, 4))
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class TaskProbe:
    """The probe on one task: R² of each dimension of the true state that moves, and their mean."""

    mean: Span
    r2: Mapping[str, Span]
    strength: Mapping[str, float]
    frames: Mapping[str, int]
    test_episodes: int

    @staticmethod
    def from_json(told: Mapping[str, Any]) -> TaskProbe:
        """What ``asdict`` gave."""
        spans = {name: Span(**span) for name, span in told["r2"].items()}
        return TaskProbe(**{**told, "mean": Span(**told["mean"]), "r2": spans})


@dataclass(frozen=True, kw_only=True)
class Probed:
    """The probe on all tasks, with the number of features. ``mean``: None where nothing moves."""

    mean: Span | None
    tasks: Mapping[str, TaskProbe]
    features: int


class Ridge:
    """All strengths of one regression from one eigendecomposition, of the smaller of XᵀX and XXᵀ."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        """Features [n, p] (any p; those constant up to rounding are dropped) and targets [n, m]."""
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        self.x_mean, self.y_mean, std = x.mean(0), y.mean(0), x.std(0)
        self.kept = np.flatnonzero(~is_constant(x))
        self.std = std[self.kept]
        x, y, n = self._standardise(x), y - self.y_mean, len(x)
        # G's eigenvalues λᵢ and vectors Q give W(λ) = left · (right / (λᵢ + λ))
        if len(self.kept) <= n:
            self.values, q = np.linalg.eigh(x.T @ x / n)
            self.left, self.right = q, q.T @ (x.T @ y) / n
        else:
            self.values, q = np.linalg.eigh(x @ x.T / n)
            self.left, self.right = x.T @ q, q.T @ y / n
        self.values = np.maximum(self.values, 0)

    def _standardise(self, x: np.ndarray) -> np.ndarray:
        return (np.asarray(x, np.float64)[:, self.kept] - self.x_mean[self.kept]) / self.std

    def predict(self, x: np.ndarray, strength: float) -> np.ndarray:
        """Targets [n, m] of features [n, p]."""
        projected = self._standardise(x) @ self.left
        out: np.ndarray = projected @ (self.right / (self.values + strength)[:, None]) + self.y_mean
        return out

    def predict_all(self, x: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
        """Targets [strengths, n, m]."""
        projected = self._standardise(x) @ self.left
        return (
            np.stack([projected @ (self.right / (self.values + s)[:, None]) for s in strengths]) + self.y_mean
        )


def probe(
    features: Sequence[np.ndarray],
    demosets: Sequence[DemoSet],
    *,
    state_names: Sequence[str] = (),
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Probed:
    """R² of every dimension that moves, per task, its mean over dimensions and tasks, with intervals.

    ``features``: the cached ones [F, C, ...], one array per set, of all cameras together. The mean is None
    where nothing moves: a study goes on without its probe. Raises ``UserError`` if the demonstrations hold no state.
    """
    tasks: dict[str, TaskProbe] = {}
    resampled = []
    for number, (array, demos) in enumerate(zip(features, demosets, strict=True)):
        if demos.state is None:
            raise UserError("the probe needs demonstrations that hold the simulator's true state")
        rng = np.random.default_rng([seed, number])
        for task in demos.tasks:
            told, draws = _probe_task(array, demos, task, state_names, rng)
            if told is not None:
                tasks[task if task not in tasks else f"{task} (set {number + 1})"] = told
                resampled.append(draws)
        progress(number + 1, len(demosets))
    mean = None
    if tasks:
        mean = _span(float(np.mean([t.mean.value for t in tasks.values()])), np.mean(resampled, axis=0))
    return Probed(mean=mean, tasks=tasks, features=int(np.prod(features[0].shape[1:])))


def _probe_task(
    features: np.ndarray, demos: DemoSet, task: str, state_names: Sequence[str], rng: np.random.Generator
) -> tuple[TaskProbe | None, np.ndarray]:
    """One task's result, and the resampled mean R² [RESAMPLES]; None if nothing moves, or a split holds none of it."""
    assert demos.state is not None
    frames = {
        split: [np.arange(e.start, e.start + e.length) for e in demos.split(split) if e.task == task]
        for split in ("train", "validation", "test")
    }
    if not all(frames.values()):
        return None, np.zeros(0)
    rows = {split: np.concatenate(of) for split, of in frames.items()}
    state = np.asarray(demos.state, np.float64)
    moving = moving_dimensions(state[rows["train"]])
    if not len(moving):
        return None, np.zeros(0)
    if len(rows["train"]) > ROWS:
        rows["train"] = rows["train"][np.linspace(0, len(rows["train"]) - 1, ROWS).astype(np.int64)]
    x = {split: features[r].reshape(len(r), -1) for split, r in rows.items()}
    y = {split: state[r][:, moving] for split, r in rows.items()}
    ridge = Ridge(x["train"], y["train"])
    error = ((ridge.predict_all(x["validation"], STRENGTHS) - y["validation"]) ** 2).mean(1)
    chosen = error.argmin(0)
    every = ridge.predict_all(x["test"], STRENGTHS)
    predicted = every[chosen, :, np.arange(len(moving))].T
    squared = (predicted - y["test"]) ** 2, (ridge.y_mean - y["test"]) ** 2
    # sums per test episode [E, m]: all that a resample needs
    cuts = np.cumsum([len(f) for f in frames["test"]])[:-1]
    left, whole = (np.stack([part.sum(0) for part in np.split(s, cuts)]) for s in squared)
    episodes = len(left)
    r2 = 1 - left.sum(0) / whole.sum(0)
    drawn = rng.multinomial(episodes, np.full(episodes, 1 / episodes), size=RESAMPLES)
    draws = 1 - (drawn @ left) / (drawn @ whole)
    names = [state_names[d] if d < len(state_names) else f"state_{d}" for d in moving]
    told = TaskProbe(
        mean=_span(float(r2.mean()), draws.mean(1)),
        r2={n: _span(float(v), draws[:, i]) for i, (n, v) in enumerate(zip(names, r2, strict=True))},
        strength={n: STRENGTHS[c] for n, c in zip(names, chosen, strict=True)},
        frames={split: len(r) for split, r in rows.items()},
        test_episodes=episodes,
    )
    return told, draws.mean(1)


def _span(value: float, draws: np.ndarray) -> Span:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Span(value=value, low=float(low), high=float(high))
