"""What an action head is: context tokens → action chunk, trained on targets, sampled with seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Target:
    """Training targets of B samples, in normalised units.

    ``chunk`` [B, H, d]; ``valid`` [B, H]: which actions count; ``tokens`` int64 [B, L], their ``lengths`` int64
    [B]; ``coded`` [B, H, d]: Ã, what the tokens decode to.
    """

    chunk: Tensor
    valid: Tensor
    tokens: Tensor | None = None
    lengths: Tensor | None = None
    coded: Tensor | None = None


@dataclass(frozen=True)
class Emission:
    """What was emitted: B chunks [B, H, d], whether each one decoded [B], and token ids [B, L] if any.

    ``lengths`` [B]: how many ids of each row count (None: all). Heads emit tensors in normalised units; actors
    emit NumPy arrays in raw action units.
    """

    chunk: Any
    ok: Any
    tokens: Any = None
    lengths: Any = None


class ActionHead(Protocol):
    """A continuous or discrete head on the shared trunk. A torch module."""

    @property
    def trunk(self) -> Any:
        """The trunk that all heads of a size share in kind, and that is counted apart from the head's own."""

    def loss(self, context: Tensor, target: Target, *, rng: torch.Generator) -> Tensor:
        """Loss per sample [B]; actions after the episode's end do not count."""

    def sample(self, context: Tensor, seeds: list[int]) -> Emission:
        """Chunks for context [B, N, w]; all noise of row b comes from ``seeds[b]``."""


@runtime_checkable
class DenoisingHead(Protocol):
    """A head that is trained to denoise the chunk, and so says how well it knows it at each noise level.

    y = √u·A + ε with the signal-to-noise ratio (SNR) u; resolution σ is u = 1/σ². A in normalised units.
    """

    def snr_levels(self) -> Tensor:
        """SNRs that the head was trained at: float64 [K] on the CPU, positive, increasing."""

    def clean_errors(
        self, context: Tensor, chunk: Tensor, level: int, *, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Noise ε [B, H, d], and Â − A of the clean chunk that the network implies at ±ε [2, B, H, d].

        Context [B, N, w], chunk [B, H, d]; ε is drawn row after row: the same draws however rows are batched.
        """


def row_generators(seeds: list[int], device: torch.device) -> list[torch.Generator]:
    """One generator per row, so that a sample depends neither on its batch nor on what came before."""
    import torch

    return [torch.Generator(device).manual_seed(seed) for seed in seeds]


def over_valid(error: Tensor, valid: Tensor) -> Tensor:
    """Mean error [B] of the actions that count: error [B, H], valid [B, H]."""
    return (error * valid).sum(1) / valid.sum(1)


def both_signs(
    residual: Callable[[Tensor], Tensor], chunk: Tensor, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Noise ε for chunk [B, H, d], drawn row after row, and residual(±ε) [2, B, H, d].

    What is odd in the noise cancels in the mean over both signs. One draw for all rows would depend on how they
    are batched.
    """
    import torch

    noise = torch.stack([torch.randn(chunk.shape[1:], generator=rng, device=chunk.device) for _ in chunk])
    return noise, torch.stack([residual(noise), residual(-noise)])
