import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from compression_gap.demos import DemoSet, DemoWriter
from compression_gap.encoders import cache, make_encoder
from compression_gap.encoders.cache import BATCH, cache_features, fill_shards, frame_batch
from compression_gap.encoders.checkpoints import prepare_pretrained, resolve
from compression_gap.errors import UserError
from compression_gap.nn import Interrupted
from compression_gap.sims import Observation
from compression_gap.store.store import Superseded
from plain_state import oracle_folder


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


def make_oracle():
    return make_encoder("oracle", cameras=2, folder=oracle_folder(4))


def make(name):
    folder = oracle_folder(4) if name.startswith("oracle") else None
    return make_encoder(name, cameras=2, folder=folder)


@pytest.mark.parametrize("name", ["blind", "oracle", "oracle+retina-3", "retina-5"])
def test_cached_features_are_those_computed_directly(demos, tmp_path, name):
    encoder, seen = make(name), []
    file = cache_features(encoder, demos, tmp_path, progress=lambda *at: seen.append(at))
    cached = np.load(file, allow_pickle=False)
    direct = encoder.features(frame_batch(demos, slice(None)))[:, 0]
    assert cached.dtype == encoder.dtype
    assert cached.shape == direct.shape
    np.testing.assert_allclose(cached, direct, rtol=2**-10, atol=1e-6)
    assert seen == [(BATCH, 150), (2 * BATCH, 150), (150, 150)]


def test_the_oracle_is_cached_without_loss(demos, tmp_path):
    cached = np.load(cache_features(make_oracle(), demos, tmp_path))
    assert cached.dtype == np.float32
    for camera in range(2):
        np.testing.assert_array_equal(cached[:, camera], demos.state)


@pytest.mark.parametrize("name", ["blind", "oracle", "oracle+retina-3", "retina-5"])
def test_a_rollout_sees_the_numbers_that_training_saw(demos, tmp_path, name):
    """Two rows of three observation steps against the cached frames they consist of."""
    encoder = make(name)
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
        cache_features(make_oracle(), bare, tmp_path)


def test_a_trained_encoder_cannot_be_cached(demos, tmp_path):
    with pytest.raises(ValueError, match="resnet18 is trained with the policy"):
        cache_features(make_encoder("resnet18", cameras=2), demos, tmp_path)
    assert list(tmp_path.iterdir()) == []


# Pretrained encoders


@pytest.mark.parametrize("family", ["resnet", "siglip", "dinov2"])
def test_a_rollout_of_a_pretrained_encoder_sees_what_training_saw(demos, tmp_path, checkpoints, family):
    pin = resolve(f"folder:{checkpoints[family][0]}+patches2")
    prepare_pretrained(pin, tmp_path)
    encoder = make_encoder(pin.encoder, cameras=2, folder=tmp_path)
    cached = np.load(cache_features(encoder, demos, tmp_path), mmap_mode="r", allow_pickle=False)
    assert cached.dtype == np.float16
    assert cached.shape == (150, 2, encoder.feature_dim)
    rows = ((3, 4), (70, 71), (149, 149))
    asked = Observation.batch([Observation.history([demos.observation(f) for f in r]) for r in rows])
    rollout = make_encoder(pin.encoder, cameras=2, folder=tmp_path).features(asked).astype(encoder.dtype)
    want = cached[np.array(rows)].astype(np.float32)
    np.testing.assert_allclose(rollout.astype(np.float32), want, rtol=2**-10, atol=1e-4)
    assert np.abs(want[0, 0] - want[1, 0]).max() > 1e-2  # other frames have other features


# Shards


class Watched:
    """An encoder that notes the frames it is asked for, and lets something happen before."""

    name, needs_images, frozen, std_floor, dtype, feature_dim = "watched", True, True, 0.1, np.float16, 12

    def __init__(self, demos, before=lambda number: None):
        self.inner, self.before, self.asked = make_encoder("retina-2", cameras=2), before, []
        self.at = {demos.proprio[f].tobytes(): f for f in range(len(demos.proprio))}

    def features(self, obs):
        self.before(len(self.asked))
        self.asked.append(self.at[obs.proprio[0, 0].tobytes()])
        return self.inner.features(obs)


@pytest.fixture
def small(monkeypatch):
    """Batches, and shards, of 16 frames: ten of them."""
    monkeypatch.setattr(cache, "BATCH", 16)


FIRST = list(range(0, 150, 16))  # frame of each shard


def whole(demos, folder):
    folder.mkdir()
    return cache_features(make_encoder("retina-2", cameras=2), demos, folder).read_bytes()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_run_that_was_stopped_goes_on_after_its_last_shard(demos, tmp_path, error):
    def stop(number):
        if number == 4:
            raise error

    first, seen = Watched(demos, stop), []
    with pytest.raises(error):
        cache_features(first, demos, tmp_path, work=tmp_path / "work")
    assert not (tmp_path / "features.npy").exists()
    second = Watched(demos)
    file = cache_features(second, demos, tmp_path, lambda *at: seen.append(at), work=tmp_path / "work")
    assert (first.asked, second.asked) == (FIRST[:4], FIRST[4:])
    assert seen[0] == (64, 150)
    assert seen[-1] == (150, 150)
    assert file.read_bytes() == whole(demos, tmp_path / "whole")


@pytest.mark.usefixtures("small")
def test_a_killed_workers_claim_and_scraps_do_not_stay(demos, tmp_path, monkeypatch):
    """As a kill in the middle of writing leaves them: a claim, part of a file under another name."""
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    work = tmp_path / "work"
    fill_shards(Watched(demos), demos, work)
    shutil.rmtree(work / "shard-000000032.npy", ignore_errors=True)
    (work / "shard-000000032.npy").unlink()
    me = cache._me()
    (work / "shard-000000032.claim").write_text(me.replace(str(os.getpid()), str(dead.pid)))
    scrap = work / f".shard-000000032.{me.replace(' ', '.').replace(str(os.getpid()), str(dead.pid))}.npy"
    scrap.write_bytes(b"half")
    monkeypatch.setattr(cache, "_wait", lambda *at: None)
    again = Watched(demos)
    file = cache_features(again, demos, tmp_path, work=work)
    assert again.asked == [32]
    assert not scrap.exists()
    assert file.read_bytes() == whole(demos, tmp_path / "whole")


@pytest.mark.usefixtures("small")
def test_two_workers_share_the_shards_and_write_the_same_bytes(demos, tmp_path):
    """The second starts and ends while the first is at its third shard, leaves that one to the first as long as
    it can, and then does it, for nobody delivers it while this test holds the first one up."""
    work, second = tmp_path / "work", Watched(demos)

    def meanwhile(number):
        if number == 2:
            fill_shards(second, demos, work)

    first = Watched(demos, meanwhile)
    file = cache_features(first, demos, tmp_path, work=work)
    assert first.asked == FIRST[:3]
    assert second.asked == [*FIRST[3:], FIRST[2]]
    assert file.read_bytes() == whole(demos, tmp_path / "whole")


@pytest.mark.usefixtures("small")
def test_what_another_delivers_in_time_is_not_computed_again(demos, tmp_path, monkeypatch):
    work = tmp_path / "work"
    fill_shards(Watched(demos), demos, work)
    late, aside = work / "shard-000000064.npy", tmp_path / "aside.npy"
    late.rename(aside)  # claimed still, by a process that lives
    waited = []

    def delivered(file, patience, should_stop):
        waited.append((file.name, file.exists()))
        if file == late:
            aside.rename(late)

    monkeypatch.setattr(cache, "_wait", delivered)
    worker = Watched(demos)
    fill_shards(worker, demos, work)
    assert worker.asked == []
    assert (late.name, False) in waited


def test_waiting_ends_with_the_patience_the_file_a_stop_or_the_folder(tmp_path):
    file = tmp_path / "shard-000000000.npy"
    cache._wait(file, 0.0, lambda: True)
    with pytest.raises(Interrupted):
        cache._wait(file, 1e9, lambda: True)
    with pytest.raises(Superseded):
        cache._wait(tmp_path / "gone" / file.name, 1e9, lambda: False)
    file.touch()
    cache._wait(file, 1e9, lambda: True)


@pytest.mark.usefixtures("small")
def test_a_worker_that_comes_too_late_says_so(demos, tmp_path):
    """The store removes the work folder when another worker commits."""
    work = tmp_path / "work"

    def committed(number):
        if number == 3:
            shutil.rmtree(work)

    with pytest.raises(Superseded):
        cache_features(Watched(demos, committed), demos, tmp_path, work=work)
    assert not (tmp_path / "features.npy").exists()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("shards", [False, True])
def test_it_stops_when_asked(demos, tmp_path, shards):
    encoder = Watched(demos)
    with pytest.raises(Interrupted):
        cache_features(
            encoder,
            demos,
            tmp_path,
            work=tmp_path / "work" if shards else None,
            should_stop=lambda: len(encoder.asked) == 5,
        )
    assert encoder.asked == FIRST[:5]
    assert len(list(tmp_path.glob("work/*.npy"))) == (5 if shards else 0)


def test_shards_are_whole_batches_and_never_too_many():
    for frames in (1, 64, 65, 150, 16_384, 16_385, 1_000_000):
        shards = list(cache._shards(cache.Path("w"), frames))
        assert [a for a, _ in shards] == [0, *(b for _, b in shards[:-1])]
        assert shards[-1][1] == frames
        assert all(a % BATCH == 0 for a, _ in shards)
        assert len(shards) <= cache.SHARDS
    assert len(list(cache._shards(cache.Path("w"), 150))) == 3


def test_features_beyond_float16_are_refused(demos, tmp_path):
    class Loud(Watched):
        def features(self, obs):
            return super().features(obs) * 3e5

    with pytest.raises(
        UserError, match=r"'watched' gives features up to .*e\+05 at frames 0 to 63, which float16 cannot"
    ):
        cache_features(Loud(demos), demos, tmp_path)


@pytest.mark.usefixtures("small")
def test_shards_of_another_encoder_are_not_mixed_in(demos, tmp_path):
    work = tmp_path / "work"
    fill_shards(Watched(demos), demos, work)
    np.save(work / "shard-000000016.npy", np.zeros((16, 2, 13), np.float16), allow_pickle=False)
    with pytest.raises(ValueError, match="another encoder's"):
        cache_features(Watched(demos), demos, tmp_path, work=work)
