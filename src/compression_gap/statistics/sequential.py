"""Several looks at a study while it grows, paid for from one error: bounds, and intervals that know of the looks.

At look k the estimate has the information I_k; with its share t_k = I_k / I_max, Z_k sqrt(t_k) is a Brownian motion of
drift theta (the effect times sqrt(I_max)) seen at t_k. What may be spent of the error until t_k is a function of t_k
alone (Lan and DeMets, Biometrika 70, 1983), so neither the number nor the times of the looks need be fixed before. The
recursion over looks is that of Armitage, McPherson and Rowe (JRSS A 132, 1969).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .distributions import normal_quantile

Array = NDArray[np.float64]
NODES = 401  # of a look's density between its bounds
FARTHEST = 12.0  # standard deviations: a bound beyond it is none
# The family of Hwang, Shih and DeCani (Statistics in Medicine 9, 1990): 1 spends nearly as Pocock's test does, evenly,
# −4 as O'Brien and Fleming's does, late.
GAMMA = -1.0


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
        crossing = _Crossing(self, share, 0.0)
        low, high = 0.0, FARTHEST
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if 2 * crossing.above(middle) > left else (low, middle)
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
        before = Looks(self.shares[:-1], self.bounds[:-1], self.alpha, self.gamma)
        crossed = sum(
            _Crossing(
                Looks(self.shares[:k], self.bounds[:k], self.alpha, self.gamma), self.shares[k], drift
            ).above(self.bounds[k])
            for k in range(len(self.shares) - 1)
        )
        return crossed + _Crossing(before, self.shares[-1], drift).above(z)


def looks(shares: Sequence[float], alpha: float = 0.05, gamma: float = GAMMA) -> Looks:
    """Looks at these shares of the information, two-sided, with an error of ``alpha`` over all of them."""
    made = Looks((), (), alpha, gamma)
    for share in shares:
        made = made.then(share)
    return made


class _Crossing:
    """The chance of going on through all looks so far, and then of standing above a value at the next one."""

    def __init__(self, so_far: Looks, share: float, drift: float) -> None:
        at, density = _density(so_far.shares, so_far.bounds, drift)
        self.at, self.density, self.share = at, density, share
        step = share - (so_far.shares[-1] if so_far.shares else 0.0)
        self.mean, self.sd = at + drift * step, math.sqrt(step)

    def above(self, z: float) -> float:
        """Of Z at the next look."""
        from scipy.special import ndtr

        tail = ndtr((self.mean - z * math.sqrt(self.share)) / self.sd)
        return float(self.density @ tail)


def _density(shares: Sequence[float], bounds: Sequence[float], drift: float) -> tuple[Array, Array]:
    """Where the motion stands at the last look, and the weights with which it is there, no bound having been crossed."""
    at, weight, before = np.zeros(1), np.ones(1), 0.0
    for share, bound in zip(shares, bounds, strict=True):
        step, edge = share - before, bound * math.sqrt(share)
        reach = min(edge, FARTHEST * math.sqrt(share) + abs(drift) * share)
        nodes = np.linspace(-reach, reach, NODES)
        simpson = np.full(NODES, 2.0)
        simpson[1::2], simpson[[0, -1]] = 4.0, 1.0
        simpson *= (nodes[1] - nodes[0]) / 3
        normal = np.exp(-0.5 * (nodes[:, None] - at - drift * step) ** 2 / step) / math.sqrt(
            2 * math.pi * step
        )
        at, weight, before = nodes, simpson * (normal @ weight), share
    return at, weight


def drift_at(made: Looks, z: float, chance: float) -> float:
    """The drift under which an end as high as Z = z at the last look has this chance: 0.025 and 0.975 bound a 95 % interval."""
    centre = z / math.sqrt(made.shares[-1])
    low, high = centre - FARTHEST / math.sqrt(made.shares[-1]), centre + FARTHEST / math.sqrt(made.shares[-1])
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if made.above(z, middle) < chance else (low, middle)
    return (low + high) / 2


def needed_information(effect: float, made: Looks, power: float = 0.8) -> float:
    """I_max with which an effect crosses one of these looks' upper bounds with this chance."""
    low, high = 0.0, (normal_quantile(1 - made.alpha / 2) + normal_quantile(power)) * 3
    for _ in range(50):
        middle = (low + high) / 2
        crossed = made.above(made.bounds[-1], middle)
        low, high = (middle, high) if crossed < power else (low, middle)
    return (high / effect) ** 2
