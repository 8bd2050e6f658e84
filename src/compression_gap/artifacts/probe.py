"""Kind "probe": how much of the true state a linear reader recovers from a frozen encoder's features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..statistics.intervals import Span
from ..store.artifact import Artifact, Job
from ..store.store import Store
from .demonstrations import Demonstrations, load_all
from .features import Features, load_features

if TYPE_CHECKING:
    from ..encoders.probe import Probed


class Probe(Artifact, kind="probe", version=2):
    """Ridge regression from the cached features to the true state, per task; the demonstrations must hold it."""

    state_names: tuple[str, ...]
    demos: tuple[Demonstrations, ...]
    features: tuple[Features, ...]

    @property
    def label(self) -> str:
        """Of which encoder."""
        return f"probe of {self.features[0].encoder}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 10.0 * len(self.demos)

    def build(self, job: Job) -> Mapping[str, Any]:
        """Fit on the training split, measure on the held-out one."""
        from ..encoders.probe import probe

        sets = load_all(self.demos, job.store)
        features = load_features(self.features, self.demos, sets, job.store)
        return asdict(probe(features, sets, state_names=list(self.state_names), progress=job.progress))

    def load(self, store: Store) -> Probed:
        """What it found."""
        from ..encoders.probe import Probed, TaskProbe

        meta = store.meta(self)
        return Probed(
            mean=None if meta["mean"] is None else Span(**meta["mean"]),
            tasks={task: TaskProbe.from_json(told) for task, told in meta["tasks"].items()},
            features=meta["features"],
        )
