"""The width control: known information, hidden among as many columns as an encoder's features have.

An estimator loses information that lies among many useless columns, so that wide encoders look worse than narrow ones
that hold the same. How much it loses is measured: what is narrow and known (the true state, or the narrowest
encoder's features) takes the place of some principal components of the features, and all the others come from
another episode, so that they tell nothing of this one. Width, spectrum and correlation in time are then the
features' own, and what is estimated of the known information is compared with what is estimated of it alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .reduction import NEGLIGIBLE

MOST = 0.5  # of the components, that may be taken


def hidden(
    known: Mapping[str, np.ndarray],
    features: Mapping[str, np.ndarray],
    episode: Mapping[str, np.ndarray],
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """``known`` [N, k] hidden in ``features`` [N, p], both by split: float32 [N, p] of the features' own spectrum.

    ``episode`` [N] by split. Components are taken at ranks evenly spaced on a logarithmic scale, in random order: some
    of the known directions are wide and some are not. Of a ``known`` with more directions than half of the features'
    the leading ones are hidden.
    """
    rng = np.random.default_rng(seed)
    mean = features["train"].mean(0, dtype=np.float64)
    spread = features["train"].std(0, dtype=np.float64)
    x = {s: (v - mean) / np.where(spread > 0, spread, 1) for s, v in features.items()}
    values, vectors = np.linalg.eigh(x["train"].T @ x["train"] / len(x["train"]))
    kept = values > NEGLIGIBLE * values[-1]
    values, vectors = values[kept][::-1], vectors[:, kept][:, ::-1]
    told = _whitened(known, max(1, int(MOST * len(values))))
    ranks = _spaced(len(values), told["train"].shape[1])
    ranks = ranks[rng.permutation(len(ranks))]
    out = {}
    for split, own in x.items():
        components = own[_partners(episode[split])] @ vectors
        components[:, ranks] = told[split] * np.sqrt(values[ranks])
        out[split] = (components @ vectors.T * spread + mean).astype(np.float32)
    return out


def _whitened(known: Mapping[str, np.ndarray], most: int) -> dict[str, np.ndarray]:
    """The leading directions [N, k], of unit variance over the training split."""
    mean, spread = known["train"].mean(0, dtype=np.float64), known["train"].std(0, dtype=np.float64)
    x = {s: (v - mean) / np.where(spread > 0, spread, 1) for s, v in known.items()}
    values, vectors = np.linalg.eigh(x["train"].T @ x["train"] / len(x["train"]))
    kept = np.flatnonzero(values > NEGLIGIBLE * values[-1])[-most:][::-1]
    return {s: v @ vectors[:, kept] / np.sqrt(values[kept]) for s, v in x.items()}


def _spaced(size: int, count: int) -> np.ndarray:
    """``count`` different places in 0..size − 1, evenly spaced on a logarithmic scale as far as places allow."""
    taken: list[int] = []
    for wish in np.geomspace(1, size, count).round().astype(int) - 1:
        taken.append(max(int(wish), taken[-1] + 1 if taken else 0))
    over = max(0, taken[-1] - size + 1)
    places = np.array(taken) - over
    return np.unique(np.maximum(places, np.arange(count)))


def _partners(episode: np.ndarray) -> np.ndarray:
    """For each row that at the same share of the next episode of its split; of one episode, the row itself."""
    names = np.unique(episode)
    rows = {name: np.flatnonzero(episode == name) for name in names}
    out = np.empty(len(episode), np.int64)
    for i, name in enumerate(names):
        theirs = rows[names[(i + 1) % len(names)]]
        own = rows[name]
        out[own] = theirs[np.arange(len(own)) * len(theirs) // len(own)]
    return out
