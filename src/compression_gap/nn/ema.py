"""Exponential moving average of weights with the warm-up of Diffusion Policy: 1 − (1 + step)^−power."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class EMA:
    """Keeps ``average``, a copy of the module with averaged parameters and the newest buffers."""

    def __init__(self, module: nn.Module, *, power: float = 0.75, maximum: float = 0.9999) -> None:
        self.power, self.maximum = power, maximum
        self.average = copy.deepcopy(module).eval().requires_grad_(False)

    def decay(self, step: int) -> float:
        """The decay applied after optimizer step number ``step`` (from 1)."""
        return min(self.maximum, max(0.0, 1 - (1 + step) ** -self.power))

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards the module's parameters."""
        mine: list[Tensor] = list(self.average.parameters())
        theirs = [p.detach() for p in module.parameters()]
        torch._foreach_lerp_(mine, theirs, 1 - self.decay(step))
        for a, b in zip(self.average.buffers(), module.buffers(), strict=True):
            a.copy_(b)
