"""Chunk sets and the identity of rows: what belongs to a decision point is found by it, or refused."""

import numpy as np
import pytest

from compression_gap.artifacts.tokens import TokenTable
from compression_gap.demos import (
    DemoSet,
    DemoWriter,
    Normaliser,
    Rows,
    decision_rows,
    frame_rows,
    make_chunks,
)
from compression_gap.sims import Observation

UNITS = Normaliser(*(np.array([v], np.float32) for v in (1.0, 2.0, -3, 3)))


def demoset(folder, first):
    """Ten episodes of 3 to 12 frames; an action is 100 × episode + frame, counted from ``first``."""
    folder.mkdir()
    writer = DemoWriter(folder, source={})
    for e in range(10):
        frames = range(3 + e)
        seen = [
            Observation({}, np.full((1, 1, 2), 100 * (first + e) + t, np.float32), np.zeros(1, np.int64))
            for t in frames
        ]
        writer.add("push", e, seen, [np.array([100.0 * (first + e) + t]) for t in frames])
    writer.close()
    return DemoSet.load(folder)


@pytest.fixture
def sets(tmp_path):
    return [demoset(tmp_path / "a", 0), demoset(tmp_path / "b", 10)]


def test_rows_name_the_very_action_that_a_chunk_begins_with(sets):
    points = make_chunks(sets, UNITS, "train", horizon=4, n_obs_steps=2, stride=2)
    raw = UNITS.denormalise(points.chunks)[:, 0, 0]
    np.testing.assert_array_equal(np.round(raw), 100 * points.rows.episode + points.rows.step)
    np.testing.assert_array_equal(points.rows.episode, points.episode)
    assert set(points.rows.step % 2) == {0}
    assert len(points.rows) == len(points) == len(points.chunks)


def test_the_identity_is_the_same_whatever_is_asked_with_it(sets):
    points = make_chunks(sets, UNITS, "test", horizon=4, stride=3)
    known = decision_rows(sets, "test", 3)
    np.testing.assert_array_equal(points.rows.episode, known.episode)
    np.testing.assert_array_equal(points.rows.step, known.step)
    assert len(frame_rows(sets)) == sum(len(s.actions) for s in sets)


def test_some_points_are_found_among_all(sets):
    every = make_chunks(sets, UNITS, "train", horizon=4)
    whole = every.whole()
    at = every.rows.find(whole.rows, "all points")
    np.testing.assert_array_equal(every.chunks[at], whole.chunks)
    assert whole.valid.all()
    assert len(whole) < len(every)
    assert len(whole.some(5)) == 5
    np.testing.assert_array_equal(whole.rows.find(whole.some(5).rows, "whole")[[0, -1]], [0, len(whole) - 1])


def table(points):
    """Tokens that say whose they are: the episode and the step."""
    ids = np.stack([points.rows.episode, points.rows.step], 1)
    return TokenTable(points.rows, ids, np.full(len(ids), 2), points.chunks)


def test_tokens_are_taken_by_their_decision_point(sets):
    every = make_chunks(sets, UNITS, "train", horizon=4)
    own = table(every).of(every.whole())
    np.testing.assert_array_equal(own.ids[:, 0], every.whole().rows.episode)
    np.testing.assert_array_equal(own.coded, every.whole().chunks)


def test_shuffled_rows_are_refused(sets):
    every = make_chunks(sets, UNITS, "train", horizon=4)
    order = np.random.default_rng(0).permutation(len(every))
    full = table(every)
    shuffled = TokenTable(full.rows.at(order), full.ids[order], full.lengths[order], full.coded[order])
    with pytest.raises(
        ValueError, match="the target tokens are not in the order of their episodes and steps"
    ):
        shuffled.of(every)


def test_doubled_rows_are_refused(sets):
    rows = make_chunks(sets, UNITS, "train", horizon=4).rows
    with pytest.raises(ValueError, match="not in the order"):
        rows.at(np.r_[0, 0, 1]).find(rows.at(np.r_[0, 1]), "rows")


@pytest.mark.parametrize("kept", [slice(1, None), slice(None, -1), slice(None, None, 2), slice(0, 0)])
def test_truncated_rows_are_refused(sets, kept):
    every = make_chunks(sets, UNITS, "train", horizon=4)
    full, at = table(every), np.arange(len(every))[kept]
    short = TokenTable(full.rows.at(at), full.ids[at], full.lengths[at], full.coded[at])
    with pytest.raises(ValueError, match="the target tokens hold other decision points"):
        short.of(every)
    with pytest.raises(ValueError, match=f"{len(at)} rows of target tokens for {len(every)} decision points"):
        TokenTable(full.rows, full.ids[at], full.lengths[at], full.coded[at])


def test_another_order_of_the_sets_or_another_stride_is_refused(sets):
    every = make_chunks(sets, UNITS, "train", horizon=4)
    sparse = make_chunks(sets, UNITS, "train", horizon=4, stride=2)
    with pytest.raises(ValueError, match="other decision points"):
        table(sparse).of(every)
    table(every).of(sparse)  # all of them are there


def test_rows_outlive_a_file(tmp_path):
    rows = Rows(np.array([0, 0, 7]), np.array([0, 1, 2**20]))
    rows.save(tmp_path / "rows.npy")
    again = Rows.load(tmp_path / "rows.npy")
    np.testing.assert_array_equal(again.episode, rows.episode)
    np.testing.assert_array_equal(again.step, rows.step)
