"""Two policies on the same episodes, one run of each: the difference of their rates, its interval and an exact p.

The interval is Tango's score interval (Statistics in Medicine 17, 1998, 891-908): of n pairs b succeed under the first
alone and c under the second alone; a difference θ is in it where

    |b − c − nθ| / √(n (2q̂ + θ (1 − θ))) ≤ z,

q̂ the maximum-likelihood estimate of the rate of "second alone" when the difference is θ. The p value is McNemar's exact
one. Both count every episode once; the states of a task may be few, their outcomes all equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .distributions import binomial_cdf, normal_quantile, t_quantile, t_tail

EXACT = "McNemar's exact test"
SUMS = 4_000_000  # different sums of differences, at most
HALVINGS = 60  # of the bracket of an end of the interval


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """First less second, as a fraction; ``p`` two-sided; ``only_first``, ``only_second``: episodes that one alone solves."""

    value: float
    low: float
    high: float
    p: float
    pairs: int
    only_first: int
    only_second: int
    method: str


def paired_difference(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> PairedDifference:
    """Of two policies' outcomes on the same n episodes, 0 or 1, or scores in 0 to 1.

    Raises ``ValueError`` for outcomes that are not paired, none at all, or outside 0 to 1.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise ValueError("the two must be paired, one outcome an episode")
    if not ((a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)).all():
        raise ValueError("outcomes must lie between 0 and 1")
    more, less, n = int((a > b).sum()), int((a < b).sum()), len(a)
    if np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all():
        low, high = tango(more, less, n, level)
        return PairedDifference(
            value=(more - less) / n,
            low=low,
            high=high,
            p=_exact(more, less),
            pairs=n,
            only_first=more,
            only_second=less,
            method=f"Tango's score interval, {EXACT}",
        )
    return _scores(a - b, more, less, level)


def further_pairs(first: ArrayLike, second: ArrayLike, power: float = 0.8) -> int | None:
    """How many more episodes find a difference as measured at 5 % with this chance (Connor, Biometrics 43, 1987).

    n = (z₀.₉₇₅ √ψ + z_power √(ψ − δ²))² / δ² in all, δ the difference and ψ the share of episodes with different
    outcomes; for scores, their mean square. None where there is no difference, or n is reached.
    """
    gap = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    delta, spread = float(gap.mean()), float((gap**2).mean())
    if delta == 0:
        return None
    ends = normal_quantile(0.975) * np.sqrt(spread) + normal_quantile(power) * np.sqrt(spread - delta**2)
    return max(int(np.ceil((ends / delta) ** 2)) - len(gap), 0) or None


def tango(only_first: int, only_second: int, pairs: int, level: float = 0.95) -> tuple[float, float]:
    """The ends of Tango's interval for (only_first − only_second) / pairs."""
    z = normal_quantile((1 + level) / 2)
    middle = (only_first - only_second) / pairs

    def end(outer: float) -> float:
        """Where |score| reaches z between the estimate and ±1."""
        inner = middle
        for _ in range(HALVINGS):
            trial = (inner + outer) / 2
            if abs(_score(only_first, only_second, pairs, trial)) <= z:
                inner = trial
            else:
                outer = trial
        return inner

    return end(-1.0), end(1.0)


def _score(b: int, c: int, n: int, theta: float) -> float:
    """Tango's statistic at a difference θ."""
    linear = -b - c + (2 * n - b + c) * theta
    constant = -c * theta * (1 - theta)
    q = (np.sqrt(max(linear * linear - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + theta * (1 - theta))
    above = b - c - n * theta
    if variance <= 1e-12:
        return 0.0 if abs(above) < 1e-9 else float(np.copysign(np.inf, above))
    return float(above / np.sqrt(variance))


def sign_flip_p(first: ArrayLike, second: ArrayLike, strata: ArrayLike) -> float | None:
    """Exact two-sided p of the mean over strata of the mean differences, where strata differ in their pairs.

    Under the null hypothesis each pair's difference could as well have the other sign (Fisher's sign-flip test; with one
    stratum, or strata of equal size, McNemar's exact test). The chances of all sums are convolved stratum by stratum; None where
    they are more than ``SUMS``. Outcomes are 0 or 1.
    """
    gap, at = np.asarray(first, np.float64) - np.asarray(second, np.float64), np.asarray(strata)
    seen: float = 0.0
    sums: np.ndarray = np.zeros(1)
    chances: np.ndarray = np.ones(1)
    for stratum in np.unique(at):
        own = gap[at == stratum]
        flipped, size = int((own != 0).sum()), len(own)
        seen += own.sum() / size
        steps = (2 * np.arange(flipped + 1) - flipped) / size
        weights = np.diff([0.0, *(float(binomial_cdf(k, flipped, 0.5)) for k in range(flipped + 1))])
        if len(sums) * len(steps) > SUMS:
            return None
        outer = np.round(np.add.outer(sums, steps).ravel(), 12)  # equal sums meet, up to rounding
        sums, place = np.unique(outer, return_inverse=True)
        chances = np.bincount(place, np.multiply.outer(chances, weights).ravel())
    return min(1.0, float(chances[np.abs(sums) >= abs(seen) - 1e-9].sum()))


def _exact(more: int, less: int) -> float:
    """Twice the smaller tail of a fair coin, at most 1."""
    if more + less == 0:
        return 1.0
    return min(1.0, 2 * float(binomial_cdf(min(more, less), more + less, 0.5)))


def _scores(difference: np.ndarray, more: int, less: int, level: float) -> PairedDifference:
    """Scores that are not 0 or 1: Student's t over episodes."""
    n, mean = len(difference), float(difference.mean())
    error = float(difference.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf
    half = t_quantile((1 + level) / 2, max(n - 1, 1)) * error if n > 1 else np.inf
    if error == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = 2 * t_tail(abs(mean) / error, max(n - 1, 1)) if n > 1 else 1.0
    return PairedDifference(
        value=mean,
        low=max(mean - half, -1.0),
        high=min(mean + half, 1.0),
        p=p,
        pairs=n,
        only_first=more,
        only_second=less,
        method="t over paired episodes (scores between 0 and 1)",
    )
