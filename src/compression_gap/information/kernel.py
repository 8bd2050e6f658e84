"""Kernel denoisers: the mean of the training chunks, each weighted by how well it explains what is seen.

For y = √u·A + ε the posterior mean under the training chunks themselves (the empirical Bayes rule) is

    Â(y, u) = Σⱼ wⱼ aⱼ,   wⱼ ∝ exp(−½|y − √u·aⱼ|²)

and a context enters through its linear prediction ĉ of the chunk, whose residual has the covariance P, as a
Nadaraya–Watson kernel: wⱼ ∝ … exp(−½τ|ĉ − ĉⱼ|²_P), at several precisions τ. Scripted and human actions repeat
themselves, so that these know at once what a network takes long to learn. They are never judged on chunks that they
average.
"""

from __future__ import annotations

import torch
from torch import Tensor

PRECISIONS = (8.0, 64.0)  # τ, in units of the linear residual's variance


def evidence(noisy: Tensor, root: Tensor, chunks: Tensor) -> Tensor:
    """ln p(y|aⱼ) up to a constant, [B, K]: of y [B, n] at √u [B, 1] for the chunks aⱼ [K, n]."""
    return root * (noisy @ chunks.T) - 0.5 * root.square() * chunks.square().sum(1)


def context_evidence(guess: Tensor, guesses: Tensor, whiten: Tensor) -> list[Tensor]:
    """What the context says of each training chunk, [B, K], once for every precision.

    ``guess`` [B, n] and ``guesses`` [K, n]: linear predictions, of the training chunks too; ``whiten`` [n, n]:
    distances d·whiten are in standard deviations of the linear residual.
    """
    apart = -0.5 * torch.cdist(guess @ whiten, guesses @ whiten).square()
    return [tau * apart for tau in PRECISIONS]


def average(logits: Tensor, chunks: Tensor) -> Tensor:
    """The chunks' mean [B, n] under softmax weights of the logits [B, K]."""
    return logits.softmax(1) @ chunks
