"""The controlled ladder's names and numbers: ``pose-K`` is pretrained on K frames. This module imports no torch.

Only K differs between them: network, initial weights, gradient steps, batches, cost are one and the same. The K
frames are shared out over the study's tasks as evenly as they go; ``pose-0`` is the initialisation, untrained.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import UserError

PREFIX = "pose-"
SMALLEST = 16  # pixels; of less, three halvings leave nothing to look at
FEWEST = 10  # frames a task: of fewer, no spread of a state can be taken

FEATURE_DIM = 128
CHANNELS = (16, 24, 48, 64)  # after the first layer and each of the three residual blocks, all of stride 2

# How all of them are pretrained; part of the encoder's key.
PRETRAINING: dict[str, Any] = {"steps": 6_000, "batch_size": 64, "lr": 1e-3, "weight_decay": 1e-4, "seed": 0}


def is_pose(name: str) -> bool:
    """Whether the name is meant for this ladder."""
    return name.startswith(PREFIX)


def frames_of(name: str) -> int:
    """The frames K that a name says. Raises ``UserError`` for a K that is no whole number or not in its shortest form.

    1,000 is written 1k, so that each has one name: pose-0, pose-300, pose-1k, pose-2500, pose-10k.
    """
    found = re.fullmatch(r"pose-(0|[1-9][0-9]*)(k?)", name)
    if found is None:
        raise UserError(
            f"encoder '{name}' needs a whole number of frames, as in pose-300 or pose-10k; pose-0 is untrained"
        )
    frames = int(found[1]) * (1000 if found[2] else 1)
    if pose_name(frames) != name:
        raise UserError(f"encoder '{name}' is written {pose_name(frames)}: one encoder has one name")
    return frames


def pose_name(frames: int) -> str:
    """The name of the encoder that is pretrained on so many frames."""
    return f"{PREFIX}{frames // 1000}k" if frames and frames % 1000 == 0 else f"{PREFIX}{frames}"


def share(frames: int, tasks: int) -> list[int]:
    """How many of the frames each task gives: as equal as they go, the first tasks one more.

    Raises ``UserError`` if a task would give fewer than ``FEWEST``.
    """
    shares = [frames // tasks + (i < frames % tasks) for i in range(tasks)]
    if frames and min(shares) < FEWEST:
        raise UserError(
            f"{pose_name(frames)} has too few frames for {tasks} tasks: take {pose_name(FEWEST * tasks)} or more, or pose-0"
        )
    return shares
