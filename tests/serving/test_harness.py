"""vla-eval's protocol, spoken by a client that is written here from that of vla-eval 0.8 (``connection.Connection``)."""

import io

import msgpack
import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import connect

from compression_gap.errors import UserError
from compression_gap.serving import PolicyServer, metadata
from compression_gap.serving.session import Session
from compression_gap.serving.wire import pack, unpack


def plain(value, image_format="png"):
    """Arrays as vla-eval's codec writes them: images compressed, keys as text."""
    if value.ndim == 3 and value.dtype == np.uint8 and image_format != "raw":
        buffer = io.BytesIO()
        Image.fromarray(value).save(buffer, format=image_format.upper(), quality=95)
        return {
            "__image__": True,
            "format": image_format,
            "data": buffer.getvalue(),
            "shape": list(value.shape),
        }
    mark = "__image__" if value.ndim == 3 and value.dtype == np.uint8 else "__ndarray__"
    about = {"data": value.tobytes(), "dtype": value.dtype.str, "shape": list(value.shape)}
    return {mark: True, **about, **({"format": "raw"} if mark == "__image__" else {})}


def array(about):
    """What vla-eval's decoder makes of an array, which it knows by a key of text."""
    assert about["__ndarray__"] is True
    return np.frombuffer(about["data"], np.dtype(about["dtype"])).reshape(about["shape"])


class Harness:
    """Sends a frame, and expects what vla-eval's ``Connection`` expects."""

    def __init__(self, url, image_format="png"):
        self.socket, self.seq, self.image_format = (
            connect(url, compression=None, max_size=None),
            0,
            image_format,
        )

    def __enter__(self):
        self.send("hello", {"harness_version": "0.8.0", "protocol_version": 1})
        reply = self.recv()
        assert reply["type"] == "hello"
        self.info = reply["payload"]
        return self

    def __exit__(self, *error):
        self.socket.close()

    def send(self, kind, payload):
        self.seq += 1
        frame = {"type": kind, "payload": payload, "seq": self.seq, "timestamp": 1.5}
        self.socket.send(msgpack.packb(frame, default=lambda a: plain(a, self.image_format)))

    def recv(self):
        found = msgpack.unpackb(self.socket.recv(timeout=30), raw=False)
        assert found.keys() >= {"type", "payload", "seq", "timestamp"}
        return found

    def act(self, observation):
        self.send("observation", observation)
        answer = self.recv()
        assert answer["seq"] == self.seq
        if answer["type"] == "error":
            return answer["payload"]["error"]
        assert answer["type"] == "action"
        return array(answer["payload"]["actions"])


def observed(frame, n):
    """A frame in the words of vla-eval's benchmarks, which send more than a policy sees."""
    seen = frame(n)
    images = {**seen["images"], "overhead": np.zeros((3, 3, 3), np.uint8)}
    more = {"states": seen["proprio"].astype(np.float64), "controller_states": np.zeros(3)}
    return {"images": images, "task_description": "pick place", **more}


@pytest.fixture(scope="module")
def served(policy):
    with PolicyServer(policy, execute=3, history="repeat") as running:
        yield running


def test_hello_says_what_the_policy_is_and_what_it_wants(served, policy):
    with Harness(served.url) as client:
        for name, value in metadata(policy).items():
            assert client.info[name] == value
        assert (client.info["protocol_version"], client.info["execute"]) == (1, 3)
        assert client.info["observation_params"] == {"send_state": True, "send_wrist_image": True}
        client.send("hello", {})  # again, after what was answered by the greeting
        again = client.recv()
        assert (again["type"], again["seq"]) == ("hello", 2)
        assert again["payload"] == client.info


@pytest.mark.parametrize("image_format", ["png", "raw"])
def test_each_step_gets_the_action_that_the_policy_would_take(served, policy, frame, image_format):
    """Chunks of the policy itself, three actions of each, on histories of consecutive steps, in two episodes."""
    with Harness(served.url, image_format) as client:
        session, chunk = Session(policy), None
        for _ in range(2):
            client.send("episode_start", {"task": {"name": "pick place"}})
            session.answer(pack({"reset": True}))
            for n in range(7):
                message = frame(n, task="pick-place-v3", act=n % 3 == 0)
                expected = session.answer(pack(message))
                chunk = expected["actions"] if n % 3 == 0 else chunk
                np.testing.assert_array_equal(client.act(observed(frame, n)), chunk[n % 3])
            client.send("episode_end", {"metrics": {"success": True}})


def test_jpeg_is_read(served, frame):
    with Harness(served.url, "jpeg") as client:
        smooth = {c: np.full((8, 8, 3), 90, np.uint8) for c in ("front", "wrist")}
        action = client.act({**observed(frame, 0), "images": smooth})
        assert (action.shape, action.dtype) == ((2,), np.float32)


def test_what_cannot_be_answered_is_an_error_frame_and_the_episode_goes_on(served, frame):
    with Harness(served.url) as client:
        seen = observed(frame, 0)
        first = client.act(seen)
        assert (
            client.act({**seen, "states": np.zeros(3)})
            == "proprio is float64 [3]; expected [5] or [steps, 5]"
        )
        assert client.act({**seen, "images": {"agentview": seen["images"]["front"]}}) == (
            "no image of wrist, front; this policy sees wrist, front, the benchmark sends agentview"
        )
        assert (
            client.act({**seen, "state": np.zeros(5)}) == "'proprio' is given twice, as state and as states"
        )
        assert client.act({**seen, "images": 3}) == "images is no map from camera to array"
        client.send("dance", {})
        assert client.recv()["payload"]["error"].startswith("the type of a frame is 'dance'; known: hello")
        client.send("observation", [1])
        assert client.recv()["payload"]["error"] == "a frame's payload is a map"
        client.socket.send(b"\xc1")
        assert client.recv()["payload"]["error"].startswith("the message is no msgpack")
        client.socket.send("text")
        assert client.recv()["payload"]["error"].startswith("this is a text message")
        client.socket.send(msgpack.packb({"images": {}}))
        assert client.recv()["payload"]["error"].startswith("this is no frame of type, payload, seq")
        client.send("error", {"error": "of the client's own"})  # is not answered
        assert not isinstance(client.act(seen), str)
        client.send("episode_start", {})
        assert not np.array_equal(client.act(seen), first)  # the next episode has seeds of its own


def test_an_openpi_client_that_names_such_keys_speaks_no_frames(served, frame):
    with connect(served.url, compression=None, max_size=None) as client:
        unpack(client.recv())
        client.send(pack(frame(0)))
        assert unpack(client.recv())["decision"] == 0
        client.send(pack({"type": "hello", "payload": {}, "seq": 1, "timestamp": 0.0}))
        assert client.recv().startswith("unknown key 'type'")


def compressed(pixels, **how):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", **how)
    return {"__image__": True, "format": "png", "data": buffer.getvalue()}


def test_a_png_comes_back_exactly():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    found = unpack(msgpack.packb({"a": compressed(pixels)}))["a"]
    np.testing.assert_array_equal(found, pixels)
    assert not found.flags.writeable


NOISE = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", None, "x", compressed(NOISE)["data"][:150]],
    ids=["", "gif", "none", "text", "half"],
)
def test_an_image_that_is_none(data):
    message = msgpack.packb({"__image__": True, "format": "png", "data": data})
    with pytest.raises(UserError, match="an image is no PNG or JPEG that can be read"):
        unpack(message)


def test_small_files_of_large_images_are_refused_before_they_are_decoded(monkeypatch):
    """A million black pixels are 3 kB as PNG; the sum of a message counts."""
    one = compressed(np.zeros((1000, 1000, 3), np.uint8))
    assert len(one["data"]) < 5000
    many = msgpack.packb([one] * 30)
    opened = []
    monkeypatch.setattr("compression_gap.serving.wire._decode", lambda image: opened.append(image.size))
    with pytest.raises(UserError, match="the message's images take more than 67,108,864 bytes"):
        unpack(many)
    assert len(opened) == 22
