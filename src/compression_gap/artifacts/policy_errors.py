"""Kind "policy-errors": how near any policy's chunks come to held-out recordings, as it is or under one change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..demos import DemoSet, make_chunks
from ..records import read_array
from ..sims import SimInfo
from ..store.artifact import Artifact, Job
from ..store.store import Store
from .changed import UnderChange
from .demonstrations import Demonstrations, load_all

BATCH = 32


class PolicyErrors(UnderChange, Artifact, kind="policy-errors", version=1):
    """Errors of ``information.chunk_error``, at about so many ``points`` of the recordings' test split.

    ``normaliser`` is needed: the unit of errors is the standard deviation of the recordings' actions.
    """

    tasks: tuple[str, ...]
    horizon: int
    n_obs_steps: int
    points: int
    demos: tuple[Demonstrations, ...]

    @property
    def words(self) -> str:
        """The change, in words."""
        return self.change or "as it is"

    @property
    def label(self) -> str:
        """Under which change."""
        return f"chunk error of {self.policy.name}, {self.words}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 5 + 0.05 * self.points

    def build(self, job: Job) -> Mapping[str, Any]:
        """``errors.npy`` float64 [E]: of whole chunks, one a held-out episode."""
        from ..information.chunk_error import decision_seeds, error_sums, held_out, observed

        assert self.normaliser is not None
        sets, normaliser = load_all(self.demos, job.store), self.normaliser.load(job.store)
        every = make_chunks(
            sets, normaliser, "test", horizon=self.horizon, n_obs_steps=self.n_obs_steps, tasks=self.tasks
        )
        points = held_out(every, self.points)
        seeds, chunks, ok = decision_seeds(points, self.tasks), [], []
        mean = np.concatenate([s.proprio for s in sets]).mean(0)
        with self.acting(job.store, self.tasks, recorded_info(sets[0]), mean) as actor:
            for start in range(0, len(points), BATCH):
                rows = np.arange(start, min(start + BATCH, len(points)))
                emitted = actor.act(observed(sets, points.windows.at(rows)), seeds[rows])
                chunks.append(normaliser.normalise(np.asarray(emitted.chunk, np.float32)))
                ok.append(np.asarray(emitted.ok, bool))
                job.progress(int(rows[-1]) + 1, len(points))
        found = error_sums(np.concatenate(chunks), points.chunks, points, self.horizon)
        errors = (found["sums"][0] / found["counts"][0][:, None]).mean(1)
        np.save(job.out / "errors.npy", errors, allow_pickle=False)
        return {"points": len(points), "decode_failures": float(1 - np.concatenate(ok).mean())}

    def load(self, store: Store) -> np.ndarray:
        """Errors of whole chunks per held-out episode, float64 [E], standard deviations²."""
        return read_array(store.open(self) / "errors.npy")


def recorded_info(first: DemoSet) -> SimInfo:
    """What recordings are like, in a simulator's words; they have no steps to execute."""
    return SimInfo(
        action_dim=first.actions.shape[1],
        proprio_dim=first.proprio.shape[1],
        state_dim=0 if first.state is None else first.state.shape[1],
        cameras=tuple(first.images),
        step_limit=0,
        versions={},
    )
