"""The feature cache: what a frozen encoder computes, once per set of demonstrations, as a memory map."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..demos import DemoSet
from ..sims import Observation
from .base import Encoder

BATCH = 64  # larger batches fall out of the processor's cache


def cache_features(
    encoder: Encoder,
    demos: DemoSet,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write ``features.npy`` [F, C, ...] in the encoder's dtype; returns its path."""
    if not encoder.frozen:
        raise ValueError(f"{encoder.name} is trained with the policy: its features cannot be cached")
    frames, out = len(demos.actions), None
    for start in range(0, frames, BATCH):
        features = encoder.features(frame_batch(demos, slice(start, min(start + BATCH, frames))))[:, 0]
        if out is None:
            shape = (frames, *features.shape[1:])
            out = np.lib.format.open_memmap(folder / "features.npy", "w+", encoder.dtype, shape)
        out[start : start + len(features)] = features
        progress(start + len(features), frames)
    assert out is not None
    out.flush()
    return folder / "features.npy"


def frame_batch(demos: DemoSet, rows: slice) -> Observation:
    """Frames as a batch of observations with T = 1."""
    proprio = demos.proprio[rows][:, None]
    return Observation(
        images={c: a[rows][:, None] for c, a in demos.images.items()},
        proprio=proprio,
        task=np.zeros(len(proprio), np.int64),
        state=None if demos.state is None else demos.state[rows][:, None],
    )
