"""Kind "tokens": the target tokens of every decision point, and the chunks that they decode to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..demos import SPLITS, ChunkSet, Rows, decision_rows
from ..records import read_array
from ..store.artifact import Artifact, Job
from ..store.store import Store
from .demonstrations import Demonstrations
from .normaliser import FittedNormaliser
from .tokenizer import FittedTokenizer

if TYPE_CHECKING:
    from ..tokenizers import Tokens


@dataclass(frozen=True)
class TokenTable:
    """The tokens of one split's decision points, which ``rows`` name."""

    rows: Rows
    ids: np.ndarray  # int64 [N, L]
    lengths: np.ndarray  # int64 [N]
    coded: np.ndarray  # float32 [N, H, d], standardised: what the tokens decode to

    def __post_init__(self) -> None:
        if {len(self.ids), len(self.lengths), len(self.coded)} != {len(self.rows)}:
            raise ValueError(
                f"{len(self.ids):,} rows of target tokens for {len(self.rows):,} decision points"
            )

    def of(self, points: ChunkSet) -> TokenTable:
        """The rows of these decision points, in their order. Raises ``ValueError`` if they are not all here."""
        at = self.rows.find(points.rows, "the target tokens")
        return TokenTable(self.rows.at(at), self.ids[at], self.lengths[at], self.coded[at])

    @property
    def tokens(self) -> Tokens:
        """Ids and lengths, as tokenizers take them."""
        from ..tokenizers import Tokens

        return Tokens(self.ids, self.lengths)


class TargetTokens(Artifact, kind="tokens", version=3):
    """What each chunk of all splits is in a fitted tokenizer's tokens."""

    horizon: int
    stride: int
    demos: tuple[Demonstrations, ...]
    normaliser: FittedNormaliser
    tokenizer: FittedTokenizer

    @property
    def label(self) -> str:
        """Of which code."""
        return f"target tokens of {self.tokenizer.code.words}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 5.0

    def build(self, job: Job) -> None:
        """Encode, decode, and write each split's rows with their identity."""
        tokenizer = self.tokenizer.load(job.store)
        for split in SPLITS:
            chunks = self.normaliser.chunks(job.store, split, horizon=self.horizon, stride=self.stride)
            tokens = tokenizer.encode(chunks.chunks)
            coded = tokenizer.decode(tokens)
            if not coded.ok.all():
                raise ValueError(f"{tokenizer.name} cannot decode {(~coded.ok).sum()} of its own sequences")
            for name, array in {"ids": tokens.ids, "lengths": tokens.lengths, "coded": coded.chunk}.items():
                np.save(job.out / f"{name}-{split}.npy", array, allow_pickle=False)
            chunks.rows.save(job.out / f"rows-{split}.npy")

    def load(self, store: Store, split: str) -> TokenTable:
        """The table of one split, memory-mapped. Raises ``ValueError`` if its rows are not those of the split."""
        folder = store.open(self)
        known = decision_rows(self.normaliser.demosets(store), split, self.stride)
        file = folder / f"rows-{split}.npy"
        rows = Rows.load(file) if file.is_file() else known  # sets of earlier versions have no such file
        rows.find(known, "the target tokens")
        return TokenTable(
            rows,
            *(
                read_array(folder / f"{name}-{split}.npy", mapped=True)
                for name in ("ids", "lengths", "coded")
            ),
        )
