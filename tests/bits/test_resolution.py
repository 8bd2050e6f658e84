import numpy as np
import pytest

from compression_gap.bits.resolution import crossing, disturbance, error_factor, task_resolution
from compression_gap.demos import Normaliser
from compression_gap.errors import UserError

SIGMAS = (0.1, 0.2, 0.4, 0.8)
UNITS = Normaliser(*(np.array(v, np.float32) for v in ([1.0, 2.0], [0.5, 2.0], [-3, -3], [3, 3])))


def test_a_crossing_is_linear_in_the_logarithm():
    # 1 at 0.2 and 0 at 0.4: half way in ln x is 0.2·√2.
    found = crossing(SIGMAS, np.array([1.0, 1.0, 0.0, 0.0]), 0.5)
    assert found.value == pytest.approx(0.2 * np.sqrt(2))
    assert found.bound == ""


def test_a_curve_that_rises_somewhere_is_pooled_first():
    # 0.6 and 0.8 pool to 0.7.
    found = crossing(SIGMAS, np.array([1.0, 0.6, 0.8, 0.1]), 0.75)
    share = (1.0 - 0.75) / 0.3
    assert found.value == pytest.approx(0.1 * 2**share)


def test_beyond_the_grid_the_answer_is_a_bound():
    assert crossing(SIGMAS, np.array([0.2, 0.1, 0.1, 0.0]), 0.5) == crossing(SIGMAS, np.zeros(4), 0.1)
    assert crossing(SIGMAS, np.zeros(4), 0.1).bound == "below"
    above = crossing(SIGMAS, np.ones(4), 0.5)
    assert (above.value, above.bound) == (0.8, "above")


def test_the_task_s_resolution_is_where_a_twentieth_of_success_is_lost():
    states = np.arange(200)
    success = np.stack([(states % 100 >= lost).astype(float) for lost in (0, 2, 10, 60)])
    found = task_resolution(SIGMAS, success, np.ones(200), np.repeat([0, 1], 100))
    np.testing.assert_allclose(found.rates, [1.0, 0.98, 0.9, 0.4])
    assert found.value == pytest.approx(0.2 * 2 ** (0.03 / 0.08))
    assert found.low < found.value < found.high
    assert found.bound == ""


def test_the_interval_covers_the_true_resolution():
    true = np.array([1.0, 0.97, 0.9, 0.3])  # of the population; 0.95 of 1 is crossed between 0.2 and 0.4
    at, covered = 0.2 * 2 ** (0.02 / 0.07), 0
    rng = np.random.default_rng(0)
    for _ in range(120):
        hard = rng.random(150)
        found = task_resolution(
            SIGMAS, (hard < true[:, None]).astype(float), np.ones(150), np.zeros(150), draws=200
        )
        covered += found.low <= at <= found.high
    assert covered / 120 >= 0.88


def test_an_expert_that_never_succeeds_has_no_resolution():
    with pytest.raises(UserError, match="never succeeds"):
        task_resolution(SIGMAS, np.zeros((4, 5)), np.zeros(5), np.zeros(5))


@pytest.mark.parametrize("kind", ["white", "offset"])
def test_noise_has_the_size_that_is_asked_for_in_each_dimension_s_units(kind):
    chunks, seeds = np.zeros((4000, 6, 2), np.float32), np.arange(4000)
    noise = disturbance(kind, 0.3, UNITS)(chunks, seeds)
    np.testing.assert_allclose(noise.std((0, 1)), 0.3 * UNITS.std, rtol=0.05)
    constant = np.ptp(noise, axis=1).max() < 1e-6
    assert constant == (kind == "offset")


def test_noise_like_a_code_s_error_has_its_covariance():
    rng = np.random.default_rng(1)
    errors = rng.standard_normal((5000, 1, 2)) @ np.array([[1.0, 0.8], [0.0, 0.2]])
    units = Normaliser(*(np.array(v, np.float32) for v in ([0, 0], [1, 1], [-3, -3], [3, 3])))
    noise = disturbance("code", 0.5, units, factor=error_factor(errors))(
        np.zeros((8000, 1, 2), np.float32), np.arange(8000)
    )
    flat, wanted = noise[:, 0], errors[:, 0].T @ errors[:, 0] / 5000
    found = flat.T @ flat / 8000
    np.testing.assert_allclose(found, wanted * 0.25 / (np.trace(wanted) / 2), atol=0.02)


def test_a_row_s_noise_is_its_seed_s_and_grows_with_sigma_alone():
    chunks = np.zeros((3, 4, 2), np.float32)
    small, large = (disturbance("white", s, UNITS)(chunks, np.array([5, 6, 7])) for s in (0.1, 0.2))
    np.testing.assert_allclose(2 * small, large, rtol=1e-6)
    alone = disturbance("white", 0.1, UNITS)(chunks[:1], np.array([6]))
    np.testing.assert_array_equal(alone[0], small[1])
    one = disturbance("white", 0.1, UNITS, dimension=1)(chunks, np.array([5, 6, 7]))
    assert (one[..., 0] == 0).all()
    np.testing.assert_array_equal(one[..., 1], small[..., 1])


def test_an_unknown_disturbance_names_those_that_are_known():
    with pytest.raises(UserError, match="white, offset, code"):
        disturbance("pink", 0.1, UNITS)
