"""Chunk sets: the one place where decision points meet the normaliser, and where rows say which ones they are.

Tokens, coded chunks and features are arrays whose rows belong to decision points or frames. Each is kept with its
rows' identity (the episode, counted over the sets joined, and the step within it), and is taken for a set of decision
points by that identity alone: a row that is missing, doubled or out of order is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ..records import read_array
from .demoset import DemoSet
from .normaliser import Normaliser
from .windows import Windows, make_windows


@dataclass(frozen=True)
class Rows:
    """Which decision points, or frames, N rows belong to."""

    episode: np.ndarray  # int64 [N], counted over the sets joined
    step: np.ndarray  # int64 [N], within the episode

    def __len__(self) -> int:
        return len(self.episode)

    def at(self, rows: np.ndarray) -> Rows:
        """Some of them."""
        return Rows(self.episode[rows], self.step[rows])

    def find(self, wanted: Rows, what: str) -> np.ndarray:
        """Where the wanted rows lie among these: int64 [M].

        Raises ``ValueError``, which names ``what`` these rows hold, if one is missing, or if these are not in the
        order in which decision points are listed.
        """
        own, other = self._number(), wanted._number()
        if (np.diff(own) <= 0).any():
            raise ValueError(f"the rows of {what} are not in the order of their episodes and steps")
        place = np.searchsorted(own, other)
        if len(other) and (not len(own) or (own[np.minimum(place, len(own) - 1)] != other).any()):
            raise ValueError(f"{what} hold other decision points than the {len(other):,} that are asked for")
        return place

    def _number(self) -> np.ndarray:
        return (np.asarray(self.episode, np.int64) << 32) + self.step

    def save(self, file: Path) -> None:
        """Write int64 [N, 2]."""
        np.save(file, np.stack([self.episode, self.step], 1).astype(np.int64), allow_pickle=False)

    @staticmethod
    def load(file: Path) -> Rows:
        """Read what ``save`` wrote."""
        found = read_array(file)
        return Rows(found[:, 0], found[:, 1])


def frame_rows(demosets: Sequence[DemoSet]) -> Rows:
    """The identity of every frame of these sets, joined in order."""
    episodes = [e for d in demosets for e in d.episodes]
    lengths = [e.length for e in episodes]
    return Rows(np.repeat(np.arange(len(episodes)), lengths), np.concatenate([np.arange(n) for n in lengths]))


def decision_rows(demosets: Sequence[DemoSet], split: str, stride: int = 1) -> Rows:
    """The identity of every decision point of one split, in the order of ``make_chunks``."""
    tasks = sorted({t for d in demosets for t in d.tasks})
    return frame_rows(demosets).at(make_windows(demosets, tasks, 1, 1, split, stride).frames[:, -1])


@dataclass(frozen=True)
class ChunkSet:
    """N decision points: what is seen, the standardised chunk that follows, and which point it is."""

    windows: Windows
    actions: np.ndarray  # float32 [F, d], standardised, of all frames of all sets
    rows: Rows

    def __len__(self) -> int:
        return len(self.windows)

    @cached_property
    def chunks(self) -> np.ndarray:
        """Float32 [N, H, d], standardised; after an episode's end its last action, where ``valid`` is False."""
        return np.asarray(self.actions[self.windows.actions])

    @property
    def valid(self) -> np.ndarray:
        """Bool [N, H]: whether a step lies within the episode."""
        return self.windows.valid

    @property
    def episode(self) -> np.ndarray:
        """Each point's episode, int64 [N], counted over the sets joined."""
        return self.windows.episode

    def at(self, rows: np.ndarray) -> ChunkSet:
        """Some of the decision points, by their places here."""
        return ChunkSet(self.windows.at(rows), self.actions, self.rows.at(rows))

    def whole(self) -> ChunkSet:
        """The points whose chunk lies wholly within its episode."""
        return self.at(np.flatnonzero(self.valid.all(1)))

    def some(self, most: int) -> ChunkSet:
        """At most so many of them, evenly spread."""
        if most >= len(self):
            return self
        return self.at(np.unique(np.linspace(0, len(self) - 1, most).astype(int)))


def make_chunks(
    demosets: Sequence[DemoSet],
    normaliser: Normaliser,
    split: str,
    *,
    horizon: int,
    n_obs_steps: int = 1,
    stride: int = 1,
    tasks: Sequence[str] | None = None,
) -> ChunkSet:
    """Every decision point of one split (``make_windows``), in the order of sets, episodes and steps.

    ``tasks``: the names that ``windows.task`` counts, by default those of the sets in alphabetical order. Raises
    ``UserError`` if no episode is in the split.
    """
    names = sorted({t for d in demosets for t in d.tasks}) if tasks is None else tasks
    windows = make_windows(demosets, names, horizon, n_obs_steps, split, stride)
    actions = normaliser.normalise(np.concatenate([d.actions for d in demosets]))
    frames = frame_rows(demosets)
    return ChunkSet(windows, actions, frames.at(windows.frames[:, -1]))
