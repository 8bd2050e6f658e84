"""Demonstration sets, splits, windows and the normaliser."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compression_gap.demos import DemoSet, DemoWriter, Normaliser, make_windows
from compression_gap.demos.demoset import assign_splits
from compression_gap.errors import UserError
from compression_gap.sims import Observation


def frame(value: int, size: int = 3) -> Observation:
    return Observation(
        images={"front": np.full((1, 1, size, size, 3), value, np.uint8)},
        proprio=np.full((1, 1, 2), value, np.float32),
        task=np.zeros(1, np.int64),
        state=np.full((1, 1, 1), -value, np.float32),
    )


def write(folder, lengths, task="push"):
    writer = DemoWriter(folder, source={"name": "test"})
    value = 0
    for number, length in enumerate(lengths):
        rows = range(value, value + length)
        writer.add(task, number, [frame(v) for v in rows], [np.full(2, v, np.float32) for v in rows])
        value += length
    writer.close()
    return DemoSet.load(folder)


@pytest.fixture
def demos(tmp_path):
    return write(tmp_path, [4, 2, 5, 3])


def test_round_trip_keeps_every_value(demos):
    assert [e.length for e in demos.episodes] == [4, 2, 5, 3]
    assert demos.actions.shape == (14, 2)
    assert np.array_equal(demos.actions[:, 0], np.arange(14, dtype=np.float32))
    assert np.array_equal(demos.images["front"][:, 0, 0, 0], np.arange(14))
    assert np.array_equal(demos.state[:, 0], -np.arange(14, dtype=np.float32))
    assert demos.observation(9).proprio[0, 0, 0] == 9


def test_memory_maps_cannot_be_written(demos):
    with pytest.raises(ValueError, match="read-only"):
        demos.actions[0] = 1


def test_an_episode_with_other_streams_is_refused(tmp_path):
    writer = DemoWriter(tmp_path, source={})
    writer.add("push", 0, [frame(0)], [np.zeros(2)])
    with pytest.raises(ValueError, match="do not fit"):
        writer.add("push", 1, [frame(0, size=4)], [np.zeros(2)])


@given(st.integers(3, 400))
def test_splits_cover_every_episode_once_and_hold_out_a_tenth_twice(episodes):
    names = assign_splits(episodes)
    assert len(names) == episodes
    assert names.count("validation") == names.count("test") == max(1, round(0.1 * episodes))


def test_windows_repeat_the_first_frame_and_mask_after_the_last_action(demos):
    first = demos.episodes[0]
    w = make_windows([demos], ["push"], horizon=3, n_obs_steps=2, split=first.split)
    own = w.episode == 0
    assert w.frames[own].tolist() == [[0, 0], [0, 1], [1, 2], [2, 3]]
    assert w.actions[own].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 3], [3, 3, 3]]
    assert w.valid[own].sum(1).tolist() == [3, 3, 2, 1]


def test_windows_of_joined_sets_count_rows_over_both(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = write(tmp_path / "a", [2, 2, 2], "push"), write(tmp_path / "b", [3, 3, 3], "hammer")
    parts = [make_windows([a, b], ["hammer", "push"], 1, 1, s) for s in ("train", "validation", "test")]
    rows = np.sort(np.concatenate([p.frames[:, 0] for p in parts]))
    assert rows.tolist() == list(range(15))
    for part in parts:
        assert np.array_equal(part.task, (part.frames[:, 0] < 6).astype(int))


@given(st.integers(0, 2**31 - 1))
def test_normaliser_standardises_and_comes_back(seed):
    rng = np.random.default_rng(seed)
    raw = (rng.normal(size=(50, 3)) * [1, 20, 0] + [0, 5, 2]).astype(np.float32)
    n = Normaliser.fit(raw)
    x = n.normalise(raw)
    assert np.allclose(x.mean(0), 0, atol=1e-4)
    assert np.allclose(x.std(0), [1, 1, 0], atol=1e-4)
    assert np.allclose(n.denormalise(x), raw, atol=1e-4)
    assert torch.allclose(n.normalise(torch.from_numpy(raw)), torch.from_numpy(x), atol=1e-6)
    assert np.allclose(n.high, x.max(0), atol=1e-4)


def test_normaliser_survives_its_file_exactly(tmp_path):
    n = Normaliser.fit(np.random.default_rng(0).normal(size=(9, 4)))
    n.save(tmp_path)
    for name in ("mean", "std", "low", "high"):
        assert np.array_equal(getattr(Normaliser.load(tmp_path), name), getattr(n, name))


def test_normaliser_refuses_nan():
    with pytest.raises(UserError, match="NaN or infinite"):
        Normaliser.fit(np.array([[np.nan]]))
