"""Truths against independent oracles: closed forms and Monte Carlo."""

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import laplace, norm

from compression_gap.errors import UserError
from compression_gap.information.known import (
    correlated,
    discrete,
    distributions,
    gaussian,
    heavy,
    mixture,
    quantised,
    ring,
)


@pytest.mark.parametrize(("dimensions", "bits"), [(1, 0.5), (2, 2.0), (8, 5.0), (32, 10.0)])
def test_a_gaussian_s_bits_are_those_of_its_sample_covariance(dimensions, bits):
    known = gaussian(dimensions, bits)
    a, c = known.draw(200_000, np.random.default_rng(0))
    noise = known.sigma**2 * np.eye(dimensions)
    joint = np.cov(np.concatenate([a, c], 1).T)
    joint[:dimensions, :dimensions] += noise
    parts = (joint[:dimensions, :dimensions], joint[dimensions:, dimensions:], joint)
    one, two, both = (np.linalg.slogdet(np.atleast_2d(p))[1] for p in parts)
    assert (one + two - both) / 2 / np.log(2) == pytest.approx(bits, abs=0.03)
    assert a.std() == pytest.approx(1, abs=0.05)


def test_far_names_are_worth_their_logarithm():
    assert discrete(4, 2).bits == pytest.approx(4.0, abs=0.01)


def test_the_mixture_by_monte_carlo():
    known, rng = mixture(), np.random.default_rng(1)
    a, c = known.draw(200_000, rng)
    y = a + known.sigma * rng.standard_normal(a.shape)
    spread = np.hypot(0.2, known.sigma)
    near = {s: norm.pdf(y, s, spread) for s in (-1, 1)}
    told = np.where(c > 0, 0.9 * near[1] + 0.1 * near[-1], 0.1 * near[1] + 0.9 * near[-1])
    assert np.log2(told / (0.5 * near[1] + 0.5 * near[-1])).sum(1).mean() == pytest.approx(
        known.bits, abs=0.01
    )


def test_the_heavy_tails_by_monte_carlo():
    known, rng = heavy(), np.random.default_rng(2)
    a, c = known.draw(3_000, rng)
    y = a + known.sigma * rng.standard_normal(a.shape)
    spread = np.hypot(0.5, known.sigma)
    grid = np.linspace(-12, 12, 4001)
    weight = laplace.pdf(grid, scale=np.sqrt(0.5)) * (grid[1] - grid[0])
    marginal = np.stack([norm.pdf(y[:, k][:, None], grid, spread) @ weight for k in range(4)], 1)
    found = np.log2(norm.pdf(y, c, spread) / marginal).sum(1)
    assert found.mean() == pytest.approx(known.bits, abs=3 * found.std() / np.sqrt(len(found)))


def test_cells_of_a_uniform_tell_less_than_their_number_since_noise_blurs_their_edges():
    known = quantised(8, 2, sigma=0.1)
    assert 0.9 * 6 > known.bits > 0.75 * 6
    assert quantised(8, 2, sigma=0.005).bits == pytest.approx(6, abs=0.1)


def test_every_distribution_has_a_name_and_chunks_of_about_unit_size():
    found = distributions()
    assert len({k.name for k in found}) == len(found) == 15
    assert {k.name for k in distributions(True)} <= {k.name for k in found}
    for known in found:
        a, c = known.draw(5000, np.random.default_rng(0))
        assert a.shape == (5000, known.dimensions)
        assert len(c) == 5000
        assert 0.8 < a.std() < 1.25
        assert 0 < known.bits < known.demand, known.name


@pytest.mark.parametrize(
    ("d", "p", "bits", "sigma"), [(8, 2, 2.0, 0.2), (16, 32, 5.0, 0.3), (32, 32, 10.0, 0.5)]
)
def test_a_correlated_gaussian_s_bits_and_demand_are_those_of_its_sample_covariance(d, p, bits, sigma):
    known = correlated(d, p, bits, sigma)
    a, c = known.draw(200_000, np.random.default_rng(3))
    joint = np.cov(np.concatenate([a, c], 1).T)
    joint[:d, :d] += sigma**2 * np.eye(d)
    one, two, both = (np.linalg.slogdet(m)[1] for m in (joint[:d, :d], joint[d:, d:], joint))
    assert (one + two - both) / 2 / np.log(2) == pytest.approx(bits, abs=0.03)
    assert (one - d * np.log(sigma**2)) / 2 / np.log(2) == pytest.approx(known.demand, abs=0.05)
    np.testing.assert_allclose(a.std(0), 1, atol=0.01)
    off = np.cov(a.T) - np.diag(a.var(0))
    assert np.abs(off).max() > 0.2, "its dimensions should hang together"


def test_bits_that_no_share_gives_are_refused():
    with pytest.raises(UserError, match="ask for fewer bits or a smaller σ"):
        correlated(2, 1, 30.0, 0.3)


def test_the_ring_by_monte_carlo():
    known, rng = ring(), np.random.default_rng(4)
    a, c = known.draw(3_000, rng)
    y = a + known.sigma * rng.standard_normal(a.shape)

    def log_density(low, width):
        """ln of the mean of the noise's density over an arc: [n]."""
        turn = np.asarray(low)[..., None] + (np.arange(800) + 0.5) / 800 * width
        near = ((y[:, None, :] - np.sqrt(2) * np.stack([np.cos(turn), np.sin(turn)], -1)) ** 2).sum(-1)
        return logsumexp(-near / (2 * known.sigma**2), axis=1) - np.log(800)

    seen = np.arctan2(c[:, 1], c[:, 0])
    found = (log_density(seen - np.pi / 16, np.pi / 8) - log_density(np.zeros(1), 2 * np.pi)) / np.log(2)
    assert found.mean() == pytest.approx(known.bits, abs=4 * found.std() / np.sqrt(len(found)))
    assert ring(16, 0.01).bits == pytest.approx(4, abs=0.1)
