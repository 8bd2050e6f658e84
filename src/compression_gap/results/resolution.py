"""σ* as it was measured: read from the episodes of disturbed experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..artifacts.episodes import Episodes
from ..store.store import Store
from ..study.resolution import Disturbed

if TYPE_CHECKING:
    from ..information.resolution import Resolution


def measured(disturbed: Disturbed, store: Store, noise: str = "white") -> Resolution:
    """σ* pooled over the tasks under that noise, with its interval and its draws."""
    from ..information.resolution import task_resolution

    plain, tasks = _success(store, disturbed.undisturbed)
    return task_resolution(*_curve(disturbed.noises[noise], store), plain, tasks)


def _curve(of: Mapping[float, Episodes], store: Store) -> tuple[tuple[float, ...], np.ndarray]:
    return tuple(of), np.stack([_success(store, r)[0] for r in of.values()])


def _success(store: Store, of: Episodes) -> tuple[np.ndarray, np.ndarray]:
    rows = of.load(store)
    return rows["success"].astype(float), rows["task"]


def read_disturbed(disturbed: Disturbed, store: Store) -> dict[str, Any]:
    """What is shown: σ* of each noise, pooled and per task, and of single dimensions; JSON values."""
    from ..information.resolution import task_resolution

    plain, tasks = _success(store, disturbed.undisturbed)
    noises = []
    for noise, of in disturbed.noises.items():
        grid, success = _curve(of, store)
        per_task = {}
        for task in dict.fromkeys(tasks):
            own = tasks == task
            if plain[own].any():
                per_task[str(task)] = task_resolution(grid, success[:, own], plain[own], tasks[own]).as_json()
        pooled = task_resolution(grid, success, plain, tasks)
        noises.append({"noise": noise, **pooled.as_json(), "per_task": per_task})
    return {
        "episodes": len(plain),
        "noises": noises,
        "dimensions": [
            {"dimension": d, **task_resolution(*_curve(of, store), plain, tasks).as_json()}
            for d, of in disturbed.dimensions.items()
        ],
    }


def bounded(at: Mapping[str, Any]) -> str:
    """A resolution with its interval; ``bound``: it lies beyond what was tried."""
    if at["bound"] == "above":
        return f"at least {at['value']:.2g} [{at['low']:.2g}, …]"
    if at["bound"] == "below":
        return f"at most {at['value']:.2g} […, {at['high']:.2g}]"
    return f"{at['value']:.2g} [{at['low']:.2g}, {at['high']:.2g}]"


def of_noise(found: Mapping[str, Any], noise: str = "white") -> dict[str, Any]:
    """σ* of one noise, of what ``read_disturbed`` gave."""
    at: dict[str, Any] = next(n for n in found["noises"] if n["noise"] == noise)
    return at


def resolution_rows(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table of σ*: a row a noise and a row a dimension; with pooled σ*, and each task's where there are several."""
    if not found["measured"]:
        return []
    rows = []
    for at in found["noises"]:
        noise = at["noise"]
        what = {"white": "white noise", "offset": "offset, constant over a chunk"}.get(noise)
        tasks = at["per_task"] if len(at["per_task"]) > 1 else {}
        words = what or f"noise like the error of {noise.removeprefix('code ')}"
        rows.append(
            {"noise": words, "pooled": bounded(at), "tasks": {t: bounded(v) for t, v in tasks.items()}}
        )
    for at in found["dimensions"]:
        d = at["dimension"]
        rows.append(
            {"noise": f"white noise in action dimension {d} alone", "pooled": bounded(at), "tasks": {}}
        )
    return rows
