"""Bindings, against the code of the harnesses whose messages they repeat: openpi-client's, and vla-eval's."""

import socket
import threading
from types import SimpleNamespace

import anyio
import numpy as np
import pytest
from openpi_client import image_tools
from openpi_client.base_policy import BasePolicy
from openpi_server.websocket_policy_server import WebsocketPolicyServer
from test_remote import CHANNEL, PLAIN, STEPWISE, rows
from vla_eval.benchmarks.libero.benchmark import LIBEROBenchmark
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve_async

from compression_gap.errors import UserError
from compression_gap.serving.binding import BINDINGS, Actions, Binding, Part, State, resize_with_pad
from compression_gap.serving.remote import RemoteActor
from compression_gap.sims import Observation, sim_info
from strange_server import heads_for_the_goal

WORDS = "pick up the milk and place it in the basket"


def seen_in_libero(seed):
    """An observation as ``sims.libero`` makes it, and robosuite's own of the same moment."""
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=4)
    raw = {
        "agentview_image": rng.integers(0, 256, (256, 256, 3), np.uint8),
        "robot0_eye_in_hand_image": rng.integers(0, 256, (256, 256, 3), np.uint8),
        "robot0_eef_pos": rng.normal(size=3).astype(np.float32),
        "robot0_eef_quat": (quaternion / np.linalg.norm(quaternion)).astype(np.float32),
        "robot0_gripper_qpos": rng.normal(size=2).astype(np.float32),
    }
    numbers = [raw[f"robot0_{n}"] for n in ("eef_pos", "eef_quat", "gripper_qpos")]
    frames = {c: raw[f"{c}_image"][::-1][None, None] for c in ("agentview", "robot0_eye_in_hand")}
    return Observation(frames, np.concatenate(numbers)[None, None], np.array([0])), raw


@pytest.mark.parametrize("seed", range(6))
def test_openpi_libero_sends_what_openpis_example_sends(seed):
    """Its lines, with openpi-client's image tools; robosuite's axis-angle is written out."""
    seen, raw = seen_in_libero(seed)
    sent = BINDINGS["openpi-libero"].message(seen, 0, "libero_object-0", WORDS, 5)

    def picture(name):
        turned = np.ascontiguousarray(raw[name][::-1, ::-1])
        return image_tools.convert_to_uint8(image_tools.resize_with_pad(turned, 224, 224))

    x, y, z, w = raw["robot0_eef_quat"].astype(float)
    rotation = np.array([x, y, z]) * 2 * np.arccos(np.clip(w, -1, 1)) / np.sqrt(1 - w * w)
    assert sent.keys() == {"observation/image", "observation/wrist_image", "observation/state", "prompt"}
    np.testing.assert_array_equal(sent["observation/image"], picture("agentview_image"))
    np.testing.assert_array_equal(sent["observation/wrist_image"], picture("robot0_eye_in_hand_image"))
    state = np.concatenate([raw["robot0_eef_pos"], rotation, raw["robot0_gripper_qpos"]])
    np.testing.assert_allclose(sent["observation/state"], state, rtol=1e-5, atol=1e-6)
    assert sent["prompt"] == WORDS


@pytest.mark.parametrize("seed", range(6))
def test_vla_eval_libero_sends_what_its_benchmark_sends(seed):
    seen, raw = seen_in_libero(seed)
    sent = BINDINGS["vla-eval-libero"].message(seen, 0, "libero_object-0", WORDS, 5)
    benchmark = LIBEROBenchmark("libero_object", send_wrist_image=True, send_state=True)
    controller = SimpleNamespace(ee_pos=np.zeros(3), ee_ori_mat=np.eye(3))
    benchmark._env = SimpleNamespace(robots=[SimpleNamespace(controller=controller)])
    theirs = benchmark.make_obs(raw, {"name": WORDS})
    assert theirs.keys() - sent.keys() == {"controller_states"}  # of X-VLA alone
    assert sent["task_description"] == theirs["task_description"]
    assert sent["images"].keys() == theirs["images"].keys()
    for camera, image in theirs["images"].items():
        np.testing.assert_array_equal(sent["images"][camera], image)
    np.testing.assert_allclose(sent["states"], theirs["states"], rtol=1e-5, atol=1e-6)


def test_vla_eval_libero_executes_the_gripper_that_its_benchmark_executes():
    done = []
    benchmark = LIBEROBenchmark("libero_object")
    still = SimpleNamespace(record_video=lambda f: None, record_step=lambda **k: None)
    benchmark._recorder, benchmark._extract_frame = still, lambda obs: None
    benchmark._proprio_state = lambda obs: np.zeros(8)
    benchmark._env = SimpleNamespace(step=lambda a: done.append(a) or ({}, 0.0, False, {}))
    for gripper in (-0.3, 0.0, 0.2):
        action = np.array([0.1, -2.0, 0.3, 0, 0, 0, gripper], np.float32)
        benchmark.step({"actions": action})
        mine = BINDINGS["vla-eval-libero"].chunk({"actions": action}, 7)
        np.testing.assert_allclose(mine, [done[-1]], rtol=1e-6)


@pytest.mark.parametrize(("height", "width", "size"), [(256, 256, 224), (240, 320, 224), (100, 33, 64)])
def test_images_are_padded_as_openpi_client_pads_them(height, width, size):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    np.testing.assert_array_equal(
        resize_with_pad(image, size), image_tools.resize_with_pad(image, size, size)
    )


class Sees(BasePolicy):
    """A policy in openpi's own class."""

    def infer(self, obs):
        return heads_for_the_goal(obs)


def test_openpis_own_server_is_spoken_to():
    """The package openpi-server, on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = WebsocketPolicyServer(Sees(), "127.0.0.1", port, {"checkpoint": "a"})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    actor = RemoteActor([f"ws://127.0.0.1:{port}"], PLAIN, CHANNEL.tasks, sim_info(CHANNEL), patience=30)
    assert actor.metadata == {"checkpoint": "a"}
    assert all(r["success"] and r["decisions"] == 4 for r in rows(actor))
    actor.close()


class Acts(PredictModelServer):
    """A policy in vla-eval's own class, with its buffer of four actions of each chunk."""

    asked = 0

    def get_action_spec(self):
        return {}

    def get_observation_spec(self):
        return {}

    def predict(self, obs, ctx):
        self.asked += 1
        return heads_for_the_goal(
            {"observation/image": obs["images"]["image"], "observation/state": obs["states"]}
        )


def test_vla_evals_own_server_is_spoken_to():
    """The package vla-eval, on loopback: its chunk buffer is emptied between episodes."""
    policy, port, known = Acts(chunk_size=4), [], threading.Event()

    async def run():
        async with anyio.create_task_group() as group:
            port.append(await group.start(serve_async, policy, "127.0.0.1", 0))
            known.set()

    threading.Thread(target=anyio.run, args=(run,), daemon=True).start()
    assert known.wait(30)
    actor = RemoteActor([f"ws://127.0.0.1:{port[0]}"], STEPWISE, CHANNEL.tasks, sim_info(CHANNEL))
    found = rows(actor, execute=1)
    actor.close()
    assert all(r["success"] and r["decisions"] == r["length"] == 16 for r in found)
    assert policy.asked == 1 + 4 * len(found)


def test_signs_scale_and_offset():
    answer = {"actions": np.array([[0.25, -0.1], [0.5, 0.1]])}
    binding = Binding(actions=Actions(scale=(2.0, 1.0), offset=(-1.0, 0.0), signs=(1,)))
    np.testing.assert_allclose(binding.chunk(answer, 2), [[-0.5, -1], [0, 1]])
    with pytest.raises(UserError, match=r"actions\.scale has 2 numbers; give 1, or 3"):
        binding.chunk({"actions": np.zeros((2, 3))}, 3)
    assert np.isnan(binding.chunk({"actions": np.array([[0.1, np.nan]])}, 2)[0, 1])
    with pytest.raises(UserError, match=r"actions\.signs names column 1 of 1"):
        Binding(actions=Actions(signs=(1,))).chunk({"actions": np.zeros((2, 1))}, 1)


def test_parts_that_are_none_are_refused():
    with pytest.raises(ValueError, match="a quaternion has four numbers"):
        Part(start=3, stop=6, form="axis-angle")
    seen = seen_in_libero(0)[0]
    binding = Binding(state=State(key="s", parts=(Part(start=5, stop=12),)))
    with pytest.raises(UserError, match="columns 5 to 12 of the robot's state, which has 9"):
        binding.message(seen, 0, "t", "w", 0)
