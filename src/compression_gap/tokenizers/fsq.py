"""Finite scalar quantization (arXiv 2309.15505): the bottleneck under study, so it is our own.

A latent z [..., D] is bounded to D intervals and rounded to ``levels[i]`` values in dimension i; the codebook
is their product. Codes lie in [−1, 1]; an index is the mixed-radix number of a code, first dimension lowest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

# The paper's table, and 1920 of the experiments reproduced here.
FSQ_LEVELS: dict[int, tuple[int, ...]] = {
    240: (8, 6, 5),
    512: (8, 8, 8),
    1000: (8, 5, 5, 5),
    1920: (8, 8, 6, 5),
    4375: (7, 5, 5, 5, 5),
    15360: (8, 8, 8, 6, 5),
    64000: (8, 8, 8, 5, 5, 5),
}


class FSQ(nn.Module):
    """Bound, round with a straight-through gradient, and count."""

    half_width: Tensor
    offset: Tensor
    shift: Tensor
    scale: Tensor
    basis: Tensor
    levels: Tensor

    def __init__(self, levels: Sequence[int], eps: float = 1e-3) -> None:
        super().__init__()
        if not levels or min(levels) < 2:
            raise ValueError(f"FSQ needs at least two levels in every dimension, not {list(levels)}")
        n = torch.tensor(levels, dtype=torch.long)
        half = (n - 1) * (1 + eps) / 2
        offset = torch.where(n % 2 == 0, 0.5, 0.0)
        self.register_buffer("levels", n, persistent=False)
        self.register_buffer("half_width", half, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", (offset / half).atanh(), persistent=False)
        self.register_buffer("scale", (n // 2).float(), persistent=False)
        self.register_buffer(
            "basis", torch.cumprod(torch.cat([torch.ones(1).long(), n[:-1]]), 0), persistent=False
        )
        self.size = math.prod(levels)

    def bound(self, z: Tensor) -> Tensor:
        """tanh(z + shift)·half − offset: just inside the outermost levels."""
        return (z + self.shift).tanh() * self.half_width - self.offset

    def forward(self, z: Tensor) -> Tensor:
        """z → codes in [−1, 1], with the gradient of ``bound``."""
        bounded = self.bound(z)
        return (bounded + (bounded.round() - bounded).detach()) / self.scale

    def index(self, codes: Tensor) -> Tensor:
        """Codes [..., D] → indices int64 [...]."""
        return ((codes * self.scale + self.scale).round().long() * self.basis).sum(-1)

    def code(self, indices: Tensor) -> Tensor:
        """Indices [...] → codes [..., D]."""
        digits = indices[..., None] // self.basis % self.levels
        return (digits - self.scale) / self.scale
