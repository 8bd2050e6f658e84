"""Bounds against published tables and against SciPy's multivariate normal; intervals against simulated looks."""

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from compression_gap.statistics.sequential import Looks, looks, spent

FIFTHS = [0.2, 0.4, 0.6, 0.8, 1.0]


def crossing(shares, bounds, drift=0.0):
    """The chance that |Z| crosses any of the bounds, by SciPy's multivariate normal."""
    t = np.asarray(shares)
    cov = np.sqrt(np.minimum.outer(t, t) / np.maximum.outer(t, t))
    b = np.asarray(bounds)
    inside = multivariate_normal(drift * np.sqrt(t), cov, abseps=1e-6, releps=1e-6)
    return 1 - inside.cdf(b, lower_limit=-b)


def test_spending_begins_at_nothing_and_ends_at_all():
    for gamma in (-4.0, -1.0, 0.0, 1.0):
        path = [spent(t, 0.05, gamma) for t in np.linspace(0, 1, 11)]
        assert path[0] == 0
        assert path[-1] == pytest.approx(0.05)
        assert np.all(np.diff(path) > 0)


# gsDesign's manual (sfHSD, two-sided 0.05 as one-sided 0.025, five looks, gamma = -4 and 1)
@pytest.mark.parametrize(
    ("gamma", "published"),
    [(-4.0, [3.25, 2.99, 2.69, 2.37, 2.03]), (1.0, [2.41, 2.42, 2.44, 2.44, 2.45])],
)
def test_bounds_are_near_those_that_are_published(gamma, published):
    found = looks(FIFTHS, 0.05, gamma).bounds
    assert np.allclose(found, published, atol=0.06)


@pytest.mark.parametrize("gamma", [-4.0, -1.0, 1.0])
@pytest.mark.parametrize("shares", [FIFTHS, [0.3, 0.35, 1.0], [1.0]])
def test_what_is_spent_is_what_scipy_finds(gamma, shares):
    made = looks(shares, 0.05, gamma)
    for k in range(1, len(shares) + 1):
        allowed = spent(shares[k - 1], 0.05, gamma)
        assert crossing(shares[:k], made.bounds[:k]) == pytest.approx(allowed, abs=2e-5)


def test_one_look_is_the_plain_test():
    made = looks([1.0])
    assert made.bounds[0] == pytest.approx(norm.ppf(0.975), abs=1e-6)
    assert made.level() == pytest.approx(0.95, abs=1e-6)


def test_looks_that_are_added_one_by_one_are_those_of_before():
    some = looks(FIFTHS[:2])
    assert some.then(0.6).bounds[:2] == some.bounds
    for share in (0.4, 0.1, 1.2):
        with pytest.raises(ValueError, match="must rise"):
            some.then(share)


def ended(made: Looks, drift: float, rng, count: int):
    """Simulated studies: the look at which each ends, and its Z there."""
    t = np.asarray(made.shares)
    steps = np.diff(t, prepend=0)
    motion = np.cumsum(rng.normal(drift * steps, np.sqrt(steps), (count, len(t))), axis=1)
    z = motion / np.sqrt(t)
    crossed = np.abs(z) >= np.asarray(made.bounds)
    crossed[:, -1] = True
    at = crossed.argmax(1)
    return at, z[np.arange(count), at]


@pytest.mark.parametrize("drift", [0.0, 2.0, 4.0])
def test_intervals_after_the_last_look_hold_the_truth_as_often_as_they_say(drift):
    """The chance of an end as high as the one seen is uniform, so the interval's coverage is exact."""
    made, rng = looks([0.25, 0.5, 1.0]), np.random.default_rng(0)
    at, z = ended(made, drift, rng, 4000)
    chances = np.empty(len(z))
    for k in range(3):
        own = Looks(made.shares[: k + 1], made.bounds[: k + 1], made.alpha)
        chances[at == k] = [own.above(value, drift) for value in z[at == k]]
    inside = np.mean((chances >= 0.025) & (chances <= 0.975))
    assert abs(inside - 0.95) < 4 * math.sqrt(0.95 * 0.05 / len(z))
    assert abs(chances.mean() - 0.5) < 0.02
