"""The decision points that bits are measured at: chunks that lie wholly within their episode, and their context.

A chunk that its episode cuts short is padded by repeating its last action: it holds fewer actions than the
horizon, and I-MMSE is about whole chunks. So the last H − 1 frames of an episode are left out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..demos import ChunkSet, DemoSet, Windows
from ..errors import UserError


def whole_chunks(points: ChunkSet, share: int = 1) -> ChunkSet:
    """The chunks that lie wholly within their episode; of ``share`` > 1 only every so many of each task's episodes.

    Raises ``UserError`` if no episode is as long as a chunk.
    """
    kept = points.valid.all(1) & np.isin(points.episode, _share(points.windows, share))
    if not kept.any():
        raise UserError(
            f"no episode of the split is as long as a chunk ({points.valid.shape[1]} steps), and bits are measured "
            "on whole chunks: take a shorter horizon"
        )
    return points.at(np.flatnonzero(kept))


def _share(windows: Windows, share: int) -> np.ndarray:
    """One of ``share`` episodes of each task, at least one; a smaller share's lie within a larger one's."""
    kept = []
    for task in np.unique(windows.task):
        episodes = np.unique(windows.episode[windows.task == task])
        kept.append(episodes[: math.ceil(len(episodes) / share)])
    return np.concatenate(kept)


def own_part(points: ChunkSet, demosets: Sequence[DemoSet], tasks: Sequence[str]) -> np.ndarray:
    """P and K, float32 [N, T·p + tasks]: what a blind policy is told."""
    proprio = np.concatenate([d.proprio for d in demosets])[points.windows.frames]
    task = np.eye(len(tasks), dtype=np.float32)[points.windows.task]
    return np.concatenate([proprio.reshape(len(task), -1), task], 1)


def feature_part(points: ChunkSet, features: Sequence[np.ndarray]) -> np.ndarray:
    """An encoder's features ([F, C, ...] a set) at the observation steps: float32 [N, T·C·…]."""
    seen = np.concatenate(features)[points.windows.frames]
    return seen.reshape(len(seen), -1).astype(np.float32)
