"""Finite scalar quantization (arXiv 2309.15505): the bottleneck under study, so it is our own.

A latent z [..., D] is bounded to D intervals and rounded to ``levels[i]`` values in dimension i; the codebook
is their product. Codes lie in [−1, 1]; an index is the mixed-radix number of a code, first dimension lowest.
Levels may differ by position (codebooks that grow along a sequence): z is then [..., L, D], and a position
with fewer dimensions than D leaves the last ones at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .levels import Levels, as_levels


class FSQ(nn.Module):
    """Bound, round with a straight-through gradient, and count."""

    half_width: Tensor
    offset: Tensor
    shift: Tensor
    middle: Tensor
    scale: Tensor
    basis: Tensor
    levels: Tensor

    def __init__(self, levels: Sequence[int] | Sequence[Sequence[int]], eps: float = 1e-3) -> None:
        super().__init__()
        per_position = as_levels(levels)
        if len(per_position) > 1:
            most = max(map(len, per_position))
            n = torch.tensor([[*p, *[1] * (most - len(p))] for p in per_position])
        else:
            n = torch.tensor(per_position[0])
        half = (n - 1) * (1 + eps) / 2
        offset = torch.where(n % 2 == 0, 0.5, 0.0)
        one = torch.ones_like(n[..., :1])
        buffers = {
            "levels": n,
            "half_width": half,
            "offset": offset,
            "shift": torch.where(n > 1, offset / half, 0.0).atanh(),
            "middle": n // 2,
            "scale": (n // 2).clamp_min(1).float(),
            "basis": torch.cumprod(torch.cat([one, n[..., :-1]], -1), -1),
        }
        for name, value in buffers.items():
            self.register_buffer(name, value, persistent=False)
        self.sizes = tuple(math.prod(p) for p in per_position)  # one a position; a single one serves all
        self.dimensions = n.shape[-1]

    def bound(self, z: Tensor) -> Tensor:
        """tanh(z + shift)·half − offset: just inside the outermost levels."""
        return (z + self.shift).tanh() * self.half_width - self.offset

    def forward(self, z: Tensor) -> Tensor:
        """z → float32 codes in [−1, 1], with the gradient of ``bound``."""
        bounded = self.bound(z.float())
        return (bounded + (bounded.round() - bounded).detach()) / self.scale

    def index(self, codes: Tensor) -> Tensor:
        """Codes [..., D] → indices int64 [...]."""
        return (((codes * self.scale).round().long() + self.middle) * self.basis).sum(-1)

    def code(self, indices: Tensor) -> Tensor:
        """Indices [...] → codes [..., D]."""
        digits = indices[..., None] // self.basis % self.levels
        return (digits - self.middle) / self.scale


class Bottleneck(nn.Module):
    """FSQ between a network's states: [B, L, w] → codes [B, L, D] → [B, L, w].

    In float32 under autocast too: half precision moves a latent across the edge between two codes.
    """

    def __init__(self, width: int, levels: Levels) -> None:
        super().__init__()
        self.fsq = FSQ(levels)
        self.norm = nn.LayerNorm(width)
        self.to_latent = nn.Linear(width, self.fsq.dimensions)
        self.from_latent = nn.Linear(self.fsq.dimensions, width)

    def codes(self, states: Tensor) -> Tensor:
        """States → codes."""
        with torch.autocast(states.device.type, enabled=False):
            codes: Tensor = self.fsq(self.to_latent(self.norm(states.float())))
        return codes

    def states(self, codes: Tensor) -> Tensor:
        """Codes → states."""
        states: Tensor = self.from_latent(codes)
        return states
