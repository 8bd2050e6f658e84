"""Task resolution σ*: how precisely a chunk must be executed (THEORY.md, section 3).

The expert's chunk is disturbed and executed at every decision; σ* is the largest σ whose success is at least 0.95
of the undisturbed one. Where a falling curve crosses a level is found with isotonic regression; the codebook law
(gap_bits against used_bits) asks the same of another curve.

Shapes: chunks [B, H, d] with n = H·d entries; success [S, states] for S sizes of noise. σ is in standard deviations
of the demonstrations' actions, one per action dimension (``Normaliser.std``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..demos import Normaliser
from ..errors import UserError

Bound = Literal["", "below", "above"]
Disturbance = Callable[[np.ndarray, np.ndarray], np.ndarray]
KINDS = ("white", "offset", "code")


def disturbance(
    kind: str,
    sigma: float,
    normaliser: Normaliser,
    *,
    dimension: int | None = None,
    factor: np.ndarray | None = None,
) -> Disturbance:
    """A function (raw chunks [B, H, d], seeds int64 [B]) → raw chunks float32 [B, H, d], with noise on them.

    "white": N(0, σ²) in every entry, independently; "offset": one draw per action dimension, constant over the
    chunk; "code": Gaussian, with the covariance FFᵀ of a code's error in standardised units (``factor`` F [n, n],
    see ``error_factor``), rescaled so that the mean variance of an entry is σ². ``dimension`` disturbs that action
    dimension alone; a code's error is never cut up so. A row's noise comes from its own seed and is the same for
    every σ but for its size: the episodes of a grid of σ are paired.

    Raises ``UserError`` for an unknown kind or dimension, a σ below 0, and a code without error.
    """
    if kind not in KINDS:
        raise UserError(f"no disturbance '{kind}'; known: {', '.join(KINDS)}")
    if (kind == "code") != (factor is not None):
        raise ValueError(
            "noise shaped like a code's error needs the error's factor, and no other noise takes one"
        )
    if not (np.isfinite(sigma) and sigma >= 0):
        raise UserError(f"sigma is {sigma}: give the noise a size of at least 0 standard deviations")
    dims = len(normaliser.std)
    if dimension is not None and (kind == "code" or not 0 <= dimension < dims):
        raise UserError(
            f"action dimension {dimension} cannot be disturbed alone by '{kind}' noise: choose one of 0 to "
            f"{dims - 1}, and white or offset noise"
        )
    scale = sigma * np.asarray(normaliser.std, np.float64)
    if dimension is not None:
        scale = scale * (np.arange(dims) == dimension)
    shape = None if factor is None else _unit_variance(factor)

    def disturb(chunks: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        horizon, d = chunks.shape[1:]
        noise = np.empty(chunks.shape)
        for row, seed in enumerate(seeds):
            rng = np.random.default_rng([int(seed), KINDS.index(kind)])
            if kind == "offset":
                noise[row] = rng.standard_normal(d)
                continue
            white = rng.standard_normal(horizon * d)
            noise[row] = (white if shape is None else shape @ white).reshape(horizon, d)
        return (chunks + scale * noise).astype(np.float32)

    return disturb


def _unit_variance(factor: np.ndarray) -> np.ndarray:
    """F rescaled so that FFᵀ has a mean diagonal of 1."""
    mean_square = float((factor**2).sum() / len(factor))
    if not mean_square > 0:
        raise UserError("the code has no error on these chunks, so its noise has no shape: use white noise")
    return factor / np.sqrt(mean_square)


def error_factor(errors: np.ndarray) -> np.ndarray:
    """F [n, n] with FFᵀ = E[eeᵀ], for a code's errors e [N, H, d] in standardised units.

    The second moment is not centred: a code that is off in one direction throughout is disturbed so. Raises
    ``UserError`` if there are no errors or one is not a finite number.
    """
    if not len(errors) or not np.isfinite(errors).all():
        raise UserError("the code's errors are none or not finite numbers: fit the tokenizer again")
    flat = errors.reshape(len(errors), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    # Fewer errors than entries leave eigenvalues of 0, which rounding makes slightly negative.
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


@dataclass(frozen=True)
class Crossing:
    """Where a falling curve crosses a level. ``bound``: "below" if it lies at or before the first grid point,
    "above" if it was not reached at the last; ``value`` is then that end of the grid."""

    value: float
    bound: Bound


def crossing(x: Sequence[float] | np.ndarray, y: np.ndarray, level: float) -> Crossing:
    """The largest x at which the falling curve y is at or over ``level``, linear in ln x between grid points.

    x [K] is any increasing grid of positive numbers, y [K] the curve on it (σ and success; used bits and gap bits),
    in any unit that ``level`` shares. y is made to fall by isotonic regression, every point with the same weight.
    Raises ``UserError`` for another grid, and for a y that is not a finite number.
    """
    from scipy.optimize import isotonic_regression

    grid, values = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if grid.ndim != 1 or grid.shape != values.shape or not len(grid):
        raise ValueError(f"a curve of shape {values.shape} on a grid of shape {grid.shape}")
    if not (np.isfinite(grid).all() and grid[0] > 0 and (np.diff(grid) > 0).all()):
        raise UserError(
            f"the grid {grid.tolist()} must be positive and increasing: sort it, drop zeros and doubles"
        )
    if not (np.isfinite(values).all() and np.isfinite(level)):
        raise UserError(
            f"the curve {values.tolist()} and its level {level} must be finite: leave out the failed runs"
        )
    curve = isotonic_regression(values, increasing=False).x
    # A rate of exactly 0.95 may come out one rounding lower; on a plateau that would move the answer to its start.
    under = curve < level - 1e-9 * max(abs(level), float(np.abs(curve).max()))
    if under[0]:
        return Crossing(float(grid[0]), "below")
    if not under[-1]:
        return Crossing(float(grid[-1]), "above")
    after = int(np.argmax(under))
    before = after - 1
    part = max(0.0, (curve[before] - level) / (curve[before] - curve[after]))
    return Crossing(float(grid[before] * (grid[after] / grid[before]) ** part), "")


@dataclass(frozen=True)
class Resolution:
    """σ* in standard deviations with its 95 % interval, and the success rates (0 to 1) that it comes from."""

    value: float
    low: float
    high: float
    bound: Bound  # of ``value``, as in ``Crossing``
    rates: np.ndarray  # [S], as measured, before the isotonic regression
    undisturbed: float


def task_resolution(
    sigmas: Sequence[float],
    success: np.ndarray,
    undisturbed: np.ndarray,
    strata: np.ndarray,
    *,
    share: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> Resolution:
    """σ*: the largest σ whose success, by isotonic regression, is at least ``share`` of the undisturbed one.

    ``success`` [S, states] at the increasing ``sigmas`` [S], and ``undisturbed`` [states]: 0 or 1, or the mean over
    an initial state's repeats. ``strata`` [states] names their tasks. A rate is the mean over tasks of a task's
    mean; σ* of one task is that of its states alone. The interval is the percentile bootstrap over initial states
    within tasks, a state keeping its outcomes at every σ and undisturbed. A resample whose crossing lies beyond the
    grid counts as the grid's end, so an interval that touches an end is open there; one in which the undisturbed
    expert never succeeds is left out.

    Raises ``UserError`` if the undisturbed expert never succeeds, if ``share`` is not within (0, 1], and for a grid
    that ``crossing`` refuses.
    """
    every = np.vstack([success, undisturbed]).astype(np.float64)
    if every.shape != (len(sigmas) + 1, len(strata)):
        raise ValueError(f"{every.shape} outcomes for {len(sigmas)} sigmas and {len(strata)} states")
    if not ((every >= 0) & (every <= 1)).all():  # NaN, too
        raise UserError(
            "an outcome is not within 0 and 1: give success as 0 or 1, and leave out unfinished runs"
        )
    if not 0 < share <= 1:
        raise UserError(
            f"share is {share}: it is the part of the undisturbed success to keep, above 0, at most 1"
        )
    tasks, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    rates = np.mean([every[:, index == task].mean(1) for task in range(len(tasks))], axis=0)
    if not rates[-1] > 0:
        raise UserError(
            "the undisturbed expert never succeeds, so there is no resolution to measure; give sigma"
        )
    found = crossing(sigmas, rates[:-1], share * rates[-1])
    rng = np.random.default_rng(seed)
    times = np.empty((draws, len(index)))
    for task, count in enumerate(counts):
        times[:, index == task] = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    again = times / (len(tasks) * counts[index]) @ every.T
    drawn = [crossing(sigmas, row[:-1], share * row[-1]).value for row in again if row[-1] > 0]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Resolution(found.value, float(low), float(high), found.bound, rates[:-1], float(rates[-1]))
