"""Diffusion Policy (arXiv 2303.04137) on the shared trunk: squared-cosine schedule, DDIM.

The network predicts the noise (``epsilon``, as published), the clean chunk (``sample``) or the velocity
(``v_prediction``, arXiv 2202.00512). The three weigh the error of the clean chunk by SNR, 1 and SNR + 1: with
the noise as target, what the context says about the chunk is worth little at high noise, and is learned late.

As published, ``ddim`` takes every tenth training time from 90 down and begins with noise alone, though a chunk at time
90 is 14 % signal: samples shrink towards 0 (of chunks around 1.2 with spread 0.3, an exact denoiser makes a mean of
1.15). ``ddim-trailing`` begins at the last training time, 99, where noise is all there is (arXiv 2305.08891, section
3.3). There the noise tells nothing of the chunk, so the network must predict the chunk or the velocity.

The schedulers are those of diffusers. A DDIM step is two linear combinations and a clip; its coefficients are
computed once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor, nn

from ..errors import unknown_name
from ..nn import Memory, Trunk, TrunkSize
from .base import Emission, Target, both_signs, over_valid
from .denoiser import Denoiser
from .registry import Prediction, Sampler, check_sampler

TRAIN_STEPS = 100
SAMPLERS: tuple[str, ...] = get_args(Sampler)
PREDICTIONS: tuple[str, ...] = get_args(Prediction)


def make_scheduler(sampler: str, clip: float, prediction: str = "epsilon") -> Any:
    """A scheduler of diffusers; DDIM and DDPM clip the clean chunk to ±``clip`` (normalised units)."""
    common: dict[str, Any] = {
        "num_train_timesteps": TRAIN_STEPS,
        "beta_schedule": "squaredcos_cap_v2",
        "prediction_type": prediction,
    }
    clipped = {**common, "clip_sample": True, "clip_sample_range": clip}
    if sampler in ("ddim", "ddim-trailing"):
        spacing = "trailing" if sampler == "ddim-trailing" else "leading"
        return DDIMScheduler(**clipped, set_alpha_to_one=True, timestep_spacing=spacing)
    if sampler == "ddpm":
        return DDPMScheduler(**clipped, variance_type="fixed_small")
    return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++")


@dataclass(frozen=True)
class DDIMStep:
    """One step of DDIM (arXiv 2010.02502, eq. 12, σ = 0), from the prediction p at x.

    clean = clip(of_x·x + of_p·p),   x' = keep·clean + x_left·x + p_left·p
    """

    t: int
    of_x: float
    of_p: float
    keep: float
    x_left: float
    p_left: float

    @staticmethod
    def all(scheduler: Any, steps: int, prediction: str) -> list[DDIMStep]:
        """The steps of a ``DDIMScheduler``, with its own times and noise levels.

        With a = √ᾱ, s = √(1 − ᾱ): x = a·clean + s·ε; the prediction is ε, the clean chunk, or a·ε − s·clean.
        """
        scheduler.set_timesteps(steps)
        made, times = [], scheduler.timesteps.tolist()
        for t, later in zip(times, [*times[1:], None], strict=True):
            alpha = float(scheduler.alphas_cumprod[t])
            after = float(scheduler.final_alpha_cumprod if later is None else scheduler.alphas_cumprod[later])
            a, s = math.sqrt(alpha), math.sqrt(1 - alpha)
            clean, noise = {  # each as a combination of x and p
                "epsilon": ((1 / a, -s / a), (0.0, 1.0)),
                "sample": ((0.0, 1.0), (1 / s, -a / s)),
                "v_prediction": ((a, -s), (s, a)),
            }[prediction]
            left = math.sqrt(1 - after)
            made.append(DDIMStep(t, *clean, math.sqrt(after), left * noise[0], left * noise[1]))
        return made

    def __call__(self, x: Tensor, p: Tensor, clip: float) -> Tensor:
        """x' of x and p [B, H, d]."""
        clean = (self.of_x * x).add_(p, alpha=self.of_p).clamp_(-clip, clip)
        return clean.mul_(self.keep).add_(x, alpha=self.x_left).add_(p, alpha=self.p_left)


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
        if sampler not in SAMPLERS:
            raise unknown_name("sampler", sampler, SAMPLERS)
        if prediction not in PREDICTIONS:
            raise unknown_name("prediction", prediction, PREDICTIONS)
        check_sampler({"sampler": sampler, "prediction": prediction})
        self.clip, self.sampler, self.sampling_steps = clip, sampler, sampling_steps
        self.prediction = prediction
        self.network = Denoiser(size, horizon, action_dim, context_tokens, attention)
        self.ddim: list[DDIMStep] = []
        with torch.device(
            "cpu"
        ):  # these are numbers, also where only the layers' shapes are asked for (nn.shapes)
            alphas = make_scheduler("ddpm", clip).alphas_cumprod
            self._snr = (alphas.double() / (1 - alphas.double())).flip(
                0
            )  # no buffer: stays precise in bfloat16
            if sampler in ("ddim", "ddim-trailing"):
                scheduler = make_scheduler(sampler, clip, prediction)
                self.ddim = DDIMStep.all(scheduler, sampling_steps, prediction)
        self.register_buffer("alphas", alphas, persistent=False)

    @property
    def trunk(self) -> Trunk:
        """The network's trunk."""
        return self.network.trunk

    def _residual(self, memory: Memory, chunk: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
        """Prediction minus its target [B, H, d] at the noise level of ᾱ."""
        predicted = self.network(alpha.sqrt() * chunk + (1 - alpha).sqrt() * noise, memory)
        if self.prediction == "epsilon":
            wanted = noise
        elif self.prediction == "sample":
            wanted = chunk
        else:
            wanted = alpha.sqrt() * noise - (1 - alpha).sqrt() * chunk
        missed: Tensor = predicted - wanted
        return missed

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Mean squared error of the prediction over valid actions, at one random time per sample."""
        chunk = target.chunk
        noise = torch.randn(chunk.shape, generator=rng, device=chunk.device)
        t = torch.randint(TRAIN_STEPS, (len(chunk),), generator=rng, device=chunk.device)
        missed = self._residual(self.network.memory(t, context), chunk, noise, self.alphas[t][:, None, None])
        return over_valid(missed.square().mean(-1), target.valid)

    def snr_levels(self) -> Tensor:
        """ᾱ / (1 − ᾱ) of the training times, latest time first: float64 [100], increasing."""
        return self._snr

    @torch.no_grad()
    def clean_errors(
        self, context: Tensor, chunk: Tensor, level: int, *, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """ε and Â − A at ±ε, at the training time of that level, without the sampler's clip.

        The error of the clean chunk is the prediction's, over −√SNR, 1 or −√(SNR + 1).
        """
        u = float(self._snr[level])
        weight = {"epsilon": -(u**-0.5), "sample": 1.0, "v_prediction": -((u + 1) ** -0.5)}[self.prediction]
        t = torch.full((len(chunk),), TRAIN_STEPS - 1 - level, device=chunk.device)
        alpha = torch.tensor(u / (u + 1), device=chunk.device)
        memory = self.network.memory(t, context)
        return both_signs(lambda noise: weight * self._residual(memory, chunk, noise, alpha), chunk, rng)

    @torch.no_grad()
    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """Denoise from each row's own noise."""
        x, generators = self.network.noise(seeds, context.device)
        if self.ddim:
            times = torch.tensor([step.t for step in self.ddim], device=context.device)
            for step, memory in zip(self.ddim, self.network.memories(times, context), strict=True):
                x = step(x, self.network(x, memory), self.clip)
        else:
            scheduler = make_scheduler(self.sampler, self.clip, self.prediction)
            scheduler.set_timesteps(self.sampling_steps, device=context.device)
            times = scheduler.timesteps
            # DDPM alone draws noise while it samples; it takes a generator per row.
            options = {"generator": generators} if self.sampler == "ddpm" else {}
            for t, memory in zip(times, self.network.memories(times, context), strict=True):
                x = scheduler.step(self.network(x, memory), t, x, **options).prev_sample
        return Emission(x, torch.ones(len(x), dtype=torch.bool))
