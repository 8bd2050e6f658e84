"""``retina-R``: every camera image averaged to R × R pixels. A resolution ladder, frozen and without weights."""

from __future__ import annotations

import numpy as np
from torch import nn

from ..sims import Observation


class Retina:
    """Area averages [B, T, C, R·R·3] in [0, 1]; pixels that straddle two cells are shared by area."""

    needs_images, frozen, std_floor = True, True, 0.02
    dtype: type[np.generic] = np.float16

    def __init__(self, resolution: int) -> None:
        self.resolution = resolution
        self.name = f"retina-{resolution}"
        self.feature_dim: int = 3 * resolution**2
        self._weights: dict[int, np.ndarray] = {}

    def features(self, obs: Observation) -> np.ndarray:
        """The averaged images of all cameras, flattened."""
        out = []
        for images in obs.images.values():
            h, w = images.shape[2:4]
            x = images.astype(np.float32)
            x = np.einsum("rh,bthwc,sw->btrsc", self._area(h), x, self._area(w), optimize=True)
            out.append(x.reshape(*images.shape[:2], -1) / 255)
        return np.stack(out, axis=2)

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """Nothing is trained."""
        return None

    def _area(self, size: int) -> np.ndarray:
        """Row r: the share of each of ``size`` pixels in cell r; rows sum to 1."""
        if size not in self._weights:
            edges = np.linspace(0, size, self.resolution + 1)
            pixels = np.arange(size)
            overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
            self._weights[size] = (np.clip(overlap, 0, 1) * self.resolution / size).astype(np.float32)
        return self._weights[size]
