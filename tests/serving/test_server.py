"""The server over real sockets: what clients get, and what it survives."""

import asyncio
import socket
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from compression_gap.errors import UserError
from compression_gap.serving import PolicyServer, metadata, server
from compression_gap.serving.binding import HOW_SERVED
from compression_gap.serving.messages import FIELDS
from compression_gap.serving.session import Session
from compression_gap.serving.wire import pack, unpack


@pytest.fixture(scope="module")
def served(policy):
    with PolicyServer(policy, max_message_mb=0.25) as running:
        yield running


class Client:
    """A client of one connection."""

    def __init__(self, url):
        self.url, self.stack = url, ExitStack()

    def __enter__(self):
        made = connect(self.url, compression=None, max_size=None, open_timeout=30)
        self.socket = self.stack.enter_context(made)
        self.greeting = unpack(self.socket.recv(timeout=30))
        return self

    def __exit__(self, *error):
        self.stack.close()

    def ask(self, message):
        """An answer, or the sentence."""
        self.socket.send(message if isinstance(message, bytes | str) else pack(message))
        answer = self.socket.recv(timeout=30)
        return answer if isinstance(answer, str) else unpack(answer)


def same(answer, other):
    """Equality of two answers, but for their timing."""
    assert answer.keys() == other.keys()
    for key in answer.keys() - {"server_timing"}:
        np.testing.assert_array_equal(answer[key], other[key])


def test_the_greeting_says_what_the_policy_is(served, policy):
    with Client(served.url) as client:
        about = {"task": None, "max_message_bytes": 2**18, "history": "consecutive", "execute": 4}
        hello = {"type", "payload", "seq", "timestamp"}  # for clients of vla-eval
        assert {k: v for k, v in client.greeting.items() if k not in hello} == {**metadata(policy), **about}
        assert {"version", *about} == HOW_SERVED  # no part of what the policy is
    assert client.greeting["cameras"] == ["wrist", "front"]
    assert (client.greeting["n_obs_steps"], client.greeting["horizon"]) == (2, 4)
    assert (client.greeting["needs_images"], client.greeting["needs_true_state"]) == (True, False)


def test_answers_are_those_of_a_session(served, policy, frame):
    session = Session(policy)
    with Client(served.url) as client:
        for n in range(3):
            same(client.ask(frame(n)), session.answer(pack(frame(n))))
        assert client.ask({"reset": True}) == session.answer(pack({"reset": True}))
        answer = client.ask(frame(4))
        same(answer, session.answer(pack(frame(4))))
        assert answer["server_timing"]["prev_total_ms"] > 0


def test_a_client_that_packs_as_openpi_does_is_understood(served, policy, frame, acted):
    """The bytes are written here by hand, and so is the reading of the answer."""

    def plain(a):
        return {b"__ndarray__": True, b"data": a.tobytes(), b"dtype": a.dtype.str, b"shape": a.shape}

    message = {
        **{f"observation/{c}": plain(a) for c, a in frame(1)["images"].items()},
        "observation/state": plain(frame(1)["proprio"].astype(np.float64)),
        "prompt": "reach",
    }
    with connect(served.url, compression=None, max_size=None) as client:
        msgpack.unpackb(client.recv())
        client.send(msgpack.packb(message))
        answer = msgpack.unpackb(client.recv())
    about = answer["actions"]
    assert (about[b"__ndarray__"], about[b"dtype"], about[b"shape"]) == (True, "<f4", [4, 2])
    actions = np.frombuffer(about[b"data"], "<f4").reshape(4, 2)
    np.testing.assert_array_equal(actions, acted(policy, [frame(1), frame(1)], answer["seed"]))


def test_a_refusal_is_one_sentence_and_the_connection_goes_on(served, policy, frame):
    session = Session(policy)
    with Client(served.url) as client:
        same(client.ask(frame(0)), session.answer(pack(frame(0))))
        assert client.ask(b"\xc1").startswith("the message is no msgpack that can be read")
        assert client.ask("hello") == "this is a text message; observations are binary messages (msgpack)"
        assert client.ask({}).startswith(
            "no image of wrist, front; this policy sees wrist, front, each uint8"
        )
        assert client.ask(pack([1])) == "a message is a map, not a list"
        nan = {**frame(), "proprio": np.full(5, np.nan)}
        assert client.ask(nan) == "proprio holds NaN or infinite values; send finite numbers"
        same(client.ask(frame(1)), session.answer(pack(frame(1))))


def test_a_message_too_large_closes_its_connection_alone(served, frame):
    with Client(served.url) as other, Client(served.url) as client:
        with pytest.raises(ConnectionClosed) as caught:
            client.ask(b"\0" * (2**18 + 1))
        assert caught.value.rcvd.code == 1009
        assert "exceeds limit of 262144 bytes" in caught.value.rcvd.reason
        assert other.ask(frame())["decision"] == 0
        assert isinstance(other.ask(b"\0" * 2**18), str)


def test_many_small_fragments_count_as_one_message(served):
    with Client(served.url) as client:
        client.socket.send(b"\0" * 2**16 for _ in range(4))
        assert client.socket.recv(timeout=30).startswith("the message is no msgpack")
        with suppress(ConnectionClosed):  # it may be closed before the last fragment
            client.socket.send(b"\0" * 2**16 for _ in range(5))
        with pytest.raises(ConnectionClosed) as caught:
            client.socket.recv(timeout=30)
    assert caught.value.rcvd.code == 1009


def get(url):
    with urllib.request.urlopen(url.replace("ws:", "http:")) as answer:
        return answer.status, answer.read()


def test_health(served):
    assert get(f"{served.url}/healthz") == get(f"{served.url}/health") == (200, b"OK\n")
    with pytest.raises(urllib.error.HTTPError, match="426"):
        get(f"{served.url}/")


def test_web_pages_cannot_connect(served):
    for origin in ("http://example.org", "null", f"http://127.0.0.1.example.org:{served.port}"):
        with pytest.raises(InvalidStatus) as caught, connect(served.url, origin=origin):
            pass
        assert caught.value.response.status_code == 403
    with connect(served.url, origin=f"http://127.0.0.1:{served.port}") as own:
        own.recv()


def test_there_is_a_limit_of_connections(served, monkeypatch):
    with Client(served.url), Client(served.url):
        monkeypatch.setattr(server, "CONNECTIONS", 2)
        with pytest.raises(InvalidStatus) as caught, connect(served.url):
            pass
    assert caught.value.response.status_code == 503
    assert caught.value.response.body == b"2 clients are connected\n"


def test_several_clients_at_once_get_what_each_would_alone(served, policy, frame, monkeypatch):
    def episode(k, ask):
        return [ask(frame(100 * k + n, task=k % 2)) for n in range(4)]

    def by_itself(k):
        session = Session(policy)
        return episode(k, lambda message: session.answer(pack(message)))

    alone = [by_itself(k) for k in range(4)]
    together, threads, act = threading.Barrier(4), set(), policy.act

    def watched(asked, seeds):
        threads.add(threading.current_thread().name)
        return act(asked, seeds)

    monkeypatch.setattr(policy, "act", watched)

    def client(k):
        with Client(served.url) as connected:
            together.wait()
            return episode(k, connected.ask)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(client, range(4)))
    assert len(threads) == 1  # one observation at a time
    for one, other in zip(found, alone, strict=True):
        for a, b in zip(one, other, strict=True):
            same(a, b)


def test_messages_of_all_clients_together_are_bounded(policy, frame):
    """Two clients hold half a message each; the third is told to come again, and room that is freed is free."""
    with PolicyServer(policy, max_message_mb=0.25, max_total_mb=0.5) as running:
        half = b"\x82\xff" + (2**18).to_bytes(8) + b"\0" * (2**18 - 2000)

        def holding():
            made = raw(running)
            made.sendall(UPGRADE)
            assert b"101 Switching Protocols" in made.recv(2**16)
            made.sendall(half)
            return made

        with Client(running.url) as client, holding(), holding() as second:
            while running.budget.held < 2 * (len(half) - 14):
                get(f"{running.url}/healthz")  # they are on their way
            with pytest.raises(ConnectionClosed) as caught:
                client.ask(b"\0" * 5000)
            assert caught.value.rcvd.code == 1013
            assert caught.value.rcvd.reason == (
                "the clients' messages together exceed 0.5 MiB; send it again later"
            )
            second.shutdown(socket.SHUT_RDWR)
            while running.budget.held > len(half):
                get(f"{running.url}/healthz")
            with Client(running.url) as another:
                assert another.ask(frame())["decision"] == 0


def test_answered_messages_make_room(policy, frame):
    with (
        PolicyServer(policy, max_message_mb=0.01, max_total_mb=0.01) as running,
        Client(running.url) as client,
    ):
        for n in range(20):  # 20 times 1 kB, of 10 kB
            assert client.ask(frame(n))["decision"] == n


def raw(served):
    made = socket.create_connection(("127.0.0.1", served.port))
    made.settimeout(30)
    return made


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\xff" * 99,
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\n\r\n",
        UPGRADE,
        UPGRADE + b"\xff" * 40,
        UPGRADE + b"\x82\xfe\x00",
        UPGRADE + b"\x82\x05hello",
        UPGRADE + b"\x82\xff" + b"\x7f" * 12,
    ],
    ids=["nothing", "noise", "half a request", "a post", "no message", "bad frames", "half a frame", "unmasked", "2^62 bytes"],
)  # fmt: skip
def test_connections_that_break_off_or_send_no_protocol(served, frame, sent):
    with Client(served.url) as other:
        with raw(served) as broken:
            broken.sendall(sent)
        with raw(served) as slow:  # and stays, having said half
            slow.sendall(sent)
            assert other.ask(frame())["decision"] == 0
    assert get(f"{served.url}/healthz")[0] == 200


def test_a_client_that_goes_before_its_answer(served, frame):
    for _ in range(3):
        with Client(served.url) as client:
            client.socket.send(pack(frame()))
            client.socket.socket.shutdown(socket.SHUT_RDWR)
    with Client(served.url) as other:
        assert other.ask(frame())["decision"] == 0


VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=5)
VALUES |= st.binary(max_size=9) | st.lists(st.integers(0, 9), max_size=6)
MESSAGES = st.binary(max_size=80) | st.text(max_size=20)
MESSAGES |= st.dictionaries(st.sampled_from([*FIELDS, "images", "front", "__ndarray__"]), VALUES).map(
    msgpack.packb
)


def test_whatever_is_sent_is_answered(served, frame):
    with Client(served.url) as client:

        @settings(deadline=None, max_examples=200)
        @given(MESSAGES)
        def every(message):
            answer = client.ask(message)
            assert isinstance(answer, str | dict)
            assert "Traceback" not in str(answer)
            assert "\n" not in str(answer)

        every()
        assert client.ask({**frame(), "reset": True})["decision"] == 0


def test_a_fault_of_the_server_is_said_without_a_traceback(made, frame, monkeypatch, caplog):
    policy = made()
    with PolicyServer(policy) as running, Client(running.url) as other:
        with Client(running.url) as client, monkeypatch.context() as patch:
            patch.setattr(policy, "act", lambda asked, seeds: 1 / 0)
            said = client.ask(frame())
            assert said == "the server failed on this message (ZeroDivisionError); its log says where"
            with pytest.raises(ConnectionClosed) as caught:
                client.socket.recv(timeout=30)
            assert caught.value.rcvd.code == 1011
        assert other.ask(frame())["decision"] == 0
    assert "ZeroDivisionError" in caplog.text


def test_the_servers_task_stands_for_messages_without_one(policy, frame):
    message = frame()
    del message["task"]
    with PolicyServer(policy, task="pick-place-v3") as running, Client(running.url) as client:
        assert client.greeting["task"] == "pick-place-v3"
        same(client.ask(message), Session(policy, "pick-place-v3").answer(pack(message)))


def test_notices_are_logged(served, frame, caplog):
    with Client(served.url) as client:
        for n in range(3):
            client.ask(frame(n))
    assert caplog.text.count("asks for a chunk with every step") == 1


def test_a_client_that_shows_only_its_decisions_is_served_with_the_newest_step_repeated(policy, frame, acted):
    """As openpi's chunk broker asks: steps 0, 4, 8."""
    with PolicyServer(policy, history="repeat") as running, Client(running.url) as client:
        assert client.greeting["history"] == "repeat"
        for n in (0, 4, 8):
            answer = client.ask(frame(n))
            assert "warning" not in answer
            expected = acted(policy, [frame(n), frame(n)], answer["seed"])
            np.testing.assert_array_equal(answer["actions"], expected)


def test_stopping_closes_connections_and_frees_the_port(policy, frame):
    with PolicyServer(policy) as running, Client(running.url) as client:
        client.ask(frame())
        running.stop()
        with pytest.raises(ConnectionClosed) as caught:
            client.socket.recv(timeout=30)
    assert caught.value.rcvd.code == 1001
    with PolicyServer(policy, port=running.port) as again:
        assert again.url == running.url
    again.stop()  # once more does no harm


# Where it listens


def test_loopback_is_the_default_and_named(policy):
    assert PolicyServer(policy).host == "127.0.0.1"
    known = {
        "127.0.0.1": True, "127.8.8.8": True, "::1": True, "localhost": True,
        "0.0.0.0": False, "::": False, "192.168.0.4": False, "": False, "robot": False, "localhost.evil.org": False,
    }  # fmt: skip
    assert {host: server.is_loopback(host) for host in known} == known
    assert PolicyServer(policy, host="::1", port=3).url == "ws://[::1]:3"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"port": -1}, "--port -1 is no port; give 0 .any that is free. to 65535"),
        ({"port": 70000}, "--port 70000 is no port"),
        ({"max_message_mb": 0}, "--max-message-mb 0 leaves no room"),
        ({"max_message_mb": float("nan")}, "--max-message-mb nan leaves no room"),
        ({"max_total_mb": 1}, r"--max-total-mb 1 is less than one message .--max-message-mb 64"),
        ({"history": "none"}, "unknown history 'none'; known: consecutive, repeat"),
        ({"execute": 5}, "--execute 5: a chunk of this policy has 1 to 4 actions"),
        ({"execute": 0}, "--execute 0: a chunk of this policy has 1 to 4 actions"),
        ({"task": "dance"}, "unknown task of this policy 'dance'; known: pick-place-v3, reach-v3"),
    ],
)
def test_options_that_cannot_be(policy, options, sentence):
    with pytest.raises(UserError, match=sentence):
        PolicyServer(policy, **options)


def test_a_port_that_is_taken_and_an_address_that_is_not_here(policy, served):
    with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {served.port} .*--port"):
        PolicyServer(policy, port=served.port).__enter__()
    # an address of the documentation's network (RFC 5737) is nobody's
    with pytest.raises(UserError, match=r"cannot listen on 192.0.2.1, port 0 .*--host"):
        asyncio.run(PolicyServer(policy, host="192.0.2.1").run())
    with pytest.raises(
        UserError, match=r"there is no address 'a\.\.b' on this machine; give --host 127.0.0.1"
    ):
        asyncio.run(PolicyServer(policy, host="a..b").run())


def test_without_the_library_the_extra_is_named(policy, monkeypatch):
    monkeypatch.setitem(sys.modules, "websockets.asyncio.server", None)
    with pytest.raises(UserError, match=r"needs websockets: pip install \"compression-gap\[serve\]\""):
        PolicyServer(policy)
