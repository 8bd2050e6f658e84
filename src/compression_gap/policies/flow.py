"""Flow matching as in π0 (arXiv 2410.24164), on the shared trunk: straight paths, Euler's method.

    A^τ = τ·A + (1 − τ)·ε,   velocity A − ε,   training times p(τ) = Beta((s − τ) / s; 1.5, 1), s = 0.999

The density is highest at τ = 0, where there is nothing but noise. Sampling goes from 0 to 1 in equal steps.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..nn import Memory, Trunk, TrunkSize
from .base import Emission, Target, both_signs, over_valid
from .denoiser import Denoiser

LATEST = 0.999  # s
SCALE = 100  # of the network's times
# Where errors are measured: τ from 0.0099 to 0.9901, beyond which lie 1.5 % and 0.1 % of the training times.
SNR = torch.logspace(-4, 4, 100, dtype=torch.float64)


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

    def _residual(self, memory: Memory, chunk: Tensor, noise: Tensor, tau: Tensor) -> Tensor:
        """Velocity minus its target [B, H, d] at time τ."""
        velocity: Tensor = self.network(tau * chunk + (1 - tau) * noise, memory)
        return velocity - (chunk - noise)

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Mean squared error of the velocity over valid actions, at one random time per sample."""
        chunk = target.chunk
        noise = torch.randn(chunk.shape, generator=rng, device=chunk.device)
        tau = training_times(torch.rand(len(chunk), generator=rng, device=chunk.device))
        missed = self._residual(self.network.memory(SCALE * tau, context), chunk, noise, tau[:, None, None])
        return over_valid(missed.square().mean(-1), target.valid)

    def snr_levels(self) -> Tensor:
        """(τ / (1 − τ))², equal steps of its logarithm: float64 [100], increasing, from σ = 100 to 0.01."""
        return SNR

    @torch.no_grad()
    def clean_errors(
        self, context: Tensor, chunk: Tensor, level: int, *, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """ε and Â − A at ±ε at that level, with Â = x + (1 − τ)·velocity."""
        ratio = math.sqrt(float(SNR[level]))
        tau = torch.tensor(ratio / (1 + ratio), device=chunk.device)
        memory = self.network.memory(SCALE * tau.expand(len(chunk)), context)
        return both_signs(lambda noise: self._residual(memory, chunk, noise, tau) / (1 + ratio), chunk, rng)

    @torch.no_grad()
    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """Euler's method from each row's own noise."""
        x, _ = self.network.noise(seeds, context.device)
        tau = torch.arange(self.sampling_steps, device=context.device) / self.sampling_steps
        for memory in self.network.memories(SCALE * tau, context):
            x = x + self.network(x, memory) / self.sampling_steps
        return Emission(x, torch.ones(len(x), dtype=torch.bool))
