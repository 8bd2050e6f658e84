"""The channel's truths (docs/theory.md): what a partition of goals tells of the expert's first chunk, exactly.

At t = 0 the expert's chunk is affine in the goal, A = (g·c_t − mean) / std with the template c_t, so that A_σ has the
sufficient statistic g + N(0, ν²) in each dimension, ν = σ·std / |c|. A partition of the goal square (a quantised
goal, the tokens of any tokenizer, or both) is given by integer labels on a grid of goals; entropies are integrals
over that grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import convolve1d
from scipy.special import ndtr

from ..errors import UserError
from ..sims.channel import EPSILON, STEP, STEPS, min_jerk

GRID = 256  # goals a side
REACH = 6.0  # standard deviations of noise kept around a cell
FINE = 1.0  # points a standard deviation of noise, at least: the midpoint rule then errs by exp(−2π²)
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
        """I(L; A_σ) of a partition: labels [GRID²] in the order of ``goals``. Labels all different: the demand.

        Raises ``UserError`` for another number of labels.
        """
        labels = _numbered(labels)
        whole = sum(self._across(GRID))
        fine = float(0.5 * np.log2(2 * np.pi * np.e * self.noise**2).sum())
        if labels.max() + 1 == GRID**2:
            return whole - fine
        square = labels.reshape(GRID, GRID)
        order = np.argsort(labels, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        sides: dict[int, tuple[float, float]] = {}
        inside = 0.0
        for cell in groups:
            rows, columns = np.divmod(cell, GRID)
            box = square[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == labels[cell[0]]
            if box.all():  # a rectangle: its dimensions are independent
                for side in box.shape:
                    if side not in sides:
                        sides[side] = self._across(side)
                entropy = sides[box.shape[0]][0] + sides[box.shape[1]][1]
            else:
                entropy = self._entropy(box)
            inside += len(cell) / GRID**2 * entropy
        return whole - inside

    def _across(self, squares: int) -> tuple[float, float]:
        """h(g_k + noise) of g_k uniform over so many squares in a row, for each dimension k, in bits."""
        return self._line(squares, 0), self._line(squares, 1)

    def _line(self, squares: int, k: int) -> float:
        return _differential(*_blurred(np.ones(squares), float(self.noise[k]) * GRID / 2, 0))

    def _entropy(self, cell: np.ndarray) -> float:
        """h(g + noise) of g uniform on the grid squares of a cell, in bits."""
        density, area = cell.astype(np.float64), 1.0
        for axis, noise in enumerate(self.noise):
            density, step = _blurred(density, float(noise) * GRID / 2, axis)
            area *= step
        return _differential(density, area)

    def supply_bits(self, bits: int) -> float:
        """I(Z; A_σ) of goals quantised to ``bits`` bits a dimension: of any ``bits``, beyond the grid's as well."""
        return sum(_uniform(2.0, noise) - _uniform(2.0 / 2**bits, noise) for noise in map(float, self.noise))

    def gap(self, seen: np.ndarray, tokens: np.ndarray) -> float:
        """I(Z; A_σ | T) of two partitions."""
        return self.information(both(seen, tokens)) - self.information(tokens)


def _blurred(density: np.ndarray, spread: float, axis: int) -> tuple[np.ndarray, float]:
    """The density, at points, of mass that is even over squares plus N(0, spread²), and the points' step.

    In squares. Points, not means over squares: the entropy of a histogram is above that of its density.
    """
    parts = int(np.ceil(FINE / spread))
    density = np.repeat(density, parts, axis)
    spread *= parts
    reach = int(np.ceil(REACH * spread)) + 1
    density = np.pad(density, [(reach, reach) if k == axis else (0, 0) for k in range(density.ndim)])
    at = np.arange(-reach, reach + 1)
    kernel = ndtr((at + 0.5) / spread) - ndtr((at - 0.5) / spread)
    return np.asarray(convolve1d(density, kernel, axis=axis, mode="constant")), 1 / parts


def _differential(density: np.ndarray, area: float) -> float:
    """−∫ p log2 p, in the goal's units, of a density at points that stand for ``area`` squares each."""
    p = density[density > 0]
    p = p / p.sum()
    return float(-(p * np.log2(p)).sum() + np.log2(area) + density.ndim * np.log2(2 / GRID))


def _uniform(width: float, noise: float) -> float:
    """h of a uniform variable plus N(0, noise²), in bits, by the trapezoid rule on its closed density."""
    x = np.linspace(-9 * noise, width + 9 * noise, int(20 * (width / noise + 18)))
    p = (ndtr(x / noise) - ndtr((x - width) / noise)) / width
    return float(-np.trapezoid(p * np.log2(np.maximum(p, 1e-300)), x))


def _numbered(labels: np.ndarray) -> np.ndarray:
    """Labels as 0, 1, 2, …; ``UserError`` if they are not those of the grid."""
    labels = np.asarray(labels)
    if labels.size != GRID**2:
        raise UserError(
            f"a partition of the channel's goals has {labels.size} labels, but its grid has {GRID**2} goals; "
            "label channel_truth.goals() in its order"
        )
    return np.asarray(np.unique(labels, return_inverse=True)[1]).reshape(-1)


def mutual_information(one: np.ndarray, other: np.ndarray) -> float:
    """I(Z; T) of two partitions of the goals, in bits."""

    def entropy(labels: np.ndarray) -> float:
        share = np.bincount(_numbered(labels)) / GRID**2
        return float(-(share * np.log2(share)).sum())

    return entropy(one) + entropy(other) - entropy(both(one, other))


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


def success_median(
    seen: np.ndarray, executed: np.ndarray | None = None, *, epsilon: float = EPSILON
) -> float:
    """Success of a policy that goes to the middle (mean) of the goals that look alike.

    ``executed`` [GRID², 2]: the middle is sent through it, from the grid's goal that is nearest; None: as it is.
    """
    where, seen = goals(), _numbered(seen)
    share = np.bincount(seen)[:, None]
    middle = np.stack([np.bincount(seen, where[:, k]) for k in range(2)], 1) / share
    if executed is not None:
        row, column = np.clip(np.floor((middle.T + 1) * GRID / 2), 0, GRID - 1).astype(np.int64)
        middle = executed[row * GRID + column]
    within = np.clip((epsilon - np.abs(middle[seen] - where)) * GRID / 2 + 0.5, 0, 1)
    return float(within.prod(1).mean())
