import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from compression_gap.errors import UserError
from compression_gap.statistics.coverage import (
    SEED_TASK,
    WEIGHTS,
    Runs,
    Setting,
    coverage,
    population,
    settings,
    simulate,
)


def test_the_truth_is_the_mean_over_states_and_seeds():
    setting = Setting(3, 80, seed_sd=8.0)
    for runs in setting.runs("interaction"):
        cell = population(setting, runs)
        sd = np.sqrt(setting.state_sd**2 + setting.cell_sd**2 + cell.scale**2 * (1 + SEED_TASK**2))
        each = [
            quad(lambda x, a=a, sd=sd: norm.pdf(x) / (1 + np.exp(-a - sd * x)), -12, 12, epsabs=1e-12)[0]
            for a in cell.logits
        ]
        assert cell.truth == pytest.approx(np.mean(each), abs=1e-9)
        assert np.diff(cell.logits) == pytest.approx(2 * setting.difficulty)


def test_without_seeds_the_rate_is_the_one_asked_for():
    setting = Setting(2, 80, seed_sd=0.0, rate=90.0, gain=10.0)
    cell = population(setting, setting.runs("delta")[1])
    assert (cell.scale, cell.truth) == (0.0, pytest.approx(0.8, abs=1e-12))


@pytest.mark.parametrize(("seed_sd", "rate", "tasks"), [(2.0, 55.0, 2), (8.0, 55.0, 4), (4.0, 92.0, 1)])
def test_seeds_spread_by_the_points_asked_for(seed_sd, rate, tasks):
    """Seeds drawn, each one's rate over very many states; their spread and mean are those of the setting."""
    cell = population(Setting(2, 80, tasks=tasks), Runs(rate, seed_sd, 2))
    rng = np.random.default_rng(0)
    effect = rng.normal(size=(4000, 1)) + SEED_TASK * rng.normal(size=(4000, tasks))
    state = norm.ppf((np.arange(400) + 0.5) / 400) * np.hypot(1.0, 0.5)
    odds = cell.logits + cell.scale * effect
    runs = np.mean([(1 / (1 + np.exp(-odds - x))).mean(1) for x in state], axis=0)
    assert 100 * runs.std() == pytest.approx(seed_sd, rel=0.04)
    assert runs.mean() == pytest.approx(cell.truth, abs=4 * seed_sd / 100 / np.sqrt(4000))


def test_simulated_studies_have_the_truth_as_their_mean():
    rng = np.random.default_rng(1)
    setting = Setting(2, 40, tasks=4, seed_sd=4.0)
    for quantity in ("rate", "delta", "interaction"):
        values, weights = [], WEIGHTS[quantity]
        for _ in range(1500):
            cells, tasks, truth = simulate(quantity, setting, rng)
            values.append(sum(w * cell.mean() for w, cell in zip(weights, cells, strict=True)))
        assert [cell.shape for cell in cells] == [(2, 40)] * len(weights)
        assert np.bincount(tasks).tolist() == [10] * 4
        assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / np.sqrt(1500))


def test_cells_may_differ_in_rate_spread_and_seeds():
    setting = Setting(2, 40, cells=(Runs(98, 0, 1), Runs(50, 8, 3)))
    cells, _, truth = simulate("waterfall", setting, np.random.default_rng(4))
    assert [len(cell) for cell in cells] == [1, 3]
    assert truth == pytest.approx(0.48, abs=1e-6)
    four = Setting(2, 40, seed_sd=0.0, cells=tuple(Runs(r, 0, 2) for r in (50, 2, 40, 8)))
    odds = np.log([0.5 / 0.5, 0.02 / 0.98, 0.4 / 0.6, 0.08 / 0.92])
    truth = simulate("log odds", four, np.random.default_rng(4))[2]
    assert truth == pytest.approx(odds @ [1, -1, -1, 1], abs=1e-6)
    with pytest.raises(UserError, match="needs 2 cells, not 4"):
        simulate("delta", four, np.random.default_rng(4))


def test_states_are_shared_by_cells_and_seeds_are_not():
    """The covariance of two cells' outcomes: on one state above 0, of two runs' rates given the states none."""
    rng = np.random.default_rng(2)
    setting = Setting(2, 40, seed_sd=8.0, state_sd=1.5, cell_sd=0.0)
    same, other, runs = [], [], []
    for _ in range(800):
        (a, b), tasks, _ = simulate("delta", setting, rng)
        centred = [
            x[0] - np.where(tasks == 0, x[0][tasks == 0].mean(), x[0][tasks == 1].mean()) for x in (a, b)
        ]
        same.append((centred[0] * centred[1]).mean())
        other.append((centred[0] * np.roll(centred[1], 2)).mean())
        runs.append((a[0].mean() - a[1].mean(), b[0].mean() - b[1].mean()))
    assert np.mean(same) > 0.04 > abs(np.mean(other)) + 0.03
    assert abs(np.corrcoef(np.transpose(runs))[0, 1]) < 4 / np.sqrt(800)


def test_a_seed_gives_the_same_numbers_and_progress_is_told():
    told = []
    setting = Setting(2, 40)
    found = coverage("rate", setting, 20, seed=3, progress=lambda done, of: told.append((done, of)))
    assert found == coverage("rate", setting, 20, seed=3)
    assert found != coverage("rate", setting, 20, seed=4)
    assert told == [(i, 20) for i in range(1, 21)]
    assert found.low <= found.share <= found.high
    assert found.studies == 20


def test_the_width_falls_with_seeds_and_states():
    narrow, wide = coverage("delta", Setting(3, 80), 60), coverage("delta", Setting(2, 40), 60)
    assert 10 < narrow.width < 0.7 * wide.width < 100


# Seeds that spread unequally: where a variance pooled over the cells covered 44 to 88 % of 1,500 studies
UNEQUAL = [
    ("delta", Setting(2, 500, cells=(Runs(52, 8, 2), Runs(98, 1, 2)))),
    ("delta", Setting(2, 500, cells=(Runs(2, 1, 2), Runs(52, 8, 2)))),
    ("delta", Setting(2, 500, cells=(Runs(55, 12, 2), Runs(45, 1, 5)))),
    ("interaction", Setting(2, 500, cells=(Runs(55, 8, 2), Runs(45, 1, 2), Runs(55, 1, 2), Runs(50, 1, 2)))),
    ("waterfall", Setting(2, 500, cells=(Runs(96, 0, 1), Runs(50, 8, 2)))),
    ("waterfall", Setting(5, 50, cells=(Runs(90, 0, 1), Runs(10, 3, 5)))),
]


@pytest.mark.parametrize(
    ("quantity", "setting"),
    [*((q, s) for q in WEIGHTS for s in settings(q, quick=True)), *UNEQUAL],
    ids=str,
)
def test_the_intervals_cover(quantity, setting):
    """Reduced: at a true 91 % fewer than 86.5 % of 200 come in 2 % of such simulations."""
    assert coverage(quantity, setting, 200, seed=11).share >= 0.865


def test_the_log_odds_near_the_floor_are_as_wide_as_they_are_uncertain():
    """One variance for all cells, times squared slopes, gave intervals four to five times too wide."""
    cells = (Runs(50, 4, 5), Runs(2, 1, 5), Runs(40, 4, 5), Runs(8, 3, 5))
    found = coverage("log odds", Setting(5, 500, cells=cells), 200, seed=5)
    assert 0.9 <= found.share <= 0.995
    # the cells' true spread in log odds over seeds alone: sd / p (1 - p), of five seeds
    spread = np.sqrt(sum((c.seed_sd / 100 / (c.rate / 100 * (1 - c.rate / 100))) ** 2 / 5 for c in cells))
    assert 2 * 1.96 * spread < found.width / 100 < 2 * 1.96 * spread * 1.8


def test_the_declared_grid():
    for quantity in WEIGHTS:
        grid = settings(quantity, quick=False)
        assert len(set(grid)) == len(grid)
        assert {s.seeds for s in grid} == {2, 3, 5}
        assert {s.states for s in grid} >= {50, 500}
        assert any(s.cells for s in grid)
        for setting in grid:
            rates = [100 * population(setting, runs).truth for runs in setting.runs(quantity)]
            assert all(1.5 < rate < 98.5 for rate in rates)
    alike = [s for s in settings("delta", quick=False) if not s.cells]
    assert {s.seed_sd for s in alike} == {0, 2, 4, 8}
    assert {s.tasks for s in alike} == {1, 2, 4, 10}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seeds": 1}, "seeds"),
        ({"states": 2}, "states"),
        ({"tasks": 0}, "tasks"),
        ({"seed_sd": -1.0}, "seed_sd"),
        ({"rate": 105.0}, "rate"),
        ({"gain": 60.0}, "gain"),
        ({"state_sd": float("nan")}, "state_sd"),
    ],
)
def test_wrong_settings_are_named(change, word):
    with pytest.raises(UserError, match=word):
        Setting(**{"seeds": 2, "states": 40, **change})


def test_other_mistakes_are_named():
    with pytest.raises(UserError, match="too wide for a rate of 55"):
        coverage("rate", Setting(2, 40, seed_sd=49.0), 10)
    with pytest.raises(UserError, match="rate, delta, interaction, log odds, waterfall"):
        coverage("slope", Setting(2, 40), 10)
    with pytest.raises(UserError, match="at least 1"):
        coverage("rate", Setting(2, 40), 0)


def test_two_seeds_near_the_ceiling_are_covered_by_narrow_intervals():
    """Seeds that spread less, as they must there: the interval of a rate may not be that of a rate of a half."""
    found = coverage("rate", Setting(2, 80, seed_sd=0.8, rate=98, gain=3), 400, seed=11)
    assert found.share >= 0.93
    assert found.width < 20
