"""Decision points as index arrays: which rows a policy sees, and which actions make its target chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..errors import UserError
from .demoset import DemoSet


@dataclass(frozen=True)
class Windows:
    """N decision points. Rows count over the frames of all sets, joined in order.

    Before an episode's start the first frame is repeated; after its end the last action is, with
    ``valid`` False there.
    """

    frames: np.ndarray  # int64 [N, n_obs_steps], oldest first
    actions: np.ndarray  # int64 [N, H]
    valid: np.ndarray  # bool [N, H]
    task: np.ndarray  # int64 [N]
    episode: np.ndarray  # int64 [N], counted over the sets joined

    def __len__(self) -> int:
        return len(self.frames)

    def at(self, rows: np.ndarray) -> Windows:
        """Some of the decision points."""
        return Windows(*(getattr(self, f.name)[rows] for f in fields(self)))


def make_windows(
    demosets: Sequence[DemoSet],
    tasks: Sequence[str],
    horizon: int,
    n_obs_steps: int,
    split: str,
    stride: int = 1,
) -> Windows:
    """Windows of every episode of ``split`` ("train", "validation", "test"), at every ``stride``-th frame."""
    frames, actions, valid, task, episode = [], [], [], [], []
    offset = episodes = 0
    for demos in demosets:
        for number, e in enumerate(demos.episodes, start=episodes):
            if e.split != split:
                continue
            t = np.arange(0, e.length, stride)[:, None]
            past = np.maximum(t + np.arange(1 - n_obs_steps, 1), 0)
            future = t + np.arange(horizon)
            frames.append(offset + e.start + past)
            actions.append(offset + e.start + np.minimum(future, e.length - 1))
            valid.append(future < e.length)
            task.append(np.full(len(t), tasks.index(e.task)))
            episode.append(np.full(len(t), number))
        offset += len(demos.actions)
        episodes += len(demos.episodes)
    if not frames:
        raise UserError(f"the demonstrations hold no episode in the split '{split}'; collect more of them")
    return Windows(
        frames=np.concatenate(frames),
        actions=np.concatenate(actions),
        valid=np.concatenate(valid),
        task=np.concatenate(task),
        episode=np.concatenate(episode),
    )
