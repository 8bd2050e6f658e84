"""How trainings end: curves of known shape, and how often noise alone is taken for a change."""

import numpy as np
import pytest

from compression_gap.nn.convergence import SHORT_LEG, convergence, end_of_fit, in_words


@pytest.mark.parametrize(
    ("validation", "end"),
    [
        ([0.9, 0.25, 0.30, 0.45, 0.60, 0.70, 0.78, 0.84, 0.88, 0.90], "overfit"),  # from 0.25 to 0.90
        ([1.0, 0.5, 0.6, 0.9], "overfit"),
        ([0.9, 0.4, 0.25, 0.9, 0.92, 0.91, 0.90, 0.90, 0.90, 0.90], "overfit"),  # level at the end, high above
        ([1.0, 0.6, 0.4, 0.30, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25], "converged"),
        ([0.6, 0.3, 0.25, 0.25, 0.24, 0.26, 0.25, 0.24, 0.25, 0.25], "converged"),  # noise
        ([0.6, 0.3, 0.25, 0.25, 0.24, 0.26, 0.35, 0.24, 0.25, 0.25], "converged"),  # one spike that passes
        ([1.0, 0.8, 0.66, 0.55, 0.48, 0.42, 0.37, 0.33, 0.30, 0.28], "falling"),
        ([1.0, 1.0, 1.0, 0.97], "falling"),
        ([1.0, 1.0, 1.0, 0.981], "converged"),  # 2 % of the loss is the least change
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 1.0, 1.0], "falling"),  # the last quarter is two values
        ([-4.0, -5.0, -6.0, -6.5], "falling"),  # a share of the magnitude, also below zero
        ([-6.0, -6.0, -6.0, -6.05], "converged"),
        ([1.0, 1.0, 1.0], "unknown"),
        ([], "unknown"),
    ],
)  # fmt: skip
def test_ends(validation, end):
    assert convergence(validation) == end


def test_a_trend_has_no_noise_of_its_own():
    """A loss that falls fast is falling however steep its bend: second differences would take it for noise."""
    assert convergence([0.6**i for i in range(10)]) == "falling"
    assert convergence([1 + 0.6**i for i in range(40)]) == "converged"


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.1])
def test_noise_is_seldom_taken_for_a_change_and_a_change_seldom_for_noise(noise):
    """Ten losses, as studies have, with independent noise of 0.5 to 10 %; 1,000 curves of each shape."""
    rng, t = np.random.default_rng(0), np.arange(1, 11) / 10
    shapes = {
        "converged": 1 + 5 * np.exp(-12 * t),
        "overfit": np.where(t < 0.4, 0.5 - t / 1.6, 0.25 + 0.65 * (t - 0.4) / 0.6),
        "falling": 1 + 2 * np.exp(-3 * t),
    }
    right = {
        end: np.mean([convergence(c) == end for c in shape * (1 + noise * rng.standard_normal((1000, 10)))])
        for end, shape in shapes.items()
    }
    assert right["converged"] > 0.82
    assert right["overfit"] > 0.98
    assert noise == 0.1 or right["falling"] > 0.98  # of a fall of 15 % little shows through 10 % of noise


def test_the_noise_of_independent_losses_is_found_without_bias():
    x = np.diff(np.random.default_rng(0).standard_normal((200_000, 3)))
    legs = np.where(x[:, 0] * x[:, 1] < 0, np.abs(x).min(1), 0)
    assert np.mean(legs**2) == pytest.approx(SHORT_LEG, abs=0.01)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (["converged", "converged"], "converged"),
        (["overfit"], "overfit"),
        (["falling", "falling"], "still falling"),
        (["converged", "overfit"], "overfit in 1 of 2"),
        (["falling", "overfit", "converged"], "still falling in 1 of 3, overfit in 1 of 3"),
        ([], ""),
    ],
)
def test_words(ends, words):
    assert in_words(ends) == words


def test_a_fit_without_a_network_has_no_end():
    assert end_of_fit({}) is None
    assert end_of_fit({"curve": {"validation": [1.0, 0.5, 0.6, 0.9]}}) == "overfit"
