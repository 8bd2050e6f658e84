"""Residual vector quantization as in VQ-BeT (arXiv 2403.03181): each token refines the ones before it.

An MLP turns the flattened chunk [H·d] into a latent z; layer l picks the code nearest to what the earlier layers
left over, r_l = z − Σ_{i<l} c_i; an MLP turns the sum of the codes into the chunk. The sum of the first k codes
decodes as well: tokens are ordered from coarse to fine. Codebooks start from k-means on the training chunks and
follow the running means of what is assigned to them; codes that nothing is assigned to are replaced.

The quantizer is vector-quantize-pytorch's. Against VQ-BeT: mean squared error for the absolute one, k-means
start and replacement of dead codes, a lighter commitment loss, a latent as wide as the other tokenizers'
states; no offset head, which would be a policy's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ as Quantizer

from ..errors import UserError
from ..nn.sizes import AUTOENCODER_SIZES
from .autoencoder import NetworkTokenizer, Units, check_size
from .levels import LARGEST

COMMITMENT = 0.25  # weight of a layer's loss, as in VQ-VAE; at 1 training takes longer
DEAD = 0.1  # a code that is picked this share as often as the average one is replaced
START = 4096  # chunks for k-means, or four times the codes


def mlp(n_in: int, width: int, n_out: int, layers: int) -> nn.Sequential:
    """Linear layers with GELU between them, ``layers`` of them hidden."""
    widths = [n_in, *[width] * layers]
    hidden = [m for a, b in pairwise(widths) for m in (nn.Linear(a, b), nn.GELU())]
    return nn.Sequential(*hidden, nn.Linear(width, n_out))


class RVQNetwork(nn.Module):
    """Encoder, residual codebooks and decoder. Chunks [B, H, d] → latents [B, w] → chunks, in its own units."""

    def __init__(self, horizon: int, action_dim: int, layers: int, codes: int, size: str) -> None:
        super().__init__()
        width, n_encoder, n_decoder, _ = AUTOENCODER_SIZES[size]
        self.shape = (horizon, action_dim)
        self.units = Units(action_dim)
        self.encoder = mlp(horizon * action_dim, 4 * width, width, n_encoder)
        self.quantizer = Quantizer(
            dim=width,
            num_quantizers=layers,
            codebook_size=codes,
            decay=0.8,  # of the running means that the codes are; as published
            kmeans_init=True,
            rotation_trick=False,  # the straight-through gradient, once for each layer, as published
            commitment_weight=COMMITMENT,
            threshold_ema_dead_code=1,  # ``start`` sets it
        )
        self.decoder = mlp(width, 4 * width, horizon * action_dim, n_decoder)

    @property
    def codebooks(self) -> Tensor:
        """The codes [layers, codes, w]."""
        books: Tensor = self.quantizer.codebooks
        return books

    @torch.no_grad()
    def start(self, x: Tensor, batch_size: int) -> None:
        """K-means on the latents of chunks; fewer chunks than codes are repeated."""
        codes = self.quantizer.codebook_size
        rows = torch.randperm(len(x), device=x.device)[: max(START, 4 * codes)]
        rows = rows.repeat(-(-codes // len(rows)))
        for layer in self.quantizer.layers:
            layer._codebook.has_dead_code_replacement = False
        self.quantizer.train()(self.latent(x[rows])[None])
        for layer in self.quantizer.layers:
            book = layer._codebook
            book.has_dead_code_replacement = True
            # The library counts picks in a batch; a new code starts as if picked as often as the average one.
            book.threshold_ema_dead_code = DEAD * batch_size / codes
            book.reset_cluster_size = batch_size / codes
            book.cluster_size.mul_(batch_size / len(rows))
            book.embed_avg.mul_(batch_size / len(rows))

    def latent(self, x: Tensor) -> Tensor:
        """Chunks → latents [B, w]."""
        latent: Tensor = self.encoder(x.flatten(1))
        return latent

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Latents → sums of codes, ids [B, L], commitment loss of each layer; float32 under autocast too."""
        with torch.autocast(z.device.type, enabled=False):
            q, ids, loss = self.quantizer(z.float()[None])
        return q[0], ids[0], loss

    def decode(self, q: Tensor) -> Tensor:
        """Sums of codes → chunks."""
        return self.decoder(q).unflatten(1, self.shape)

    def reconstruct(self, x: Tensor, rng: torch.Generator | None) -> tuple[Tensor, Tensor | float]:
        """With ``rng``, the commitment loss is the further one (and the codebooks follow the latents)."""
        q, _, commitment = self.quantize(self.latent(x))
        return self.decode(q), 0.0 if rng is None else commitment.sum()

    def ids(self, x: Tensor) -> Tensor:
        """Chunks → token ids [B, L]."""
        return self.quantize(self.latent(x))[1]

    def chunks(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Token ids [B, L], of which the first ``lengths`` [B] count, → chunks."""
        books = self.codebooks
        q = torch.zeros(len(ids), books.shape[-1], device=ids.device)
        for i, book in enumerate(books):
            q = q + torch.where((i < lengths)[:, None], book[ids[:, i]], 0.0)
        return self.decode(q)


class ResidualVQ(NetworkTokenizer):
    """``ResidualVQ(layers=2, codes=16).fit(chunks)``: a chunk is ``layers`` tokens, each one of ``codes``."""

    name = "rvq"
    ordered = True

    def __init__(self, *, layers: int = 2, codes: int = 16, size: str = "xs") -> None:
        check_size(size)
        for name, number, least in (("layers", layers, 1), ("codes", codes, 2)):
            if isinstance(number, bool) or not isinstance(number, int) or not least <= number <= LARGEST:
                raise UserError(
                    f"{name} is {number!r}; it is a whole number from {least} on, up to {LARGEST}"
                )
        super().__init__(layers=layers, codes=codes, size=size)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """``codes`` at each of the ``layers`` positions."""
        codes: int = self.options["codes"]
        return (codes,) * self.options["layers"]

    def _build(self) -> RVQNetwork:
        o = self.options
        return RVQNetwork(self.horizon, self.action_dim, o["layers"], o["codes"], o["size"])

    def _begin(self, network: RVQNetwork) -> Callable[[Tensor, int], None]:
        return network.start
