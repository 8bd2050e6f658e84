"""What a mirror is told of a study: one run for the study, one for each training, one for each reference.

| run | numbers | step |
|---|---|---|
| the study | ``study/done``, ``study/failed``, ``study/seconds_left`` | steps done and failed |
| a training | ``loss/train``, ``loss/validation``, ``speed/steps_per_second`` | of the training |
| its evidence, in the same run | ``success/all``, ``success/TASK``; on recordings ``chunk error/…`` | of the training |
| a reference | the same | 0 |

They are read from the store when a step is committed, so they are those of the report.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...artifacts.episodes import Episodes
from ...artifacts.error import ChunkError
from ...artifacts.policy import TrainedPolicy
from ...store.artifact import Artifact
from ...store.pace import Ahead
from ...store.store import Store
from .base import Mirror, Run

LEFT_EVERY = 30.0  # seconds between two numbers of the time left while no step ends
Evidence = Episodes | ChunkError


class StudyMirror:
    """Puts a study's news into the runs of a mirror."""

    def __init__(self, mirror: Mirror, study: str, store: Store) -> None:
        self.mirror, self.store = mirror, store
        self.study = self._run(study, study, {})
        self.done = self.failures = 0
        self.logged = 0.0
        self.open: dict[str, Run] = {}  # by the key of a training or reference
        self.awaited: dict[str, set[str]] = {}  # what is still to come for it

    def begin(self, steps: Sequence[Artifact], total: int, workers: int) -> None:
        """Begin the study's run."""
        self.done, self.ahead = total - len(steps), Ahead(steps, workers)
        self.study = self._run(self.study.name, self.study.name, {"steps": total})
        for step in steps:
            if isinstance(step, Evidence):
                self.awaited.setdefault(_subject(step).key, set()).add(step.key)
        self.mirror.begin(self.study)
        self._study_moved()

    def started(self, step: Artifact) -> None:
        """Nothing is known of it yet."""

    def elsewhere(self, step: Artifact) -> None:
        """Its result will come."""

    def idle(self) -> None:
        """Nothing to do."""

    def progress(self, step: Artifact, done: int, total: int) -> None:
        """The time left, now and then."""
        self.ahead.moved(step, done, total)
        if time.monotonic() - self.logged > LEFT_EVERY:
            self._study_moved()

    def finished(self, step: Artifact, seconds: float) -> None:
        """What the step has measured."""
        self.done += 1
        self.ahead.ended(step, seconds)
        if isinstance(step, Evidence):
            self._evidence(step)
        elif curve := _curve(self.store.meta(step)):
            self._curve(step, curve)
        self._study_moved()

    def failed(self, step: Artifact, record: dict[str, str]) -> None:
        """A training that failed is a run that failed."""
        self.failures += 1
        self.ahead.ended(step)
        if isinstance(step, TrainedPolicy):
            self._end(self._begun(step, failure=record["sentence"]), failed=True)
        self._study_moved()

    def close(self) -> None:
        """End what is open."""
        for run in list(self.open.values()):
            self._end(run)
        self.mirror.end(self.study, failed=self.failures > 0)
        self.mirror.close()

    def _study_moved(self) -> None:
        self.logged = time.monotonic()
        values = {"done": self.done, "failed": self.failures, "seconds_left": self.ahead.seconds}
        self.mirror.log(
            self.study, self.done + self.failures, {f"study/{n}": float(v) for n, v in values.items()}
        )

    def _curve(self, step: Artifact, curve: Mapping[str, Sequence[float]]) -> None:
        run = self._begun(step)
        before = (0.0, 0.0)
        for i, at in enumerate(curve["step"]):
            values = {f"loss/{n}": float(curve[n][i]) for n in ("train", "validation") if n in curve}
            if "seconds" in curve:
                now = (float(at), float(curve["seconds"][i]))
                values["speed/steps_per_second"] = (now[0] - before[0]) / max(1e-9, now[1] - before[1])
                before = now
            self.mirror.log(run, int(at), values)
        self._end_if_complete(step)

    def _evidence(self, step: Evidence) -> None:
        subject = _subject(step)
        at = getattr(step, "checkpoint", None)
        if at is None:
            at = 0 if step.policy is None else int(step.policy.training["steps"])
        self.mirror.log(self._begun(subject), at, _measured(step, self.store))
        self.awaited[subject.key].discard(step.key)
        self._end_if_complete(subject)

    def _begun(self, of: Artifact, **more: str) -> Run:
        """The run of a training or a reference, which is open from now on."""
        if of.key not in self.open:
            self.open[of.key] = run = self._run(of.key, of.label, {**_config(of), **more})
            self.mirror.begin(run)
        return self.open[of.key]

    def _run(self, key: str, name: str, config: Mapping[str, Any]) -> Run:
        """The same artefact in another store is another run."""
        where = f"{platform.node()}:{self.store.root.resolve()}:{key}"
        return Run(hashlib.sha256(where.encode()).hexdigest()[:16], name, config)

    def _end_if_complete(self, of: Artifact) -> None:
        if not self.awaited.get(of.key):
            self._end(self.open[of.key])

    def _end(self, run: Run, *, failed: bool = False) -> None:
        self.open = {k: r for k, r in self.open.items() if r != run}
        self.mirror.end(run, failed=failed)


def _subject(step: Evidence) -> Artifact:
    """Whose run takes the evidence: the training's, or a reference's own."""
    return step if step.policy is None else step.policy


def _config(of: Artifact) -> Mapping[str, Any]:
    """The resolved specification, and what the artefact is called in the store."""
    levels = {"action": of.action} if isinstance(of, TrainedPolicy) else {}
    return {**of.spec, **levels, "artifact": f"{of.kind}/{of.key}"}


def _curve(meta: Mapping[str, Any]) -> Mapping[str, Sequence[float]] | None:
    """The learning curve in a record; a tokenizer's lies in what its fit said."""
    found = meta.get("curve") or (meta.get("training") or {}).get("curve")
    return found if isinstance(found, Mapping) and "step" in found else None


def _measured(step: Evidence, store: Store) -> dict[str, float]:
    """The evidence in numbers: the mean of each task, and of all tasks."""
    if isinstance(step, Episodes):
        rows = step.load(store)
        what, tasks, values = "success", rows["task"], rows["success"].astype(float)
        if step.actor == "snapped" and step.tokenizer is not None:
            what += f" requantised by {step.tokenizer.code.words}"
    else:
        errors = step.load(store)
        what, tasks, values = "chunk error", np.asarray(step.tasks)[errors.task], errors.whole
    means = {str(task): float(values[tasks == task].mean()) for task in dict.fromkeys(tasks)}
    return {
        f"{what}/all": float(np.mean(list(means.values()))),
        **{f"{what}/{t}": m for t, m in means.items()},
    }
