"""Estimates in bits: a value, its interval over held-out episodes, and what it would be with more data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

DRAWS = 2000


@dataclass(frozen=True)
class Estimate:
    """Bits per action chunk. No clamp: a quantity that cannot be negative may be estimated so.

    ``ceiling``: the most that this estimator could say. ``by_share``: the estimate from one of k training
    episodes, by k. ``probe``: the Gaussian probe's value. ``converged``: doubling the training episodes moved it
    by no more than the interval over held-out episodes is wide to either side.
    """

    value: float
    low: float
    high: float
    chunks: int
    episodes: int
    ceiling: float | None
    by_share: dict[int, float]
    probe: float | None
    converged: bool | None


def estimate(
    by_share: Mapping[int, np.ndarray],
    episode: np.ndarray,
    *,
    ceiling: float | None = None,
    probe: np.ndarray | None = None,
) -> Estimate:
    """The mean of per-chunk values [N] with a 95 % interval; ``by_share``: of 1 / k of the training episodes.

    Frames of an episode hang together, so episodes are drawn. An estimate from a network is off by more than
    that: it learns with data. What the last doubling changed, once more, is what is left to learn if the error
    falls as 1 / episodes, so the interval is widened on that side to hold the extrapolated value's as well.
    """
    values = by_share[1]
    low, high = drawn_interval(values, episode)
    value, converged = float(values.mean()), None
    if 2 in by_share:
        further = value - float(by_share[2].mean())
        converged = abs(further) <= max((high - low) / 2, 1e-12)
        low, high = min(low, low + further), max(high, high + further)
    return Estimate(
        value,
        low,
        high,
        len(values),
        len(np.unique(episode)),
        ceiling,
        {k: float(v.mean()) for k, v in sorted(by_share.items(), reverse=True)},
        None if probe is None else float(probe.mean()),
        converged,
    )


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
    from scipy.stats import norm, t

    episodes = len(np.unique(episode))
    if episodes < 2:
        raise ValueError("an interval over episodes takes at least two of them")
    wider = float(t.ppf(0.975, episodes - 1) / norm.ppf(0.975))
    centre = float(values.mean())
    low, high = centre + wider * (np.percentile(resampled(values, episode), [2.5, 97.5]) - centre)
    return float(low), float(high)
