"""Worker processes: one ready step each, cores divided among them. They speak over pipes: progress, done, failed."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Set
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import Interrupted
from .artifact import AGAIN, Artifact, build
from .claims import Busy
from .outcome import Outcome, Watcher, after_failures, failure_record, note_failure
from .store import Store

LAST_WORDS = 10.0  # seconds for a worker to remove its scratch folder


def _ready(step: Artifact, missing: set[str]) -> bool:
    return not any(i.key in missing for i in step.inputs.values())


class Stop:
    """Tells all workers that the run ends: by the end of a pipe.

    An event of ``multiprocessing`` is a lock in shared memory: a worker that is killed while it looks at it keeps it, and
    all others wait for ever; so does a signal handler that sets it; and with a full /dev/shm there is none.
    """

    def __init__(self, context: Any) -> None:
        self.reader, self._writer = context.Pipe(duplex=False)

    def is_set(self) -> bool:
        """Whether it has been said."""
        closed: bool = self._writer.closed
        return closed

    def set(self) -> None:
        """Say it."""
        self._writer.close()


class Pool:
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
        self.order = {s: i for i, s in enumerate(steps)}
        self.context = multiprocessing.get_context("spawn")
        self.stop = Stop(self.context)
        self.threads = max(1, (os.cpu_count() or 1) // processes)
        self.processes = min(processes, max(1, len(steps)))
        self.workers: dict[Connection, Any] = {}
        self.busy: dict[Connection, tuple[Artifact, float]] = {}
        self.deaths: dict[str, int] = {}
        self.elsewhere: dict[str, float] = {}  # keys that another run builds, and when to look again
        self.silent: dict[Connection, float] = {}  # seconds for which a busy worker has said nothing
        self.hung: dict[str, float] = {}  # keys whose worker was killed for that, and after how many seconds
        self.looked = time.monotonic()

    def run(self) -> None:
        """Give out ready steps until none is left, or the budget is spent."""
        waiting = list(self.steps)
        missing = {s.key for s in waiting}
        after_failures(self.steps, waiting, self.goals, self.outcome)
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
                    # One is ready if the worker that it was given to had died while it was idle.
                    stuck = not any(_ready(s, missing) for s in waiting)
                    if not self.busy and waiting and not self.elsewhere and stuck:
                        raise RuntimeError("the plan has steps that can never become ready")
                self._listen(waiting, missing)
                self._end_hung_workers()
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
        now = time.monotonic()
        for step in [s for s in waiting if _ready(s, missing) and self.elsewhere.get(s.key, now) <= now]:
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
                target=work, args=(theirs, str(self.store.root), self.stop.reader, self.threads, os.getpid())
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
        if not self.busy:  # what is left, another run builds
            time.sleep(AGAIN)
        for ready in wait(list(self.busy), timeout=0.2):
            assert isinstance(ready, Connection)
            step, begun = self.busy[ready]
            try:
                kind, *content = ready.recv()
                self.silent.pop(ready, None)
            except (EOFError, OSError):  # an OSError if it died in the middle of a message
                self._handle_dead_worker(ready, step, waiting)
                continue
            if kind == "progress":
                self.watcher.progress(step, *content)
                continue
            del self.busy[ready]
            if kind == "busy":
                if step.key not in self.elsewhere:
                    self.watcher.elsewhere(step)
                self.elsewhere[step.key] = time.monotonic() + AGAIN
                waiting.append(step)
                waiting.sort(key=self.order.__getitem__)
                continue
            self.elsewhere.pop(step.key, None)
            if kind == "done":
                missing.discard(step.key)
                if content[0]:
                    self.outcome.built.append(step.key)
                self.watcher.finished(step, time.monotonic() - begun)
            elif kind == "interrupted":
                self.outcome.stopped = True
            else:
                self._fail(step, content[0], waiting)

    def _end_hung_workers(self) -> None:
        """Kill a worker that has said nothing for longer than its step may be silent; it is then one that died."""
        now = time.monotonic()
        passed, self.looked = min(now - self.looked, 1.0), now  # not while this process itself was stopped
        for connection, (step, _) in self.busy.items():
            self.silent[connection] = self.silent.get(connection, 0.0) + passed
            patience = step.patience
            if patience is not None and self.silent[connection] > patience:
                self.hung[step.key] = patience
                self.workers[connection].kill()

    def _fail(self, step: Artifact, record: dict[str, str], waiting: list[Artifact]) -> None:
        note_failure(self.store, step, record, self.outcome)
        after_failures(self.steps, waiting, self.goals, self.outcome)
        waiting[:] = [s for s in waiting if s.key not in self.outcome.failures]
        self.watcher.failed(step, record)

    def _handle_dead_worker(self, connection: Connection, step: Artifact, waiting: list[Artifact]) -> None:
        """A worker died (killed, out of memory): its step goes to another one, at most twice."""
        del self.busy[connection]
        self.silent.pop(connection, None)
        process = self.workers.pop(connection)
        process.join()
        self.store.sweep()  # its scratch folder
        key = step.key
        self.deaths[key] = self.deaths.get(key, 0) + 1
        if self.deaths[key] < 3:
            waiting.insert(0, step)
            return
        sentence = f"the worker of '{step.label}' died three times (exit code {process.exitcode})"
        kind = "crash"
        if key in self.hung:
            sentence += (
                f": for {self.hung[key]:g} s it had said nothing, so it counted as hung and was killed"
            )
            kind = "simulator"
        self._fail(step, {"kind": kind, "step": step.label, "sentence": sentence, "traceback": ""}, waiting)

    def _close(self) -> None:
        for connection, process in self.workers.items():
            connection.close()
            if connection in self.busy:
                process.terminate()
        for process in self.workers.values():
            process.join(LAST_WORDS)
            if process.is_alive():  # deaf to the signal: it hangs in a library
                process.kill()
                process.join()


def die_with_parent(parent: int) -> None:
    """On Linux, ask the kernel to end this process when its parent dies; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def work(connection: Connection, store_root: str, stop: Connection, threads: int, parent: int) -> None:
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

    should_stop: Callable[[], bool] = stop.poll  # true at its end
    while True:
        try:
            step = connection.recv()
        except (EOFError, OSError):
            break
        try:
            own = build(step, store, progress=progress, should_stop=should_stop, wait=False)
            connection.send(("done", own))
        except Busy:
            connection.send(("busy",))
        except Interrupted:
            connection.send(("interrupted",))
        except Exception as error:
            connection.send(("failed", failure_record(step, error)))
