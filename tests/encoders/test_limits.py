from dataclasses import replace

import numpy as np
import pytest

from compression_gap.encoders.limits import Blind, Oracle
from compression_gap.errors import UserError
from compression_gap.sims import Observation


def observation(seed, state_dim=3):
    rng = np.random.default_rng(seed)
    return Observation(
        images={c: rng.integers(0, 256, (4, 2, 8, 8, 3), dtype=np.uint8) for c in ("front", "wrist")},
        proprio=rng.normal(size=(4, 2, 5)).astype(np.float32),
        task=np.zeros(4, np.int64),
        state=None if state_dim is None else rng.normal(size=(4, 2, state_dim)).astype(np.float32),
    )


def test_blind_gives_one_constant_whatever_is_seen():
    blind = Blind(2)
    found = [blind.features(observation(seed)) for seed in range(3)]
    for features in found:
        np.testing.assert_array_equal(features, np.zeros((4, 2, 2, 1)))


def test_oracle_reads_the_state_alone_and_exactly():
    oracle = Oracle(2)
    seen, other = observation(0), observation(1)
    features = oracle.features(seen)
    for camera in range(2):
        np.testing.assert_array_equal(features[:, :, camera], seen.state)
    blinded = replace(seen, images={}, proprio=other.proprio, task=other.task + 1)
    np.testing.assert_array_equal(oracle.features(blinded), features)
    assert features.dtype == oracle.dtype == np.float32


def test_oracle_keeps_a_tenth_of_a_millimetre():
    """float16 steps by 0.5 mm beyond half a metre; the oracle must not."""
    state = np.array([[[1.0], [1.0001]]], np.float32)
    seen = Observation(images={}, proprio=np.zeros((1, 2, 1), np.float32), task=np.zeros(1), state=state)
    oracle = Oracle(1)
    kept = oracle.features(seen).astype(oracle.dtype)
    assert kept[0, 1, 0, 0] - kept[0, 0, 0, 0] == pytest.approx(1e-4, rel=1e-2)
    assert np.float16(1.0001) == np.float16(1.0)


def test_oracle_without_a_state_says_so():
    with pytest.raises(UserError, match="needs the simulator's true state"):
        Oracle(2).features(observation(0, state_dim=None))


@pytest.mark.parametrize("encoder", [Blind(1), Oracle(1)])
def test_the_limits_need_no_images_and_train_nothing(encoder):
    assert not encoder.needs_images
    assert encoder.frozen
    assert encoder.network() is None
