"""Pretraining frames: the true state beside each image, nested sets, initial states of their own."""

import json

import numpy as np
import pytest

from compression_gap.demos.frames import (
    BLOCK,
    BLOCKS,
    FRAMES_PER_EPISODE,
    STATES_PER_BLOCK,
    FrameSet,
    collect_frames,
    disturbed_episode,
    join_frames,
)
from compression_gap.errors import UserError
from compression_gap.sims import (
    DEMONSTRATION_STATES,
    EVALUATION_STATES,
    PRETRAINING_STATES,
    TUNING_STATES,
    SimSpec,
    make_sim,
)
from compression_gap.sims.channel import STEPS, Channel, _blob

SPEC = SimSpec(sim="channel", tasks=("reach",), cameras=("channel",), image_size=16)


def collect(folder, block, **options):
    folder.mkdir()
    told = collect_frames(SPEC, "reach", block, folder, **options)
    return FrameSet.load(folder), told


def test_each_frame_shows_the_state_that_is_written_beside_it(tmp_path):
    frames, told = collect(tmp_path / "a", 1, frames=40)
    assert told == {"frames": 40, "episodes": 40 // FRAMES_PER_EPISODE}
    assert frames.images["channel"].dtype == np.uint8
    for image, state, initial in zip(
        frames.images["channel"], frames.state, frames.initial_state, strict=True
    ):
        sim = Channel(SPEC)
        sim.reset("reach", int(initial))
        np.testing.assert_array_equal(state, sim.goal.astype(np.float32))
        np.testing.assert_array_equal(image, _blob(sim.goal, 16))
    assert frames.state_names == ("goal_x", "goal_y")


def test_the_first_frames_are_the_same_however_many_follow(tmp_path):
    few, _ = collect(tmp_path / "few", 3, frames=12)
    many, _ = collect(tmp_path / "many", 3, frames=40)
    np.testing.assert_array_equal(few.state, many.state[:12])
    np.testing.assert_array_equal(few.images["channel"], many.images["channel"][:12])


def test_sets_joined_from_blocks_are_nested(tmp_path):
    blocks = [collect(tmp_path / str(b), b, frames=20)[0] for b in (1, 2, 3)]
    small, large = join_frames(blocks[:2], 25), join_frames(blocks, 60)
    assert (len(small), len(large)) == (25, 60)
    np.testing.assert_array_equal(large.state[:25], small.state)
    np.testing.assert_array_equal(large.images["channel"][:25], small.images["channel"])
    with pytest.raises(ValueError, match="20 frames in 1 blocks, 21 wanted"):
        join_frames(blocks[:1], 21)


def test_initial_states_meet_no_other_block_and_no_other_use(tmp_path):
    blocks = [collect(tmp_path / str(b), b, frames=20)[0] for b in (0, 1, 2)]
    used = [set(b.initial_state.tolist()) for b in blocks]
    assert all(a.isdisjoint(b) for i, a in enumerate(used) for b in used[:i])
    assert DEMONSTRATION_STATES < PRETRAINING_STATES < TUNING_STATES < EVALUATION_STATES
    assert all(PRETRAINING_STATES <= s < TUNING_STATES for states in used for s in states)
    # the last block fits, and a block's frames never need more initial states than are kept for it
    assert PRETRAINING_STATES + BLOCKS * STATES_PER_BLOCK <= TUNING_STATES
    assert BLOCK <= STATES_PER_BLOCK


def test_moments_are_spread_over_the_episode_and_rendered_only_when_kept(monkeypatch):
    sim, rendered = make_sim(SPEC), []
    observe = type(sim).observe
    monkeypatch.setattr(type(sim), "observe", lambda self: rendered.append(self.time) or observe(self))
    times = []
    for state in range(PRETRAINING_STATES, PRETRAINING_STATES + 200):
        before = len(rendered)
        seen = list(disturbed_episode(sim, "reach", state))
        assert len(seen) == len(rendered) - before == FRAMES_PER_EPISODE
        times.append(rendered[before:])
    # half the step limit is 8 steps, cut into five parts: one moment from each
    longest = STEPS // 2
    starts = np.arange(FRAMES_PER_EPISODE) * longest / FRAMES_PER_EPISODE
    assert all((np.array(t) >= np.floor(starts)).all() for t in times)
    assert all((np.array(t) <= starts + longest / FRAMES_PER_EPISODE).all() for t in times)
    assert set(np.concatenate(times)) == set(range(longest))


def test_the_expert_is_disturbed_by_the_episode_s_own_draws():
    sim = make_sim(SPEC)

    def positions(state):
        return np.array([o.proprio[0, 0, :2] for o in disturbed_episode(sim, "reach", state)])

    undisturbed = []
    for state in range(PRETRAINING_STATES, PRETRAINING_STATES + 50):
        np.testing.assert_array_equal(positions(state), positions(state))
        sim.reset("reach", state)
        expert, path = sim.expert(), []
        for _ in range(STEPS // 2):
            path.append(sim.position.copy())
            sim.step(expert.act(sim))
        apart = np.abs(positions(state)[-1] - np.array(path)[-3:]).max(1).min()
        undisturbed.append(apart)
    assert np.median(undisturbed) < 0.1 < max(undisturbed)  # most a little, some much


def test_what_cannot_be_collected_is_a_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=f"initial states for {BLOCKS - 1} blocks.*pretrain on fewer frames"):
        collect(tmp_path / "a", BLOCKS)
    describe = Channel.describe
    from dataclasses import replace

    monkeypatch.setattr(Channel, "describe", staticmethod(lambda s: replace(describe(s), state_dim=0)))
    with pytest.raises(UserError, match="channel gives no true state to pretrain on: take another encoder"):
        collect(tmp_path / "b", 1)


def test_a_block_is_plain_arrays_and_json(tmp_path):
    collect(tmp_path / "a", 1, frames=10)
    assert sorted(f.name for f in (tmp_path / "a").iterdir()) == [
        "frames.json",
        "images-channel.npy",
        "initial_state.npy",
        "state.npy",
    ]
    assert json.loads((tmp_path / "a" / "frames.json").read_text())["cameras"] == ["channel"]
    for file in (tmp_path / "a").glob("*.npy"):
        assert len(np.load(file, allow_pickle=False)) == 10
