"""A tokenizer's levels in a study: which tokenizer, with which codebook, fitted with which seed; and their names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from .levels import Levels, codebook_name

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

    def tokens(self, otherwise: int) -> int:
        """Tokens a chunk: as many as the codebook lists, ``otherwise`` where one codebook serves all positions."""
        return len(self.codebook) if self.codebook and len(self.codebook) > 1 else otherwise

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
