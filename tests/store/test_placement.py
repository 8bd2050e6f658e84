"""Which node builds what, without any cluster; and a thousand workers that exist in a simulation alone."""

import heapq
import random

import pytest

from compression_gap.store.artifact import Needs
from compression_gap.store.outcome import Outcome
from compression_gap.store.placement import Placement
from compression_gap.store.schedule import Schedule
from compression_gap.store.store import Store
from plain_steps import Piece, Quiet

GB = 2**30


@pytest.fixture
def placement(tmp_path):
    def make(*steps, nodes, local=False):
        schedule = Schedule(steps, Store(tmp_path), Quiet(), Outcome(), {s.key for s in steps})
        made = Placement(schedule, local=local)
        for name, (cpus, gpus) in nodes.items():
            made.add(name, Needs(cpus, gpus, 64 * GB))
        return made

    return make


def placed(made):
    return [(step.number, node.name) for step, node, _ in made.place()]


def test_small_trainings_share_a_gpu_and_simulators_stay_on_nodes_without(placement):
    trainings = [Piece(number=i, gpus=0.5) for i in range(3)]
    simulators = [Piece(number=10 + i) for i in range(3)]
    made = placement(*trainings, *simulators, nodes={"gpu": (8, 1), "cpu": (2, 0)})
    assert placed(made) == [(0, "gpu"), (1, "gpu"), (10, "cpu"), (11, "cpu")]
    made.went(simulators[0], ("done", True))
    assert placed(made) == [(12, "cpu")]
    made.went(trainings[0], ("done", True))
    assert placed(made) == [(2, "gpu")]


def test_where_every_node_has_gpus_simulators_run_there_and_where_none_has_trainings_run_on_cores(placement):
    made = placement(Piece(number=0), Piece(number=1, gpus=1.0), nodes={"gpu": (2, 1)})
    assert placed(made) == [(0, "gpu"), (1, "gpu")]
    made = placement(Piece(number=0, gpus=1.0), Piece(number=1, gpus=0.5), nodes={"cpu": (2, 0)})
    assert placed(made) == [(0, "cpu"), (1, "cpu")]


def test_a_gpu_that_comes_takes_the_trainings(placement):
    made = placement(Piece(number=0, gpus=1.0), Piece(number=1, gpus=1.0), nodes={"cpu": (1, 0)})
    assert placed(made) == [(0, "cpu")]
    made.add("gpu", Needs(4, 1, 64 * GB))
    assert placed(made) == [(1, "gpu")]


def test_memory_bounds_what_a_node_takes_and_what_is_too_large_has_a_node_for_itself(placement):
    made = placement(Piece(number=0), Piece(number=1), Piece(number=2, cpus=9), nodes={})
    made.add("small", Needs(4, 0, 3 * GB))  # each takes 2 GiB
    assert placed(made) == [(0, "small")]
    made.add("other", Needs(4, 0, 64 * GB))
    assert placed(made) == [(1, "other")]
    made.went(made.schedule.steps[0], ("done", True))
    assert placed(made) == [(2, "small")]


def test_a_node_first_takes_what_needs_artefacts_that_were_built_on_it(placement):
    a, b = Piece(number=0), Piece(number=1)
    of_b, of_a = Piece(number=2, of=(b,)), Piece(number=3, of=(a,))
    steps = (a, b, of_b, of_a)
    made = placement(*steps, nodes={"x": (1, 0), "y": (1, 0)}, local=True)
    assert placed(made) == [(0, "x"), (1, "y")]
    made.went(b, ("done", True))
    made.went(a, ("done", True))
    assert sorted(placed(made)) == [(2, "y"), (3, "x")]


def test_steps_of_a_lost_node_go_to_another_one(placement):
    made = placement(step := Piece(number=0), nodes={"x": (1, 0), "y": (1, 0)})
    assert placed(made) == [(0, "x")]
    made.remove("x")
    made.left(step)
    made.schedule.again(step)
    assert placed(made) == [(0, "y")]


# A cluster that is simulated, event by event


def study(cells, rng):
    """Steps as a study has them, with the seconds that each takes, as measured in docs/results.

    A few tasks' demonstrations, encoders of their frames, features, tokenizers; then for every cell a training and
    the episodes of its policy.
    """
    demos = [Piece(number=i, seconds=30 * rng.uniform(0.7, 1.3)) for i in range(20)]
    shared = [
        Piece(number=100 + i, seconds=120 * rng.uniform(0.5, 2), of=(demos[i % 20],)) for i in range(400)
    ]
    steps, number = [*demos, *shared], 1000
    while len(steps) < cells:
        training = Piece(
            number=number, seconds=150 * rng.uniform(0.7, 1.5), of=(shared[number % 400],), gpus=0.1
        )
        steps += [
            training,
            Piece(number=number + 1, seconds=60 * rng.uniform(0.5, 2), of=(training,)),
        ]
        number += 2
    return steps


def simulated(steps, store, workers):
    """How long a cluster takes in simulated seconds, what the steps take, and the placement with its counts."""
    schedule = Schedule(steps, store, Quiet(), Outcome(), {s.key for s in steps})
    made = Counting(schedule, local=True)
    for i in range(workers // 10):
        made.add(f"node {i}", Needs(10, 0, 640 * GB))
    by_key = {s.key: s for s in steps}
    now, events, most = 0.0, [], 0
    while True:
        for step, node, _ in made.place():
            assert node.steps <= 10
            heapq.heappush(events, (now + step.seconds, step.key))
        most = max(most, len(events))
        if not events:
            break
        now, key = heapq.heappop(events)
        made.went(by_key[key], ("done", True))
    assert not schedule.left
    assert most == workers
    return now, sum(s.seconds for s in steps), made


class Counting(Placement):
    """Counts how often it looks at a node, and how often at the heads of its queues."""

    looks = 0

    def _may(self, node, needs):
        self.looks += 1
        return super()._may(node, needs)

    def _next(self):
        self.looks += 1
        return super()._next()


def test_a_thousand_workers_are_kept_busy_and_a_step_costs_no_more_in_a_larger_study(tmp_path):
    rng, store, looks = random.Random(0), Store(tmp_path), {}
    for count in (10_000, 100_000):
        steps = study(count, rng)
        there, worked, made = simulated(steps, store, 1000)
        looks[count] = made.looks / len(steps)
    assert worked / (1000 * there) >= 0.95  # 0.978
    assert looks[100_000] < 1.1 * looks[10_000]
    assert looks[100_000] < 8
