"""The linear (Gaussian) part of every rate: ridge regression on the context, and its rate in closed form.

With r = A − E_lin[A|C] in the eigenbasis of its covariance (eigenvalues λ), the linear denoiser of
y = √u·A + ε errs by (r − λ√u·ε) / (1 + uλ) in each direction, so that on any held-out chunk

    ½ ∫₀^γ E_ε|A − Â_lin(y, u, C)|² du = ½ Σᵢ [ ln(1 + γλᵢ) + (rᵢ² − λᵢ) γ / (1 + γλᵢ) ]   nats,

exactly, whatever A's distribution is: the cross-entropy of A_σ under a Gaussian (Verdú 2010, mismatched
estimation and relative entropy). The difference of this rate without and with a context is the Gaussian probe.

Penalties are chosen, and the residual's covariance is taken, out of fold over training episodes: frames of one
episode hang together, and a fit to the frames that it is judged on is several bits too sure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..demos.rounding import is_constant
from .reduction import folds_of

PENALTIES = (1e-5, 1e-3, 1e-2, 1e-1)  # times the number of chunks
SHRINKAGES = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3)  # of the covariance towards its diagonal

Columns = Mapping[str, Tensor]  # values [N, p] of a context by split


@dataclass(frozen=True)
class Part:
    """One thing that a context may hold: values [N, p] by split. ``wide``: to be reduced (``information/reduction.py``)."""

    values: Mapping[str, np.ndarray]
    wide: bool = False

    def standardised(self, device: torch.device) -> dict[str, Tensor]:
        """In units of the training split's mean and standard deviation, without columns that never change."""
        x = {
            s: torch.from_numpy(np.ascontiguousarray(v, np.float64)).to(device)
            for s, v in self.values.items()
        }
        mean = x["train"].mean(0)
        spread = (x["train"] - mean).square().mean(0).sqrt()
        moves = torch.from_numpy(~is_constant(self.values["train"])).to(device)
        return {s: (v - mean)[:, moves] / spread[moves] for s, v in x.items()}


@dataclass(frozen=True)
class LinearPart:
    """E_lin[A|C] = ``mean`` + C · ``weights``, and the residual's eigenbasis."""

    weights: Tensor  # [p, n]
    mean: Tensor  # [n]
    covariance: Tensor  # [n, n], of what is left
    basis: Tensor  # [n, n], its eigenvectors, a column each
    variances: Tensor  # [n], their λ
    out_of_fold: Tensor  # [N, n]: the training chunks as predicted without their own fold

    def predict(self, context: Tensor) -> Tensor:
        """E_lin[A|C] [N, n] of context [N, p]."""
        return self.mean + context @ self.weights

    def rates(self, chunks: Tensor, context: Tensor, sigmas: Tensor) -> Tensor:
        """The rate of each chunk [N, n] at each resolution, in bits: float64 [N, S]."""
        squares = ((chunks - self.predict(context)) @ self.basis).square()
        gamma = 1 / sigmas.square()[:, None]
        grown = 1 + gamma * self.variances  # [S, n]
        constant = (grown.log() - gamma * self.variances / grown).sum(1)
        return 0.5 * (constant + squares @ (gamma / grown).T) / np.log(2)


def join(parts: Sequence[Columns], split: str, chunks: Tensor) -> Tensor:
    """The context [N, p] of the split's chunks [N, n] that parts make; no columns of no parts."""
    if parts:
        return torch.cat([p[split] for p in parts], 1)
    return chunks.new_zeros(len(chunks), 0)


def fit_linear(chunks: Tensor, parts: Sequence[Columns], episode: np.ndarray, sigma: float) -> LinearPart:
    """Fit on training chunks float64 [N, n]. ``episode`` [N] makes the folds.

    ``sigma``: the resolution at which penalties are chosen, the finest that will be asked for.
    """
    mean = chunks.mean(0)
    x, y = join(parts, "train", chunks), chunks - mean
    folds = _folds(episode)
    held = [(x[f], y[f]) for f in folds]
    gram, product = x.T @ x, x.T @ y

    def solve(gram: Tensor, product: Tensor, penalty: Tensor) -> Tensor:
        return torch.cholesky_solve(product, torch.linalg.cholesky(gram + torch.diag(penalty)))

    best: tuple[float, Tensor, Tensor, list[Tensor]] | None = None
    for times in PENALTIES if x.shape[1] else PENALTIES[:1]:
        penalty = x.new_full((x.shape[1],), times * len(x))
        left = [b - a @ solve(gram - a.T @ a, product - a.T @ b, penalty) for a, b in held]
        covariance, cost = _covariance(left, sigma)
        if best is None or cost < best[0]:
            best = cost, penalty, covariance, left
    assert best is not None
    variances, basis = torch.linalg.eigh(best[2])
    out_of_fold = torch.empty_like(chunks)
    out_of_fold[torch.cat(folds)] = chunks[torch.cat(folds)] - torch.cat(best[3])
    return LinearPart(
        solve(gram, product, best[1]), mean, best[2], basis, variances.clamp_min(1e-12), out_of_fold
    )


def _folds(episode: np.ndarray) -> list[Tensor]:
    """Rows of each fold, whole episodes."""
    fold = folds_of(episode)
    return [torch.from_numpy(np.flatnonzero(fold == k)) for k in range(fold.max() + 1)]


def _covariance(left: list[Tensor], sigma: float) -> tuple[Tensor, float]:
    """The covariance of residuals (a list by fold), shrunk as folds judge each other, and its cost in nats."""
    moments, counts = [r.T @ r for r in left], [len(r) for r in left]
    total, rows = torch.stack(moments).sum(0), sum(counts)
    noise = sigma**2 * torch.eye(len(total), dtype=total.dtype, device=total.device)
    best: tuple[float, float] | None = None
    for shrinkage in SHRINKAGES:
        cost = 0.0
        for moment, count in zip(moments, counts, strict=True):
            others = (total - moment) / (rows - count) if rows > count else total / rows
            factor = torch.linalg.cholesky(_shrunk(others, shrinkage) + noise)
            fit = torch.cholesky_solve(moment + count * noise, factor).trace()
            cost += float(count * factor.diagonal().log().sum() + 0.5 * fit)
        if best is None or cost < best[0]:
            best = cost, shrinkage
    assert best is not None
    return _shrunk(total / rows, best[1]), best[0] / rows


def _shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    return (1 - shrinkage) * covariance + shrinkage * torch.diag(covariance.diagonal())
