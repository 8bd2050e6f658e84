"""Intervals of errors: no upper bound, and none of the least variance that success has."""

import numpy as np
import pytest
from scipy import stats

from compression_gap.statistics.intervals import contrast
from compression_gap.statistics.variance import ERRORS, RATES, components


def test_one_seed_is_the_t_interval_over_episodes():
    errors = np.array([[0.5, 0.9, 2.0, 1.4, 0.7]])
    found = contrast([errors], [1], np.zeros(5), outcomes=ERRORS)
    low, high = stats.t.interval(0.95, 4, errors.mean(), stats.sem(errors[0]))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.seed_variance_unknown


def test_a_paired_difference_of_one_seed_is_the_paired_t_test():
    rng = np.random.default_rng(0)
    a = rng.gamma(4, 0.5, (1, 12))
    b = a + 0.05 + rng.normal(0, 0.02, (1, 12))
    found, expected = contrast([b, a], [1, -1], np.zeros(12), outcomes=ERRORS), stats.ttest_rel(b[0], a[0])
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_tasks_weigh_the_same_however_many_episodes_they_have():
    errors, task = np.array([[1.0, 2.0, 3.0, 10.0, 12.0]]), np.array([0, 0, 0, 1, 1])
    assert contrast([errors], [1], task, outcomes=ERRORS).value == pytest.approx((2 + 11) / 2)


def test_errors_have_no_upper_bound_and_no_negative_mean():
    found = contrast([np.array([[0.1, 9.0]])], [1], np.zeros(2), outcomes=ERRORS)
    assert found.low == 0
    assert found.high > 9
    with pytest.raises(ValueError, match=r"0\.\.inf"):
        components([np.array([[-0.1, 1.0]])], [1], np.zeros(2), ERRORS)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        components([np.array([[0.1, 9.0]])], [1], np.zeros(2), RATES)
    with pytest.raises(ValueError, match="none missing"):
        components([np.array([[np.inf, 1.0]])], [1], np.zeros(2), ERRORS)


def test_equal_cells_differ_by_nothing():
    cell = np.array([[0.4, 0.8], [0.4, 0.8]])
    found = contrast([cell, cell], [1, -1], np.zeros(2), outcomes=ERRORS)
    assert (found.value, found.p) == (0, pytest.approx(1))
    assert found.high == -found.low
    assert 0 < found.high < 0.3  # two seeds that agree may still have been lucky
    alone = contrast([cell[:1], cell[:1]], [1, -1], np.zeros(2), outcomes=ERRORS)
    assert (alone.value, alone.low, alone.high, alone.p) == (0, 0, 0, 1)


@pytest.mark.parametrize(("seeds", "episodes"), [(2, 6), (3, 10), (5, 10)])
def test_the_intervals_cover(seeds, episodes):
    """Skewed errors, episodes shared by two cells, seeds nested: 95 % intervals of cell and difference."""
    rng, hits, studies = np.random.default_rng(1), np.zeros(2), 300
    for _ in range(studies):
        hard = rng.gamma(6, 1 / 6, episodes)  # of mean 1
        cells = [
            level * hard * (1 + rng.normal(0, 0.05, (seeds, 1))) + rng.gamma(9, 0.02, (seeds, episodes))
            for level in (1.0, 0.7)
        ]
        one = contrast(cells[:1], [1], np.zeros(episodes), outcomes=ERRORS)
        two = contrast(cells, [1, -1], np.zeros(episodes), outcomes=ERRORS)
        hits += [one.low <= 1.18 <= one.high, two.low <= 0.3 <= two.high]
    assert (hits / studies >= 0.90).all(), hits / studies
    assert (hits / studies <= 0.995).all(), hits / studies
