"""Worker processes: dead ones are replaced, GPUs are shared out; mostly without processes."""

import os
from types import SimpleNamespace

import pytest

from compression_gap.store.engine import run_plan
from compression_gap.store.outcome import Outcome
from compression_gap.store.schedule import Schedule
from compression_gap.store.store import Store
from compression_gap.store.workers import Pool, Workers, together
from plain_steps import Piece, Quiet, graph


class Pipe:
    """Our end of a worker's pipe."""

    def __init__(self, broken=False):
        self.broken, self.sent, self.closed = broken, [], False

    def close(self):
        self.closed = True

    def send(self, step):
        if self.broken:
            raise BrokenPipeError
        self.sent.append(step)


@pytest.fixture
def pool_of(tmp_path, monkeypatch):
    def make(*steps, processes=1, devices=()):
        schedule = Schedule(steps, Store(tmp_path), Quiet(), Outcome(), {s.key for s in steps})
        pool = Pool(schedule, processes, devices)

        def hire(devices):
            pool.workers[new := Pipe()] = SimpleNamespace(join=lambda: None, exitcode=-9)
            return new

        monkeypatch.setattr(pool, "_start_worker", hire)
        return pool

    return make


def test_a_worker_that_died_while_idle_is_replaced(pool_of):
    pool = pool_of(step := Piece(number=0))
    pool._give_out()
    (first,) = pool.workers
    pool._bury(first)
    assert pool.workers == pool.busy == pool.device == {}
    idle = Pipe(broken=True)
    pool.workers[idle], pool.device[idle] = SimpleNamespace(join=lambda: None, exitcode=-9), ()
    pool._give_out()  # it is found dead, and another one is started
    (second,) = pool.workers
    assert second.sent == [step]
    assert not pool.schedule.outcome.failures  # two deaths of three


GPUS = [{"CUDA_VISIBLE_DEVICES": "0"}, {"CUDA_VISIBLE_DEVICES": "1"}]


def test_workers_share_out_the_gpus_and_a_gpu_takes_what_fits_beside_each_other(pool_of):
    halves = [Piece(number=i, gpus=0.5) for i in range(6)]
    pool = pool_of(*halves, processes=6, devices=GPUS)
    pool._give_out()
    assert sorted(pool.device.values()) == [(0,), (0,), (1,), (1,)]
    assert [s.number for s in pool.busy.values()] == [0, 1, 2, 3]


def test_a_step_without_a_gpu_runs_beside_full_ones(pool_of):
    steps = [Piece(number=0, gpus=1.0), Piece(number=1, gpus=1.0), Piece(number=2, gpus=0.1), Piece(number=3)]
    pool = pool_of(*steps, processes=4, devices=GPUS)
    pool._give_out()
    assert [s.number for s in pool.busy.values()] == [0, 1, 3]


def test_a_step_of_several_gpus_waits_for_them_and_has_them_alone(pool_of):
    small, both, later = Piece(number=0, gpus=0.1), Piece(number=1, gpus=2.0), Piece(number=2, gpus=0.1)
    pool = pool_of(small, both, later, processes=2, devices=GPUS)
    pool._give_out()
    assert {s.number: pool.device[w] for w, s in pool.busy.items()} == {0: (0,), 2: (1,)}
    for worker, step in list(pool.busy.items()):
        del pool.busy[worker]
        pool.schedule.finished(step, True)
    pool._give_out()
    assert {s.number: pool.device[w] for w, s in pool.busy.items()} == {1: (0, 1)}
    assert len(pool.workers) == 2  # one of one device has made room


def test_a_step_that_asks_for_more_gpus_than_there_are_has_them_all(pool_of):
    pool = pool_of(Piece(number=0, gpus=4.0), Piece(number=1, gpus=0.1), processes=2, devices=GPUS[:1])
    pool._give_out()
    assert [s.number for s in pool.busy.values()] == [0]


def test_simulators_are_spread_over_the_renderers(pool_of):
    pool = pool_of(*(Piece(number=i) for i in range(4)), processes=4, devices=GPUS)
    pool._give_out()
    assert sorted(pool.device.values()) == [(0,), (0,), (1,), (1,)]


def test_an_idle_worker_is_preferred_to_a_new_one_in_its_place(pool_of):
    steps = [Piece(number=i) for i in range(6)]
    pool = pool_of(*steps, processes=3, devices=GPUS)
    pool._give_out()
    assert sorted(pool.device.values()) == [(0,), (0,), (1,)]
    worker = next(w for w, d in pool.device.items() if d == (0,))
    pool.schedule.finished(pool.busy.pop(worker), True)
    pool._give_out()
    assert not worker.closed
    assert len(worker.sent) == 2


def test_the_environment_of_several_devices():
    assert together(GPUS) == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert together([]) == {}


def test_without_gpus_shares_of_them_do_not_count(pool_of):
    pool = pool_of(*(Piece(number=i, gpus=1.0) for i in range(3)), processes=2)
    pool._give_out()
    assert len(pool.busy) == 2


def test_processes_build_a_graph_each_in_the_environment_of_its_device(tmp_path):
    leaves = [Piece(number=i) for i in range(4)]
    last = Piece(number=10, of=tuple(leaves))
    store, watcher = Store(tmp_path), Quiet()
    devices = [{"MUJOCO_EGL_DEVICE_ID": "5"}, {"MUJOCO_EGL_DEVICE_ID": "3"}]
    plan = graph([*leaves, last])
    outcome = run_plan(plan, store, engine=Workers(2, devices), watcher=watcher)
    assert last.value(store) == 10 + 0 + 1 + 2 + 3
    assert sorted(outcome.built) == sorted(plan.steps)
    assert {store.meta(s)["egl"] for s in plan.steps.values()} <= {"5", "3"}
    assert os.getpid() not in {store.meta(s)["pid"] for s in plan.steps.values()}
    assert "MUJOCO_EGL_DEVICE_ID" not in os.environ
