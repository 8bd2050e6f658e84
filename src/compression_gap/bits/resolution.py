"""Task resolution σ*: how precisely a chunk must be executed (THEORY.md, section 3).

The expert's chunk is disturbed and executed at every decision; σ* is the largest σ whose success is at least 0.95
of the undisturbed one. Where a falling curve crosses a level is found with isotonic regression; the codebook law
(gap_bits against used_bits) asks the same of another curve.
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
    """(raw chunks [B, H, d], seeds [B]) → disturbed raw chunks. σ in standard deviations of the demonstrations.

    "white": independent noise in every entry; "offset": constant over the chunk; "code": shaped like a code's
    error (``factor`` [n, n], see ``error_factor``), of mean variance σ² an entry. ``dimension``: that one alone.
    A row's noise comes from its seed, and is the same for every σ but for its size.
    """
    if kind not in KINDS:
        raise UserError(f"no disturbance '{kind}'; known: {', '.join(KINDS)}")
    if kind == "code" and factor is None:
        raise ValueError("noise shaped like a code's error needs the error's factor")
    size = 1.0 if factor is None else np.sqrt((factor**2).sum() / len(factor))

    def disturb(chunks: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        rows = []
        for seed in seeds:
            rng = np.random.default_rng([int(seed), KINDS.index(kind)])
            if kind == "offset":
                rows.append(np.broadcast_to(rng.standard_normal(chunks.shape[2]), chunks.shape[1:]))
            else:
                white = rng.standard_normal(chunks.shape[1] * chunks.shape[2])
                rows.append((white if factor is None else factor @ white / size).reshape(chunks.shape[1:]))
        noise = np.stack(rows) * sigma * normaliser.std
        if dimension is not None:
            noise = noise * (np.arange(chunks.shape[2]) == dimension)
        return (chunks + noise).astype(np.float32)

    return disturb


def error_factor(errors: np.ndarray) -> np.ndarray:
    """F [n, n] with FFᵀ the second moment of a code's errors [N, H, d]."""
    flat = errors.reshape(len(errors), -1).astype(np.float64)
    values, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


@dataclass(frozen=True)
class Crossing:
    """Where a falling curve crosses a level. ``bound``: "below" if it lies at or before the first grid point,
    "above" if it was not reached at the last; ``value`` is then that end of the grid."""

    value: float
    bound: Bound


def crossing(x: Sequence[float] | np.ndarray, y: np.ndarray, level: float) -> Crossing:
    """Where y [K], made to fall by isotonic regression, goes below ``level``; linear in ln x, x > 0 increasing."""
    from scipy.optimize import isotonic_regression

    grid = np.asarray(x, np.float64)
    curve = isotonic_regression(np.asarray(y, np.float64), increasing=False).x
    if curve[0] < level:
        return Crossing(float(grid[0]), "below")
    if curve[-1] >= level:
        return Crossing(float(grid[-1]), "above")
    after = int(np.argmax(curve < level))
    before = after - 1
    share = (curve[before] - level) / (curve[before] - curve[after])
    return Crossing(float(np.exp(np.log(grid[before]) + share * np.log(grid[after] / grid[before]))), "")


@dataclass(frozen=True)
class Resolution:
    """σ* in standard deviations with its 95 % interval, and the rates that it comes from."""

    value: float
    low: float
    high: float
    bound: Bound
    rates: np.ndarray  # [S]
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
    """σ* from success [S, states] at increasing σ and undisturbed [states]; ``strata`` [states]: their tasks.

    Rates are means over tasks. The interval resamples states within tasks, the same for every σ; a resample whose
    crossing lies beyond the grid counts as the grid's end. Raises ``UserError`` if the expert never succeeds.
    """
    tasks, index, counts = np.unique(strata, return_inverse=True, return_counts=True)
    every = np.vstack([success, undisturbed])
    weight = 1.0 / (len(tasks) * counts[index])
    rates = every @ weight
    if rates[-1] <= 0:
        raise UserError(
            "the undisturbed expert never succeeds, so there is no resolution to measure; give sigma"
        )
    found = crossing(sigmas, rates[:-1], share * rates[-1])
    rng = np.random.default_rng(seed)
    drawn = np.empty(draws)
    for i in range(draws):
        times = np.zeros(len(index))
        for task, count in enumerate(counts):
            times[index == task] = rng.multinomial(count, np.full(count, 1 / count))
        again = every @ (times * weight)
        drawn[i] = crossing(sigmas, again[:-1], share * again[-1]).value
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Resolution(found.value, float(low), float(high), found.bound, rates[:-1], float(rates[-1]))
