"""The autoregressive head on the shared trunk: next-token prediction over a frozen tokenizer's codes.

Of a ragged tokenizer a sequence ends with an end token. Its decoder may refuse a sequence: with
``constrained`` only what can still decode is sampled, without it everything is, and ``Emission.ok`` says what
decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..nn import KVCache, Trunk, TrunkSize
from ..tokenizers import ActionTokenizer, Tokens
from .base import Emission, Target, row_generators

UNCOUNTED = -100  # what stands in the padding: no loss

# The tokens so far (each [B]) and which rows have ended [B] → what may follow: bool [B, V], ragged [B, V + 1].
Allowed = Callable[[list[Tensor], Tensor], Tensor]


class Frozen(NamedTuple):
    """A fitted tokenizer beside a module: no part of it, and never copied with it."""

    tokenizer: ActionTokenizer

    def __deepcopy__(self, memo: dict[int, Any]) -> Frozen:
        return self


class AutoregressiveHead(nn.Module):
    """Predicts L tokens in order; position l has ``codebook_sizes[l]`` codes. Target tokens come ready.

    Of a ragged tokenizer, up to L tokens and an end (the last code, V) at any of L + 1 positions.
    """

    legal: Tensor

    def __init__(
        self,
        size: TrunkSize,
        *,
        codebook_sizes: Sequence[int],
        tokenizer: ActionTokenizer,
        temperature: float = 1.0,
        top_k: int | None = 10,
        constrained: bool = True,
    ) -> None:
        super().__init__()
        w, vocabulary, longest = size.width, max(codebook_sizes), len(codebook_sizes)
        self.ragged = bool(getattr(tokenizer, "ragged", False))
        self.temperature, self.top_k, self.constrained = temperature, top_k, constrained
        self.length = longest + self.ragged
        # The id V starts the sequence where it is read, and ends it where it is predicted.
        self.start = self.end = vocabulary
        self.embed = nn.Embedding(vocabulary + 1, w)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.position = nn.Parameter(0.02 * torch.randn(self.length, w))
        self.trunk = Trunk(size)
        self.out = nn.Linear(w, vocabulary + self.ragged)
        sizes = torch.tensor([*codebook_sizes, *[0] * self.ragged])[:, None]
        legal = torch.arange(vocabulary)[None] < sizes
        if self.ragged:
            legal = torch.cat([legal, torch.ones(self.length, 1, dtype=torch.bool)], 1)
        self.register_buffer("legal", legal, persistent=False)
        self._all_legal = [n == vocabulary for n in (*codebook_sizes, *[0] * self.ragged)]
        # Held apart: the tokenizer must not follow this module into training mode, or into its average.
        self._frozen = Frozen(tokenizer)

    def logits(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Teacher forcing: logits [B, L, V] for token ids [B, L], each from those before it.

        Of a ragged tokenizer [B, L + 1, V + 1]: what may follow all L tokens, too.
        """
        start = torch.full((len(tokens), 1), self.start, device=tokens.device)
        seen = torch.cat([start, tokens if self.ragged else tokens[:, :-1]], 1)
        x = self.embed(seen) + self.position[: seen.shape[1]]
        x = self.trunk(x, self.trunk.condition(context), causal=True)
        return self._masked(self.out(x), slice(seen.shape[1]))

    def _masked(self, logits: Tensor, positions: slice) -> Tensor:
        logits = logits.float()
        if all(self._all_legal[positions]):
            return logits
        return logits.masked_fill(~self.legal[positions], -math.inf)

    def _nats(self, context: Tensor, target: Target) -> tuple[Tensor, Tensor | int]:
        """−ln p of each row's own tokens and its end [B], and how many these are."""
        assert target.tokens is not None
        wanted = target.tokens
        counted: Tensor | int = wanted.shape[1]
        if self.ragged:
            assert target.lengths is not None
            length, at = target.lengths[:, None], torch.arange(wanted.shape[1] + 1, device=wanted.device)
            wanted = F.pad(wanted, (0, 1)).masked_fill(at == length, self.end)
            wanted, counted = wanted.masked_fill(at > length, UNCOUNTED), target.lengths + 1
        logits = self.logits(context, target.tokens)
        nats = F.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), reduction="none", ignore_index=UNCOUNTED
        )
        return nats.view(wanted.shape).sum(1), counted

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Cross-entropy per sample in nats, summed over its tokens and divided by their number."""
        nats, counted = self._nats(context, target)
        return nats / counted

    @torch.no_grad()
    def score(self, context: Tensor, target: Target) -> Tensor:
        """Bits [B] that the target tokens, end included, cost under the unconstrained policy: Σ −log2 p."""
        return self._nats(context, target)[0] / math.log(2)

    @torch.no_grad()
    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """Draw tokens one by one with cached keys and values, then decode them."""
        tokens = self.draw(context, seeds)
        decoded = self._frozen.tokenizer.decode(tokens)
        return Emission(
            torch.from_numpy(decoded.chunk), torch.from_numpy(decoded.ok), tokens.ids, tokens.lengths
        )

    def draw(self, context: Tensor, seeds: list[int]) -> Tokens:
        """Tokens of B rows. A row's tokens depend on its context and seed alone."""
        device, rows = context.device, len(context)
        uniform = torch.stack(
            [torch.rand(self.length, generator=g, device=device) for g in row_generators(seeds, device)]
        )
        memory = self.trunk.condition(context)
        if self.trunk.folds(context.shape[1], uses=self.length):
            memory = self.trunk.fold(memory)
        cache = KVCache(self.trunk.size, rows, self.length, context)
        allowed = self._constraint(rows, device)
        token = torch.full((rows,), self.start, device=device)
        ended = torch.zeros(rows, dtype=torch.bool, device=device)
        lengths = torch.full((rows,), 0 if self.ragged else self.length, device=device)
        ids: list[Tensor] = []
        for i in range(self.length):
            x = self.trunk.step(self.embed(token) + self.position[i], memory, cache)
            logits = self._masked(self.out(x), slice(i, i + 1))
            if allowed is not None:
                logits = logits.masked_fill(~allowed(ids, ended), -math.inf)
            token = self._choose(logits, uniform[:, i])
            if self.ragged:
                ended = ended | (token == self.end)
                if bool(ended.all()):
                    break
                lengths = lengths + ~ended
                token = token.masked_fill(ended, 0)
            ids.append(token)
        found = torch.stack(ids, 1) if ids else token.new_zeros(rows, 0)
        return Tokens(found.cpu().numpy(), lengths.cpu().numpy())

    def _constraint(self, rows: int, device: torch.device) -> Allowed | None:
        tokenizer = self._frozen.tokenizer
        own = getattr(type(tokenizer), "allowed", ActionTokenizer.allowed)
        if not self.constrained or own is ActionTokenizer.allowed:
            return None
        if hasattr(tokenizer, "token_sizes") and hasattr(tokenizer, "sequence_size"):
            return self._fitting(tokenizer.token_sizes, tokenizer.sequence_size, rows, device)

        def allowed(ids: list[Tensor], ended: Tensor) -> Tensor:
            mask = np.ones((rows, self.out.out_features), bool)
            prefixes = torch.stack(ids, 1).tolist() if ids else [[]] * rows
            over = self.ragged and len(ids) == self.length - 1  # where the end alone is legal
            for b in [] if over else torch.nonzero(~ended)[:, 0].tolist():
                may = np.asarray(tokenizer.allowed(prefixes[b]))
                codes = len(may) - self.ragged
                mask[b] = False
                mask[b, :codes] = may[:codes]
                if self.ragged:
                    mask[b, self.end] = may[codes]
            return torch.from_numpy(mask).to(device)

        return allowed

    def _fitting(
        self, token_sizes: np.ndarray, sequence_size: int, rows: int, device: torch.device
    ) -> Allowed:
        """Tokens stand for ``token_sizes`` symbols each; the end may follow exactly ``sequence_size``."""
        sizes = torch.from_numpy(np.append(token_sizes, 0)).to(device)
        left = torch.full((rows, 1), sequence_size, device=device)

        def allowed(ids: list[Tensor], ended: Tensor) -> Tensor:
            nonlocal left
            if ids:  # a row that has ended has none left
                left = (left - sizes[ids[-1]][:, None]).clamp_min(0)
            fits = sizes <= left
            fits[:, -1] = left[:, 0] == 0
            return fits

        return allowed

    def _choose(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """Greedy at temperature 0; else the inverse distribution function at the row's own uniform."""
        if self.temperature == 0:
            return logits.argmax(-1)
        k = min(self.top_k or logits.shape[-1], logits.shape[-1])
        values, order = (logits / self.temperature).topk(k)
        cumulative = values.softmax(-1).cumsum(-1)
        at = (cumulative < uniform[:, None] * cumulative[:, -1:]).sum(-1).clamp_max(k - 1)
        return order.gather(1, at[:, None])[:, 0]
