"""Kind "health": what a fitted code is like: its codebook's use, its distortion, and the bits that a prior needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from ..demos import SPLITS
from ..records import read_array
from ..store.artifact import Artifact, Job
from ..store.store import Store
from .demonstrations import Demonstrations
from .normaliser import FittedNormaliser
from .tokenizer import FittedTokenizer
from .tokens import TargetTokens


class CodeHealth(Artifact, kind="health", version=3, gpus=0.1):
    """``sigma``: the resolution, in standard deviations, of "within σ"; ``prior_steps``: training steps of the prior."""

    horizon: int
    stride: int
    sigma: float
    prior_steps: int
    demos: tuple[Demonstrations, ...]
    normaliser: FittedNormaliser
    tokenizer: FittedTokenizer
    tokens: TargetTokens

    @property
    def label(self) -> str:
        """Of which code."""
        return f"health of {self.tokenizer.code.words}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 20 + 0.15 * self.prior_steps

    def build(self, job: Job) -> Mapping[str, Any]:
        """``prior.npy`` float64 [N]: −log2 of each held-out chunk's tokens under the prior; all else is the record."""
        from ..information.health import code_health, throughput
        from ..information.prior import prior_bits

        tokenizer = self.tokenizer.load(job.store)
        tables = {split: self.tokens.load(job.store, split) for split in SPLITS}
        tokens = {split: table.tokens for split, table in tables.items()}
        held = self.normaliser.chunks(job.store, "test", horizon=self.horizon, stride=self.stride)
        tables["test"].of(held)  # the prior's rows are those of the held-out chunks
        health = code_health(
            tokenizer, tokens["train"], held.chunks, held.valid, held.episode, sigma=self.sigma
        )
        prior = prior_bits(
            tokenizer,
            tokens,
            steps=self.prior_steps,
            work=job.work,
            should_stop=job.should_stop,
            progress=job.progress,
        )
        np.save(job.out / "prior.npy", prior.per_chunk.numpy().astype(np.float64), allow_pickle=False)
        return {
            **asdict(health),
            "used_bits": float(prior.per_chunk.mean()),
            "prior_converged": prior.converged,
            "fitting": tokenizer.report,
            **throughput(tokenizer, held.chunks[:256]),
        }

    def prior(self, store: Store) -> np.ndarray:
        """Bits of each held-out chunk's tokens under the prior, float64 [N], in the order of ``make_chunks``."""
        return read_array(store.open(self) / "prior.npy")
