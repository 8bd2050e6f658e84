"""Videos of rollouts for the report: artefacts like any other, so a second report costs nothing."""

from __future__ import annotations

from pathlib import Path

from ..artifacts.builders import make_actor
from ..encoders.registry import is_limit
from ..store.store import Recipe, Store
from ..study.plan import Cell, Plan
from .evidence import read_rows
from .measurement import label
from .records.study import Video

VERSION = 1


def film_cells(plan: Plan, store: Store, cells: int) -> list[Video]:
    """Up to ``cells`` policies, one success and one failure each where there are such."""
    out = []
    for cell in _choose(plan, store, cells):
        rows = read_rows(plan, store, cell.episodes)
        assert rows is not None
        for success in (True, False):
            hits = (rows["success"] == success).nonzero()[0]
            if not len(hits):
                continue
            task, state = str(rows["task"][hits[0]]), int(rows["initial_state"][hits[0]])
            folder = _film(plan, store, cell, task, state)
            name = f"{label(cell, plan.study, cell.demos)} · seed {cell.seed}"
            out.append(Video(label=name, task=task, success=success, path=folder / "film.mp4"))
    return out


def _choose(plan: Plan, store: Store, cells: int) -> list[Cell]:
    """One policy per action representation: the best encoder of the file that is not a limit."""
    ready = [c for c in plan.cells if store.has(c.episodes)]
    own = [c for c in ready if not is_limit(c.encoder)] or ready
    chosen: dict[str, Cell] = {}
    for cell in own:
        if cell.seed == plan.study.factors.seed[0]:
            chosen[cell.action] = cell
    return list(chosen.values())[:cells]


def _film(plan: Plan, store: Store, cell: Cell, task: str, state: int) -> Path:
    from ..rollouts.run import record_episode

    spec = {"protocol": plan.protocol.model_dump(mode="json"), "task": task, "initial_state": state}
    recipe = Recipe("film", spec, {"policy": cell.policy.key}, VERSION)
    if not store.has(recipe):
        actor = make_actor(plan.steps[cell.episodes.key], store)
        with store.create(recipe) as out:
            record_episode(actor, plan.protocol, task, state, out / "film.mp4", actor_key=cell.episodes.key)
    return store.open(recipe)
