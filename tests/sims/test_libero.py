"""LIBERO: official states, complete states, equality with LIBERO's own loop, what an observation holds."""

import gc
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("libero", reason="LIBERO is not installed: pip install 'compression-gap[libero]'")

from compression_gap.errors import UserError
from compression_gap.sims import EVALUATION_STATES, TUNING_STATES, SimPool, SimSpec, make_sim, sim_info
from compression_gap.sims.base import arrays_equal
from compression_gap.sims.episode import Drive, EpisodeRunner, Outcome
from compression_gap.sims.libero import DEFAULT_CAMERAS, SEEDS, Libero
from compression_gap.sims.libero_assets import bddl_file, initial_states
from compression_gap.sims.libero_environment import OPEN_AND_STILL, STATE_NAMES
from compression_gap.sims.libero_protocols import PROTOCOLS

TASK = "libero_object-0"
SPEC = SimSpec(sim="libero", tasks=(TASK, "libero_object-1"), image_size=64, rendering="default")
GRIPPED = np.array([0.1, -0.2, -0.3, 0.05, 0.02, -0.1, 1.0])


@pytest.fixture(scope="module")
def sim():
    made = make_sim(SPEC)
    yield made
    made.close()


def noise(seed, n):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 7)).astype(np.float32)


def steps(sim, actions):
    for action in actions:
        sim.step(action)


def physics(sim):
    """Positions, velocities, warm start and commands."""
    data = sim.environment.data
    return np.concatenate([sim.environment.flat(), data.qacc_warmstart, data.ctrl])


def test_info_is_cheap_and_does_not_import_libero():
    script = (
        "import sys; from compression_gap.sims import SimSpec, sim_info\n"
        f"info = sim_info(SimSpec(sim='libero', tasks=({TASK!r},)))\n"
        "assert not {'libero', 'robosuite', 'mujoco', 'numba', 'torch'} & set(sys.modules)\n"
        "print(info.action_dim, info.proprio_dim, info.state_dim, info.step_limit, info.execute)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["7", "9", str(len(STATE_NAMES)), "280", "16"]


def test_info_names_versions_limits_and_settings():
    info = sim_info(SPEC)
    assert info.cameras == ("agentview", "robot0_eye_in_hand")
    assert {"robosuite", "mujoco"} < set(info.versions)
    assert any("libero" in name for name in info.versions)
    assert info.settings["name"] == "libero-fixed"
    oat = sim_info(SPEC.model_copy(update={"protocol": "oat-as-published"}))
    assert (oat.step_limit, oat.settings["initial_states"]) == (550, "random")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ("libero_object-10",)}, r"unknown LIBERO task 'libero_object-10'"),
        ({"cameras": ("agentvieuw",)}, r"unknown LIBERO camera 'agentvieuw' \(did you mean 'agentview'"),
        ({"protocol": "libero"}, r"unknown LIBERO protocol 'libero'"),
    ],
)
def test_a_wrong_specification_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        make_sim(SPEC.model_copy(update=change))


class Usual:
    """LIBERO's own environment with a hard reset for each episode, rendering at every step."""

    def __init__(self, task, size):
        from libero.libero.envs import OffScreenRenderEnv

        self.env = OffScreenRenderEnv(
            bddl_file_name=str(bddl_file(task)), camera_heights=size, camera_widths=size, ignore_done=True
        )
        self.states = initial_states(task)

    def start(self, k):
        self.env.seed(k)
        self.env.reset()
        self.seen = self.env.set_init_state(self.states[k])
        for _ in range(10):
            self.step(OPEN_AND_STILL)

    def step(self, action):
        self.seen, *_ = self.env.step(np.asarray(action, float))


def test_an_episode_equals_that_of_liberos_own_loop_bit_by_bit(sim):
    """Hard resets and a frame at every step there; a soft reset after another episode, and no frames, here."""
    sim.reset(TASK, EVALUATION_STATES + 7)
    usual = Usual(TASK, SPEC.image_size)
    steps(sim, [GRIPPED] * 5)  # leaves the gripper closed: a soft reset alone would not open it
    sim.reset(TASK, EVALUATION_STATES + 3)
    usual.start(3)
    for t, action in enumerate([*noise(0, 5), GRIPPED, GRIPPED]):
        sim.step(action)
        usual.step(action)
        data = usual.env.env.sim.data
        theirs = np.concatenate([[data.time], data.qpos, data.qvel, data.qacc_warmstart, data.ctrl])
        assert np.array_equal(physics(sim), theirs), t
        mine = sim.observe(images=False)
        proprio = [usual.seen[f"robot0_{n}"] for n in ("eef_pos", "eef_quat", "gripper_qpos")]
        assert np.array_equal(mine.proprio[0, 0], np.concatenate(proprio).astype(np.float32)), t
    theirs = {c: usual.seen[f"{c}_image"][::-1].copy() for c in DEFAULT_CAMERAS}
    usual.env.close()
    del usual, data
    gc.collect()  # robosuite frees its OpenGL objects in whichever context is current: ours is made after that
    sim.environment._close_renderer()
    mine = sim.observe()
    for camera in DEFAULT_CAMERAS:
        assert np.array_equal(mine.images[camera][0, 0], theirs[camera])


def test_an_initial_state_does_not_depend_on_what_ran_before(sim):
    for state in (EVALUATION_STATES + 5, TUNING_STATES + 5, 5):
        sim.reset(TASK, state)
        first, seen = physics(sim), sim.observe(images=False)
        steps(sim, [*noise(1, 8), GRIPPED])
        sim.reset(TASK, EVALUATION_STATES)
        assert not np.array_equal(first, physics(sim))
        sim.reset(TASK, state)
        assert np.array_equal(first, physics(sim))
        assert arrays_equal(seen, sim.observe(images=False))


def test_numbers_from_the_evaluations_range_are_the_official_states(sim):
    official = initial_states(TASK)
    assert official.shape[0] == 50
    drifts = []
    for k in (0, 49):
        sim.reset(TASK, EVALUATION_STATES + k)
        settled = sim.environment.flat()
        drifts.append(np.abs(settled[1:4] - official[k, 1:4]).max())
        assert settled[0] == pytest.approx(official[k, 0] + 0.5)  # ten control steps
    assert max(drifts) < 0.05
    # Other ranges are drawn: their states are none of the official ones.
    sim.reset(TASK, 0)
    objects = slice(10, 10 + 7)  # after time and the robot's nine joints: the first object's pose
    assert np.abs(official[:, objects][:, :2] - sim.environment.flat()[objects][:2]).max(1).min() > 1e-4


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            EVALUATION_STATES + 50,
            r"libero_object-0 has 50 official initial states, and number 50 was asked for",
        ),
        (-1, "from 0 to 4294967295, not -1"),
        (SEEDS, "not 4294967296"),
    ],
)
def test_numbers_without_an_initial_state_are_refused(sim, state, message):
    with pytest.raises(UserError, match=message):
        sim.reset(TASK, state)


def test_a_state_put_back_repeats_bit_by_bit(sim):
    sim.reset(TASK, EVALUATION_STATES + 2)
    steps(sim, [*noise(2, 9), GRIPPED, GRIPPED])
    state, seen = sim.get_state(), sim.observe()
    derived = sim.environment.data.xpos.copy(), sim.environment.data.geom_xpos.copy()
    ahead = [GRIPPED, *noise(3, 11)]
    steps(sim, ahead)
    want, after = physics(sim), sim.observe()
    for before in (0, 9):  # a step after another, and after another episode
        sim.reset(TASK, EVALUATION_STATES + before)
        steps(sim, noise(before, before))
        sim.set_state(state)
        assert arrays_equal(seen, sim.observe())
        now = sim.environment.data
        assert all(np.array_equal(a, b) for a, b in zip(derived, (now.xpos, now.geom_xpos), strict=True))
        steps(sim, ahead)
        assert np.array_equal(want, physics(sim))
        assert arrays_equal(after, sim.observe())


def test_frames_do_not_touch_the_physics_and_are_the_same_however_often_one_looks(sim):
    drive = Drive("observation", 4, 12, n_obs_steps=2, images=True)
    actions = noise(4, 12)
    runner = EpisodeRunner(sim, drive)
    seen, asked = [], runner.start(TASK, EVALUATION_STATES + 1)
    while not isinstance(asked, Outcome):
        seen.append(asked)
        asked = runner.execute(actions[4 * len(seen) - 4 : 4 * len(seen)])
    want = physics(sim)
    sim.reset(TASK, EVALUATION_STATES + 1)
    frames = [sim.observe()]
    for action in actions:
        sim.step(action)
        frames.append(sim.observe())
    assert np.array_equal(want, physics(sim))
    for decision, observation in enumerate(seen):
        for back in range(2):
            at = frames[max(0, 4 * decision - back)]
            for camera in DEFAULT_CAMERAS:
                assert np.array_equal(observation.images[camera][0, -1 - back], at.images[camera][0, 0])


def test_an_observation_holds_the_robot_the_goal_and_the_instruction(sim):
    sim.reset(TASK, EVALUATION_STATES)
    one = sim.observe()
    env = sim.environment
    assert one.text == ("pick up the alphabet soup and place it in the basket",)
    assert one.task.tolist() == [0]
    assert {c: i.shape for c, i in one.images.items()} == dict.fromkeys(DEFAULT_CAMERAS, (1, 1, 64, 64, 3))
    assert all(i.dtype == np.uint8 and i.std() > 20 for i in one.images.values())
    named = dict(zip(STATE_NAMES, one.state[0, 0], strict=True))
    soup = env.model.body("alphabet_soup_1_main").id
    assert np.allclose([named[f"goal0_{a}"] for a in "xyz"], env.data.xpos[soup], atol=1e-4)
    region = env.model.site("basket_1_contain_region").id
    assert np.allclose([named[f"goal1_{a}"] for a in "xyz"], env.data.site_xpos[region], atol=1e-4)
    hand = one.proprio[0, 0, :3]
    gap = [named[f"goal0_from_hand_{a}"] for a in "xyz"]
    assert np.allclose(gap, env.data.xpos[soup] - hand, atol=1e-3)
    assert np.linalg.norm(one.proprio[0, 0, 3:7]) == pytest.approx(1, abs=1e-5)
    assert named["predicate0_holds"] == named["goal2_there"] == 0
    # Objects move and the robot does not: nothing of them may show in proprio.
    sim.reset(TASK, 0)
    first = sim.observe(images=False)
    sim.reset(TASK, 1)
    second = sim.observe(images=False)
    assert np.abs(first.state - second.state).max() > 0.01
    assert np.allclose(first.proprio, second.proprio, atol=1e-6)


def test_the_agent_view_is_upright(sim):
    """The robot stands at the far side: its gripper hangs above the table, in the upper half of the frame."""
    sim.reset(TASK, EVALUATION_STATES)
    before = sim.observe().images["agentview"][0, 0].astype(int)
    steps(sim, [np.array([0, 0, 1.0, 0, 0, 0, -1])] * 8)  # up
    after = sim.observe().images["agentview"][0, 0].astype(int)
    changed = np.argwhere(np.abs(after - before).max(-1) > 60)
    assert changed[:, 0].mean() < 32


def test_success_is_the_goal_of_the_task_at_any_step(sim):
    sim.reset(TASK, EVALUATION_STATES)
    env = sim.environment
    soup, basket = env.model.body("alphabet_soup_1_main"), env.model.site("basket_1_contain_region").id
    joint = env.model.joint(soup.jntadr[0])
    assert not sim.success
    apart = sim.get_state()
    start = joint.qposadr[0]
    env.data.qpos[start : start + 3] = env.data.site_xpos[basket] + [0, 0, 0.03]
    steps(sim, [OPEN_AND_STILL] * 12)
    assert sim.success
    assert dict(zip(STATE_NAMES, sim.observe(images=False).state[0, 0], strict=True))["predicate0_holds"] == 1
    solved = sim.get_state()
    sim.set_state(apart)
    assert not sim.success
    sim.set_state(solved)
    env.data.qpos[start : start + 3] += [0, 0, 0.4]
    sim.step(np.asarray(OPEN_AND_STILL))
    assert sim.success  # it was solved once


def test_the_published_oat_loop_shows_the_scene_before_it_settles(sim, monkeypatch):
    sim.reset(TASK, 3)
    settled = sim.observe(images=False)
    oat = PROTOCOLS["oat-as-published"]
    monkeypatch.setattr(sim, "protocol", oat)
    monkeypatch.setattr(sim.environment, "protocol", oat)
    sim.reset(TASK, 3)
    first = sim.observe(images=False)
    assert sim.environment.data.time == pytest.approx(0.5)  # the scene has settled all the same
    height = STATE_NAMES.index("goal0_z")
    assert abs(first.state[0, 0, height] - settled.state[0, 0, height]) > 0.005  # the soup is not at rest
    state = sim.get_state()
    sim.step(np.asarray(OPEN_AND_STILL))
    second = sim.observe(images=False)
    assert abs(second.state[0, 0, height] - settled.state[0, 0, height]) < 1e-3
    sim.set_state(state)
    assert arrays_equal(first, sim.observe(images=False))
    # Every number is a random reset there.
    sim.reset(TASK, EVALUATION_STATES + 50)
    assert sim.environment.data.time == pytest.approx(0.5)


def test_fast_rendering_leaves_out_multisampling_alone(sim, monkeypatch):
    sim.reset(TASK, EVALUATION_STATES)
    env = sim.environment
    default = sim.observe().images["agentview"].astype(int)
    samples = env.model.vis.quality.offsamples
    env._close_renderer()
    monkeypatch.setattr(env, "spec", SPEC.model_copy(update={"rendering": "fast"}))
    fast = sim.observe().images["agentview"].astype(int)
    env._close_renderer()
    env.model.vis.quality.offsamples = samples
    monkeypatch.undo()
    assert 0 < np.abs(default - fast).mean() < 8  # the edges differ
    assert np.array_equal(default, sim.observe().images["agentview"].astype(int))


def test_actions_are_clipped(sim):
    sim.reset(TASK, EVALUATION_STATES)
    steps(sim, [np.full(7, 25.0)] * 3)
    far = physics(sim)
    sim.reset(TASK, EVALUATION_STATES)
    steps(sim, [np.ones(7)] * 3)
    assert np.array_equal(far, physics(sim))


def test_a_state_of_another_task_or_before_an_episode_is_refused(sim):
    sim.reset(TASK, 0)
    state = sim.get_state()
    fresh = Libero(SPEC)
    with pytest.raises(RuntimeError, match="reset"):
        fresh.observe()
    with pytest.raises(ValueError, match="was put into an episode of"):
        fresh.set_state(state)
    with pytest.raises(UserError, match="unknown task of this simulator 'libero_10-0'"):
        sim.reset("libero_10-0", 0)


def test_missing_opengl_says_what_to_install(sim, monkeypatch):
    import mujoco

    from compression_gap.sims.opengl import INSTALL_GL

    def broken(*_):
        raise mujoco.FatalError("gladLoadGL error")

    sim.reset(TASK, EVALUATION_STATES)
    sim.environment._close_renderer()
    monkeypatch.setattr(mujoco, "MjrContext", broken)
    sim.observe(images=False)
    with pytest.raises(UserError, match="gladLoadGL error") as caught:
        sim.observe()
    assert INSTALL_GL in str(caught.value)


def test_a_pool_runs_episodes_of_it(sim, monkeypatch):
    from compression_gap.sims import pool as module

    monkeypatch.setattr(module, "make_sim", lambda spec: sim)
    monkeypatch.setattr(Libero, "close", lambda self: None)
    done, shapes = [], []

    def decide(jobs, asked):
        shapes.extend(o.images["agentview"].shape for o in asked)
        return [np.zeros((4, 7), np.float32)] * len(asked)

    with SimPool(SPEC, 0) as pool:
        drive = Drive("observation", 4, 8, n_obs_steps=2, images=True)
        pool.run([(TASK, EVALUATION_STATES)], drive, decide, lambda job, outcome: done.append(outcome))
    assert done == [Outcome(False, 8, 2)]
    assert shapes == [(1, 2, 64, 64, 3)] * 2
