"""How many episodes and seeds a difference needs: the power of the two-cell test used for encoder gains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compression_gap.errors import UserError

from .distributions import chi2_quantile, normal_tail, t_quantile

LEVEL = 0.95
TARGET = 0.8
NODES = 8  # of the spread that one cell shows
BINS = 120  # of the variance of a difference


@dataclass(frozen=True)
class Design:
    """Seeds per cell, episodes per seed, and the power they give.

    ``false_positives``: how often the test finds a difference where there is none; with one seed, whose spread it
    does not see, that is more than 5 %.
    """

    seeds: int
    episodes: int
    power: float
    false_positives: float


def _number(name: str, value: float, low: float, high: float) -> float:
    if not np.isfinite(value) or not low <= value <= high:
        raise UserError(f"{name} must lie between {low:g} and {high:g}, not {value:g}")
    return float(value)


def _whole(name: str, value: int, low: int) -> int:
    if isinstance(value, bool) or not np.isfinite(value) or int(value) != value or value < low:
        raise UserError(f"{name} must be a whole number of at least {low}, not {value}")
    return int(value)


def _variances(
    difference: float, rate: float, episodes: int, seeds: int, seed_sd: float, pairing: float
) -> tuple[float, float, float]:
    """The variance of the difference by source: seeds, episodes' own noise, states that differ by cell."""
    other = rate + difference
    own = rate * (1 - rate) + other * (1 - other)
    shared = 2 * np.sqrt(rate * (1 - rate) * other * (1 - other))
    # a share `pairing` of an outcome's variance is the state's own and common to both cells, so it cancels
    # but for the part by which the two cells' variances differ; the rest is noise, new with every seed
    lasting = max(pairing * (own - shared), 0.0) / episodes
    noise = (1 - pairing) * own / (episodes * seeds)
    return 2 * seed_sd**2 / seeds, noise, lasting


def chance(
    gap: float,
    spread: Sequence[float],
    noise: Sequence[float],
    seeds: Sequence[int],
    scale: Sequence[float],
    lasting: float,
    state_df: float,
) -> float:
    """The chance that ``statistics.contrast`` of two cells finds their difference ``gap`` at 5 %.

    Per cell: ``spread`` is the variance of one run's true rate, ``noise`` that of its episodes, ``scale`` as in
    ``variance.seed_scale``; ``lasting`` is the states' share of the difference's variance that more seeds do not
    lower. The half width hangs on the spreads seen, which are independent of the difference: the chance is the mean
    over them.
    """
    from scipy.special import ndtr

    from compression_gap.statistics.variance import half_widths, seed_posterior

    states = lasting + sum(n / k for n, k in zip(noise, seeds, strict=True))
    error = float(np.sqrt(states + sum(v / k for v, k in zip(spread, seeds, strict=True))))
    steps = (np.arange(NODES) + 0.5) / NODES
    shares, weights = [], []
    for v, n, k, s in zip(spread, noise, seeds, scale, strict=True):
        seen = (v + n) * chi2_quantile(steps, k - 1) / (k - 1)
        variances, posterior = seed_posterior(seen, n, k, s)
        shares.append(variances / k)
        weights.append(posterior)
    # the states' variance is an estimate: its t, as a normal of the same quantile
    stretch = (t_quantile((1 + LEVEL) / 2, state_df) / t_quantile((1 + LEVEL) / 2, np.inf)) ** 2
    total = (shares[0][:, None] + shares[1]).ravel() + states * stretch
    logs = np.log(total)
    edges = np.linspace(logs.min(), logs.max() + 1e-9, BINS + 1)
    order = np.argsort(logs)
    first = np.searchsorted(logs[order], edges[:-1])
    first = np.unique(first[first < len(order)])
    both = (weights[0][:, None, :, None] * weights[1][None, :, None, :]).reshape(NODES**2, -1)[:, order]
    mass = np.add.reduceat(both, first, axis=1)
    middle = np.add.reduceat(total[order], first) / np.diff([*first, len(order)])
    half = half_widths(middle, mass, LEVEL)
    return float((ndtr((gap - half) / error) + ndtr((-gap - half) / error)).mean())


def power(
    difference: float,
    rate: float,
    episodes: int,
    seeds: int,
    seed_sd: float,
    pairing: float,
    tasks: int = 1,
) -> float:
    """The chance that the two-sided 5 % test of a difference of two cells finds it.

    ``difference``, ``rate`` (the lower cell's) and ``seed_sd`` (spread of one run's success over seeds) are in
    points; ``episodes`` is per seed and cell, over all ``tasks``; ``pairing`` in 0..1 is the share of an
    outcome's variance that belongs to its initial state and is common to both cells. The test is that of
    ``statistics.contrast``; with one seed it is the t test over paired states, which knows nothing of the seeds:
    their spread moves the difference, and the test takes that for an effect.
    """
    from compression_gap.statistics.variance import RATES, seed_scale

    gap = _number("difference", difference, -100, 100) / 100
    low = _number("rate", rate, 0, 100) / 100
    if not 0 <= low + gap <= 1:
        raise UserError(f"rate + difference must lie between 0 and 100, not {100 * (low + gap):g}")
    spread = _number("seed_sd", seed_sd, 0, 50) / 100
    share = _number("pairing", pairing, 0, 1)
    groups = _whole("tasks", tasks, 1)
    states = _whole("episodes", episodes, 2)
    runs = _whole("seeds", seeds, 1)
    if states <= groups:
        raise UserError(f"episodes must be more than tasks ({groups}), not {states}")
    between, noise, lasting = _variances(gap, low, states, runs, spread, share)
    # statistics.contrast never takes the states' variance for less than that of two discordant ones more
    within = max(noise + lasting, 2.0 / (runs * (states + 1.0) * (states + 2.0)))
    state_df = float(states - groups)
    if runs == 1:
        critical = t_quantile((1 + LEVEL) / 2, state_df) * np.sqrt(within)
        error = float(np.sqrt(within + between))
        return float(normal_tail((critical - gap) / error) + normal_tail((critical + gap) / error))
    rates = (low, low + gap)
    return chance(
        gap,
        [spread**2] * 2,
        [max((1 - share) * p * (1 - p) / states, 1.0 / (runs * states + 2) ** 2) for p in rates],
        [runs] * 2,
        [seed_scale(p, runs * states, RATES) for p in rates],
        within - noise,
        state_df,
    )


def table(
    difference: float,
    rate: float,
    seed_sd: float,
    pairing: float,
    seeds: Sequence[int] = (1, 2, 3, 5, 10),
    episodes: Sequence[int] = (20, 50, 100, 200, 500),
    tasks: int = 1,
) -> list[Design]:
    """The power of every design, seeds outermost."""
    if not seeds or not episodes:
        raise UserError("the table needs at least one number of seeds and one of episodes")
    return [
        Design(s, n, *(power(gap, rate, n, s, seed_sd, pairing, tasks) for gap in (difference, 0.0)))
        for s in seeds
        for n in episodes
    ]
