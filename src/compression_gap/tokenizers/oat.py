"""OAT, Ordered Action Tokenization (arXiv 2602.04215): registers, FSQ, nested dropout; every prefix decodes.

Encoder: the chunk's actions and L learned registers; actions attend to actions, registers to all actions and
causally to earlier registers; the registers become FSQ codes. Decoder: position queries that cross-attend to
the codes, in one pass. Nested dropout keeps the first k codes (k uniform on the powers of two up to L) and
puts a learned mask in place of the others, which orders the tokens from coarse to fine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import UserError
from ..nn import Schedule, train
from .base import Decoded, Tokens, as_chunks
from .fsq import FSQ

# width, encoder layers, decoder layers, heads; M is the published size.
OAT_SIZES = {"xs": (64, 2, 2, 4), "S": (128, 2, 3, 4), "M": (256, 2, 4, 4)}
BATCH = 64  # larger ones fall out of the processor's cache


class OATNetwork(nn.Module):
    """Encoder, FSQ and decoder. Chunks [B, H, d] → codes [B, L, D] → chunks."""

    mask: Tensor

    def __init__(
        self, horizon: int, action_dim: int, tokens: int, levels: Sequence[int], size: str, nested: bool
    ) -> None:
        super().__init__()
        width, n_encoder, n_decoder, heads = OAT_SIZES[size]
        self.horizon, self.tokens = horizon, tokens
        self.keep = [1 << i for i in range(tokens.bit_length()) if 1 << i <= tokens] if nested else [tokens]
        if tokens not in self.keep:
            self.keep.append(tokens)
        self.embed = nn.Linear(action_dim, width)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.registers = nn.Parameter(0.02 * torch.randn(tokens, width))
        options: dict[str, Any] = {
            "dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True
        }  # fmt: skip
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, **options) for _ in range(n_encoder)
        )
        self.to_latent = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(levels)))
        self.fsq = FSQ(levels)
        self.from_latent = nn.Linear(len(levels), width)
        self.masked = nn.Parameter(0.02 * torch.randn(width))
        self.code_position = nn.Parameter(0.02 * torch.randn(tokens, width))
        self.queries = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(width, heads, 4 * width, **options) for _ in range(n_decoder)
        )
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, action_dim))
        # True: may not look. Actions see actions; registers see actions and earlier registers.
        mask = torch.ones(horizon + tokens, horizon + tokens, dtype=torch.bool)
        mask[:, :horizon] = False
        mask[horizon:, horizon:] = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        self.register_buffer("mask", mask, persistent=False)

    def encode(self, chunks: Tensor) -> Tensor:
        """Chunks → FSQ codes [B, L, D]."""
        registers = self.registers.expand(len(chunks), -1, -1)
        x = torch.cat([self.embed(chunks) + self.position, registers], 1)
        for layer in self.encoder:
            x = layer(x, src_mask=self.mask)
        return self.fsq(self.to_latent(x[:, self.horizon :]))

    def decode(self, codes: Tensor, keep: Tensor) -> Tensor:
        """Codes, of which the first ``keep`` [B] count, → chunks."""
        kept = torch.arange(self.tokens, device=codes.device) < keep[:, None]
        latent = torch.where(kept[..., None], self.from_latent(codes), self.masked) + self.code_position
        x = self.queries.expand(len(codes), -1, -1)
        for layer in self.decoder:
            x = layer(x, latent)
        return self.out(x)


class OAT:
    """The tokenizer: ``OAT(16, tokens=8, levels=[8, 5, 5, 5]).fit(chunks)``, then ``encode``, ``decode``."""

    name = "oat"

    def __init__(
        self,
        horizon: int,
        *,
        tokens: int = 8,
        levels: Sequence[int] = (8, 5, 5, 5),
        size: str = "xs",
        nested_dropout: bool = True,
    ) -> None:
        if size not in OAT_SIZES:
            raise UserError(f"unknown tokenizer size '{size}'; known: {', '.join(OAT_SIZES)}")
        self.horizon, self.tokens, self.levels = horizon, tokens, tuple(levels)
        self.size, self.nested_dropout = size, nested_dropout
        self.action_dim: int | None = None
        self._network: OATNetwork | None = None

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The same codebook at each position."""
        return (math.prod(self.levels),) * self.tokens

    @property
    def capacity_bits(self) -> float:
        """Σ log2 V over the positions."""
        return sum(math.log2(v) for v in self.codebook_sizes)

    @property
    def network(self) -> OATNetwork:
        """The fitted network, in eval mode."""
        if self._network is None:
            raise UserError("this OAT tokenizer has not been fitted; call fit(chunks) first")
        return self._network

    def _build(self, action_dim: int) -> OATNetwork:
        self.action_dim = action_dim
        return OATNetwork(self.horizon, action_dim, self.tokens, self.levels, self.size, self.nested_dropout)

    def fit(
        self,
        chunks: Any,
        valid: Any = None,
        *,
        validation: tuple[Any, Any] | None = None,
        seed: int = 0,
        steps: int = 1500,
        batch_size: int = 256,
        lr: float = 1e-3,
        work: Path | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, Any]:
        """Train on normalised chunks [N, H, d]; ``valid`` [N, H] masks what lies after an episode's end.

        Returns the learning curve. The loss is the mean squared error on valid actions.
        """
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        data = _as_tensors(chunks, valid, self.horizon, device)
        held = data if validation is None else _as_tensors(*validation, self.horizon, device)
        torch.manual_seed(seed)
        network = self._build(data[0].shape[2]).to(device)

        def loss_on(x: Tensor, mask: Tensor, prefixes: bool) -> Callable[..., Tensor]:
            keep_choices = torch.tensor(network.keep, device=device)

            def loss(module: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
                assert isinstance(module, OATNetwork)
                keep = torch.full((len(rows),), self.tokens, device=device)
                if prefixes:
                    choice = torch.randint(len(keep_choices), (len(rows),), generator=rng, device=device)
                    keep = keep_choices[choice]
                chunk, ok = x[rows], mask[rows]
                error = (module.decode(module.encode(chunk), keep) - chunk).square().mean(-1)
                return (error * ok).sum(1) / ok.sum(1)

            return loss

        schedule = Schedule(steps, batch_size, lr, warmup=min(100, steps // 10), weight_decay=0.0)
        average, curve = train(
            network,
            loss_on(*data, True),
            len(data[0]),
            len(held[0]),
            schedule,
            validation_loss=loss_on(*held, False),
            seed=seed,
            device=device,
            work=work,
            should_stop=should_stop,
            progress=progress,
        )
        assert isinstance(average, OATNetwork)
        self._network = average.eval()
        return {"curve": vars(curve), "converged": curve.converged()}

    @torch.no_grad()
    def encode(self, chunks: Any) -> Tokens:
        """Tokens of chunks [B, H, d]; every length is L."""
        network = self.network
        x = torch.from_numpy(as_chunks(chunks, horizon=self.horizon, action_dim=self.action_dim))
        x = x.to(network.queries.device)
        ids = [network.fsq.index(network.encode(part)).cpu().numpy() for part in x.split(BATCH)]
        all_ids = np.concatenate(ids) if ids else np.zeros((0, self.tokens), np.int64)
        return Tokens(all_ids, np.full(len(x), self.tokens))

    @torch.no_grad()
    def decode(self, tokens: Tokens) -> Decoded:
        """Chunks of token ids [B, l ≤ L]; a row's first ``lengths`` tokens count: any prefix decodes."""
        network = self.network
        ids, lengths = np.asarray(tokens.ids), np.asarray(tokens.lengths)
        if ids.shape[1] > self.tokens or lengths.max(initial=0) > ids.shape[1]:
            raise UserError(f"{ids.shape[1]} tokens a chunk; this tokenizer has {self.tokens}")
        if lengths.shape != (len(ids),) or lengths.min(initial=0) < 0:
            raise UserError(f"{len(ids)} rows of tokens need {len(ids)} lengths, none below 0")
        # What lies after a row's length is padding, and may hold anything.
        ids = np.where(np.arange(ids.shape[1]) < lengths[:, None], ids, 0)
        if ids.size and (ids.min() < 0 or ids.max() >= network.fsq.size):
            raise UserError(
                f"token ids outside the codebook 0 … {network.fsq.size - 1}: from another tokenizer?"
            )
        padded = np.zeros((len(ids), self.tokens), np.int64)
        padded[:, : ids.shape[1]] = ids
        device = network.queries.device
        all_codes = network.fsq.code(torch.from_numpy(padded).to(device))
        keep = torch.from_numpy(lengths).to(device)
        parts = [
            network.decode(c, k).float().cpu().numpy()
            for c, k in zip(all_codes.split(BATCH), keep.split(BATCH), strict=True)
        ]
        shape = (0, self.horizon, self.action_dim or 0)
        return Decoded(
            np.concatenate(parts) if parts else np.zeros(shape, np.float32), np.ones(len(ids), bool)
        )

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Every code may follow every prefix."""
        return np.ones(math.prod(self.levels), bool)

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and ``tokenizer.safetensors``."""
        about = {
            "name": self.name,
            "horizon": self.horizon,
            "tokens": self.tokens,
            "levels": list(self.levels),
            "size": self.size,
            "nested_dropout": self.nested_dropout,
            "action_dim": self.action_dim,
        }
        save_file(
            {n: t.cpu().contiguous() for n, t in self.network.state_dict().items()},
            folder / "tokenizer.safetensors",
        )
        (folder / "tokenizer.json").write_text(json.dumps(about, indent=1))

    @classmethod
    def load(cls, folder: Path) -> OAT:
        """Read what ``save`` wrote. Runs no code from the folder."""
        about = json.loads((folder / "tokenizer.json").read_text())
        if about.pop("name") != cls.name:
            raise UserError(f"{folder} holds another tokenizer than {cls.name}")
        try:
            action_dim = about.pop("action_dim")
            tokenizer = cls(about.pop("horizon"), **about)
            network = tokenizer._build(action_dim)
            network.load_state_dict(load_file(folder / "tokenizer.safetensors"))
        except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder} holds no {cls.name} tokenizer that can be read: {error}") from error
        tokenizer._network = network.eval().requires_grad_(False)
        return tokenizer


def _as_tensors(chunks: Any, valid: Any, horizon: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x = torch.from_numpy(as_chunks(chunks, horizon=horizon)).to(device)
    if not len(x):
        raise UserError("no chunks to fit a tokenizer on; give it at least one demonstration")
    ok = torch.ones(x.shape[:2]) if valid is None else torch.as_tensor(np.asarray(valid))
    return x, ok.to(device=device, dtype=torch.float32)
