"""Kind "text": the tasks' instructions, and what a text encoder makes of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..encoders.pin import AbsentPin, TextPin
from ..store.artifact import Artifact, Job
from ..store.store import Store

if TYPE_CHECKING:
    from ..encoders.text import Instructions


class EmbeddedInstructions(Artifact, kind="text", version=1, gpus=0.25):
    """``pin``: all that decides the embeddings of a checkpoint (``encoders.text.resolve_text``)."""

    pin: TextPin | AbsentPin
    instructions: tuple[str, ...]

    @property
    def label(self) -> str:
        """By which encoder."""
        return f"instructions embedded by {self.pin.encoder}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 20.0

    def build(self, job: Job) -> None:
        """Embed them."""
        from ..encoders.text import prepare_text

        assert isinstance(self.pin, TextPin)
        prepare_text(self.pin, self.instructions, job.out)

    def load(self, store: Store) -> Instructions:
        """Instructions and embeddings."""
        from ..encoders.text import Instructions

        return Instructions.load(store.open(self))
