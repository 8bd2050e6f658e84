"""Intervals and tests for success rates: states shared by all cells, seeds nested in cells, tasks fixed.

A cell is an array ``[seeds, states]`` of outcomes in 0..1; ``strata`` names the task of each state. The rate
of a cell is the mean over tasks of the task means. A contrast is a weighted sum of cell rates, e.g. ``(1, -1)``
for the gain of an encoder and ``(1, -1, -1, 1)`` for an interaction.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .distributions import binomial_cdf, midranks, normal_quantile
from .variance import RATES, Outcomes, checked_cells, components, task_means

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Interval:
    """A rate and its interval, as fractions."""

    value: float
    low: float
    high: float
    method: str

    def points(self) -> "Interval":
        """The same in points (percent of episodes)."""
        return Interval(100 * self.value, 100 * self.low, 100 * self.high, self.method)


@dataclass(frozen=True)
class Contrast:
    """A difference of rates (fractions; log odds where ``method`` says so), its interval and its p value."""

    value: float
    low: float
    high: float
    p: float
    method: str
    seeds: int
    states: int
    seed_variance_unknown: bool


@dataclass(frozen=True)
class Trend:
    """Page's L, the one-sided p of an increasing trend, and how it was found.

    ``at_floor``: no permutation reached L, so that the true p is ``p`` or less.
    """

    statistic: float
    p: float
    at_floor: bool
    method: str
    blocks: int
    seed_variance_unknown: bool


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError("level must lie between 0 and 1")


def _wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Wilson's interval of a rate p from n (effective) trials."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n)))
    # at 0 and 1 the exact end is the rate itself; rounding must not move it
    low = 0.0 if p <= 0 else max(centre - half, 0.0)
    high = 1.0 if p >= 1 else min(centre + half, 1.0)
    return low, high


def wilson(k: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval of k successes in n trials."""
    _check_level(level)
    if not n > 0 or not 0 <= k <= n:
        raise ValueError("needs 0 <= k <= n and n > 0")
    low, high = _wilson(k / n, n, normal_quantile((1 + level) / 2))
    return Interval(k / n, low, high, "Wilson")


def rate_interval(cell: ArrayLike, strata: ArrayLike, level: float = 0.95) -> Interval:
    """The interval of one rate: Wilson's; with two or more seeds the seed variance is in it."""
    _check_level(level)
    (array,), _, a = checked_cells([cell], strata)
    value = min(max(float((array @ a).mean()), 0.0), 1.0)
    episodes = 1.0 / float((a**2).sum())  # the number of states when tasks have equally many
    z = normal_quantile((1 + level) / 2)
    if len(array) == 1:
        low, high = _wilson(value, episodes, z)
        return Interval(value, low, high, "Wilson (one seed: seed variance unknown)")
    if value * (1 - value) < 1e-12:
        effective = episodes
    else:  # so many that a normal interval is as wide as the error's
        half = components([array], [1.0], strata).error.half_width(level)
        effective = min(max(value * (1 - value) / (half / z) ** 2, 1e-3), episodes * len(array))
    low, high = _wilson(value, effective, z)
    return Interval(value, low, high, "Wilson with effective episodes (seed variance included)")


def _counts(rng: np.random.Generator, draws: int, size: int) -> Array:
    """How often each of ``size`` items falls into each resample."""
    return rng.multinomial(size, np.full(size, 1.0 / size), size=draws).astype(np.float64)


def _state_weights(rng: np.random.Generator, draws: int, tasks: NDArray[np.int64]) -> Array:
    """Weights of states in resamples within tasks [draws, states]; each task's sum to 1/T."""
    counts = np.bincount(tasks)
    out = np.empty((draws, len(tasks)))
    for task, n in enumerate(counts):
        out[:, tasks == task] = _counts(rng, draws, int(n)) / (n * len(counts))
    return out


def possible(weights: Sequence[float], outcomes: Outcomes = RATES) -> tuple[float, float]:
    """The least and the most that a weighted sum of cell means can be."""
    least = sum((float(x) * (outcomes.high if x < 0 else outcomes.low) for x in weights if x), 0.0)
    most = sum((float(x) * (outcomes.low if x < 0 else outcomes.high) for x in weights if x), 0.0)
    return least, most


def contrast(
    cells: Sequence[ArrayLike],
    weights: Sequence[float],
    strata: ArrayLike,
    level: float = 0.95,
    outcomes: Outcomes = RATES,
    references: Collection[int] = (),
) -> Contrast:
    """A weighted sum of cell rates (or mean errors: ``outcomes``) with its interval and two-sided p.

    Each cell's seeds count with their own variance, weighed against its prior (``variance.components``); states are
    paired. A cell with one seed adds no seed variance: unknown, unless it is one of ``references`` (indices of cells
    that are the one run of a deterministic actor). With one seed in every cell it is the t interval over states.
    docs/calibration.md has the coverage.
    """
    _check_level(level)
    arrays, tasks, _ = checked_cells(cells, strata, outcomes)
    w = np.asarray(weights, dtype=np.float64)
    parts = components(arrays, weights, strata, outcomes, references)
    least, most = possible(weights, outcomes)
    half, p = parts.test(parts.value, level)
    method = (
        "seed variance of each cell with its prior, paired states" if parts.parts else "t over paired states"
    )
    if parts.unknown:
        method += " (seed variance unknown)"
    seeds = min(
        (len(array) for i, array in enumerate(arrays) if w[i] != 0 and i not in references), default=1
    )
    low, high = max(parts.value - half, least), min(parts.value + half, most)
    low, high = min(low, parts.value), max(high, parts.value)
    return Contrast(parts.value, low, high, p, method, seeds, len(tasks), parts.unknown)


def interaction_log_odds(
    cells: Sequence[Sequence[ArrayLike]], strata: ArrayLike, level: float = 0.95
) -> Contrast:
    """The interaction of a 2 x 2 table on the log-odds scale: that of the saturated binomial GLM, in closed form.

    ``cells[i][j]`` is a cell; the value is ``(a00 - a01) - (a10 - a11)`` in log odds. The error is that of
    ``contrast``, each cell weighted by the slope of its log odds (delta method), so that a cell's seed variance
    counts with its own slope. If any cell is at 0 or 100 %, half a success and half a failure are added to each
    cell, ``method`` says so, and the error is at least the binomial's, since such a cell shows no variance of its own.
    """
    from scipy.special import logit

    _check_level(level)
    if len(cells) != 2 or any(len(row) != 2 for row in cells):
        raise ValueError("needs a 2 x 2 table of cells")
    arrays, _, a = checked_cells([cell for row in cells for cell in row], strata)
    means = np.array([float((array @ a).mean()) for array in arrays])
    trials = np.array([len(array) for array in arrays]) / float((a**2).sum())
    extreme = any(not 0 < float(array.mean()) < 1 for array in arrays)
    added = 0.5 if extreme else 0.0
    fitted = (means * trials + added) / (trials + 2 * added)
    signs, slope = np.array([1.0, -1.0, -1.0, 1.0]), 1 / (fitted * (1 - fitted))
    value, binomial = float(signs @ logit(fitted)), float((slope / (trials + 2 * added)).sum())
    parts = components(arrays, [float(w) for w in signs * slope], strata)
    if extreme:
        parts = replace(parts, states=max(parts.states, binomial))
    seeds = min(len(array) for array in arrays)
    method = "log odds of the saturated binomial GLM, delta method over "
    method += "seeds and paired states" if seeds >= 2 else "paired states, seed variance unknown"
    if extreme:
        method += ", half a success and half a failure added to each cell"
    half, p = parts.test(value, level)
    return Contrast(value, value - half, value + half, p, method, seeds, arrays[0].shape[1], seeds == 1)


BATCH = 500  # permutations that are ranked at once


def page_trend(levels: Sequence[ArrayLike], strata: ArrayLike, draws: int = 9999, seed: int = 0) -> Trend:
    """Page's L for rates that rise over ordered cells; blocks are seed x task.

    With several seeds whole training runs are permuted, so that a good seed counts once and not once per task;
    with one seed the order is permuted within each task and the seed variance is unknown.
    """
    arrays, tasks, _ = checked_cells(levels, strata)
    seeds = len(arrays[0])
    if len(arrays) < 3 or any(len(array) != seeds for array in arrays):
        raise ValueError("needs at least three levels with equally many seeds")
    rates = np.stack([task_means(array, tasks) for array in arrays])  # [levels, seeds, tasks]
    rates = np.round(rates, 12)  # equal rates must tie exactly, whatever the order of their sums
    order = np.arange(1, len(arrays) + 1, dtype=np.float64)
    statistic = float(np.einsum("k,kst->", order, midranks(rates, 0)))
    rng = np.random.default_rng(seed)
    hits = 0
    if seeds > 1:
        runs = rates.reshape(-1, rates.shape[2])
        for begun in range(0, draws, BATCH):
            orders = [rng.permutation(len(runs)) for _ in range(min(BATCH, draws - begun))]
            mixed = midranks(runs[np.stack(orders)].reshape(-1, *rates.shape), 1)
            hits += int((np.einsum("k,dkst->d", order, mixed) >= statistic - 1e-9).sum())
        method = "Page's L, whole training runs permuted"
    else:
        ranks = np.broadcast_to(midranks(rates, 0).reshape(len(arrays), -1), (draws, *rates.shape[::2]))
        mixed = rng.permuted(ranks, axis=1)
        hits = int((np.einsum("k,dkt->d", order, mixed) >= statistic - 1e-9).sum())
        method = "Page's L, levels permuted within tasks (seed variance unknown)"
    return Trend(statistic, (hits + 1) / (draws + 1), not hits, method, seeds * rates.shape[2], seeds == 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given."""
    p = np.asarray(ps, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError("p values must lie in 0..1")
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)), 1.0)
    out = np.empty(len(p))
    out[order] = adjusted
    return [float(x) for x in out]


def peak_optimism(n: int, evaluations: int, rate: float) -> float:
    """How far the best of several binomial evaluations of n episodes lies above the true rate, on average."""
    if n < 1 or evaluations < 1 or not 0 <= rate <= 1:
        raise ValueError("needs n >= 1, evaluations >= 1 and a rate in 0..1")
    below = binomial_cdf(np.arange(n), n, rate)
    return float((1.0 - below**evaluations).sum()) / n - rate


def resample_rates(
    cells: Sequence[ArrayLike], strata: ArrayLike, draws: int, rng: np.random.Generator
) -> Array:
    """Joint resamples of the cell rates [draws, cells], honest for few seeds.

    States are resampled within tasks, the same for all cells; each cell with two or more seeds also gets a
    seed error whose variance is itself drawn from its posterior (``variance.seed_posterior``). Cells with one seed
    carry no seed error: its size is unknown.
    """
    arrays, tasks, a = checked_cells(cells, strata)
    means = np.stack([array.mean(0) for array in arrays])  # [cells, states]
    counts = np.bincount(tasks)
    # resampling n states shows (n - 1)/n of their variance
    grow = np.sqrt(counts / np.maximum(counts - 1, 1))
    weights = _state_weights(rng, draws, tasks)
    weights = a + (weights - a) * grow[tasks]
    rates = weights @ means.T
    for i, part in zip(
        [i for i, array in enumerate(arrays) if len(array) > 1],
        (components([array], [1.0], strata).parts[0] for array in arrays if len(array) > 1),
        strict=True,
    ):
        variances = rng.choice(part.posterior.variances, draws, p=part.posterior.weights)
        rates[:, i] += rng.standard_normal(draws) * np.sqrt(part.share * variances)
    return np.asarray(rates)
