"""The network of diffusion and flow matching: noisy chunk [B, H, d], time and context → a chunk [B, H, d].

The memory is the time's token followed by the context. The context's keys and values are computed once per
sample, those of the sampling times once per call; neither changes while a chunk is denoised.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from ..errors import unknown_name
from ..nn import Memory, Trunk, TrunkSize
from .base import row_generators
from .registry import Attention

ATTENTION: tuple[str, ...] = get_args(Attention)


class Denoiser(nn.Module):
    """Times are on the scale of diffusion's 100 training steps.

    ``attention``: as published (``causal-as-published``), action i sees actions up to i and memory tokens up
    to i + 1, of which the first is the time; or it sees all (``full``).
    """

    def __init__(
        self, size: TrunkSize, horizon: int, action_dim: int, context_tokens: int, attention: str
    ) -> None:
        super().__init__()
        if attention not in ATTENTION:
            raise unknown_name("attention", attention, ATTENTION)
        w = size.width
        self.horizon, self.action_dim, self.context_tokens = horizon, action_dim, context_tokens
        self.causal = attention == "causal-as-published"
        self.embed = nn.Linear(action_dim, w)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, w))
        self.time = nn.Sequential(nn.Linear(w, 4 * w), nn.SiLU(), nn.Linear(4 * w, w))
        self.trunk = Trunk(size)
        self.out = nn.Linear(w, action_dim)

    def _memory_mask(self, device: torch.device) -> Tensor | None:
        if not self.causal:
            return None
        i = torch.arange(self.horizon, device=device)[:, None]
        return torch.arange(1 + self.context_tokens, device=device)[None] <= i + 1

    def time_tokens(self, t: Tensor) -> Tensor:
        """Times [S] as memory tokens [S, 1, w]."""
        half = self.position.shape[1] // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=t.device) / (half - 1))
        angles = t.float()[:, None] * frequencies
        waves = torch.cat([angles.sin(), angles.cos()], -1)
        return self.time(waves.to(self.position.dtype))[:, None]

    def memory(self, t: Tensor, context: Tensor) -> Memory:
        """The memory of samples at times t [B] with context [B, N, w]."""
        return self.trunk.condition(torch.cat([self.time_tokens(t), context], 1))

    def forward(self, noisy: Tensor, memory: Memory) -> Tensor:
        """What the network predicts of chunks [B, H, d]; the memory's first token is the time."""
        x = self.embed(noisy.to(self.position.dtype)) + self.position
        x = self.trunk(x, memory, causal=self.causal, memory_mask=self._memory_mask(noisy.device))
        return self.out(x).float()

    def memories(self, times: Tensor, context: Tensor) -> Iterator[Memory]:
        """The memory at each sampling time [S] in turn, in one place: only the time's slot changes."""
        parts = [self.trunk.condition(self.time_tokens(times)), self.trunk.condition(context)]
        if self.trunk.folds(1 + context.shape[1], uses=len(times) * self.horizon):
            parts = [self.trunk.fold(part) for part in parts]
        slots, rest = parts
        room = Memory(tuple(tuple(t[:1].expand(len(context), -1, -1, -1) for t in s) for s in slots.layers))
        memory = room.join(rest)
        filled = [
            (tensor[:, :, :1], slot)
            for layers in zip(memory.layers, slots.layers, strict=True)
            for tensor, slot in zip(*layers, strict=True)
        ]
        for i in range(len(times)):
            for place, slot in filled:
                place.copy_(slot[i])
            yield memory

    def noise(self, seeds: Sequence[int], device: torch.device) -> tuple[Tensor, list[torch.Generator]]:
        """Each row's own starting noise [B, H, d], and the generators that it came from."""
        generators = row_generators(list(seeds), device)
        shape = (self.horizon, self.action_dim)
        return torch.stack([torch.randn(shape, generator=g, device=device) for g in generators]), generators
