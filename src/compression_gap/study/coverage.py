"""How often the 95 % intervals of ``statistics`` hold the truth, measured on simulated studies.

A study is simulated as evidence is structured (THEORY.md, section 7). The log odds that an episode succeeds are

  offset[cell] + difficulty[task] + state[i] + state_x_cell[i, cell] + scale[cell] * (seed[k] + h * seed_x_task[k, task])

with all but the first two terms normal and independent: initial states are shared by all cells, training seeds are
nested in cells, outcomes are [seeds, states]. Tasks are fixed, states and seeds are random, and the truth is the rate
of that population (the mean over tasks of the mean over states and seeds) or a contrast of such rates. All being
normal on one scale, it is a one-dimensional integral per task, here by Gauss-Hermite quadrature.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compression_gap.errors import UserError
from compression_gap.study.statistics import contrast, rate_interval, wilson

Array = NDArray[np.float64]
Quantity = Literal["rate", "delta", "interaction"]

WEIGHTS: dict[str, tuple[float, ...]] = {"rate": (1,), "delta": (1, -1), "interaction": (1, -1, -1, 1)}
# each cell's distance below ``Setting.rate`` in gains: the interaction is half a gain
BELOW = (0.0, 1.0, 0.0, 0.5)
SEED_TASK = 0.5  # h: the spread of a seed's effect on one task, relative to its effect on all
NODES = 48


@dataclass(frozen=True)
class Setting:
    """One kind of study.

    ``states`` is over all ``tasks``; ``seed_sd`` is the spread in points of one training run's true rate (mean over
    tasks); ``rate`` and ``gain`` (points) make the cells' rates, before seeds spread them: ``rate``, ``rate - gain``,
    ``rate``, ``rate - gain/2``. ``state_sd`` and ``cell_sd`` (log odds) are the spread of states in all cells alike
    and in each cell by itself; ``difficulty`` (log odds) is the distance of the easiest and the hardest task from
    their middle.
    """

    seeds: int
    states: int
    tasks: int = 2
    seed_sd: float = 4.0
    rate: float = 55.0
    gain: float = 10.0
    state_sd: float = 1.0
    cell_sd: float = 0.5
    difficulty: float = 0.7

    def __post_init__(self) -> None:
        whole = {"seeds": (self.seeds, 2), "tasks": (self.tasks, 1), "states": (self.states, 2 * self.tasks)}
        for name, (value, least) in whole.items():
            if isinstance(value, bool) or int(value) != value or value < least:
                raise UserError(f"a setting's {name} must be a whole number of at least {least}, not {value}")
        for name in ("seed_sd", "state_sd", "cell_sd", "difficulty"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(f"a setting's {name} must be at least 0, not {getattr(self, name):g}")
        for rate in (self.rate, self.rate - self.gain):
            if not 1 <= rate <= 99:
                raise UserError(f"a setting's rate and rate - gain must lie in 1..99 points, not {rate:g}")

    def __str__(self) -> str:
        return (
            f"{self.seeds} seeds, {self.states} states, {self.tasks} tasks, "
            f"seeds spread {self.seed_sd:g} points, rate {self.rate:g} %"
        )


@dataclass(frozen=True)
class Coverage:
    """The share of intervals that hold the truth, Wilson's interval of it, and their mean width in points."""

    share: float
    low: float
    high: float
    width: float
    studies: int


@dataclass(frozen=True)
class Cell:
    """One cell of the population: log odds per task [tasks], the scale of its seeds, its true rate (fraction)."""

    logits: Array
    scale: float
    truth: float


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _nodes() -> tuple[Array, Array]:
    """Points and weights of the mean over a standard normal."""
    points, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return points, weights / weights.sum()


def _mean_rate(logits: Array, sd: float) -> Array:
    """The mean of sigmoid(logit + sd * normal), of each logit."""
    points, weights = _nodes()
    return np.asarray(_sigmoid(logits[..., None] + sd * points) @ weights)


def _seed_spread(logits: Array, scale: float, state_sd: float) -> float:
    """The standard deviation over seeds of a run's rate: variance of the mean over its own tasks' effects, and rest."""
    points, weights = _nodes()
    # [tasks, seed's effect, its effect on the task]
    effect = scale * (points[:, None] + SEED_TASK * points[None, :])
    rates = _mean_rate(logits[:, None, None] + effect, state_sd)
    given = rates @ weights
    common = given.mean(0)
    own = ((rates - given[..., None]) ** 2 @ weights).sum(0) / len(logits) ** 2
    return float(np.sqrt((common - common @ weights) ** 2 @ weights + own @ weights))


@lru_cache(maxsize=256)
def population(setting: Setting, below: float) -> Cell:
    """The cell whose rate lies ``below`` gains under the setting's; UserError if its seeds cannot spread so far."""
    from scipy.optimize import brentq

    state_sd = float(np.hypot(setting.state_sd, setting.cell_sd))
    target = (setting.rate - below * setting.gain) / 100
    reach = setting.difficulty if setting.tasks > 1 else 0.0
    tasks = np.linspace(-reach, reach, setting.tasks)
    offset = brentq(lambda x: float(_mean_rate(x + tasks, state_sd).mean()) - target, -30, 30, xtol=1e-12)
    logits = tasks + float(offset)
    most, wanted, scale = 4.0, setting.seed_sd / 100, 0.0
    if _seed_spread(logits, most, state_sd) <= wanted:
        raise UserError(
            f"a setting's seed_sd of {setting.seed_sd:g} points is too wide for a rate of {100 * target:g} %; "
            "take a smaller one"
        )
    if wanted > 0:
        scale = float(brentq(lambda s: _seed_spread(logits, s, state_sd) - wanted, 0, most, xtol=1e-8))
    total = float(np.sqrt(state_sd**2 + scale**2 * (1 + SEED_TASK**2)))
    return Cell(logits, scale, float(_mean_rate(logits, total).mean()))


def simulate(
    quantity: Quantity, setting: Setting, rng: np.random.Generator
) -> tuple[list[Array], NDArray[np.int64], float]:
    """One study: its cells (outcomes 0 or 1, [seeds, states] each), the task of each state, the truth (fraction)."""
    weights = WEIGHTS[quantity]
    cells = [population(setting, below) for below in BELOW[: len(weights)]]
    tasks = np.arange(setting.states) % setting.tasks
    shared = rng.normal(0, setting.state_sd, setting.states)
    outcomes = []
    for cell in cells:
        state = cell.logits[tasks] + shared + rng.normal(0, setting.cell_sd, setting.states)
        seed = rng.normal(size=(setting.seeds, 1)) + SEED_TASK * rng.normal(
            size=(setting.seeds, setting.tasks)
        )
        odds = state + cell.scale * seed[:, tasks % seed.shape[1]]
        outcomes.append((rng.random(odds.shape) < _sigmoid(odds)).astype(np.float64))
    truth = sum(w * cell.truth for w, cell in zip(weights, cells, strict=True))
    return outcomes, tasks, float(truth)


def coverage(
    quantity: Quantity,
    setting: Setting,
    studies: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Coverage:
    """Simulate studies and count the 95 % intervals that hold the truth.

    ``rate`` is ``rate_interval`` of one cell, ``delta`` the ``contrast`` of two, ``interaction`` that of four.
    ``progress`` is told the studies done and all. The same arguments give the same numbers.
    """
    if quantity not in WEIGHTS:
        raise UserError(f"the quantity must be one of {', '.join(WEIGHTS)}, not {quantity}")
    if studies < 1:
        raise UserError(f"the number of simulated studies must be at least 1, not {studies}")
    rng = np.random.default_rng(seed)
    hits, width = 0, 0.0
    for done in range(studies):
        cells, tasks, truth = simulate(quantity, setting, rng)
        if quantity == "rate":
            one = rate_interval(cells[0], tasks)
            low, high = one.low, one.high
        else:
            found = contrast(cells, WEIGHTS[quantity], tasks)
            low, high = found.low, found.high
        hits += low <= truth <= high
        width += high - low
        if progress is not None:
            progress(done + 1, studies)
    share = wilson(hits, studies)
    return Coverage(share.value, share.low, share.high, 100 * width / studies, studies)


def settings(quick: bool) -> tuple[Setting, ...]:
    """The declared grid: 2, 3 and 5 seeds, 40 and 80 states, seeds that spread 2 to 8 points, rates near a half.

    Then one setting of four tasks, rates near 90 %, and the limit at which seeds do not differ at all. ``quick`` keeps
    the corners of few seeds.
    """
    if quick:
        return tuple(Setting(seeds, 80, seed_sd=sd) for seeds in (2, 3) for sd in (2.0, 8.0))
    grid = [
        Setting(seeds, states, seed_sd=sd)
        for seeds in (2, 3, 5)
        for states in (40, 80)
        for sd in (2.0, 4.0, 8.0)
    ]
    grid.append(Setting(3, 80, tasks=4))
    grid += [Setting(seeds, 80, rate=92.0, gain=6.0) for seeds in (2, 3, 5)]
    grid += [Setting(seeds, 80, seed_sd=0.0) for seeds in (2, 3, 5)]
    return tuple(grid)
