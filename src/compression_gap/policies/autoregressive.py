"""The autoregressive head on the shared trunk: next-token prediction over a frozen tokenizer's codes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn import KVCache, Trunk, TrunkSize
from ..tokenizers import ActionTokenizer, Tokens
from .base import Emission, Target, row_generators


class AutoregressiveHead(nn.Module):
    """Predicts L tokens in order; position l has ``codebook_sizes[l]`` codes. Target tokens come ready."""

    legal: Tensor

    def __init__(
        self,
        size: TrunkSize,
        *,
        codebook_sizes: Sequence[int],
        tokenizer: ActionTokenizer,
        temperature: float = 1.0,
        top_k: int | None = 10,
    ) -> None:
        super().__init__()
        w, vocabulary, length = size.width, max(codebook_sizes), len(codebook_sizes)
        self.length, self.start = length, vocabulary
        self.temperature, self.top_k = temperature, top_k
        self.embed = nn.Embedding(vocabulary + 1, w)  # the last one starts the sequence
        nn.init.normal_(self.embed.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(length, w))
        self.trunk = Trunk(size)
        self.out = nn.Linear(w, vocabulary)
        sizes = torch.tensor(codebook_sizes)[:, None]
        self.register_buffer("legal", torch.arange(vocabulary)[None] < sizes, persistent=False)
        # Held in a tuple: the tokenizer is frozen, and must not follow this module into training mode.
        self._tokenizer = (tokenizer,)

    def logits(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Teacher forcing: logits [B, L, V] for token ids [B, L], each from those before it."""
        start = torch.full_like(tokens[:, :1], self.start)
        x = self.embed(torch.cat([start, tokens[:, :-1]], 1)) + self.position
        x = self.trunk(x, self.trunk.condition(context), causal=True)
        return self._masked(self.out(x), slice(None))

    def _masked(self, logits: Tensor, positions: slice) -> Tensor:
        return logits.float().masked_fill(~self.legal[positions], -math.inf)

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy per sample in nats, summed over tokens and divided by their number."""
        assert target.tokens is not None
        logits = self.logits(context, target.tokens)
        return F.cross_entropy(logits.transpose(1, 2), target.tokens, reduction="none").mean(1)

    @torch.no_grad()
    def score(self, context: Tensor, target: Target) -> Tensor:
        """Bits [B] that the target tokens cost under the policy: Σ −log2 p."""
        assert target.tokens is not None
        logits = self.logits(context, target.tokens)
        nats = F.cross_entropy(logits.transpose(1, 2), target.tokens, reduction="none").sum(1)
        return nats / math.log(2)

    @torch.no_grad()
    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """Draw tokens one by one with cached keys and values, then decode them."""
        device = context.device
        uniform = torch.stack(
            [torch.rand(self.length, generator=g, device=device) for g in row_generators(seeds, device)]
        )
        memory = self.trunk.condition(context)
        cache = KVCache(self.trunk.size, len(context), self.length, context)
        token = torch.full((len(context),), self.start, device=device)
        ids = []
        for i in range(self.length):
            x = self.embed(token)[:, None] + self.position[i]
            logits = self.out(self.trunk(x, memory, causal=True, cache=cache))[:, 0]
            token = self._choose(self._masked(logits, slice(i, i + 1)), uniform[:, i])
            ids.append(token)
        tokens = torch.stack(ids, 1).cpu().numpy()
        lengths = torch.full((len(context),), self.length).numpy()
        decoded = self._tokenizer[0].decode(Tokens(tokens, lengths))
        return Emission(torch.from_numpy(decoded.chunk), torch.from_numpy(decoded.ok), tokens)

    def _choose(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Greedy at temperature 0; else the inverse distribution function at the row's own uniform."""
        if self.temperature == 0:
            return logits.argmax(-1)
        k = min(self.top_k or logits.shape[-1], logits.shape[-1])
        values, order = (logits / self.temperature).topk(k)
        cumulative = values.softmax(-1).cumsum(-1)
        at = (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(-1).clamp_max(k - 1)
        return order.gather(1, at[:, None])[:, 0]
