"""Supervised reduction of a wide context to the few directions that tell of the chunk.

An encoder's features have hundreds of columns, of which few tell anything of the action. Leading principal components
are chosen by their variance, not by their use, and estimators that see the columns themselves lose more to the
useless ones the more there are. So a wide context x is replaced by out-of-fold predictions, from all of its columns:

* ``linear``: of the chunk, by ridge regression, then reduced-rank regression (Izenman 1975) of the chunk on these
  predictions. Ridge shrinks useful directions together with useless ones; the second regression undoes that and
  keeps no more directions than pay on other episodes.
* ``learned``: of the chunk and of random Fourier features of it (Rahimi and Recht 2007), which stand for its
  whole conditional distribution (a conditional mean embedding, Song et al. 2009), by multilayer perceptrons that are
  stopped early; reduced likewise. They see x in principal components: once whitened, where every direction counts
  alike, and once nearly as it is, where wide directions count more; the regression takes what predicts.

Every training row is predicted by models of other episodes, validation and test rows by models of all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..nn.ema import EMA

FOLDS = 5
WIDEST = 4096  # columns; of wider contexts that many leading principal components
PENALTIES = tuple(10.0**k for k in np.arange(-5, 2.1, 0.5))  # of ridge, times the number of rows
RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
NEGLIGIBLE = 1e-6  # variance of a component relative to the first, below which it is rounding
LEAST = 1e-4  # share of the error without directions, that further directions must explain
WHITENING = (1.0, 0.25)  # power of 1/√variance by which components are scaled for networks
FOURIER = 32  # random Fourier features of the chunk
FREQUENCY = 2.0
WARM_UP = 50
CHECKS = 10  # times at which a training may be stopped


@dataclass(frozen=True)
class Reducing:
    """How networks are trained."""

    steps: int = 500
    batch_size: int = 256
    width: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Reduced:
    """Columns [N, r] by split that stand for a wide context."""

    linear: dict[str, Tensor]
    learned: dict[str, Tensor]


def folds_of(episode: np.ndarray, most: int = FOLDS) -> np.ndarray:
    """The fold of each row, int64 [N]: whole episodes, as even as can be."""
    names, number = np.unique(episode, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))
    return np.asarray(order[number] % min(most, len(names)))


def reduce(
    x: Mapping[str, Tensor],
    targets: Mapping[str, Tensor],
    episode: np.ndarray,
    how: Reducing,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> Reduced:
    """Reduce ``x`` [N, p] (standardised) to what predicts ``targets`` [N, q], both by split and centred.

    ``targets``: the chunk, each column on the scale at which it counts; those of "train" are used alone.
    ``episode`` [N] of the training rows makes the folds; with one episode there is nothing to judge by, and no column
    is kept.
    """
    fold = torch.from_numpy(folds_of(episode)).to(x["train"].device)
    none = {s: v[:, :0] for s, v in x.items()}
    if int(fold.max()) == 0 or not x["train"].shape[1]:
        return Reduced(none, none)
    components, variances = _components(x)
    own = targets["train"]
    linear = _linear(components, own, fold)
    learned = _learned(components, variances, own, fold, how, should_stop) if how.steps else none
    return Reduced(linear, learned)


def _components(x: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """All principal components that are more than rounding [N, k], unscaled, and their variances [k]."""
    own = x["train"]
    if own.shape[1] > WIDEST:
        _, singular, vectors = torch.svd_lowrank(own, WIDEST, niter=2)
        values = singular.square() / len(own)
    else:
        values, vectors = torch.linalg.eigh(own.T @ own / len(own))
        values, vectors = values.flip(0), vectors.flip(1)
    kept = values > NEGLIGIBLE * values[0]
    return {s: v @ vectors[:, kept] for s, v in x.items()}, values[kept]


def _linear(x: Mapping[str, Tensor], y: Tensor, fold: Tensor) -> dict[str, Tensor]:
    """Reduced-rank regression on ridge predictions, with the penalty and the rank that predict best out of fold."""
    own = x["train"]
    gram, product = own.T @ own, own.T @ y
    predicted = torch.empty(len(PENALTIES), *y.shape, dtype=y.dtype, device=y.device)
    for k in range(int(fold.max()) + 1):
        held = fold == k
        a, b = own[held], y[held]
        values, vectors = torch.linalg.eigh(gram - a.T @ a)
        turned, target = a @ vectors, vectors.T @ (product - a.T @ b)
        for i, penalty in enumerate(PENALTIES):
            predicted[i, held] = turned @ (target / (values.clamp_min(0) + penalty * len(own))[:, None])
    found = [reduced_rank(p, y, fold) for p in predicted]
    best = min(range(len(PENALTIES)), key=lambda i: found[i][1])
    directions = found[best][0]
    penalty = PENALTIES[best] * len(own) * torch.eye(len(gram), dtype=y.dtype, device=y.device)
    weights = torch.linalg.solve(gram + penalty, product) @ directions
    columns = {s: v @ weights for s, v in x.items()}
    return {**columns, "train": predicted[best] @ directions}


def reduced_rank(predicted: Tensor, y: Tensor, fold: Tensor) -> tuple[Tensor, float]:
    """Directions [m, r] of ``predicted`` [N, m] that explain ``y`` [N, q] in a regression of rank r.

    The rank is that with the least squared error out of fold, which is returned too, summed over rows; 0 directions
    where even one explains less than none.
    """
    count = int(fold.max()) + 1
    m = predicted.shape[1]
    moments = [_moments(predicted[fold == k], y[fold == k]) for k in range(count)]
    whole = [torch.stack(part).sum(0) for part in zip(*moments, strict=True)]
    ranks = [r for r in RANKS if r < min(m, y.shape[1])] + [min(m, y.shape[1], RANKS[-1])]
    errors = dict.fromkeys([0, *ranks], 0.0)
    for pp, py, yy in moments:
        slopes, turn = _rank_order(whole[0] - pp, whole[1] - py)
        for rank in errors:
            own = turn[:, :rank]
            fit = slopes @ own @ own.T
            errors[rank] += float(yy - 2 * (fit * py).sum() + (fit * (pp @ fit)).sum())
    least = min(errors.values()) + LEAST * errors[0]
    best = min(r for r in errors if errors[r] <= least)
    slopes, turn = _rank_order(whole[0], whole[1])
    return slopes @ turn[:, :best], errors[best]


def _moments(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return p.T @ p, p.T @ y, y.square().sum()


def _rank_order(pp: Tensor, py: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares [m, q], and the directions of y [q, q] in the order of what it explains."""
    small = 1e-9 * pp.diagonal().mean().clamp_min(1e-300)
    slopes = torch.linalg.solve(pp + small * torch.eye(len(pp), dtype=pp.dtype, device=pp.device), py)
    return slopes, torch.linalg.eigh(slopes.T @ pp @ slopes)[1].flip(1)


def fourier(y: Tensor, seed: int) -> Tensor:
    """Random Fourier features [N, FOURIER] of y [N, q], centred, of the size of its columns' mean."""
    rng = np.random.default_rng(seed)
    q = y.shape[1]
    turn = torch.from_numpy(rng.standard_normal((q, FOURIER)) * FREQUENCY / math.sqrt(q)).to(y)
    shift = torch.from_numpy(rng.uniform(0, 2 * np.pi, FOURIER)).to(y)
    waves = (y @ turn + shift).cos()
    return (waves - waves.mean(0)) * math.sqrt(2 * max(q, 1) / FOURIER)


def _learned(
    x: Mapping[str, Tensor],
    variances: Tensor,
    y: Tensor,
    fold: Tensor,
    how: Reducing,
    should_stop: Callable[[], bool],
) -> dict[str, Tensor]:
    both = torch.cat([y, fourier(y, how.seed)], 1)
    predicted: dict[str, list[Tensor]] = {s: [] for s in x}
    for power in WHITENING:
        scale = (variances / variances.mean()).pow(-power / 2) / variances.mean().sqrt()
        for split, values in _cross_fitted(
            {s: v * scale for s, v in x.items()}, both, fold, how, should_stop
        ).items():
            predicted[split].append(values)
    joined = {s: torch.cat(v, 1) for s, v in predicted.items()}
    directions, _ = reduced_rank(joined["train"], both, fold)
    return {s: v @ directions for s, v in joined.items()}


def _cross_fitted(
    x: Mapping[str, Tensor], y: Tensor, fold: Tensor, how: Reducing, should_stop: Callable[[], bool]
) -> dict[str, Tensor]:
    """Predictions of y: of training rows by the network that did not see their fold, of others by the mean of all.

    All stop at the same check, that with the least error out of fold.
    """
    from ..nn import Interrupted

    count = int(fold.max()) + 1
    inputs = {s: v.float() for s, v in x.items()}
    target = y.float()
    sums = {s: target.new_zeros(CHECKS, len(v), y.shape[1]) for s, v in inputs.items()}
    for k in range(count):
        held, rest = (fold == k).nonzero()[:, 0], (fold != k).nonzero()[:, 0]
        network = _Network(inputs["train"].shape[1], y.shape[1], how, k).to(target.device)
        for check, average in enumerate(_trained(network, inputs["train"][rest], target[rest], how, k)):
            if should_stop():
                raise Interrupted
            with torch.no_grad():
                for split, own in inputs.items():
                    if split == "train":
                        sums[split][check, held] = average(own[held])
                    else:
                        sums[split][check] += average(own) / count
    errors = (sums["train"] - target).square().sum((1, 2))
    best = int(errors.argmin())
    return {s: v[best].to(y.dtype) for s, v in sums.items()}


def _trained(network: nn.Module, x: Tensor, y: Tensor, how: Reducing, fold: int) -> Iterator[nn.Module]:
    """Train on rows x and y; yields the averaged network at each check."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=how.lr, weight_decay=how.weight_decay)
    rng = torch.Generator(x.device).manual_seed(how.seed * FOLDS + fold)
    ema, every = EMA(network), max(1, how.steps // CHECKS)
    for step in range(every * CHECKS):
        rows = torch.randint(len(x), (how.batch_size,), generator=rng, device=x.device)
        for group in optimizer.param_groups:
            warm = min(1.0, (step + 1) / WARM_UP)
            group["lr"] = how.lr * warm * 0.5 * (1 + math.cos(math.pi * step / (every * CHECKS)))
        loss = (network(x[rows]) - y[rows]).square().sum(1).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        ema.update(network, step + 1)
        if (step + 1) % every == 0:
            yield ema.average


class _Network(nn.Module):
    """x [N, p] → y [N, q], 0 at the start."""

    def __init__(self, inputs: int, outputs: int, how: Reducing, fold: int) -> None:
        super().__init__()
        torch.manual_seed(how.seed * FOLDS + fold)
        self.first = nn.Linear(inputs, how.width)
        self.second = nn.Linear(how.width, how.width)
        self.out = nn.Linear(how.width, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.gelu(self.first(x))
        return self.out(h + nn.functional.gelu(self.second(h)))
