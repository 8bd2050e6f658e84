"""Worker processes that run episodes side by side, in lockstep with the process that decides.

Each worker keeps one ``Sim`` and runs one episode at a time (``episode.EpisodeRunner``): it acts until a decision is
due, asks, and waits. The parent waits for all workers, decides for all of them in one batch, in the order of
the episodes, and answers. Which episodes share a batch is therefore a function of the episode list and the
number of workers alone, never of timing.

A worker that dies is replaced. Since an episode is a function of its start and of the actions it was given,
the new worker is sent the same messages again and arrives at the same point: nothing of the dead worker's
evidence is used, and the batches stay what they were. A worker that does not answer one message within
``answer_seconds`` hangs: it is killed, and replaced like one that died.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from ..errors import UserError
from ..store.environment import environment
from .base import Sim, SimSpec
from .episode import Drive, EpisodeRunner, Outcome
from .failure import SimulatorError, simulating
from .registry import make_sim

if sys.platform == "linux":
    import fcntl

MAX_DEATHS = 3  # of workers in one episode
ANSWER_SECONDS = (
    600.0  # for one message: a reset with all that is loaded first, or the steps up to a decision
)
SECONDS_VARIABLE = "CGAP_SIMULATOR_SECONDS"
LOOKS = 100  # in that time, so that a pause of this very process (Ctrl-Z, a suspended machine) costs one look
# One thread per worker for OpenMP and BLAS; none beside the main one for Mesa's software renderer.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}


def answer_seconds() -> float:
    """How long a simulator may take for one message: infinite if the environment's variable says 0.

    Raises ``UserError`` if that is no number of seconds.
    """
    said = os.environ.get(SECONDS_VARIABLE, "")
    try:
        seconds = float(said) if said.strip() else ANSWER_SECONDS
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise UserError(f"{SECONDS_VARIABLE}={said} is no number of seconds; give one, or 0 for no limit")
    return seconds or math.inf


class Hung(OSError):
    """A worker did not answer in time; it has been killed."""


@dataclass
class Job:
    """An episode in the pool: where it stands and what was sent to it so far."""

    index: int  # in the episode list
    task: str
    initial_state: int
    sent: list[tuple[Any, ...]] = field(default_factory=list)
    deaths: int = 0
    hangs: int = 0  # of these deaths


class SimPool:
    """Workers with a ``Sim`` each, kept from run to run. Use as a context manager.

    ``workers`` = 0 runs the episodes one after the other in this process.
    """

    def __init__(self, spec: SimSpec, workers: int) -> None:
        if workers < 0:
            raise UserError(f"the number of workers must be 0 or more, not {workers}")
        self.spec = spec
        self.workers = workers
        self._started: list[_Worker | _Inline] = []

    def __enter__(self) -> SimPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(
        self,
        episodes: Sequence[tuple[str, int]],
        drive: Drive,
        decide: Callable[[list[Job], list[Any]], Sequence[np.ndarray | None]],
        done: Callable[[Job, Outcome], None],
    ) -> None:
        """Run all episodes, given as (task, initial state).

        ``decide`` gets the jobs that ask, in episode order, with what each asks, and returns one chunk
        (float [n, d]) for each, or None for an episode that has to be run again from its start. ``done`` is
        called once for each episode. Raises ``UserError`` if a worker raises one, or if the workers of one
        episode die or hang three times.
        """
        self._start_workers(min(max(self.workers, 1), len(episodes)))
        waiting = deque(Job(i, task, state) for i, (task, state) in enumerate(episodes))
        running: dict[int, Job] = {}  # worker -> job
        try:
            while waiting or running:
                for at in range(len(self._started)):
                    if at not in running and waiting:
                        running[at] = waiting.popleft()
                        self._begin(at, running[at], drive)
                asking: list[tuple[Job, Any, int]] = []
                for at, job in sorted(running.items()):
                    reply = self._receive(at, job)
                    if isinstance(reply, Outcome):
                        del running[at]
                        done(job, reply)
                    else:
                        asking.append((job, reply, at))
                if asking:
                    asking.sort(key=lambda item: item[0].index)
                    chunks = decide([job for job, _, _ in asking], [asked for _, asked, _ in asking])
                    for (job, _, at), chunk in zip(asking, chunks, strict=True):
                        if chunk is None:
                            self._begin(at, job, drive)
                        else:
                            self._send(at, job, ("execute", np.asarray(chunk)))
        except BaseException:
            self.close()  # replies may be under way: the next run starts with new workers
            raise

    def close(self) -> None:
        """End the workers."""
        for worker in self._started:
            worker.hang_up()  # all at once, so that they end side by side
        for worker in self._started:
            worker.close()
        self._started = []

    def pids(self) -> list[int]:
        """The workers' process ids (empty with 0 workers)."""
        return [w.process.pid or 0 for w in self._started if isinstance(w, _Worker)]

    def _start_workers(self, needed: int) -> None:
        while len(self._started) < needed:
            self._started.append(_started(self.spec) if self.workers else _Inline(self.spec))

    def _begin(self, at: int, job: Job, drive: Drive) -> None:
        job.sent.clear()
        self._send(at, job, ("start", drive, job.task, job.initial_state))

    def _send(self, at: int, job: Job, message: tuple[Any, ...]) -> None:
        job.sent.append(message)
        with suppress(OSError):  # it died: _receive finds out and replaces it
            self._started[at].send(message)

    def _receive(self, at: int, job: Job) -> Any:
        try:
            return _checked(self._started[at].receive())
        except (EOFError, OSError) as error:
            job.hangs += isinstance(error, Hung)
        while True:
            job.deaths += 1
            if job.deaths >= MAX_DEATHS:
                raise self._given_up(job)
            self._started[at] = worker = _started(self.spec)
            try:
                for message in job.sent:  # the same actions lead to the same point
                    worker.send(message)
                    reply = worker.receive()
                return _checked(reply)
            except (EOFError, OSError) as error:
                job.hangs += isinstance(error, Hung)

    def _given_up(self, job: Job) -> UserError:
        """The sentence that names the episode."""
        if not job.hangs:
            return UserError(
                f"the worker of episode {job.task}, initial state {job.initial_state}, died "
                f"{job.deaths} times (killed, or out of memory): use fewer workers, or free memory"
            )
        often = "" if job.hangs == job.deaths else f", and died {job.deaths - job.hangs} times"
        return SimulatorError(
            f"the simulator '{self.spec.sim}' did not answer within {answer_seconds():g} s {job.hangs} times{often}, "
            f"at {job.task}, initial state {job.initial_state}: the lines above say where it hangs; if it is only slow, "
            f"set {SECONDS_VARIABLE} to more seconds, or to 0 for no limit"
        )


class _Worker:
    """A worker process and the parent's end of its pipe."""

    def __init__(self, spec: SimSpec) -> None:
        self.seconds = answer_seconds()
        context = get_context("forkserver")
        context.set_forkserver_preload(_preload(spec))
        self.pipe, theirs = context.Pipe()
        with worker_environment():
            self.process = context.Process(target=_serve, args=(theirs, spec), daemon=True)
            self.process.start()
        theirs.close()  # so that the worker's death reads as the end of the pipe

    def send(self, message: tuple[Any, ...]) -> None:
        self.pipe.send(message)

    def receive(self) -> Any:
        """The answer. Raises ``EOFError`` or ``OSError`` of a worker that died, ``Hung`` of one that had to be killed."""
        look = None if math.isinf(self.seconds) else self.seconds / LOOKS
        if not any(self.pipe.poll(look) for _ in range(LOOKS)):
            with suppress(OSError, AttributeError):
                os.kill(self.process.pid or 0, signal.SIGUSR1)  # it writes where it stands (``_serve``)
            self.process.join(timeout=1.0)
            self.process.kill()
            raise Hung
        return self.pipe.recv()

    def hang_up(self) -> None:
        """An idle worker ends when its pipe does."""
        self.pipe.close()

    def close(self) -> None:
        """End the worker; one that is busy is killed."""
        self.hang_up()
        self.process.join(timeout=1.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _started(spec: SimSpec) -> _Worker:
    """A new worker; tried again where the fork server, or the new process, is killed at that very moment."""
    for _ in range(MAX_DEATHS - 1):
        with suppress(EOFError, OSError):
            return _Worker(spec)
    return _Worker(spec)


class _Inline:
    """The same conversation without a process."""

    def __init__(self, spec: SimSpec) -> None:
        self.service = _Service(spec)
        self.reply: Any = None

    def send(self, message: tuple[Any, ...]) -> None:
        self.reply = self.service.handle(message)

    def receive(self) -> Any:
        return self.reply

    def hang_up(self) -> None:
        pass

    def close(self) -> None:
        """Free the simulator."""
        self.service.close()


class WorkerTraceback(Exception):
    """Where an error arose in a worker: the cause of what is raised here."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class _Failure:
    kind: type[Exception]
    sentence: str
    traceback: str


class _Service:
    """What a worker does with its messages. Raises ``UserError`` alone, but for a bug of this program."""

    def __init__(self, spec: SimSpec) -> None:
        self.spec = spec
        self.sim: Sim | None = None  # made with the first episode
        self.runner: EpisodeRunner | None = None
        self.episode = ("", 0)

    def handle(self, message: tuple[Any, ...]) -> Any:
        """Start an episode, or go on with it, up to the next decision."""
        if message[0] == "start":
            _, drive, *episode = message
            self.episode = (episode[0], episode[1])
            with simulating(self.spec, *self.episode):
                self.sim = self.sim or make_sim(self.spec)
                self.runner = EpisodeRunner(self.sim, drive)
                return self.runner.start(*self.episode)
        assert self.runner is not None
        with simulating(self.spec, *self.episode):
            return self.runner.execute(message[1])

    def close(self) -> None:
        """Free the simulator."""
        if self.sim is not None:
            self.sim.close()


def _die_with_owner() -> None:
    """On Linux, have the kernel end this process when the one that asked for it ends, even if it hangs; elsewhere nothing.

    Its parent is the fork server, which lives as long as its children. The owner holds the other end of a pipe, on which
    nothing is ever written: the signal that the kernel sends of it can only tell of its end.
    """
    owner = parent_process()
    if sys.platform == "linux" and owner is not None:
        fcntl.fcntl(owner.sentinel, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(owner.sentinel, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(owner.sentinel, fcntl.F_SETFL, os.O_RDONLY | os.O_ASYNC)
        if not owner.is_alive():
            os._exit(1)


def _serve(pipe: Connection, spec: SimSpec) -> None:
    """A worker's life: it ends when the parent closes the pipe, or ends itself."""
    os.environ.update(_ENVIRONMENT)  # once more: the fork server may have been started by someone else
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's: it ends its workers in order
    _die_with_owner()
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, sys.__stderr__ or sys.stderr)
    service = _Service(spec)
    try:
        while True:
            message = pipe.recv()
            try:
                reply = service.handle(message)
            except Exception as error:
                reply = _Failure(_kind(error), str(error), traceback.format_exc())
            pipe.send(reply)
    except (EOFError, OSError):
        pass
    finally:
        service.close()


def _kind(error: Exception) -> type[Exception]:
    """The class that an error of a worker is raised as in the parent, which may not have its own."""
    return next((k for k in (SimulatorError, UserError) if isinstance(error, k)), RuntimeError)


def _checked(reply: Any) -> Any:
    if isinstance(reply, _Failure):
        raise reply.kind(reply.sentence) from WorkerTraceback(reply.traceback)
    return reply


def _preload(spec: SimSpec) -> list[str]:
    """Modules that the fork server imports once, so that each worker starts at once."""
    modules = ["compression_gap.sims.pool"]
    if spec.sim == "metaworld":
        from .metaworld import choose_backend

        if choose_backend():  # otherwise importing it fails, which the worker reports properly
            modules.append("metaworld.policies")
    if spec.sim == "libero":
        modules.append("compression_gap.sims.libero_preload")
    return modules


def worker_environment() -> AbstractContextManager[None]:
    """What the fork server and its children start with; libraries read it when they are loaded."""
    return environment(_ENVIRONMENT)
