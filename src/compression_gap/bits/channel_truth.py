"""The channel's truths (THEORY.md, section 8): what a partition of goals tells of the expert's first chunk, exactly.

At t = 0 the expert's chunk is affine in the goal, A = (g·c_t − mean) / std with the template c_t, so that A_σ has the
sufficient statistic g + N(0, ν²) in each dimension, ν = σ·std / |c|. A partition of the goal square (a quantised
goal, the tokens of any tokenizer, or both) is given by integer labels on a grid of goals; entropies are integrals
over that grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..sims.channel import EPSILON, STEP, STEPS, min_jerk

GRID = 256  # goals a side
REACH = 5.0  # standard deviations of noise kept around a cell
TWINS = 24  # draws of a second goal for each one


def goals(grid: int = GRID) -> np.ndarray:
    """Goals at the middles of grid × grid equal squares: float64 [grid², 2]."""
    middle = (np.arange(grid) + 0.5) * 2 / grid - 1
    return np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)


def template() -> np.ndarray:
    """c_t [STEPS]: the actions of the path to a goal of 1."""
    return np.diff(min_jerk(np.arange(STEPS + 1) / STEPS)) / STEP


def chunks(where: np.ndarray) -> np.ndarray:
    """The expert's raw chunks from the start, float32 [N, STEPS, 2], for goals [N, 2]."""
    return (where[:, None] * template()[:, None]).astype(np.float32)


def end_points(raw: np.ndarray) -> np.ndarray:
    """Where raw chunks [N, H, 2] end: [N, 2]."""
    return STEP * np.clip(raw.astype(np.float64), -1, 1).sum(1)


@dataclass(frozen=True)
class ChannelTruth:
    """Information at σ in standardised units. ``std`` [2]: of the raw actions, as the normaliser has it."""

    std: np.ndarray
    sigma: float

    @property
    def noise(self) -> np.ndarray:
        """ν [2]: the noise on the goal that A_σ amounts to."""
        return np.asarray(self.sigma * self.std / np.linalg.norm(template()))

    def demand(self) -> float:
        """I(A; A_σ)."""
        return self.information(np.arange(GRID**2))

    def information(self, labels: np.ndarray) -> float:
        """I(L; A_σ) of a partition: labels [GRID²] in the order of ``goals``. Labels all different: the demand."""
        labels = np.unique(labels, return_inverse=True)[1]
        whole = self._entropy(np.ones((GRID, GRID), bool))
        fine = float(0.5 * np.log2(2 * np.pi * np.e * self.noise**2).sum())
        if labels.max() + 1 == GRID**2:
            return whole - fine
        square = labels.reshape(GRID, GRID)
        order = np.argsort(labels, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        inside = 0.0
        for cell in groups:
            rows, columns = np.divmod(cell, GRID)
            box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            inside += len(cell) / GRID**2 * self._entropy(square[box] == labels[cell[0]])
        return whole - inside

    def _entropy(self, cell: np.ndarray) -> float:
        """h(g + noise) of g uniform on the grid squares of a cell, in bits."""
        step = 2 / GRID
        spread = self.noise / step
        pad = [int(np.ceil(REACH * s)) + 1 for s in spread]
        density = np.pad(cell.astype(np.float64), [(p, p) for p in pad])
        # Noise beyond one square's own width: the square itself is uniform, and is kept so by averaging.
        for axis, s in enumerate(spread):
            density = _blurred(density, float(s), axis)
        p = density / density.sum()
        p = p[p > 0]
        return float(-(p * np.log2(p)).sum() + 2 * np.log2(step))

    def gap(self, seen: np.ndarray, tokens: np.ndarray) -> float:
        """I(Z; A_σ | T) of two partitions."""
        return self.information(both(seen, tokens)) - self.information(tokens)


def _blurred(density: np.ndarray, spread: float, axis: int) -> np.ndarray:
    """Blur by the mass that N(0, spread²) puts on whole squares, from a point uniform within its own."""
    from scipy.stats import norm

    reach = int(np.ceil(REACH * spread)) + 1
    at = np.arange(-reach, reach + 1)
    kernel = np.zeros(len(at))
    for inside in (np.arange(16) + 0.5) / 16 - 0.5:
        kernel += norm.cdf((at + 0.5 - inside) / spread) - norm.cdf((at - 0.5 - inside) / spread)
    return np.asarray(
        np.apply_along_axis(lambda row: np.convolve(row, kernel / kernel.sum(), "same"), axis, density)
    )


def both(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The partition by two partitions."""
    one, other = (np.unique(x, return_inverse=True)[1].astype(np.int64) for x in (one, other))
    return one * (other.max() + 1) + other


def cells(bits: int, where: np.ndarray) -> np.ndarray:
    """Labels of goals [N, 2] quantised to ``bits`` bits a dimension."""
    levels = 2**bits
    index = np.clip(np.floor((where + 1) * levels / 2), 0, levels - 1).astype(np.int64)
    return np.asarray(index[:, 0] * levels + index[:, 1])


def success_sampling(seen: np.ndarray, executed: np.ndarray, *, epsilon: float = EPSILON) -> float:
    """Success of a policy that draws a goal from those that look alike, and goes to where that one leads.

    ``seen`` [GRID²]: what the policy can tell apart; ``executed`` [GRID², 2]: the end point that a drawn goal's
    chunk leads to (through a code, or the goal itself). By ``TWINS`` draws for each goal of the grid.
    """
    where, rng = goals(), np.random.default_rng(0)
    seen = np.unique(seen, return_inverse=True)[1]
    order = np.argsort(seen, kind="stable")
    hits = 0.0
    for _ in range(TWINS):
        twin = np.empty(len(seen), np.int64)
        twin[order] = np.lexsort((rng.random(len(seen)), seen))
        # A goal is anywhere within its square: the share of it that lies within ε.
        within = np.clip((epsilon - np.abs(executed[twin] - where)) * GRID / 2 + 0.5, 0, 1)
        hits += float(within.prod(1).mean())
    return hits / TWINS
