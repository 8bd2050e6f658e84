"""Cells of a study: the levels of one trained policy, and what it needs; reference actors beside them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ..artifacts.policy import Executed, TrainedOn, TrainedPolicy, representation
from ..artifacts.tokenizer import FittedTokenizer
from ..store.artifact import Artifact
from ..tokenizers.code import Code

E = TypeVar("E", bound=Artifact)  # what an outcome is read from: episodes, or errors on recordings


@dataclass(frozen=True)
class Cell(Generic[E]):
    """One trained policy as it is executed: its levels, and the evidence of it.

    ``code`` is the tokenizer of a token policy, or the one that a swapped policy is trained on (``trained_on``
    "coded") or snapped to (``executed`` "snapped").
    """

    encoder: str
    action: str
    size: str
    demos: int | None  # of each task; None where recordings are taken whole
    code: Code | None
    seed: int
    policy: TrainedPolicy
    evidence: E
    trained_on: TrainedOn = "chunk"
    executed: Executed = "chunk"
    task: str = "embedding"  # how the task enters the policy
    checkpoints: tuple[tuple[int, E], ...] = ()  # earlier steps of the training, and their evidence

    @property
    def fitted(self) -> FittedTokenizer | None:
        """The tokenizer of ``code``, as fitted for this seed."""
        if self.policy.tokens is not None:
            return self.policy.tokens.tokenizer
        return getattr(self.evidence, "tokenizer", None)  # what a continuous head's chunks are snapped to

    @property
    def swapped(self) -> bool:
        """Whether the matched-head ablation switches the code on, in training or in execution."""
        return (self.trained_on, self.executed) != ("chunk", "chunk")

    @property
    def representation(self) -> str:
        """The action representation in words."""
        return representation(self.action, self.code, self.trained_on, self.executed)

    @property
    def levels(self) -> tuple[Any, ...]:
        """The levels without the training seed: cells that share them are replicates."""
        return (self.encoder, *self.others)

    @property
    def others(self) -> tuple[Any, ...]:
        """The levels without encoder and training seed."""
        return (self.action, self.trained_on, self.executed, self.size, self.demos, self.code, self.task)


@dataclass(frozen=True)
class Reference(Generic[E]):
    """What needs no training: expert, expert-chunked, expert-coded; on recordings the actions "mean", "last", "coded".

    ``runs``: its evidence, by the seed of the fitted tokenizer; one, of seed None, where nothing random is fitted.
    """

    actor: str
    code: Code | None
    demos: int | None
    runs: dict[int | None, E]

    def of_seeds(self, seeds: Collection[int]) -> Reference[E]:
        """The same with the runs of tokenizers that are fitted for these training seeds."""
        fitted = {None if self.code is None else self.code.fitted(seed).seed_number for seed in seeds}
        return replace(
            self, runs={seed: run for seed, run in self.runs.items() if seed is None or seed in fitted}
        )

    @property
    def fitted(self) -> FittedTokenizer | None:
        """The tokenizer of ``code``, as fitted for the first seed."""
        first = next(iter(self.runs.values()))
        tokens = getattr(first, "tokens", None)
        return getattr(first, "tokenizer", None) if tokens is None else tokens.tokenizer
