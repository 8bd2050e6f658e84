"""A comparison of tokenizers as records. Distortions are mean squared errors in standard deviations² of the actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...information.health import Diagnostics
from ...nn.convergence import Convergence, end_of_fit
from ...statistics.intervals import Interval
from ...study.file import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Health(Diagnostics):
    """Codebook diagnostics on held-out chunks, with the bits that a prior finds used.

    ``fitting``: the tokenizer's own report; ``machine`` and ``build_seconds``: of this measurement.
    """

    used_bits: float
    prior_converged: bool
    encode_per_second: float
    decode_per_second: float
    fitting: Mapping[str, Any]
    machine: Mapping[str, str]
    build_seconds: float

    @property
    def convergence(self) -> Convergence | None:
        """How the fit ended; None where there was nothing to train."""
        return end_of_fit(self.fitting)


@dataclass(frozen=True, kw_only=True)
class RolledOut(Interval):
    """Success of an expert through a code."""

    episodes: int
    per_task: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class TokenizerRow:
    """One code, or its first ``prefix`` tokens. Rollouts are None without a simulator, health is None of a prefix."""

    label: str
    tokenizer: str
    codebook: Sequence[Sequence[int]] | None
    tokenizer_seed: int | str | None
    prefix: int | None
    nominal_bits: float
    distortion: float
    expert_coded: RolledOut | None
    replay: RolledOut | None
    health: Health | None


@dataclass(frozen=True, kw_only=True)
class TokenizerTable:
    """All codes on one set of demonstrations. ``references``: without a code, by name. ``suite``: where one was named."""

    version: str
    suite: str | None
    tasks: Sequence[str]
    demos: Sequence[str]
    horizon: int
    execute: int
    sigma: float
    chunks: int
    episodes: int
    machine: Mapping[str, str]
    eigenvalues: Sequence[float]
    section: Tokenizer
    protocol: str | None
    references: Mapping[str, RolledOut]
    rows: Sequence[TokenizerRow]
