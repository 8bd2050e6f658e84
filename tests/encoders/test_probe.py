"""The probe against closed forms: known R², dimensions that do not move, more features than rows, intervals."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from compression_gap.demos import DemoSet, Episode
from compression_gap.encoders.probe import RESAMPLES, ROWS, Probed, Ridge, TaskProbe, probe
from compression_gap.encoders.state import SIGNAL, moving_dimensions
from compression_gap.errors import UserError
from compression_gap.statistics.intervals import Span


def demoset(state, *, train, validation=10, test=10, task="reach"):
    """Episodes of equal length over the rows of ``state`` [F, s], the first ``train`` of them for training."""
    count = train + validation + test
    length = len(state) // count
    splits = ["train"] * train + ["validation"] * validation + ["test"] * test
    episodes = tuple(Episode(task, i * length, length, i, s) for i, s in enumerate(splits))
    zeros = np.zeros((len(state), 2), np.float32)
    return DemoSet(episodes, zeros, zeros, np.asarray(state, np.float32), {}, {})


def linear(frames, *, features=6, noise=(0.5, 1.0), seed=0):
    """x standard normal, y = W x + noise of standard deviation σ with ‖w‖ = 1: R² = 1 / (1 + σ²)."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((frames, features))
    w = rng.standard_normal((features, len(noise)))
    w /= np.linalg.norm(w, axis=0)
    return x, x @ w + rng.standard_normal((frames, len(noise))) * noise


def test_r2_of_linear_data_is_that_of_the_formula():
    x, y = linear(40_000)
    found = probe([x[:, None]], [demoset(y, train=20)], state_names=["a", "b"]).tasks["reach"]
    assert found.r2["a"].value == pytest.approx(1 / 1.25, abs=0.01)
    assert found.r2["b"].value == pytest.approx(1 / 2.0, abs=0.02)
    assert found.mean.value == pytest.approx((found.r2["a"].value + found.r2["b"].value) / 2)


def test_all_and_nothing():
    _, y = linear(4000)
    all_of_it = probe([y[:, None]], [demoset(y, train=20)])
    assert all_of_it.mean.value == pytest.approx(1, abs=1e-6)
    nothing = probe([np.ones((4000, 1, 3))], [demoset(y, train=20)])
    assert nothing.mean == Span(value=0.0, low=0.0, high=0.0)


def test_a_feature_of_rounding_noise_is_no_feature():
    """Float16 features at 8 that flicker by one unit in the last place are dropped as constant ones are."""
    x, y = linear(4000, features=3)
    flicker = 8 + 2.0**-7 * (np.random.default_rng(0).integers(0, 2, (4000, 1)))
    assert Ridge(np.hstack([x, flicker]).astype(np.float16), y).kept.tolist() == [0, 1, 2]
    assert Ridge(1e-12 * np.hstack([x, 0 * flicker]), y).kept.tolist() == [0, 1, 2]


def test_ridge_is_the_closed_form():
    """Both forms, and against the normal equations written out."""
    rng = np.random.default_rng(3)
    for n, p in ((50, 8), (8, 50)):
        x, y = rng.standard_normal((n, p)) * 3 + 5, rng.standard_normal((n, 2))
        z = (x - x.mean(0)) / x.std(0)
        for strength in (1e-3, 1.0, 100.0):
            w = np.linalg.solve(z.T @ z / n + strength * np.eye(p), z.T @ (y - y.mean(0)) / n)
            new = rng.standard_normal((5, p)) * 3 + 5
            wanted = (new - x.mean(0)) / x.std(0) @ w + y.mean(0)
            np.testing.assert_allclose(Ridge(x, y).predict(new, strength), wanted, atol=1e-8)
            np.testing.assert_allclose(Ridge(x, y).predict_all(new, (1.0, strength))[1], wanted, atol=1e-8)


def test_a_feature_s_scale_and_offset_change_nothing():
    x, y = linear(2000, features=4)
    demos = demoset(y, train=20)
    plain = probe([x[:, None]], [demos])
    scaled = probe([(x * [1e-4, 1, 100, 1e4] + [5, 0, -3, 1e3])[:, None]], [demos])
    assert scaled.mean.value == pytest.approx(plain.mean.value, abs=1e-6)


def test_dimensions_that_do_not_move_are_left_out_with_their_names():
    x, y = linear(2000)
    still = np.full((2000, 1), 7.0)
    trembling = np.random.default_rng(1).standard_normal((2000, 1)) * SIGNAL / 10
    state = np.hstack([still, y[:, :1], trembling, y[:, 1:]])
    assert moving_dimensions(state).tolist() == [1, 3]
    found = probe([x[:, None]], [demoset(state, train=20)], state_names=["still", "a", "trembling", "b"])
    assert list(found.tasks["reach"].r2) == ["a", "b"]
    assert list(probe([x[:, None]], [demoset(state, train=20)]).tasks["reach"].r2) == [
        "state_1",
        "state_3",
    ]


def test_more_features_than_rows_do_not_overfit():
    """600 training frames, 3,000 features of which 6 tell something: the strength is chosen on other episodes."""
    x, y = linear(1000, noise=(0.1, 0.1))
    rng = np.random.default_rng(5)
    wide = np.hstack([x * 30, rng.standard_normal((1000, 2994))])
    # a linear reader of standardised features cannot find 6 of 3,000; give them weight by repeating them
    wide[:, 6:606] = np.tile(x, (1, 100)) + 0.01 * rng.standard_normal((1000, 600))
    found = probe([wide[:, None]], [demoset(y, train=15, validation=5, test=5)])
    task = found.tasks["reach"]
    assert found.features == 3000
    assert task.frames["train"] == 600
    assert task.mean.value > 0.9
    noise = probe([wide[:, None, 606:]], [demoset(y, train=15, validation=5, test=5)]).mean.value
    assert -0.05 < noise < 0.1


def test_the_strength_is_chosen_on_validation_and_the_score_taken_on_test():
    x, y = linear(3000)
    demos = demoset(y, train=20)
    before = probe([x[:, None]], [demos])
    third = slice(2250, None)  # the test episodes
    changed = x.copy()
    changed[third] = np.random.default_rng(0).standard_normal(x[third].shape)
    after = probe([changed[:, None]], [demos])
    assert after.tasks["reach"].strength == before.tasks["reach"].strength
    assert after.mean.value < 0 < before.mean.value


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """R² = 0.8 exactly; in 60 sets, 95% intervals over 20 episodes should miss it about 3 times."""
    missed = 0
    for seed in range(60):
        x, y = linear(1600, noise=(0.5,), seed=seed)
        found = probe([x[:, None]], [demoset(y, train=50, validation=10, test=20)], seed=seed).mean
        assert found.low <= found.value <= found.high
        missed += not found.low <= 0.8 <= found.high
    assert missed <= 9  # a share of 0.15; P(more | 0.07) < 0.02


def test_tasks_are_fitted_apart_and_averaged():
    x, y = linear(2000)
    _, other = linear(2000, seed=1)
    sets = [demoset(y, train=20), demoset(other, train=20, task="push")]
    found = probe([x[:, None], x[:, None]], sets)
    values = [found.tasks[t].mean.value for t in ("reach", "push")]
    assert values[0] > 0.5 > 0.05 > values[1]
    assert found.mean.value == pytest.approx(np.mean(values))
    written = json.loads(json.dumps(asdict(found)))["tasks"]
    assert {task: TaskProbe.from_json(told) for task, told in written.items()} == found.tasks


def test_long_sets_are_thinned_evenly_and_alike():
    x, y = linear(9000)
    found = probe([x[:, None]], [demoset(y, train=20)]).tasks["reach"]
    assert found.frames == {"train": ROWS, "validation": 2250, "test": 2250}
    assert RESAMPLES >= 1000


def test_what_cannot_be_probed_is_a_sentence():
    x, y = linear(400)
    demos = demoset(y, train=20)
    without = DemoSet(demos.episodes, demos.actions, demos.proprio, None, {}, {})
    with pytest.raises(UserError, match="probe needs demonstrations that hold the simulator's true state"):
        probe([x[:, None]], [without])


def test_where_nothing_moves_a_study_goes_on_without_its_probe():
    x, _ = linear(400)
    found = probe([x[:, None]], [demoset(np.zeros((400, 2)), train=20)])
    assert found == Probed(mean=None, tasks={}, features=x.shape[1])


def test_tasks_of_one_set_are_probed_apart():
    """The same feature stands for opposite states in two tasks: one reader for both would find nothing."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 1))
    whole = demoset(x, train=20)
    episodes = tuple(replace(e, task=("a", "b")[i % 2]) for i, e in enumerate(whole.episodes))
    sign = np.concatenate([np.full((e.length, 1), 1 if e.task == "a" else -1) for e in episodes])
    state = (x * sign).astype(np.float32)
    found = probe([x[:, None]], [replace(whole, episodes=episodes, state=state)])
    assert list(found.tasks) == ["a", "b"]
    assert all(task.mean.value > 0.999 for task in found.tasks.values())
    twice = probe([x[:, None]] * 2, [replace(whole, state=x.astype(np.float32))] * 2)
    assert list(twice.tasks) == ["reach", "reach (set 2)"]
