"""Kernel denoisers against posteriors computed by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from compression_gap.information.kernel import PRECISIONS, average, context_evidence, evidence

RNG = np.random.default_rng(0)
CHUNKS = RNG.standard_normal((5, 3))
U = 2.5


def tensor(x):
    return torch.from_numpy(np.asarray(x, np.float64))


def test_the_average_is_the_posterior_mean_of_chunks_that_are_equally_likely():
    noisy = np.sqrt(U) * CHUNKS[:2] + RNG.standard_normal((2, 3))
    seen = evidence(tensor(noisy), tensor(np.full((2, 1), np.sqrt(U))), tensor(CHUNKS))
    for y, found in zip(noisy, average(seen, tensor(CHUNKS)), strict=True):
        likelihood = np.array([multivariate_normal.pdf(y, np.sqrt(U) * a, np.eye(3)) for a in CHUNKS])
        np.testing.assert_allclose(found, likelihood @ CHUNKS / likelihood.sum())


def test_predictions_are_compared_in_units_of_their_error():
    factor = RNG.standard_normal((3, 3))
    covariance = factor @ factor.T + 0.1 * np.eye(3)
    values, vectors = np.linalg.eigh(covariance)
    guesses = CHUNKS + 0.3 * RNG.standard_normal(CHUNKS.shape)
    guess = CHUNKS[:1] + 0.2
    told = context_evidence(tensor(guess), tensor(guesses), tensor(vectors / np.sqrt(values)))
    for tau, logits in zip(PRECISIONS, told, strict=True):
        near = np.array([multivariate_normal.pdf(guess[0], g, covariance / tau) for g in guesses])
        np.testing.assert_allclose(logits.softmax(1)[0], near / near.sum(), rtol=1e-6, atol=1e-300)


@pytest.mark.parametrize("told", [0.0, 1e6])
def test_weights_stay_finite(told):
    far = tensor(np.full((1, 3), 1e3))
    seen = evidence(far, tensor([[30.0]]), tensor(CHUNKS)) - told
    assert torch.isfinite(average(seen, tensor(CHUNKS))).all()
