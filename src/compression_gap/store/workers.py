"""Worker processes: one ready step each, cores and GPUs divided among them. They speak over pipes."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from .artifact import AGAIN, Artifact, Needs
from .engine import attempt
from .environment import environment
from .remote import open_store
from .schedule import Schedule, stopping_at_interrupt

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # read when a process starts


LAST_WORDS = 10.0  # seconds for a worker to remove its scratch folder


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

    def __init__(self, schedule: Schedule, processes: int, devices: Sequence[Mapping[str, str]] = ()) -> None:
        self.schedule, self.devices = schedule, devices
        self.context = multiprocessing.get_context("spawn")
        self.stop = Stop(self.context)
        self.threads = max(1, (os.cpu_count() or 1) // processes)
        self.processes = min(processes, max(1, len(schedule.left)))
        self.workers: dict[Connection, Any] = {}
        self.device: dict[Connection, tuple[int, ...]] = {}  # those of each worker
        self.busy: dict[Connection, Artifact] = {}
        self.silent: dict[Connection, float] = {}  # seconds for which a busy worker has said nothing
        self.hung: dict[str, float] = {}  # keys whose worker was killed for that, and after how many seconds
        self.looked = time.monotonic()

    def run(self) -> None:
        """Give out ready steps until none is left, or the budget is spent."""
        try:
            with stopping_at_interrupt(self.schedule, self.stop.set):
                while self.schedule.go_on():
                    if self.schedule.should_stop():
                        self.stop.set()
                    self._give_out()
                    self._listen()
                    self._end_hung_workers()
        finally:
            self._close()

    def _give_out(self) -> None:
        while any(self._give(step) for step in self.schedule.heads()):
            pass

    def _give(self, step: Artifact) -> bool:
        """Give a step to an idle worker of the devices that it is to have, if there are both."""
        devices = self._room(step.needs)
        worker = None if devices is None else self._idle(devices)
        if worker is None:
            return False
        self.schedule.begin(step)
        self.busy[worker] = step
        try:
            worker.send(step)
        except OSError:  # it died while it was idle
            self._bury(worker)
        return True

    def _room(self, needs: Needs) -> tuple[int, ...] | None:
        """The devices that a step is to have: that with the most room, several idle ones, or () of no device.

        One that asks for more than there are waits until all are idle, and has them. Where all workers are there,
        those that are idle are preferred to new ones in their place.
        """
        given, steps = [0.0] * len(self.devices), [0] * len(self.devices)
        for worker, step in self.busy.items():
            for device in self.device[worker]:
                given[device] += step.needs.gpus / len(self.device[worker])
                steps[device] += 1
        if needs.gpus > 1:
            free = [d for d in range(len(given)) if not given[d]]
            wanted = min(math.ceil(needs.gpus), len(given))
            return tuple(free[:wanted]) if len(free) >= wanted else None
        idle = {self.device[w] for w in self.workers if w not in self.busy}
        full = len(self.workers) >= self.processes
        fits = [d for d, g in enumerate(given) if not needs.gpus or not g or g + needs.gpus <= 1 + 1e-6]
        if self.devices and not fits:
            return None
        order = sorted(fits, key=lambda d: (full and (d,) not in idle, given[d], steps[d]))
        return tuple(order[:1])

    def _idle(self, devices: tuple[int, ...]) -> Connection | None:
        """An idle worker of these devices: one that is there, or a new one, in place of one of other devices."""
        idle = [w for w in self.workers if w not in self.busy]
        for worker in idle:
            if self.device[worker] == devices:
                return worker
        if len(self.workers) >= self.processes:
            if not idle:
                return None
            idle[0].close()  # which ends it
            self.workers.pop(idle[0]).join()
            del self.device[idle[0]]
        worker = self._start_worker(devices)
        self.device[worker] = devices
        return worker

    def _start_worker(self, devices: tuple[int, ...]) -> Connection:
        ours, theirs = self.context.Pipe()
        own = together([self.devices[d] for d in devices])
        with spawning(self.threads, own):
            process = self.context.Process(
                target=work,
                args=(theirs, self.schedule.store.address, self.stop.reader, self.threads, os.getpid()),
            )
            process.start()
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
                self.silent.pop(ready, None)
            except (EOFError, OSError):  # an OSError if it died in the middle of a message
                self._bury(ready)
                continue
            if kind == "progress":
                self.schedule.watcher.progress(self.busy[ready], *content)
            else:
                self.schedule.went(self.busy.pop(ready), (kind, content))

    def _end_hung_workers(self) -> None:
        """Kill a worker that has said nothing for longer than its step may be silent; it is then one that died."""
        now = time.monotonic()
        passed, self.looked = min(now - self.looked, 1.0), now  # not while this process itself was stopped
        for worker, step in self.busy.items():
            self.silent[worker] = self.silent.get(worker, 0.0) + passed
            if step.patience is not None and self.silent[worker] > step.patience:
                self.hung[step.key] = step.patience
                self.workers[worker].kill()

    def _bury(self, worker: Connection) -> None:
        """A worker died: its step goes to another one."""
        process = self.workers.pop(worker)
        process.join()
        self.schedule.store.sweep()  # its scratch folder
        self.silent.pop(worker, None)
        del self.device[worker]
        step, how = self.busy.pop(worker), f"(exit code {process.exitcode})"
        if step.key in self.hung:
            how += (
                f": for {self.hung[step.key]:g} s it had said nothing, so it counted as hung and was killed"
            )
            self.schedule.died(step, how, "simulator")
        else:
            self.schedule.died(step, how)

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


def together(devices: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The environment of a process that has several devices: each variable's values, joined by commas.

    Such a process trains. The renderer's variable, which takes one value alone, is not read by it.
    """
    names = dict.fromkeys(n for d in devices for n in d)
    return {n: ",".join(d[n] for d in devices if n in d) for n in names}


@contextmanager
def spawning(threads: int, own: Mapping[str, str] | None = None) -> Iterator[None]:
    """What is started within has so many threads and this environment, and is deaf to Ctrl-C from its first instruction on.

    Ctrl-C reaches the whole group of processes, and is the first one's to answer.
    """
    with environment(dict.fromkeys(THREADS, str(threads)) | dict(own or {})):
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def die_with_parent(parent: int) -> None:
    """On Linux, ask the kernel to end this process when its parent dies; elsewhere nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)


def work(connection: Connection, where: str, stop: Connection, threads: int, parent: int) -> None:
    """A worker's life: take a step, build it, say how it went, until the pipe is closed."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(threads)
    store = open_store(where)
    last = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 0.5:
            last = time.monotonic()
            connection.send(("progress", (done, total)))

    should_stop: Callable[[], bool] = stop.poll  # true at its end
    while True:
        try:
            step = connection.recv()
        except (EOFError, OSError):
            break
        connection.send(attempt(step, store, progress, should_stop))
