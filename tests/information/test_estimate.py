import numpy as np
import pytest

from compression_gap.information.estimate import drawn_interval, estimate, extrapolated, resampled, seed_error


def test_the_interval_is_over_episodes_and_not_over_frames():
    rng = np.random.default_rng(0)
    of_episode = rng.standard_normal(40)
    values, episode = np.repeat(of_episode, 50), np.repeat(np.arange(40), 50)
    low, high = drawn_interval(values, episode)
    half = 1.96 * of_episode.std(ddof=1) / np.sqrt(40)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def test_intervals_cover_the_mean():
    rng, covered = np.random.default_rng(1), 0
    for _ in range(300):
        effect = rng.standard_normal(25)
        values = np.repeat(effect, 4) + rng.standard_normal(100)
        low, high = drawn_interval(values, np.repeat(np.arange(25), 4))
        covered += low <= 0 <= high
    assert 0.9 <= covered / 300 <= 0.98


def test_an_estimate_that_still_moves_is_widened_to_where_it_goes():
    episode = np.arange(400)
    values = np.random.default_rng(2).standard_normal(400) * 0.1
    found = estimate({1: values + 2.0, 2: values + 1.5, 4: values + 0.5}, episode)
    assert found.value == pytest.approx(2.0, abs=0.02)
    assert found.exponent == pytest.approx(1)  # the changes halve: 1.0, 0.5
    assert found.limit == pytest.approx(2.5, abs=0.02)
    assert found.high == pytest.approx(2.5, abs=0.05)
    assert found.low == pytest.approx(2.0, abs=0.05)
    assert found.converged is False
    assert list(found.by_share) == [4, 2, 1]
    assert (found.chunks, found.episodes) == (400, 400)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.7])
def test_the_limit_of_a_power_law_is_found(exponent):
    values = {k: 3.0 - 2.0 * (1 / k) ** -exponent for k in (1, 2, 4)}
    limit, found = extrapolated(values)
    assert found == pytest.approx(exponent)
    assert limit == pytest.approx(3.0)


def test_changes_that_grow_or_turn_are_taken_to_be_slow():
    for before, last in ((0.1, 0.4), (-0.1, 0.4)):
        limit, exponent = extrapolated({4: 0.0, 2: before, 1: before + last})
        assert exponent == 0.5
        assert limit == pytest.approx(before + last + last / (2**0.5 - 1))


def test_an_estimate_that_stands_is_converged():
    values = np.random.default_rng(3).standard_normal(400)
    found = estimate({1: values, 2: values + 0.001}, np.arange(400), ceiling=5.0, probe=values + 1)
    assert found.converged is True
    assert found.ceiling == 5.0
    assert found.probe == pytest.approx(values.mean() + 1)
    assert estimate({1: values}, np.arange(400)).converged is None


def test_a_small_value_that_doubles_is_not_converged_however_wide_its_interval():
    """Chunks that differ widely, all of which still gain: the change is judged chunk by chunk."""
    rng = np.random.default_rng(5)
    episode, values = np.repeat(np.arange(20), 20), 2 * rng.standard_normal(400)
    found = estimate({1: values + 0.6, 2: values + 0.3, 4: values + 0.0}, episode)
    assert found.high - found.low > 0.3
    assert found.converged is False


def test_the_spread_of_seeds_and_of_the_resolution_is_in_the_interval():
    values = np.random.default_rng(6).standard_normal(2000) * 0.01
    seeds = np.array([-0.1, 0.0, 0.1])
    assert seed_error(seeds) == pytest.approx(4.3027 * 0.1 / np.sqrt(3), rel=1e-4)
    found = estimate({1: values}, np.arange(2000), by_seed=seeds)
    assert (found.high - found.low) / 2 == pytest.approx(seed_error(seeds), rel=0.02)
    drawn = np.random.default_rng(7).normal(0.5, 0.2, 20_000)
    found = estimate({1: values}, np.arange(2000), by_sigma=drawn)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.2, rel=0.05)


def test_what_is_missing_at_this_width_widens_one_side_and_is_flagged():
    values = np.random.default_rng(8).standard_normal(400) * 0.01
    found = estimate({1: values, 2: values}, np.arange(400), missing=(0.5, 0.0))
    assert found.high == pytest.approx(0.5, abs=0.01)
    assert found.low == pytest.approx(0, abs=0.01)
    assert (found.missing, found.converged) == (0.5, False)


def test_columns_are_resampled_together():
    values = np.random.default_rng(4).standard_normal((60, 2))
    values[:, 1] = values[:, 0] + 1
    drawn = resampled(values, np.arange(60), draws=50)
    np.testing.assert_allclose(drawn[:, 1] - drawn[:, 0], 1)


@pytest.mark.parametrize("episodes", [3, 5])
def test_intervals_of_few_episodes_cover_too(episodes):
    rng, hits = np.random.default_rng(2), 0
    for _ in range(300):
        low, high = drawn_interval(rng.standard_normal(episodes), np.arange(episodes))
        hits += low <= 0 <= high
    assert 0.91 <= hits / 300 <= 0.99


def test_one_episode_has_no_interval():
    with pytest.raises(ValueError, match="at least two"):
        estimate({1: np.arange(60.0)}, np.zeros(60))
