"""What studies that grow by seeds cost and how often they are right, simulated (``coverage.draw``).

Each study asks for the bottleneck of a policy of three stages, of which replacing the first gains ``gain`` points and the
others nothing. It is looked at in rounds; beside it stand fixed designs on the same rows, which name a stage where
every one of its differences is found at 5 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .coverage import Runs, Setting, draw
from .intervals import contrast
from .rounds import in_rounds, pairs

CELLS = 4  # the policy, and one for each stage replaced; the second is that of the gain
BEST = 1


@dataclass(frozen=True)
class Growing:
    """Of simulated studies: shares that named the right stage and a wrong one, and what they took.

    ``seeds``: a configuration's, in the mean. ``fixed``: by the number of seeds, the share of fixed designs that name
    the right stage. ``covered``: the share of the gains' intervals that hold the truth.
    """

    studies: int
    right: float
    wrong: float
    seeds: float
    covered: float
    fixed: dict[int, float]

    def equal_seeds(self) -> float:
        """The seeds of the fixed design that names the right stage as often (interpolated)."""
        numbers = sorted(self.fixed)
        powers = np.maximum.accumulate([self.fixed[n] for n in numbers])
        return float(np.interp(self.right, powers, numbers))


def grow(
    setting: Setting,
    gain: float,
    studies: int,
    seed: int = 0,
    fixed_designs: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Growing:
    """Simulate studies of at most ``setting.seeds`` seeds; ``gain`` in points. The same arguments give the same numbers.

    ``fixed_designs``: whether these are judged, too, which takes most of the time.
    """
    rng, most = np.random.default_rng(seed), setting.seeds
    runs = [Runs(setting.rate + (gain if i == BEST else 0.0), setting.seed_sd, most) for i in range(CELLS)]
    right = wrong = held = 0
    taken, fixed = 0.0, dict.fromkeys(range(2, most + 1) if fixed_designs else (), 0)
    for done in range(studies):
        cells, tasks, truths = draw(setting, runs, rng)
        found = in_rounds(cells, pairs(CELLS), tasks, most)
        right += found.best == BEST and gain > 0
        wrong += bool(found.best) and (found.best != BEST or gain == 0)
        taken += float(np.mean(found.seeds))
        for stage, judged in enumerate(found.judged[: CELLS - 1], 1):
            if judged is not None:
                held += 0.025 <= judged.end.above(float(truths[stage] - truths[0])) <= 0.975
        for seeds in fixed:
            fixed[seeds] += _named(cells, tasks, seeds)
        if progress is not None:
            progress(done + 1, studies)
    return Growing(
        studies,
        right / studies,
        wrong / studies,
        taken / studies,
        held / studies / (CELLS - 1),
        {seeds: count / studies for seeds, count in fixed.items()},
    )


def _named(cells: list[np.ndarray], tasks: np.ndarray, seeds: int) -> bool:
    """Whether a fixed design of so many seeds names the stage that gains."""
    best = cells[BEST][:seeds]
    return all(
        contrast([best, rows[:seeds]], [1, -1], tasks).low > 0 for i, rows in enumerate(cells) if i != BEST
    )
