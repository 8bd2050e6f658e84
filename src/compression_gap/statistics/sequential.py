"""Several looks at a study while it grows, paid for from one error: bounds, and intervals that know of the looks.

At look k the estimate has the information I_k; with its share t_k = I_k / I_max, Z_k sqrt(t_k) is a Brownian motion of
drift theta (the effect times sqrt(I_max)) seen at t_k. What may be spent of the error until t_k is a function of t_k
alone (Lan and DeMets, Biometrika 70, 1983), so neither the number nor the times of the looks need be fixed before. The
recursion over looks is that of Armitage, McPherson and Rowe (JRSS A 132, 1969).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .distributions import normal_quantile
from .variance import Components

Array = NDArray[np.float64]
NODES = 401  # of a look's density between its bounds
FARTHEST = 12.0  # standard deviations: a bound beyond it is none
# The family of Hwang, Shih and DeCani (Statistics in Medicine 9, 1990): 1 spends nearly as Pocock's test does, evenly,
# −4 as O'Brien and Fleming's does, late.
GAMMA = -1.0
LEVEL = 0.95  # at which an error is compared with a normal one


def spent(share: float, alpha: float, gamma: float = GAMMA) -> float:
    """The error that may be spent until this share of the information."""
    share = min(max(share, 0.0), 1.0)
    if gamma == 0:
        return alpha * share
    return alpha * math.expm1(-gamma * share) / math.expm1(-gamma)


@dataclass(frozen=True)
class Looks:
    """The looks so far. ``shares``: of the information, rising, the last at most 1; ``bounds``: of |Z| at each."""

    shares: tuple[float, ...]
    bounds: tuple[float, ...]
    alpha: float
    gamma: float = GAMMA

    def then(self, share: float) -> Looks:
        """One look more. Its bound spends what ``spent`` allows; at share 1, all that is left.

        Raises ``ValueError`` for a share that is no larger than the last one.
        """
        if not (self.shares[-1] if self.shares else 0.0) < share <= 1 + 1e-9:
            raise ValueError("the shares of the information must rise, up to 1")
        before = spent(self.shares[-1], self.alpha, self.gamma) if self.shares else 0.0
        left = spent(share, self.alpha, self.gamma) - before
        going = _Going()
        for earlier, bound in zip(self.shares, self.bounds, strict=True):
            going = going.on(earlier, bound, 0.0)
        low, high = 0.0, FARTHEST
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if 2 * going.above(share, middle, 0.0) > left else (low, middle)
        return Looks((*self.shares, share), (*self.bounds, high), self.alpha, self.gamma)

    def level(self) -> float:
        """The level of a plain interval that does not hold 0 just where the last look's bound is crossed."""
        from scipy.special import ndtr

        return float(1 - 2 * ndtr(-self.bounds[-1]))

    def above(self, z: float, drift: float) -> float:
        """The chance, under this drift, of an end as high as Z = z at the last look, or higher (stagewise ordering).

        Higher is: an earlier look above its bound, or the same look at z or above; an earlier look below its bound is
        lower (Tsiatis, Rosner and Mehta, Biometrics 40, 1984). ``drift``: theta, the effect times sqrt(I_max).
        """
        going, crossed = _Going(), 0.0
        for share, bound in zip(self.shares[:-1], self.bounds[:-1], strict=True):
            crossed += going.above(share, bound, drift)
            going = going.on(share, bound, drift)
        return crossed + going.above(self.shares[-1], z, drift)


def looks(shares: Sequence[float], alpha: float = 0.05, gamma: float = GAMMA) -> Looks:
    """Looks at these shares of the information, two-sided, with an error of ``alpha`` over all of them."""
    made = Looks((), (), alpha, gamma)
    for share in shares:
        made = made.then(share)
    return made


@dataclass(frozen=True, eq=False)
class _Going:
    """The looks until now, no bound of which was crossed: where the motion stands [n], and the weights of that."""

    at: Array = field(default_factory=lambda: np.zeros(1))
    weights: Array = field(default_factory=lambda: np.ones(1))
    share: float = 0.0

    def above(self, share: float, z: float, drift: float) -> float:
        """The chance of coming here and of standing above Z = z at the next look."""
        from scipy.special import ndtr

        step = share - self.share
        tail = ndtr((self.at + drift * step - z * math.sqrt(share)) / math.sqrt(step))
        return float(self.weights @ tail)

    def on(self, share: float, bound: float, drift: float) -> _Going:
        """One look further, its bound not crossed."""
        step, edge = share - self.share, bound * math.sqrt(share)
        reach = min(edge, FARTHEST * math.sqrt(share) + abs(drift) * share)
        nodes = np.linspace(-reach, reach, NODES)
        simpson = np.full(NODES, 2.0)
        simpson[1::2], simpson[[0, -1]] = 4.0, 1.0
        simpson *= (nodes[1] - nodes[0]) / 3
        normal = np.exp(-0.5 * (nodes[:, None] - self.at - drift * step) ** 2 / step)
        return _Going(nodes, simpson * (normal @ self.weights) / math.sqrt(2 * math.pi * step), share)


@dataclass(frozen=True)
class End:
    """Where the looks at a contrast ended. Ends are ordered by stages (``Looks.above``).

    ``limits``: how far from 0 the estimate had to lie at each look, to cross its bound. Two seeds tell little of how
    they spread, so that the first limits are wide; a study that did not stop there says less than bounds of a known
    spread would have it. How far the last estimate lies from a value is measured in the contrast's own error, as the
    normal deviate of the same p. Of a single look, interval and p are those of ``intervals.contrast``.
    """

    of: Components
    looks: Looks
    limits: tuple[float, ...]

    def above(self, value: float) -> float:
        """The chance of an end as high as this one, if this value were the truth; it rises with the value."""
        from scipy.special import ndtri

        away, sd = self.of.value - value, self._sd
        if not sd > 0:
            return float(away <= 0)
        deviate = math.copysign(float(-ndtri(max(self.of.error.p(away) / 2, 1e-300))), away)
        shares, last = self.looks.shares, self.looks.shares[-1]
        bounds = (
            limit / sd * math.sqrt(share / last) for limit, share in zip(self.limits, shares, strict=True)
        )
        seen = replace(self.looks, bounds=tuple(bounds))
        return seen.above(deviate + value / sd, value / sd / math.sqrt(last))

    @cached_property
    def _sd(self) -> float:
        """Of the normal error whose interval is as wide."""
        return self.of.error.half_width(LEVEL) / normal_quantile((1 + LEVEL) / 2)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """The values under which an end as extreme as this one is no rarity."""
        value, reach, tail = self.of.value, 3 * self.of.error.half_width(level), (1 - level) / 2

        def end(chance: float, low: float, high: float) -> float:
            from scipy.optimize import brentq

            below, over = self.above(low) - chance, self.above(high) - chance
            if below >= 0 or over <= 0:  # no value in reach is as far
                return low if below >= 0 else high
            return float(brentq(lambda v: self.above(v) - chance, low, high, xtol=1e-7))

        return end(tail, value - 2 * reach, value + reach), end(1 - tail, value - reach, value + 2 * reach)

    def p(self) -> float:
        """Two-sided, of no difference."""
        chance = self.above(0.0)
        return min(2 * min(chance, 1 - chance), 1.0)


LEAST_SEEDS = 3  # of a study that is looked at while it grows: two of them are the first look


def look_seeds(most: int) -> tuple[int, ...]:
    """The numbers of seeds at which a study of at most so many is looked at: each up to 8, then 10, 12, 14, 16, 20, …

    A look then adds a quarter at most to what the one before had.
    """
    out = [2]
    while out[-1] < most:
        out.append(min(out[-1] + max(1, 2 ** (out[-1].bit_length() - 3)), most))
    return tuple(out)


def looks_of_seeds(most: int, alpha: float = 0.05) -> Iterator[tuple[int, Looks]]:
    """Each look's number of seeds, and the looks so far.

    The share of the information is that of the seeds. The states, which all looks share, are there from the first:
    the true share is larger, so that early looks spend less than they may.
    """
    made = Looks((), (), alpha)
    for seeds in look_seeds(most):
        made = made.then(seeds / most)
        yield seeds, made
