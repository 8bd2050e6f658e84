"""What an action tokenizer is: normalised chunks [N, H, d] ⇄ tokens.

Chunks are in standardised units (THEORY.md, section 1); a tokenizer works with NumPy arrays and torch
tensors alike, and is frozen once fitted: eval mode, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..errors import UserError


@dataclass(frozen=True)
class Tokens:
    """Token ids int64 [B, L], and how many of each row count (int64 [B]); the rest is padding."""

    ids: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True)
class Decoded:
    """Chunks float32 [B, H, d], and whether each token sequence could be decoded."""

    chunk: np.ndarray
    ok: np.ndarray


class ActionTokenizer(Protocol):
    """Chunk ⇄ tokens."""

    name: str
    horizon: int

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes at each of the L positions."""

    @property
    def capacity_bits(self) -> float:
        """Σ log2 of the codebook sizes."""

    def fit(self, chunks: Any, valid: Any = None, **options: Any) -> dict[str, Any]:
        """Learn from chunks [N, H, d]; ``valid`` [N, H] is False after an episode's end."""

    def encode(self, chunks: Any) -> Tokens:
        """Tokens of chunks [B, H, d]."""

    def decode(self, tokens: Tokens) -> Decoded:
        """Chunks of tokens; what cannot be decoded is marked, never silently replaced."""

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Which ids may follow a prefix: bool [V]."""

    def save(self, folder: Path) -> None:
        """Write the tokenizer: safetensors and JSON."""


def as_chunks(chunks: Any, *, horizon: int, action_dim: int | None = None) -> np.ndarray:
    """Chunks as a contiguous float32 array [N, H, d], or ``UserError`` that says what is wrong."""
    array = chunks.detach().cpu().numpy() if hasattr(chunks, "detach") else np.asarray(chunks)
    array = np.ascontiguousarray(array, dtype=np.float32)
    if array.ndim != 3 or array.shape[1] != horizon:
        raise UserError(
            f"chunks have shape {array.shape}; this tokenizer takes [N, {horizon}, d]: "
            "cut chunks of that horizon, or make a tokenizer for yours"
        )
    if action_dim is not None and array.shape[2] != action_dim:
        raise UserError(
            f"chunks have {array.shape[2]} action dimensions, the tokenizer was fitted on {action_dim}"
        )
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).any((1, 2)).sum())
        raise UserError(f"{bad} of {len(array)} chunks hold NaN or infinite actions; remove those episodes")
    return array
