"""Where the variance of a mean over states and seeds comes from: states shared by all cells, seeds nested in cells.

A cell is an array ``[seeds, states]`` of outcomes: success in 0..1, or errors from 0 on. ``strata`` names the task of
each state; a cell's mean is the mean over tasks of the task means.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
# How much of the raw spread between seeds (the rest: the spread beyond the episodes' own noise) counts as
# uncertain when the degrees of freedom are computed. Chosen by simulation: see tests/study/test_statistics.py.
SEED_DF_SHARE = 0.85
# Two seeds of one rate say little of their spread: there this one (fraction, at a rate of a half; elsewhere it goes as
# sqrt(p (1 - p)), since rates near 0 and 1 cannot spread as far) weighs as so many degrees of freedom
PRIOR_SEED_SD, PRIOR_DF = 0.04, 0.5


@dataclass(frozen=True)
class Outcomes:
    """What is known of a kind of outcomes before any is seen."""

    low: float
    high: float
    disagreement: float  # of two states more, where all others agree: the least variance is theirs
    # of one seed's mean, a rate of a half; weighs in where two seeds of one cell say little. None: not known
    seed_sd: float | None


RATES = Outcomes(0.0, 1.0, 1.0, PRIOR_SEED_SD)
ERRORS = Outcomes(0.0, float("inf"), 0.0, None)


@dataclass(frozen=True)
class Components:
    """Where the variance of a contrast comes from; ``variance`` is that of the estimate.

    ``between`` is the raw share of the spread between seeds, ``residual`` the part of it that the episodes alone
    would make, ``states`` the share of the (paired) states, which holds the residual too. ``seed_variance`` is
    the variance of one seed's true rate around its cell's, pooled over the cells.
    """

    value: float
    between: float
    residual: float
    states: float
    seed_variance: float
    seed_df: int
    state_df: float
    variance: float
    df: float


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
    cells: Sequence[ArrayLike], weights: Sequence[float], strata: ArrayLike, outcomes: Outcomes = RATES
) -> Components:
    """The variance components of a contrast. With one seed in any cell only the states count."""
    arrays, tasks, a = checked_cells(cells, strata, outcomes)
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (len(arrays),) or not np.all(np.isfinite(w)) or not np.any(w):
        raise ValueError("one finite weight per cell, not all zero")
    count = np.array([len(array) for array in arrays])
    value = float(sum(wi * (array @ a).mean() for wi, array in zip(w, arrays, strict=True)))
    paired = np.sum([wi * array.mean(0) for wi, array in zip(w, arrays, strict=True)], axis=0)
    pseudo = outcomes.disagreement * float(np.sqrt((w**2 / count).sum() / 2.0))
    states, state_df = state_variance(paired, tasks, pseudo)
    if np.any(count[w != 0] < 2):
        return Components(value, 0.0, 0.0, states, float("nan"), 0, state_df, states, state_df)
    live = [(wi, array) for wi, array in zip(w, arrays, strict=True) if wi != 0]
    free = np.array([len(array) - 1 for _, array in live])
    raw = np.array([float((array @ a).var(ddof=1)) for _, array in live])
    noise = np.array([residual_variance(array, tasks) for _, array in live])
    share = np.array([wi**2 / len(array) for wi, array in live])
    seed_df = int(free.sum())
    raw_pooled = float((free * raw).sum()) / seed_df
    noise_pooled = float((free * noise).sum()) / seed_df
    between = float(share.sum()) * raw_pooled
    residual = float(share.sum()) * noise_pooled
    seen, seen_df = between, float(seed_df)
    if seed_df == 1 and outcomes.seed_sd is not None:  # one cell, moderated: Smyth 2004 (limma)
        cell = live[0][1]
        p = float(cell.sum() + 1.0) / (cell.size + 2)
        prior = float(share[0]) * 4 * p * (1 - p) * outcomes.seed_sd**2
        seen_df += PRIOR_DF
        seen = (between + PRIOR_DF * (residual + prior)) / seen_df
    beyond = max(seen - residual, 0.0)
    variance = beyond + states
    uncertain = SEED_DF_SHARE * seen + (1.0 - SEED_DF_SHARE) * beyond
    spread = uncertain**2 / seen_df + states**2 / state_df
    df = min(max(variance**2 / spread if spread > 0 else seen_df, seen_df), seen_df + state_df)
    seed_variance = max(raw_pooled - noise_pooled, 0.0)
    return Components(value, between, residual, states, seed_variance, seed_df, state_df, variance, df)
