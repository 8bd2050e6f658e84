import numpy as np
import pytest
from scipy.stats import beta, norm, t
from statsmodels.stats.power import TTestPower

from compression_gap.errors import UserError
from compression_gap.statistics.intervals import contrast
from compression_gap.statistics.power import power, table


def test_one_seed_is_near_the_paired_t_test():
    sd = np.sqrt(0.6 * 0.4 + 0.4 * 0.6)
    oracle = TTestPower().power(0.2 / sd, 200, 0.05)
    assert power(20, 40, 200, 1, 0, 0) == pytest.approx(oracle, abs=0.01)


def test_no_difference_is_found_in_five_percent():
    assert power(0, 50, 100, 1, 0.0, 0.3) == pytest.approx(0.05, abs=0.005)
    assert all(0 <= power(0, 50, 100, seeds, sd, 0.3) < 0.07 for seeds in (2, 5) for sd in (0.0, 4.0, 8.0))


def test_no_design_gives_anything_but_a_probability():
    """From 15 points up the tail of a noncentral t gave NaN in a quarter of the designs."""
    rng = np.random.default_rng(3)
    for _ in range(300):
        difference = rng.uniform(15, 80)
        design = (difference, rng.uniform(0, 100 - difference), rng.integers(10, 2000), rng.integers(1, 12))
        assert (
            0 <= power(*map(float, design[:2]), *map(int, design[2:]), rng.uniform(0, 12), rng.uniform()) <= 1
        )
    assert all(0.99 < row.power <= 1 for row in table(60, 20, 2, 0.3, seeds=(5, 10), episodes=(200, 500)))


def test_one_seed_takes_its_luck_for_a_difference():
    """The spread of the difference of two runs, against an interval of the episodes alone."""
    (row,) = table(15, 45, 4, 0.3, seeds=(1,), episodes=(500,))
    within = (2 * 0.45 * 0.55 * 0.7) / 500
    expected = 2 * norm.sf(t.ppf(0.975, 499) * np.sqrt(within / (within + 2 * 0.04**2)))
    assert row.false_positives == pytest.approx(expected, rel=1e-3)
    assert row.false_positives > 0.3


def test_what_helps_and_what_hurts():
    base = power(15, 40, 80, 3, 4, 0.2)
    assert power(20, 40, 80, 3, 4, 0.2) > base
    assert power(15, 40, 160, 3, 4, 0.2) > base
    assert power(15, 40, 80, 5, 4, 0.2) > base
    assert power(15, 40, 80, 3, 4, 0.5) > base
    assert power(15, 40, 80, 3, 8, 0.2) < base
    assert power(-15, 55, 80, 3, 4, 0.2) == pytest.approx(base)


def test_more_episodes_do_not_replace_seeds():
    assert power(15, 40, 100000, 2, 8, 0.2) < 0.5 < power(15, 40, 200, 8, 8, 0.2)


@pytest.mark.parametrize(("seeds", "seed_sd", "pairing"), [(2, 0, 0.3), (3, 5, 0.3), (5, 5, 0.0)])
def test_the_power_is_that_of_the_test(seeds, seed_sd, pairing):
    rng = np.random.default_rng(9)
    runs, hits = 200 if seeds < 5 else 100, 0
    for _ in range(runs):
        place, cells = rng.random(80), []
        for rate in (0.6, 0.4):
            scale = (1 - pairing) / pairing if pairing else 0
            state = beta.ppf(place, rate * scale, (1 - rate) * scale) if pairing else np.full(80, rate)
            run = np.clip(state + rng.normal(0, seed_sd / 100, (seeds, 1)), 0, 1)
            cells.append((rng.random((seeds, 80)) < run).astype(float))
        found = contrast(cells, [1, -1], np.arange(80) % 2)
        hits += found.low > 0 or found.high < 0
    assert hits / runs == pytest.approx(power(20, 40, 80, seeds, seed_sd, pairing, tasks=2), abs=0.1)


def test_the_table_is_the_power_of_every_design():
    rows = table(20, 40, 4, 0.2, seeds=(2, 3, 5), episodes=(20, 50, 100))
    assert [(row.seeds, row.episodes) for row in rows][:4] == [(2, 20), (2, 50), (2, 100), (3, 20)]
    for row in rows:
        assert row.power == power(20, 40, row.episodes, row.seeds, 4, 0.2)


@pytest.mark.parametrize(
    "change",
    [
        {"difference": 120},
        {"rate": -1},
        {"rate": 90},
        {"episodes": 1},
        {"episodes": 20.5},
        {"seeds": 0},
        {"seeds": float("nan")},
        {"seed_sd": -1},
        {"pairing": 1.5},
        {"tasks": 200},
        {"difference": float("nan")},
    ],
)
def test_wrong_arguments_are_named(change):
    good = {"difference": 20, "rate": 40, "episodes": 100, "seeds": 3, "seed_sd": 4, "pairing": 0.2}
    with pytest.raises(UserError):
        power(**{**good, **change})
    assert 0 < power(**good) < 1
