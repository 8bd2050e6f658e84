"""Estimates in bits: a value, its interval, and what it would be with more data.

What is estimated are usable bits at N demonstrations. An interval holds the luck of held-out episodes and of the
estimator's seed, and reaches as far as the estimate would still move with more training episodes, and by as much as
was seen to be lost at the width of the features (``information/width.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..statistics.distributions import normal_quantile, t_quantile

DRAWS = 2000
EXPONENTS = (0.5, 2.0)  # of the number of training episodes, in which an error may fall
SETTLED = (0.2, 0.05)  # bits, or a share of the value, that may be missing of a converged estimate


@dataclass(frozen=True)
class Estimate:
    """Bits per action chunk. No clamp: a quantity that cannot be negative may be estimated so.

    ``ceiling``: the most that this estimator could say. ``by_share``: the estimate from one of k training
    episodes, by k. ``limit``: what these lead to with ever more episodes, if the error falls as episodes^−``exponent``.
    ``missing``: bits that the estimator lost, and gained, at this width of features, where it was tried on known
    information. ``probe``: the Gaussian probe's value. ``converged``: neither the way to the limit nor what is
    missing is more than ``SETTLED`` allows.
    """

    value: float
    low: float
    high: float
    chunks: int
    episodes: int
    ceiling: float | None
    by_share: dict[int, float]
    limit: float | None
    exponent: float | None
    missing: float
    probe: float | None
    converged: bool | None


def estimate(
    by_share: Mapping[int, np.ndarray],
    episode: np.ndarray,
    *,
    by_seed: np.ndarray | None = None,
    by_sigma: np.ndarray | None = None,
    missing: tuple[float, float] = (0.0, 0.0),
    ceiling: float | None = None,
    probe: np.ndarray | None = None,
) -> Estimate:
    """The mean of per-chunk values [N] with a 95 % interval; ``by_share``: of 1 / k of the training episodes.

    ``by_seed`` [K]: the mean by the estimator's seed. ``by_sigma`` [B]: the mean at each draw of a resolution that was
    itself measured. ``missing``: bits by which the value may be too low, and too
    high, since features are wide. Frames of an episode hang together, so episodes are drawn. The interval is widened
    to hold the limit.
    """
    values = by_share[1]
    low, high = drawn_interval(values, episode)
    value = float(values.mean())
    if by_seed is not None and len(by_seed) > 1:
        error = seed_error(by_seed)
        low, high = value - np.hypot(value - low, error), value + np.hypot(high - value, error)
    if by_sigma is not None:
        below, above = np.percentile(by_sigma, [2.5, 97.5]) - np.median(by_sigma)
        low, high = value - np.hypot(value - low, below), value + np.hypot(high - value, above)
    limit = exponent = converged = None
    if 2 in by_share:
        limit, exponent = extrapolated({k: float(v.mean()) for k, v in by_share.items()})
        slip = _spread(values - by_share[2], episode)
        allowed = max(SETTLED[0], SETTLED[1] * abs(value))
        converged = abs(limit - value) + slip <= allowed and sum(missing) <= allowed
        low, high = min(low, low + limit - value), max(high, high + limit - value)
    return Estimate(
        value,
        float(low - missing[1]),
        float(high + missing[0]),
        len(values),
        len(np.unique(episode)),
        ceiling,
        {k: float(v.mean()) for k, v in sorted(by_share.items(), reverse=True)},
        limit,
        exponent,
        missing[0] - missing[1],
        None if probe is None else float(probe.mean()),
        converged,
    )


def seed_error(by_seed: np.ndarray) -> float:
    """Half the 95 % interval of the mean over the estimator's seeds [K], by Student's t."""
    return float(t_quantile(0.975, len(by_seed) - 1) * np.std(by_seed, ddof=1) / np.sqrt(len(by_seed)))


def extrapolated(by_share: Mapping[int, float]) -> tuple[float, float]:
    """Where estimates of 1 / k of the episodes lead, and the exponent c of their error, episodes^−c.

    Of v(N) = v∞ + b·N^−c the changes d = v(N) − v(N/2) and v(N/2) − v(N/4) have the ratio 2^−c, and
    v∞ = v(N) + d / (2^c − 1). c is kept within ``EXPONENTS``, since a ratio of small changes says little; it is 1 where
    there are two values alone.
    """
    last = by_share[1] - by_share[2]
    exponent = 1.0
    if 4 in by_share:
        before = by_share[2] - by_share[4]
        ratio = before / last if last else np.inf
        exponent = float(np.clip(np.log2(ratio), *EXPONENTS)) if ratio > 0 else EXPONENTS[0]
    return by_share[1] + last / (2**exponent - 1), exponent


def _spread(values: np.ndarray, episode: np.ndarray) -> float:
    """The standard error of the mean over whole episodes."""
    return float(resampled(values, episode, 400).std())


def resampled(values: np.ndarray, episode: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Means of resamples of whole episodes: [draws] of values [N], or [draws, K] of values [N, K].

    Deviations are stretched by √(E / (E − 1)), since E resampled episodes show (E − 1) / E of their variance.
    """
    _, row = np.unique(episode, return_inverse=True)
    columns = values.reshape(len(values), -1)
    sums = np.stack([np.bincount(row, c) for c in columns.T], 1)
    counts = np.bincount(row)
    drawn = np.random.default_rng(seed).integers(len(counts), size=(draws, len(counts)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)[:, None]
    centre = columns.mean(0)
    stretched = centre + (means - centre) * np.sqrt(len(counts) / max(1, len(counts) - 1))
    return np.asarray(stretched.reshape(draws, *values.shape[1:]))


def drawn_interval(values: np.ndarray, episode: np.ndarray) -> tuple[float, float]:
    """A 95 % interval of the mean over resamples of episodes, as much wider as Student's t is for so few.

    Raises ``ValueError`` for fewer than two episodes: one says nothing of how they differ.
    """
    episodes = len(np.unique(episode))
    if episodes < 2:
        raise ValueError("an interval over episodes takes at least two of them")
    wider = t_quantile(0.975, episodes - 1) / normal_quantile(0.975)
    centre = float(values.mean())
    low, high = centre + wider * (np.percentile(resampled(values, episode), [2.5, 97.5]) - centre)
    return float(low), float(high)
