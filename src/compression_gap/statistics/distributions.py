"""Quantiles and tails of a few distributions, and ranks, by ``scipy.special`` alone.

``scipy.stats`` has them all, and takes longer to import than a page takes to compute: it is the tests' oracle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]


def normal_quantile(p: float) -> float:
    """The standard normal's quantile."""
    return float(special.ndtri(p))


def normal_tail(x: ArrayLike) -> Array:
    """P(X > x) of a standard normal."""
    return np.asarray(special.ndtr(-np.asarray(x, np.float64)))


def t_quantile(p: float, df: float) -> float:
    """Student's t's quantile; the normal's with infinitely many degrees of freedom."""
    return normal_quantile(p) if np.isinf(df) else float(special.stdtrit(df, p))


def t_tail(x: float, df: float) -> float:
    """P(T > x) of Student's t; the normal's with infinitely many degrees of freedom."""
    return float(normal_tail(x)) if np.isinf(df) else float(special.stdtr(df, -x))


def chi2_quantile(p: ArrayLike, df: float) -> Array:
    """The quantile of chi-squared."""
    return np.asarray(2 * special.gammaincinv(df / 2, p))


def chi2_upper_quantile(p: float, df: float) -> float:
    """The value that chi-squared exceeds with probability p; exact in the far tail."""
    return float(special.chdtri(df, p))


def chi2_density(x: ArrayLike, df: float) -> Array:
    """The density of chi-squared."""
    log = special.xlogy(df / 2 - 1, x) - np.asarray(x) / 2 - special.gammaln(df / 2) - np.log(2) * df / 2
    return np.asarray(np.exp(log))


def binomial_cdf(k: ArrayLike, n: int, p: float) -> Array:
    """P(K ≤ k) of n trials."""
    return np.asarray(special.bdtr(np.asarray(k, np.float64), n, p))


def midranks(values: Array, axis: int) -> Array:
    """Ranks from 1 along an axis; equal values share the mean of their ranks. For short axes: it compares all pairs."""
    v = np.moveaxis(values, axis, -1)
    less = (v[..., :, None] > v[..., None, :]).sum(-1)
    equal = (v[..., :, None] == v[..., None, :]).sum(-1)
    return np.moveaxis(less + (equal + 1) / 2, -1, axis)
