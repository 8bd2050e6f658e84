"""Flow matching as in π0 (arXiv 2410.24164), on the shared trunk: straight paths, Euler's method.

    A^τ = τ·A + (1 − τ)·ε,   velocity A − ε,   training times p(τ) = Beta((s − τ) / s; 1.5, 1), s = 0.999

The density is highest at τ = 0, where there is nothing but noise. Sampling goes from 0 to 1 in equal steps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..nn import Trunk, TrunkSize
from .base import Emission, Target, over_valid
from .denoiser import Denoiser

LATEST = 0.999  # s
SCALE = 100  # of the network's times


def training_times(uniform: Tensor) -> Tensor:
    """τ at uniform draws: s·(1 − u), where u is from Beta(1.5, 1), whose distribution function is u^1.5."""
    return LATEST * (1 - uniform ** (2 / 3))


class FlowHead(nn.Module):
    """Carries noise to a chunk [B, H, d] along a learned velocity."""

    def __init__(
        self,
        size: TrunkSize,
        *,
        horizon: int,
        action_dim: int,
        context_tokens: int,
        attention: str = "full",
        sampling_steps: int = 10,
    ) -> None:
        super().__init__()
        self.sampling_steps = sampling_steps
        self.network = Denoiser(size, horizon, action_dim, context_tokens, attention)

    @property
    def trunk(self) -> Trunk:
        """The network's trunk."""
        return self.network.trunk

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Mean squared error of the velocity over valid actions, at one random time per sample."""
        chunk = target.chunk
        noise = torch.randn(chunk.shape, generator=rng, device=chunk.device)
        tau = training_times(torch.rand(len(chunk), generator=rng, device=chunk.device))
        noisy = tau[:, None, None] * chunk + (1 - tau[:, None, None]) * noise
        velocity = self.network(noisy, self.network.memory(SCALE * tau, context))
        return over_valid((velocity - (chunk - noise)).square().mean(-1), target.valid)

    @torch.no_grad()
    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """Euler's method from each row's own noise."""
        x, _ = self.network.noise(seeds, context.device)
        tau = torch.arange(self.sampling_steps, device=context.device) / self.sampling_steps
        for memory in self.network.memories(SCALE * tau, context):
            x = x + self.network(x, memory) / self.sampling_steps
        return Emission(x, torch.ones(len(x), dtype=torch.bool))
