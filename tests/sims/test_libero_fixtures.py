"""LIBERO's tasks with cabinets and stoves: what a task moves in the model is part of the state, too."""

import numpy as np
import pytest

pytest.importorskip("libero", reason="LIBERO is not installed: pip install 'compression-gap[libero]'")

from compression_gap.demos.libero_hdf5 import fixture_places
from compression_gap.sims import EVALUATION_STATES, SimSpec, make_sim
from compression_gap.sims.base import arrays_equal
from compression_gap.sims.libero_assets import bddl_file
from compression_gap.sims.libero_environment import OPEN_AND_STILL, STATE_NAMES

STOVE, DRAWER = "libero_goal-7", "libero_spatial-4"
STILL = np.asarray(OPEN_AND_STILL)


@pytest.fixture(scope="module")
def sim():
    made = make_sim(SimSpec(sim="libero", tasks=(STOVE, DRAWER), image_size=48, rendering="default"))
    yield made
    made.close()


def values(sim):
    return dict(zip(STATE_NAMES, sim.observe(images=False).state[0, 0], strict=True))


def turn(sim, angle):
    """Turn the stove's knob by hand."""
    joint = sim.environment.model.joint(sim.environment.env.get_object("flat_stove_1").joints[0])
    sim.environment.data.qpos[joint.qposadr[0]] = angle
    sim.environment.data.qvel[joint.dofadr[0]] = 0
    sim.step(STILL)


def test_the_stove_lights_up_is_put_out_by_a_reset_and_by_a_state_put_back(sim):
    sim.reset(STOVE, EVALUATION_STATES)
    cold, first = sim.get_state(), sim.observe()
    assert values(sim)["predicate0_holds"] == 0
    turn(sim, 1.5)
    assert sim.success
    sim.step(STILL)
    hot = sim.observe()
    assert values(sim)["goal0_joint"] > 0.5
    burning = sim.get_state()
    assert (sim.environment.model.site_rgba[:, 3] != cold.environment[3]["site_rgba"][:, 3]).any()
    sim.set_state(cold)
    assert not sim.success
    assert arrays_equal(first, sim.observe())
    sim.set_state(burning)
    assert sim.success
    assert arrays_equal(hot, sim.observe())
    sim.reset(STOVE, EVALUATION_STATES)
    assert arrays_equal(first, sim.observe())


def test_fixtures_stand_where_the_number_of_the_initial_state_puts_them(sim):
    places = {}
    for state in (EVALUATION_STATES, EVALUATION_STATES + 1, 4, EVALUATION_STATES):
        sim.reset(STOVE, state)
        now = sim.environment.model.body_pos.copy()
        assert np.array_equal(places.setdefault(state, now), now)
        sim.step(STILL)
    assert not np.array_equal(places[EVALUATION_STATES], places[EVALUATION_STATES + 1])
    assert not np.array_equal(places[EVALUATION_STATES], places[4])


def test_a_recording_starts_with_its_fixtures_where_they_stood(sim):
    sim.reset(STOVE, 11)
    env = sim.environment
    state, model = env.flat(), env.env.sim.model.get_xml()  # what an official file keeps of an episode
    places = fixture_places(model, env.fixtures())
    assert set(places) == set(env.fixtures())
    stood, seen = env.model.body_pos.copy(), sim.observe()
    sim.reset(STOVE, 12)
    assert not np.array_equal(stood, env.model.body_pos)
    sim.reset_to(STOVE, state, places)
    assert np.allclose(stood, env.model.body_pos, atol=1e-6)  # the XML holds seven digits
    again = sim.observe()
    assert np.abs(again.state - seen.state).max() < 2e-3  # what was seen is 4 ms older than the state
    for camera, frame in seen.images.items():
        assert np.abs(frame.astype(int) - again.images[camera]).mean() < 2


def test_another_tasks_environment_replaces_the_first_and_repeats_bit_by_bit(sim):
    sim.reset(STOVE, 2)
    first, old = sim.observe(images=False), sim.environment
    sim.reset(DRAWER, 2)
    assert sim.environment is not old
    assert old.env.sim is None  # freed: one task's models and textures take a gigabyte
    drawer = sim.observe(images=False)
    assert drawer.text == (
        "pick up the black bowl in the top drawer of the wooden cabinet and place it on the plate",
    )
    # LIBERO's hard resets draw a drawer's opening once more at every reset; soft ones, once.
    assert len(sim.environment.env.object_property_initializers) == 1
    sim.step(STILL)
    sim.reset(DRAWER, 2)
    assert arrays_equal(drawer, sim.observe(images=False))
    sim.reset(STOVE, 2)
    assert arrays_equal(first, sim.observe(images=False))


def test_a_random_reset_equals_liberos_own_hard_reset():
    """A bowl on a stove is placed by where the stove is, which must stand at its origin when LIBERO draws."""
    from libero.libero.envs.env_wrapper import ControlEnv

    task = "libero_spatial-7"
    off = dict.fromkeys(("has_renderer", "has_offscreen_renderer", "use_camera_obs"), False)
    usual = ControlEnv(str(bddl_file(task)), ignore_done=True, **off)
    usual.seed(5)
    usual.reset()
    for _ in range(10):
        usual.step(OPEN_AND_STILL)
    made = make_sim(SimSpec(sim="libero", tasks=(task,)))
    for number in (4, 5):
        made.reset(task, number)
    model, data = made.environment.model, made.environment.data
    assert np.array_equal(data.qpos, usual.env.sim.data.qpos)
    assert np.array_equal(model.body_pos, usual.env.sim.model.body_pos)
    assert data.body("akita_black_bowl_1_main").xpos[2] > 0.92  # on the stove, not on the table or the floor
    usual.close()
    made.close()


def test_the_expert_takes_a_bowl_out_of_a_drawer_by_its_rim(sim):
    sim.reset(DRAWER, 5)
    expert = sim.expert()
    for _ in range(220):
        sim.step(expert.act(sim))
        if sim.success:
            break
    assert sim.success
