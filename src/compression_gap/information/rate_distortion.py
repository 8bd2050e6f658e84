"""The rate that a Gaussian source of the same covariance would need: reverse water-filling.

R(D) = Σ max(0, ½ log2(λᵢ / θ)) with Σ min(λᵢ, θ) = n·D over the eigenvalues λ of the covariance (Cover and
Thomas, Elements of Information Theory, section 10.3.3). A guide, not a bound: a code of a clustered source may
need far fewer bits.
"""

from __future__ import annotations

import numpy as np


def water_level(eigenvalues: np.ndarray, distortion: float) -> float:
    """θ with mean(min(λ, θ)) = ``distortion``; the largest λ if the distortion is the variance or more."""
    values = np.sort(np.maximum(eigenvalues, 0))
    total, n = distortion * len(values), len(values)
    below = np.concatenate([[0], np.cumsum(values)])
    for k in range(n):
        # The k smallest eigenvalues lie below the water, the others at or above it.
        level = (total - below[k]) / (n - k)
        if level <= values[k]:
            return float(level)
    return float(values[-1])


def gaussian_rate(covariance: np.ndarray, distortion: float) -> float:
    """Bits per chunk at a mean squared error of ``distortion`` per action (the covariance's units)."""
    return gaussian_rate_of(np.linalg.eigvalsh(covariance), distortion)


def gaussian_rate_of(eigenvalues: np.ndarray, distortion: float) -> float:
    """As ``gaussian_rate``, from the covariance's eigenvalues."""
    if distortion <= 0:
        return float("inf")
    level = water_level(eigenvalues, distortion)
    above = eigenvalues[eigenvalues > level]
    return float(0.5 * np.log2(above / level).sum())
