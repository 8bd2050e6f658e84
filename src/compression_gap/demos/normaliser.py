"""One normaliser serves every head, tokenizer and estimator of a study: mean 0, std 1 per action dimension."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import UserError
from ..records import numbers, read_object

Array = TypeVar("Array")  # NumPy array or torch tensor

# A dimension that moves less than this (in raw action units) counts as constant and is left unscaled.
CONSTANT_STD = 1e-6


@dataclass(frozen=True)
class Normaliser:
    """Standardises actions [..., d] with the training split's statistics (float32 [d] each)."""

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray  # the training split's range, in normalised units
    high: np.ndarray

    @staticmethod
    def fit(actions: np.ndarray) -> Normaliser:
        """Fit on raw training actions [M, d]. Constant dimensions get std 1. Refuses NaN and infinity."""
        if not np.isfinite(actions).all():
            raise UserError("the training actions hold NaN or infinite values; remove those episodes")
        a = np.asarray(actions, dtype=np.float64)
        mean, std = a.mean(0), a.std(0)
        std = np.where(std < CONSTANT_STD, 1.0, std)
        scaled = (a - mean) / std
        parts = (mean, std, scaled.min(0), scaled.max(0))
        return Normaliser(*(p.astype(np.float32) for p in parts))

    def normalise(self, raw: Array) -> Array:
        """Raw → standardised units."""
        mean, std = self._like(raw)
        return (raw - mean) / std

    def denormalise(self, x: Array) -> Array:
        """Standardised → raw units."""
        mean, std = self._like(x)
        return x * std + mean

    def _like(self, x: object) -> tuple:
        if isinstance(x, np.ndarray):
            return self.mean, self.std
        import torch

        assert isinstance(x, torch.Tensor)
        return tuple(torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (self.mean, self.std))

    def save(self, folder: Path) -> None:
        """Write ``normaliser.json``."""
        values = {name: getattr(self, name).tolist() for name in ("mean", "std", "low", "high")}
        (folder / "normaliser.json").write_text(json.dumps(values))

    @staticmethod
    def load(folder: Path) -> Normaliser:
        """Read ``normaliser.json``; float32 values survive the text exactly.

        Raises ``OSError`` if it cannot be read, and ``ValueError`` for anything but four vectors of one length.
        """
        values = read_object(folder / "normaliser.json")
        made = Normaliser(*(np.array(numbers(values, n), np.float32) for n in ("mean", "std", "low", "high")))
        if (
            len({len(made.mean), len(made.std), len(made.low), len(made.high)}) > 1
            or not (made.std > 0).all()
        ):
            raise ValueError(
                "normaliser.json: its vectors differ in length, or a standard deviation is not above 0"
            )
        return made
