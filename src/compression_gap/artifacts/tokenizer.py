"""Kind "tokenizer": an action tokenizer fitted to the training chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..store.artifact import Artifact, Job
from ..store.store import Store
from ..tokenizers import tokenizer_entry
from ..tokenizers.code import Code
from .demonstrations import Demonstrations
from .normaliser import FittedNormaliser

if TYPE_CHECKING:
    from ..tokenizers import ActionTokenizer

SECONDS_PER_STEP = {"xs": 0.15, "S": 0.8, "M": 4}  # of 256 chunks


class FittedTokenizer(Artifact, kind="tokenizer", version=4, gpus=0.1):
    """``fitting``: seed, steps, batch_size and lr of a tokenizer with a network; empty of any other."""

    tokenizer: str
    horizon: int
    stride: int
    options: Mapping[str, Any]
    fitting: Mapping[str, Any]
    demos: tuple[Demonstrations, ...]
    normaliser: FittedNormaliser

    @property
    def code(self) -> Code:
        """Its levels; the seed is a number, or None where nothing about the fit is random."""
        levels = self.options.get("levels") if tokenizer_entry(self.tokenizer).codebook else None
        codebook = None if levels is None else tuple(tuple(p) for p in levels)
        return Code(self.tokenizer, codebook, self.fitting.get("seed"))

    @property
    def label(self) -> str:
        """Which code."""
        return f"tokenizer {self.code.words}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        if not self.fitting:
            return 10.0
        per_step = SECONDS_PER_STEP[self.options.get("size", "xs")] * self.fitting["batch_size"] / 256
        return 5 + per_step * int(self.fitting["steps"])

    def build(self, job: Job) -> Mapping[str, Any]:
        """Fit, and say how far held-out chunks are from what they decode to."""
        from ..tokenizers import make_tokenizer

        how: dict[str, Any] = dict(self.fitting)
        if how:  # the others have no network to train
            how |= {"work": job.work, "should_stop": job.should_stop, "progress": job.progress}
        chunks = {
            s: self.normaliser.chunks(job.store, s, horizon=self.horizon, stride=self.stride)
            for s in ("train", "validation", "test")
        }
        train, validation, test = chunks.values()
        tokenizer = make_tokenizer(self.tokenizer, **self.options)
        tokenizer.fit(train.chunks, train.valid, validation=(validation.chunks, validation.valid), **how)
        tokenizer.save(job.out)
        error = (tokenizer.decode(tokenizer.encode(test.chunks)).chunk - test.chunks) ** 2
        return {
            "training": tokenizer.report,
            "capacity_bits": tokenizer.capacity_bits,
            "distortion": float(np.mean(error[test.valid])),  # held-out, normalised units²
        }

    def load(self, store: Store) -> ActionTokenizer:
        """The tokenizer, frozen."""
        from ..tokenizers import load_tokenizer

        return load_tokenizer(store.open(self))

    def round_trip(self, store: Store, prefix: int | None = None) -> Any:
        """Raw chunks through the code and back; ``prefix`` keeps the first tokens alone."""
        from ..policies import coded_round_trip

        return coded_round_trip(self.load(store), self.normaliser.load(store), prefix)
