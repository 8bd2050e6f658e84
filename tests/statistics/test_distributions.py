"""Quantiles, tails and ranks against ``scipy.stats``."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from compression_gap.statistics import distributions as own

P = [1e-12, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.975, 1 - 1e-9]
DF = [0.5, 1, 1.7, 2, 5, 30.25, 400]


@pytest.mark.parametrize("p", P)
def test_quantiles(p):
    assert own.normal_quantile(p) == pytest.approx(stats.norm.ppf(p), rel=1e-13)
    for df in DF:
        assert own.t_quantile(p, df) == pytest.approx(stats.t.ppf(p, df), rel=1e-9)
        assert own.chi2_quantile(p, df) == pytest.approx(stats.chi2.ppf(p, df), rel=1e-11)
        assert own.chi2_upper_quantile(p, df) == pytest.approx(stats.chi2.isf(p, df), rel=1e-9)
    assert own.t_quantile(p, np.inf) == own.normal_quantile(p)


@pytest.mark.parametrize("x", [-3.0, -0.4, 0.0, 1.96, 8.5])
def test_tails_and_densities(x):
    assert own.normal_tail(x) == pytest.approx(stats.norm.sf(x), rel=1e-12)
    for df in DF:
        assert own.t_tail(x, df) == pytest.approx(stats.t.sf(x, df), rel=1e-10)
        assert own.chi2_density(abs(x) + 0.1, df) == pytest.approx(
            stats.chi2.pdf(abs(x) + 0.1, df), rel=1e-11
        )
    assert own.t_tail(x, np.inf) == own.normal_tail(x)


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (50, 0.0), (50, 0.97), (500, 0.3), (20, 1.0)])
def test_binomial(n, p):
    np.testing.assert_allclose(
        own.binomial_cdf(np.arange(n), n, p), stats.binom.cdf(np.arange(n), n, p), atol=1e-13
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_midranks(axis):
    values = np.random.default_rng(0).integers(0, 4, (5, 6, 4)).astype(float)
    np.testing.assert_array_equal(own.midranks(values, axis), stats.rankdata(values, axis=axis))


def test_reading_results_does_not_import_scipy_stats():
    program = (
        "import sys, compression_gap.results.published as p; p.published_contrasts(); "
        "raise SystemExit('scipy.stats' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
