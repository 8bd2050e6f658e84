"""The linear part against closed forms of jointly Gaussian chunks and contexts."""

import numpy as np
import pytest
import torch

from compression_gap.information.gaussian import Part, fit_linear, join

CPU = torch.device("cpu")


def columns(values):
    return Part({"train": values, "test": values}).standardised(CPU)


def pair(n, d, p, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((p, d)) / np.sqrt(p)
    c = rng.standard_normal((n, p))
    return torch.from_numpy(c @ mixing + noise * rng.standard_normal((n, d))), c, mixing


def test_the_marginal_rate_of_a_gaussian_is_half_the_log_of_its_signal_to_noise():
    a = torch.from_numpy(np.random.default_rng(0).standard_normal((40_000, 3)) * [0.5, 1.0, 2.0])
    part = fit_linear(a, [], np.arange(len(a)), 0.1)
    sigmas = torch.tensor([0.1, 0.3, 1.0])
    found = part.rates(a, join([], "train", a), sigmas).mean(0)
    for sigma, bits in zip(sigmas.tolist(), found.tolist(), strict=True):
        true = 0.5 * np.log2(1 + np.array([0.25, 1, 4]) / sigma**2).sum()
        assert bits == pytest.approx(true, abs=0.03)


def test_the_probe_finds_the_information_of_a_gaussian_context():
    a, c, mixing = pair(20_000, 4, 6)
    sigma = torch.tensor([0.2])
    told = [columns(c)]
    blind, seeing = (fit_linear(a, of, np.arange(len(a)), 0.2) for of in ([], told))
    without = blind.rates(a, join([], "train", a), sigma).mean()
    found = without - seeing.rates(a, join(told, "train", a), sigma).mean()
    noise = (0.25 + 0.04) * np.eye(4)
    true = 0.5 * (np.linalg.slogdet(mixing.T @ mixing + noise)[1] - np.linalg.slogdet(noise)[1]) / np.log(2)
    assert float(found) == pytest.approx(true, abs=0.06)


def test_rates_are_the_integral_of_the_linear_denoiser_s_error():
    """Any chunk, Gaussian or not: ½ ∫ E|A − Â_lin|² du by drawing noise, against the closed form."""
    rng = np.random.default_rng(1)
    a = torch.from_numpy(rng.exponential(size=(500, 2)) @ np.array([[1.0, 0.4], [0.0, 0.7]]))
    part = fit_linear(a, [], np.arange(500), 0.5)
    one, gamma = a[:1], 4.0
    u = torch.linspace(1e-6, gamma, 4001, dtype=torch.float64)[:, None, None]
    noise = torch.from_numpy(rng.standard_normal((1, 4000, 2)))
    r = (one - part.mean) @ part.basis
    error = (r - part.variances * u.sqrt() * noise) / (1 + u * part.variances)
    integral = 0.5 * torch.trapezoid(error.square().sum(2).mean(1), u[:, 0, 0]) / np.log(2)
    exact = part.rates(one, join([], "train", one), torch.tensor([0.5]))
    assert float(exact) == pytest.approx(float(integral), rel=0.02)


def test_out_of_fold_predictions_come_from_other_episodes():
    """A context that names the episode predicts nothing of a new one."""
    rng = np.random.default_rng(3)
    episode = np.repeat(np.arange(10), 20)
    offset = rng.standard_normal((10, 2))
    a = torch.from_numpy(offset[episode] + 0.1 * rng.standard_normal((200, 2)))
    part = fit_linear(a, [columns(np.eye(10)[episode])], episode, 0.1)
    left = (a - part.out_of_fold).square().mean()
    seen = (a - part.predict(join([columns(np.eye(10)[episode])], "train", a))).square().mean()
    assert left > 0.3
    assert seen < 0.1 * left


def test_columns_have_unit_variance_and_constant_ones_are_left_out():
    rng = np.random.default_rng(4)
    values = np.concatenate([3 * rng.standard_normal((100, 5)) + 7, np.full((100, 1), 3.0)], 1)
    found = columns(values)["train"]
    assert found.shape == (100, 5)
    torch.testing.assert_close(found.square().mean(0), torch.ones(5, dtype=found.dtype))


def test_one_episode_still_gives_a_rate():
    a = torch.from_numpy(np.random.default_rng(5).standard_normal((20, 2)))
    part = fit_linear(a, [columns(np.ones((20, 1)))], np.zeros(20, int), 0.1)
    assert torch.isfinite(part.rates(a, join([], "train", a), torch.tensor([0.1]))).all()
