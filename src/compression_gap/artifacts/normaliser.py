"""Kind "normaliser": the mean and spread of the training actions, one for all that learns from these demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..demos import ChunkSet, DemoSet, Normaliser, make_chunks
from ..store.artifact import Artifact, Job
from ..store.store import Store
from .demonstrations import Demonstrations, load_all


class FittedNormaliser(Artifact, kind="normaliser", version=1):
    """``Normaliser`` fitted to the training split of these sets."""

    demos: tuple[Demonstrations, ...]

    @property
    def label(self) -> str:
        """Its name."""
        return "normaliser"

    def build(self, job: Job) -> Mapping[str, Any]:
        """Fit and save."""
        actions = [
            d.actions[e.start : e.start + e.length]
            for d in load_all(self.demos, job.store)
            for e in d.split("train")
        ]
        Normaliser.fit(np.concatenate(actions)).save(job.out)
        return {"frames": int(sum(map(len, actions)))}

    def load(self, store: Store) -> Normaliser:
        """The normaliser."""
        return Normaliser.load(store.open(self))

    def demosets(self, store: Store) -> list[DemoSet]:
        """The demonstrations, one set per task or recording."""
        return load_all(self.demos, store)

    def chunks(self, store: Store, split: str, *, horizon: int, stride: int) -> ChunkSet:
        """The chunks of one split, standardised."""
        return make_chunks(self.demosets(store), self.load(store), split, horizon=horizon, stride=stride)
