"""The denoiser of I-MMSE: a linear part and a network that starts at zero, one for all contexts (see ``immse``).

    Â(y, u, C) = Â_lin + P^½ f + g·(c − Â_lin),   y = √u·A + ε,   P = the linear posterior's covariance

f, c and the gate g (0..1) are the network's: f corrects where the posterior is wider than a point, c names the
chunk where it is not (scripted experts repeat themselves, grippers stand still), whatever the context's own
linear part may blur. The loss is u·|A − Â|², so that each unit of ln u counts for what it is worth in nats.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from . import kernel
from .denoising import Denoising

WAVES = 8
CLOSED = -2.0  # where the gate's logit starts


class Network(nn.Module):
    """(y and Â_lin, the linear prediction from the context, its parts, ln u) → f, c and g, each [G, B, n].

    A plain perceptron. On half-normal chunks whose sign is told its loss fell by 0.026 in 1,500 steps; that of residual
    blocks with normalised layers, five times slower a step, had not moved in 1,000.
    """

    def __init__(self, directions: int, parts: Mapping[str, int], contexts: int, how: Denoising) -> None:
        super().__init__()
        self.parts, self.contexts = dict(parts), contexts
        inputs = 3 * directions + 2 * WAVES + contexts + sum(parts.values())
        sizes = [inputs, *[how.width] * how.layers]
        hidden = [nn.Sequential(nn.Linear(i, o), nn.GELU()) for i, o in itertools.pairwise(sizes)]
        self.hidden, self.out = nn.Sequential(*hidden), nn.Linear(sizes[-1], 3 * directions)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        nn.init.constant_(self.out.bias[2 * directions :], CLOSED)

    def forward(
        self, noisy: Tensor, guess: Tensor, told: Sequence[Mapping[str, Tensor]], which: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``told`` [G]: each group's parts; ``which`` [G]: its context; ``level`` [G, B]: ln u in 0..1."""
        angles = level[..., None] * math.pi * torch.arange(1, WAVES + 1, device=level.device)
        context = nn.functional.one_hot(which, self.contexts).to(noisy)[:, None]
        parts = [
            torch.stack([own.get(name, level.new_zeros(level.shape[1], size)) for own in told])
            for name, size in self.parts.items()
        ]
        seen = [noisy, guess, angles.cos(), angles.sin(), context.expand(-1, level.shape[1], -1), *parts]
        f, c, gate = self.out(self.hidden(torch.cat(seen, -1))).chunk(3, -1)
        return f, c, gate.sigmoid()


@dataclass(frozen=True)
class Split:
    """One split on the device, in the marginal's eigenbasis (of its n directions that hold information)."""

    chunks: Tensor  # [N, n], centred
    guess: Tensor  # [M contexts, N, n]: linear predictions
    parts: dict[str, Tensor]  # [N, k]


@dataclass(frozen=True)
class Problem:
    """Chunks to be denoised in M contexts."""

    contexts: tuple[tuple[str, ...], ...]  # the parts of each
    variances: Tensor  # [M, n], λ of each linear residual
    basis: Tensor  # [M, n, n], its eigenbasis
    scale: Tensor  # [n], that of y
    reach: tuple[float, float]  # of ln u
    splits: dict[str, Split]
    neighbours: int  # training chunks that kernels average, at most

    @cached_property
    def _kept(self) -> Tensor:
        """Which training chunks kernels average: evenly spread."""
        n = len(self.splits["train"].chunks)
        return torch.arange(n, device=self.scale.device)[:: math.ceil(n / self.neighbours)]

    @cached_property
    def near(self) -> Tensor:
        """The training chunks that kernels average [K, n]."""
        return self.splits["train"].chunks[self._kept]

    def told(self, context: int, guess: Tensor) -> list[Tensor]:
        """What a context says of them, for each kernel: [B, K], or 0 from no context."""
        if not self.contexts[context]:
            return [guess.new_zeros(())]
        finest = math.exp(-self.reach[1])  # variances below the finest resolution's are nothing to go by
        whiten = self.basis[context] / self.variances[context].clamp_min(finest).sqrt()
        return kernel.context_evidence(guess, self.splits["train"].guess[context, self._kept], whiten)

    def power(self, level: Tensor) -> Tensor:
        """u of a level: ln u in 0..1."""
        low, high = self.reach
        return (low + (high - low) * level).exp()

    def denoise(
        self, network: nn.Module, split: str, which: Tensor, rows: Tensor, level: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """u [G, B, 1], and the errors of Â_lin and Â [G, B, n].

        ``which`` [G]: contexts; ``rows`` and ``level`` (ln u in 0..1) [G, B]; ``noise`` [G, B, n].
        """
        data, scale = self.splits[split], self.scale
        u = self.power(level)[..., None]
        chunk, guess = data.chunks[rows], data.guess[which[:, None], rows]
        basis, lam = self.basis[which], self.variances[which][:, None]
        open_ = u.sqrt() * (chunk - guess) + noise  # y without what the linear part predicts
        linear = guess + ((open_ @ basis) * (u.sqrt() * lam / (1 + u * lam))) @ basis.mT
        y = open_ + u.sqrt() * guess
        seen = torch.cat([u.sqrt() * scale * y / (1 + u * scale**2), linear / scale], -1)
        told = [
            {p: data.parts[p][rows[g]] for p in self.contexts[int(m)] if p in data.parts}
            for g, m in enumerate(which)
        ]
        f, c, gate = network(seen, guess / scale, told, which, level)
        corrected = ((f @ basis) * (lam / (1 + u * lam)).sqrt()) @ basis.mT + gate * (scale * c - linear)
        return u, linear - chunk, linear - chunk + corrected
