import numpy as np
import pytest
from scipy.stats import norm

from compression_gap.errors import UserError
from compression_gap.information import channel_truth as channel
from compression_gap.information.channel_truth import ChannelTruth, both, cells
from compression_gap.sims import SimSpec, make_sim
from compression_gap.sims.channel import EPSILON, optimal_success, quantise

WHERE = channel.goals()
FINE, COARSE = (ChannelTruth(np.array([0.5, 0.5]), s) for s in (0.02, 0.2))


def test_the_expert_s_chunk_is_the_simulator_s():
    sim = make_sim(SimSpec(sim="channel", tasks=("reach",), image_size=8))
    sim.reset("reach", 3)
    expert, actions = sim.expert(), []
    for _ in range(16):
        actions.append(expert.act(sim))
        sim.step(actions[-1])
    found = channel.chunks(sim.goal[None])[0]
    np.testing.assert_allclose(found, np.stack(actions), atol=1e-6)
    np.testing.assert_allclose(channel.end_points(found[None])[0], sim.goal, atol=1e-6)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_a_quantised_goal_tells_its_bits_at_a_fine_resolution(bits):
    assert FINE.information(cells(bits, WHERE)) == pytest.approx(2 * bits, abs=0.35)
    assert FINE.information(cells(bits, WHERE)) > COARSE.information(cells(bits, WHERE))


@pytest.mark.parametrize(("z", "t"), [(3, 1), (2, 1), (1, 3), (2, 2)])
def test_the_gap_of_nested_quantisers_is_what_the_encoder_has_beyond_the_code(z, t):
    assert FINE.gap(cells(z, WHERE), cells(t, WHERE)) == pytest.approx(2 * max(0, z - t), abs=0.25)


def test_a_stripe_is_one_dimension_s_entropy():
    """Cells that cut x alone: the integral in one dimension, by another route."""
    truth = ChannelTruth(np.array([0.6, 0.6]), 0.15)
    spread = float(truth.noise[0])
    x = np.linspace(-1 - 8 * spread, 1 + 8 * spread, 40_001)

    def entropy(low, high):
        p = (norm.cdf((high - x) / spread) - norm.cdf((low - x) / spread)) / (high - low)
        p = np.maximum(p, 1e-300)
        return float(-np.trapezoid(p * np.log2(p), x))

    expected = entropy(-1, 1) - np.mean([entropy(-1 + 0.5 * i, -0.5 + 0.5 * i) for i in range(4)])
    stripes = np.clip(np.floor((WHERE[:, 0] + 1) * 2), 0, 3).astype(int)
    assert truth.information(stripes) == pytest.approx(expected, abs=0.01)


def test_information_obeys_data_processing():
    rng = np.random.default_rng(0)
    centres = rng.uniform(-1, 1, (12, 2))
    patches = np.linalg.norm(WHERE[:, None] - centres, axis=2).argmin(1)
    merged = patches // 2
    assert COARSE.information(merged) < COARSE.information(patches) < COARSE.demand()
    assert COARSE.information(patches) <= np.log2(12)
    assert COARSE.information(both(patches, merged)) == pytest.approx(COARSE.information(patches))
    assert COARSE.gap(merged, patches) == pytest.approx(0, abs=1e-9)
    assert COARSE.information(np.zeros(len(WHERE))) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_success_of_a_policy_that_draws_from_its_cell(bits):
    """Two points of one cell of width w lie within ε in a dimension with probability 2r − r², r = ε / w."""
    r = min(1.0, EPSILON * 2**bits / 2)
    found = channel.success_sampling(cells(bits, WHERE), WHERE)
    assert found == pytest.approx((2 * r - r**2) ** 2, abs=0.01)


def test_success_through_a_code_that_is_coarser_than_what_is_seen():
    # The middle of a cell of width 1: the share of it within ε is 2ε, in each dimension.
    found = channel.success_sampling(np.arange(len(WHERE)), quantise(WHERE, 1))
    assert found == pytest.approx((2 * EPSILON) ** 2, abs=0.003)


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.5])
def test_the_grid_s_integral_is_the_product_formula(sigma):
    truth = ChannelTruth(np.array([0.25, 0.4]), sigma)
    for bits in range(1, 7):
        expected = truth.supply_bits(bits)
        assert truth.information(cells(bits, WHERE)) == pytest.approx(expected, abs=0.001), bits


def test_an_irregular_partition_by_monte_carlo():
    """Discs in two unlike dimensions, so that no cell is a rectangle, with noise below one grid square."""
    truth, rng = ChannelTruth(np.array([0.25, 0.4]), 0.05), np.random.default_rng(7)
    labels = (np.linalg.norm(WHERE, axis=1) * 4).astype(int)
    n = 6000
    picks = rng.integers(len(WHERE), size=n)
    half = 1 / channel.GRID
    y = WHERE[picks] + rng.uniform(-half, half, (n, 2)) + truth.noise * rng.standard_normal((n, 2))
    edges = np.linspace(-1, 1, channel.GRID + 1)
    rows, columns = (np.diff(norm.cdf((edges - y[:, k, None]) / truth.noise[k]), axis=1) for k in range(2))
    cell = (labels == np.arange(labels.max() + 1)[:, None]).reshape(-1, channel.GRID, channel.GRID)
    near = np.stack([((rows @ c) * columns).sum(1) for c in cell.astype(float)], 1)  # y's mass in each cell
    own = near[np.arange(n), labels[picks]] / cell.mean((1, 2))[labels[picks]]
    found = np.log2(own / near.sum(1))
    error = found.std() / np.sqrt(n)
    assert error < 0.012
    assert found.mean() == pytest.approx(truth.information(labels), abs=3 * error)


def test_mutual_information_of_nested_and_of_crossed_partitions():
    assert channel.mutual_information(cells(3, WHERE), cells(2, WHERE)) == pytest.approx(4)
    rows, columns = (np.floor((WHERE[:, k] + 1) * 2) for k in range(2))
    assert channel.mutual_information(rows, columns) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 4, 5])
def test_the_middle_of_a_cell_is_as_good_as_any_policy_that_knows_it(bits):
    assert channel.success_median(cells(bits, WHERE)) == pytest.approx(optimal_success(bits), abs=0.002)


def test_the_middle_sent_through_a_code():
    # Cells of width 1/2 through a code of width 2: all end at 0, and 2ε of the square's 2 lie within ε.
    found = channel.success_median(cells(2, WHERE), quantise(WHERE, 0))
    assert found == pytest.approx(EPSILON**2, abs=0.001)


def test_labels_that_are_not_the_grid_s_are_refused():
    with pytest.raises(UserError, match="label channel_truth"):
        COARSE.information(np.zeros(100))
