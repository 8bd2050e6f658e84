import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compression_gap.encoders.text import Instructions
from compression_gap.errors import UserError
from compression_gap.serving.messages import FIELDS, Request, check_task, read_request


def test_a_message_becomes_an_observation_with_cameras_in_the_policys_order(policy, frame):
    message = frame(3)
    assert list(message["images"]) == ["front", "wrist"]
    request = read_request(message, policy)
    assert (request.reset, request.act, request.step, request.seed, request.steps) == (
        False, True, None, None, 1
    )  # fmt: skip
    seen = request.seen
    assert list(seen.images) == ["wrist", "front"]
    for camera, image in seen.images.items():
        np.testing.assert_array_equal(image, message["images"][camera][None, None])
    np.testing.assert_array_equal(seen.proprio, message["proprio"][None, None])
    assert seen.proprio.dtype == np.float32
    assert seen.task.tolist() == [0]


def test_all_ways_to_name_the_keys_mean_the_same(policy, frame):
    plain = read_request(frame(1), policy)
    images, proprio = frame(1)["images"], frame(1)["proprio"]
    others = [
        {
            **{f"observation/{c}": a for c, a in images.items()},
            "observation/state": proprio,
            "prompt": "Reach",
        },
        {**images, "state": proprio.tolist(), "task": 0},
        {
            "images": {"wrist": images["wrist"]},
            "front": images["front"],
            "proprio": proprio,
            "task": "reach-v3",
        },
    ]
    for message in others:
        request = read_request(message, policy)
        np.testing.assert_array_equal(request.seen.proprio, plain.seen.proprio)
        assert request.seen.task.tolist() == [0]
        assert list(request.seen.images) == list(plain.seen.images)
        for camera in images:
            np.testing.assert_array_equal(request.seen.images[camera], plain.seen.images[camera])


def test_a_prompt_is_a_task_s_instruction_too(policy, frame, monkeypatch):
    """Of a policy that is conditioned on text; words that it was not trained on are no task of it."""
    table = np.eye(2, 3, dtype=np.float32)
    known = Instructions(("Reach the red bowl.", "pick up the bowl"), table, None)
    monkeypatch.setattr(policy.module, "instructions", known)
    message = {**frame(1), "task": None}
    for prompt, task in (("pick up  the bowl", 1), ("reach the red bowl", 0), ("pick place", 1)):
        assert read_request({**message, "prompt": prompt}, policy).seen.task.tolist() == [task]
    with pytest.raises(UserError, match="the prompt 'pick up the cup' names no task of this policy"):
        read_request({**message, "prompt": "pick up the cup"}, policy)


def test_prompts_in_any_script(made, frame):
    tasks = ("打开抽屉", "关闭抽屉", "öffne die Tür", "OPEN it")
    policy, message = made(tasks=tasks), {**frame(1), "task": None}
    for prompt, task in ((tasks[0], 0), (tasks[1], 1), ("Öffne die  TÜR!", 2), ("open-it", 3)):
        assert read_request({**message, "prompt": prompt}, policy).seen.task.tolist() == [task]
    for prompt in ("把杯子放下", "äffne die Tär", "", "!!!"):
        with pytest.raises(UserError, match="names no task of this policy"):
            read_request({**message, "prompt": prompt}, policy)


def test_windows_of_several_steps(policy, frame):
    frames = [frame(n) for n in range(3)]
    images = {c: np.stack([f["images"][c] for f in frames]) for c in ("front", "wrist")}
    proprio = np.stack([f["proprio"] for f in frames]).astype(np.float64)
    request = read_request({"images": images, "proprio": proprio, "task": 1, "step": 9, "seed": 4}, policy)
    assert (request.steps, request.step, request.seed) == (3, 9, 4)
    np.testing.assert_array_equal(request.seen.images["front"], images["front"][None])
    np.testing.assert_array_equal(request.seen.proprio, proprio[None].astype(np.float32))


@pytest.mark.parametrize(
    ("named", "task"),
    [
        ({"task": "pick-place-v3"}, 1),
        ({"task": 1}, 1),
        ({"task": np.int64(0)}, 0),
        ({"prompt": "Pick place"}, 1),
        ({"prompt": "pick_place_v3"}, 1),
        ({"prompt": "reach", "task": 1}, 1),
    ],
)
def test_the_task_by_name_number_or_words(policy, frame, named, task):
    message = {**frame(), **named}
    if "task" not in named:
        del message["task"]
    assert read_request(message, policy).seen.task.tolist() == [task]


def test_the_task_where_none_is_named(policy, made, frame):
    message = frame()
    del message["task"]
    with pytest.raises(UserError, match="no task; send 'task' or 'prompt', one of reach-v3, pick-place-v3"):
        read_request(message, policy)
    assert read_request(message, policy, "pick-place-v3").seen.task.tolist() == [1]
    # what the server was told stands against words that it may not know, not against a task's name
    assert read_request({**message, "prompt": "do it"}, policy, "pick-place-v3").seen.task.tolist() == [1]
    assert read_request({**message, "task": "reach-v3"}, policy, "pick-place-v3").seen.task.tolist() == [0]
    assert read_request(message, made(tasks=("reach-v3",))).seen.task.tolist() == [0]


def test_limits_of_the_ladder(made):
    """A blind policy wants no images and takes them; an oracle wants the true state, and no more."""
    image = np.zeros((8, 8, 3), np.uint8)
    message = {"proprio": np.zeros(5), "task": 0}
    assert read_request(message, made("blind")).seen.images == {}
    assert read_request({**message, "wrist": image}, made("blind")).seen.images == {}
    oracle = made("oracle")
    with pytest.raises(UserError, match="no true_state; the encoder oracle reads 3 numbers of the simulator"):
        read_request(message, oracle)
    seen = read_request({**message, "true_state": [1, 2, 3]}, oracle).seen
    np.testing.assert_array_equal(seen.state, np.array([[[1, 2, 3]]], np.float32))
    with pytest.raises(UserError, match=r"true_state is float64 \[2\]; expected \[3\]"):
        read_request({**message, "true_state": [1, 2]}, oracle)


def test_a_message_that_only_resets(policy):
    assert read_request({"reset": True}, policy) == Request(True, False, None, None, None)


SMALL = np.zeros((8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": {}}, r"no image of wrist, front; this policy sees wrist, front, each uint8 \[8, 8, 3\]"),
        ({"images": {"front": SMALL}}, "no image of wrist; this policy sees wrist, front"),
        ({"images": {"frnt": SMALL}}, r"unknown camera 'frnt' \(did you mean 'front'\?\); known: front, wrist"),
        ({"images": SMALL}, r"images is a map from camera to array, not uint8 \[8, 8, 3\]"),
        ({"front": SMALL}, "'front' is given twice"),
        ({"images": {"front": SMALL, "wrist": SMALL[:7]}}, r"image of wrist is uint8 \[7, 8, 3\]; expected uint8 \[8, 8, 3\] or \[steps, 8, 8, 3\]"),
        ({"images": {"front": SMALL, "wrist": SMALL.transpose(2, 0, 1)}}, r"wrist is uint8 \[3, 8, 8\]; expected"),
        ({"images": {"front": SMALL, "wrist": SMALL[None, None]}}, r"wrist is uint8 \[1, 1, 8, 8, 3\]; expected"),
        ({"images": {"front": SMALL, "wrist": SMALL[None][:0]}}, r"wrist is uint8 \[0, 8, 8, 3\]; expected"),
        ({"images": {"front": SMALL, "wrist": SMALL / 255}}, r"wrist is float64 \[8, 8, 3\]; expected uint8"),
        ({"images": {"front": SMALL, "wrist": None}}, "wrist is nothing; expected uint8"),
        ({"images": {"front": SMALL, "wrist": SMALL[None]}, "proprio": np.zeros((2, 5))}, "differ in their observation steps: proprio 2, wrist 1, front 1"),
        ({"proprio": np.zeros(4)}, r"proprio is float64 \[4\]; expected \[5\] or \[steps, 5\]"),
        ({"proprio": np.zeros((1, 1, 5))}, r"proprio is float64 \[1, 1, 5\]; expected"),
        ({"proprio": np.zeros((0, 5))}, r"proprio is float64 \[0, 5\]; expected"),
        ({"proprio": 3.0}, r"proprio is 3.0; expected numbers \[5\]"),
        ({"proprio": "12345"}, "proprio is '12345'; expected numbers"),
        ({"proprio": [0, 0, 0, 0, "0"]}, "proprio is a list; expected numbers"),
        ({"proprio": np.zeros(5, bool)}, r"proprio is bool \[5\]; expected numbers"),
        ({"proprio": np.array([0, 0, np.nan, 0, 0])}, "proprio holds NaN or infinite values"),
        ({"proprio": np.array([0, 0, 1e300, 0, 0])}, "proprio holds NaN or infinite values"),
        ({"state": np.zeros(5)}, "'proprio' is given twice"),
        ({"true_state": np.array([np.inf])}, "true_state holds NaN or infinite values"),
        ({"task": "reech-v3"}, r"unknown task of this policy 'reech-v3' \(did you mean 'reach-v3'\?\)"),
        ({"task": 2}, "task is 2; give a number below 2, or one of reach-v3, pick-place-v3"),
        ({"task": -1}, "task is -1; give a number below 2"),
        ({"task": True}, "task is True; give a number"),
        ({"task": None, "prompt": "dance"}, "the prompt 'dance' names no task of this policy .reach-v3, pick-place-v3.; send 'task', or serve with --task"),
        ({"task": None, "prompt": 3}, "prompt is 3; expected text"),
        ({"reset": 1}, "reset is 1; expected true or false"),
        ({"act": "no"}, "act is 'no'; expected true or false"),
        ({"seed": -1}, "seed is -1; expected a whole number from 0 to"),
        ({"seed": 2**63}, "seed is 9223372036854775808; expected a whole number"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
        ({"step": False}, "step is False; expected a whole number"),
        ({"sed": 3}, r"unknown key 'sed' \(did you mean 'seed'\?\); known: act, front, images, "),
        ({"a\n" + "b" * 99: 3}, "unknown key 'a b{78}'; known"),
        ({"images": {"a\nb": SMALL}}, "unknown camera 'a b'; known"),
        ({"task": "a\nb"}, "unknown task of this policy 'a b'; known"),
        ({"task": None, "prompt": "a\nb"}, "the prompt 'a b' names no task"),
        ({b"seed": 3}, r"unknown key \"b'seed'\"|unknown key 'b'seed''"),
    ],
)  # fmt: skip
def test_what_is_refused_and_what_is_expected(policy, frame, change, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        read_request({**frame(), **change}, policy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("message", "what"), [([], "a list"), (3, "3"), (None, "nothing"), (b"", "bytes")])
def test_a_message_that_is_no_map(policy, message, what):
    with pytest.raises(UserError, match=f"a message is a map, not {what}"):
        read_request(message, policy)


def test_no_proprio(policy, frame):
    message = frame()
    del message["proprio"]
    with pytest.raises(UserError, match="no proprio; this policy wants 5 numbers"):
        read_request(message, policy)


def test_tasks_are_checked(policy):
    assert check_task(policy, "reach-v3") == "reach-v3"
    with pytest.raises(UserError, match="unknown task of this policy 'x'; known: pick-place-v3, reach-v3"):
        check_task(policy, "x")


ARRAYS = hnp.arrays(
    st.sampled_from([np.uint8, np.float32, np.int64, bool]),
    hnp.array_shapes(min_dims=0, max_dims=4, max_side=8),
)
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=5)
VALUES |= ARRAYS | st.lists(st.floats(), max_size=6)
CAMERAS = ("front", "wrist", "other")


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, *CAMERAS, "observation/state", b"act", ""]), VALUES, max_size=6
    ),
    st.none() | VALUES | st.dictionaries(st.sampled_from([*CAMERAS, b"front"]), VALUES),
)
def test_messages_at_random_are_read_or_refused_in_one_line(policy, message, images):
    try:
        found = read_request(message | {"images": images}, policy)
    except UserError as error:
        found = str(error)
    assert isinstance(found, Request) or "\n" not in found
