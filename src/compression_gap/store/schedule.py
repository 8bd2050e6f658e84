"""What of a run can be built now: steps whose inputs are there, in the order of the plan.

An engine takes steps from it and says how they went. Its own work for a step does not grow with the number of steps
(a failure looks at all of them once).
"""

from __future__ import annotations

import heapq
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .artifact import AGAIN, Artifact, Needs
from .outcome import Outcome, Watcher, after_failures, note_failure
from .store import Store

Report = tuple[
    str, Any
]  # how building went: "done", "busy", "interrupted" or "failed", and what there is to say of it

DEATHS = 3  # of a step's worker before it counts as a failure


class Schedule:
    """The steps of one run: those that wait, those that are ready, those that an engine builds.

    ``steps`` stand in an order in which they can run. ``goals``: the keys that are wanted for themselves; nothing is
    built for results alone that a failure has put out of reach. ``deadline``: of ``time.monotonic()``.
    """

    def __init__(
        self,
        steps: Sequence[Artifact],
        store: Store,
        watcher: Watcher,
        outcome: Outcome,
        goals: Collection[str],
        deadline: float | None = None,
    ) -> None:
        self.steps, self.store, self.watcher, self.outcome = list(steps), store, watcher, outcome
        self.goals, self.deadline = frozenset(goals), deadline
        self.stopping = False
        self.running: dict[str, float] = {}  # key -> when it was taken
        self._rank = {s.key: i for i, s in enumerate(self.steps)}
        self._users: dict[str, list[Artifact]] = defaultdict(list)
        self._lacks: dict[str, int] = {}
        self._ready: dict[Needs, list[tuple[int, Artifact]]] = defaultdict(list)  # heaps, by what they need
        self._open: set[str] = set()  # keys of what is ready
        self._later: list[
            tuple[float, int, Artifact]
        ] = []  # a heap: what another run builds, and when to look again
        self._told: set[str] = set()  # of these it was said that another run builds them
        self._deaths: dict[str, int] = defaultdict(int)
        for step in self.steps:
            inputs = {i.key for i in step.inputs.values() if i.key in self._rank}
            self._lacks[step.key] = len(inputs)
            for key in inputs:
                self._users[key].append(step)
        self.left = set(self._rank)  # neither built nor given up
        self._give_up()
        for step in self.steps:
            if step.key in self.left and not self._lacks[step.key]:
                self._offer(step)

    def stop(self) -> None:
        """Give out nothing more."""
        self.stopping = True

    def should_stop(self) -> bool:
        """Whether what is under way is to end at its next checkpoint: the budget is spent, or ``stop`` was called."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.stopping = True
        return self.stopping

    def go_on(self) -> bool:
        """Whether an engine has anything to do or to wait for; says in the outcome that the run has stopped early."""
        if self.should_stop() and not self.running:
            self.outcome.stopped = self.outcome.stopped or bool(self.left)
            return False
        if self.left and not (self.running or self._later or any(map(self._live, self._ready.values()))):
            raise RuntimeError("the plan has steps that can never become ready")
        return bool(self.left)

    def take(self, fits: Callable[[Needs], bool] = lambda needs: True) -> Artifact | None:
        """The first step in the plan's order that is ready and fits; None if there is none now."""
        for step in self.heads():
            if fits(step.needs):
                self.begin(step)
                return step
        return None

    def heads(self) -> list[Artifact]:
        """Of the steps that are ready and need the same, the first ones, in the plan's order; none where the run stops."""
        if self.should_stop():
            return []
        while self._later and self._later[0][0] <= time.monotonic():
            self._offer(heapq.heappop(self._later)[2])
        return [step for _, step in sorted(q[0] for q in self._ready.values() if self._live(q))]

    def is_ready(self, step: Artifact) -> bool:
        """Whether it can be begun."""
        return step.key in self._open

    def begin(self, step: Artifact) -> None:
        """An engine builds a step that is ready."""
        self._open.remove(step.key)
        self.running[step.key] = time.monotonic()
        self.watcher.started(step)

    def _live(self, queue: list[tuple[int, Artifact]]) -> list[tuple[int, Artifact]]:
        while queue and queue[0][1].key not in self._open:
            heapq.heappop(queue)  # begun, or given up
        return queue

    def _offer(self, step: Artifact) -> None:
        self._open.add(step.key)
        heapq.heappush(self._ready[step.needs], (self._rank[step.key], step))

    def went(self, step: Artifact, report: Report) -> list[Artifact]:
        """How building a step went; returns what is ready now."""
        kind, content = report
        if kind == "done":
            return self.finished(step, content)
        if kind == "failed":
            self.failed(step, content)
        elif kind == "busy":
            self.elsewhere(step)
        else:
            self.interrupted(step)
        return []

    def finished(self, step: Artifact, own: bool) -> list[Artifact]:
        """It is in the store, built by this run (``own``) or by another one; returns what is ready now."""
        if own:
            self.outcome.built.append(step.key)
        begun = self.running.pop(step.key)
        self.left.discard(step.key)
        ready = []
        for user in self._users[step.key]:
            self._lacks[user.key] -= 1
            if not self._lacks[user.key] and user.key in self.left:
                self._offer(user)
                ready.append(user)
        self.watcher.finished(step, time.monotonic() - begun)
        return ready

    def elsewhere(self, step: Artifact) -> None:
        """Another run builds it: it is looked at again after a while."""
        del self.running[step.key]
        if step.key not in self._told:
            self._told.add(step.key)
            self.watcher.elsewhere(step)
        heapq.heappush(self._later, (time.monotonic() + AGAIN, self._rank[step.key], step))

    def interrupted(self, step: Artifact) -> None:
        """It has ended at a checkpoint, since the run stops."""
        del self.running[step.key]
        self.outcome.stopped = True

    def failed(self, step: Artifact, record: dict[str, str]) -> None:
        """It cannot be built (``failure_record``)."""
        del self.running[step.key]
        note_failure(self.store, step, record, self.outcome)
        self._give_up()
        self.watcher.failed(step, record)

    def died(self, step: Artifact, how: str, kind: str = "crash") -> None:
        """Its worker died (killed, out of memory): it is given to another one, at most twice."""
        self._deaths[step.key] += 1
        if self._deaths[step.key] < DEATHS:
            self.again(step)
            return
        sentence = f"the worker of '{step.label}' died three times {how}"
        self.failed(step, {"kind": kind, "step": step.label, "sentence": sentence, "traceback": ""})

    def again(self, step: Artifact) -> None:
        """It was not built through no fault of its own, and is to be given out again."""
        del self.running[step.key]
        self._offer(step)

    def _give_up(self) -> None:
        """Take out what is not to be tried after the failures so far."""
        if not self.outcome.failures:
            return
        waiting = [s for s in self.steps if s.key in self.left and s.key not in self.running]
        after_failures(self.steps, waiting, self._users, self.goals, self.outcome)
        self.left -= self.outcome.failures.keys()
        self._open -= self.outcome.failures.keys()


@contextmanager
def stopping_at_interrupt(schedule: Schedule, then: Callable[[], None] = lambda: None) -> Iterator[None]:
    """The first Ctrl-C lets what is under way end at its next checkpoint; the second one ends the program."""

    def interrupted(*_: object) -> None:
        if schedule.outcome.interrupted:
            raise KeyboardInterrupt
        print("\nstopping at the next checkpoint; press Ctrl-C again to stop at once", file=sys.stderr)
        schedule.outcome.interrupted = True
        schedule.stop()
        then()

    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python gives signals to the main thread alone
        yield
        return
    before = signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
