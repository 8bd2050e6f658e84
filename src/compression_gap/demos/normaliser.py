"""One normaliser serves every head, tokenizer and estimator of a study: mean 0, std 1 per action dimension."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..errors import UserError
from ..records import numbers, read_object
from .rounding import is_constant, rounding, spread

Array = TypeVar("Array")  # NumPy array or torch tensor

# A dimension that moves spans at least two standard deviations (Popoviciu 1935), one that is constant at most one
# unit: so the range tells them apart.
MOVES = 1.5


@dataclass(frozen=True)
class Normaliser:
    """Standardises actions [..., d] with the training split's statistics (float32 [d] each).

    A dimension that is constant up to rounding (``rounding.is_constant``) is 0: its noise is no information, and
    scaled to unit variance it would be. A later action that truly leaves the constant is not hidden.
    """

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray  # the training split's range, in normalised units
    high: np.ndarray

    @staticmethod
    def fit(actions: np.ndarray) -> Normaliser:
        """Fit on raw training actions [M, d]. Constant dimensions get std 1 (``spread``). Refuses NaN and infinity."""
        if not np.isfinite(actions).all():
            raise UserError("the training actions hold NaN or infinite values; remove those episodes")
        a = np.asarray(actions, dtype=np.float64)
        mean, std = a.mean(0), spread(a)
        mean = np.where(is_constant(a), mean.astype(np.float32), mean)  # as ``normalise`` will subtract it
        scaled = (a - mean) / std
        parts = (mean, std, scaled.min(0), scaled.max(0))
        return Normaliser(*(p.astype(np.float32) for p in parts))

    def normalise(self, raw: Array) -> Array:
        """Raw → standardised units."""
        mean, std, noise = self._like(raw, self.mean, self.std, self._noise())
        x = (raw - mean) / std
        return x * (abs(x) > noise)

    def denormalise(self, x: Array) -> Array:
        """Standardised → raw units."""
        mean, std = self._like(x, self.mean, self.std)
        return x * std + mean

    def _noise(self) -> np.ndarray:
        """What counts as 0, in normalised units: −1 (nothing) where the dimension moves, rounding where not."""
        rounded = rounding(self.mean) / self.std
        noise = np.maximum(rounded, np.maximum(self.high, -self.low)).astype(np.float32)
        return np.where(self.high - self.low < MOVES, np.nextafter(noise, np.float32(np.inf)), np.float32(-1))

    def _like(self, x: object, *parts: np.ndarray) -> tuple:
        if isinstance(x, np.ndarray):
            return parts
        import torch

        assert isinstance(x, torch.Tensor)
        return tuple(torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in parts)

    def save(self, folder: Path) -> None:
        """Write ``normaliser.json``."""
        values = {name: getattr(self, name).tolist() for name in ("mean", "std", "low", "high")}
        (folder / "normaliser.json").write_text(json.dumps(values, allow_nan=False))

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
