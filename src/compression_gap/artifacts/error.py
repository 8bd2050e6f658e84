"""Kind "error": how near a predictor's chunks come to the demonstrated ones, episode by episode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..demos import ChunkSet, DemoSet, make_chunks
from ..records import read_array
from ..store.artifact import Artifact, Job
from ..store.store import Store
from .demonstrations import Demonstrations, load_all
from .features import Features, load_features
from .normaliser import FittedNormaliser
from .policy import TrainedPolicy, diverged
from .tokens import TargetTokens

Predicts = Literal["policy", "mean", "last", "coded"]


@dataclass(frozen=True)
class EpisodeErrors:
    """Errors per held-out episode, E of them, over whole chunks and over the executed steps."""

    whole: np.ndarray  # float64 [E]: mean squared error, standard deviations²
    executed: np.ndarray  # float64 [E]
    raw: np.ndarray  # float64 [E, d]: mean squared error of whole chunks, raw action units²
    episode: np.ndarray  # int64 [E]
    task: np.ndarray  # int64 [E]
    points: int
    decode_failures: float


class ChunkError(Artifact, kind="error", version=1):
    """``predictor``: a "policy"; "mean", the mean of the training actions; "last", the action before the decision (the
    mean, where there is none); "coded", the demonstrated chunk through a code. ``points``: decision points at most.
    """

    predictor: Predicts
    tasks: tuple[str, ...]
    horizon: int
    n_obs_steps: int
    stride: int
    execute: int
    points: int
    demos: tuple[Demonstrations, ...]
    normaliser: FittedNormaliser
    features: tuple[Features, ...] = ()
    policy: TrainedPolicy | None = None
    tokens: TargetTokens | None = None

    @property
    def label(self) -> str:
        """Of which predictor."""
        if self.policy is not None:
            return f"chunk error of {self.policy.words(self.policy.code)}"
        if self.tokens is not None:
            return f"error of {self.tokens.tokenizer.code.words} alone"
        return f"error of {self.predictor} action"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 20.0 if self.policy is not None else 1.0

    def build(self, job: Job) -> Mapping[str, Any]:
        """``sums``, ``counts``, ``episode``, ``task`` of ``information.chunk_error.error_sums``."""
        from ..information.chunk_error import error_sums, held_out

        sets, normaliser = load_all(self.demos, job.store), self.normaliser.load(job.store)
        every = make_chunks(
            sets,
            normaliser,
            "test",
            horizon=self.horizon,
            n_obs_steps=self.n_obs_steps,
            stride=self.stride,
            tasks=self.tasks,
        )
        points = held_out(every, self.points)
        predicted, failures = self._predicted(job, sets, points)
        found = error_sums(predicted, points.chunks, points, self.execute)
        for name, array in found.items():
            np.save(job.out / f"{name}.npy", array, allow_pickle=False)
        return {
            "points": len(points),
            "episodes": len(found["episode"]),
            "decode_failures": failures,
            "std": normaliser.std.tolist(),  # raw units
        }

    def _predicted(self, job: Job, sets: Sequence[DemoSet], points: ChunkSet) -> tuple[np.ndarray, float]:
        """Chunks that broadcast to [N, H, d], standardised, and the share that did not decode."""
        if self.policy is not None:
            from ..information.chunk_error import sampled

            features = load_features(self.features, self.demos, sets, job.store) if self.features else []
            policy = self.policy.load(job.store)
            chunks, ok = sampled(policy, sets, features, points, self.tasks, job.progress)
            if not np.isfinite(chunks).all():
                raise diverged(self.policy)
            return chunks, float(1 - ok.mean())
        if self.tokens is not None:
            return self.tokens.load(job.store, "test").of(points).coded, 0.0
        if self.predictor == "last":
            before = points.actions[np.maximum(points.windows.frames[:, -1] - 1, 0)]
            return np.where(points.rows.step[:, None] > 0, before, 0.0)[:, None], 0.0
        return np.zeros((1, 1, points.actions.shape[1])), 0.0  # the training mean, standardised

    def load(self, store: Store) -> EpisodeErrors:
        """Errors per episode."""
        folder, meta = store.open(self), store.meta(self)
        sums, counts, episode, task = (
            read_array(folder / f"{n}.npy") for n in ("sums", "counts", "episode", "task")
        )
        mean = sums / counts[..., None]  # [2, E, d]
        return EpisodeErrors(
            whole=mean[0].mean(1),
            executed=mean[1].mean(1),
            raw=mean[0] * np.asarray(meta["std"]) ** 2,
            episode=episode,
            task=task,
            points=meta["points"],
            decode_failures=meta["decode_failures"],
        )
