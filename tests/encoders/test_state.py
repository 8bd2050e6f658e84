import json
from types import SimpleNamespace

import numpy as np
import pytest

from compression_gap.encoders.state import FURTHEST, Blocks, Scale, moving_dimensions
from compression_gap.errors import UserError


def moves(*spreads, mean=0.0, n=500):
    rng = np.random.default_rng(0)
    return (mean + rng.standard_normal((n, len(spreads))) * spreads).astype(np.float32)


def test_what_does_not_move_is_left_out():
    state = np.hstack([np.full((500, 1), 5.0), moves(0.05, 0.0, 0.004)])
    assert moving_dimensions(state).tolist() == [1, 3]


@pytest.mark.parametrize("units", [1e-6, 1.0, 1e3, 1e9])
def test_units_do_not_matter(units):
    """A push in metres, millimetres or anything else: 5 cm, 0.5 mm, and a trembling of a micrometre."""
    assert moving_dimensions(moves(0.05, 5e-4, 1e-6) * np.float32(units)).tolist() == [0, 1]


def test_rounding_is_no_movement():
    """A constant far from 0 takes two neighbouring values of float32; a real movement there is kept."""
    rng = np.random.default_rng(1)
    rounded = np.float32(1000) + rng.integers(0, 2, (500, 1)).astype(np.float32) * np.spacing(
        np.float32(1000)
    )
    assert rounded.std() > 1e-4 * 0.05
    assert moving_dimensions(np.hstack([rounded, moves(0.05), moves(0.01, mean=1000)])).tolist() == [1, 2]


def test_of_no_frames_and_of_constants_nothing_moves():
    assert moving_dimensions(np.zeros((0, 3))).tolist() == []
    assert moving_dimensions(np.full((10, 3), 2.0)).tolist() == []


def test_a_scale_standardises_what_moves():
    state = np.array([[0.0, 5.0, 1.0], [2.0, 5.0, 1.0 + 1e-5]])
    scale = Scale.fit(state)
    assert scale.moving.tolist() == [0]
    np.testing.assert_allclose(scale.standardise(state), [[-1], [1]])


def fake(task_states):
    """What ``Blocks.fit`` reads of a set: training episodes and their states."""
    start, episodes = 0, []
    for task, state in task_states:
        episodes.append(SimpleNamespace(task=task, start=start, length=len(state)))
        start += len(state)
    return SimpleNamespace(
        state=np.concatenate([s for _, s in task_states]),
        tasks=tuple(dict.fromkeys(t for t, _ in task_states)),
        split=lambda name: episodes if name == "train" else [],
    )


def test_blocks_survive_their_file_to_the_bit_and_have_unit_spread():
    a, b = moves(0.05, 0.0, 3.0, mean=0.3), moves(0.0, 0.02, 1.0, mean=-9)
    made = Blocks.fit([fake([("a", a)]), fake([("b", b)])])
    again = Blocks.from_json(json.loads(json.dumps(made.as_json())))
    assert again.tasks == ("a", "b")
    assert again.width == 4
    found = again.features(a[:, None], np.zeros(len(a), np.int64))
    np.testing.assert_array_equal(found, made.features(a[:, None], np.zeros(len(a), np.int64)))
    np.testing.assert_allclose(found[:, 0, :2].std(0), 1, atol=1e-3)
    np.testing.assert_allclose(found[:, 0, :2].mean(0), 0, atol=1e-3)
    assert (found[:, 0, 2:] == 0).all()


def test_a_state_far_beyond_the_demonstrations_is_bounded():
    a = moves(0.05)
    made = Blocks.fit([fake([("a", a)])])
    assert made.features(np.full((1, 1, 1), 1e6, np.float32), np.zeros(1, np.int64)).item() == FURTHEST


def test_where_nothing_moves_there_is_one_constant_number():
    made = Blocks.fit([fake([("a", np.ones((9, 2), np.float32))])])
    assert made.width == 1
    assert made.features(np.ones((2, 1, 2), np.float32), np.zeros(2, np.int64)).tolist() == [[[0]], [[0]]]


def test_what_cannot_be_is_a_sentence():
    a = moves(0.05, 0.1)
    made = Blocks.fit([fake([("a", a)])])
    with pytest.raises(UserError, match="no scale for a task that is not among a"):
        made.features(a[:1, None], np.array([1]))
    with pytest.raises(UserError, match="3 numbers; the oracle was fitted to 2"):
        made.features(np.zeros((1, 1, 3), np.float32), np.array([0]))
    with pytest.raises(UserError, match="have 2 and 3 numbers"):
        Blocks.fit([fake([("a", a)]), fake([("b", moves(1.0, 1.0, 1.0))])])
    about = made.as_json()
    for wrong in ({"std": [0.0, 1.0]}, {"moving": [0, 5]}, {"mean": [0.0]}):
        broken = {**about, "scales": [{**about["scales"][0], **wrong}]}
        with pytest.raises(ValueError, match=r"fits no state|not above 0"):
            Blocks.from_json(broken)
