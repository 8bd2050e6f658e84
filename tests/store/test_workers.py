"""Worker processes: dead ones are replaced, GPUs are shared out; mostly without processes."""

import multiprocessing
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from compression_gap.store import workers
from compression_gap.store.artifact import Artifact, Job
from compression_gap.store.engine import run_plan, run_steps
from compression_gap.store.outcome import Outcome
from compression_gap.store.schedule import Schedule
from compression_gap.store.store import Store
from compression_gap.store.workers import Pool, Stop, Workers, together
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


class Patient(Artifact, kind="patient", version=1):
    """Hangs as often as it is told to, and leaves its process's number in the folder; from then on it has no patience."""

    hangs: int
    marks: str

    @property
    def label(self) -> str:
        return "patient"

    @property
    def patience(self) -> float | None:
        return 0.0 if any(os.path.exists(f"/proc/{pid}") for pid in os.listdir(self.marks)) else None

    def build(self, job: Job) -> None:
        if len(os.listdir(self.marks)) < self.hangs:
            os.close(os.open(os.path.join(self.marks, str(os.getpid())), os.O_CREAT))
            while True:
                time.sleep(3600)
        (job.out / "done").write_text("x")


def look(reader, ready, seen):
    """Look at the sign again and again, until it says stop."""
    ready.send("looks")
    while not reader.poll():
        pass
    seen.send("stop")


def pool_alone(step, store, watcher=None):
    """A pool of one worker for one step, which it has already taken."""
    schedule = Schedule([step], store, watcher or Quiet(), Outcome(), {step.key})
    return Pool(schedule, 1)


def test_a_worker_that_is_killed_while_it_looks_leaves_the_sign_to_the_others():
    context = multiprocessing.get_context("spawn")
    stop, processes = Stop(context), []
    for _ in range(2):
        (ready, theirs), (seen, their_seen) = context.Pipe(), context.Pipe()
        process = context.Process(target=look, args=(stop.reader, theirs, their_seen))
        process.start()
        their_seen.close()
        assert ready.recv() == "looks"
        processes.append((process, seen))
    os.kill(processes[0][0].pid, signal.SIGKILL)
    processes[0][0].join()
    assert not stop.is_set()
    stop.set()
    assert stop.is_set()
    assert processes[1][1].recv() == "stop"
    processes[1][0].join()


def test_a_run_needs_no_shared_memory(tmp_path, monkeypatch):
    """With a full /dev/shm there is no semaphore."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", full)
    marks = tmp_path / "marks"
    marks.mkdir()
    store, step = Store(tmp_path / "store"), Patient(hangs=0, marks=str(marks))
    outcome = run_steps([step], store, engine=Workers(1), watcher=Quiet())
    assert outcome.built == [step.key], outcome.failures


def test_a_worker_that_hangs_is_killed_and_its_step_goes_to_another_one(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    store, step = Store(tmp_path / "store"), Patient(hangs=1, marks=str(marks))
    outcome = run_steps([step], store, engine=Workers(1), watcher=Quiet())
    assert outcome.built == [step.key], outcome.failures
    assert len(list(marks.iterdir())) == 1
    assert list((store.root / "tmp").iterdir()) == []  # the dead worker's scratch folder


def test_a_step_that_always_hangs_is_a_failure_that_says_so(tmp_path):
    watcher, step = Quiet(), Patient(hangs=99, marks=str(tmp_path))
    (tmp_path / str(os.getpid())).touch()
    pool = pool_alone(step, Store(tmp_path / "store"), watcher)
    killed = []
    for _ in range(3):
        pool.workers["pipe"] = SimpleNamespace(
            kill=lambda: killed.append(-9), join=lambda *_: None, exitcode=-9
        )
        pool.busy["pipe"], pool.device["pipe"] = pool.schedule.take(), ()
        pool.looked -= 1.0
        pool._end_hung_workers()
        pool._bury("pipe")
    assert killed == [-9] * 3
    said = "the worker of 'patient' died three times (exit code -9): for 0 s it had said nothing, so it counted as hung"
    assert watcher.sentences == [f"{said} and was killed"]
    assert pool.schedule.outcome.failures[step.key]["kind"] == "simulator"
    assert not pool.schedule.go_on()


def test_the_step_of_a_worker_that_died_while_idle_is_given_to_another_one(tmp_path):
    """Alone and ready it waits for a new worker; the plan is not stuck."""
    marks = tmp_path / "marks"
    marks.mkdir()
    step = Patient(hangs=0, marks=str(marks))
    pool = pool_alone(step, Store(tmp_path / "store"))
    dead, other = pool.context.Pipe()
    other.close()
    pool.workers[dead] = SimpleNamespace(join=lambda *_: None, exitcode=-9, is_alive=lambda: False)
    pool.device[dead] = ()
    pool.run()
    assert pool.schedule.outcome.built == [step.key]


def test_a_worker_that_is_deaf_to_the_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "LAST_WORDS", 0.01)
    gone = threading.Event()
    worker = SimpleNamespace(
        terminate=lambda: None, is_alive=lambda: not gone.is_set(), kill=gone.set, join=lambda *_: None
    )
    step = Patient(hangs=0, marks=str(tmp_path))
    pool = pool_alone(step, Store(tmp_path / "store"))
    ours, _theirs = pool.context.Pipe()
    pool.workers[ours], pool.busy[ours] = worker, step
    pool._close()
    assert gone.is_set()


@pytest.mark.parametrize("paused", [1.0, 3600.0])
def test_a_pause_of_the_coordinator_is_no_silence(tmp_path, monkeypatch, paused):
    """After Ctrl-Z, or a suspended machine, a second has passed at most."""
    step = Patient(hangs=0, marks=str(tmp_path))
    pool = pool_alone(step, Store(tmp_path / "store"))
    pool.busy["pipe"] = step
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: pool.looked + paused))
    pool._end_hung_workers()
    assert pool.silent == {"pipe": 1.0}
