"""Worker processes: one ready step each, cores and GPUs divided among them. They speak over pipes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from .artifact import AGAIN, Artifact, Needs
from .engine import attempt
from .schedule import Schedule, stopping_at_interrupt
from .store import Store

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # read when a process starts


@dataclass(frozen=True)
class Workers:
    """The engine of one machine: so many worker processes, each with one of the devices, if there are any.

    ``devices``: what a process with that GPU needs in its environment, one for each GPU.
    """

    processes: int
    devices: Sequence[Mapping[str, str]] = ()

    def run(self, schedule: Schedule) -> None:
        """As an engine does."""
        Pool(schedule, self.processes, self.devices).run()


class Pool:
    """Worker processes and the steps given to them."""

    def __init__(self, schedule: Schedule, processes: int, devices: Sequence[Mapping[str, str]] = ()) -> None:
        self.schedule, self.devices = schedule, devices
        self.context = multiprocessing.get_context("spawn")
        self.stop = self.context.Event()
        self.threads = max(1, (os.cpu_count() or 1) // processes)
        self.processes = min(processes, max(1, len(schedule.left)))
        self.workers: dict[Connection, Any] = {}
        self.device: dict[Connection, int] = {}  # of each worker
        self.busy: dict[Connection, Artifact] = {}

    def run(self) -> None:
        """Give out ready steps until none is left, or the budget is spent."""
        try:
            with stopping_at_interrupt(self.schedule, self.stop.set):
                while self.schedule.go_on():
                    if self.schedule.should_stop():
                        self.stop.set()
                    self._give_out()
                    self._listen()
        finally:
            self._close()

    def _give_out(self) -> None:
        for worker in [c for c in self.workers if c not in self.busy]:
            if step := self.schedule.take(partial(self._fits, self.device[worker])):
                self._give(worker, step)
        while len(self.workers) < self.processes:
            used = Counter(self.device.values())
            device = min(range(len(self.devices)), key=lambda d: used[d], default=0)
            step = self.schedule.take(partial(self._fits, device))
            if step is None:
                return
            worker = self._start_worker(device)
            self.device[worker] = device
            self._give(worker, step)

    def _fits(self, device: int, needs: Needs) -> bool:
        """Whether the GPU has room for a step beside those that it has; one that needs all of it runs alone."""
        given = sum(s.needs.gpus for c, s in self.busy.items() if self.device[c] == device)
        return not self.devices or needs.gpus == 0 or given == 0 or given + needs.gpus <= 1

    def _give(self, worker: Connection, step: Artifact) -> None:
        self.busy[worker] = step
        try:
            worker.send(step)
        except OSError:  # it died while it was idle
            self._bury(worker)

    def _start_worker(self, device: int) -> Connection:
        ours, theirs = self.context.Pipe()
        own = self.devices[device] if self.devices else {}
        # Ctrl-C reaches the whole group, and is this process's: a worker is deaf to it from its first instruction on.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = self.context.Process(
                target=work,
                args=(theirs, str(self.schedule.store.root), self.stop, self.threads, os.getpid()),
            )
            with _environment(dict.fromkeys(THREADS, str(self.threads)) | dict(own)):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self.workers[ours] = process
        return ours

    def _listen(self) -> None:
        if not self.busy and not self.schedule.stopping:
            time.sleep(AGAIN)  # what is left, another run builds
        for ready in wait(list(self.busy), timeout=0.2):
            assert isinstance(ready, Connection)
            try:
                kind, content = ready.recv()
            except (EOFError, OSError):  # an OSError if it died in the middle of a message
                self._bury(ready)
                continue
            if kind == "progress":
                self.schedule.watcher.progress(self.busy[ready], *content)
            else:
                self.schedule.went(self.busy.pop(ready), (kind, content))

    def _bury(self, worker: Connection) -> None:
        """A worker died: its step goes to another one."""
        process = self.workers.pop(worker)
        process.join()
        del self.device[worker]
        self.schedule.died(self.busy.pop(worker), f"exit code {process.exitcode}")

    def _close(self) -> None:
        for connection, process in self.workers.items():
            connection.close()
            if connection in self.busy:
                process.terminate()
        for process in self.workers.values():
            process.join()


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """What a process that is started meanwhile inherits."""
    before = {n: os.environ.get(n) for n in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for n, value in before.items():
            os.environ.pop(n) if value is None else os.environ.update({n: value})


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
            connection.send(("progress", (done, total)))

    should_stop: Callable[[], bool] = stop.is_set
    while True:
        try:
            step = connection.recv()
        except (EOFError, OSError):
            break
        connection.send(attempt(step, store, progress, should_stop))
