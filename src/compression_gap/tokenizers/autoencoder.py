"""What tokenizers with a network share: units, training on the mean squared error, work in sub-batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..demos.rounding import spread
from ..errors import unknown_name
from ..nn import Schedule, train
from ..nn.shapes import check_shapes
from ..nn.sizes import AUTOENCODER_SIZES
from .base import ActionTokenizer, Arrays, Chunks, Fitting

BATCH = 64  # larger ones fall out of the processor's cache


class Units(nn.Module):
    """The network's own units: mean 0, std 1 per dimension over the chunks it was fitted on."""

    centre: Tensor
    spread: Tensor

    def __init__(self, action_dim: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(action_dim))
        self.register_buffer("spread", torch.ones(action_dim))

    def fit(self, actions: np.ndarray) -> None:
        """Take mean and standard deviation of actions [M, d]; a constant dimension keeps std 1."""
        self.centre.copy_(torch.from_numpy(actions.mean(0, dtype=np.float64)))
        self.spread.copy_(torch.from_numpy(spread(actions)))

    def forward(self, chunks: Tensor) -> Tensor:
        """Chunks [..., d] in the network's units."""
        return (chunks - self.centre) / self.spread

    def back(self, x: Tensor) -> Tensor:
        """And back."""
        return x * self.spread + self.centre


def check_size(size: str) -> None:
    """``UserError`` for a size that is not among ``AUTOENCODER_SIZES``."""
    if size not in AUTOENCODER_SIZES:
        raise unknown_name("tokenizer size", size, AUTOENCODER_SIZES)


class Autoencoder(Protocol):
    """A network that turns chunks x [B, H, d], in its own units, into tokens and back."""

    units: Units

    def reconstruct(self, x: Tensor, rng: torch.Generator | None) -> tuple[Tensor, Tensor | float]:
        """The reconstruction of x, and a further loss.

        Draws come from ``rng``; without one, what is drawn in training is left out.
        """

    def ids(self, x: Tensor) -> Tensor:
        """Token ids int64 [B, L]."""

    def chunks(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Chunks of ids [B, L], of which the first ``lengths`` [B] count."""


def fit_autoencoder(
    network: nn.Module,
    chunks: Chunks,
    validation: Chunks,
    how: Fitting,
    begin: Callable[[Tensor, int], None] = lambda x, batch_size: None,
) -> tuple[Any, Mapping[str, Any]]:
    """Train with AdamW on the mean squared error of valid actions; the averaged network and its report.

    ``begin`` is called before the first step, with the chunks in the network's units and the batch size.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)
    network.units.fit(chunks.actions)  # type: ignore[union-attr, operator]

    def in_units(data: Chunks) -> Tensor:
        x: Tensor = network.units(torch.from_numpy(data.values).to(device))  # type: ignore[operator]
        return x

    def loss_on(data: Chunks, training: bool) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
        x = in_units(data)
        valid = torch.from_numpy(data.valid).to(device, torch.float32)

        def loss(module: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
            chunk, ok = x[rows], valid[rows]
            made, further = module.reconstruct(chunk, rng if training else None)  # type: ignore[operator]
            error = (made.float() - chunk).square().mean(-1)
            return (error * ok).sum(1) / ok.sum(1) + further

        return loss

    begin(in_units(chunks), how.batch_size)
    schedule = Schedule(how.steps, how.batch_size, how.lr, warmup=min(100, how.steps // 10), weight_decay=0.0)
    average, curve = train(
        network,
        loss_on(chunks, True),
        len(chunks.values),
        len(validation.values),
        schedule,
        validation_loss=loss_on(validation, False),
        seed=how.seed,
        device=device,
        work=how.work,
        should_stop=how.should_stop,
        progress=how.progress,
    )
    # Without the seconds: a tokenizer's files are the same whenever it is fitted.
    shown = {name: values for name, values in vars(curve).items() if name != "seconds"}
    return average.eval().requires_grad_(False), {"curve": shown}


@torch.no_grad()
def _in_batches(
    function: Callable[..., Tensor], *rows: np.ndarray, device: torch.device, empty: tuple[int, ...]
) -> np.ndarray:
    """``function`` over sub-batches of rows, joined; without rows, an array [0, *empty].

    In float32 whatever the caller's autocast: tokens must not depend on who asks for them.
    """
    if not len(rows[0]):
        return np.zeros((0, *empty), np.float32)
    parts = [torch.from_numpy(r).to(device).split(BATCH) for r in rows]
    with torch.autocast(device.type, enabled=False):
        done = [function(*part).cpu().numpy() for part in zip(*parts, strict=True)]
    return np.concatenate(done)


class NetworkTokenizer(ActionTokenizer):
    """A tokenizer whose work a network does: a subclass says how it is built, and which options it has."""

    _network: Any = None

    @abstractmethod
    def _build(self) -> nn.Module:
        """The network, an ``Autoencoder``, for the chunks of this tokenizer."""

    def _begin(self, network: Any) -> Callable[[Tensor, int], None]:
        """What is called before the first step; see ``fit_autoencoder``."""
        return lambda x, batch_size: None

    @property
    def network(self) -> Any:
        """The fitted network, in eval mode."""
        self._need_fit()
        return self._network

    def ids_in_training(self, chunks: Tensor) -> Tensor:
        """Token ids int64 [B, L] of chunks [B, H, d], with the network's dropout on: not what ``encode`` gives.

        So the published code makes target tokens: putting the policy into training mode switches its frozen
        tokenizer's dropout on. Draws come from torch's global generator, which the training loop seeds at each step;
        the network is in eval mode again afterwards. It moves to the chunks' device.
        """
        network = self.network.to(chunks.device)
        low, high = (torch.from_numpy(a).to(chunks.device) for a in (self.low, self.high))
        network.train()
        try:
            with torch.no_grad(), torch.autocast(chunks.device.type, enabled=False):
                ids: Tensor = network.ids(network.units(chunks.float().clamp(low, high)))
        finally:
            network.eval()
        return ids

    def _fit(self, chunks: Chunks, validation: Chunks, how: Fitting) -> Mapping[str, Any]:
        torch.manual_seed(how.seed)
        network = self._build()
        self._network, report = fit_autoencoder(network, chunks, validation, how, self._begin(network))
        return report

    def _encode(self, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        network, tokens = self.network, len(self.codebook_sizes)

        def ids(x: Tensor) -> Tensor:
            return network.ids(network.units(x))

        found = _in_batches(ids, chunks, device=network.units.centre.device, empty=(tokens,))
        return found.astype(np.int64), np.full(len(chunks), tokens)

    def _decode(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        network, shape = self.network, (self.horizon, self.action_dim)
        padded = np.zeros((len(ids), len(self.codebook_sizes)), np.int64)
        padded[:, : ids.shape[1]] = ids

        def chunks(rows: Tensor, keep: Tensor) -> Tensor:
            return network.units.back(network.chunks(rows, keep))

        made = _in_batches(chunks, padded, lengths, device=network.units.centre.device, empty=shape)
        return made, np.ones(len(ids), bool)

    def _arrays(self) -> Arrays:
        return {n: t.detach().cpu().numpy() for n, t in self.network.state_dict().items()}

    def _restore(self, arrays: Arrays) -> None:
        check_shapes(self._build, {n: a.shape for n, a in arrays.items()})
        network = self._build()
        try:
            network.load_state_dict({n: torch.from_numpy(a) for n, a in arrays.items()})
        except RuntimeError as error:
            raise ValueError("its tensors are those of another network") from error
        self._network = network.eval().requires_grad_(False)
