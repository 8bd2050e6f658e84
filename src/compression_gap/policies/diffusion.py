"""Diffusion Policy (arXiv 2303.04137) on the shared trunk: squared-cosine schedule, DDIM.

The network predicts the noise (``epsilon``, as published), the clean chunk (``sample``) or the velocity
(``v_prediction``, arXiv 2202.00512). The three weigh the error of the clean chunk by SNR, 1 and SNR + 1: with
the noise as target, what the context says about the chunk is worth little at high noise, and is learned late.

The memory is the diffusion time followed by the context. The context's keys and values are computed once
per sample; those of the sampling times once per call; neither changes while a chunk is denoised.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn

from ..nn import Memory, Trunk, TrunkSize
from .base import Emission, Target, row_generators

TRAIN_STEPS = 100
SAMPLERS = ("ddim", "ddpm", "dpm-solver++")


def make_scheduler(sampler: str, clip: float, prediction: str = "epsilon") -> Any:
    """A scheduler of diffusers; DDIM and DDPM clip the clean chunk to ±``clip`` (normalised units)."""
    common: dict[str, Any] = {
        "num_train_timesteps": TRAIN_STEPS, "beta_schedule": "squaredcos_cap_v2", "prediction_type": prediction
    }  # fmt: skip
    clipped = {**common, "clip_sample": True, "clip_sample_range": clip}
    if sampler == "ddim":
        return DDIMScheduler(**clipped, set_alpha_to_one=True)
    if sampler == "ddpm":
        return DDPMScheduler(**clipped, variance_type="fixed_small")
    return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++")


class DiffusionHead(nn.Module):
    """Denoises a chunk [B, H, d]."""

    alphas: Tensor

    def __init__(
        self,
        size: TrunkSize,
        *,
        horizon: int,
        action_dim: int,
        context_tokens: int,
        clip: float,
        attention: str = "full",
        sampler: str = "ddim",
        sampling_steps: int = 10,
        prediction: str = "epsilon",
    ) -> None:
        super().__init__()
        w = size.width
        self.horizon, self.action_dim, self.clip = horizon, action_dim, clip
        self.sampler, self.sampling_steps, self.prediction = sampler, sampling_steps, prediction
        self.causal = attention == "causal-as-published"
        self.embed = nn.Linear(action_dim, w)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, w))
        self.time = nn.Sequential(nn.Linear(w, 4 * w), nn.SiLU(), nn.Linear(4 * w, w))
        self.trunk = Trunk(size)
        self.out = nn.Linear(w, action_dim)
        alphas = make_scheduler("ddpm", clip).alphas_cumprod
        self.register_buffer("alphas", alphas, persistent=False)
        self.context_tokens = context_tokens

    def _memory_mask(self, device: torch.device) -> Tensor | None:
        """As published, action i sees condition tokens up to i + 1, of which the first is the time."""
        if not self.causal:
            return None
        i = torch.arange(self.horizon, device=device)[:, None]
        return torch.arange(1 + self.context_tokens, device=device)[None] <= i + 1

    def _time_tokens(self, t: Tensor) -> Tensor:
        half = self.position.shape[1] // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / (half - 1))
        angles = t.float()[:, None] * frequencies
        return self.time(torch.cat([angles.sin(), angles.cos()], -1))[:, None]

    def denoise(self, noisy: Tensor, memory: Memory) -> Tensor:
        """What the network predicts of chunks [B, H, d]; the memory's first token is the diffusion time."""
        x = self.embed(noisy) + self.position
        x = self.trunk(x, memory, causal=self.causal, memory_mask=self._memory_mask(noisy.device))
        return self.out(x)

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Mean squared error of the prediction over valid actions, at one random time per sample."""
        chunk = target.chunk
        noise = torch.randn(chunk.shape, generator=rng, device=chunk.device)
        t = torch.randint(TRAIN_STEPS, (len(chunk),), generator=rng, device=chunk.device)
        alpha = self.alphas[t][:, None, None]
        noisy = alpha.sqrt() * chunk + (1 - alpha).sqrt() * noise
        memory = self.trunk.condition(torch.cat([self._time_tokens(t), context], 1))
        if self.prediction == "epsilon":
            wanted = noise
        elif self.prediction == "sample":
            wanted = chunk
        else:
            wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * chunk
        error = (self.denoise(noisy, memory) - wanted).square().mean(-1)
        return (error * target.valid).sum(1) / target.valid.sum(1)

    @torch.no_grad()
    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """Denoise from each row's own noise."""
        generators = row_generators(seeds, context.device)
        shape, device = (self.horizon, self.action_dim), context.device
        x = torch.stack([torch.randn(shape, generator=g, device=device) for g in generators])
        scheduler = make_scheduler(self.sampler, self.clip, self.prediction)
        scheduler.set_timesteps(self.sampling_steps, device=device)
        conditioned = self.trunk.condition(context)
        times = self.trunk.condition(self._time_tokens(scheduler.timesteps))
        # DDPM alone draws noise while it samples; it takes a generator per row.
        options = {"generator": generators} if self.sampler == "ddpm" else {}
        for i, t in enumerate(scheduler.timesteps):
            now = Memory(
                tuple(
                    (k[i : i + 1].expand(len(x), -1, -1, -1), v[i : i + 1].expand(len(x), -1, -1, -1))
                    for k, v in times.layers
                )
            )
            predicted = self.denoise(x, now.join(conditioned))
            x = scheduler.step(predicted, t, x, **options).prev_sample
        return Emission(x, torch.ones(len(x), dtype=torch.bool))
