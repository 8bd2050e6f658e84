"""Steps that say what they need of a machine, and write down what they were made of: for tests of engines."""

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from compression_gap.store.artifact import Artifact, Job, Needs, elided
from compression_gap.store.graph import Graph


class Piece(Artifact, kind="test-piece", version=1):
    """Sums its inputs and its number. ``gate``: a file that it waits for; ``fails``: how it ends; ``work``: core-seconds."""

    number: int
    gpus: float = elided(default=0.0)
    cpus: float = elided(default=1.0)
    gate: str = elided(default="")
    fails: str = elided(default="")
    seconds: float = elided(default=1.0)
    work: float = elided(default=0.0)
    of: tuple["Piece", ...] = ()

    @property
    def label(self) -> str:
        return f"piece {self.number}"

    @property
    def cost(self) -> float:
        return self.seconds

    @property
    def needs(self) -> Needs:
        return Needs(self.cpus, self.gpus)

    def build(self, job: Job) -> Mapping[str, int]:
        if self.fails == "signal":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails:
            raise ValueError(self.fails)
        if self.gate:
            Path(f"{self.gate}.{self.number}").touch()
            while not Path(self.gate).exists():
                if job.should_stop():
                    from compression_gap.errors import Interrupted

                    raise Interrupted
                time.sleep(0.01)
        end = time.process_time() + self.work
        while time.process_time() < end:
            pass
        total = self.number + sum(i.value(job.store) for i in self.of)
        (job.out / "value.json").write_text(json.dumps(total))
        job.progress(1, 1)
        return {"pid": os.getpid(), "egl": os.environ.get("MUJOCO_EGL_DEVICE_ID", "")}

    def value(self, store) -> int:
        return json.loads((store.open(self) / "value.json").read_text())


class Pieces(Graph):
    """A graph whose last step is wanted, or those that are given."""

    goals: tuple = ()

    @property
    def wanted(self):
        return self.goals or tuple(self.steps.values())[-1:]


class Quiet:
    """A watcher that keeps labels."""

    def __init__(self):
        self.begun, self.done, self.sentences, self.moved, self.others = [], [], [], [], []

    def started(self, step):
        self.begun.append(step.label)

    def progress(self, step, done, total):
        self.moved.append((step.label, done, total))

    def elsewhere(self, step):
        self.others.append(step.label)

    def finished(self, step, seconds):
        self.done.append(step.label)

    def failed(self, step, record):
        self.sentences.append(record["sentence"])


def graph(steps, goals=()) -> Pieces:
    made = Pieces()
    for step in steps:
        made.add(step)
    made.goals = tuple(goals)
    return made
