"""A graph of artefacts: each listed once however many need it, in an order in which they can be built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .artifact import Artifact

Kind = TypeVar("Kind", bound=Artifact)


@dataclass(kw_only=True)
class Graph:
    """Artefacts to build. Of those that are made elsewhere, such as recordings, it knows nothing: they are inputs."""

    steps: dict[str, Artifact] = field(default_factory=dict)  # by key
    # A sketch is to be looked at, not built: checkpoints that the network would tell more about are named in
    # ``absent``, with the sentence that a study refuses them with, and their keys are not those that it would have.
    sketch: bool = False
    absent: dict[str, str] = field(default_factory=dict)

    def add(self, artifact: Kind) -> Kind:
        """Add an artefact, and return the one that stands for it: an equal one, if it is there."""
        found = self.steps.setdefault(artifact.key, artifact)
        assert isinstance(found, type(artifact))
        return found

    @property
    def wanted(self) -> Sequence[Artifact]:
        """The artefacts that results are read from."""
        raise NotImplementedError
