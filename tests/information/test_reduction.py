"""Supervised reduction: what is told survives any width, what is not is not made up."""

import numpy as np
import pytest
import torch

from compression_gap.information.reduction import Reducing, folds_of, fourier, reduce, reduced_rank

QUICK = Reducing(steps=150, batch_size=128, width=64)


def splits(values, cut=0.8):
    n = int(cut * len(values))
    values = torch.from_numpy(values)
    return {"train": values[:n], "validation": values[n:], "test": values[n:]}


def explained(columns, y):
    """The share of y's variance on new rows that a regression on the training split's columns explains."""
    slopes = torch.linalg.lstsq(columns["train"], y["train"]).solution
    return 1 - float((y["test"] - columns["test"] @ slopes).square().mean() / y["test"].square().mean())


def hidden(width, seed=0, n=2000):
    """Three numbers, turned together with columns that say nothing, and a chunk of 8 that they tell."""
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((n, 3))
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
    x = np.concatenate([c, rng.standard_normal((n, width - 3))], 1) @ turn
    return splits(x), splits(c @ rng.standard_normal((3, 8)) / 2 + 0.1 * rng.standard_normal((n, 8)))


@pytest.mark.parametrize("width", [3, 300])
def test_three_directions_are_found_among_any_number(width):
    x, y = hidden(width)
    found = reduce(x, y, np.repeat(np.arange(200), 8), Reducing(steps=0))
    assert found.linear["train"].shape[1] == 3
    assert found.learned["train"].shape[1] == 0
    assert explained(found.linear, y) > 0.97


def test_columns_that_say_nothing_leave_no_direction():
    rng = np.random.default_rng(1)
    x, y = splits(rng.standard_normal((1000, 200))), splits(rng.standard_normal((1000, 4)))
    found = reduce(x, y, np.repeat(np.arange(100), 8), QUICK)
    assert explained(found.linear, y) < 0.02
    assert explained(found.learned, y) < 0.02


def test_what_is_not_linear_is_learned_behind_wide_columns():
    rng = np.random.default_rng(2)
    c = rng.uniform(-1, 1, (4000, 1))
    turn = np.linalg.qr(rng.standard_normal((11, 11)))[0]
    x = np.concatenate([c / c.std(), 3 * rng.standard_normal((4000, 10))], 1) @ turn
    y = splits(np.sqrt(2) * np.cos(np.pi * c))
    found = reduce(splits(x), y, np.repeat(np.arange(400), 8), Reducing(steps=400, width=64))
    assert explained(found.linear, y) < 0.05
    assert explained(found.learned, y) > 0.8


def test_training_rows_are_predicted_by_others():
    """Columns that name the episode would predict its own rows, and tell nothing of a new one."""
    rng = np.random.default_rng(3)
    episode = np.repeat(np.arange(20), 10)
    offset = rng.standard_normal((20, 2))[episode]
    named = np.eye(20)[episode] - 1 / 20
    x = {s: torch.from_numpy(named) for s in ("train", "validation", "test")}
    y = {s: torch.from_numpy(offset - offset.mean(0)) for s in x}
    found = reduce(x, y, episode, QUICK)
    for columns in (found.linear, found.learned):
        fit = torch.linalg.lstsq(columns["train"], y["train"]).solution
        left = (y["train"] - columns["train"] @ fit).square().mean() / y["train"].square().mean()
        assert float(left) > 0.5  # that of its own rows is 0


def test_one_episode_leaves_nothing_to_judge_by():
    x = {s: torch.randn(50, 4, dtype=torch.float64) for s in ("train", "test")}
    found = reduce(x, x, np.zeros(50), QUICK)
    assert found.linear["train"].shape == found.learned["test"].shape == (50, 0)


def test_the_rank_is_that_of_the_relation():
    rng = np.random.default_rng(4)
    p = rng.standard_normal((3000, 6))
    y = p[:, :2] @ rng.standard_normal((2, 5)) + 0.5 * rng.standard_normal((3000, 5))
    fold = torch.from_numpy(folds_of(np.repeat(np.arange(300), 10)))
    directions, error = reduced_rank(torch.from_numpy(p), torch.from_numpy(y), fold)
    assert directions.shape == (6, 2)
    assert error / y.size == pytest.approx(0.25, rel=0.05)
    # Of the full rank it is least squares.
    one, _ = reduced_rank(torch.from_numpy(p), torch.from_numpy(p[:, :1] + 0.0), fold)
    slopes = np.linalg.lstsq(p, p[:, :1], rcond=None)[0]
    np.testing.assert_allclose(np.abs(one.numpy()), np.abs(slopes), atol=1e-6)


def test_folds_are_whole_episodes_of_even_number():
    fold = folds_of(np.repeat(np.arange(23), 7))
    assert all(len(set(fold[i * 7 : i * 7 + 7])) == 1 for i in range(23))
    assert set(np.bincount(fold[::7])) == {4, 5}


def test_fourier_features_are_centred_and_of_the_chunk_s_size():
    y = torch.randn(5000, 3, dtype=torch.float64)
    waves = fourier(y, 0)
    assert float(waves.mean(0).abs().max()) < 1e-9
    assert 0.1 < float(waves.square().sum(1).mean()) / 3 < 1.1
