"""Pins: what a checkpoint's name stood for when it was resolved, and so all that decides what it computes.

A pin belongs in the key of whatever is made with the checkpoint. As JSON it has its fields' names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from ..records import whole


@dataclass(frozen=True, kw_only=True)
class CheckpointPin:
    """What all pins say. ``source``: hub, revision and commit; or folder and sha256. ``config``: of the tower."""

    encoder: str
    source: Mapping[str, str] = field(hash=False)
    model_type: str
    config: Mapping[str, Any] = field(hash=False)
    feature_dim: int
    precision: str = "float32"

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What ``asdict`` gave. Raises ``ValueError``, ``KeyError`` or ``TypeError`` for anything else."""
        whole(value, "feature_dim", 1, 2**20)
        kinds: dict[str, Any] = {"encoder": str, "source": dict, "model_type": str, "config": dict}
        if wrong := [name for name, kind in kinds.items() if not isinstance(value[name], kind)]:
            raise ValueError(f"its {wrong[0]} is of another type")
        return cls(**value)


@dataclass(frozen=True, kw_only=True)
class Pin(CheckpointPin):
    """Of a vision encoder: pixels a side, patches a side and blocks of its tower, and how it wants its images."""

    image_size: int
    grid: int
    blocks: int
    mean: Sequence[float] = field(hash=False)  # of images in [0, 1]
    std: Sequence[float] = field(hash=False)
    resample: str
    patches: int
    finetune: str | int | None

    def __post_init__(self) -> None:
        if not isinstance(self.finetune, str | int | None):
            raise TypeError("its finetune is of another type")


@dataclass(frozen=True, kw_only=True)
class TextPin(CheckpointPin):
    """Of a text encoder: SHA-256 of the tokenizer's files by name, and how many tokens the tower takes."""

    tokenizer: Mapping[str, str] = field(hash=False)
    length: int


@dataclass(frozen=True)
class AbsentPin:
    """In a sketch: of a checkpoint that is not on this machine and cannot be asked for."""

    encoder: str
    absent: bool = True
