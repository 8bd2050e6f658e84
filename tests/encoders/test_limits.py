from dataclasses import replace

import numpy as np
import pytest

from compression_gap.demos import DemoSet, DemoWriter
from compression_gap.encoders import make_encoder
from compression_gap.encoders.cache import cache_features
from compression_gap.encoders.limits import Blind, Oracle
from compression_gap.encoders.registry import check_encoder, is_limit
from compression_gap.errors import UserError
from compression_gap.sims import Observation
from plain_state import oracle_folder


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


def test_oracle_reads_state_and_task_alone():
    oracle = Oracle(2, oracle_folder(3))
    seen, other = observation(0), observation(1)
    features = oracle.features(seen)
    for camera in range(2):
        np.testing.assert_array_equal(features[:, :, camera], seen.state)
    blinded = replace(seen, images={}, proprio=other.proprio)
    np.testing.assert_array_equal(oracle.features(blinded), features)
    assert features.dtype == oracle.dtype == np.float32


def test_oracle_keeps_a_tenth_of_a_millimetre():
    """float16 steps by 0.5 mm beyond half a metre; the oracle must not."""
    state = np.array([[[1.0], [1.0001]]], np.float32)
    seen = Observation(
        images={}, proprio=np.zeros((1, 2, 1), np.float32), task=np.zeros(1, np.int64), state=state
    )
    oracle = Oracle(1, oracle_folder(1))
    kept = oracle.features(seen).astype(oracle.dtype)
    assert kept[0, 1, 0, 0] - kept[0, 0, 0, 0] == pytest.approx(1e-4, rel=1e-2)
    assert np.float16(1.0001) == np.float16(1.0)


def test_oracle_without_a_state_says_so():
    with pytest.raises(UserError, match="needs the simulator's true state"):
        Oracle(2, oracle_folder(3)).features(observation(0, state_dim=None))


@pytest.mark.parametrize("encoder", [Blind(1), Oracle(1, oracle_folder(3))])
def test_the_limits_need_no_images_and_train_nothing(encoder):
    assert not encoder.needs_images
    assert encoder.frozen
    assert encoder.network() is None


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """One set of two tasks: the object lies at 1000 mm in one, the drawer opens by radians in the other."""
    folder, rng = tmp_path_factory.mktemp("demos"), np.random.default_rng(0)
    writer = DemoWriter(folder, source={})
    for number in range(20):
        task = ("push", "open")[number % 2]
        seen = []
        for step in range(10):
            push = [1000 + 50 * rng.normal(), 7.0, 0.0, rng.normal()]
            drawer = [3.0, 7.0, 0.1 * step, 0.0]
            state = np.array(push if task == "push" else drawer, np.float32)
            image = rng.integers(0, 256, (1, 1, 12, 12, 3), np.uint8)
            seen.append(
                Observation(
                    images={"front": image},
                    proprio=np.zeros((1, 1, 2), np.float32),
                    task=np.zeros(1, np.int64),
                    state=state[None, None],
                )
            )
        writer.add(task, number, seen, [np.zeros(2)] * 10)
    writer.close()
    return DemoSet.load(folder)


def test_the_oracle_has_a_block_a_task_and_standardises_within_it(demos, tmp_path):
    """Against the same numbers taken from the episodes directly."""
    Oracle.prepare([demos], tmp_path)
    encoder = make_encoder("oracle", cameras=1, folder=tmp_path)
    assert encoder.tasks == ("push", "open")
    assert (encoder.feature_dim, encoder.state_dim) == (3, 4)
    (tmp_path / "cache").mkdir()
    found = np.load(cache_features(encoder, demos, tmp_path / "cache"))[:, 0]
    block, dims = {"push": slice(0, 2), "open": slice(2, 3)}, {"push": [0, 3], "open": [2]}
    for task in ("push", "open"):
        rows = {
            split: np.concatenate(
                [
                    np.arange(e.start, e.start + e.length)
                    for e in demos.episodes
                    if e.task == task and e.split in of
                ]
            )
            for split, of in (("train", ("train",)), ("all", ("train", "validation", "test")))
        }
        trained = demos.state[rows["train"]][:, dims[task]].astype(float)
        wanted = (demos.state[rows["all"]][:, dims[task]] - trained.mean(0)) / trained.std(0)
        np.testing.assert_allclose(found[rows["all"]][:, block[task]], wanted, atol=1e-5)
        others = np.setdiff1d(np.arange(3), np.arange(3)[block[task]])
        assert (found[rows["all"]][:, others] == 0).all()


def test_beside_an_image_the_state_is_as_it_is_alone(demos, tmp_path):
    Oracle.prepare([demos], tmp_path)
    both = make_encoder("oracle+retina-4", cameras=1, folder=tmp_path)
    alone = make_encoder("oracle", cameras=1, folder=tmp_path)
    seen = replace(demos.observation(3, 1), images={"front": demos.images["front"][3:4][None]})
    image = make_encoder("retina-4", cameras=1).features(seen)
    np.testing.assert_array_equal(both.features(seen), np.concatenate([alone.features(seen), image], -1))
    assert both.needs_images
    assert both.feature_dim == 3 + 48
    assert both.name == "oracle+retina-4"


def test_names_of_the_limits():
    assert [n for n in ("blind", "oracle", "oracle+retina-8", "oracle-2b", "retina-8") if is_limit(n)] == [
        "blind",
        "oracle",
        "oracle+retina-8",
    ]
    check_encoder("oracle+retina-8", image_size=8)
    with pytest.raises(UserError, match="finer than the images"):
        check_encoder("oracle+retina-9", image_size=8)
    for name in ("oracle+blind", "oracle+", "oracle+retina-R", "oracle+pose-1k"):
        with pytest.raises(UserError, match="beside the state stands a retina"):
            check_encoder(name, image_size=84)


def test_what_is_no_oracle_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="holds no oracle encoder that can be read"):
        Oracle(1, tmp_path)
    (tmp_path / "encoder.json").write_text('{"name": "pose-1k"}')
    with pytest.raises(UserError, match="prepared for 'pose-1k'"):
        Oracle(1, tmp_path)
