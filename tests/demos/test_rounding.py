import numpy as np
import pytest
import torch

from compression_gap.demos import Normaliser
from compression_gap.demos.rounding import is_constant, notes, spread
from compression_gap.tokenizers import FAST


def flicker(value, n=400, ulps=1, dtype=np.float32, seed=0):
    """[n]: the value, and now and then its neighbours of this format, as float32."""
    value = dtype(value)
    steps = np.random.default_rng(seed).integers(-ulps, ulps + 1, n)
    return (value + steps * np.spacing(value)).astype(dtype).astype(np.float32)


COLUMNS = {
    "exactly constant": (np.full(400, 0.1, np.float32), True),
    "zeros": (np.zeros(400, np.float32), True),
    "90 and its neighbours": (flicker(90), True),
    "-3e7 and its neighbours": (flicker(-3e7), True),
    "1e-7 and its neighbours": (flicker(1e-7), True),
    "64, below which the places are finer": (flicker(64), True),
    "1e-7 around 0": (1e-7 * np.random.default_rng(0).normal(size=400), False),
    "1e-30 around 0": (1e-30 * np.random.default_rng(0).normal(size=400), False),
    "90, 20 places either way": (flicker(90, ulps=20), False),
    "90, which moves once": (np.where(np.arange(400) == 7, 90.001, flicker(90)), False),
    "90.0625 of float16": (flicker(90.0625, dtype=np.float16), True),
    "90.0625 of float16, which moves": (flicker(90.0625, ulps=5, dtype=np.float16), False),
    "90.0625 of float16, once of float32": (
        np.where(np.arange(400) == 7, 90.01, flicker(90.0625, dtype=np.float16)),
        False,
    ),
    "whole numbers are not float16's": (1500 + np.arange(400) % 2, False),
    "below float16's normal numbers": (2.0**-24 * (np.arange(400) % 5), False),
    "a gripper of 0 and 1": (np.arange(400) % 2, False),
    "beyond float16": (np.where(np.arange(400) % 2, 1e5, 1e5 + 0.5), False),
}


@pytest.mark.parametrize(("column", "constant"), COLUMNS.values(), ids=list(COLUMNS))
def test_what_is_constant_up_to_rounding(column, constant):
    values = np.stack([np.arange(400) % 7, column, np.zeros(400)], 1)
    for given in (values, values.astype(np.float32), values.astype(np.float32)[:, None]):
        assert is_constant(given).reshape(-1).tolist() == [False, constant, True]
    assert spread(values)[1] == pytest.approx(
        max(1, np.ptp(column)) if constant else column.astype(float).std()
    )


def test_features_kept_in_float16():
    values = np.stack([flicker(8.1, dtype=np.float16), np.linspace(-1, 1, 400)], 1).astype(np.float16)
    assert is_constant(values).tolist() == [True, False]


def test_dimensions_that_hardly_move_are_named():
    moving = np.linspace(-1, 1, 400)
    values = np.stack([moving, flicker(90), 90 + 0.004 * moving, np.full(400, 5.0), 1e-7 * moving], 1)
    rounding, near = notes(values, ["a", "b", "c", "d", "e"])
    assert rounding == "b stays within 7.6e-06 of 90, which is rounding: it counts as constant"
    assert near.startswith("c stays within 0.004 of 90 and counts as moving: if that is noise")


# The normaliser


def actions(third, seed=0):
    """[360, 4]: two dimensions that move, this one, and one that is exactly constant."""
    moving = np.random.default_rng(seed).normal(size=(12, 30, 2)).cumsum(1).reshape(360, 2)
    return np.stack([*moving.T, np.broadcast_to(third, 360), np.full(360, 0.1)], 1).astype(np.float32)


def test_a_joint_that_holds_is_no_information():
    """90 against 90 ± its last place: the same standardised actions, so the same tokens and the same bits."""
    exact, noisy = actions(90), actions(flicker(90, 360))
    assert np.ptp(noisy[:, 2]) > 0
    found, expected = (Normaliser.fit(a).normalise(a) for a in (noisy, exact))
    np.testing.assert_array_equal(found, expected)
    assert (found[:, 2:] == 0).all()
    fast = [FAST().fit(x.reshape(12, 30, 4)).report for x in (found, expected)]
    assert fast[0] == fast[1]
    n = Normaliser.fit(noisy)
    assert n.std[2:].tolist() == [1, 1]
    tensor = n.normalise(torch.from_numpy(noisy))
    np.testing.assert_array_equal(tensor, found)
    np.testing.assert_allclose(n.denormalise(found), noisy, atol=1e-5)


@pytest.mark.parametrize("held", [90.0, flicker(90, 360)], ids=["exactly", "with rounding"])
def test_what_leaves_a_constant_later_is_not_hidden(held):
    n, later = Normaliser.fit(actions(held)), actions(90)
    later[:3, 2] = [90 + 2e-5, 90.5, 89]  # rounding, and two movements
    np.testing.assert_allclose(n.normalise(later)[:4, 2], [0, 0.5, -1, 0])


@pytest.mark.parametrize("held", [90.0, flicker(90, 360)], ids=["exactly", "with rounding"])
def test_the_file_knows_what_is_constant(held, tmp_path):
    n = Normaliser.fit(actions(held))
    n.save(tmp_path)
    later = actions(flicker(90, 360, seed=5))
    np.testing.assert_array_equal(Normaliser.load(tmp_path).normalise(later), n.normalise(later))
    assert (n.normalise(later)[:, 2] == 0).all()


@pytest.mark.parametrize("held", [1e8, 3e30])
def test_rounding_wider_than_1_stays_rounding(held):
    noisy = actions(flicker(held, 360))
    n = Normaliser.fit(noisy)
    assert (n.normalise(noisy)[:, 2] == 0).all()
    assert n.high[2] - n.low[2] <= 1
    np.testing.assert_allclose(n.denormalise(n.normalise(noisy)), noisy, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-24, 2.0**13])
def test_standardised_actions_do_not_depend_on_the_unit(scale):
    raw = actions(np.arange(360) % 5)
    x = Normaliser.fit(raw).normalise(raw)
    scaled = raw * np.float32(scale)
    n = Normaliser.fit(scaled)
    np.testing.assert_array_equal(n.normalise(scaled), x)
    np.testing.assert_allclose(n.denormalise(x)[:, :3], scaled[:, :3], rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1e4])
def test_standardised_actions_hardly_depend_on_a_unit_that_rounds(scale):
    raw = actions(np.arange(360) % 5)
    scaled = (raw * scale).astype(np.float32)
    found, x = Normaliser.fit(scaled).normalise(scaled), Normaliser.fit(raw).normalise(raw)
    np.testing.assert_allclose(found, x, atol=2e-6)
    assert found[:, :3].std(0) == pytest.approx(1, abs=1e-5)
