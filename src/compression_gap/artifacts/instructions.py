"""Kind "text": the tasks' instructions, and what a text encoder makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..store.artifact import Artifact, Job
from ..store.store import Store

if TYPE_CHECKING:
    from ..encoders.text import Instructions


class EmbeddedInstructions(Artifact, kind="text", version=1):
    """``pin``: all that decides the embeddings of a checkpoint (``encoders.text.resolve_text``)."""

    pin: Mapping[str, Any]
    instructions: tuple[str, ...]

    @property
    def label(self) -> str:
        """By which encoder."""
        return f"instructions embedded by {self.pin['encoder']}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 20.0

    def build(self, job: Job) -> None:
        """Embed them."""
        from ..encoders.text import prepare_text

        prepare_text(self.spec, job.out)

    def load(self, store: Store) -> Instructions:
        """Instructions and embeddings."""
        from ..encoders.text import Instructions

        return Instructions.load(store.open(self))
