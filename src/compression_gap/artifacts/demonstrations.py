"""Kind "demos": the demonstrations of one task from a scripted expert, or recordings that were imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..demos import DemoSet
from ..errors import UserError, counted
from ..sims import SimSpec
from ..sims.pool import answer_seconds
from ..store.artifact import UNKEYED, Artifact, Job, elided
from ..store.store import MANIFEST, Recipe, Store, read_manifest, recipe_in


class Demonstrations(Artifact, kind="demos", version=2, simulated=True):
    """One artefact a task, shared by every suite and evaluation protocol; or a set ``found`` in a store.

    ``sim``: the simulator with this task alone; None of recordings from elsewhere. ``origin``: the scripted "expert",
    or the benchmark's "official" recordings.
    """

    sim: SimSpec | None = None
    task: str = ""
    episodes: int = 0
    versions: Mapping[str, str]
    origin: str = elided(default="expert")
    found: Recipe | None = field(default=None, metadata=UNKEYED)

    @property
    def spec(self) -> dict[str, Any]:
        """The specification; of a set that was found, the one in its manifest."""
        return super().spec if self.found is None else dict(self.found.spec)

    @cached_property
    def recipe(self) -> Recipe:
        """What the store knows it by; a set that was found keeps the version that made it."""
        return Recipe(self.kind, self.spec, {}, self.version) if self.found is None else self.found

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of its tasks."""
        if self.found is None or "task" in self.found.spec:
            return (self.task,)
        return tuple(map(str, self.found.spec.get("tasks") or [self.key]))

    @property
    def label(self) -> str:
        """How many of which task."""
        return f"{counted(self.episodes, 'demonstration')} of {self.task}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 0.8 * self.episodes

    @property
    def patience(self) -> float:
        """Seconds for one attempt of the expert: the simulator runs in the very process that builds."""
        return answer_seconds()

    @property
    def packages(self) -> Mapping[str, str]:
        """The simulator's."""
        return self.versions

    def build(self, job: Job) -> Mapping[str, Any]:
        """Let the scripted expert act. Official recordings are not made here but rendered by a verb of their own."""
        from ..demos.experts import collect_demos

        assert self.sim is not None
        if self.origin != "expert":
            raise UserError(
                f"{self.episodes} official demonstrations of {self.task} are not in the store: run  cgap demos make "
                f"{self.sim.sim}/{self.task} --episodes {self.episodes} --official FOLDER  with the folder of their HDF5 "
                "files, and the study's cameras and store"
            )
        return collect_demos(self.sim, self.task, self.episodes, job.out, progress=job.progress)

    def load(self, store: Store) -> DemoSet:
        """The set, memory-mapped."""
        return DemoSet.load(store.open(self))


def found_demos(recipe: Recipe) -> Demonstrations:
    """The demonstrations of a recipe that a manifest holds."""
    spec = recipe.spec
    sim = SimSpec.model_validate_json(json.dumps(spec["sim"])) if "sim" in spec else None
    return Demonstrations(
        sim=sim,
        task=str(spec.get("task", "")),
        episodes=int(spec.get("episodes", 0)),
        versions=spec.get("versions", {}),
        origin=spec.get("origin", "expert"),
        found=recipe,
    )


def open_demos(folders: Sequence[Path]) -> tuple[Store, list[Demonstrations]]:
    """The store and the sets of folders ``STORE/demos/KEY``. Raises ``UserError`` for any other folder."""
    roots, found = set(), []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"there is no folder {folder}: name folders STORE/demos/KEY as 'cgap demos make' prints them"
            )
        try:
            recipe = recipe_in(read_manifest(folder / MANIFEST))
        except (OSError, ValueError) as error:
            raise UserError(
                f"{folder} holds no demonstrations: name a suite, or folders STORE/demos/KEY "
                f"as 'cgap demos make' prints them ({error})"
            ) from error
        if recipe.kind != Demonstrations.kind:
            raise UserError(f"{folder} is a {recipe.kind}, not demonstrations; name a folder STORE/demos/KEY")
        found.append(found_demos(recipe))
        roots.add(folder.resolve().parent.parent)
    if len(roots) != 1:
        raise UserError("the demonstrations lie in several stores; name folders of one store")
    return Store(roots.pop()), found


def load_all(demos: Sequence[Demonstrations], store: Store) -> list[DemoSet]:
    """The sets, in order."""
    return [d.load(store) for d in demos]
