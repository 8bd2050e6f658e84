"""The transformer trunk that every head shares.

Pre-norm blocks: self-attention over the head's tokens [B, L, w], cross-attention to a memory [B, N, w]
(the context), GELU MLP. Heads differ in what they feed in and read out, and in nothing else. The memory's
keys and values are computed once per sample (``condition``) and reused over denoising steps and tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sizes import TrunkSize


@dataclass(frozen=True)
class Memory:
    """Keys and values of the memory per layer: each [B, heads, N, w / heads]."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    def join(self, later: Memory) -> Memory:
        """This memory's tokens followed by another's."""
        pairs = zip(self.layers, later.layers, strict=True)
        return Memory(tuple((torch.cat([k, k2], 2), torch.cat([v, v2], 2)) for (k, v), (k2, v2) in pairs))


class KVCache:
    """Keys and values of the head's own tokens, one static buffer per layer: [2, B, heads, L, w / heads]."""

    def __init__(self, size: TrunkSize, batch: int, length: int, like: Tensor) -> None:
        shape = (2, batch, size.heads, length, size.width // size.heads)
        self.layers = [like.new_empty(shape) for _ in range(size.layers)]
        self.filled = 0


class SelfBlock(nn.Module):
    """Self-attention and MLP, each on a normalised copy and added back."""

    def __init__(self, size: TrunkSize, dropout: float = 0.0) -> None:
        super().__init__()
        w = size.width
        self.heads, self.dropout = size.heads, dropout
        self.norm1, self.norm3 = nn.LayerNorm(w), nn.LayerNorm(w)
        self.qkv, self.out = nn.Linear(w, 3 * w), nn.Linear(w, w)
        self.up, self.down = nn.Linear(w, 4 * w), nn.Linear(4 * w, w)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        b, n, _ = x.shape
        return x.view(b, n, parts, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=causal)
        return y.transpose(1, 2).flatten(2)

    def _mlp(self, x: Tensor) -> Tensor:
        return x + self._drop(self.down(F.gelu(self.up(self.norm3(x)))))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def forward(self, x: Tensor, mask: Tensor | None = None, *, first: int = 0) -> Tensor:
        """x [B, L, w] → the rows from ``first`` on [B, L − first, w]; all rows are looked at.

        ``mask`` bool [L − first, L]: True where row i may look at row j (None: everywhere).
        """
        normed = self.norm1(x)
        w = x.shape[-1]
        (q,) = self._split(F.linear(normed[:, first:], self.qkv.weight[:w], self.qkv.bias[:w]), 1)
        k, v = self._split(F.linear(normed, self.qkv.weight[w:], self.qkv.bias[w:]), 2)
        return self._mlp(x[:, first:] + self._drop(self.out(self._attend(q, k, v, mask, False))))


class Block(SelfBlock):
    """One layer of the trunk: self-attention, cross-attention to the memory, MLP."""

    def __init__(self, size: TrunkSize, dropout: float) -> None:
        super().__init__(size, dropout)
        w = size.width
        self.norm2 = nn.LayerNorm(w)
        self.cross_q, self.cross_kv, self.cross_out = nn.Linear(w, w), nn.Linear(w, 2 * w), nn.Linear(w, w)

    def memory(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of memory tokens [B, N, w]."""
        k, v = self._split(self.cross_kv(tokens), 2)
        return k, v

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor | None,
        causal: bool,
        cache: Tensor | None,
        filled: int,
    ) -> Tensor:
        """Self-attention, cross-attention, MLP. x may have one row where the memory has B."""
        q, k, v = self._split(self.qkv(self.norm1(x)), 3)
        if cache is not None:
            end = filled + x.shape[1]
            cache[0, :, :, filled:end], cache[1, :, :, filled:end] = k, v
            k, v = cache[0, :, :, :end], cache[1, :, :, :end]
            causal = causal and filled == 0 and x.shape[1] > 1
        x = x + self._drop(self.out(self._attend(q, k, v, None, causal)))
        (q,) = self._split(self.cross_q(self.norm2(x)), 1)
        if len(q) != len(memory[0]):
            q = q.expand(len(memory[0]), -1, -1, -1)
        return self._mlp(x + self._drop(self.cross_out(self._attend(q, *memory, memory_mask, False))))


class Trunk(nn.Module):
    """Blocks and a final norm: tokens [B, L, w] → [B, L, w]."""

    def __init__(self, size: TrunkSize, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.size = size
        self.blocks = nn.ModuleList(Block(size, dropout) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width)
        self.apply(initialise)

    def condition(self, memory: Tensor) -> Memory:
        """Keys and values of memory tokens [B, N, w], for every layer."""
        return Memory(tuple(block.memory(memory) for block in self.blocks))  # type: ignore[operator]

    def forward(
        self,
        x: Tensor,
        memory: Memory,
        *,
        causal: bool,
        memory_mask: Tensor | None = None,
        cache: KVCache | None = None,
    ) -> Tensor:
        """Run the blocks.

        ``memory_mask`` bool [L, N]: True where token i may look at memory token j (None: everywhere).
        x with one row serves every row of the memory (queries that do not depend on the sample).
        With a ``cache``, x holds the tokens after those already in it; more than one only if it is empty.
        """
        filled = 0 if cache is None else cache.filled
        if filled and x.shape[1] != 1:
            raise ValueError("a filled cache takes one token at a time")
        for i, block in enumerate(self.blocks):
            own = None if cache is None else cache.layers[i]
            x = block(x, memory.layers[i], memory_mask, causal, own, filled)
        if cache is not None:
            cache.filled += x.shape[1]
        return self.norm(x)


def initialise(module: nn.Module) -> None:
    """Weights of linear layers from N(0, 0.02²), no biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
