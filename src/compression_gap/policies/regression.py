"""The plainest continuous head: position queries through the shared trunk, L1 loss, one pass.

The optimum is the conditional median of each action, so it cannot choose between modes: a reference for what
a generative head is worth. (L1 regression as in OpenVLA-OFT, arXiv 2502.19645, there with parallel decoding.)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..nn import Trunk, TrunkSize
from .base import Emission, Target, over_valid


class RegressionHead(nn.Module):
    """Predicts a chunk [B, H, d]; nothing is drawn."""

    def __init__(self, size: TrunkSize, *, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.02 * torch.randn(horizon, size.width))
        self.trunk = Trunk(size)
        self.out = nn.Linear(size.width, action_dim)

    def forward(self, context: Tensor) -> Tensor:
        """Chunks [B, H, d]. The queries are one row until they meet the context."""
        return self.out(self.trunk(self.queries[None], self.trunk.condition(context), causal=False)).float()

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Mean absolute error over valid actions."""
        return over_valid((self(context) - target.chunk).abs().mean(-1), target.valid)

    @torch.no_grad()
    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """The prediction; the seeds change nothing."""
        return Emission(self(context), torch.ones(len(context), dtype=torch.bool))
