import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression_gap.information.entropy import miller_madow, plugin_entropy, positions


def test_known_entropies():
    assert plugin_entropy(np.array([5, 5])) == pytest.approx(1)
    assert plugin_entropy(np.array([7, 0, 0])) == 0
    assert plugin_entropy(np.array([1, 1, 2])) == pytest.approx(1.5)
    assert plugin_entropy(np.full(1000, 3)) == pytest.approx(math.log2(1000))


def test_the_correction_is_miller_s():
    counts = np.array([10, 20, 30, 0])
    assert miller_madow(counts) == pytest.approx(plugin_entropy(counts) + 2 / (2 * 60 * math.log(2)))


def test_the_correction_never_goes_beyond_the_capacity():
    assert miller_madow(np.ones(16, int)) == 4


def test_the_correction_comes_closer_to_the_truth_than_the_plug_in():
    """A uniform source of 64 codes, 200 draws, many times over."""
    rng = np.random.default_rng(0)
    draws = [np.bincount(rng.integers(64, size=200), minlength=64) for _ in range(200)]
    plugin = np.mean([plugin_entropy(c) for c in draws])
    corrected = np.mean([plugin_entropy(c) + (np.count_nonzero(c) - 1) / (400 * math.log(2)) for c in draws])
    capped = np.mean([miller_madow(c) for c in draws])
    assert 6 - plugin > 0.15
    assert abs(6 - corrected) < 0.05
    assert plugin < capped <= 6


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 50), min_size=2, max_size=30).filter(any))
def test_bounds_hold_for_any_counts(counts):
    counts = np.array(counts)
    assert 0 <= plugin_entropy(counts) <= math.log2(np.count_nonzero(counts)) + 1e-9
    assert plugin_entropy(counts) <= miller_madow(counts) + 1e-12 or miller_madow(counts) == math.log2(
        len(counts)
    )


def test_positions_of_a_code_of_one_length():
    ids = np.array([[0, 3], [1, 3], [0, 3], [1, 3]])
    first, second = positions(ids, np.full(4, 2), (2, 5))
    assert (first.codes, first.used, first.dead) == (2, 2, 0)
    assert first.entropy == 1  # the correction would go beyond one bit
    assert first.perplexity == 2
    assert (second.used, second.dead, second.entropy, second.perplexity) == (1, 4, 0, 1)


def test_in_ragged_codes_the_end_is_a_symbol():
    """Half of the sequences end after one token: the second position holds a bit for the end alone."""
    ids = np.array([[4, 0], [4, 7]] * 500)
    first, second = positions(ids, np.array([1, 2] * 500), (8,) * 20)
    assert first.entropy == 0
    assert second.used == 1  # the padding's 0 is no token
    assert second.entropy == pytest.approx(1 + 1 / (2000 * math.log(2)))


def test_padding_does_not_count():
    clean = positions(np.array([[1, 0], [1, 1]]), np.array([1, 2]), (2, 2))
    dirty = positions(np.array([[1, 9], [1, 1]]), np.array([1, 2]), (2, 2))
    assert clean == dirty
