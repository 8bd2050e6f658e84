import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression_gap.information.rate_distortion import gaussian_rate, water_level


def test_a_white_source_costs_half_a_log_a_dimension():
    assert gaussian_rate(np.eye(8), 0.25) == pytest.approx(8 * 0.5 * np.log2(4))
    assert gaussian_rate(4 * np.eye(3), 1) == pytest.approx(3)


def test_no_bits_are_needed_at_the_variance_or_beyond():
    assert gaussian_rate(np.eye(4), 1) == 0
    assert gaussian_rate(np.eye(4), 5) == 0
    assert gaussian_rate(np.zeros((3, 3)), 0.1) == 0


def test_no_distortion_costs_everything():
    assert gaussian_rate(np.eye(2), 0) == float("inf")


def test_the_small_components_drown_first():
    """Variances 4 and 1 at distortion 1.5: the water stands at 2, above the smaller one."""
    assert water_level(np.array([4, 1]), 1.5) == pytest.approx(2)
    assert gaussian_rate(np.diag([4.0, 1.0]), 1.5) == pytest.approx(0.5)


def test_a_rotation_changes_nothing():
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    spectrum = np.diag([9, 4, 1, 0.5, 0.1, 0.0])
    assert gaussian_rate(q @ spectrum @ q.T, 0.3) == pytest.approx(gaussian_rate(spectrum, 0.3))


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12), st.floats(0.001, 0.999))
def test_the_water_gives_the_distortion_that_was_asked_for(eigenvalues, share):
    values = np.array(eigenvalues)
    distortion = share * values.mean()
    level = water_level(values, distortion)
    assert np.minimum(values, level).mean() == pytest.approx(distortion)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=12), st.floats(0.01, 0.9))
def test_less_distortion_costs_more(eigenvalues, share):
    covariance, variance = np.diag(eigenvalues), float(np.mean(eigenvalues))
    assert gaussian_rate(covariance, 0.5 * share * variance) > gaussian_rate(covariance, share * variance)
