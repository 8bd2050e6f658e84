"""QueST (arXiv 2407.15840): strided causal convolutions, causal attention, FSQ; each token is a stretch of time.

Encoder: linear embedding of the actions, causal convolutions along time that halve the horizon until ``tokens``
steps remain (kernels 5, then 3; one more of stride 1), causal self-attention. Token l therefore depends on the
actions up to (l + 1)·H / L − 1 alone. Decoder: position queries with causal self-attention that cross-attend to
all latents. Tokens are no refinement of one another: a prefix does not decode.

Against the published code: learned positions for sinusoidal ones, mean squared error for the absolute one, and
no dropout, as in the other tokenizers here; the queries' first self-attention, which does not depend on the
chunk, is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from ..nn import SelfBlock, Trunk, TrunkSize, initialise
from ..nn.sizes import AUTOENCODER_SIZES
from .autoencoder import NetworkTokenizer, Units, check_size
from .fsq import Bottleneck
from .levels import Levels, sizes_of, token_levels


class CausalConv(nn.Module):
    """Convolution along time [B, H, w] → [B, H / stride, w]; step i sees the steps before (i + 1)·stride."""

    def __init__(self, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.before = kernel - stride
        self.conv = nn.Conv1d(width, width, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Pad before the first step, convolve, GELU."""
        return F.gelu(self.conv(F.pad(x.transpose(1, 2), (self.before, 0)))).transpose(1, 2)


class QueSTNetwork(nn.Module):
    """Encoder, FSQ and decoder. Chunks [B, H, d] → codes [B, L, D] → chunks, in the network's units."""

    mask: Tensor

    def __init__(self, horizon: int, action_dim: int, tokens: int, levels: Levels, size: str) -> None:
        super().__init__()
        width, n_encoder, n_decoder, heads = AUTOENCODER_SIZES[size]
        halvings = max(0, (horizon // tokens).bit_length() - 1)
        if horizon != tokens << halvings:
            fit = ", ".join(str(horizon >> i) for i in range(horizon.bit_length()) if horizon % (1 << i) == 0)
            raise UserError(
                f"quest halves the horizon {horizon} until {tokens} tokens remain, which does not come out even; "
                f"take tokens from {fit}, or another horizon"
            )
        self.units = Units(action_dim)
        self.embed = nn.Linear(action_dim, width)
        shapes = [(5 if i == 0 else 3, 2) for i in range(halvings)] + [(3, 1)]
        self.convolutions = nn.Sequential(*(CausalConv(width, kernel, stride) for kernel, stride in shapes))
        self.position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.encoder = nn.ModuleList(
            SelfBlock(TrunkSize(n_encoder, width, heads)) for _ in range(n_encoder)
        ).apply(initialise)
        self.bottleneck = Bottleneck(width, levels)
        self.code_position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.queries = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.decoder = Trunk(TrunkSize(n_decoder, width, heads))
        self.out = nn.Linear(width, action_dim)
        self.register_buffer("mask", torch.ones(tokens, tokens, dtype=torch.bool).tril(), persistent=False)

    def encode(self, x: Tensor) -> Tensor:
        """Chunks → FSQ codes [B, L, D]."""
        x = self.convolutions(self.embed(x)) + self.position
        for layer in self.encoder:
            x = layer(x, self.mask)
        return self.bottleneck.codes(x)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes → chunks."""
        memory = self.decoder.condition(self.bottleneck.states(codes) + self.code_position)
        return self.out(self.decoder(self.queries[None], memory, causal=True))

    def reconstruct(self, x: Tensor, rng: torch.Generator | None) -> tuple[Tensor, float]:
        """Nothing is drawn, and there is no further loss."""
        return self.decode(self.encode(x)), 0.0

    def ids(self, x: Tensor) -> Tensor:
        """Chunks → token ids [B, L]."""
        return self.bottleneck.fsq.index(self.encode(x))

    def chunks(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Token ids [B, L] → chunks; all of them count."""
        return self.decode(self.bottleneck.fsq.code(ids))


class QueST(NetworkTokenizer):
    """``QueST(tokens=8, levels=[8, 5, 5, 5]).fit(chunks)``; the horizon is ``tokens`` times a power of two.

    ``levels``: FSQ levels, a name such as ``fsq-1000``, or a list of such for the positions in turn.
    """

    name = "quest"

    def __init__(
        self,
        *,
        tokens: int = 8,
        levels: str | Sequence[int] | Sequence[str | Sequence[int]] = (8, 5, 5, 5),
        size: str = "xs",
    ) -> None:
        check_size(size)
        self.levels = token_levels(tokens, levels)
        super().__init__(tokens=tokens, levels=[list(p) for p in self.levels], size=size)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The product of the levels at each position."""
        return sizes_of(self.options["tokens"], self.levels)

    def _build(self) -> QueSTNetwork:
        o = self.options
        return QueSTNetwork(self.horizon, self.action_dim, o["tokens"], self.levels, o["size"])
