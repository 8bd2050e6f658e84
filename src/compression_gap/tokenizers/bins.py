"""Bins: each action is its own token, as in RT-1 (arXiv 2212.06817) and OpenVLA (arXiv 2406.09246).

Each dimension's range [low, high] is cut into V bins of width w = (high − low) / V:

    id = ⌊(a − low) / w⌋, at least 0 and at most V − 1;        â = low + (id + ½)·w.

Inside the range |â − a| ≤ w / 2, and no code with V values does better. The range is that of the actions
(``uniform``, RT-1), or from their 1st to their 99th percentile (``quantile``, OpenVLA): narrower bins, for
which the outermost bins also take the two per cent of actions outside, at an error without a bound:
``Tokens.clipped`` counts them. What is left between the percentiles of a gripper that hardly ever closes is noise;
``percentile_range`` then takes the whole range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import UserError, unknown_name
from .base import ActionTokenizer, Arrays, Chunks, Fitting, Tokens, outside

EDGES = ("uniform", "quantile")
NARROW = 0.01  # of the whole range, less than three of its 256 bins: percentiles so near enclose noise alone


class Bins(ActionTokenizer):
    """``Bins(bins=256, edges="uniform")``: H·d tokens a chunk, by step and then by dimension."""

    name = "bins"

    def __init__(self, *, bins: int = 256, edges: str = "uniform") -> None:
        if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2:
            raise UserError(
                f"bins is {bins!r}; it is the number of bins of a dimension: a whole number from 2 on"
            )
        if edges not in EDGES:
            raise unknown_name("edges", str(edges), EDGES)
        super().__init__(bins=bins, edges=edges)
        self._start = self._width = np.zeros(0)  # float64 [d]: low and w

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """V for each action."""
        bins: int = self.options["bins"]
        return (bins,) * (self.horizon * self.action_dim)

    def encode(self, chunks: Any) -> Tokens:
        """Tokens of chunks [B, H, d]; ``clipped`` counts what the outermost bins take from outside them, too."""
        tokens = super().encode(chunks)
        end = self._start + self.options["bins"] * self._width
        return replace(tokens, clipped=outside(self._as_chunks(chunks), self._start, end))

    def _fit(self, chunks: Chunks, validation: Chunks, how: Fitting) -> Mapping[str, Any]:
        if self.options["edges"] == "quantile":
            low, high = percentile_range(chunks.actions)
        else:
            low, high = self.low.astype(np.float64), self.high.astype(np.float64)
        self._start, self._width = low, (high - low) / self.options["bins"]
        return {}

    def _encode(self, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = np.where(self._width > 0, self._width, 1)  # a constant dimension: bin 0
        ids = np.floor((chunks - self._start) / width).clip(0, self.options["bins"] - 1)
        size = self.horizon * self.action_dim
        return ids.astype(np.int64).reshape(len(ids), size), np.full(len(ids), size)

    def _decode(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shaped = ids.reshape(len(ids), self.horizon, self.action_dim)
        return self._start + (shaped + 0.5) * self._width, np.ones(len(ids), bool)

    def _arrays(self) -> Arrays:
        return {"start": self._start, "width": self._width}

    def _restore(self, arrays: Arrays) -> None:
        self._start, self._width = arrays["start"], arrays["width"]
        if not self._start.shape == self._width.shape == (self.action_dim,):
            raise ValueError(
                f"bins of {self._start.shape} and {self._width.shape} for {self.action_dim} dimensions"
            )


def percentile_range(actions: np.ndarray, narrow: float = NARROW) -> tuple[np.ndarray, np.ndarray]:
    """Actions [M, d] → float64 [d], [d]: each dimension's 1st and 99th percentile.

    Where the two enclose no more than the share ``narrow`` of the whole range (a gripper that is open in more than
    98 % of the actions, exactly or with some noise): the least and the greatest action.
    """
    exact = actions.astype(np.float64)
    least, greatest = exact.min(0), exact.max(0)
    low, high = np.percentile(exact, (1, 99), axis=0)
    whole = high - low <= narrow * (greatest - least)
    return np.where(whole, least, low), np.where(whole, greatest, high)
