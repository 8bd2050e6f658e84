"""Known information among many columns: what estimators are held to at the width of real features.

A few numbers c, correlated along each episode, say something of a chunk. They are turned, together with columns that say
nothing, into features of a given width and spectrum. The information is that of c alone, whatever the width; so an
"upgrade" from the features to c is worth nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from . import known
from .denoising import Denoising
from .estimate import Estimate, estimate

FRAMES = 32  # of an episode
SIGMA = 0.44
NOISE = 0.3  # of the chunk, given c
LASTING = 0.3  # share of a column's variance that is the episode's own
PERSISTENCE = 0.9  # correlation of the rest from frame to frame
DIMENSIONS = 16  # of a chunk
SHARES = (4, 2, 1)

Spectrum = Literal["power law", "white"]
SPECTRA: tuple[Spectrum, ...] = ("power law", "white")


@dataclass(frozen=True)
class Wide:
    """A setting. ``nuisance``: columns that say nothing; ``nonlinear``: chunks √2·cos πc in place of linear ones."""

    nuisance: int
    spectrum: Spectrum = "white"
    episodes: int = 200
    nonlinear: bool = False

    @property
    def bits(self) -> float:
        """I(C; A_σ)."""
        if self.nonlinear:
            return known.nonlinear(sigma=self.sigma).bits
        return 3 * 0.5 * float(np.log2(1 + _GAIN**2 / (NOISE**2 + SIGMA**2)))

    @property
    def sigma(self) -> float:
        """The resolution."""
        return 0.2 if self.nonlinear else SIGMA

    @property
    def label(self) -> str:
        """In words."""
        what = "cos πC" if self.nonlinear else "3 numbers"
        among = f" among {self.nuisance} {self.spectrum} columns" if self.nuisance else " alone"
        return f"{what}{among}, {self.episodes} episodes"

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chunks [E, T, n], c [E, T, k] and features [E, T, k + nuisance] (c itself without nuisance)."""
        if self.nonlinear:
            from scipy.stats import norm

            c = 2 * norm.cdf(_series(self.episodes, 2, rng)) - 1
            a = np.sqrt(2) * np.cos(np.pi * c) + 0.2 * rng.standard_normal(c.shape)
        else:
            c = _series(self.episodes, 3, rng)
            mixing = np.linalg.qr(rng.standard_normal((DIMENSIONS, DIMENSIONS)))[0][:3]
            a = _GAIN * c @ mixing + NOISE * _series(self.episodes, DIMENSIONS, rng)
        if not self.nuisance:
            return a, c, c
        width = c.shape[2] + self.nuisance
        spread = np.ones(width)
        if self.spectrum == "power law":  # variance 1/k; what is told has ranks spread over the first hundred
            spread = np.arange(1, width + 1) ** -0.5
        told = np.geomspace(2, min(100, width - 1), c.shape[2]).astype(int)
        columns = _series(self.episodes, width, rng)
        columns[..., told] = c / c.std((0, 1))
        turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
        return a, c, (columns * spread) @ turn


_GAIN = float(np.sqrt((2 ** (2 * 4.38 / 3) - 1) * (NOISE**2 + SIGMA**2)))  # 4.38 bits of three numbers


def _series(episodes: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Columns of unit variance, each an episode's own level and an autoregression [E, FRAMES, columns]."""
    fresh = rng.standard_normal((episodes, FRAMES, columns))
    for t in range(1, FRAMES):
        fresh[:, t] = PERSISTENCE * fresh[:, t - 1] + np.sqrt(1 - PERSISTENCE**2) * fresh[:, t]
    own = rng.standard_normal((episodes, 1, columns))
    return np.sqrt(LASTING) * own + np.sqrt(1 - LASTING) * fresh


def measured(setting: Wide, seed: int, how: Denoising) -> dict[str, Estimate]:
    """One draw's estimates: of c ``alone``, of the features (``wide``), and of the ``upgrade`` between them.

    Episodes are split 80 / 10 / 10; N / 4, N / 2 and N of the training episodes are used.
    """
    from .gaussian import Part
    from .immse import conditional_rates
    from .width import hidden

    a, c, z = setting.draw(np.random.default_rng(seed))
    held = max(3, setting.episodes // 10)
    ends = {
        "train": setting.episodes - 2 * held,
        "validation": setting.episodes - held,
        "test": setting.episodes,
    }
    first = {"train": 0, "validation": ends["train"], "test": ends["validation"]}
    bits: dict[int, dict[str, np.ndarray]] = {}
    seeds: dict[str, np.ndarray] = {}
    linear: dict[str, np.ndarray] = {}
    for share in SHARES:
        at = {s: np.arange(first[s], ends[s]) for s in ends}
        at["train"] = at["train"][: -(-len(at["train"]) // share)]

        def rows(x: np.ndarray, at: dict[str, np.ndarray] = at) -> dict[str, np.ndarray]:
            return {s: x[i].reshape(-1, x.shape[-1]) for s, i in at.items()}

        episode = {s: np.repeat(i, FRAMES) for s, i in at.items()}
        parts = {"alone": Part(rows(c))}
        if setting.nuisance:
            parts["wide"] = Part(rows(z), wide=True)
            parts["control"] = Part(hidden(rows(c), rows(z), episode), wide=True)
        found, _ = conditional_rates(
            rows(a),
            parts,
            {"": (), **{name: (name,) for name in parts}},
            episode["train"],
            [setting.sigma],
            how if share == 1 else how.shared(share),
        )
        bits[share] = {n: r.bits[:, 0] for n, r in found.items()}
        if share == 1:
            seeds = {n: r.by_seed[:, 0] for n, r in found.items()}
            linear = {n: r.linear[:, 0] for n, r in found.items()}
    of = episode["test"]

    def estimated(plus: str, minus: str, missing: tuple[float, float]) -> Estimate:
        return estimate(
            {k: b[plus] - b[minus] for k, b in bits.items()},
            of,
            by_seed=seeds[plus] - seeds[minus],
            missing=missing,
            probe=linear[plus] - linear[minus],
        )

    out = {"alone": estimated("", "alone", (0.0, 0.0))}
    if setting.nuisance:
        lost = float((bits[1]["control"] - bits[1]["alone"]).mean())
        less, more = max(lost, 0.0), max(-lost, 0.0)
        out["wide"] = estimated("", "wide", (less, more))
        out["upgrade"] = estimated("wide", "alone", (more, less))
    return out
