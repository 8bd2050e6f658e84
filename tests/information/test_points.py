import numpy as np
import pytest

from compression_gap.demos import DemoSet, DemoWriter, Normaliser, make_chunks
from compression_gap.errors import UserError
from compression_gap.information.points import feature_part, own_part, whole_chunks
from compression_gap.sims import Observation

UNITS = Normaliser(*(np.array([v], np.float32) for v in (1.0, 2.0, -3, 3)))


def decision_points(sets, tasks, units, split, share=1, **shape):
    return whole_chunks(make_chunks(sets, units, split, tasks=tasks, **shape), share)


@pytest.fixture
def demos(tmp_path):
    """Ten episodes of 6 to 15 frames; an action is 100 × episode + frame."""
    writer = DemoWriter(tmp_path, source={})
    for e in range(10):
        frames = range(6 + e)
        seen = [
            Observation({}, np.full((1, 1, 2), 100 * e + t, np.float32), np.zeros(1, np.int64))
            for t in frames
        ]
        writer.add("push", e, seen, [np.array([100.0 * e + t]) for t in frames])
    writer.close()
    return DemoSet.load(tmp_path)


def test_only_whole_chunks_count_and_rows_say_where_they_are(demos):
    points = decision_points([demos], ["push"], UNITS, "train", horizon=4, n_obs_steps=2)
    whole = sum(e.length - 3 for e in demos.split("train"))
    assert len(points.rows) == whole == len(points.chunks)
    assert points.windows.valid.all()
    raw = UNITS.denormalise(points.chunks)[..., 0]
    np.testing.assert_allclose(np.diff(raw, axis=1), 1)
    all_windows = sum(e.length for e in demos.split("train"))
    assert make_chunks([demos], UNITS, "train", horizon=4).rows.find(points.rows, "all").max() < all_windows


def test_a_stride_keeps_every_so_many_frames(demos):
    points = decision_points([demos], ["push"], UNITS, "train", horizon=4, n_obs_steps=1, stride=5)
    frames = UNITS.denormalise(points.chunks)[:, 0, 0] % 100
    assert set(np.round(frames)) <= {0, 5, 10}


def test_smaller_shares_lie_within_larger_ones(demos):
    kept = [
        set(decision_points([demos], ["push"], UNITS, "train", horizon=4, n_obs_steps=1, share=s).episode)
        for s in (1, 2, 4)
    ]
    assert kept[2] < kept[1] < kept[0]
    assert [len(k) for k in kept] == [8, 4, 2]


def test_what_a_blind_policy_is_told(demos):
    points = decision_points([demos], ["other", "push"], UNITS, "test", horizon=4, n_obs_steps=2)
    own = own_part(points, [demos], ["other", "push"])
    assert own.shape == (len(points.rows), 2 * 2 + 2)
    assert (own[:, -1] == 1).all()
    np.testing.assert_allclose(own[:, 2], UNITS.denormalise(points.chunks)[:, 0, 0])
    features = np.arange(len(demos.actions), dtype=np.float16)[:, None, None] * np.ones((1, 1, 3), np.float16)
    seen = feature_part(points, [features])
    assert seen.shape == (len(points.rows), 2 * 3)
    np.testing.assert_array_equal(seen[:, 3], points.windows.frames[:, 1])


def test_some_are_spread_evenly(demos):
    points = decision_points([demos], ["push"], UNITS, "train", horizon=4, n_obs_steps=1)
    some = points.some(5)
    assert len(some.rows) == len(some.windows) == len(some.chunks) == 5
    assert len(points.some(10_000).rows) == len(points.rows)


def test_episodes_shorter_than_a_chunk_are_one_sentence(demos):
    with pytest.raises(UserError, match="shorter horizon"):
        decision_points([demos], ["push"], UNITS, "train", horizon=40, n_obs_steps=1)
