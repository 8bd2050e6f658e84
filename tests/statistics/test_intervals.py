import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from compression_gap.statistics.intervals import (
    components,
    contrast,
    holm,
    interaction_log_odds,
    page_trend,
    peak_optimism,
    rate_interval,
    resample_rates,
    wilson,
)
from compression_gap.statistics.variance import RATES, seed_posterior


def simulate(rng, cells, seeds, states, seed_sd, rate=0.5):
    """Cells of one rate: states crossed with cells, seeds nested in them."""
    state = rng.normal(0, 1, states)
    out = []
    for _ in range(cells):
        p = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + state + rng.normal(0, 0.5, states))))
        p = np.clip(p + rng.normal(0, seed_sd, (seeds, 1)), 0, 1)
        out.append((rng.random((seeds, states)) < p).astype(float))
    return out


@pytest.mark.parametrize(("k", "n"), [(0, 20), (3, 20), (250, 500), (20, 20)])
def test_wilson(k, n):
    found = wilson(k, n)
    assert (found.low, found.high) == pytest.approx(proportion_confint(k, n, method="wilson"), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_an_interval_in_points():
    assert wilson(250, 500).points().value == 50
    assert wilson(250, 500).points().low == pytest.approx(100 * wilson(250, 500).low)


def test_holm():
    p = [0.01, 0.04, 0.03, 0.005, 0.9]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([]) == []


def test_page_statistic():
    rng = np.random.default_rng(1)
    strata = np.repeat(np.arange(6), 10)
    levels = [rng.random((2, 60)) < p for p in (0.2, 0.5, 0.6, 0.9)]
    blocks = np.array([[lv[s, strata == t].mean() for lv in levels] for s in range(2) for t in range(6)])
    found = page_trend(levels, strata, draws=999)
    assert found.statistic == stats.page_trend_test(np.round(blocks, 12)).statistic
    assert found.blocks == 12
    assert found.p < 0.05
    assert found.at_floor == (found.p == 1 / 1000)
    assert page_trend(levels[::-1], strata, draws=999).p > 0.5


def test_page_p_with_one_seed_is_that_of_scipy():
    rng = np.random.default_rng(2)
    strata = np.arange(8)
    levels = [rng.random((1, 8)) + 0.0 for _ in range(4)]
    found = page_trend(levels, strata, draws=9999)
    blocks = np.stack([level[0] for level in levels], axis=1)
    oracle = stats.page_trend_test(blocks, method="exact")
    assert found.p == pytest.approx(oracle.pvalue, abs=0.02)
    assert found.seed_variance_unknown


def test_a_good_seed_is_not_counted_once_per_task():
    """Two levels' seeds differ, but as much as seeds do: no trend, however many tasks show it."""
    strata = np.repeat(np.arange(20), 4)
    runs = np.linspace(0.1, 0.9, 3)
    levels = [np.full((1, 80), p) for p in runs]
    assert page_trend(levels, strata, draws=999).p < 0.01  # one seed each: said to be unknown
    doubled = [np.stack([np.full(80, p), np.full(80, 1 - p)]) for p in runs]
    assert page_trend(doubled, strata, draws=999).p > 0.2


@pytest.mark.parametrize(("n", "k", "rate"), [(500, 6, 0.5), (20, 3, 0.9)])
def test_peak_optimism(n, k, rate):
    best = np.random.default_rng(0).binomial(n, rate, (40000, k)).max(1).mean() / n
    assert peak_optimism(n, k, rate) == pytest.approx(best - rate, abs=4e-4)
    assert peak_optimism(n, 1, rate) == pytest.approx(0, abs=1e-9)


def test_peak_optimism_of_the_published_protocol():
    assert 100 * peak_optimism(500, 6, 0.5) == pytest.approx(2.8, abs=0.05)


def test_one_rate_with_one_seed_is_wilson():
    cell = np.zeros((1, 50))
    cell[0, :13] = 1
    found = rate_interval(cell, np.repeat(np.arange(5), 10))
    assert (found.value, found.low, found.high) == pytest.approx(
        (0.26, *proportion_confint(13, 50, method="wilson"))
    )


def test_seed_variance_widens_a_rate():
    even = (np.arange(100) % 2).astype(float)
    seeds = np.stack([np.zeros(100), np.ones(100), even])
    wide, narrow = rate_interval(seeds, np.zeros(100)), rate_interval(np.stack([even] * 3), np.zeros(100))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)
    assert 0 <= wide.low <= wide.value <= wide.high <= 1


def test_two_seeds_that_nearly_always_succeed_have_a_narrow_interval():
    """Seeds of a rate near 1 cannot spread as those of a rate near a half."""
    cell = np.ones((2, 50))
    cell[0, 7] = 0
    high, low = (rate_interval(c, np.arange(50) % 2) for c in (cell, 1 - cell))
    assert 0.8 < high.low < 0.95 < high.high < 1
    assert (low.low, low.high) == pytest.approx((1 - high.high, 1 - high.low))


def test_the_rate_is_the_mean_of_the_task_means():
    cell = np.array([[1.0, 1.0, 1.0, 0.0]])
    assert rate_interval(cell, [0, 0, 0, 1]).value == pytest.approx(0.5)
    assert contrast([cell, 0 * cell], [1, -1], [0, 0, 0, 1]).value == pytest.approx(0.5)


def test_one_seed_is_the_paired_t_test():
    rng = np.random.default_rng(3)
    a, b = rng.random((1, 40)), rng.random((1, 40))
    found, oracle = contrast([a, b], [1, -1], np.zeros(40)), stats.ttest_rel(a[0], b[0])
    interval = oracle.confidence_interval()
    assert found.p == pytest.approx(oracle.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.seed_variance_unknown


def test_components_are_found_again():
    """Averages over simulations are the true variances."""
    rng = np.random.default_rng(4)
    found = [components(simulate(rng, 2, 3, 60, 0.06), [1, -1], np.arange(60) % 3) for _ in range(600)]
    values = np.array([part.value for part in found])
    unclipped = np.array([part.between - part.residual + part.states for part in found])
    assert unclipped.mean() == pytest.approx(values.var(), rel=0.15)
    seed = np.array([(part.between - part.residual) / (2 / 3) for part in found])
    assert seed.mean() == pytest.approx(0.06**2, rel=0.25)


def test_the_error_is_the_integral_over_the_prior():
    """One cell of two seeds: its interval's tails by numerical integration over log spread and the states' t."""
    rng = np.random.default_rng(21)
    cell, strata = simulate(rng, 1, 2, 60, 0.08)[0], np.zeros(60)
    (part,), found = components([cell], [1.0], strata).parts, components([cell], [1.0], strata)
    p = (cell.sum() + 0.5) / (cell.size + 1)
    least, wide, most = np.array(RATES.seed_sd) * (4 * p * (1 - p)) ** 0.8
    x = np.linspace(np.log(least), np.log(most), 2001)
    total = np.exp(2 * x) + part.noise
    density = total**-0.5 * np.exp(-part.raw / total / 2) / (1 + np.exp(4 * x) / wide**4)
    density /= density.sum()
    half = found.error.half_width(0.95)
    # given the seeds' variance: a normal plus a t of the states, integrated over the normal
    z = np.linspace(-6, 6, 401)
    normal = stats.norm.pdf(z) / stats.norm.pdf(z).sum()
    keep = slice(None, None, 10)
    outside = sum(
        d
        * (
            normal * 2 * stats.t.sf((half + z * np.exp(v) / np.sqrt(2)) / found.states**0.5, found.state_df)
        ).sum()
        for v, d in zip(x[keep], density[keep] / density[keep].sum(), strict=True)
    )
    assert outside == pytest.approx(0.05, rel=0.02)
    assert found.error.p(half) == pytest.approx(0.05, rel=1e-3)


def test_many_seeds_outweigh_the_prior():
    variances, weights = seed_posterior(0.05**2 + 0.0004, 0.0004, 400, 1.0)
    assert np.sqrt(weights @ variances) == pytest.approx(0.05, rel=0.1)
    with np.errstate(all="raise"):
        _, weights = seed_posterior(0.0, 0.0, 2, 0.0)
    assert np.isfinite(weights).all()


def test_unequal_spreads_count_each_with_its_own_share():
    """A calm cell of five seeds lends a wild one of two no precision; a pooled variance gave a third of this."""
    rng = np.random.default_rng(22)
    wild, calm = simulate(rng, 1, 2, 400, 0.0)[0], simulate(rng, 1, 5, 400, 0.0)[0]
    wild[0, rng.random(400) < 0.3] = 1.0
    alone = rate_interval(wild, np.zeros(400))
    found = contrast([wild, calm], [1, -1], np.zeros(400))
    assert found.high - found.low > 0.9 * (alone.high - alone.low)


def test_a_reference_has_no_seed_variance_and_the_policy_keeps_its_own():
    rng = np.random.default_rng(23)
    policy = simulate(rng, 1, 3, 200, 0.12)[0]
    expert = np.ones((1, 200))
    known = contrast([expert, policy], [1, -1], np.zeros(200), references=[0])
    unknown = contrast([expert, policy], [1, -1], np.zeros(200))
    assert (known.seeds, known.seed_variance_unknown) == (3, False)
    assert (unknown.seeds, unknown.seed_variance_unknown) == (1, True)
    assert "unknown" in unknown.method
    assert known.low == unknown.low
    spread = policy.mean(1).std(ddof=1) / np.sqrt(3)
    assert known.high - known.low > 2 * 1.96 * spread
    with pytest.raises(ValueError, match="one run"):
        contrast([expert, policy], [1, -1], np.zeros(200), references=[1])


@pytest.mark.parametrize("seed_sd", [0.0, 0.08])
def test_a_rate_from_two_seeds_covers_and_says_something(seed_sd):
    """At 8 points what two seeds show alone is in a tenth of the studies 91 points wide."""
    rng, hits, width = np.random.default_rng(15), 0, []
    for _ in range(400):
        found = rate_interval(simulate(rng, 1, 2, 80, seed_sd)[0], np.zeros(80))
        hits += found.low <= 0.5 <= found.high
        width.append(found.high - found.low)
    assert 0.91 <= hits / 400 <= 0.998
    assert 0.15 < np.quantile(width, 0.9) < 0.8


@pytest.mark.parametrize("seeds", [1, 2, 3, 6])
@pytest.mark.parametrize("weights", [(1, -1), (1, -1, -1, 1)])
def test_invariants(seeds, weights):
    rng = np.random.default_rng(seeds)
    cells, strata = simulate(rng, len(weights), seeds, 40, 0.05), np.arange(40) % 4
    found = contrast(cells, weights, strata)
    turned = contrast(cells, [-w for w in weights], strata)
    assert turned.value == pytest.approx(-found.value)
    assert found.low <= found.value <= found.high
    assert 0 < found.p <= 1
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert found.seed_variance_unknown == (seeds == 1)
    assert (found.seeds, found.states) == (seeds, 40)
    wider = contrast(cells, weights, strata, level=0.99)
    assert wider.low <= found.low
    assert wider.high >= found.high
    assert contrast(cells, weights, strata) == found


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_floor_has_no_zero_width(seeds):
    cell = np.zeros((seeds, 40))
    found = contrast([cell, cell], [1, -1], np.zeros(40))
    assert found.low < 0 < found.high
    assert found.p == pytest.approx(1.0)


def test_a_cell_of_weight_zero_changes_nothing():
    a, b, c = simulate(np.random.default_rng(5), 3, 2, 40, 0.05)
    assert contrast([a, b, c[:1]], [1, -1, 0], np.zeros(40)) == contrast([a, b], [1, -1], np.zeros(40))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 12), st.integers(1, 4), st.integers(0, 1000))
def test_any_shape_gives_finite_numbers(seeds, states, tasks, seed):
    rng = np.random.default_rng(seed)
    cells = [(rng.random((seeds, states)) < rng.random()).astype(float) for _ in range(2)]
    strata = rng.integers(0, tasks, states)
    found = contrast(cells, [1, -1], strata)
    assert np.isfinite([found.value, found.low, found.high, found.p]).all()
    assert -1 <= found.low <= found.value <= found.high <= 1
    one = rate_interval(cells[0], strata)
    assert 0 <= one.low <= one.value + 1e-12
    assert one.value - 1e-12 <= one.high <= 1
    assert np.isfinite(resample_rates(cells, strata, 20, rng)).all()


@pytest.mark.parametrize("bad", [np.array([[0.0, np.nan]]), np.array([[0.0, 2.0]]), np.zeros((1, 3))])
def test_wrong_cells_are_refused(bad):
    with pytest.raises(ValueError, match=r"0\.\.1|states"):
        contrast([bad, bad], [1, -1], np.zeros(2))


@pytest.mark.parametrize("weights", [(1, -1), (1, -1, -1, 1)])
@pytest.mark.parametrize(("seeds", "seed_sd"), [(2, 0.0), (2, 0.08), (3, 0.04), (5, 0.04)])
def test_coverage(weights, seeds, seed_sd):
    """Reduced: few simulations per design, so that only a wrong method fails."""
    rng = np.random.default_rng(17)
    runs, hits = 300 if seeds < 5 else 120, 0
    for _ in range(runs):
        found = contrast(simulate(rng, len(weights), seeds, 40, seed_sd), weights, np.arange(40) % 4)
        hits += found.low <= 0 <= found.high
    assert 0.91 <= hits / runs <= 0.997


def test_resampled_rates_are_centred_and_as_wide_as_the_contrast():
    rng = np.random.default_rng(6)
    cells, strata = simulate(rng, 2, 8, 80, 0.08), np.arange(80) % 4
    drawn = resample_rates(cells, strata, 20000, rng)
    assert drawn.shape == (20000, 2)
    assert drawn.mean(0) == pytest.approx([cell.mean() for cell in cells], abs=0.005)
    part = components(cells, [1, -1], strata)
    assert (drawn[:, 0] - drawn[:, 1]).var() == pytest.approx(part.error.variance, rel=0.1)
    pair = resample_rates([cells[0][:1], cells[0][:1]], strata, 100, rng)
    assert np.allclose(pair[:, 0], pair[:, 1])  # one seed: the states are shared and nothing else varies


def test_log_odds_of_one_seed_are_those_of_a_glm_clustered_by_state():
    rng = np.random.default_rng(11)
    a, b, c, d = simulate(rng, 4, 1, 60, 0.0)
    found = interaction_log_odds([[a, b], [c, d]], np.zeros(60))
    first = np.repeat([0.0, 0.0, 1.0, 1.0], 60)
    second = np.repeat([0.0, 1.0, 0.0, 1.0], 60)
    design = np.stack([np.ones(240), first, second, first * second], axis=1)
    model = sm.GLM(np.concatenate([a[0], b[0], c[0], d[0]]), design, family=sm.families.Binomial())
    groups = {"groups": np.tile(np.arange(60), 4), "use_correction": False}
    oracle = model.fit(cov_type="cluster", cov_kwds=groups)
    assert found.value == pytest.approx(oracle.params[3])
    half = stats.t.ppf(0.975, 59) * oracle.bse[3] * np.sqrt(60 / 59)
    assert found.high - found.value == pytest.approx(half, rel=1e-6)
    assert found.seed_variance_unknown


def test_states_that_one_cell_finds_hard_do_not_average_out_over_seeds():
    """Five seeds that agree on every state are worth one, on the log-odds scale, too."""
    rng = np.random.default_rng(12)
    one = [(rng.random((1, 60)) < p).astype(float) for p in (0.6, 0.4, 0.5, 0.5)]
    five = [cell.repeat(5, 0) for cell in one]
    alone = interaction_log_odds([one[:2], one[2:]], np.zeros(60))
    agreed = interaction_log_odds([five[:2], five[2:]], np.zeros(60))
    assert agreed.value == pytest.approx(alone.value)
    assert agreed.high - agreed.low == pytest.approx(alone.high - alone.low, rel=0.05)


def test_coverage_of_the_log_odds():
    """Outcomes that hang on the state in each cell; errors that count episodes cover 83 % here."""
    rng, runs, hits = np.random.default_rng(13), 300, 0
    for _ in range(runs):
        odds = 0.5 * rng.normal(size=60) + 2.5 * rng.normal(size=(4, 60))
        cells = [(rng.random((5, 60)) < 1 / (1 + np.exp(-cell))).astype(float) for cell in odds]
        found = interaction_log_odds([cells[:2], cells[2:]], np.arange(60) % 4)
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / runs <= 0.99


def test_log_odds_at_the_ceiling_say_so():
    rng = np.random.default_rng(7)
    a, b, c = simulate(rng, 3, 3, 40, 0.05)
    found = interaction_log_odds([[np.ones((3, 40)), a], [b, c]], np.zeros(40))
    assert "half a success" in found.method
    assert np.isfinite([found.low, found.high]).all()
    # half a failure in a cell: its log odds alone are uncertain by the square root of 2
    assert found.high - found.low > 2 * np.sqrt(2) * 1.9
    assert "half a success" not in interaction_log_odds([[a, b], [c, a]], np.zeros(40)).method


def test_seed_variance_widens_the_log_odds():
    rng = np.random.default_rng(8)
    calm, wild = simulate(rng, 4, 4, 80, 0.0), simulate(rng, 4, 4, 80, 0.2)
    width = [
        (lambda found: found.high - found.low)(
            interaction_log_odds([[c[0], c[1]], [c[2], c[3]]], np.zeros(80))
        )
        for c in (calm, wild)
    ]
    assert width[1] > 1.3 * width[0]
