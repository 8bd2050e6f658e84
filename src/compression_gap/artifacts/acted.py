"""Kind "acted": a policy's own chunks, in the place of demonstrations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from functools import cached_property
from typing import Any

import numpy as np

from ..demos.demoset import DemoWriter, assign_splits
from ..store.artifact import Job, role
from ..store.store import Recipe
from .demonstrations import Demonstrations
from .policy_episodes import PolicyEpisodes


class ActedChunks(Demonstrations, kind="acted", version=1):
    """A policy's own undisturbed chunks in the place of demonstrations: each is an episode of H steps.

    Split by the episodes that they were emitted in. Codes are fitted to them where there are no demonstrations.
    """

    played: PolicyEpisodes | None = role("episodes", default=None)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> dict[str, Any]:
        """Nothing beside its input."""
        return {}

    @cached_property
    def recipe(self) -> Recipe:
        """What the store knows it by."""
        return Recipe(self.kind, {}, {r: a.key for r, a in self.inputs.items()}, self.version)

    @property
    def label(self) -> str:
        """Whose."""
        assert self.played is not None
        return f"chunks of {self.played.policy.name}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 1.0

    def build(self, job: Job) -> Mapping[str, Any]:
        """Write them as a set of demonstrations."""
        assert self.played is not None
        trace = self.played.trace(job.store)
        splits = assign_splits(int(trace.episode.max()) + 1)
        every = self.played.protocol.episodes()
        writer = DemoWriter(job.out, source={"kind": "acted", "policy": asdict(self.played.policy)})
        for episode, proprio, chunk in zip(trace.episode, trace.proprio, trace.chunk, strict=True):
            task, state, _ = every[episode]
            writer.stream("actions", chunk)
            writer.stream("proprio", np.repeat(proprio[None], len(chunk), axis=0))
            writer.episode(task, len(chunk), state, split=splits[episode])
        writer.close()
        return {"chunks": len(trace.chunk)}
