"""How many episodes and seeds a difference needs: the power of the two-cell test used for encoder gains."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compression_gap.errors import UserError

LEVEL = 0.95
TARGET = 0.8


@dataclass(frozen=True)
class Design:
    """Seeds per cell, episodes per seed, and the power they give."""

    seeds: int
    episodes: int
    power: float


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
    outcome's variance that belongs to its initial state and is common to both cells. The test is the t test
    of ``statistics.contrast``; with one seed it is over paired states, and counts no seed variance unless
    ``seed_sd`` is above 0, which then lowers the power as an error the test does not see.
    """
    from scipy.stats import nct, norm, t

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
        critical = float(t.ppf((1 + LEVEL) / 2, state_df)) * np.sqrt(within)
        error = float(np.sqrt(within + between))
        return float(norm.sf((critical - gap) / error) + norm.cdf((-critical - gap) / error))
    from compression_gap.study.variance import SEED_DF_SHARE

    seed_df = 2.0 * (runs - 1)
    variance = between + within
    uncertain = between + SEED_DF_SHARE * noise
    df = variance**2 / (uncertain**2 / seed_df + within**2 / state_df)
    df = min(max(df, seed_df), seed_df + state_df)
    critical = float(t.ppf((1 + LEVEL) / 2, df))
    shift = abs(gap) / float(np.sqrt(variance))
    if shift > 30:  # beyond the reach of the noncentral t's series, and certain for any df >= 2
        return float(norm.sf(critical - shift))
    return float(min(max(nct.sf(critical, df, shift) + nct.cdf(-critical, df, shift), 0.0), 1.0))


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
        Design(s, n, power(difference, rate, n, s, seed_sd, pairing, tasks)) for s in seeds for n in episodes
    ]


def smallest(
    difference: float,
    rate: float,
    seed_sd: float,
    pairing: float,
    seeds: Sequence[int] = (2, 3, 5, 10, 20),
    episodes: Sequence[int] = (20, 50, 100, 200, 500, 1000),
    tasks: int = 1,
    target: float = TARGET,
) -> Design | None:
    """The design with the fewest rollouts (then the fewest seeds) that reaches the target; None if none does."""
    _number("target", target, 0, 1)
    reached = [
        design
        for design in table(difference, rate, seed_sd, pairing, seeds, episodes, tasks)
        if design.power >= target
    ]
    return min(reached, key=lambda design: (design.seeds * design.episodes, design.seeds), default=None)
