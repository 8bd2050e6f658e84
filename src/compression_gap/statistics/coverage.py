"""How often the 95 % intervals of ``statistics`` hold the truth, measured on simulated studies.

A study is simulated as evidence is structured (docs/theory.md). The log odds that an episode succeeds are

  offset[cell] + difficulty[task] + state[i] + state_x_cell[i, cell] + scale[cell] * (seed[k] + h * seed_x_task[k, task])

with all but the first two terms normal and independent: initial states are shared by all cells, training seeds are
nested in cells, outcomes are [seeds, states]. Tasks are fixed, states and seeds are random, and the truth is the rate
of that population (the mean over tasks of the mean over states and seeds) or a contrast of such rates. All being
normal on one scale, it is a one-dimensional integral per task, here by Gauss-Hermite quadrature.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compression_gap.errors import UserError
from compression_gap.statistics.intervals import contrast, interaction_log_odds, rate_interval, wilson

Array = NDArray[np.float64]
Quantity = Literal["rate", "delta", "interaction", "log odds", "waterfall"]

# log odds: of the interaction; waterfall: a deterministic reference with one run, less a policy
WEIGHTS: dict[str, tuple[float, ...]] = {
    "rate": (1,),
    "delta": (1, -1),
    "interaction": (1, -1, -1, 1),
    "log odds": (1, -1, -1, 1),
    "waterfall": (1, -1),
}
# each cell's distance below ``Setting.rate`` in gains: the interaction is half a gain
BELOW = (0.0, 1.0, 0.0, 0.5)
SEED_TASK = 0.5  # h: the spread of a seed's effect on one task, relative to its effect on all
NODES = 48


@dataclass(frozen=True)
class Runs:
    """One cell: its ``rate`` (percent, before seeds spread it), its ``seeds``, and their spread in points.

    ``seed_sd`` is the spread of one training run's true rate (mean over tasks).
    """

    rate: float
    seed_sd: float
    seeds: int


@dataclass(frozen=True)
class Setting:
    """One kind of study.

    ``states`` is over all ``tasks``. The cells are those of ``cells``, or else all have ``seeds`` and ``seed_sd``
    (as in ``Runs``), and ``rate`` and ``gain`` (points) make their rates: ``rate``, ``rate - gain``, ``rate``,
    ``rate - gain/2``. ``state_sd`` and ``cell_sd`` (log odds) are the spread of states in all cells alike and in
    each cell by itself; ``difficulty`` (log odds) is the distance of the easiest and the hardest task from their
    middle.
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
    cells: tuple[Runs, ...] = ()

    def __post_init__(self) -> None:
        whole = {"seeds": (self.seeds, 2), "tasks": (self.tasks, 1), "states": (self.states, 2 * self.tasks)}
        for name, (value, least) in whole.items():
            if isinstance(value, bool) or int(value) != value or value < least:
                raise UserError(f"a setting's {name} must be a whole number of at least {least}, not {value}")
        for name in ("seed_sd", "state_sd", "cell_sd", "difficulty"):
            if not 0 <= getattr(self, name) < np.inf:
                raise UserError(f"a setting's {name} must be at least 0, not {getattr(self, name):g}")
        for rate in (self.rate, self.rate - self.gain, *(c.rate for c in self.cells)):
            if not 1 <= rate <= 99:
                raise UserError(f"a setting's rate and rate - gain must lie in 1..99 points, not {rate:g}")

    def runs(self, quantity: str) -> tuple[Runs, ...]:
        """The cells of a quantity."""
        count = len(WEIGHTS[quantity])
        found = self.cells or tuple(
            Runs(self.rate - below * self.gain, self.seed_sd, self.seeds) for below in BELOW[:count]
        )
        if len(found) != count:
            raise UserError(f"a setting of the {quantity} needs {count} cells, not {len(found)}")
        return found

    def __str__(self) -> str:
        if self.cells:
            each = ", ".join(f"{c.rate:g} ± {c.seed_sd:g} % × {c.seeds}" for c in self.cells)
            return f"{each}, {self.states} states"
        return (
            f"{self.seeds} seeds, {self.states} states, {self.tasks} tasks, "
            f"seeds spread {self.seed_sd:g} points, rate {self.rate:g} %"
        )


@dataclass(frozen=True)
class Coverage:
    """The share of intervals that hold the truth, Wilson's interval of it, and their mean width in points.

    Of log odds: in hundredths.
    """

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


@lru_cache(maxsize=512)
def population(setting: Setting, runs: Runs) -> Cell:
    """The population that a cell's runs are drawn from; UserError if its seeds cannot spread so far."""
    from scipy.optimize import brentq

    state_sd = float(np.hypot(setting.state_sd, setting.cell_sd))
    target = runs.rate / 100
    reach = setting.difficulty if setting.tasks > 1 else 0.0
    tasks = np.linspace(-reach, reach, setting.tasks)
    offset = brentq(lambda x: float(_mean_rate(x + tasks, state_sd).mean()) - target, -30, 30, xtol=1e-12)
    logits = tasks + float(offset)
    most, wanted, scale = 4.0, runs.seed_sd / 100, 0.0
    if _seed_spread(logits, most, state_sd) <= wanted:
        raise UserError(
            f"a setting's seed_sd of {runs.seed_sd:g} points is too wide for a rate of {100 * target:g} %; "
            "take a smaller one"
        )
    if wanted > 0:
        scale = float(brentq(lambda s: _seed_spread(logits, s, state_sd) - wanted, 0, most, xtol=1e-8))
    total = float(np.sqrt(state_sd**2 + scale**2 * (1 + SEED_TASK**2)))
    return Cell(logits, scale, float(_mean_rate(logits, total).mean()))


def draw(
    setting: Setting, runs: Sequence[Runs], rng: np.random.Generator
) -> tuple[list[Array], NDArray[np.int64], Array]:
    """One study: its cells (outcomes 0 or 1, [seeds, states] each), the task of each state, each cell's true rate."""
    cells = [population(setting, r) for r in runs]
    tasks = np.arange(setting.states) % setting.tasks
    shared = rng.normal(0, setting.state_sd, setting.states)
    outcomes = []
    for cell, run in zip(cells, runs, strict=True):
        state = cell.logits[tasks] + shared + rng.normal(0, setting.cell_sd, setting.states)
        seed = rng.normal(size=(run.seeds, 1)) + SEED_TASK * rng.normal(size=(run.seeds, setting.tasks))
        odds = state + cell.scale * seed[:, tasks % seed.shape[1]]
        outcomes.append((rng.random(odds.shape) < _sigmoid(odds)).astype(np.float64))
    return outcomes, tasks, np.array([cell.truth for cell in cells])


def simulate(
    quantity: Quantity, setting: Setting, rng: np.random.Generator
) -> tuple[list[Array], NDArray[np.int64], float]:
    """One study with a quantity: its cells and tasks as in ``draw``, and the truth (fraction)."""
    outcomes, tasks, truths = draw(setting, setting.runs(quantity), rng)
    if quantity == "log odds":
        truths = np.log(truths / (1 - truths))
    return outcomes, tasks, float(truths @ np.array(WEIGHTS[quantity]))


def _interval(quantity: Quantity, cells: list[Array], tasks: NDArray[np.int64]) -> tuple[float, float]:
    """The 95 % interval of a quantity."""
    if quantity == "rate":
        one = rate_interval(cells[0], tasks)
        return one.low, one.high
    if quantity == "log odds":
        found = interaction_log_odds([cells[:2], cells[2:]], tasks)
    else:
        references = [0] if quantity == "waterfall" else []
        found = contrast(cells, WEIGHTS[quantity], tasks, references=references)
    return found.low, found.high


def coverage(
    quantity: Quantity,
    setting: Setting,
    studies: int = 1000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Coverage:
    """Simulate studies and count the 95 % intervals that hold the truth.

    ``rate`` is ``rate_interval`` of one cell, ``delta`` the ``contrast`` of two, ``interaction`` that of four (and
    its ``log odds``), ``waterfall`` the ``contrast`` of a deterministic reference and a policy.
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
        low, high = _interval(quantity, cells, tasks)
        hits += low <= truth <= high
        width += high - low
        if progress is not None:
            progress(done + 1, studies)
    share = wilson(hits, studies)
    return Coverage(share.value, share.low, share.high, 100 * width / studies, studies)


# (rate in percent, spread of its seeds in points) of each cell
UNEQUAL: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "rate": (((98, 1),), ((2, 1),), ((92, 3),)),
    "delta": (((52, 8), (98, 1)), ((2, 1), (52, 8)), ((50, 8), (50, 2))),
    "interaction": (((50, 8), (2, 1), (40, 8), (8, 3)),),
    "log odds": (((50, 4), (2, 1), (40, 4), (8, 3)), ((55, 4), (45, 4), (55, 4), (50, 4))),
    "waterfall": (((98, 0), (90, 2)), ((96, 0), (50, 8)), ((97, 0), (55, 4)), ((90, 0), (10, 3))),
}


def _unequal(quantity: str, seeds: int, states: int) -> list[Setting]:
    """Cells of different rates and spreads; the first of a waterfall has one run and no seed."""
    first = 1 if quantity == "waterfall" else seeds
    return [
        Setting(
            seeds,
            states,
            cells=tuple(Runs(r, sd, first if i == 0 else seeds) for i, (r, sd) in enumerate(cells)),
        )
        for cells in UNEQUAL[quantity]
    ]


def settings(quantity: Quantity, quick: bool) -> tuple[Setting, ...]:
    """The declared grid of a quantity: 2, 3 and 5 seeds, 50 and 500 states.

    Seeds that spread alike by 0 to 8 points at rates near a half and 92 %, few states, many tasks; then cells whose
    rates (2 to 98 %) and spreads differ, and two wild seeds against five calm ones. ``quick`` keeps the corners of
    few seeds.
    """
    alike = quantity in ("rate", "delta", "interaction")
    if quick:
        grid = [Setting(k, 80, seed_sd=sd) for k in (2, 3) for sd in (2.0, 8.0)] if alike else []
        return (*grid, *_unequal(quantity, 2, 50)[:2])
    grid = []
    for seeds in (2, 3, 5):
        for states in (50, 500):
            if alike:
                grid += [Setting(seeds, states, seed_sd=sd) for sd in (0.0, 2.0, 4.0, 8.0)]
            grid += _unequal(quantity, seeds, states)
        if alike:
            grid.append(Setting(seeds, 80, rate=92.0, gain=6.0))
    if alike:
        grid += [Setting(3, 10, tasks=1), Setting(3, 80, tasks=4), Setting(3, 100, tasks=10)]
    if quantity == "delta":
        wild = (Runs(55, 12, 2), Runs(45, 1, 5))
        grid += [Setting(2, states, cells=wild) for states in (50, 500)]
    return tuple(grid)
