"""The channel: known answers, and its closed form by Monte Carlo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression_gap.errors import UserError
from compression_gap.sims import EVALUATION_STATES, SimSpec, make_sim
from compression_gap.sims.base import arrays_equal
from compression_gap.sims.channel import EPSILON, STEP, STEPS, min_jerk, optimal_success, quantise

SPEC = SimSpec(sim="channel", tasks=("reach",), image_size=32)


def run(sim, expert, steps=STEPS):
    path = []
    for _ in range(steps):
        sim.step(expert.act(sim))
        path.append(sim.position.copy())
    return np.array(path)


def test_min_jerk_profile_has_its_known_values():
    assert min_jerk(0.0) == 0
    assert min_jerk(0.5) == pytest.approx(0.5, abs=1e-15)
    assert min_jerk(1.0) == pytest.approx(1.0, abs=1e-15)
    tau = np.linspace(0, 1, 10_001)
    assert np.gradient(min_jerk(tau), tau).max() == pytest.approx(1.875, abs=1e-6)


def test_a_path_to_the_corner_is_never_clipped():
    steps = np.diff(min_jerk(np.arange(STEPS + 1) / STEPS))
    assert 0.9 < steps.max() / STEP < 1.0


def test_the_expert_follows_the_min_jerk_path_and_succeeds_at_step_16_only():
    sim = make_sim(SPEC)
    for state in range(20):
        sim.reset("reach", state)
        path = run(sim, sim.expert(), STEPS - 1)
        assert not sim.success
        path = np.vstack([path, run(sim, sim.expert(), 1)])
        want = min_jerk(np.arange(1, STEPS + 1) / STEPS)[:, None] * sim.goal
        assert np.abs(path - want).max() < 1e-6
        assert sim.success


@given(state=st.integers(0, 10_000), at=st.integers(0, 8), shift=st.floats(-0.1, 0.1))
def test_a_disturbed_expert_still_reaches_the_goal(state, at, shift):
    sim = make_sim(SPEC)
    sim.reset("reach", state)
    run(sim, sim.expert(), at)
    sim.position = sim.position + shift
    run(sim, sim.expert(), STEPS - at)
    assert sim.success


@pytest.mark.parametrize("bits", [0, 1, 2, 3, 4])
def test_success_of_the_quantised_policy_agrees_with_the_closed_form(bits):
    goals = np.random.default_rng(bits).uniform(-1, 1, (200_000, 2))
    hit = (np.abs(quantise(goals, bits) - goals) <= EPSILON).all(axis=1).mean()
    assert hit == pytest.approx(optimal_success(bits), abs=4 * 0.5 / np.sqrt(200_000))


def test_known_values_of_the_closed_form():
    assert optimal_success(3) == pytest.approx(0.64)
    assert optimal_success(2, dimensions=1) == pytest.approx(0.4)
    assert optimal_success(4) == 1.0


def test_rolling_a_quantised_expert_in_the_simulator_agrees_too():
    sim = make_sim(SPEC)
    hits = 0
    for state in range(1500):
        sim.reset("reach", EVALUATION_STATES + state)
        goal = sim.goal
        sim.goal = quantise(goal, 3)
        expert = sim.expert()
        actions = []
        here = sim.get_state()
        for _ in range(STEPS):
            actions.append(expert.act(sim))
            sim.step(actions[-1])
        sim.set_state(here)
        sim.goal = goal
        for action in actions:
            sim.step(action)
        hits += sim.success
    assert hits / 1500 == pytest.approx(0.64, abs=4 * 0.48 / np.sqrt(1500))


@given(b=st.integers(0, 6), goal=st.floats(-1, 1))
def test_quantisers_are_nested_and_their_error_is_half_a_cell(b, goal):
    fine = quantise(np.array(goal), b + 1)
    assert quantise(fine, b) == quantise(np.array(goal), b)
    assert abs(fine - goal) <= 2.0 ** -(b + 1) + 1e-12


def test_the_image_shows_the_goal_where_it_is_and_nothing_else():
    sim = make_sim(SPEC)
    for state in range(10):
        sim.reset("reach", state)
        before = sim.observe().images["channel"][0, 0]
        weight = before[:, :, 0].astype(float)
        centres = ((np.arange(32) + 0.5) / 16 - 1) * 1.25
        found = [(weight.sum(0) * centres).sum(), -(weight.sum(1) * centres).sum()] / weight.sum()
        assert np.abs(found - sim.goal).max() < 0.06  # blobs at the rim are cut a little
        run(sim, sim.expert(), 5)
        assert np.array_equal(before, sim.observe().images["channel"][0, 0])


def test_proprio_holds_no_goal_and_state_is_the_goal():
    sim = make_sim(SPEC)
    sim.reset("reach", 1)
    one = sim.observe()
    sim.reset("reach", 2)
    two = sim.observe()
    assert np.array_equal(one.proprio, two.proprio)
    assert not np.array_equal(one.state, two.state)
    assert np.array_equal(two.state[0, 0], sim.goal.astype(np.float32))
    run(sim, sim.expert(), 4)
    assert sim.observe().proprio[0, 0, 2] == 0.25


def test_states_are_complete_across_simulators():
    one, two = make_sim(SPEC), make_sim(SPEC)
    one.reset("reach", 3)
    run(one, one.expert(), 7)
    two.reset("reach", 99)
    two.observe()
    two.set_state(one.get_state())
    assert arrays_equal(one.observe(), two.observe())
    assert np.array_equal(run(one, one.expert(), 9), run(two, two.expert(), 9))
    assert one.success
    assert two.success


def test_goals_are_uniform_and_differ_between_the_ranges_of_initial_states():
    sim = make_sim(SPEC)
    goals = []
    for first in (0, EVALUATION_STATES):
        for state in range(2000):
            sim.reset("reach", first + state)
            goals.append(sim.goal)
    goals = np.array(goals)
    assert len(np.unique(goals, axis=0)) == 4000
    assert np.abs(goals.mean(0)).max() < 0.04
    assert np.abs(goals.var(0) - 1 / 3).max() < 0.02


def test_unknown_task():
    with pytest.raises(UserError, match=r"unknown channel task 'fetch'.*known: reach"):
        make_sim(SimSpec(sim="channel", tasks=("fetch",)))
