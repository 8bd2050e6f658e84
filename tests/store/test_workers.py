"""Worker processes: they are told to stop, die while they are idle, and hang."""

import multiprocessing
import os
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from compression_gap.store import workers
from compression_gap.store.artifact import Artifact, Job
from compression_gap.store.engine import run_steps
from compression_gap.store.outcome import Outcome
from compression_gap.store.store import Store
from compression_gap.store.workers import Pool, Stop


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


class Watcher:
    """Says nothing, and keeps the sentences."""

    def __init__(self):
        self.sentences = []

    def started(self, step):
        pass

    def progress(self, step, done, total):
        pass

    def elsewhere(self, step):
        pass

    def finished(self, step, seconds):
        pass

    def failed(self, step, record):
        self.sentences.append((record["kind"], record["sentence"]))


def look(reader, ready, seen):
    """Look at the sign again and again, until it says stop."""
    ready.send("looks")
    while not reader.poll():
        pass
    seen.send("stop")


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
    outcome = run_steps([step], store, processes=1, watcher=Watcher())
    assert outcome.built == [step.key], outcome.failures


def test_a_worker_that_hangs_is_killed_and_its_step_goes_to_another_one(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    store, step = Store(tmp_path / "store"), Patient(hangs=1, marks=str(marks))
    outcome = run_steps([step], store, processes=1, watcher=Watcher())
    assert outcome.built == [step.key], outcome.failures
    assert len(list(marks.iterdir())) == 1
    assert list((store.root / "tmp").iterdir()) == []  # the dead worker's scratch folder


def test_a_step_that_always_hangs_is_a_failure_that_says_so(tmp_path):
    watcher, step = Watcher(), Patient(hangs=99, marks=str(tmp_path))
    (tmp_path / str(os.getpid())).touch()
    pool = Pool([step], Store(tmp_path / "store"), 1, watcher, None, Outcome(), {step.key})
    killed = []
    for _ in range(3):
        pool.workers["pipe"] = SimpleNamespace(
            kill=lambda: killed.append(-9), join=lambda *_: None, exitcode=-9
        )
        pool.busy["pipe"] = (step, 0.0)
        pool.looked -= 1.0
        pool._end_hung_workers()
        pool._handle_dead_worker("pipe", step, waiting := [])
    assert killed == [-9] * 3
    said = "the worker of 'patient' died three times (exit code -9): for 0 s it had said nothing, so it counted as hung"
    assert watcher.sentences == [("simulator", f"{said} and was killed")]
    assert list(pool.outcome.failures) == [step.key]
    assert waiting == []


def test_the_step_of_a_worker_that_died_while_idle_is_given_to_another_one(tmp_path):
    """Alone and ready it waits for a new worker; the plan is not stuck."""
    marks = tmp_path / "marks"
    marks.mkdir()
    step = Patient(hangs=0, marks=str(marks))
    pool = Pool([step], Store(tmp_path / "store"), 1, Watcher(), None, Outcome(), {step.key})
    dead, other = pool.context.Pipe()
    other.close()
    pool.workers[dead] = SimpleNamespace(join=lambda *_: None, exitcode=-9, is_alive=lambda: False)
    pool.run()
    assert pool.outcome.built == [step.key]


def test_a_worker_that_is_deaf_to_the_end_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "LAST_WORDS", 0.01)
    gone = threading.Event()
    worker = SimpleNamespace(
        terminate=lambda: None, is_alive=lambda: not gone.is_set(), kill=gone.set, join=lambda *_: None
    )
    step = Patient(hangs=0, marks=str(tmp_path))
    pool = Pool([step], Store(tmp_path / "store"), 1, Watcher(), None, Outcome(), {step.key})
    ours, _theirs = pool.context.Pipe()
    pool.workers[ours], pool.busy[ours] = worker, (step, 0.0)
    pool._close()
    assert gone.is_set()


@pytest.mark.parametrize("paused", [1.0, 3600.0])
def test_a_pause_of_the_coordinator_is_no_silence(tmp_path, monkeypatch, paused):
    """After Ctrl-Z, or a suspended machine, a second has passed at most."""
    step = Patient(hangs=0, marks=str(tmp_path))
    pool = Pool([step], Store(tmp_path / "store"), 1, Watcher(), None, Outcome(), {step.key})
    pool.busy["pipe"] = (step, 0.0)
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: pool.looked + paused))
    pool._end_hung_workers()
    assert pool.silent == {"pipe": 1.0}
