"""Videos of rollouts for pages: artefacts like any other, so a second page costs nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..artifacts.episodes import Episodes, Film
from ..artifacts.policy_episodes import PolicyEpisodes, PolicyFilm
from ..encoders.registry import is_limit
from ..store.artifact import build
from ..store.store import Store
from ..study.base import StudyPlan
from ..study.cells import Cell
from ..study.diagnosis import Diagnosis
from .measurement import label
from .records.diagnosis import Diagnosed
from .records.study import Video


def videos_of_cells(plan: StudyPlan[Any], store: Store, cells: int) -> list[Video]:
    """Up to ``cells`` policies, one success and one failure each where there are such; none on recordings."""
    out = []
    for cell in _choose(plan, store, cells):
        rows = cell.evidence.load(store)
        for success in (True, False):
            hits = (rows["success"] == success).nonzero()[0]
            if not len(hits):
                continue
            task, state = str(rows["task"][hits[0]]), int(rows["initial_state"][hits[0]])
            path = _video(store, cell, task, state)
            name = f"{label(cell, plan.study)} · seed {cell.seed}"
            out.append(Video(label=name, task=task, success=success, path=path))
    return out


def videos_of_changes(
    made: Diagnosis[PolicyEpisodes], found: Diagnosed, store: Store, changes: int
) -> list[Video]:
    """Up to ``changes`` changes that cost most, one of each group: an episode that each lost, as it was and with it."""
    plain, out = made.undisturbed.load(store), []
    pairs = sorted(
        zip(found.changes, made.conditions, strict=True), key=lambda pair: pair[0].difference.value
    )
    seen: set[str] = set()
    for changed, condition in pairs:
        if changed.group in seen or not changed.lost or len(seen) == changes:
            continue
        seen.add(changed.group)
        rows = condition.measured.load(store)
        at = int((plain["success"] & ~rows["success"]).nonzero()[0][0])
        task, state = str(plain["task"][at]), int(plain["initial_state"][at])
        for played in (made.undisturbed, condition.measured):
            film = PolicyFilm(task=task, initial_state=state, played=played)
            build(film, store, progress=lambda done, total: None, should_stop=lambda: False)
            name = "as it is" if played is made.undisturbed else changed.name
            out.append(
                Video(label=name, task=task, success=bool(store.meta(film)["success"]), path=film.load(store))
            )
    return out


def _choose(plan: StudyPlan[Any], store: Store, cells: int) -> list[Cell[Episodes]]:
    """One policy per action representation: the best encoder of the file that is not a limit."""
    there = (c for c in plan.cells if isinstance(c.evidence, Episodes) and not c.swapped)
    ready: list[Cell[Episodes]] = [c for c in there if store.has(c.evidence) and store.has(c.policy)]
    own = [c for c in ready if not is_limit(c.encoder)] or ready
    chosen: dict[str, Cell[Episodes]] = {}
    for cell in own:
        if cell.seed == plan.study.factors.seed[0]:
            chosen[cell.action] = cell
    return list(chosen.values())[:cells]


def _video(store: Store, cell: Cell[Episodes], task: str, state: int) -> Path:
    film = Film(
        protocol=cell.evidence.protocol,
        task=task,
        initial_state=state,
        policy=cell.policy,
        played=cell.evidence,
    )
    build(film, store, progress=lambda done, total: None, should_stop=lambda: False)
    return film.load(store)
