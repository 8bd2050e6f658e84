"""How a training ended, read from its validation losses: converged, still falling, or overfit. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

Convergence = Literal["converged", "falling", "overfit", "unknown"]

SHARE = 0.02  # of the last loss's magnitude: a smaller change is none
NOISE = 3.0  # standard errors of a difference: a smaller change is none
FEWEST = 4  # validations; of fewer, a last quarter says nothing
# The mean of the squared shorter leg below, over three independent normal values of variance 1.
SHORT_LEG = 4 / 3 - math.sqrt(3) / math.pi


def convergence(validation: Sequence[float]) -> Convergence:
    """What evenly spaced validation losses say of the weights at the end, which are the ones that are used.

    Means over the last quarter of the losses are compared with means of as many losses elsewhere. "overfit": it lies
    above the lowest such mean; else "falling": it lies below the quarter before. Either by more than ``SHARE`` of its
    magnitude and more than ``NOISE`` standard errors. "unknown": fewer than four losses.

    The noise of a loss is read from its zigzags: where a loss is a peak or a dip between its neighbours, the shorter of
    the two legs. A trend, straight or bent, has none.
    """
    loss = np.asarray(validation, np.float64)
    if len(loss) < FEWEST:
        return "unknown"
    width = len(loss) // 4
    level = np.convolve(loss, np.full(width, 1 / width), "valid")
    steps = np.diff(loss)
    turns = steps[:-1] * steps[1:] < 0
    legs = np.where(turns, np.minimum(abs(steps[:-1]), abs(steps[1:])), 0.0)
    noise = float(np.sqrt(np.mean(legs**2) / SHORT_LEG))
    end = float(level[-1])
    least = max(SHARE * abs(end), NOISE * noise * math.sqrt(2 / width))
    if end - float(level.min()) > least:
        return "overfit"
    return "falling" if float(level[-1 - width]) - end > least else "converged"


WORDS: dict[Convergence, str] = {
    "converged": "converged",
    "falling": "still falling",
    "overfit": "overfit",
    "unknown": "too short to say",
}


def in_words(ends: Sequence[Convergence]) -> str:
    """How the trainings of several seeds ended: "converged", "overfit", "overfit in 1 of 2"."""
    counts = {end: n for end in WORDS if (n := list(ends).count(end))}
    if len(counts) == 1:
        return WORDS[ends[0]]
    return ", ".join(f"{WORDS[e]} in {n} of {len(ends)}" for e, n in counts.items() if e != "converged")


def end_of_fit(report: Mapping[str, Any]) -> Convergence | None:
    """How a tokenizer's fit ended, from its report; None where there was nothing to train."""
    return convergence(report["curve"]["validation"]) if "curve" in report else None
