"""Entropies of token sequences from counts: plug-in, with the Miller–Madow correction, per position.

Their sum over positions is an upper bound on H(T) up to the estimator's error: it leaves out what one position
tells about the next. The held-out cost under an autoregressive prior (``information/prior.py``) is the other bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


def plugin_entropy(counts: np.ndarray) -> float:
    """−Σ p log2 p of the shares p of ``counts`` [K], in bits."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def miller_madow(counts: np.ndarray) -> float:
    """The plug-in entropy plus (used − 1) / (2 N ln 2) bits (Miller 1955), never beyond log2 K."""
    used, n = int((counts > 0).sum()), int(counts.sum())
    corrected = plugin_entropy(counts) + (used - 1) / (2 * n * np.log(2))
    return float(min(corrected, np.log2(len(counts))))


@dataclass(frozen=True)
class Position:
    """One position of a code over a whole split."""

    codes: int  # that there are
    used: int
    dead: int  # that no chunk of the split uses
    entropy: float  # bits, Miller–Madow
    perplexity: float  # 2^entropy


def positions(ids: np.ndarray, lengths: np.ndarray, codebook_sizes: Sequence[int]) -> list[Position]:
    """Every position of token ids [N, L] with lengths [N].

    In ragged codes a sequence that has ended counts as a further code, the end; positions that no sequence
    reaches are left out.
    """
    out = []
    for i in range(int(lengths.max(initial=0))):
        size = codebook_sizes[i]
        ended = lengths <= i
        counts = np.bincount(np.where(ended, size, ids[:, i]), minlength=size + 1)
        if not ended.any():
            counts = counts[:size]
        entropy, used = miller_madow(counts), int((counts[:size] > 0).sum())
        out.append(Position(size, used, size - used, entropy, 2**entropy))
    return out
