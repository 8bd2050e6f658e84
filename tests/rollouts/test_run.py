"""Rollouts: reference actors, seeds, rows, frames at decision points."""

import math
import os
import signal
from dataclasses import dataclass, field

import numpy as np
import pytest

from compression_gap.demos import Normaliser
from compression_gap.demos.experts import expert_actions
from compression_gap.errors import UserError
from compression_gap.information.resolution import disturbance, task_resolution
from compression_gap.policies import Emission
from compression_gap.rollouts.actors import (
    CodedActor,
    DisturbedActor,
    ExpertActor,
    ExpertChunkedActor,
    ReplayActor,
)
from compression_gap.rollouts.run import EPISODE_SCHEMA, decision_seed, run_episodes
from compression_gap.rollouts.video import record_episode
from compression_gap.sims import EvaluationProtocol, Observation, SimPool, SimSpec, make_sim, sim_info
from compression_gap.sims.base import arrays_equal
from compression_gap.sims.channel import optimal_success, quantise

CHANNEL = SimSpec(sim="channel", tasks=("reach",), image_size=16)
WORLD = SimSpec(sim="metaworld", tasks=("push-v3", "button-press-topdown-v3"))


def protocol(spec=CHANNEL, **changes):
    info = sim_info(spec)
    known = {"episodes_per_task": 6, "execute": 8, "step_limit": info.step_limit, "versions": info.versions}
    return EvaluationProtocol(sim=spec, **{**known, **changes})


@dataclass
class Looking:
    """A stand-in policy: heads for what it sees of the goal, with noise from the decision's seed."""

    asks: str = "observation"
    n_obs_steps: int = 2
    horizon: int = 8
    needs_images: bool = True
    seen: list = field(default_factory=list)
    on_batch: object = None

    def act(self, asked, seeds):
        assert isinstance(asked, Observation)
        assert asked.proprio.shape[:2] == (len(seeds), self.n_obs_steps)
        self.seen.append((asked, seeds))
        if self.on_batch:
            self.on_batch(len(self.seen))
        weight = asked.images["channel"][:, -1, :, :, 0].astype(float)
        centres = ((np.arange(16) + 0.5) / 8 - 1) * 1.25
        goal = np.stack([(weight.sum(1) * centres).sum(1), -(weight.sum(2) * centres).sum(1)], 1)
        goal = goal / weight.sum((1, 2))[:, None]
        left = 16 - np.round(asked.proprio[:, -1, 2] * 16)
        noise = np.stack([np.random.default_rng(s).normal(0, 0.05, 2) for s in seeds])
        move = (goal - asked.proprio[:, -1, :2]) / left[:, None] / 0.125 + noise
        chunk = np.repeat(move[:, None], self.horizon, 1).astype(np.float32)
        return Emission(chunk, np.ones(len(seeds), bool))


@pytest.fixture(scope="module")
def inline():
    with SimPool(CHANNEL, 0) as pool:
        yield pool


@pytest.fixture(scope="module")
def workers():
    with SimPool(CHANNEL, 3) as pool:
        yield pool


@pytest.fixture(scope="module")
def world():
    with SimPool(WORLD, 0) as pool:
        yield pool


def test_rows_stand_in_protocol_order_and_are_the_same_with_workers(inline, workers):
    asked = protocol(repeats=2)
    want = run_episodes(Looking(), asked, inline, actor_key="policy-1")
    got = run_episodes(Looking(), asked, workers, actor_key="policy-1")
    assert got.equals(want)
    assert got.schema.equals(EPISODE_SCHEMA)
    rows = got.to_pylist()
    assert [(r["task"], r["initial_state"], r["repeat"]) for r in rows] == asked.episodes()
    assert {r["protocol"] for r in rows} == {asked.hash}
    assert {r["actor"] for r in rows} == {"policy-1"}
    assert {r["length"] for r in rows} == {16}
    assert {r["decisions"] for r in rows} == {2}
    assert sum(r["success"] for r in rows) >= 8


def test_batches_do_not_depend_on_timing(workers):
    one, two = Looking(), Looking()
    for actor in (one, two):
        run_episodes(actor, protocol(), workers, actor_key="a")
    assert len(one.seen) == len(two.seen)
    for (a, seeds_a), (b, seeds_b) in zip(one.seen, two.seen, strict=True):
        assert arrays_equal(a, b)
        assert np.array_equal(seeds_a, seeds_b)


def test_a_worker_killed_in_the_middle_leaves_the_same_table(workers):
    want = run_episodes(Looking(), protocol(), workers, actor_key="a")

    def kill(batch):
        if batch in (1, 2):
            os.kill(workers.pids()[batch], signal.SIGKILL)

    actor = Looking(on_batch=kill)
    assert run_episodes(actor, protocol(), workers, actor_key="a").equals(want)


def test_seeds_are_a_function_of_the_decision_alone(inline):
    actor = Looking()
    asked = protocol(episodes_per_task=2, execute=8)
    run_episodes(actor, asked, inline, actor_key="a")
    first = asked.first_initial_state
    want = [decision_seed("reach", first + k, 0, d) for k in (0, 1) for d in (0, 1)]
    assert [int(s) for _, seeds in actor.seen for s in seeds] == want
    assert len(set(want)) == 4
    assert len({decision_seed(*at) for at in (("a", 0, 0, 0), ("a", 0, 1, 0), ("b", 0, 1, 0))}) == 3
    assert all(0 <= s < 2**63 for s in want)
    # Held fixed: evidence of different versions stays comparable.
    assert decision_seed("push-v3", 2_000_000, 0, 0) == 6298947368564676492


def test_progress_and_records_arrive_as_episodes_end(workers):
    told, rows = [], []
    table = run_episodes(
        ExpertActor(),
        protocol(),
        workers,
        actor_key="expert",
        progress=lambda done, total: told.append((done, total)),
        record=rows.append,
    )
    assert told == [(k, 6) for k in range(1, 7)]
    assert [vars(r) for r in sorted(rows, key=lambda r: r.initial_state)] == table.to_pylist()


@pytest.mark.parametrize("execute", [1, 5, 16])
def test_the_chunked_expert_equals_the_expert_on_the_channel(inline, execute):
    asked = protocol(execute=execute, episodes_per_task=10)
    table = run_episodes(ExpertChunkedActor(16), asked, inline, actor_key="x")
    assert table["success"].to_pylist() == [True] * 10
    assert table["decisions"].to_pylist() == [-(-16 // execute)] * 10


def test_the_coded_expert_reaches_the_closed_form(inline):
    """A code that quantises the end point to 3 bits per dimension succeeds with probability 0.64."""

    def code(chunks):
        end = chunks.sum(axis=1) * 0.125
        scale = quantise(np.clip(end, -1, 1), 3) / end
        return Emission((chunks * scale[:, None]).astype(np.float32), np.ones(len(chunks), bool))

    asked = protocol(execute=16, episodes_per_task=1500)
    table = run_episodes(CodedActor(16, code), asked, inline, actor_key="coded")
    rate = np.mean(table["success"].to_pylist())
    assert rate == pytest.approx(optimal_success(3), abs=4 * np.sqrt(0.64 * 0.36 / 1500))


# Standard deviations of the actions of the two dimensions, and then their range.
UNITS = Normaliser(*(np.array(v, np.float32) for v in ([0, 0], [0.4, 0.4], [-2, -2], [2, 2])))


def disturbed(kind, sigma, asked, pool, **options):
    """Success of each episode of the disturbed expert, float [episodes]."""
    actor = DisturbedActor(16, disturbance(kind, sigma, UNITS, **options))
    return np.array(run_episodes(actor, asked, pool, actor_key="x")["success"].to_pylist(), float)


@pytest.mark.parametrize("kind", ["white", "offset"])
def test_the_disturbed_expert_lies_between_the_chunked_expert_and_chance(inline, kind):
    asked = protocol(episodes_per_task=20)
    chunked = run_episodes(ExpertChunkedActor(16), asked, inline, actor_key="x")
    actor = DisturbedActor(16, disturbance(kind, 0.0, UNITS))
    assert run_episodes(actor, asked, inline, actor_key="x").equals(chunked)
    assert disturbed(kind, 50.0, asked, inline).mean() <= 0.1


@pytest.mark.parametrize(
    ("kind", "sigma", "execute", "dimension", "spread"),
    [
        ("white", 0.4, 16, None, np.sqrt(16)),
        ("white", 0.5, 8, None, np.sqrt(8)),  # the second chunk puts right what the first did
        ("white", 0.5, 16, 1, np.sqrt(16)),
        ("offset", 0.1, 16, None, 16),
    ],
)
def test_the_disturbed_expert_reaches_the_closed_form(inline, kind, sigma, execute, dimension, spread):
    """The end point is off by N(0, s²), s = spread · σ · 0.4 / 8, and ε = 0.1 of it is allowed."""
    one = math.erf(0.1 / (spread * sigma * 0.4 * 0.125) / math.sqrt(2))
    want = one**2 if dimension is None else one
    asked = protocol(execute=execute, episodes_per_task=1000)
    rate = disturbed(kind, sigma, asked, inline, dimension=dimension).mean()
    assert rate == pytest.approx(want, abs=4 * np.sqrt(want * (1 - want) / 1000))


def test_the_channel_s_resolution_is_known(inline):
    """White noise that runs open loop: erf(…)² = 0.95 where 0.1 / s = 2.236, so σ* = 0.1 / (2.236 · 4 · 0.05)."""
    asked = protocol(execute=16, episodes_per_task=400)
    sigmas = (0.16, 0.19, 0.22, 0.26, 0.31)
    success = np.stack([disturbed("white", sigma, asked, inline) for sigma in sigmas])
    assert (np.diff(success, axis=0) <= 0).all()  # paired: a larger σ saves no episode of one decision
    found = task_resolution(sigmas, success, disturbed("white", 0.0, asked, inline), np.zeros(400))
    assert found.undisturbed == 1.0
    assert found.low <= 0.1 / (2.236 * 4 * 0.05) <= found.high
    assert found.high / found.low < 1.4


def test_decode_failures_are_counted_per_episode(inline):
    def code(chunks):
        return Emission(chunks, np.abs(chunks).sum((1, 2)) > 1e9)

    table = run_episodes(CodedActor(8, code), protocol(), inline, actor_key="coded")
    assert table["decode_failures"].to_pylist() == table["decisions"].to_pylist() == [2] * 6


def test_replay_reproduces_and_ends_with_its_recording(inline):
    sim = make_sim(CHANNEL)
    asked = protocol(first_initial_state=0)
    recorded = {("reach", k): np.array(expert_actions(sim, "reach", k)) for k in range(6)}
    table = run_episodes(ReplayActor(recorded, 8), asked, inline, actor_key="replay")
    assert table["success"].to_pylist() == [True] * 6
    short = {key: actions[:11] for key, actions in recorded.items()}
    table = run_episodes(ReplayActor(short, 8), asked, inline, actor_key="replay")
    assert table["success"].to_pylist() == [False] * 6
    assert table["length"].to_pylist() == [11] * 6

    def halve(chunks):
        assert chunks.shape[1:] == (8, 2)  # the last one is filled up
        return Emission(chunks / 2, np.ones(len(chunks), bool))

    table = run_episodes(ReplayActor(short, 8, halve), asked, inline, actor_key="replay")
    assert table["decisions"].to_pylist() == [2] * 6
    with pytest.raises(UserError, match="no recorded episode of reach starts from initial state 2000000"):
        run_episodes(ReplayActor(recorded, 8), protocol(), inline, actor_key="replay")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_actions_that_are_not_numbers_name_the_actor(inline, bad):
    actor = CodedActor(8, lambda chunks: Emission(chunks * bad, np.ones(len(chunks), bool)))
    with pytest.raises(UserError, match="policy-7 emitted an action that is not a finite number"):
        run_episodes(actor, protocol(), inline, actor_key="policy-7")


def test_actors_that_do_not_fit_the_protocol_are_refused(inline):
    with pytest.raises(UserError, match="chunks of 4 actions, but the protocol executes 8"):
        run_episodes(ExpertChunkedActor(4), protocol(), inline, actor_key="x")
    with pytest.raises(UserError, match="looks at 2 observation steps, the protocol gives 1"):
        run_episodes(Looking(), protocol(n_obs_steps=1), inline, actor_key="x")
    with pytest.raises(ValueError, match="simulates something else"):
        run_episodes(ExpertActor(), protocol(WORLD), inline, actor_key="x")


def test_metaworld_experts_chunked_and_replayed_agree(world):
    asked = protocol(WORLD, episodes_per_task=3, first_initial_state=0)
    expert = run_episodes(ExpertActor(), asked, world, actor_key="x")
    chunked = run_episodes(ExpertChunkedActor(16), asked, world, actor_key="x")
    assert chunked["success"].to_pylist() == expert["success"].to_pylist() == [True] * 6
    # The expert has no memory and a clone is exact, so even the lengths agree.
    assert chunked["length"].to_pylist() == expert["length"].to_pylist()
    sim = make_sim(WORLD)
    recorded = {(t, k): np.array(expert_actions(sim, t, k)) for t, k, _ in asked.episodes()}
    sim.close()
    replay = run_episodes(ReplayActor(recorded, 16), asked, world, actor_key="x")
    assert replay["success"].to_pylist() == [True] * 6
    assert replay["length"].to_pylist() == [len(actions) for actions in recorded.values()]


def test_metaworld_workers_see_what_one_process_sees(world):
    asked = protocol(WORLD, episodes_per_task=2, step_limit=24)

    @dataclass
    class Reacting:
        """Moves as the pixels say, so that any difference in a frame changes the episode."""

        asks: str = "observation"
        n_obs_steps: int = 2
        horizon: int = 8
        needs_images: bool = True
        seen: dict = field(default_factory=dict)

        def act(self, asked, seeds):
            chunks = []
            for at, seed in enumerate(seeds):
                pixels = asked.images["corner2"][at]
                self.seen[int(seed)] = (pixels.copy(), asked.proprio[at].copy())
                rng = np.random.default_rng(int(pixels.astype(np.int64).sum()))
                chunks.append(rng.uniform(-1, 1, (8, 4)))
            return Emission(np.array(chunks, np.float32), np.ones(len(seeds), bool))

    one, two = Reacting(), Reacting()
    with SimPool(WORLD, 2) as pool:
        table = run_episodes(two, asked, pool, actor_key="x")
    assert table.equals(run_episodes(one, asked, world, actor_key="x"))
    assert one.seen.keys() == two.seen.keys()
    assert len(one.seen) == 12
    assert all(np.array_equal(a, b) for k in one.seen for a, b in zip(one.seen[k], two.seen[k], strict=True))


def test_frames_at_decision_points_are_those_of_rendering_each_step(world):
    """And no frame is rendered anywhere else."""
    asked = protocol(WORLD, episodes_per_task=1, step_limit=40)
    chunk = np.random.default_rng(0).uniform(-1, 1, (16, 4)).astype(np.float32)

    @dataclass
    class Fixed:
        asks: str = "observation"
        n_obs_steps: int = 2
        horizon: int = 16
        needs_images: bool = True
        seen: list = field(default_factory=list)

        def act(self, asked, seeds):
            self.seen.append(asked)
            return Emission(chunk[None], np.ones(1, bool))

    actor = Fixed()
    run_episodes(actor, asked, world, actor_key="x")
    sim = make_sim(WORLD)
    seen = iter(actor.seen)
    for task in WORLD.tasks:
        sim.reset(task, asked.first_initial_state)
        frames = [sim.observe()]
        for step in range(40):
            if step % 8 == 0:
                want = Observation.history([frames[max(0, step - 1)], frames[step]])
                assert arrays_equal(next(seen), want)
            sim.step(chunk[step % 8])
            frames.append(sim.observe())
    sim.close()
    assert next(seen, None) is None


def test_an_actor_that_needs_no_images_gets_none_and_costs_no_renderer(monkeypatch):
    from compression_gap.sims import metaworld

    def fail(*_):
        raise AssertionError("a renderer was made")

    monkeypatch.setattr(metaworld, "make_renderer", fail)

    @dataclass
    class Blind:
        asks: str = "observation"
        n_obs_steps: int = 2
        horizon: int = 8
        needs_images: bool = False

        def act(self, asked, seeds):
            assert asked.images == {}
            assert asked.state.shape == (1, 2, 23)
            return Emission(np.zeros((1, 8, 4), np.float32), np.ones(1, bool))

    with SimPool(WORLD, 0) as pool:
        table = run_episodes(
            Blind(), protocol(WORLD, episodes_per_task=1, step_limit=20), pool, actor_key="blind"
        )
    assert table["length"].to_pylist() == [20, 20]


def test_an_episode_can_be_filmed(tmp_path):
    import av

    spec = SimSpec(sim="metaworld", tasks=("push-v3",))
    film = tmp_path / "film.mp4"
    actor = ExpertChunkedActor(8)
    row = record_episode(actor, protocol(spec), "push-v3", 0, film, actor_key="x", size=96, every=8)
    assert row.success
    with av.open(str(film)) as opened:
        stream = opened.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (96, 96)
        frames = [f.to_ndarray(format="rgb24").astype(int) for f in opened.decode(stream)]
    assert len(frames) == row.length // 8 + 1 + (row.length % 8 > 0)
    sim = make_sim(spec.model_copy(update={"image_size": 96}))
    sim.reset("push-v3", 0)
    assert np.abs(frames[0] - sim.observe().images["corner2"][0, 0]).mean() < 8  # up to compression
    sim.close()
    with SimPool(spec, 0) as pool:  # filming changes nothing
        asked = protocol(spec, episodes_per_task=1, first_initial_state=0)
        table = run_episodes(ExpertChunkedActor(8), asked, pool, actor_key="x")
    assert table["length"].to_pylist() == [row.length]
