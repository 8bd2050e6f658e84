from dataclasses import replace

import numpy as np
import pytest

from compression_gap.demos import DemoSet, DemoWriter
from compression_gap.encoders import make_encoder
from compression_gap.encoders.cache import BATCH, cache_features, frame_batch
from compression_gap.errors import UserError
from compression_gap.sims import Observation


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Five episodes of 30 frames: more than two batches, the last one not full."""
    folder, rng = tmp_path_factory.mktemp("demos"), np.random.default_rng(0)
    writer = DemoWriter(folder, source={})
    for episode in range(5):
        seen = [
            Observation(
                images={c: rng.integers(0, 256, (1, 1, 12, 12, 3), np.uint8) for c in ("front", "wrist")},
                proprio=rng.normal(size=(1, 1, 2)).astype(np.float32),
                task=np.zeros(1, np.int64),
                state=rng.normal(size=(1, 1, 4)).astype(np.float32),
            )
            for _ in range(30)
        ]
        writer.add("reach", episode, seen, list(rng.normal(size=(30, 2))))
    writer.close()
    return DemoSet.load(folder)


@pytest.mark.parametrize("name", ["blind", "oracle", "retina-5"])
def test_cached_features_are_those_computed_directly(demos, tmp_path, name):
    encoder, seen = make_encoder(name, cameras=2), []
    file = cache_features(encoder, demos, tmp_path, progress=lambda *at: seen.append(at))
    cached = np.load(file, allow_pickle=False)
    direct = encoder.features(frame_batch(demos, slice(None)))[:, 0]
    assert cached.dtype == encoder.dtype
    assert cached.shape == direct.shape
    np.testing.assert_allclose(cached, direct, rtol=2**-10, atol=1e-6)
    assert seen == [(BATCH, 150), (2 * BATCH, 150), (150, 150)]


def test_the_oracle_is_cached_without_loss(demos, tmp_path):
    cached = np.load(cache_features(make_encoder("oracle", cameras=2), demos, tmp_path))
    assert cached.dtype == np.float32
    for camera in range(2):
        np.testing.assert_array_equal(cached[:, camera], demos.state)


@pytest.mark.parametrize("name", ["blind", "oracle", "retina-5"])
def test_a_rollout_sees_the_numbers_that_training_saw(demos, tmp_path, name):
    """Two rows of three observation steps against the cached frames they consist of."""
    encoder = make_encoder(name, cameras=2)
    cached = np.load(cache_features(encoder, demos, tmp_path))
    rows = ((3, 4, 5), (70, 71, 72))
    asked = Observation.batch([Observation.history([demos.observation(f) for f in r]) for r in rows])
    rollout = encoder.features(asked).astype(encoder.dtype)
    for b, row in enumerate(rows):
        # One unit of the last place of float16 at most: sums may be ordered otherwise.
        np.testing.assert_allclose(
            rollout[b].astype(np.float32), cached[list(row)].astype(np.float32), rtol=2**-10, atol=1e-6
        )


def test_a_set_without_state_serves_all_but_the_oracle(demos, tmp_path):
    bare = replace(demos, state=None)
    assert np.load(cache_features(make_encoder("retina-2", cameras=2), bare, tmp_path)).shape == (150, 2, 12)
    with pytest.raises(UserError, match="true state"):
        cache_features(make_encoder("oracle", cameras=2), bare, tmp_path)


def test_a_trained_encoder_cannot_be_cached(demos, tmp_path):
    with pytest.raises(ValueError, match="resnet18 is trained with the policy"):
        cache_features(make_encoder("resnet18", cameras=2), demos, tmp_path)
    assert list(tmp_path.iterdir()) == []
