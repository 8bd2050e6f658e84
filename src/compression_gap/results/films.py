"""Videos of rollouts for the report: artefacts like any other, so a second report costs nothing."""

from __future__ import annotations

from pathlib import Path

from ..artifacts.episodes import Film
from ..encoders.registry import is_limit
from ..store.artifact import build
from ..store.store import Store
from ..study.cells import Cell
from ..study.plan import Plan
from .evidence import read_rows
from .measurement import label
from .records.study import Video


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
            path = _film(plan, store, cell, task, state)
            name = f"{label(cell, plan.study, cell.demos)} · seed {cell.seed}"
            out.append(Video(label=name, task=task, success=success, path=path))
    return out


def _choose(plan: Plan, store: Store, cells: int) -> list[Cell]:
    """One policy per action representation: the best encoder of the file that is not a limit."""
    ready = [c for c in plan.cells if store.has(c.episodes) and not c.swapped]
    own = [c for c in ready if not is_limit(c.encoder)] or ready
    chosen: dict[str, Cell] = {}
    for cell in own:
        if cell.seed == plan.study.factors.seed[0]:
            chosen[cell.action] = cell
    return list(chosen.values())[:cells]


def _film(plan: Plan, store: Store, cell: Cell, task: str, state: int) -> Path:
    film = Film(
        protocol=plan.protocol, task=task, initial_state=state, policy=cell.policy, played=cell.episodes
    )
    build(film, store, progress=lambda done, total: None, should_stop=lambda: False)
    return film.load(store)
