"""How a run goes: who is told, what was built, what failed, and what a failure leaves nothing to do for."""

from __future__ import annotations

import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .artifact import Artifact
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

    def elsewhere(self, step: Artifact) -> None:
        """Another run on the same store builds the step; its result will be taken."""

    def finished(self, step: Artifact, seconds: float) -> None:
        """The step's artefact is committed."""

    def failed(self, step: Artifact, record: dict[str, str]) -> None:
        """The step has failed (``failure_record``)."""


class Watchers:
    """Several watchers as one; each is told in turn."""

    def __init__(self, *watchers: Watcher) -> None:
        self.watchers = watchers

    def started(self, step: Artifact) -> None:
        """See ``Watcher``."""
        for watcher in self.watchers:
            watcher.started(step)

    def progress(self, step: Artifact, done: int, total: int) -> None:
        """See ``Watcher``."""
        for watcher in self.watchers:
            watcher.progress(step, done, total)

    def elsewhere(self, step: Artifact) -> None:
        """See ``Watcher``."""
        for watcher in self.watchers:
            watcher.elsewhere(step)

    def finished(self, step: Artifact, seconds: float) -> None:
        """See ``Watcher``."""
        for watcher in self.watchers:
            watcher.finished(step, seconds)

    def failed(self, step: Artifact, record: dict[str, str]) -> None:
        """See ``Watcher``."""
        for watcher in self.watchers:
            watcher.failed(step, record)


def failure_file(store: Store, of: Keyed) -> Path:
    """Where the record of a failed step lies."""
    return store.root / "failures" / f"{of.kind}-{of.key}.json"


def lasting_failure(store: Store, of: Keyed) -> Path | None:
    """The record of a step that failed for good and has not been built since; None of any other."""
    file = failure_file(store, of)
    return file if file.exists() and not store.recorded(of) else None


Users = Mapping[str, Sequence[Artifact]]  # the steps that need a step, by its key


def _give_up_dependents(users: Users, key: str, outcome: Outcome) -> None:
    """Mark the steps that wait for a failed one; they keep its sentence."""
    behind = [key]
    while behind:
        failed = behind.pop()
        for step in users.get(failed, ()):
            if step.key not in outcome.failures:
                outcome.failures[step.key] = {**outcome.failures[failed], "because": failed}
                behind.append(step.key)


def _give_up_useless(
    steps: Sequence[Artifact],
    waiting: Sequence[Artifact],
    users: Users,
    goals: Collection[str],
    outcome: Outcome,
) -> None:
    """Mark those that wait for nothing: whatever needs them has failed. They keep that failure's sentence."""
    useful = set(goals)
    for step in reversed(steps):
        if step.key not in outcome.failures and step.key in useful:
            useful |= {i.key for i in step.inputs.values()}
    for step in reversed(waiting):  # those that need a step stand behind it
        key = step.key
        if key not in useful and key not in outcome.failures:
            failed = next(u.key for u in users[key] if u.key in outcome.failures)
            outcome.failures[key] = {"because": failed, **outcome.failures[failed]}


def _give_up_simulator(
    steps: Sequence[Artifact], waiting: Sequence[Artifact], users: Users, outcome: Outcome
) -> None:
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
            _give_up_dependents(users, step.key, outcome)


def after_failures(
    steps: Sequence[Artifact],
    waiting: Sequence[Artifact],
    users: Users,
    goals: Collection[str],
    outcome: Outcome,
) -> None:
    """Mark, of the waiting steps, all that is not to be tried after the failures so far."""
    for key in list(outcome.failures):
        _give_up_dependents(users, key, outcome)
    _give_up_simulator(steps, waiting, users, outcome)
    _give_up_useless(steps, waiting, users, goals, outcome)


def note_failure(store: Store, step: Artifact, record: dict[str, str], outcome: Outcome) -> None:
    """Keep a failure's record; a diverged training's also in the store, where it stays until it is retried."""
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
