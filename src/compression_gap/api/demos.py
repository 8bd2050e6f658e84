"""Demonstrations of a suite: made by its scripted expert, or found in a store."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..artifacts.demonstrations import Demonstrations, open_demos
from ..demos import DemoSet
from ..errors import UserError
from ..store.store import Store
from ..study.file import Cameras, load_study
from .build import ended_early
from .options import Running, at_least
from .progress import RunWatcher


@dataclass(frozen=True)
class MadeDemos:
    """The demonstrations of one task in a store."""

    task: str
    key: str
    folder: str
    episodes: int
    frames: int
    cameras: list[str]
    action_dim: int

    def load(self) -> DemoSet:
        """The set, memory-mapped."""
        return DemoSet.load(Path(self.folder))


@dataclass(frozen=True)
class FoundDemos:
    """Demonstrations that a table or a ledger is made of: their store, the sets, a name for what is made of them.

    ``suite``: the suite that they are collected of; None of those in a store.
    """

    store: Store
    sets: list[Demonstrations]
    name: str
    suite: str | None = None


def make_demos(
    suite: str,
    episodes: int = 100,
    *,
    cameras: tuple[str, ...] = (),
    image_size: int = 84,
    store: str | Path = "store",
    running: Running | None = None,
) -> list[MadeDemos]:
    """Collect ``episodes`` successful demonstrations of each of a suite's tasks; those in the store are reused.

    ``cameras``: none takes the simulator's default camera. ``image_size``: pixels, square.
    """
    from ..store.engine import run_steps

    steps, place = planned(suite, episodes, cameras, image_size), Store(Path(store))
    missing = [s for s in steps if not place.has(s)]
    running = running or Running()
    engine = running.make_engine()
    with RunWatcher(missing, len(steps), max(1, running.workers), place.root / "demos.log") as watcher:
        outcome = run_steps(missing, place, engine=engine, watcher=watcher)
    for failure in outcome.failures.values():
        raise UserError(failure["sentence"])
    ended_early(outcome, sum(not place.has(s) for s in steps))
    return describe(steps, place)


def planned(
    suite: str, episodes: int, cameras: tuple[str, ...], image_size: int, origin: str = "expert"
) -> list[Demonstrations]:
    """The demonstrations of a suite's tasks, to be made, from options."""
    at_least(8, image_size=image_size)
    return demos_of(suite, episodes, Cameras(names=cameras, image_size=image_size), origin)


def demos_of(suite: str, episodes: int, cameras: Cameras, origin: str = "expert") -> list[Demonstrations]:
    """The demonstrations of a suite's tasks; the same artefacts that a study would make."""
    from ..study.parts import demonstrations_of
    from ..study.setting import resolve_suite

    if episodes < 3:
        raise UserError(f"{episodes} episodes are too few: a three-way split needs at least 3 per task")
    spec, info = resolve_suite(suite, cameras)
    return [demonstrations_of(spec, task, episodes, info.versions, origin) for task in spec.tasks]


def describe(steps: list[Demonstrations], store: Store) -> list[MadeDemos]:
    """The sets that were made."""
    out = []
    for step in steps:
        folder, demos = store.open(step), step.load(store)
        out.append(
            MadeDemos(
                task=step.task,
                key=step.key,
                folder=str(folder),
                episodes=len(demos.episodes),
                frames=len(demos.actions),
                cameras=list(demos.images),
                action_dim=demos.actions.shape[1],
            )
        )
    return out


@dataclass(frozen=True)
class ListedDemos:
    """Demonstrations in a store. ``source``: "expert", "official", or the format of imported recordings."""

    key: str
    folder: str
    source: str
    tasks: list[str]
    episodes: int
    frames: int
    cameras: dict[str, tuple[int, int]]  # height and width
    bytes: int


def list_demos(store: str | Path = "store") -> list[ListedDemos]:
    """The sets of a store, as their records say; files are not verified, and damaged sets are left out."""
    from ..store.inventory import entries
    from .stores import existing

    place, out = existing(store), []
    for entry in entries(place):
        if entry.kind != Demonstrations.kind or entry.recipe is None:
            continue
        imported = entry.recipe.spec.get("import")
        source = (
            entry.recipe.spec.get("origin", "expert")
            if imported is None
            else imported.get("format", "import")
        )
        try:
            demos = DemoSet.load(place.path(entry))
        except UserError:
            continue
        out.append(
            ListedDemos(
                key=entry.key,
                folder=str(place.path(entry)),
                source=str(source),
                tasks=list(dict.fromkeys(e.task for e in demos.episodes)),
                episodes=len(demos.episodes),
                frames=len(demos.actions),
                cameras={name: (int(of.shape[1]), int(of.shape[2])) for name, of in demos.images.items()},
                bytes=entry.bytes,
            )
        )
    return out


def at_preset(preset: str) -> tuple[int, Cameras]:
    """How many demonstrations a task and which cameras a preset takes."""
    study = load_study(None, preset)
    return max(study.factors.demos), study.cameras


def find_demos(names: tuple[str, ...], episodes: int, cameras: Cameras, store: Path) -> FoundDemos | None:
    """Demonstrations of one suite (to be collected), or in folders of a store; None if the names are neither."""
    if names and all(Path(n).is_dir() for n in names):
        place, sets = open_demos([Path(n) for n in names])
        return FoundDemos(place, sets, "-".join(d.key[:8] for d in sets))
    for name in names:
        if len(names) > 1 or _is_path(name):
            _check_folder(name)
    if len(names) != 1:
        return None
    (suite,) = names
    sets = demos_of(suite, episodes, cameras)
    return FoundDemos(Store(store), sets, re.sub(r"[^a-z0-9]+", "-", suite), suite)


def _is_path(name: str) -> bool:
    """Whether a name can only be a folder's: a suite is written SIMULATOR or SIMULATOR/TASKS."""
    from ..sims.registry import simulators

    sim, *rest = name.split("/")
    return (bool(rest) and sim not in simulators()) or name.startswith((".", "~")) or Path(name).exists()


def _check_folder(name: str) -> None:
    path = Path(name)
    if path.is_dir():
        return
    what = f"{name} is a file" if path.exists() else f"there is no folder {name}"
    raise UserError(f"{what}; name one suite, or folders STORE/demos/KEY as 'cgap demos make' prints them")
