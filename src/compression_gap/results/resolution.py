"""The resolution of a ledger: σ* read from the episodes of disturbed experts, in records and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..artifacts.episodes import Episodes
from ..store.store import Store
from ..study.ledger import SIGMAS, LedgerSteps
from ..study.resolution import Disturbed
from .records.bits import DimensionTolerance, NoiseTolerance, Resolution, SigmaStar, Tolerances

if TYPE_CHECKING:
    from ..information import resolution as estimator


def resolution(steps: LedgerSteps, store: Store) -> Resolution:
    """σ* with its interval, pooled and per task, for each disturbance; or the σ that was given."""
    if steps.disturbed is None:
        sigma = steps.section.sigma or 0.1
        return Resolution(sigma=sigma, measured=False, assumed=steps.section.sigma is None, found=None)
    found = read_disturbed(steps.disturbed, store)
    sigma = float(np.clip(found.white.value, SIGMAS[0], SIGMAS[-1]))
    return Resolution(sigma=sigma, measured=True, assumed=False, found=found)


def measured(disturbed: Disturbed, store: Store, noise: str = "white") -> estimator.Resolution:
    """σ* pooled over the tasks under that noise, with its interval and its draws."""
    from ..information.resolution import task_resolution

    plain, tasks = _success(store, disturbed.undisturbed)
    return task_resolution(*_curve(disturbed.noises[noise], store), plain, tasks)


def _curve(of: Mapping[float, Episodes], store: Store) -> tuple[tuple[float, ...], np.ndarray]:
    return tuple(of), np.stack([_success(store, r)[0] for r in of.values()])


def _success(store: Store, of: Episodes) -> tuple[np.ndarray, np.ndarray]:
    rows = of.load(store)
    return rows["success"].astype(float), rows["task"]


def read_disturbed(disturbed: Disturbed, store: Store) -> Tolerances:
    """σ* of each noise, pooled and per task, and of single dimensions."""
    from ..information.resolution import task_resolution

    plain, tasks = _success(store, disturbed.undisturbed)
    noises = []
    for noise, of in disturbed.noises.items():
        grid, success = _curve(of, store)
        per_task = {}
        for task in dict.fromkeys(tasks):
            own = tasks == task
            if plain[own].any():
                per_task[str(task)] = _star(task_resolution(grid, success[:, own], plain[own], tasks[own]))
        pooled = _star(task_resolution(grid, success, plain, tasks))
        noises.append(NoiseTolerance(noise=noise, pooled=pooled, per_task=per_task))
    return Tolerances(
        episodes=len(plain),
        noises=noises,
        dimensions=[
            DimensionTolerance(dimension=d, pooled=_star(task_resolution(*_curve(of, store), plain, tasks)))
            for d, of in disturbed.dimensions.items()
        ],
    )


def _star(found: estimator.Resolution) -> SigmaStar:
    return SigmaStar(
        value=found.value,
        low=found.low,
        high=found.high,
        bound=found.bound,
        rates=found.rates.tolist(),
        undisturbed=found.undisturbed,
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
