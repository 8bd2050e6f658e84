"""Task resolution: the noise against its covariance, crossings by hand and by brute force, coverage of intervals."""

import subprocess
import sys

import numpy as np
import pytest

from compression_gap.demos import Normaliser
from compression_gap.errors import UserError
from compression_gap.information.resolution import (
    Crossing,
    at_resolution,
    crossing,
    disturbance,
    error_factor,
    task_resolution,
)

SIGMAS = (0.1, 0.2, 0.4, 0.8)


def units(*std):
    d = len(std)
    return Normaliser(
        np.ones(d, np.float32),
        np.array(std, np.float32),
        np.full(d, -3, np.float32),
        np.full(d, 3, np.float32),
    )


UNITS = units(0.5, 2.0)


def noise(kind, sigma, rows, *, seeds=None, horizon=3, normaliser=UNITS, **options):
    """The noise alone, float64 [rows, H·d] in standardised units."""
    chunks = np.zeros((rows, horizon, len(normaliser.std)), np.float32)
    seeds = np.arange(rows) if seeds is None else np.array(seeds)
    drawn = disturbance(kind, sigma, normaliser, **options)(chunks, seeds)
    assert drawn.dtype == np.float32
    return (drawn / normaliser.std).reshape(rows, -1).astype(np.float64)


# Crossings


def test_a_crossing_is_linear_in_the_logarithm():
    # 1 at 0.2 and 0 at 0.4: half way in ln x is 0.2·√2.
    found = crossing(SIGMAS, np.array([1.0, 1.0, 0.0, 0.0]), 0.5)
    assert found.value == pytest.approx(0.2 * np.sqrt(2))
    assert found.bound == ""


@pytest.mark.parametrize("bits", [3.0, 10.0, 17.5, 80.0])
def test_a_curve_that_is_linear_in_the_logarithm_gives_its_own_crossing(bits):
    """In the units of the codebook law: gap bits against used bits, in ln x a line that is 0 at ``bits``·e."""
    used = np.geomspace(1, 500, 9)
    found = crossing(used, 4 * (1 + np.log(bits) - np.log(used)), 4.0)
    assert found.value == pytest.approx(bits)
    assert found.bound == ""


def test_a_curve_that_rises_somewhere_is_pooled_first():
    # 0.6 and 0.8 pool to 0.7.
    found = crossing(SIGMAS, np.array([1.0, 0.6, 0.8, 0.1]), 0.75)
    assert found.value == pytest.approx(0.1 * 2 ** (0.25 / 0.3))
    # 0.2, 0.5 and 0.8 pool to 0.5, and the answer is where that plateau ends.
    found = crossing(SIGMAS, np.array([0.2, 0.5, 0.8, 0.0]), 0.5)
    assert found == Crossing(pytest.approx(0.4), "")


def test_a_level_that_is_just_held_is_held_to_the_end_of_its_plateau():
    found = crossing(SIGMAS, np.array([1.0, 0.95, 0.95 - 1e-13, 0.2]), 0.95)
    assert found.value == pytest.approx(0.4)
    assert crossing(SIGMAS, np.full(4, 0.95 - 1e-13), 0.95) == Crossing(0.8, "above")


def test_a_crossing_is_the_last_x_at_the_level_by_brute_force():
    """Isotonic regression by its minimax formula, interpolated on a fine grid."""
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        x, y, level = (
            np.sort(rng.uniform(0.05, 5, 6)),
            rng.random(6) - np.arange(6) / 6,
            rng.uniform(-0.6, 0.8),
        )
        means = [[y[i : j + 1].mean() if i <= j else np.nan for j in range(6)] for i in range(6)]
        fit = [max(min(means[i][j] for i in range(k + 1)) for j in range(k, 6)) for k in range(6)]
        fine = np.linspace(np.log(x[0]), np.log(x[-1]), 20_001)
        held = np.interp(fine, np.log(x), fit) >= level
        found = crossing(x, y, level)
        seen.add(found.bound)
        if found.bound == "below":
            assert fit[0] < level
            assert found.value == x[0]
        elif found.bound == "above":
            assert fit[-1] >= level
            assert found.value == x[-1]
        else:
            assert held[0]
            assert not held[-1]
            assert np.log(found.value) == pytest.approx(fine[held][-1], abs=2 * (fine[1] - fine[0]))
    assert seen == {"", "below", "above"}


def test_beyond_the_grid_the_answer_is_a_bound():
    assert crossing(SIGMAS, np.array([0.2, 0.1, 0.1, 0.0]), 0.5) == Crossing(0.1, "below")
    assert crossing(SIGMAS, np.ones(4), 0.5) == Crossing(0.8, "above")
    assert crossing(SIGMAS, np.array([1.0, 1.0, 0.8, 0.5]), 0.5) == Crossing(0.8, "above")


@pytest.mark.parametrize("grid", [[0.0, 0.1], [0.2, 0.1], [0.1, 0.1], [-1.0, 1.0], [0.1, np.nan]])
def test_a_grid_that_has_no_logarithm_or_no_order_is_refused(grid):
    with pytest.raises(UserError, match="must be positive and increasing"):
        crossing(grid, np.array([1.0, 0.0]), 0.5)


def test_a_curve_with_a_failed_run_is_refused():
    with pytest.raises(UserError, match="must be finite"):
        crossing(SIGMAS, np.array([1.0, np.nan, 0.5, 0.0]), 0.5)
    with pytest.raises(ValueError, match="a curve of shape"):
        crossing(SIGMAS, np.ones(3), 0.5)


# The task's resolution


GRID = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


def logistic(sigma, half, k):
    return 1 / (1 + (np.asarray(sigma) / half) ** k)


def survival(sigma, half, k):
    """Weibull's: another form than the curve that is fitted."""
    return 0.5 ** ((np.asarray(sigma) / half) ** k)


def true_resolution(curves, share=0.95):
    """Where the mean over tasks falls below the share, by bisection."""
    low, high = 1e-3, 50.0
    for _ in range(100):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if np.mean([c(middle) for c in curves]) >= share else (low, middle)
    return low


def outcomes(curves, states, rng, plain=0.98, paired=0.5):
    """Success [S + 1, states] over GRID and undisturbed, and tasks: a share of each outcome is its state's own."""
    p = np.array([[plain * c(s) for s in GRID] + [plain] for c in curves])
    strata = np.repeat(np.arange(len(curves)), states // len(curves))
    shape = (len(GRID) + 1, len(strata))
    hard = np.where(rng.random(shape) < paired, rng.random(shape[1]), rng.random(shape))
    return (hard < p[strata].T).astype(float), strata


def one(form, half, k):
    return [lambda s: form(s, half, k)]


@pytest.mark.parametrize("curves", [one(logistic, 1.15, 3), one(logistic, 0.7, 6), one(survival, 0.5, 3)])
def test_of_exact_rates_the_curve_gives_the_true_resolution(curves):
    """As many states as make rates exact, against bisection on the truth."""
    states = 20_000
    rates = [c for c in (np.mean([f(s) for f in curves]) for s in GRID)]
    success = np.stack([(np.arange(states) < r * states).astype(float) for r in rates])
    found = task_resolution(GRID, success, np.ones(states), np.zeros(states), draws=20)
    assert found.value == pytest.approx(true_resolution(curves), rel=0.06)
    assert found.bound == ""


@pytest.mark.parametrize(
    ("curves", "bias"),
    [
        (one(logistic, 1.15, 3), 0.1),  # σ* = 0.431
        (one(logistic, 0.23, 6), 0.1),
        (one(survival, 0.5, 3), 0.1),
        ([lambda s: logistic(s, 0.2, 6), lambda s: logistic(s, 0.8, 6)], 0.1),
    ],
)
def test_the_interval_covers_the_true_resolution_and_the_value_is_nearly_unbiased(curves, bias):
    """60 initial states for each σ, half of each outcome the state's own; nominally 95 %."""
    truth, rng, cases = true_resolution(curves), np.random.default_rng(0), 60
    values, covered = [], 0
    for case in range(cases):
        every, strata = outcomes(curves, 60, rng)
        found = task_resolution(GRID, every[:-1], every[-1], strata, draws=120, seed=case)
        values.append(np.log(found.value / truth))
        covered += found.low <= truth <= found.high
    assert abs(np.median(values)) < bias
    assert covered / cases >= 0.88  # 95 % less two and a half standard errors


def test_the_draws_carry_the_interval():
    every, strata = outcomes(one(logistic, 0.7, 6), 60, np.random.default_rng(1))
    found = task_resolution(GRID, every[:-1], every[-1], strata)
    np.testing.assert_allclose(np.percentile(found.draws, [2.5, 97.5]), [found.low, found.high])
    assert "draws" not in found.as_json()
    assert found.low < found.value < found.high


def test_tasks_count_alike_however_many_states_they_have():
    """The same rates of task a from 20 states or from 200: the value stays, and rates are means over tasks."""

    def task(states, half):
        return np.stack([(np.arange(states) < logistic(s, half, 5) * states).astype(float) for s in GRID])

    b = task(200, 0.6)
    found = {}
    for states in (20, 200):
        success = np.hstack([task(200, 0.2)[:, :: 200 // states], b])
        strata = np.array(["a"] * states + ["b"] * 200)
        order = np.random.default_rng(0).permutation(len(strata))
        for rows in (np.arange(len(strata)), order):
            at = task_resolution(GRID, success[:, rows], np.ones(len(rows)), strata[rows], draws=20)
            found.setdefault(states, []).append(at)
        wanted = [success[:, strata == t].mean(1) for t in "ab"]
        np.testing.assert_allclose(found[states][0].rates, np.mean(wanted, 0))
        assert found[states][0].value == pytest.approx(found[states][1].value)
    # Were states counted alike, the 20 would hardly matter, and σ* be near that of task b, 0.33.
    assert 0.1 < found[200][0].value < 0.17
    assert 0.1 < found[20][0].value < 0.2


def test_the_level_moves_with_the_undisturbed_success():
    """Noise that costs nothing leaves σ* open, whatever the expert's own success; noise that costs all, too."""
    fails = (np.arange(60) % 5 == 0).astype(float)
    found = task_resolution(SIGMAS, np.tile(1 - fails, (4, 1)), 1 - fails, np.zeros(60))
    assert (found.value, found.high, found.bound) == (0.8, 0.8, "above")
    assert found.low > 0.3
    found = task_resolution(SIGMAS, np.zeros((4, 60)), 1 - fails, np.zeros(60))
    assert (found.value, found.low, found.bound) == (0.1, 0.1, "below")


def test_an_interval_that_reaches_the_grid_s_end_touches_it():
    success = np.ones((4, 100))
    success[3, :6] = 0  # 0.94 at the last: many resamples hold 0.95 there
    found = task_resolution(SIGMAS, success, np.ones(100), np.zeros(100))
    assert found.high == 0.8
    assert 0.3 < found.low < found.value


def test_a_rare_success_still_has_an_interval():
    plain = (np.arange(20) == 3).astype(float)
    found = task_resolution(
        SIGMAS, np.stack([plain, plain, plain, 0 * plain]), plain, np.zeros(20), draws=200
    )
    assert found.low < found.value < found.high
    assert found.low == 0.1  # one success says next to nothing
    assert np.isfinite(found.draws).all()


def test_values_are_read_between_resolutions_in_the_logarithm():
    values = np.array([[1.0, 3.0, 4.0], [0.0, 0.0, 8.0]])
    grid = (0.1, 0.2, 0.4)
    np.testing.assert_allclose(at_resolution(values, grid, 0.1 * 2**0.5), [2.0, 0.0])
    many = at_resolution(values, grid, np.array([0.05, 0.2, 0.2 * 2**0.25, 9.0]))
    np.testing.assert_allclose(many, [[1, 3, 3.25, 4], [0, 0, 2, 8]])


def test_the_same_seed_gives_the_same_interval():
    success = np.random.default_rng(0).random((4, 50)) < np.array([1.0, 0.97, 0.8, 0.3])[:, None]
    one, two = (task_resolution(SIGMAS, success, np.ones(50), np.zeros(50), draws=100) for _ in range(2))
    other = task_resolution(SIGMAS, success, np.ones(50), np.zeros(50), draws=100, seed=1)
    assert (one.low, one.high) == (two.low, two.high)
    assert (one.low, one.high) != (other.low, other.high)
    assert one.value == other.value


def test_outcomes_that_say_nothing_are_refused():
    with pytest.raises(UserError, match="never succeeds"):
        task_resolution(SIGMAS, np.zeros((4, 5)), np.zeros(5), np.zeros(5))
    with pytest.raises(UserError, match="not within 0 and 1"):
        task_resolution(SIGMAS, np.full((4, 5), np.nan), np.ones(5), np.zeros(5))
    with pytest.raises(UserError, match="share is 95"):
        task_resolution(SIGMAS, np.ones((4, 5)), np.ones(5), np.zeros(5), share=95)
    with pytest.raises(ValueError, match="outcomes for 3 sigmas and 5 states"):
        task_resolution(SIGMAS[:3], np.ones((4, 5)), np.ones(5), np.zeros(5))


# The noise


def test_white_noise_is_independent_in_every_entry():
    drawn = noise("white", 0.3, 12_000)
    np.testing.assert_allclose(drawn.mean(0), 0, atol=0.3 * 4 / np.sqrt(12_000))
    np.testing.assert_allclose(np.cov(drawn.T), 0.09 * np.eye(6), atol=0.09 * 5 * np.sqrt(2 / 12_000))


def test_an_offset_is_constant_over_the_chunk_and_independent_over_dimensions():
    drawn = noise("offset", 0.3, 12_000).reshape(-1, 3, 2)
    assert np.ptp(drawn, axis=1).max() < 1e-6
    np.testing.assert_allclose(np.cov(drawn[:, 0].T), 0.09 * np.eye(2), atol=0.09 * 5 * np.sqrt(2 / 12_000))


def test_noise_like_a_code_s_error_has_its_covariance_but_for_its_size():
    rng = np.random.default_rng(1)
    errors = 0.02 * rng.standard_normal((500, 3, 2)).cumsum(1) * [1, 3] + 0.01  # grows over the chunk; biased
    flat = errors.reshape(500, 6)
    moment = flat.T @ flat / 500
    factor = error_factor(errors)
    np.testing.assert_allclose(factor @ factor.T, moment, atol=1e-12)
    drawn = noise("code", 0.5, 12_000, factor=factor)
    wanted = moment * 0.25 / (np.trace(moment) / 6)
    spread = np.sqrt(np.diag(wanted))
    np.testing.assert_allclose(
        np.cov(drawn.T) / np.outer(spread, spread),
        wanted / np.outer(spread, spread),
        atol=5 * np.sqrt(2 / 12_000),
    )
    assert (drawn**2).mean() == pytest.approx(0.25, rel=0.04)


def test_fewer_errors_than_entries_span_only_their_own_directions():
    errors = np.random.default_rng(2).standard_normal((2, 3, 2))
    factor = error_factor(errors)
    flat = errors.reshape(2, 6)
    np.testing.assert_allclose(factor @ factor.T, flat.T @ flat / 2, atol=1e-12)
    drawn = noise("code", 0.5, 50, factor=factor)
    assert np.linalg.matrix_rank(drawn, tol=1e-4) == 2


def kinds():
    factor = error_factor(np.random.default_rng(3).standard_normal((40, 3, 2)))
    return [("white", {}), ("offset", {}), ("code", {"factor": factor})]


@pytest.mark.parametrize(("kind", "options"), kinds())
def test_a_row_s_noise_is_its_seed_s_alone(kind, options):
    together = noise(kind, 0.1, 3, seeds=[5, 6, 2**62], **options)
    for row, seed in enumerate([5, 6, 2**62]):
        np.testing.assert_array_equal(noise(kind, 0.1, 1, seeds=[seed], **options)[0], together[row])
    swapped = noise(kind, 0.1, 3, seeds=[2**62, 6, 5], **options)
    np.testing.assert_array_equal(swapped, together[::-1])
    assert np.abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.parametrize(("kind", "options"), kinds())
def test_a_grid_of_sigmas_is_paired(kind, options):
    one = noise(kind, 1.0, 4, **options)
    for sigma in (0.0, 0.05, 0.4):
        np.testing.assert_allclose(noise(kind, sigma, 4, **options), sigma * one, rtol=1e-5)


def test_noise_is_added_to_raw_actions_and_sigma_0_leaves_them_alone():
    chunks = np.random.default_rng(0).uniform(-1, 1, (4, 3, 2)).astype(np.float32)
    before = chunks.copy()
    for kind, options in kinds():
        np.testing.assert_array_equal(disturbance(kind, 0.0, UNITS, **options)(chunks, np.arange(4)), chunks)
        drawn = disturbance(kind, 0.2, UNITS, **options)(chunks, np.arange(4))
        added = ((drawn - chunks) / UNITS.std).reshape(4, 6)
        np.testing.assert_allclose(added, noise(kind, 0.2, 4, **options), atol=1e-5)
    np.testing.assert_array_equal(chunks, before)  # not in place


@pytest.mark.parametrize("kind", ["white", "offset"])
def test_one_dimension_can_be_disturbed_alone(kind):
    both = noise(kind, 0.1, 3).reshape(3, 3, 2)
    one = noise(kind, 0.1, 3, dimension=1).reshape(3, 3, 2)
    assert (one[..., 0] == 0).all()
    np.testing.assert_array_equal(one[..., 1], both[..., 1])


def test_disturbances_that_cannot_be_are_refused():
    with pytest.raises(UserError, match="no disturbance 'pink'; known: white, offset, code"):
        disturbance("pink", 0.1, UNITS)
    with pytest.raises(UserError, match=r"sigma is -0\.1"):
        disturbance("white", -0.1, UNITS)
    with pytest.raises(UserError, match="choose one of 0 to 1"):
        disturbance("white", 0.1, UNITS, dimension=2)
    with pytest.raises(UserError, match="white or offset noise"):
        disturbance("code", 0.1, UNITS, dimension=0, factor=np.eye(6))
    with pytest.raises(UserError, match="the code has no error"):
        disturbance("code", 0.1, UNITS, factor=np.zeros((6, 6)))
    with pytest.raises(UserError, match="none or not finite"):
        error_factor(np.full((2, 3, 2), np.nan))
    with pytest.raises(UserError, match="none or not finite"):
        error_factor(np.zeros((0, 3, 2)))
    for kind, factor in (("code", None), ("white", np.eye(6))):
        with pytest.raises(ValueError, match="the error's factor"):
            disturbance(kind, 0.1, UNITS, factor=factor)


def test_resolution_needs_no_torch():
    code = "import sys, compression_gap.information.resolution; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
