"""Tokens with a continuous offset, as in VQ-BeT (arXiv 2403.03181), for any tokenizer.

The tokens are those of the autoregressive head. What they decode to, Ã, is embedded, and one block that sees
the context predicts A − Ã: the chunk is not bound to the codebook.

    loss = cross-entropy + ``offset_weight`` · |A − Ã − offset|

The two share the context alone, and AdamW does not feel the scale of a gradient: the weight decides only how
much either of them shapes the context. At 1 the cross-entropy leads, as it does without the offset.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..nn import Trunk, TrunkSize
from ..tokenizers import ActionTokenizer
from .autoregressive import AutoregressiveHead
from .base import Emission, Target, over_valid


class Offset(nn.Module):
    """A decoded chunk [B, H, d] and its context → what to add to it [B, H, d]; nothing, before training."""

    def __init__(self, size: TrunkSize, horizon: int, action_dim: int) -> None:
        super().__init__()
        self.embed = nn.Linear(action_dim, size.width)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, size.width))
        self.block = Trunk(size._replace(layers=1))
        self.out = nn.Linear(size.width, action_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, coded: Tensor, context: Tensor) -> Tensor:
        """The offset."""
        x = self.embed(coded.to(self.position.dtype)) + self.position
        return self.out(self.block(x, self.block.condition(context), causal=False)).float()


class HybridHead(nn.Module):
    """Tokens, then an offset to what they decode to."""

    def __init__(
        self,
        size: TrunkSize,
        *,
        horizon: int,
        action_dim: int,
        codebook_sizes: Sequence[int],
        tokenizer: ActionTokenizer,
        offset_weight: float = 1.0,
        temperature: float = 1.0,
        top_k: int | None = 10,
        constrained: bool = True,
    ) -> None:
        super().__init__()
        self.offset_weight = offset_weight
        self.tokens = AutoregressiveHead(
            size,
            codebook_sizes=codebook_sizes,
            tokenizer=tokenizer,
            temperature=temperature,
            top_k=top_k,
            constrained=constrained,
        )
        self.offset = Offset(size, horizon, action_dim)

    @property
    def trunk(self) -> Trunk:
        """The trunk of the tokens; the offset's block is the head's own."""
        return self.tokens.trunk

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy in nats a token, plus the weighted mean absolute error over valid actions."""
        assert target.coded is not None
        error = (target.coded + self.offset(target.coded, context) - target.chunk).abs().mean(-1)
        cross_entropy = self.tokens.loss(context, target, rng=rng)
        return cross_entropy + self.offset_weight * over_valid(error, target.valid)

    def score(self, context: Tensor, target: Target) -> Tensor:
        """Bits [B] that the target tokens cost: Σ −log2 p."""
        return self.tokens.score(context, target)

    @torch.no_grad()
    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """Sample tokens, decode them, add the offset; ``ok`` is the decoder's."""
        coded = self.tokens.sample(context, seeds)
        chunk = coded.chunk.to(context.device)
        return Emission(chunk + self.offset(chunk, context), coded.ok, coded.tokens, coded.lengths)
