"""The controlled ladder: one network, known cost, better with more frames, its folder read back as it was."""

import json

import numpy as np
import pytest
import torch

from compression_gap.demos.frames import FrameSet
from compression_gap.encoders import make_encoder
from compression_gap.encoders.ladder import PRETRAINING
from compression_gap.encoders.pose import FEATURE_DIM, Pose, flops, initial_network, prepare
from compression_gap.errors import UserError
from compression_gap.nn import Interrupted
from compression_gap.sims import Observation
from compression_gap.sims.channel import _blob

SIZE = 16
SHORT = {**PRETRAINING, "steps": 150, "batch_size": 32, "lr": 3e-3}


def frame_set(count, seed, task="reach", cameras=("channel",)):
    """Blobs at random places; the state is the place."""
    rng = np.random.default_rng(seed)
    state = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
    images = np.stack([_blob(s, SIZE) for s in state]) if count else np.zeros((0, SIZE, SIZE, 3), np.uint8)
    return FrameSet(task, dict.fromkeys(cameras, images), state, np.arange(count), ("x", "y"))


def prepared(name, frames, out, **options):
    out.mkdir()
    sets, validation = ([frame_set(frames, 0)], [frame_set(200, 1)]) if frames else ([], [])
    how = {"cameras": ["channel"], "image_size": SIZE, "pretraining": SHORT, **options}
    return prepare(name, sets, validation, out, **how)


@pytest.fixture(scope="module")
def rung_400(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pose") / "400"
    return folder, prepared("pose-400", 400, folder)


def look(images):
    return Observation(
        images={"channel": images[:, None]},
        proprio=np.zeros((len(images), 1, 1)),
        task=np.zeros(len(images), int),
    )


def test_a_frame_costs_at_most_a_twentieth_of_a_gflop():
    # 84 px by hand, a multiplication and an addition are two: sides 42, 21, 11, 6
    stem = 42**2 * 16 * 75
    blocks = sum(s**2 * o * (9 * i + 9 * o + i) for s, i, o in ((21, 16, 24), (11, 24, 48), (6, 48, 64)))
    last = 64 * 36 * FEATURE_DIM
    assert flops(84) == 2 * (stem + blocks + last) <= 0.05e9


def test_every_rung_begins_with_the_same_weights_and_leaves_torch_s_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, two = initial_network(SIZE, 0), initial_network(SIZE, 0)
    assert torch.equal(before, torch.get_rng_state())
    assert all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_pose_0_is_the_initialisation(tmp_path):
    told = prepared("pose-0", 0, tmp_path / "0")
    assert (told["frames"], told["cameras"]) == (0, {})
    images = frame_set(5, 3).images["channel"]
    with torch.no_grad():
        wanted = initial_network(SIZE, SHORT["seed"]).eval()(torch.from_numpy(images)).numpy()
    found = make_encoder("pose-0", cameras=1, folder=tmp_path / "0").features(look(images))
    assert found.shape == (5, 1, 1, FEATURE_DIM)
    np.testing.assert_allclose(found[:, 0, 0], wanted, atol=1e-6)


def test_pretraining_learns_the_place_and_says_how_well(rung_400):
    _, told = rung_400
    r2 = told["cameras"]["channel"]["r2"]["reach"]
    assert r2.keys() == {"x", "y"}
    assert min(r2.values()) > 0.8
    assert told["cameras"]["channel"]["mean_r2"] == pytest.approx(np.mean([*r2.values()]))
    assert told["frames"] == 400
    assert told["parameters"] == sum(p.numel() for p in initial_network(SIZE, 0).parameters())


def test_features_do_not_depend_on_the_batch(rung_400):
    encoder = Pose(rung_400[0])
    images = frame_set(70, 4).images["channel"]
    whole = encoder.features(look(images))
    np.testing.assert_allclose(encoder.features(look(images[:3])), whole[:3], atol=1e-5)
    assert encoder.frozen
    assert encoder.network() is None


def test_each_camera_has_a_network_of_its_own_from_the_same_start(tmp_path):
    tmp_path.joinpath("two").mkdir()
    both = ("left", "right")
    sets, held = frame_set(60, 0, cameras=both), frame_set(60, 1, cameras=both)
    other = {
        **sets.images,
        "right": sets.images["right"][::-1].copy(),
    }  # the right camera shows other moments
    sets = FrameSet(sets.task, other, sets.state, sets.initial_state, sets.state_names)
    how = {"cameras": both, "image_size": SIZE, "pretraining": {**SHORT, "steps": 20}}
    told = prepare("pose-60", [sets], [held], tmp_path / "two", **how)
    assert told["cameras"].keys() == {"left", "right"}
    encoder = Pose(tmp_path / "two")
    image = held.images["left"][:1, None]
    task, proprio = np.zeros(1, int), np.zeros((1, 1, 1))
    found = encoder.features(Observation(images={"left": image, "right": image}, proprio=proprio, task=task))
    assert found.shape == (1, 1, 2, FEATURE_DIM)
    assert not np.allclose(found[0, 0, 0], found[0, 0, 1])
    with pytest.raises(
        UserError, match="pretrained for the cameras left, right in this order, not for right, left"
    ):
        encoder.features(Observation(images={"right": image, "left": image}, proprio=proprio, task=task))


def test_tasks_have_heads_of_their_own(tmp_path):
    """Two tasks whose states contradict each other: a shared head could learn neither."""
    tmp_path.joinpath("two").mkdir()

    def of(seed):
        first, second = frame_set(200, seed), frame_set(200, seed + 10, task="back")
        return [first, FrameSet("back", second.images, -second.state, second.initial_state, ("x", "y"))]

    told = prepare(
        "pose-400", of(0), of(1), tmp_path / "two", cameras=["channel"], image_size=SIZE, pretraining=SHORT
    )
    r2 = told["cameras"]["channel"]["r2"]
    assert min(v for task in ("reach", "back") for v in r2[task].values()) > 0.6


def test_a_killed_pretraining_goes_on_to_the_same_weights(tmp_path, rung_400):
    seen = []

    def stop():
        seen.append(1)
        return len(seen) > 60

    with pytest.raises(Interrupted):
        prepared("pose-400", 400, tmp_path / "cut", work=tmp_path / "work", should_stop=stop)
    prepared("pose-400", 400, tmp_path / "rest", work=tmp_path / "work")
    file = "encoder.safetensors"
    assert (tmp_path / "rest" / file).read_bytes() == (rung_400[0] / file).read_bytes()


def test_what_is_no_pose_encoder_is_a_sentence(tmp_path, rung_400):
    with pytest.raises(UserError, match="holds no pose encoder that can be read"):
        Pose(tmp_path)
    (tmp_path / "encoder.json").write_text(
        json.dumps({"name": "pose-1k", "cameras": ["channel"], "image_size": SIZE})
    )
    (tmp_path / "encoder.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="holds no pose encoder that can be read"):
        Pose(tmp_path)
    with pytest.raises(ValueError, match="was prepared for encoder 'pose-400', not for 'pose-1k'"):
        make_encoder("pose-1k", cameras=1, folder=rung_400[0])
    with pytest.raises(UserError, match="pose-0 needs images of 16 px or more"):
        prepared("pose-0", 0, tmp_path / "small", image_size=8)
