"""Served policies as actors: the same episodes as in process, and what happens when a server misbehaves."""

from contextlib import contextmanager

import msgpack
import numpy as np
import pytest

from compression_gap.errors import UserError
from compression_gap.policies import Policy
from compression_gap.rollouts.run import run_episodes
from compression_gap.serving import PolicyServer, remote
from compression_gap.serving.binding import BINDINGS, Binding, State, own_binding
from compression_gap.serving.remote import RemoteActor, greet
from compression_gap.sims import EvaluationProtocol, Observation, SimPool, SimSpec, sim_info
from strange_server import Strange, heads_for_the_goal

CHANNEL = SimSpec(sim="channel", tasks=("reach",), image_size=16)
PLAIN = Binding(
    cameras={"channel": "observation/image"},
    image_size=16,
    state=State(key="observation/state"),
    execute=4,
)

STEPWISE = Binding(
    wire="vla-eval",
    cameras={"channel": "image"},
    image_size=16,
    state=State(key="states"),
    prompt="task_description",
    execute=1,
)


def protocol(spec=CHANNEL, **changes):
    info = sim_info(spec)
    known = {"episodes_per_task": 5, "execute": 4, "step_limit": info.step_limit, "versions": info.versions}
    return EvaluationProtocol(sim=spec, **{**known, "n_obs_steps": 1, **changes})


@contextmanager
def actor_of(*servers, binding=PLAIN, spec=CHANNEL, **more):
    made = RemoteActor([s.url for s in servers], binding, spec.tasks, sim_info(spec), **more)
    try:
        yield made
    finally:
        made.close()


def rows(actor, workers=2, **changes):
    with SimPool(CHANNEL, workers) as pool:
        return run_episodes(actor, protocol(**changes), pool, actor_key="it").to_pylist()


def test_a_studys_policy_gives_the_same_episodes_served_as_in_process(finished):
    policy = Policy.load(finished.policy)
    spec = SimSpec(sim="channel", tasks=policy.spec.tasks, image_size=policy.spec.image_size)
    how = protocol(spec, n_obs_steps=policy.n_obs_steps, episodes_per_task=8, execute=8)
    with SimPool(spec, 1) as pool:
        expected = run_episodes(policy, how, pool, actor_key="it")
    with PolicyServer(policy) as one, PolicyServer(policy) as other:
        binding = own_binding(greet(one.url))
        with actor_of(one, other, binding=binding, spec=spec) as actor, SimPool(spec, 3) as pool:
            assert (actor.horizon, actor.n_obs_steps) == (policy.horizon, policy.n_obs_steps)
            assert run_episodes(actor, how, pool, actor_key="it").equals(expected)


def test_chunks_are_bit_for_bit_those_of_the_policy(policy, frame, acted):
    """Two cameras, two steps, in a batch of two."""
    frames = [frame(n) for n in range(4)]
    spec = SimSpec(sim="channel", tasks=policy.spec.tasks, cameras=policy.spec.cameras, image_size=8)
    info = sim_info(CHANNEL)
    info = type(info)(**{**vars(info), "proprio_dim": 5, "action_dim": 2})
    asked = Observation(
        images={
            c: np.stack([[f["images"][c] for f in frames[i : i + 2]] for i in (0, 2)])
            for c in policy.spec.cameras
        },
        proprio=np.stack([[f["proprio"] for f in frames[i : i + 2]] for i in (0, 2)]),
        task=np.array([0, 1]),
    )
    with PolicyServer(policy) as server:
        actor = RemoteActor([server.url], own_binding(greet(server.url)), spec.tasks, info)
        got = actor.act(asked, np.array([3, 4])).chunk
        actor.close()
    np.testing.assert_array_equal(got[0], acted(policy, frames[:2], 3))
    np.testing.assert_array_equal(got[1], acted(policy, frames[2:], 4, task=1))


def test_a_server_of_someone_elses_solves_the_task():
    with Strange(lambda n, m: heads_for_the_goal(m)) as server, actor_of(server) as actor:
        found = rows(actor)
    assert actor.horizon == 6
    assert all(r["success"] and r["decisions"] == 4 for r in found)
    assert server.asked == 1 + sum(r["decisions"] for r in found)


@pytest.mark.parametrize("last", [None, 3.0], ids=["hangs up", "falls silent"])
def test_a_lost_episode_is_run_again_from_its_start_and_no_row_is_lost_or_doubled(last):
    """The rows are those of a server that never fails."""
    with Strange(lambda n, m: heads_for_the_goal(m)) as server, actor_of(server) as actor:
        expected = rows(actor)

    def answer(n, message):
        return last if n in (5, 9, 14) else heads_for_the_goal(message)

    with Strange(answer) as server, actor_of(server, timeout=0.5) as actor:
        found = rows(actor)
    assert found == expected
    assert server.asked > 1 + sum(r["decisions"] for r in found)


def test_an_episode_that_is_lost_three_times_ends_the_run():
    def answer(n, message):
        return heads_for_the_goal(message) if n == 1 else None

    with (
        Strange(answer) as server,
        actor_of(server) as actor,
        pytest.raises(UserError, match=r"was lost 3 times in one episode .*; see its log, raise --timeout"),
    ):
        rows(actor)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"action": np.zeros(2)}, r"the answer has no 'actions' \(it has action\)"),
        ({"actions": "left"}, r"'actions' is a str, no array of numbers"),
        ({"actions": np.zeros((6, 3))}, r"'actions' is \[6, 3\]; the simulator's actions have 2 numbers"),
        ({"actions": np.zeros((0, 2))}, r"'actions' is \[0, 2\]"),
        ({"actions": np.full((6, 2), np.nan)}, r"it answered actions that are NaN or infinite"),
        ({"actions": np.zeros((5, 2))}, r"it answered 5 actions now, and 6 before"),
        (b"\xc1", r"cannot be read: the message is no msgpack"),
        ([1, 2], r"answered a list that is no map; choose another --binding"),
        ("Traceback:\n  File x\nKeyError: 'observation/wrist'", r"says: KeyError: 'observation/wrist'$"),
    ],
)
def test_nonsense_is_one_sentence(answer, sentence):
    def made(n, message):
        return heads_for_the_goal(message) if n < 4 else answer

    with (
        Strange(made) as server,
        actor_of(server) as actor,
        pytest.raises(UserError, match=sentence) as caught,
    ):
        rows(actor)
    assert server.url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_comes_back_with_another_policy_is_refused(monkeypatch):
    names = iter(["a", "a", "b"])

    class Renamed(Strange):
        async def handle(self, connection):
            self.metadata = {"checkpoint": next(names)}
            await super().handle(connection)

    def answer(n, message):
        return None if n == 4 else heads_for_the_goal(message)

    with (
        Renamed(answer) as server,
        actor_of(server) as actor,
        pytest.raises(UserError, match="serves another policy than before"),
    ):
        rows(actor, workers=2)


def test_what_is_no_server_is_said_at_once():
    with pytest.raises(
        UserError, match=r"no policy answers at ws://127.0.0.1:9 \(.*refused.*\); start its server"
    ):
        greet("ws://127.0.0.1:9")
    with pytest.raises(UserError, match="is no address of a policy; give ws://HOST:PORT"):
        greet("ws://")


def test_chunks_that_are_too_short_for_the_binding_are_refused():
    with (
        Strange(lambda n, m: {"actions": np.zeros((3, 2))}) as server,
        pytest.raises(UserError, match="answers chunks of 3 actions, and the binding executes 4 of them"),
        actor_of(server),
    ):
        pass


def test_several_servers_share_the_episodes():
    with (
        Strange(lambda n, m: heads_for_the_goal(m)) as one,
        Strange(lambda n, m: heads_for_the_goal(m)) as other,
        actor_of(one, other) as actor,
    ):
        found = rows(actor, episodes_per_task=6)
    assert all(r["success"] for r in found)
    assert one.asked == other.asked == 13  # and the question at the beginning


def test_frames_of_vla_eval_go_step_by_step_and_episodes_are_announced(policy):
    """A server written from vla-eval's protocol: it answers one action a frame, and keeps what it is told."""
    heard = []

    class Harnessed(Strange):
        async def handle(self, connection):
            self.connections += 1
            async for data in connection:
                m = msgpack.unpackb(data, raw=False)
                heard.append(m["type"])
                if m["type"] == "hello":
                    reply = "hello", {"model_server": "x"}
                elif m["type"] == "observation":
                    seen = m["payload"]
                    assert seen["task_description"] == "reach"
                    about = seen["images"]["image"]
                    image = np.frombuffer(about["data"], about["dtype"]).reshape(about["shape"])
                    state = seen["states"]
                    state = np.frombuffer(state["data"], state["dtype"]).reshape(state["shape"])
                    acted = heads_for_the_goal({"observation/image": image, "observation/state": state})
                    a = acted["actions"][0].astype("<f4")
                    plain = {"__ndarray__": True, "data": a.tobytes(), "dtype": "<f4", "shape": [2]}
                    reply = "action", {"actions": plain}
                else:
                    continue
                frame = {"type": reply[0], "payload": reply[1], "seq": m["seq"], "timestamp": 0.0}
                await connection.send(msgpack.packb(frame))

    with Harnessed(None) as server, actor_of(server, binding=STEPWISE) as actor:
        found = rows(actor, workers=1, execute=1)
    assert all(r["success"] and r["decisions"] == r["length"] for r in found)
    assert heard.count("episode_start") == heard.count("episode_end") == 1 + len(found)
    assert heard[:2] == ["hello", "episode_start"]


def test_the_two_libero_bindings_execute_what_their_harnesses_execute():
    assert {n: (b.execute, b.protocol) for n, b in BINDINGS.items()} == {
        "openpi-libero": (5, "openpi"),
        "vla-eval-libero": (1, "openpi"),
    }
    assert remote.MOST_LOST == 3
