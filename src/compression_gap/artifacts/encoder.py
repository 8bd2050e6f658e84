"""Kinds "frames" and "encoder": pretraining frames, and what a prepared encoder needs before it sees anything.

A prepared encoder is the scales of the oracle's state, the pin of a checkpoint, or a pretraining size of the controlled ladder,
which is pretrained on frames from the simulator and tasks of the demonstrations, in blocks that all sizes share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

from ..demos.frames import BLOCK, VALIDATION
from ..encoders.ladder import PRETRAINING, is_pose
from ..encoders.pin import AbsentPin, Pin
from ..encoders.registry import reads_scaled_state
from ..sims import SimSpec
from ..store.artifact import UNKEYED, Artifact, Job, elided
from ..store.store import Store
from .demonstrations import Demonstrations, load_all

SECONDS_PER_FRAME = 0.03  # rendered, physics included
SECONDS_PER_SAMPLE = 1.5e-3  # trained on, at 84 pixels


class PretrainingFrames(Artifact, kind="frames", version=1, simulated=True):
    """One block of frames of one task; block 0 is for validation."""

    sim: SimSpec
    task: str
    versions: Mapping[str, str]
    block: int
    frames: int = BLOCK

    @property
    def label(self) -> str:
        """Which frames."""
        which = "validation frames" if self.block == VALIDATION else f"pretraining frames {self.block}"
        return f"{which} of {self.task}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return SECONDS_PER_FRAME * self.frames

    @property
    def packages(self) -> Mapping[str, str]:
        """The simulator's."""
        return self.versions

    def build(self, job: Job) -> Mapping[str, Any]:
        """Render them."""
        from ..demos.frames import collect_frames

        found = collect_frames(
            self.sim, self.task, self.block, job.out, frames=self.frames, progress=job.progress
        )
        return {**found}


class PreparedEncoder(Artifact, kind="encoder", version=1, gpus=0.25):
    """``pin``: all that decides a checkpoint's weights, which is then the whole specification.

    Of a pretraining size: its cameras and image size, how it is ``pretraining``, how many frames of each task it sees
    (``shares``), and which dimensions of the state are its targets (``moving``).
    """

    encoder: str
    pin: Pin | AbsentPin | None = field(default=None, metadata=UNKEYED)
    cameras: tuple[str, ...] = elided(default=())
    image_size: int = elided(default=0)
    pretraining: Mapping[str, Any] | None = elided(default=None)
    shares: tuple[int, ...] = elided(default=())
    moving: Mapping[str, float] | None = elided(default=None)
    demos: tuple[Demonstrations, ...] = ()
    frames: tuple[tuple[PretrainingFrames, ...], ...] = ()  # by task; the first block is for validation

    @property
    def spec(self) -> dict[str, Any]:
        """The specification."""
        return super().spec if self.pin is None else asdict(self.pin)

    @property
    def label(self) -> str:
        """What is prepared."""
        if self.pin is not None:
            return f"weights of {self.encoder}"
        if self.pretraining is None:
            return "scales of the true state"
        seed = self.pretraining["seed"]
        return (
            f"pretraining {self.encoder}, seed {seed}"
            if self.shares
            else f"{self.encoder}: initial weights, seed {seed}"
        )

    @property
    def cost(self) -> float:
        """Core-seconds."""
        if not self.shares:
            return 2.0 if self.pin is None else 10.0
        samples = PRETRAINING["steps"] * PRETRAINING["batch_size"] * len(self.cameras)
        return 5 + SECONDS_PER_SAMPLE * samples * (self.image_size / 84) ** 2

    def build(self, job: Job) -> Mapping[str, Any]:
        """A prepared folder. A pretraining size's record holds curve, R² of its own heads, frames, seconds, FLOPs."""
        if reads_scaled_state(self.encoder):
            from ..encoders.limits import Oracle

            Oracle.prepare(load_all(self.demos, job.store), job.out)
            return {}
        if not is_pose(self.encoder):
            from ..encoders.checkpoints import prepare_pretrained

            assert isinstance(self.pin, Pin)
            prepare_pretrained(self.pin, job.out)
            return {}
        from ..demos.frames import FrameSet, join_frames
        from ..encoders.pose import prepare

        sets, validation = [], []
        for blocks, count in zip(self.frames, self.shares, strict=True):
            held, *trained = [FrameSet.load(job.store.open(b)) for b in blocks]
            validation.append(held)
            sets.append(join_frames(trained, count))
        assert self.pretraining is not None
        return prepare(
            self.encoder,
            sets,
            validation,
            job.out,
            cameras=self.cameras,
            image_size=self.image_size,
            pretraining=self.pretraining,
            work=job.work,
            should_stop=job.should_stop,
            progress=job.progress,
        )

    def load(self, store: Store) -> Path:
        """The folder that ``encoders.make_encoder`` takes."""
        return store.open(self)
