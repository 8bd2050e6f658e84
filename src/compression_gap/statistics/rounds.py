"""Contrasts of cells that grow by seeds, looked at in rounds: what is known is settled, what is not gets more seeds.

At each look every open contrast is tested at its bound (``sequential``). One that crosses it is settled for good. A cell
that is established below another one is out: no contrast with it is open any more, so it needs no more seeds. With all
pairs of a policy and of what replaces its stages, that is the successive elimination of Even-Dar, Mannor and Mansour
(JMLR 7, 2006) with group-sequential tests: the last cell that is not out is the best.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike

from ..errors import counted
from .intervals import Contrast, possible
from .sequential import LEVEL, End, Looks, looks_of_seeds
from .variance import RATES, Outcomes, components

Weights = tuple[float, ...]  # one for each cell; 0 for one that a contrast does not hold


@dataclass(frozen=True)
class Judged:
    """A contrast at its last look, and the least and the most that it can be.

    ``sign``: 1 or −1 where it was established above or below 0, else 0.
    """

    end: End
    seeds: int
    states: int
    sign: int
    possible: tuple[float, float]

    @cached_property
    def found(self) -> Contrast:
        """With interval and p that know of the looks."""
        value, (low, high), (least, most) = self.end.of.value, self.end.interval(), self.possible
        low, high = min(max(low, least), value), max(min(high, most), value)
        looks = counted(len(self.end.looks.shares), "look")
        method = f"adjusted for {looks}, stagewise ordering"
        return Contrast(value, low, high, self.end.p(), method, self.seeds, self.states, False)


@dataclass(frozen=True)
class Rounds:
    """What the looks so far say.

    ``judged``: each contrast at its last look, None before the first. ``out``: cells established below another one.
    ``seeds``: of each cell, as far as it was looked at. ``growing``: the cells that the next look needs, with
    ``next_seeds`` each, which are not all there; none when all is ``settled`` or every seed was used.
    """

    judged: tuple[Judged | None, ...]
    out: frozenset[int]
    seeds: tuple[int, ...]
    looks: int
    growing: tuple[int, ...]
    next_seeds: int
    settled: bool

    @property
    def best(self) -> int | None:
        """The one cell that is not out."""
        left = [i for i in range(len(self.seeds)) if i not in self.out]
        return left[0] if len(left) == 1 else None


def pairs(cells: int) -> list[Weights]:
    """The contrasts of all pairs of cells, each the later one less the earlier one."""
    out = []
    for low, high in itertools.combinations(range(cells), 2):
        weights = [0.0] * cells
        weights[high], weights[low] = 1.0, -1.0
        out.append(tuple(weights))
    return out


@lru_cache(maxsize=64)
def _plan(most: int) -> tuple[tuple[int, Looks], ...]:
    return tuple(looks_of_seeds(most))


def in_rounds(
    cells: Sequence[ArrayLike],
    contrasts: Sequence[Weights],
    strata: ArrayLike,
    most: int,
    *,
    within: float | None = None,
    outcomes: Outcomes = RATES,
) -> Rounds:
    """Look again at cells of up to ``most`` seeds, as if they had been looked at while they grew.

    ``cells``: outcomes [seeds there, states], in the order in which seeds were added. ``within``: a contrast whose plain
    95 % interval is no wider than ± so much (a fraction, or in the outcomes' unit) is settled, too.
    The looks hang on the seeds before them alone, so that a study can be stopped, and told again from its rows.
    """
    arrays = [np.asarray(c, dtype=np.float64) for c in cells]
    holds = [[i for i, w in enumerate(weights) if w] for weights in contrasts]
    judged: list[Judged | None] = [None] * len(contrasts)
    limits: list[tuple[float, ...]] = [()] * len(contrasts)
    seeds, out, looks, active = [0] * len(arrays), set[int](), 0, list(range(len(contrasts)))
    for count, made in _plan(most):
        growing = sorted({i for c in active for i in holds[c]})
        if not growing:
            break
        if any(len(arrays[i]) < count for i in growing):
            return Rounds(tuple(judged), frozenset(out), tuple(seeds), looks, tuple(growing), count, False)
        looks += 1
        for i in growing:
            seeds[i] = count
        left = []
        for c in active:
            own, weights = holds[c], [contrasts[c][i] for i in holds[c]]
            parts = components([arrays[i][:count] for i in own], weights, strata, outcomes)
            limits[c] += (parts.error.half_width(made.level()),)
            crossed = abs(parts.value) >= limits[c][-1] and parts.value != 0
            sign = int(np.sign(parts.value)) if crossed else 0
            judged[c] = Judged(
                End(parts, made, limits[c]), count, arrays[0].shape[1], sign, possible(weights, outcomes)
            )
            if crossed and len(own) == 2:
                out.add(own[0] if sign * weights[0] < 0 else own[1])
            elif not crossed and (within is None or parts.error.half_width(LEVEL) > within):
                left.append(c)
        active = [c for c in left if not out.intersection(holds[c])]
    return Rounds(tuple(judged), frozenset(out), tuple(seeds), looks, (), 0, not active)
