"""Kind "features": what a frozen encoder makes of every frame of one set of demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..demos import DemoSet, Rows, frame_rows
from ..records import read_array
from ..store.artifact import Artifact, Job, elided, role
from ..store.store import Store
from .demonstrations import Demonstrations
from .encoder import PreparedEncoder


class Features(Artifact, kind="features", version=1, gpus=0.25):
    """``crop``: of the images, where it is not the encoder's habit."""

    encoder: str
    crop: Mapping[str, Any] | None = elided(default=None)
    demos: Demonstrations
    prepared: PreparedEncoder | None = role("encoder", default=None)

    @property
    def label(self) -> str:
        """Of which encoder."""
        return f"features of {self.encoder}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 5.0

    def build(self, job: Job) -> None:
        """Encode every frame, and write the rows' identity."""
        from ..encoders import make_encoder
        from ..encoders.cache import cache_features

        demos = self.demos.load(job.store)
        folder = None if self.prepared is None else self.prepared.load(job.store)
        encoder = make_encoder(self.encoder, cameras=len(demos.images), folder=folder, crop=self.crop)
        work = None if self.prepared is None else job.work  # the others take seconds
        cache_features(encoder, demos, job.out, job.progress, work=work, should_stop=job.should_stop)
        frame_rows([demos]).save(job.out / "rows.npy")

    def load(self, store: Store, demos: DemoSet) -> np.ndarray:
        """[F, C, ...] of every frame of the set, memory-mapped; ``ValueError`` if the rows are not its frames."""
        folder = store.open(self)
        found = read_array(folder / "features.npy", mapped=True)
        known, file = frame_rows([demos]), folder / "rows.npy"
        rows = Rows.load(file) if file.is_file() else known  # sets of earlier versions have no such file
        if len(found) != len(rows) or len(rows) != len(known):
            raise ValueError(f"{len(found):,} rows of features for {len(known):,} frames")
        rows.find(known, f"the features of {self.encoder}")
        return np.asarray(found)


def load_features(
    features: Sequence[Features], demos: Sequence[Demonstrations], sets: Sequence[DemoSet], store: Store
) -> list[np.ndarray]:
    """The features of each set, in the order of the sets. Raises ``ValueError`` if they are those of other sets."""
    if [f.demos for f in features] != list(demos):
        raise ValueError("the features are those of other demonstrations, or in another order")
    return [f.load(store, s) for f, s in zip(features, sets, strict=True)]
