"""The transformer trunk that every head shares.

Pre-norm blocks: self-attention over the head's tokens [B, L, w], cross-attention to a memory [B, N, w]
(the context), GELU MLP. Heads differ in what they feed in and read out, and in nothing else. The memory's
keys and values are computed once per sample (``condition``) and reused over denoising steps and tokens; where
they are reused, the layers around them can be multiplied in (``fold``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .sizes import TrunkSize


@dataclass(frozen=True)
class Memory:
    """What each layer looks at: keys and values [B, heads, N, w / heads], or what ``Block.fold`` makes of them."""

    layers: tuple[tuple[Tensor, ...], ...]

    def join(self, later: Memory) -> Memory:
        """This memory's tokens followed by another's."""
        pairs = zip(self.layers, later.layers, strict=True)
        return Memory(tuple(tuple(torch.cat(both, 2) for both in zip(a, b, strict=True)) for a, b in pairs))


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

    def _split(self, x: Tensor, parts: int) -> Tensor:
        """[B, n, parts · w] → [parts, B, heads, n, w / heads]."""
        b, n, _ = x.shape
        return x.view(b, n, parts, self.heads, -1).permute(2, 0, 3, 1, 4)

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

    def fold(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The layers around the cross-attention multiplied into keys and values [B, heads, N, w / heads].

        Head h of a query x looks at memory token j by (Q_h x + b_h)·k_j / √(w / heads) = x·K_hj + c_hj, and
        Σ_hj p_hj O_h v_j + o = Σ_hj p_hj V_hj. Returns K [B, heads, N, w], c [B, heads, N, 1]
        and V [B, heads, N, w].
        """
        w, heads = self.cross_q.in_features, self.heads
        k = k / math.sqrt(w // heads)
        folded = torch.einsum("bhnd,hdw->bhnw", k, self.cross_q.weight.reshape(heads, -1, w)).contiguous()
        constant = (k * self.cross_q.bias.view(heads, 1, -1)).sum(-1, keepdim=True)
        value = torch.einsum("bhnd,whd->bhnw", v, self.cross_out.weight.reshape(w, heads, -1))
        # Each head's weights sum to 1, so that a share of the bias in each value makes the whole.
        return folded, constant, (value + self.cross_out.bias / heads).contiguous()

    def _look(self, x: Tensor, memory: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        """x plus its cross-attention. x may have one row where the memory has B."""
        normed, rows = self.norm2(x), len(memory[0])
        if len(memory) == 2:
            (q,) = self._split(self.cross_q(normed), 1)
            if len(q) != rows:
                q = q.expand(rows, -1, -1, -1)
            return x + self._drop(self.cross_out(self._attend(q, memory[0], memory[1], mask, False)))
        folded, constant, value = (m.flatten(1, 2) for m in memory)
        scores = torch.baddbmm(constant.mT, normed.expand(rows, -1, -1), folded.mT)
        scores = scores.unflatten(2, memory[0].shape[1:3])
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -math.inf)
        return torch.baddbmm(x.expand(rows, -1, -1), scores.softmax(-1).flatten(2), value)

    def forward(  # type: ignore[override]
        self, x: Tensor, memory: tuple[Tensor, ...], memory_mask: Tensor | None, causal: bool
    ) -> Tensor:
        """Self-attention, cross-attention, MLP."""
        q, k, v = self._split(self.qkv(self.norm1(x)), 3)
        x = x + self._drop(self.out(self._attend(q, k, v, None, causal)))
        return self._mlp(self._look(x, memory, memory_mask))

    def step(self, x: Tensor, memory: tuple[Tensor, ...], cache: Tensor, at: int) -> Tensor:
        """The same for one token x [B, w] at place ``at``, after those in the cache. No dropout."""
        qkv = self.qkv(self.norm1(x)).view(len(x), 3, self.heads, 1, -1)
        cache[:, :, :, at : at + 1] = qkv[:, 1:].transpose(0, 1)
        k, v = cache[:, :, :, : at + 1].unbind(0)
        y = F.scaled_dot_product_attention(qkv[:, 0], k, v)
        x = x + self.out(y.reshape(x.shape))
        return self._mlp(self._look(x[:, None], memory, None)[:, 0])


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

    def folds(self, tokens: int, uses: int) -> bool:
        """Whether ``fold`` saves operations, for a memory of so many tokens that so many queries look at.

        A query costs 4·heads·N·w in place of 4·w² + 4·N·w, and the folding 4·N·w² once.
        """
        _, w, heads = self.size
        return uses * heads * tokens + tokens * w < uses * (w + tokens)

    def fold(self, memory: Memory) -> Memory:
        """The same memory for repeated use, without dropout: to be had with fewer operations."""
        pairs = zip(self.blocks, memory.layers, strict=True)
        return Memory(tuple(block.fold(*layer) for block, layer in pairs))  # type: ignore[operator]

    def forward(
        self, x: Tensor, memory: Memory, *, causal: bool, memory_mask: Tensor | None = None
    ) -> Tensor:
        """Run the blocks.

        ``memory_mask`` bool [L, N]: True where token i may look at memory token j (None: everywhere).
        x with one row serves every row of the memory (queries that do not depend on the sample).
        """
        for block, layer in zip(self.blocks, memory.layers, strict=True):
            x = block(x, layer, memory_mask, causal)
        return self.norm(x)

    def step(self, x: Tensor, memory: Memory, cache: KVCache) -> Tensor:
        """One token [B, w] after those in the cache, which takes it in: what ``forward`` gives, causal."""
        for block, layer, own in zip(self.blocks, memory.layers, cache.layers, strict=True):
            x = block.step(x, layer, own, cache.filled)  # type: ignore[operator]
        cache.filled += 1
        return self.norm(x)


def initialise(module: nn.Module) -> None:
    """Weights of linear layers from N(0, 0.02²), no biases."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
