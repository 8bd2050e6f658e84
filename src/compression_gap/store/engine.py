"""The local engine: as many worker processes as asked, one ready step each, cores divided among them.

A step's result is an artefact in the store, so the engine keeps no state of its own: killed at any moment
and started again, it builds what is missing. Workers speak to it over pipes: progress, done, failed.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

from ..errors import Interrupted, UserError
from ..records import read_json
from .artifact import Artifact, build
from .graph import Graph
from .store import Keyed, Store, write_json

SIMULATOR_FAILURES = 2  # with nothing simulated before them, the rest is not tried


@dataclass
class Outcome:
    """What a run did: keys built now, keys that failed with their records, and how it ended.

    ``stopped``: before all was done, by the budget or by Ctrl-C; ``interrupted``: by Ctrl-C.
    """

    built: list[str] = field(default_factory=list)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    stopped: bool = False
    interrupted: bool = False


class Watcher(Protocol):
    """Is told what happens: the terminal's progress bar, and the log file."""

    def started(self, step: Artifact) -> None:
        """A worker has taken the step."""

    def progress(self, step: Artifact, done: int, total: int) -> None:
        """The step has done ``done`` of ``total``."""

    def finished(self, step: Artifact, seconds: float) -> None:
        """The step's artefact is committed."""

    def failed(self, step: Artifact, record: dict[str, str]) -> None:
        """The step has failed (``failure_record``)."""


def missing_steps(plan: Graph, store: Store) -> list[Artifact]:
    """The steps still to run: those that a result needs, directly or not, and that are not in the store."""
    missing: dict[str, Artifact] = {}

    def visit(step: Artifact) -> None:
        if step.key in missing or store.has(step):
            return
        if step.key not in plan.steps:
            raise UserError(f"{step.kind} {step.key} is no longer in the store {store.root}")
        for needed in step.inputs.values():
            visit(needed)
        missing[step.key] = step

    for step in plan.wanted:
        visit(step)
    return list(missing.values())


def failure_file(store: Store, of: Keyed) -> Path:
    """Where the record of a failed step lies."""
    return store.root / "failures" / f"{of.kind}-{of.key}.json"


def run_plan(
    plan: Graph,
    store: Store,
    *,
    processes: int,
    watcher: Watcher,
    budget: float | None = None,
    retry: bool = False,
) -> Outcome:
    """Build what is missing. ``processes`` = 0 builds in this process, step after step.

    ``budget`` (seconds) stops at the end of a step or at a training's checkpoint. A step that failed for
    good (a diverged training) is not tried again unless ``retry``. Nothing is built for results alone that a
    failure has put out of reach.
    """
    return run_steps(
        missing_steps(plan, store),
        store,
        processes=processes,
        watcher=watcher,
        budget=budget,
        retry=retry,
        goals={a.key for a in plan.wanted},
    )


def run_steps(
    steps: Sequence[Artifact],
    store: Store,
    *,
    processes: int,
    watcher: Watcher,
    budget: float | None = None,
    retry: bool = False,
    goals: Set[str] | None = None,
) -> Outcome:
    """Build these steps, which stand in an order in which they can run. See ``run_plan``.

    ``goals``: the keys that are wanted for themselves; all of them, if it is left out.
    """
    steps, goals = list(steps), {s.key for s in steps} if goals is None else goals
    store.sweep()
    outcome = Outcome()
    for step in steps:
        record = failure_file(store, step)
        if record.exists():
            if retry:
                shutil.rmtree(store.work(step))  # its checkpoint may hold what went wrong
                record.unlink()
            else:
                outcome.failures[step.key] = read_json(record)
    deadline = None if budget is None else time.monotonic() + budget
    if processes == 0:
        _run_here(steps, store, watcher, deadline, outcome, goals)
    else:
        _Pool(steps, store, processes, watcher, deadline, outcome, goals).run()
    return outcome


def _ready(step: Artifact, missing: set[str]) -> bool:
    return not any(i.key in missing for i in step.inputs.values())


def _give_up_dependents(steps: list[Artifact], key: str, outcome: Outcome) -> None:
    """Mark the steps that wait for a failed one; they keep its sentence."""
    for step in steps:
        if step.key not in outcome.failures and any(i.key == key for i in step.inputs.values()):
            outcome.failures[step.key] = {**outcome.failures[key], "because": key}
            _give_up_dependents(steps, step.key, outcome)


def _give_up_useless(
    steps: list[Artifact], waiting: list[Artifact], goals: Set[str], outcome: Outcome
) -> None:
    """Mark those that wait for nothing: whatever needs them has failed. They keep that failure's sentence."""
    useful = set(goals)
    for step in reversed(steps):
        if step.key not in outcome.failures and step.key in useful:
            useful |= {i.key for i in step.inputs.values()}
    for step in reversed(waiting):  # those that need a step stand behind it
        key = step.key
        if key not in useful and key not in outcome.failures:
            needs = [s.key for s in steps if any(i.key == key for i in s.inputs.values())]
            failed = next(k for k in needs if k in outcome.failures)
            outcome.failures[key] = {"because": failed, **outcome.failures[failed]}


def _give_up_simulator(steps: list[Artifact], waiting: list[Artifact], outcome: Outcome) -> None:
    """Mark all that is simulated where the simulator itself fails every time: trying on would only take long."""
    at = {s.key: s for s in steps}
    if any(at[key].simulated for key in outcome.built):
        return
    failed = [
        k for k, f in outcome.failures.items() if k in at and f["kind"] == "simulator" and "because" not in f
    ]
    if len(failed) < SIMULATOR_FAILURES:
        return
    for step in waiting:
        if step.simulated and step.key not in outcome.failures:
            outcome.failures[step.key] = {**outcome.failures[failed[-1]], "because": failed[-1]}
            _give_up_dependents(steps, step.key, outcome)


def _after_failures(
    steps: list[Artifact], waiting: list[Artifact], goals: Set[str], outcome: Outcome
) -> None:
    """Mark, of the waiting steps, all that is not to be tried after the failures so far."""
    for key in list(outcome.failures):
        _give_up_dependents(steps, key, outcome)
    _give_up_simulator(steps, waiting, outcome)
    _give_up_useless(steps, waiting, goals, outcome)


def _note_failure(store: Store, step: Artifact, record: dict[str, str], outcome: Outcome) -> None:
    outcome.failures[step.key] = record
    if record["kind"] == "diverged":
        file = failure_file(store, step)
        file.parent.mkdir(exist_ok=True)
        write_json(file, record)


def failure_record(step: Artifact, error: BaseException) -> dict[str, str]:
    """A failed step's record: kind ("diverged", "simulator", "user", "crash"), sentence and traceback."""
    kind = getattr(error, "failure", "crash")
    sentence = str(error) if kind != "crash" else f"{type(error).__name__}: {error}"
    return {
        "kind": kind,
        "step": step.label,
        "sentence": sentence,
        "traceback": "".join(traceback.format_exception(error)),
    }


def _run_here(
    steps: list[Artifact],
    store: Store,
    watcher: Watcher,
    deadline: float | None,
    outcome: Outcome,
    goals: Set[str],
) -> None:
    def past() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    _after_failures(steps, steps, goals, outcome)
    for at, step in enumerate(steps):
        if step.key in outcome.failures:
            continue
        if past():
            outcome.stopped = True
            return
        watcher.started(step)
        begun = time.monotonic()
        try:
            build(step, store, progress=partial(watcher.progress, step), should_stop=past)
        except Interrupted:
            outcome.stopped = True
            return
        except Exception as error:
            _note_failure(store, step, failure_record(step, error), outcome)
            _after_failures(steps, steps[at + 1 :], goals, outcome)
            watcher.failed(step, outcome.failures[step.key])
            continue
        outcome.built.append(step.key)
        watcher.finished(step, time.monotonic() - begun)


class _Pool:
    """Worker processes and the steps given to them."""

    def __init__(
        self,
        steps: list[Artifact],
        store: Store,
        processes: int,
        watcher: Watcher,
        deadline: float | None,
        outcome: Outcome,
        goals: Set[str],
    ) -> None:
        self.goals = goals
        self.steps, self.store, self.watcher, self.deadline = steps, store, watcher, deadline
        self.outcome = outcome
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Event()
        self.threads = max(1, (os.cpu_count() or 1) // processes)
        self.processes = min(processes, max(1, len(steps)))
        self.workers: dict[Connection, Any] = {}
        self.busy: dict[Connection, tuple[Artifact, float]] = {}
        self.deaths: dict[str, int] = {}

    def run(self) -> None:
        """Give out ready steps until none is left, or the budget is spent."""
        waiting = list(self.steps)
        missing = {s.key for s in waiting}
        _after_failures(self.steps, waiting, self.goals, self.outcome)
        waiting = [s for s in waiting if s.key not in self.outcome.failures]
        interrupt = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._interrupted)
        try:
            while waiting or self.busy:
                if self.deadline is not None and time.monotonic() >= self.deadline:
                    self.stop.set()
                if self.stop.is_set():
                    waiting_left = bool(waiting)
                    if not self.busy:
                        self.outcome.stopped = self.outcome.stopped or waiting_left
                        return
                else:
                    self._give_out(waiting, missing)
                    if not self.busy and waiting:
                        raise RuntimeError("the plan has steps that can never become ready")
                self._listen(waiting, missing)
        finally:
            signal.signal(signal.SIGINT, interrupt)
            self._close()

    def _interrupted(self, *_: object) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        print("\nstopping at the next checkpoint; press Ctrl-C again to stop at once", file=sys.stderr)
        self.outcome.interrupted = True
        self.stop.set()

    def _give_out(self, waiting: list[Artifact], missing: set[str]) -> None:
        # The longest chain first would be ideal; trainings are long and alike, so order of the plan it is.
        for step in [s for s in waiting if _ready(s, missing)]:
            idle = [c for c in self.workers if c not in self.busy]
            if not idle:
                if len(self.workers) >= self.processes:
                    return
                idle = [self._start_worker()]
            waiting.remove(step)
            self.busy[idle[0]] = (step, time.monotonic())
            self.watcher.started(step)
            try:
                idle[0].send(step)
            except OSError:  # it died while it was idle
                self._handle_dead_worker(idle[0], step, waiting)

    def _start_worker(self) -> Connection:
        ours, theirs = self.context.Pipe()
        # Read by the numeric libraries when the worker starts; a spawned process inherits them.
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        before = {n: os.environ.get(n) for n in names}
        os.environ.update(dict.fromkeys(names, str(self.threads)))
        # Ctrl-C reaches the whole group, and is this process's: a worker is deaf to it from its first instruction on.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = self.context.Process(
                target=work, args=(theirs, str(self.store.root), self.stop, self.threads, os.getpid())
            )
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for n, value in before.items():
                os.environ.pop(n) if value is None else os.environ.update({n: value})
        theirs.close()
        self.workers[ours] = process
        return ours

    def _listen(self, waiting: list[Artifact], missing: set[str]) -> None:
        for ready in wait(list(self.busy), timeout=0.2):
            assert isinstance(ready, Connection)
            step, begun = self.busy[ready]
            try:
                kind, *content = ready.recv()
            except (EOFError, OSError):  # an OSError if it died in the middle of a message
                self._handle_dead_worker(ready, step, waiting)
                continue
            if kind == "progress":
                self.watcher.progress(step, *content)
                continue
            del self.busy[ready]
            if kind == "done":
                missing.discard(step.key)
                self.outcome.built.append(step.key)
                self.watcher.finished(step, time.monotonic() - begun)
            elif kind == "interrupted":
                self.outcome.stopped = True
            else:
                self._fail(step, content[0], waiting)

    def _fail(self, step: Artifact, record: dict[str, str], waiting: list[Artifact]) -> None:
        _note_failure(self.store, step, record, self.outcome)
        _after_failures(self.steps, waiting, self.goals, self.outcome)
        waiting[:] = [s for s in waiting if s.key not in self.outcome.failures]
        self.watcher.failed(step, record)

    def _handle_dead_worker(self, connection: Connection, step: Artifact, waiting: list[Artifact]) -> None:
        """A worker died (killed, out of memory): its step goes to another one, at most twice."""
        del self.busy[connection]
        process = self.workers.pop(connection)
        process.join()
        key = step.key
        self.deaths[key] = self.deaths.get(key, 0) + 1
        if self.deaths[key] < 3:
            waiting.insert(0, step)
            return
        sentence = f"the worker of '{step.label}' died three times (exit code {process.exitcode})"
        self._fail(
            step, {"kind": "crash", "step": step.label, "sentence": sentence, "traceback": ""}, waiting
        )

    def _close(self) -> None:
        for connection, process in self.workers.items():
            connection.close()
            if connection in self.busy:
                process.terminate()
        for process in self.workers.values():
            process.join()


def die_with_parent(parent: int) -> None:
    """On Linux, ask the kernel to end this process when its parent dies; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def work(connection: Connection, store_root: str, stop: Any, threads: int, parent: int) -> None:
    """A worker's life: take a step, build it, say how it went, until the pipe is closed."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(threads)
    store = Store(store_root)
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 0.5:
            last = time.monotonic()
            connection.send(("progress", done, total))

    should_stop: Callable[[], bool] = stop.is_set
    while True:
        try:
            step = connection.recv()
        except (EOFError, OSError):
            break
        try:
            build(step, store, progress=progress, should_stop=should_stop)
            connection.send(("done",))
        except Interrupted:
            connection.send(("interrupted",))
        except Exception as error:
            connection.send(("failed", failure_record(step, error)))
