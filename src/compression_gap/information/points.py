"""The decision points that bits are measured at: chunks that lie wholly within their episode, and their context.

A chunk that its episode cuts short is padded by repeating its last action: it holds fewer actions than the
horizon, and I-MMSE is about whole chunks. So the last H − 1 frames of an episode are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..demos import DemoSet, Normaliser, Windows, make_windows
from ..errors import UserError


@dataclass(frozen=True)
class Points:
    """N decision points of one split."""

    rows: np.ndarray  # int64 [N]: where they are among the split's windows, tokens and coded chunks
    windows: Windows
    chunks: np.ndarray  # float32 [N, H, d], standardised

    @property
    def episode(self) -> np.ndarray:
        """Each point's episode, int64 [N], counted over the sets joined."""
        return self.windows.episode

    def some(self, most: int) -> Points:
        """At most so many of them, evenly spread."""
        if most >= len(self.rows):
            return self
        kept = np.unique(np.linspace(0, len(self.rows) - 1, most).astype(int))
        return Points(self.rows[kept], self.windows.at(kept), self.chunks[kept])


def decision_points(
    demosets: Sequence[DemoSet],
    tasks: Sequence[str],
    normaliser: Normaliser,
    split: str,
    *,
    horizon: int,
    n_obs_steps: int,
    stride: int = 1,
    share: int = 1,
) -> Points:
    """The whole chunks of one split; of ``share`` > 1 only every so many of each task's episodes count.

    Raises ``UserError`` if no episode of the split is as long as a chunk.
    """
    windows = make_windows(demosets, tasks, horizon, n_obs_steps, split, stride)
    kept = windows.valid.all(1) & np.isin(windows.episode, _share(windows, share))
    if not kept.any():
        raise UserError(
            f"no episode of the split '{split}' is as long as a chunk ({horizon} steps), and bits are measured "
            "on whole chunks: take a shorter horizon"
        )
    rows = np.flatnonzero(kept)
    windows = windows.at(rows)
    actions = normaliser.normalise(np.concatenate([d.actions for d in demosets]))
    return Points(rows, windows, actions[windows.actions])


def _share(windows: Windows, share: int) -> np.ndarray:
    """One of ``share`` episodes of each task, at least one; a smaller share's lie within a larger one's."""
    kept = []
    for task in np.unique(windows.task):
        episodes = np.unique(windows.episode[windows.task == task])
        kept.append(episodes[: math.ceil(len(episodes) / share)])
    return np.concatenate(kept)


def own_part(points: Points, demosets: Sequence[DemoSet], tasks: Sequence[str]) -> np.ndarray:
    """P and K, float32 [N, T·p + tasks]: what a blind policy is told."""
    proprio = np.concatenate([d.proprio for d in demosets])[points.windows.frames]
    task = np.eye(len(tasks), dtype=np.float32)[points.windows.task]
    return np.concatenate([proprio.reshape(len(task), -1), task], 1)


def feature_part(points: Points, features: Sequence[np.ndarray]) -> np.ndarray:
    """An encoder's features ([F, C, ...] a set) at the observation steps: float32 [N, T·C·…]."""
    seen = np.concatenate(features)[points.windows.frames]
    return seen.reshape(len(seen), -1).astype(np.float32)
