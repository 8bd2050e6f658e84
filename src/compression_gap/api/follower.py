"""A watcher in a process of its own. Whatever happens there, the run that it follows goes on.

What the watcher is told passes through a queue with an end, which is never waited for: a follower that raises, hangs or
falls behind loses news, and no step waits. At the end it has a few seconds to finish.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Protocol

from ..store.artifact import Artifact
from ..store.outcome import Watcher
from ..store.workers import spawning

WAITING = 1000  # news that may wait for a follower
PROGRESS_EVERY = 1.0  # seconds between two reports of one step's progress
PATIENCE = 10.0  # seconds that a follower has at the end
IDLE_EVERY = 0.5  # seconds between two looks of a follower that is told nothing

Say = Callable[[str], None]


class Following(Watcher, Protocol):
    """What a follower does, in its own process. What it raises ends it, and is said once."""

    def begin(self, steps: Sequence[Artifact], total: int, workers: int) -> None:
        """A run with so many workers begins: the steps to do, of ``total``."""

    def idle(self) -> None:
        """Nothing is waiting to be told; called about twice a second."""

    def close(self) -> None:
        """The run has ended, or its process is gone."""


@dataclass(frozen=True)
class Follower:
    """How to make one: ``make`` is called in its process, with what says a sentence to the user."""

    name: str  # as in "the mirror wandb"
    make: Callable[[Say], Following]
    log: Path  # takes what it prints
    patience: float


@contextlib.contextmanager
def following(
    followers: Sequence[Follower], steps: Sequence[Artifact], total: int, workers: int, say: Say
) -> Iterator[list[Watcher]]:
    """Watchers that tell these followers of a run."""
    told: list[Followed] = []
    try:
        for follower in followers:
            told.append(Followed(follower, say))
            told[-1].tell("begin", list(steps), total, workers)
        yield list(told)
    finally:
        for one in told:
            one.tell("close")
        for one in told:
            one.end()


class Followed:
    """The run's end of a follower: it never raises, and never waits."""

    def __init__(self, follower: Follower, say: Say) -> None:
        self.follower, self.say = follower, say
        self.gone = self.behind = False
        self.waiting: queue.Queue[Any] = queue.Queue(WAITING)
        self.told_at: dict[str, float] = {}
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_follow, args=(theirs, follower, os.getpid()), daemon=True)
        with spawning(threads=1):
            self.process.start()
        theirs.close()
        self.sender = threading.Thread(target=self._send, daemon=True)  # it waits where the run must not
        self.sender.start()

    def started(self, step: Artifact) -> None:
        """See ``Watcher``."""
        self.tell("started", step)

    def progress(self, step: Artifact, done: int, total: int) -> None:
        """See ``Watcher``; told now and then."""
        now = time.monotonic()
        if now - self.told_at.get(step.key, -PROGRESS_EVERY) >= PROGRESS_EVERY:
            self.told_at[step.key] = now
            self.tell("progress", step, done, total)

    def elsewhere(self, step: Artifact) -> None:
        """See ``Watcher``."""
        self.tell("elsewhere", step)

    def finished(self, step: Artifact, seconds: float) -> None:
        """See ``Watcher``."""
        self.tell("finished", step, seconds)

    def failed(self, step: Artifact, record: dict[str, str]) -> None:
        """See ``Watcher``."""
        self.tell("failed", step, record)

    def tell(self, *news: Any) -> None:
        """Put it into the queue, if there is room."""
        self._hear()
        if self.gone:
            return
        try:
            # Made bytes of here: in the thread, the run could change a step meanwhile.
            text = bytes(ForkingPickler.dumps(news))
        except Exception as error:  # whatever a step of another package raises
            self._lost(f"cannot be told ({type(error).__name__}: {error})")
            return
        try:
            self.waiting.put_nowait(text)
        except queue.Full:
            if not self.behind:
                self.behind = True
                self.say(f"{self.follower.name} does not keep up: part of the run will be missing there")

    def end(self) -> None:
        """Wait a little for it to end, then end it."""
        until = time.monotonic() + self.follower.patience
        while self.process.is_alive() and time.monotonic() < until:
            self._hear()
            self.process.join(0.05)
        self._hear()
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            self._lost(
                f"did not end within {self.follower.patience:g} s: part of the run may be missing there"
            )
        self.gone = True
        with contextlib.suppress(queue.Full):
            self.waiting.put_nowait(None)
        self.sender.join(1.0)
        self.connection.close()

    def _hear(self) -> None:
        """Pass on what it says."""
        try:
            while not self.gone and self.connection.poll():
                kind, sentence = self.connection.recv()
                if kind == "failed":
                    self._lost(sentence)
                elif kind == "ended":
                    self.gone = True
                else:
                    self.say(sentence)
        except (EOFError, OSError):
            self._lost("has died")

    def _lost(self, how: str) -> None:
        if not self.gone:
            self.gone = True
            self.say(f"{self.follower.name} {how}; the study goes on (see {self.follower.log})")

    def _send(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the follower is gone; ``_hear`` says so
            while (news := self.waiting.get()) is not None:
                self.connection.send_bytes(news)


def _follow(connection: Connection, follower: Follower, parent: int) -> None:
    """A follower's life: it is told until the pipe is closed, or until it raises."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after, args=(parent, follower.patience), daemon=True).start()
    _print_to(follower.log)
    with contextlib.suppress(OSError):
        os.nice(19)  # the workers come first
    try:
        own = follower.make(lambda sentence: connection.send(("say", sentence)))
        for method, *about in _news(connection, own):
            getattr(own, method)(*about)
    except Exception as error:
        import traceback

        traceback.print_exc()
        words = " ".join(str(error).split())[:200]
        _answer(connection, "failed", f"failed ({type(error).__name__}: {words})")
    else:
        _answer(connection, "ended", "")
    sys.stdout.flush()


def _news(connection: Connection, own: Following) -> Iterator[tuple[Any, ...]]:
    """What there is to tell, until the end of it; ``close`` comes last, also when the run was killed."""
    while True:
        if not connection.poll():
            own.idle()
            if not connection.poll(IDLE_EVERY):
                continue
        try:
            news = connection.recv()
        except (EOFError, OSError):
            news = ("close",)
        yield news
        if news == ("close",):
            return


def _end_after(parent: int, patience: float) -> None:
    """A run that was killed ends nobody: what hangs would stay for ever."""
    while os.getppid() == parent:
        time.sleep(IDLE_EVERY)
    time.sleep(patience)
    os._exit(1)


def _answer(connection: Connection, kind: str, sentence: str) -> None:
    with contextlib.suppress(OSError):
        connection.send((kind, sentence))


def _print_to(log: Path) -> None:
    """What is printed here goes into a file, and nothing can be asked of the user."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as file, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
