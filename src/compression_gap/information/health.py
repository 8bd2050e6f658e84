"""The health of a code: how much it distorts, how many of its codes it uses, what it does to the order of chunks.

Everything is measured on held-out chunks in standardised units (docs/theory.md), apart from the codes that
are used, which are counted over a whole training split.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..tokenizers import ActionTokenizer, Tokens, levels
from .entropy import Position, positions
from .rate_distortion import gaussian_rate

PAIRS = 20_000  # of chunks, for the preservation of their order
CORRUPTED = 2_000  # sequences with a wrong token
BOOTSTRAP = 1_000


@dataclass(frozen=True)
class Prefix:
    """The first ``tokens`` tokens: nominal bits and distortion."""

    tokens: int
    bits: float
    distortion: float


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """All measures of a code that need neither a simulator nor a network."""

    capacity_bits: float
    position_bits: float
    tokens_mean: float
    tokens_p95: float
    distortion: float
    distortion_low: float
    distortion_high: float
    distortion_per_dimension: Sequence[float]
    prefixes: Sequence[Prefix]
    sigma: float
    within_sigma: float
    order_preservation: float | None
    positions: Sequence[Position]
    codes: int
    dead_codes: int
    mean_perplexity: float
    gaussian_reference_rate: float
    covariance_eigenvalues: Sequence[float]
    clipped: float
    decode_failures_corrupted: float
    chunks: int
    episodes: int


def prefix_lengths(tokenizer: ActionTokenizer) -> list[int]:
    """The prefixes that are looked at; the whole alone if none decodes."""
    full = len(tokenizer.codebook_sizes)
    return levels.prefix_lengths(full) if tokenizer.ordered else [full]


def prefix(tokens: Tokens, length: int) -> Tokens:
    """The first ``length`` tokens of each row."""
    return Tokens(tokens.ids[:, :length], np.minimum(tokens.lengths, length))


def code_health(
    tokenizer: ActionTokenizer,
    train: Tokens,
    chunks: np.ndarray,
    valid: np.ndarray,
    episode: np.ndarray,
    *,
    sigma: float,
    seed: int = 0,
) -> Diagnostics:
    """Measure a code.

    ``train``: the training split's tokens. ``chunks`` [N, H, d], ``valid`` [N, H] and ``episode`` [N]: held
    out. ``sigma``: the resolution of "within σ", in standard deviations.
    """
    rng = np.random.default_rng(seed)
    tokens = tokenizer.encode(chunks)
    decoded = tokenizer.decode(tokens).chunk
    error = np.where(valid[..., None], (decoded - chunks) ** 2, 0)
    covariance = np.cov(chunks.reshape(len(chunks), -1).T, dtype=np.float64)
    lengths = tokens.lengths
    where = positions(train.ids, train.lengths, tokenizer.codebook_sizes)
    value, low, high = _distortion(error, valid, episode, rng)
    *shorter, full = prefix_lengths(tokenizer)
    distortions = {k: _prefix_distortion(tokenizer, tokens, chunks, valid, k) for k in shorter} | {
        full: value
    }
    prefixes = [Prefix(k, _bits(tokenizer, k), d) for k, d in distortions.items()]
    return Diagnostics(
        capacity_bits=tokenizer.capacity_bits,
        position_bits=sum(p.entropy for p in where),
        tokens_mean=float(lengths.mean()),
        tokens_p95=float(np.percentile(lengths, 95)),
        distortion=value,
        distortion_low=low,
        distortion_high=high,
        distortion_per_dimension=_mean(error, valid).tolist(),
        prefixes=prefixes,
        sigma=sigma,
        within_sigma=_within(error, valid, sigma),
        order_preservation=order_preservation(chunks, decoded, rng),
        positions=where,
        codes=sum(p.codes for p in where),
        dead_codes=sum(p.dead for p in where),
        mean_perplexity=float(np.mean([p.perplexity for p in where])),
        gaussian_reference_rate=gaussian_rate(covariance, value),
        covariance_eigenvalues=np.linalg.eigvalsh(covariance).tolist(),
        clipped=float((tokens.clipped > 0).mean()) if tokens.clipped is not None else 0.0,
        decode_failures_corrupted=corrupted_failures(tokenizer, tokens, rng),
        chunks=len(chunks),
        episodes=len(np.unique(episode)),
    )


def _bits(tokenizer: ActionTokenizer, length: int) -> float:
    """Nominal bits of the first ``length`` tokens."""
    if length == len(tokenizer.codebook_sizes):
        return tokenizer.capacity_bits
    return float(np.log2(np.array(tokenizer.codebook_sizes[:length], float)).sum())


def _mean(error: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Mean squared error per dimension over valid actions."""
    mean: np.ndarray = error.sum((0, 1), dtype=np.float64) / valid.sum()
    return mean


def _distortion(
    error: np.ndarray, valid: np.ndarray, episode: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Mean squared error with a 95 % interval: frames of an episode hang together, so episodes are drawn."""
    _, row = np.unique(episode, return_inverse=True)
    sums = np.bincount(row, error.mean(-1).sum(1))
    counts = np.bincount(row, valid.sum(1))
    drawn = rng.integers(len(sums), size=(BOOTSTRAP, len(sums)))
    values = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def _prefix_distortion(
    tokenizer: ActionTokenizer, tokens: Tokens, chunks: np.ndarray, valid: np.ndarray, length: int
) -> float:
    decoded = tokenizer.decode(prefix(tokens, length)).chunk
    error = ((decoded - chunks) ** 2).mean(-1)
    return float(error[valid].mean(dtype=np.float64))


def _within(error: np.ndarray, valid: np.ndarray, sigma: float) -> float:
    """Share of chunks whose root mean squared error is at most σ in every dimension."""
    per_chunk = error.sum(1) / valid.sum(1)[:, None]
    return float((per_chunk <= sigma**2).all(1).mean())


def order_preservation(chunks: np.ndarray, decoded: np.ndarray, rng: np.random.Generator) -> float | None:
    """Spearman's rank correlation of the distances between pairs of chunks before and after the code.

    None where there is no order: of fewer than three chunks, or where all distances are alike.
    """
    from scipy.stats import spearmanr

    if len(chunks) < 3:
        return None
    one = rng.integers(len(chunks), size=PAIRS)
    two = (one + rng.integers(1, len(chunks), size=PAIRS)) % len(chunks)
    flat, coded = (x.reshape(len(x), -1) for x in (chunks, decoded))
    before = np.linalg.norm(flat[one] - flat[two], axis=1)
    after = np.linalg.norm(coded[one] - coded[two], axis=1)
    if np.ptp(before) == 0 or np.ptp(after) == 0:
        return None
    return float(spearmanr(before, after).statistic)


def corrupted_failures(tokenizer: ActionTokenizer, tokens: Tokens, rng: np.random.Generator) -> float:
    """Share of sequences that do not decode after one of their tokens is replaced by another one."""
    sizes = np.array(tokenizer.codebook_sizes)
    rows = np.flatnonzero(tokens.lengths > 0)
    rows = rng.choice(rows, min(CORRUPTED, len(rows)), replace=False)
    ids, lengths = tokens.ids[rows].copy(), tokens.lengths[rows]
    at = (rng.random(len(rows)) * lengths).astype(int)
    here = np.arange(len(rows))
    shift = 1 + (rng.random(len(rows)) * (sizes[at] - 1)).astype(int)
    ids[here, at] = (ids[here, at] + shift) % sizes[at]
    return float((~tokenizer.decode(Tokens(ids, lengths)).ok).mean())


def throughput(tokenizer: ActionTokenizer, chunks: np.ndarray, seconds: float = 0.5) -> dict[str, float]:
    """Chunks per second of this process, encoding and decoding, as it stands (threads, load)."""
    tokens = tokenizer.encode(chunks)
    return {
        "encode_per_second": _rate(lambda: tokenizer.encode(chunks), len(chunks), seconds),
        "decode_per_second": _rate(lambda: tokenizer.decode(tokens), len(chunks), seconds),
    }


def _rate(call: Callable[[], Any], rows: int, seconds: float) -> float:
    spent: list[float] = []
    while sum(spent) < seconds or len(spent) < 3:
        begun = time.perf_counter()
        call()
        spent.append(time.perf_counter() - begun)
    return float(rows / np.median(spent))
