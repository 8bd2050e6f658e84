"""Demonstrations from scripted experts."""

import numpy as np
import pytest

from compression_gap.demos import DemoSet
from compression_gap.demos import experts as module
from compression_gap.demos.experts import Stopped, collect_demos
from compression_gap.errors import UserError
from compression_gap.sims import EVALUATION_STATES, PRETRAINING_STATES, SimSpec, make_sim
from compression_gap.sims.channel import MinJerkExpert

CHANNEL = SimSpec(sim="channel", tasks=("reach",), image_size=16)


class Choosy(MinJerkExpert):
    """An expert that fails where the goal lies to the left."""

    def act(self, sim):
        return super().act(sim) * (1.0 if sim.goal[0] > 0 else -1.0)


class Hopeless(MinJerkExpert):
    def act(self, sim):
        return -super().act(sim)


def with_expert(monkeypatch, kind):
    from compression_gap.sims.channel import Channel

    monkeypatch.setattr(Channel, "expert", lambda self: kind())


def test_each_row_is_what_was_seen_before_its_action(tmp_path):
    told = []
    meta = collect_demos(CHANNEL, "reach", 5, tmp_path, progress=lambda *at: told.append(at))
    demos = DemoSet.load(tmp_path)
    assert told == [(k, 5) for k in range(1, 6)]
    assert meta["attempts"] == 5
    assert meta["failed_states"] == []
    assert [e.initial_state for e in demos.episodes] == [0, 1, 2, 3, 4]
    assert {e.length for e in demos.episodes} == {16}
    sim = make_sim(CHANNEL)
    for episode in demos.episodes:
        sim.reset("reach", episode.initial_state)
        for row in range(episode.start, episode.start + episode.length):
            now = sim.observe()
            assert np.array_equal(now.images["channel"][0, 0], demos.images["channel"][row])
            assert np.array_equal(now.proprio[0, 0], demos.proprio[row])
            assert np.array_equal(now.state[0, 0], demos.state[row])
            assert not sim.success
            sim.step(demos.actions[row])
        assert sim.success  # the last action is the one that reached success


def test_failures_are_left_out_counted_and_listed(tmp_path, monkeypatch):
    with_expert(monkeypatch, Choosy)
    meta = collect_demos(CHANNEL, "reach", 6, tmp_path, first_state=100)
    demos = DemoSet.load(tmp_path)
    kept = [e.initial_state for e in demos.episodes]
    assert len(kept) == 6
    assert (demos.state[:, 0] > 0).all()
    assert meta["failed_states"]
    assert sorted(kept + meta["failed_states"]) == list(range(100, 100 + meta["attempts"]))
    assert meta["success_rate"] == 6 / meta["attempts"]


def test_an_expert_that_fails_is_reported(tmp_path, monkeypatch):
    with_expert(monkeypatch, Hopeless)
    with pytest.raises(UserError, match="the expert failed 12 of 12 attempts at reach"):
        collect_demos(CHANNEL, "reach", 6, tmp_path)


def test_demonstrations_never_touch_the_states_of_other_uses(tmp_path):
    with pytest.raises(UserError, match="kept for pretraining, tuning and evaluation"):
        collect_demos(CHANNEL, "reach", 3, tmp_path, first_state=EVALUATION_STATES)
    with pytest.raises(UserError, match="not 500000"):
        collect_demos(CHANNEL, "reach", 3, tmp_path, first_state=PRETRAINING_STATES - 2)


def test_collection_stops_when_asked(tmp_path):
    done = []
    with pytest.raises(Stopped):
        collect_demos(
            CHANNEL,
            "reach",
            5,
            tmp_path,
            progress=lambda at, total: done.append(at),
            should_stop=lambda: len(done) == 2,
        )
    assert done == [1, 2]
    assert not (tmp_path / "demos.json").exists()


def test_metaworld_demonstrations_replay_to_success(tmp_path):
    spec = SimSpec(sim="metaworld", tasks=("pick-place-v3", "push-v3"))
    meta = collect_demos(spec, "push-v3", 3, tmp_path)
    demos = DemoSet.load(tmp_path)
    assert demos.images["corner2"].shape[1:] == (84, 84, 3)
    assert demos.proprio.shape[1] == 4
    assert demos.state.shape[1] == 23
    assert meta["mean_length"] == pytest.approx(len(demos.actions) / 3)
    assert np.abs(demos.actions).max() <= 1
    sim = make_sim(spec)
    for episode in demos.episodes:
        sim.reset("push-v3", episode.initial_state)
        for row in range(episode.start, episode.start + episode.length):
            assert np.array_equal(sim.observe(images=False).proprio[0, 0], demos.proprio[row])
            sim.step(demos.actions[row])
        assert sim.success
    sim.close()


def test_a_simulator_that_does_not_repeat_is_found_out(tmp_path, monkeypatch):
    from compression_gap.sims.channel import Channel

    resets = []
    original = Channel.reset

    def drifting(self, task, state):
        resets.append(state)
        original(self, task, state + 1000 * len(resets))

    monkeypatch.setattr(Channel, "reset", drifting)
    with pytest.raises(UserError, match="did not repeat"):
        collect_demos(CHANNEL, "reach", 3, tmp_path)
    assert module.FAIR_ATTEMPTS > 3


def test_an_attempt_that_fails_is_a_sign_of_life_too(tmp_path, monkeypatch):
    with_expert(monkeypatch, Choosy)
    told = []
    meta = collect_demos(CHANNEL, "reach", 3, tmp_path, progress=lambda *at: told.append(at))
    assert len(told) == meta["attempts"] > 3
    assert told[-1] == (3, 3)
