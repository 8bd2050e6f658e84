"""Cells of a study: the levels of one trained policy, and the keys of what it needs; reference actors beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from ..store.store import Recipe
from ..tokenizers.levels import Levels, codebook_name

OwnSeed = Literal["training"]  # of what is fitted anew for each training seed, with that seed


@dataclass(frozen=True)
class Code:
    """A tokenizer's levels: its name, its FSQ levels if it has any, its seed if it is trained.

    With the seed "training" each training seed has a fitted tokenizer of its own (``fitted``); with a number all share
    the one that was fitted with it. None: nothing about the fit is random.
    """

    tokenizer: str
    codebook: Levels | None
    seed: int | OwnSeed | None

    def fitted(self, seed: int) -> Code:
        """The code that policies of this training seed use."""
        return replace(self, seed=seed) if self.seed == "training" else self

    @property
    def name(self) -> str:
        """The tokenizer, with its codebook."""
        return self.tokenizer + ("" if self.codebook is None else f" {codebook_name(self.codebook)}")

    @property
    def seed_number(self) -> int | None:
        """The seed of a code as fitted. Raises ``ValueError`` for one that follows the training seed."""
        if self.seed == "training":
            raise ValueError(f"{self.name} is fitted once for each training seed: say for which")
        return self.seed

    @property
    def words(self) -> str:
        """The name, with the seed of a fit that has one."""
        return self.name + ("" if self.seed is None else f", seed {self.seed}")


def code_names(codes: Sequence[Code]) -> dict[Code, str]:
    """A name of its own for each code: those that share one differ in their levels or their seed."""
    out = {}
    for code in codes:
        alike = [c for c in codes if c.tokenizer == code.tokenizer]
        words = [code.tokenizer]
        if code.codebook is not None:
            words.append(codebook_name(code.codebook, [c.codebook for c in alike]))
        if len({c.seed for c in alike}) > 1:
            words.append(f"seed {code.seed}")
        out[code] = " ".join(words)
    return out


class Trained(Protocol):
    """A trained policy among its replicates: a cell of a study in a simulator or on recordings."""

    @property
    def encoder(self) -> str:
        """The encoder's name."""

    @property
    def size(self) -> str:
        """The trunk's size."""

    @property
    def seed(self) -> int:
        """The training seed."""

    @property
    def code(self) -> Code | None:
        """The code, of a token policy or of the swap."""

    @property
    def policy(self) -> Recipe:
        """The training."""

    @property
    def trained_on(self) -> TrainedOn:
        """Recorded chunks, or what a code makes of them."""

    @property
    def swapped(self) -> bool:
        """Whether the controlled swap switches the code on."""

    @property
    def representation(self) -> str:
        """The action representation in words."""

    @property
    def levels(self) -> tuple[Any, ...]:
        """The levels without the training seed."""


TrainedOn = Literal["chunk", "coded"]
Executed = Literal["chunk", "snapped"]
_SWAPS: dict[tuple[TrainedOn, Executed], str] = {
    ("coded", "snapped"): "with the code of",
    ("coded", "chunk"): "trained on the code of",
    ("chunk", "snapped"): "snapped to the code of",
}


def representation(action: str, code: Code | None, trained_on: TrainedOn, executed: Executed) -> str:
    """An action representation in words, with how the controlled swap trains and executes it."""
    how = _SWAPS.get((trained_on, executed))
    return action if how is None or code is None else f"{action} {how} {code.tokenizer}"


def task_words(task: str) -> list[str]:
    """How the task enters a policy, in words; nothing for the learned embedding, which is the usual way."""
    return {"index": ["task as index"], "text": ["task as text"]}.get(task, [])


@dataclass(frozen=True)
class Cell:
    """One trained policy as it is executed: its levels, and the keys of what it needs.

    ``code`` is the tokenizer of a token policy, or the one that a swapped policy is trained on (``trained_on``
    "coded") or snapped to (``executed`` "snapped").
    """

    encoder: str
    action: str
    size: str
    demos: int
    code: Code | None
    seed: int
    policy: Recipe
    episodes: Recipe
    trained_on: TrainedOn = "chunk"
    executed: Executed = "chunk"
    task: str = "embedding"  # how the task enters the policy
    checkpoints: tuple[tuple[int, Recipe], ...] = ()  # earlier steps of the training, and their episodes

    @property
    def swapped(self) -> bool:
        """Whether the controlled swap switches the code on, in training or in execution."""
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
class Reference:
    """A reference actor that needs no training: expert, expert-chunked, expert-coded.

    ``runs``: its episodes, by the seed of the fitted tokenizer; one run, of seed None, where nothing random is fitted.
    """

    actor: str
    code: Code | None
    demos: int | None
    runs: dict[int | None, Recipe]
