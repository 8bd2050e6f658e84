"""Task resolution σ*: how precisely a chunk must be executed (docs/theory.md).

The expert's chunk is disturbed and executed at every decision; σ* is the largest σ whose success is at least 0.95
of the undisturbed one, read from a curve that is fitted to success (``success_curve``). Where any falling curve of
exact values crosses a level is found with isotonic regression: the codebook law (gap_bits against used_bits) asks so.

Shapes: chunks [B, H, d] with n = H·d entries; success [S, states] for S sizes of noise. σ is in standard deviations
of the demonstrations' actions, one per action dimension (``Normaliser.std``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..demos import Normaliser
from ..errors import UserError
from . import success_curve

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
    _checked_grid(grid)
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
    rates: np.ndarray  # [S], as measured
    undisturbed: float
    draws: np.ndarray  # [draws], σ* of resampled initial states; none lies beyond the grid

    def as_json(self) -> dict[str, Any]:
        """All but the draws."""
        every = {k: v for k, v in vars(self).items() if k != "draws"}
        return {**every, "rates": self.rates.tolist()}


def task_resolution(
    sigmas: Sequence[float],
    success: np.ndarray,
    undisturbed: np.ndarray,
    strata: np.ndarray,
    *,
    share: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Resolution:
    """σ*: the σ at which success falls below ``share`` of the undisturbed one, from a curve (``success_curve``).

    ``success`` [S, states] at the increasing ``sigmas`` [S], and ``undisturbed`` [states]: 0 or 1, or the mean over
    an initial state's repeats. ``strata`` [states] names their tasks. A rate is the mean over tasks of a task's
    mean; σ* of one task is that of its states alone. The interval is that of resampled initial states within tasks,
    a state keeping its outcomes at every σ and undisturbed. A σ* beyond the grid counts as the grid's end, so an
    interval that touches an end is open there.

    Raises ``UserError`` if the undisturbed expert never succeeds, if ``share`` is not within (0, 1), and for a grid
    that is not positive and increasing.
    """
    grid = _checked_grid(sigmas)
    every = np.vstack([success, undisturbed]).astype(np.float64)
    if every.shape != (len(grid) + 1, len(strata)):
        raise ValueError(f"{every.shape} outcomes for {len(grid)} sigmas and {len(strata)} states")
    if not ((every >= 0) & (every <= 1)).all():  # NaN, too
        raise UserError(
            "an outcome is not within 0 and 1: give success as 0 or 1, and leave out unfinished runs"
        )
    if not 0 < share < 1:
        raise UserError(
            f"share is {share}: it is the part of the undisturbed success to keep, above 0 and below 1"
        )
    tasks, counts = np.unique(strata, return_counts=True)
    rates = np.mean([every[:, strata == task].mean(1) for task in tasks], axis=0)
    if not rates[-1] > 0:
        raise UserError(
            "the undisturbed expert never succeeds, so there is no resolution to measure; give sigma"
        )
    kept = success_curve.near(rates[:-1], rates[-1])
    x, states = np.log(grid[:kept]), len(tasks) ** 2 / float((1 / counts).sum())
    own = success_curve.fit(x, rates[None, :kept], rates[-1:], states)
    again = success_curve.resampled_rates(every, strata, draws, seed)
    steepness = np.random.default_rng([seed, draws]).standard_normal(draws)
    curves = success_curve.fit(x, again[:, :kept], again[:, -1], states, own[0], steepness)
    at, drawn = (np.exp(np.minimum(success_curve.falls_at(c, share), 50.0)) for c in (own, curves))
    bound: Bound = "below" if at[0] < grid[0] else "above" if at[0] > grid[-1] else ""
    drawn = np.clip(drawn, grid[0], grid[-1])
    low, high = np.percentile(drawn, [2.5, 97.5])
    value = float(np.clip(at[0], grid[0], grid[-1]))
    return Resolution(
        value, min(value, float(low)), max(value, float(high)), bound, rates[:-1], float(rates[-1]), drawn
    )


def at_resolution(values: np.ndarray, sigmas: Sequence[float], at: float | np.ndarray) -> np.ndarray:
    """Values [..., S] at the resolutions ``sigmas``, read at σ = ``at``: [...], or [..., D] for D of them.

    Linear in ln σ; beyond the first and the last kept resolution it is theirs.
    """
    where = np.interp(np.log(at), np.log(sigmas), np.arange(len(sigmas)))
    i = np.minimum(where.astype(int), len(sigmas) - 2)
    return np.asarray(values[..., i] + (where - i) * (values[..., i + 1] - values[..., i]))


def _checked_grid(x: Sequence[float] | np.ndarray) -> np.ndarray:
    grid = np.asarray(x, np.float64)
    if not (np.isfinite(grid).all() and len(grid) and grid[0] > 0 and (np.diff(grid) > 0).all()):
        raise UserError(
            f"the grid {grid.tolist()} must be positive and increasing: sort it, drop zeros and doubles"
        )
    return grid
