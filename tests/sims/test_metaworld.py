"""Meta-World: determinism, complete states, what each part of an observation holds, rendering."""

import os

import numpy as np
import pytest

from compression_gap.errors import UserError
from compression_gap.sims import SimSpec, make_sim
from compression_gap.sims import opengl as module
from compression_gap.sims.base import arrays_equal
from compression_gap.sims.metaworld import INSTALL_GL, SUITES, TASKS, MetaWorld, canonical_task

SEVERAL = ("push-v3", "peg-insert-side-v3", "basketball-v3", "sweep-into-v3")  # the last two keep live views


@pytest.fixture(scope="module")
def sim():
    made = MetaWorld(SimSpec(sim="metaworld", tasks=TASKS))
    yield made
    made.close()


def physics(sim):
    """The complete state as one list of arrays."""
    state = sim.get_state().environment
    return [state[0], *state[1].values(), state[3]]


def equal(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def steps(sim, actions):
    for action in actions:
        sim.step(action)


def noise(seed, n):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 4)).astype(np.float32)


def solve(sim, task, state, limit=250):
    sim.reset(task, state)
    expert = sim.expert()
    n = 0
    while not sim.success and n < limit:
        sim.step(expert.act(sim))
        n += 1
    return n


def test_the_tasks_are_those_of_the_package(sim):
    sim.reset("push-v3", 0)  # imports the package with the right backend
    from metaworld.env_dict import ENV_CLS_MAP

    assert set(TASKS) == set(ENV_CLS_MAP)
    assert len(TASKS) == 50
    assert canonical_task("push") == canonical_task("push-v3") == "push-v3"
    assert set(SUITES["8"]) <= set(TASKS)


@pytest.mark.parametrize("task", SEVERAL)
def test_an_initial_state_does_not_depend_on_what_ran_before(sim, task):
    sim.reset(task, 5)
    first, seen = physics(sim), sim.observe(images=False)
    steps(sim, noise(0, 30))
    sim.reset(task, 6)
    other = physics(sim)
    steps(sim, noise(1, 20))
    sim.reset(task, 5)
    assert equal(first, physics(sim))
    assert arrays_equal(seen, sim.observe(images=False))
    assert not equal(first, other)
    fresh = MetaWorld(sim.spec)
    fresh.reset(task, 5)
    assert equal(first, physics(fresh))
    fresh.close()


@pytest.mark.parametrize("task", SEVERAL)
def test_a_state_put_back_repeats_bit_by_bit_here_and_elsewhere(sim, task):
    sim.reset(task, 3)
    expert = sim.expert()
    for _ in range(25):
        sim.step(expert.act(sim))
    state = sim.get_state()
    actions = []
    for _ in range(12):
        actions.append(expert.act(sim))
        sim.step(actions[-1])
    want, seen = physics(sim), sim.observe(images=False)
    other = MetaWorld(sim.spec)
    other.reset(task, 77)
    for clone in (sim, other):
        clone.set_state(state)
        steps(clone, actions)
        assert equal(want, physics(clone))
        assert arrays_equal(seen, clone.observe(images=False))
    other.close()


def test_the_state_holds_the_success_latch_and_the_experts_view(sim):
    n = solve(sim, "button-press-topdown-v3", 0)
    assert n < 250
    solved = sim.get_state()
    sim.reset("button-press-topdown-v3", 0)
    assert not sim.success
    early = sim.get_state()
    sim.set_state(solved)
    assert sim.success
    steps(sim, noise(0, 5))  # moving away does not unsolve it
    assert sim.success
    sim.set_state(early)
    assert not sim.success
    assert np.array_equal(sim.last_observation(), early.environment[3])
    sim.reset("push-v3", 0)
    with pytest.raises(ValueError, match="a state of button-press"):
        sim.set_state(early)


@pytest.mark.parametrize("task", SUITES["8"])
def test_the_expert_solves_most_of_the_eight_tasks(sim, task):
    assert sum(solve(sim, task, state) < 250 for state in range(4)) >= 3


def test_proprio_is_the_robots_own_and_state_has_object_and_goal(sim):
    sim.reset("push-v3", 0)
    one, full = sim.observe(images=False), sim.last_observation().copy()
    sim.reset("push-v3", 1)
    two = sim.observe(images=False)
    # The two initial states differ by object and goal only: nothing of that may show in proprio.
    assert np.array_equal(one.proprio, two.proprio)
    assert np.abs(one.state[0, 0, :3] - two.state[0, 0, :3]).max() > 1e-3
    assert np.abs(one.state[0, 0, 14:17] - two.state[0, 0, 14:17]).max() > 1e-3
    assert np.array_equal(one.proprio[0, 0], full[:4].astype(np.float32))
    derived = np.r_[full[4:7] - full[:3], full[36:] - full[4:7]]
    assert np.array_equal(one.state[0, 0], np.r_[full[4:18], full[36:], derived].astype(np.float32))
    assert np.abs(full[36:]).min() > 0  # the goal is not hidden
    assert one.task.tolist() == [TASKS.index("push-v3")]
    assert one.images == {}


def test_the_first_observation_is_not_stale(sim):
    for task in ("button-press-topdown-v3", "door-open-v3", "basketball-v3"):
        sim.reset(task, 4)
        before = sim.observe(images=False)
        sim.set_state(sim.get_state())  # recomputes everything that is derived
        assert np.allclose(before.state, sim.observe(images=False).state, atol=1e-7)


def test_actions_are_clipped_and_no_limit_of_the_environments_own_applies(sim):
    sim.reset("push-v3", 0)
    steps(sim, [np.full(4, 25.0)])
    far = physics(sim)
    sim.reset("push-v3", 0)
    steps(sim, [np.ones(4)])
    assert equal(far, physics(sim))
    steps(sim, np.zeros((520, 4)))  # Meta-World itself would raise after 500


def test_frames_repeat_and_follow_the_world(sim):
    sim.reset("push-v3", 0)
    first = sim.observe()
    assert first.images["corner2"].shape == (1, 1, 84, 84, 3)
    assert first.images["corner2"].std() > 20
    steps(sim, noise(0, 10))
    moved = sim.observe()
    sim.reset("push-v3", 0)
    assert arrays_equal(first, sim.observe())
    assert (first.images["corner2"] != moved.images["corner2"]).mean() > 0.01
    sim.reset("push-v3", 1)  # another place for object and goal, the same robot
    assert (first.images["corner2"] != sim.observe().images["corner2"]).any()


def test_rendering_does_not_touch_the_physics(sim):
    sim.reset("hammer-v3", 2)
    steps(sim, noise(0, 10))
    want = physics(sim)
    sim.reset("hammer-v3", 2)
    for action in noise(0, 10):
        sim.observe()
        sim.step(action)
    assert equal(want, physics(sim))


def test_cameras_and_default_quality():
    spec = SimSpec(sim="metaworld", tasks=("push-v3",), cameras=("gripperPOV", "corner2"), image_size=64)
    fast, default = make_sim(spec), make_sim(spec.model_copy(update={"rendering": "default"}))
    frames = []
    for sim in (fast, default):
        sim.reset("push-v3", 0)
        frames.append(sim.observe().images)
        sim.close()
    assert list(frames[0]) == ["gripperPOV", "corner2"]
    for camera in frames[0]:
        difference = np.abs(frames[0][camera].astype(int) - frames[1][camera].astype(int))
        assert 0 < difference.mean() < 40  # the same scene, other shadows and edges
    assert not np.array_equal(frames[0]["gripperPOV"], frames[0]["corner2"])


def test_few_environments_are_kept_and_physics_makes_no_renderer():
    sim = MetaWorld(SimSpec(sim="metaworld", tasks=TASKS))
    for task in TASKS[:5]:
        sim.reset(task, 0)
        sim.observe(images=False)
    assert list(sim._kept) == list(TASKS[1:5])
    assert all(env.renderer is None for env in sim._kept.values())
    sim.close()


def test_closing_a_renderer_leaves_the_others_alone():
    one, two = (make_sim(SimSpec(sim="metaworld", tasks=("push-v3",))) for _ in range(2))
    for sim in (one, two):
        sim.reset("push-v3", 0)
    first = one.observe(), two.observe()
    assert arrays_equal(*first)
    one.close()  # while the other's context is current
    assert arrays_equal(first[1], two.observe())
    two.close()


def test_render_check_names_the_renderer():
    assert len(module.render_check().split(", ")) >= 3


def test_a_mujoco_imported_for_a_display_is_told_so(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    sim = MetaWorld(SimSpec(sim="metaworld", tasks=("reach-v3",)))
    sim.reset("reach-v3", 0)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(UserError, match="set MUJOCO_GL=egl"):
        sim.observe()
    sim.close()


def test_missing_opengl_says_what_to_install(monkeypatch):
    import mujoco

    def broken(*_):
        raise mujoco.FatalError("gladLoadGL error")

    monkeypatch.setattr(mujoco, "MjrContext", broken)
    sim = MetaWorld(SimSpec(sim="metaworld", tasks=("reach-v3",)))
    sim.reset("reach-v3", 0)
    sim.observe(images=False)
    for render in (sim.observe, module.render_check):
        with pytest.raises(UserError) as caught:
            render()
        assert INSTALL_GL in str(caught.value)
        assert "gladLoadGL error" in str(caught.value)
        assert "\n" not in str(caught.value)
    sim.close()


def test_the_backend_needs_no_display(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    assert module.choose_backend()
    assert os.environ["MUJOCO_GL"] in ("egl", "disabled")
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(module, "_has_egl", lambda: False)
    module.choose_backend()
    assert os.environ["MUJOCO_GL"] == "disabled"  # physics works all the same
    monkeypatch.setenv("MUJOCO_GL", "egl")
    assert not module.choose_backend()
