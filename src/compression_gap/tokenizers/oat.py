"""OAT, Ordered Action Tokenization (arXiv 2602.04215): registers, FSQ, nested dropout; every prefix decodes.

Encoder: the chunk's actions and L learned registers; actions attend to actions, registers to all actions and
causally to earlier registers; the registers become FSQ codes. Decoder: position queries that cross-attend to
the codes, in one pass. Nested dropout keeps the first k codes and puts a learned mask in place of the others,
which orders the tokens from coarse to fine. As published, k is uniform on the powers of two up to L; the
prefixes in between are then worse than shorter ones (on Meta-World 0.045 with three tokens after 0.038 with
two), so here k is uniform on 1 … L unless one asks for ``powers-of-two``.

Two things are computed once where the published code computes them for each row: nothing reads the actions
after the last encoder layer, and the queries' first self-attention does not depend on the chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import UserError, unknown_name
from ..nn import SelfBlock, Trunk, TrunkSize, initialise
from ..nn.sizes import AUTOENCODER_SIZES
from .autoencoder import NetworkTokenizer, Units, check_size
from .fsq import Bottleneck
from .levels import Levels, prefix_lengths, sizes_of, token_levels

NESTED_DROPOUT = ("all", "powers-of-two", "none")


class OATNetwork(nn.Module):
    """Encoder, FSQ and decoder. Chunks [B, H, d] → codes [B, L, D] → chunks, in the network's units."""

    mask: Tensor

    def __init__(
        self,
        horizon: int,
        action_dim: int,
        tokens: int,
        levels: Levels,
        size: str,
        nested_dropout: str,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width, n_encoder, n_decoder, heads = AUTOENCODER_SIZES[size]
        self.horizon, self.tokens = horizon, tokens
        kept = {"all": range(1, tokens + 1), "powers-of-two": prefix_lengths(tokens), "none": (tokens,)}
        self.keep = list(kept[nested_dropout])
        self.units = Units(action_dim)
        self.embed = nn.Linear(action_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.registers = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.encoder = nn.ModuleList(
            SelfBlock(TrunkSize(n_encoder, width, heads), dropout) for _ in range(n_encoder)
        ).apply(initialise)
        self.bottleneck = Bottleneck(width, levels)
        self.masked = nn.Parameter(0.02 * torch.randn(width))
        self.code_position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.queries = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.decoder = Trunk(TrunkSize(n_decoder, width, heads), dropout=dropout)
        self.dropout = dropout
        self.out = nn.Linear(width, action_dim)
        # True: may look. Actions see actions; registers see actions and registers up to their own.
        mask = torch.zeros(horizon + tokens, horizon + tokens, dtype=torch.bool)
        mask[:, :horizon] = True
        mask[horizon:, horizon:] = torch.ones(tokens, tokens, dtype=torch.bool).tril()
        self.register_buffer("mask", mask, persistent=False)

    def encode(self, x: Tensor) -> Tensor:
        """Chunks → FSQ codes [B, L, D]."""
        registers = self.registers.expand(len(x), -1, -1)
        x = torch.cat([self.embed(x) + self.position, registers], 1)
        for layer in self.encoder[:-1]:
            x = layer(x, self.mask)
        x = self.encoder[-1](x, self.mask[self.horizon :], first=self.horizon)
        return self.bottleneck.codes(x)

    def decode(self, codes: Tensor, keep: Tensor) -> Tensor:
        """Codes, of which the first ``keep`` [B] count, → chunks."""
        kept = torch.arange(self.tokens, device=codes.device) < keep[:, None]
        latent = torch.where(kept[..., None], self.bottleneck.states(codes), self.masked) + self.code_position
        queries = self.queries[None]
        if self.dropout and self.training:  # what is dropped differs by row
            queries = queries.expand(len(codes), -1, -1)
        return self.out(self.decoder(queries, self.decoder.condition(latent), causal=False))

    def reconstruct(self, x: Tensor, rng: torch.Generator | None) -> tuple[Tensor, float]:
        """With ``rng``, from prefixes of random length; without, from all tokens."""
        keep = torch.full((len(x),), self.tokens, device=x.device)
        if rng is not None:
            choices = torch.tensor(self.keep, device=x.device)
            keep = choices[torch.randint(len(choices), (len(x),), generator=rng, device=x.device)]
        return self.decode(self.encode(x), keep), 0.0

    def ids(self, x: Tensor) -> Tensor:
        """Chunks → token ids [B, L]."""
        return self.bottleneck.fsq.index(self.encode(x))

    def chunks(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Token ids [B, L], of which the first ``lengths`` [B] count, → chunks."""
        return self.decode(self.bottleneck.fsq.code(ids), lengths)


class OAT(NetworkTokenizer):
    """``OAT(tokens=8, levels=[8, 5, 5, 5]).fit(chunks)``, then ``encode`` and ``decode``.

    ``levels``: FSQ levels, a name such as ``fsq-1000``, or a list of such for the positions in turn: codebooks
    that grow along the sequence. ``nested_dropout``: the prefixes that are trained, "all", "powers-of-two" (as
    published) or "none", the paper's ablation: tokens without an order. ``dropout``: of both transformers in fitting
    (0.1 in the published code, whose policies moreover meet tokens made with it: ``ids_in_training``).
    """

    name = "oat"

    def __init__(
        self,
        *,
        tokens: int = 8,
        levels: str | Sequence[int] | Sequence[str | Sequence[int]] = (8, 5, 5, 5),
        size: str = "xs",
        nested_dropout: str = "all",
        dropout: float = 0.0,
    ) -> None:
        check_size(size)
        self.levels = token_levels(tokens, levels)
        if nested_dropout not in NESTED_DROPOUT:
            raise unknown_name("nested dropout", nested_dropout, NESTED_DROPOUT)
        if not 0 <= dropout < 1:
            raise UserError(f"a dropout of {dropout} is no share: give 0 or more, and less than 1")
        later = {"dropout": dropout} if dropout else {}
        super().__init__(
            tokens=tokens,
            levels=[list(p) for p in self.levels],
            size=size,
            nested_dropout=nested_dropout,
            **later,
        )
        self.ordered = nested_dropout != "none"

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The product of the levels at each position."""
        return sizes_of(self.options["tokens"], self.levels)

    def _build(self) -> OATNetwork:
        o = self.options
        shape = self.horizon, self.action_dim, o["tokens"], self.levels, o["size"], o["nested_dropout"]
        return OATNetwork(*shape, o.get("dropout", 0.0))
