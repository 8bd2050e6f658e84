"""Known information among many columns: its truth, and that width costs little."""

import numpy as np
import pytest

from compression_gap.information.denoising import Denoising
from compression_gap.information.wide import SIGMA, Wide, measured

QUICK = Denoising(10, 2, 20, batch_size=64, width=32, layers=1, neighbours=256)


def test_the_information_is_that_of_the_sample_covariance():
    setting = Wide(0, episodes=4000)
    a, c, z = setting.draw(np.random.default_rng(0))
    assert z is c
    a, c = a.reshape(-1, a.shape[2]), c.reshape(-1, 3)
    noise = SIGMA**2 * np.eye(a.shape[1])
    left = a - c @ np.linalg.lstsq(c, a, rcond=None)[0]
    bits = 0.5 * np.log2(np.linalg.det(np.cov(a.T) + noise) / np.linalg.det(np.cov(left.T) + noise))
    assert setting.bits == pytest.approx(4.38, abs=1e-6)
    assert bits == pytest.approx(setting.bits, abs=0.05)


def test_features_hold_the_numbers_whatever_the_spectrum():
    for spectrum in ("power law", "white"):
        _, c, z = Wide(30, spectrum, 40).draw(np.random.default_rng(1))
        z, c = z.reshape(-1, 33), c.reshape(-1, 3)
        left = c - z @ np.linalg.lstsq(z, c, rcond=None)[0]
        assert np.square(left).mean() < 1e-10


def test_width_costs_little_and_a_worthless_upgrade_is_held_at_zero():
    found = measured(Wide(61, "white", 100), 0, QUICK)
    assert found["wide"].value == pytest.approx(found["alone"].value, abs=0.6)
    assert found["upgrade"].low <= 0 <= found["upgrade"].high
    assert found["upgrade"].value == pytest.approx(found["alone"].value - found["wide"].value)


def test_what_is_lost_at_a_width_is_seen_and_flagged():
    """Three training episodes among 300 columns: next to nothing is found, and the estimate says so."""
    found = measured(Wide(300, "white", 12), 0, QUICK)
    wide = found["wide"]
    assert wide.missing > 0.5
    assert wide.converged is False
    assert wide.high >= found["alone"].value
