"""LIBERO's scripted experts: they solve, repeat, continue from a clone, and pick up what was lost."""

import numpy as np
import pytest

from compression_gap.errors import UserError
from compression_gap.sims.libero_expert import EXPERT_TASKS, expert_for
from compression_gap.sims.libero_skills import DOWN, rotation_z, wrap
from compression_gap.sims.libero_tasks import SUITES, TASKS


def test_the_offer_covers_the_suites():
    assert set(SUITES["libero_object"]) <= set(EXPERT_TASKS) <= set(TASKS)
    assert sum(task.startswith("libero_spatial-") for task in EXPERT_TASKS) >= 6
    assert sum(task.startswith("libero_10-") for task in EXPERT_TASKS) >= 4
    assert EXPERT_TASKS["libero_object-1"] == "pick up the cream cheese and place it in the basket"


def test_a_task_without_an_expert_is_refused_with_those_that_have_one():
    with pytest.raises(UserError, match=r"libero_10-2.*official demonstrations.*libero_object-9"):
        expert_for("libero_10-2")


def test_angles_of_a_gripper_that_looks_the_same_after_half_a_turn():
    assert np.allclose(wrap(np.array([0.0, 3.0, -3.0])), [0.0, 3.0 - np.pi, np.pi - 3.0])
    assert wrap(3.5, 2 * np.pi) == pytest.approx(3.5 - 2 * np.pi)
    quarter = rotation_z(np.pi / 2)
    assert np.allclose(quarter @ [1, 0, 0], [0, 1, 0])
    assert np.allclose((quarter @ DOWN)[:, 0], [-1, 0, 0])  # the fingers' axis, from y to −x
    assert np.allclose((quarter @ DOWN)[:, 2], [0, 0, -1])  # still down


libero = pytest.importorskip(
    "libero", reason="LIBERO is not installed: pip install 'compression-gap[libero]'"
)

from compression_gap.sims import TUNING_STATES, SimSpec, make_sim  # noqa: E402
from compression_gap.sims.episode import expert_chunk  # noqa: E402
from compression_gap.sims.libero_expert import scene_of  # noqa: E402

TASK, FLAT = "libero_object-0", "libero_object-1"


@pytest.fixture(scope="module")
def sim():
    made = make_sim(SimSpec(sim="libero", tasks=(TASK,)))
    yield made
    made.close()


def run(sim, expert, steps=280):
    """The expert's actions until success or for so many steps."""
    actions = []
    while not sim.success and len(actions) < steps:
        actions.append(expert.act(sim))
        sim.step(actions[-1])
    return np.array(actions)


def position(sim, name):
    scene = scene_of(sim.environment)
    scene.update()
    return scene.position(name)


@pytest.fixture(scope="module")
def demonstration(sim):
    """Actions of one episode that succeeded."""
    sim.reset(TASK, TUNING_STATES)
    actions = run(sim, sim.expert())
    assert sim.success
    return actions


def test_the_expert_solves_and_its_stored_actions_repeat_it(sim, demonstration):
    assert demonstration.dtype == np.float32
    assert np.abs(demonstration).max() <= 1
    assert set(np.unique(demonstration[:, 6])) == {-1.0, 1.0}
    end = sim.environment.flat()
    sim.reset(TASK, TUNING_STATES)
    for action in demonstration:
        assert not sim.success
        sim.step(action)
    assert sim.success
    assert np.array_equal(end, sim.environment.flat())


def test_a_chunk_rolled_from_a_clone_is_what_the_expert_does(sim, demonstration):
    """expert-chunked, 16 of 32 executed: at every decision a new expert, which remembers nothing."""
    sim.reset(TASK, TUNING_STATES)
    done = 0
    while not sim.success:
        before = sim.environment.flat()
        chunk = expert_chunk(sim, 32)
        assert np.array_equal(before, sim.environment.flat())
        left = demonstration[done : done + 32]
        assert np.array_equal(chunk[: len(left)], left)
        for action in left[:16]:
            sim.step(action)
        done += 16
    assert done >= len(demonstration)


def test_a_lost_object_is_picked_up_again(sim, demonstration):
    sim.reset(TASK, TUNING_STATES)
    start = position(sim, "alphabet_soup_1")
    for action in demonstration[:65]:
        sim.step(action)
    carried = position(sim, "alphabet_soup_1")
    assert carried[2] > start[2] + 0.05
    assert scene_of(sim.environment).held("alphabet_soup_1")
    for _ in range(12):
        sim.step(np.array([0, 0, 0, 0, 0, 0, -1.0]))
    assert position(sim, "alphabet_soup_1")[2] < carried[2] - 0.05
    assert not scene_of(sim.environment).held("alphabet_soup_1")
    run(sim, sim.expert())
    assert sim.success


def test_the_scene_is_measured_from_the_collision_boxes(sim):
    sim.reset(TASK, TUNING_STATES)
    scene = scene_of(sim.environment)
    scene.update()
    assert scene.command == 1.0
    assert scene.opening == pytest.approx(0.0775, abs=2e-3)
    bottle = scene.points("salad_dressing_1")
    assert np.ptp(bottle[:, 2]) == pytest.approx(0.146, abs=2e-3)
    # The floor is no obstacle; a bottle is, as high as it is; and it is none to itself.
    everything, rest = scene.others(), scene.others("salad_dressing_1")
    to = scene.position("salad_dressing_1")
    assert scene.clear_height(to, everything, 0.01) == pytest.approx(bottle[:, 2].max())
    assert scene.support(to, 0.01, everything, np.inf) == pytest.approx(bottle[:, 2].max())
    assert scene.support(to, 0.01, rest, np.inf) == -np.inf


def test_a_flat_box_is_taken_across_its_narrow_side_and_around_its_neighbours(sim):
    sim.reset(TASK, TUNING_STATES)
    scene = scene_of(sim.environment)
    scene.update()
    points = scene.points("cream_cheese_1")  # 81 × 43 × 18 mm, the long side along x
    grasp = scene.grasp("cream_cheese_1", np.zeros(3), "basket_1")
    middle = (points.max(0) + points.min(0)) / 2
    assert np.allclose(grasp.position[:2], middle[:2], atol=2e-3)
    assert points[:, 2].min() + 0.004 < grasp.position[2] < points[:, 2].max()
    assert abs(wrap(grasp.yaw)) < 0.1  # at yaw 0 the fingers open along y
    free = scene._hits(middle[None, :2], np.zeros(1), grasp.position[2], "cream_cheese_1")
    beside = scene.position("milk_1")[None, :2] - [[0, 0.048]]
    assert free[0] == 0
    assert scene._hits(beside, np.zeros(1), grasp.position[2], "cream_cheese_1")[0] > 0


def test_two_things_for_one_basket_are_put_side_by_side():
    made = make_sim(SimSpec(sim="libero", tasks=("libero_10-1",)))
    try:
        made.reset("libero_10-1", TUNING_STATES)
        run(made, made.expert(), 520)
        assert made.success
        first, second = position(made, "cream_cheese_1"), position(made, "butter_1")
        assert np.hypot(*(first - second)[:2]) > 0.03
    finally:
        made.close()
