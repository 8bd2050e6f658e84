"""The resolution of a ledger: σ* as it was measured, in records and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..store.store import Store
from ..study.ledger import SIGMAS, LedgerSteps
from ..study.resolution import read_disturbed
from .records.bits import DimensionTolerance, NoiseTolerance, Resolution, SigmaStar, Tolerances


def resolution(steps: LedgerSteps, store: Store) -> Resolution:
    """σ* with its interval, pooled and per task, for each disturbance; or the σ that was given."""
    if steps.disturbed is None:
        sigma = steps.section.sigma or 0.1
        return Resolution(sigma=sigma, measured=False, assumed=steps.section.sigma is None, found=None)
    found = _tolerances(read_disturbed(steps.disturbed, store))
    sigma = float(np.clip(found.white.value, SIGMAS[0], SIGMAS[-1]))
    return Resolution(sigma=sigma, measured=True, assumed=False, found=found)


def _tolerances(found: Mapping[str, Any]) -> Tolerances:
    """The records of what ``read_disturbed`` gave."""

    def sigma(at: Mapping[str, Any]) -> SigmaStar:
        return SigmaStar(**{f.name: at[f.name] for f in fields(SigmaStar)})

    return Tolerances(
        episodes=found["episodes"],
        noises=[
            NoiseTolerance(
                noise=n["noise"], pooled=sigma(n), per_task={t: sigma(v) for t, v in n["per_task"].items()}
            )
            for n in found["noises"]
        ],
        dimensions=[
            DimensionTolerance(dimension=d["dimension"], pooled=sigma(d)) for d in found["dimensions"]
        ],
    )


def bounded(at: SigmaStar) -> str:
    """A resolution with its interval; ``bound``: it lies beyond what was tried."""
    if at.bound == "above":
        return f"at least {at.value:.2g} [{at.low:.2g}, …]"
    if at.bound == "below":
        return f"at most {at.value:.2g} […, {at.high:.2g}]"
    return f"{at.value:.2g} [{at.low:.2g}, {at.high:.2g}]"


def resolution_words(found: Resolution) -> str:
    """Where a ledger's resolution comes from, with its interval or its bound."""
    if found.found is None:
        return "an assumption: there is no simulator to measure it in" if found.assumed else "given"
    white = found.found.white
    words = f"σ*, the most noise at which the expert keeps 95 % of its success: {bounded(white)}"
    if found.sigma != white.value:
        words += f"; bits are taken at {found.sigma:.2g}"
    return words


@dataclass(frozen=True)
class ToleranceRow:
    """One row of the table of σ*, in words; ``tasks``: of each, where there are several."""

    noise: str
    pooled: str
    tasks: Mapping[str, str]


def resolution_rows(found: Resolution) -> list[ToleranceRow]:
    """A table of σ*: a row a noise and a row a dimension; with pooled σ*, and each task's where there are several."""
    if found.found is None:
        return []
    rows = []
    for at in found.found.noises:
        what = {"white": "white noise", "offset": "offset, constant over a chunk"}.get(at.noise)
        tasks = at.per_task if len(at.per_task) > 1 else {}
        words = what or f"noise like the error of {at.noise.removeprefix('code ')}"
        rows.append(ToleranceRow(words, bounded(at.pooled), {t: bounded(v) for t, v in tasks.items()}))
    for d in found.found.dimensions:
        words = f"white noise in action dimension {d.dimension} alone"
        rows.append(ToleranceRow(words, bounded(d.pooled), {}))
    return rows
