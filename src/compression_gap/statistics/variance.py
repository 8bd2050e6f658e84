"""Where the variance of a mean over states and seeds comes from: states shared by all cells, seeds nested in cells.

A cell is an array ``[seeds, states]`` of outcomes: success in 0..1, or errors from 0 on. ``strata`` names the task of
each state; a cell's mean is the mean over tasks of the task means.

Each cell has its own seed variance. Two or three seeds say little of it, so it has a prior: uniform in the logarithm
(Jeffreys' prior of a scale) from a small spread to a wide one, falling beyond. The error of a contrast is then a scale mixture of normals.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .distributions import chi2_density, chi2_quantile, chi2_upper_quantile, t_quantile, t_tail

Array = NDArray[np.float64]
SPREADS = 40  # nodes of the prior of one cell's seed spread
CHI_NODES = 41  # nodes of the states' variance, whose estimate is chi-squared distributed
BINS = 400  # of the sum of several variances
# Seeds spread less near 0 and 100 %: as (4 p (1 - p)) to this power, between the binomial's 0.5 and the logit's 1
SPREAD_POWER = 0.8


@dataclass(frozen=True)
class Outcomes:
    """What is known of a kind of outcomes before any is seen."""

    low: float
    high: float
    disagreement: float  # of two states more, where all others agree: the least variance is theirs
    # Of the standard deviation of one seed's mean (of a rate: at a rate of a half; of errors: as a share of the mean
    # error): the least, the one beyond which the prior falls as its fourth power, and the most
    seed_sd: tuple[float, float, float]


# The middle one chosen by simulation (coverage.py, docs/theory.md): a lower one covers too little where seeds spread
# widely. No rate can spread by more than a half.
RATES = Outcomes(0.0, 1.0, 1.0, (0.005, 0.3, 0.5))
ERRORS = Outcomes(0.0, float("inf"), 0.0, (0.005, 0.2, 1.0))


@dataclass(frozen=True)
class Mixture:
    """An error of mean 0 that is normal given its variance; the variance is one of ``variances`` [n]."""

    variances: Array
    weights: Array

    @property
    def variance(self) -> float:
        """The mean of the variances, which is the variance of the error."""
        return float(self.weights @ self.variances)

    @property
    def median(self) -> float:
        """The median of the variances."""
        order = np.argsort(self.variances)
        at = int(np.searchsorted(self.weights[order].cumsum(), 0.5))
        return float(self.variances[order[at]])

    def p(self, value: float) -> float:
        """The two-sided p of an estimate this far from 0."""
        from scipy.special import ndtr

        sd = np.sqrt(self.variances)
        with np.errstate(divide="ignore", invalid="ignore"):
            tail = np.where(sd > 0, ndtr(-abs(value) / sd), 0.5 * (value == 0))
        return min(float(2.0 * self.weights @ tail), 1.0)

    def half_width(self, level: float) -> float:
        """Half of the central interval that holds ``level`` of the error."""
        return float(half_widths(self.variances, self.weights[None], level)[0])

    def plus(self, other: "Mixture") -> "Mixture":
        """The sum of two independent errors; variances are binned in the logarithm, each bin's mean kept."""
        v = (self.variances[:, None] + other.variances).ravel()
        w = (self.weights[:, None] * other.weights).ravel()
        if len(v) <= BINS:
            return Mixture(v, w)
        logs = np.log(np.maximum(v, v.max() * 1e-12))
        step = (logs.max() - logs.min()) / BINS or 1.0
        index = np.minimum(((logs - logs.min()) / step).astype(int), BINS - 1)
        total = np.bincount(index, w, BINS)
        sums = np.bincount(index, w * v, BINS)
        there = total > 0
        return Mixture(sums[there] / total[there], np.asarray(total[there], dtype=np.float64))


def half_widths(variances: Array, weights: Array, level: float) -> Array:
    """The half width of each mixture's central interval: ``weights`` [mixtures, n] over the same or own variances."""
    from scipy.special import ndtr, ndtri

    sd = np.sqrt(np.broadcast_to(variances, weights.shape))
    z = float(ndtri((1 + level) / 2))
    most = z * sd.max(1)
    if not most.max() > 0:
        return np.asarray(most)
    sd = np.maximum(sd, most[:, None] * 1e-12)
    low, high = np.zeros_like(most), most
    for _ in range(40):
        middle = (low + high) / 2
        outside = 2.0 * (weights * ndtr(-middle[:, None] / sd)).sum(1)
        low, high = np.where(outside > 1 - level, middle, low), np.where(outside > 1 - level, high, middle)
    return np.asarray(high)


@lru_cache(maxsize=512)
def _chi_nodes(df: float) -> tuple[Array, Array]:
    """Nodes of df / chi-squared(df) and their weights: with them a mixture of normals is Student's t."""
    low, high = chi2_quantile(1e-10, df), chi2_upper_quantile(1e-10, df)
    x = np.geomspace(low, high, CHI_NODES)
    weights = chi2_density(x, df) * x
    return df / x, weights / weights.sum()


def student(variance: float, df: float) -> Mixture:
    """Student's t of this squared scale, as a mixture."""
    factors, weights = _chi_nodes(round(float(df), 3))
    return Mixture(variance * factors, weights)


def seed_scale(mean: float, episodes: float, outcomes: Outcomes) -> float:
    """What the prior's standard deviations are multiplied by in a cell of this mean over so many episodes."""
    if not np.isfinite(outcomes.high):
        return mean
    p = (mean * episodes + 0.5) / (episodes + 1)
    return float((4 * p * (1 - p)) ** SPREAD_POWER)


def seed_posterior(
    raw: ArrayLike, noise: ArrayLike, seeds: int, scale: float, outcomes: Outcomes = RATES
) -> tuple[Array, Array]:
    """The variance of one seed's true mean: its nodes [n], and their weights [..., n] for each ``raw``.

    ``raw`` is the variance seen between the means of ``seeds`` runs, ``noise`` the part of it that the episodes make:
    (seeds - 1) raw / (variance + noise) is chi-squared with seeds - 1 degrees of freedom.
    """
    least, wide, most = outcomes.seed_sd
    sd = np.geomspace(least, most, SPREADS)
    spread = (sd * scale) ** 2
    total = np.maximum(spread + np.asarray(noise, dtype=np.float64)[..., None], 1e-300)
    log = -np.log1p((sd / wide) ** 4)
    log[[0, -1]] -= np.log(2)  # trapezoids
    log = log - 0.5 * (seeds - 1) * (np.log(total) + np.asarray(raw, dtype=np.float64)[..., None] / total)
    weights = np.exp(log - log.max(-1, keepdims=True))
    return spread, weights / weights.sum(-1, keepdims=True)


@dataclass(frozen=True)
class SeedPart:
    """What one cell's seeds add: ``share`` (w^2 / seeds) of the variance of one seed's true mean."""

    share: float
    seeds: int
    raw: float  # variance seen between the runs' means
    noise: float  # the part of it that episodes alone make
    scale: float  # ``seed_scale``
    posterior: Mixture  # of one seed's true mean


@dataclass(frozen=True)
class Components:
    """Where the variance of a contrast comes from.

    ``parts`` are the cells of several seeds. ``between`` is the share of their raw spread, ``residual`` the part of
    it that the episodes alone would make, ``states`` the share of the (paired) states, which holds the residual too.
    ``error`` is the distribution of the estimate's error; ``unknown`` says that a cell has one seed, whose variance
    is in none of this.
    """

    value: float
    parts: tuple[SeedPart, ...]
    states: float
    state_df: float
    unknown: bool

    @property
    def between(self) -> float:
        """The share of the spread between seeds, as seen."""
        return sum(part.share * part.raw for part in self.parts)

    @property
    def residual(self) -> float:
        """The part of it that episodes alone would make."""
        return sum(part.share * part.noise for part in self.parts)

    @cached_property
    def error(self) -> Mixture:
        """The error of the estimate."""
        total = student(self.states, self.state_df)
        # in order of size, so that the sum does not hang on the order of the cells
        each = [Mixture(p.share * p.posterior.variances, p.posterior.weights) for p in self.parts]
        for one in sorted(each, key=lambda m: m.variance):
            total = total.plus(one)
        return total

    def test(self, value: float, level: float) -> tuple[float, float]:
        """The half width of an interval around ``value`` whose error this is, and its two-sided p."""
        if self.parts:
            error = self.error
            return error.half_width(level), error.p(value)
        sd = float(np.sqrt(self.states))
        p = float(2 * t_tail(abs(value) / sd, self.state_df)) if sd > 0 else float(value == 0)
        return t_quantile((1 + level) / 2, self.state_df) * sd, p


def checked_cells(
    cells: Sequence[ArrayLike], strata: ArrayLike, outcomes: Outcomes = RATES
) -> tuple[list[Array], NDArray[np.int64], Array]:
    """The checked cells, the task of each state as 0..T-1, and the weight of each state in a rate."""
    arrays = [np.asarray(cell, dtype=np.float64) for cell in cells]
    if not arrays:
        raise ValueError("no cells")
    tasks = np.asarray(strata)
    if tasks.ndim != 1 or not len(tasks):
        raise ValueError("strata must name the task of each state: one dimension, at least one state")
    for array in arrays:
        if array.ndim != 2 or not array.shape[0] or array.shape[1] != len(tasks):
            raise ValueError(f"a cell must be [seeds, {len(tasks)} states], not {array.shape}")
        if not np.all((array >= outcomes.low) & (array <= outcomes.high) & np.isfinite(array)):
            bounds = f"{outcomes.low:g}..{outcomes.high:g}"
            raise ValueError(f"outcomes must lie in {bounds}, with none missing")
    _, index, counts = np.unique(tasks, return_inverse=True, return_counts=True)
    index = index.reshape(-1).astype(np.int64)
    return arrays, index, 1.0 / (len(counts) * counts[index])


def task_means(values: Array, tasks: NDArray[np.int64]) -> Array:
    """The mean over each task's states (last axis)."""
    counts = np.bincount(tasks)
    onehot = np.zeros((len(tasks), len(counts)))
    onehot[np.arange(len(tasks)), tasks] = 1.0
    return np.asarray(values @ onehot / counts)


def state_variance(values: Array, tasks: NDArray[np.int64], pseudo: float = 0.0) -> tuple[float, float]:
    """The variance of the mean over tasks of ``values`` [states] and its degrees of freedom.

    Tasks with one state borrow the pooled variance; if all tasks have one, the spread over all states is used
    (too wide rather than too narrow). ``pseudo`` sets the least variance: that of two more states at plus and
    minus ``pseudo`` where all others agree.
    """
    counts = np.bincount(tasks)
    n, groups = len(values), len(counts)
    centred = values - task_means(values, tasks)[tasks]
    sums = np.bincount(tasks, weights=centred**2)
    if n > groups:
        pooled_df = float(n - groups)
        pooled = float(sums.sum()) / pooled_df
        several = counts > 1
        each = np.where(several, sums / np.maximum(counts - 1, 1), pooled)
        terms = each / counts / groups**2
        variance = float(terms.sum())
        spread = float((terms[several] ** 2 / (counts[several] - 1)).sum())
        # unequal task variances cost degrees of freedom, but never below the smallest task's own
        spread += float(terms[~several].sum()) ** 2 / pooled_df
        df = variance**2 / spread if spread > 0 else pooled_df
        df = min(max(df, 1.0), pooled_df)
    elif n > 1:
        variance, df = float(values.var(ddof=1)) / n, float(n - 1)
    else:
        variance, df = 0.0, 1.0
    weight = 1.0 / (groups**2 * counts.astype(np.float64))
    effective = 1.0 / float(weight.sum())
    least = 2.0 * pseudo**2 / ((effective + 1.0) * (effective + 2.0))
    return max(variance, least), df


def residual_variance(cell: Array, tasks: NDArray[np.int64]) -> float:
    """The part of one seed's rate variance that episodes alone make: seed x state within tasks."""
    seeds = cell.shape[0]
    counts = np.bincount(tasks)
    means = task_means(cell, tasks)
    rest = cell - cell.mean(0) - means[:, tasks] + means.mean(0)[tasks]
    sums = np.bincount(tasks, weights=(rest**2).sum(0))
    free = (seeds - 1) * (counts - 1)
    if not free.sum():
        return 0.0  # one state per task: seeds and episodes cannot be told apart, all counts as seeds
    pooled = float(sums.sum()) / float(free.sum())
    each = np.where(free > 0, sums / np.maximum(free, 1), pooled)
    return float((each / counts).sum()) / len(counts) ** 2


def components(
    cells: Sequence[ArrayLike],
    weights: Sequence[float],
    strata: ArrayLike,
    outcomes: Outcomes = RATES,
    references: Collection[int] = (),
) -> Components:
    """The variance components of a contrast.

    ``references`` are the indices of cells that are the one run of a deterministic actor (an expert): no seed is
    drawn there, so none of their variance is unknown. Another cell with one seed adds nothing either, but its
    variance is unknown; the cells of several seeds count in any case.
    """
    arrays, tasks, a = checked_cells(cells, strata, outcomes)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (len(arrays),) or not np.all(np.isfinite(w)) or not np.any(w):
        raise ValueError("one finite weight per cell, not all zero")
    if any(len(arrays[i]) > 1 for i in references):
        raise ValueError("a deterministic reference has one run")
    count = np.array([len(array) for array in arrays])
    value = float(sum(wi * (array @ a).mean() for wi, array in zip(w, arrays, strict=True)))
    paired = np.sum([wi * array.mean(0) for wi, array in zip(w, arrays, strict=True)], axis=0)
    pseudo = outcomes.disagreement * float(np.sqrt((w**2 / count).sum() / 2.0))
    states, state_df = state_variance(paired, tasks, pseudo)
    parts = []
    for wi, array in zip(w, arrays, strict=True):
        if wi != 0 and len(array) > 1:
            means = array @ a
            raw, noise = float(means.var(ddof=1)), residual_variance(array, tasks)
            scale = seed_scale(float(means.mean()), array.size, outcomes)
            # seeds that agree on every state: their noise is not 0 either
            least = (outcomes.disagreement / (array.size + 2)) ** 2
            noise = max(noise, least)
            posterior = Mixture(*seed_posterior(raw, noise, len(array), scale, outcomes))
            parts.append(SeedPart(float(wi**2) / len(array), len(array), raw, noise, scale, posterior))
    alone = {i for i in range(len(arrays)) if w[i] != 0 and count[i] == 1}
    return Components(value, tuple(parts), states, state_df, bool(alone - set(references)))
