"""A store that people live with: what is in it, whether it is sound, and what can go."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..artifacts.demonstrations import Demonstrations, found_demos
from ..errors import UserError, unknown_name
from ..records import read_object
from ..store.artifact import KINDS
from ..store.claims import under_way
from ..store.inventory import Entry, damage, entries, folder_bytes, leftovers, remove
from ..store.store import Store, refuse_url
from ..study.file import Study
from .exported import export_set
from .study import STUDY, open_study

DIAGNOSED = ("acted", "policy-episodes", "policy-errors", "policy-film")  # of policies that may be gone


@dataclass(frozen=True)
class Held:
    """The artefacts of one kind: how many, their bytes, and when the newest was made (seconds since 1970)."""

    artefacts: int
    bytes: int
    newest: float


@dataclass(frozen=True)
class StudyHeld:
    """A study that was run on a store; ``last``: when a run of it last began."""

    name: str
    source: str  # the suite, or "recordings"
    last: float


@dataclass(frozen=True)
class Inventory:
    """What is in a store. ``leftovers``: bytes of checkpoints of builds that did not end, and of damage set aside."""

    studies: Sequence[StudyHeld]
    kinds: Mapping[str, Held]
    leftovers: int


@dataclass(frozen=True)
class Damaged:
    """An artefact that does not match its checksums."""

    kind: str
    key: str
    problem: str


@dataclass(frozen=True)
class Garbage:
    """What no study that was named needs, by kind.

    ``spared``: imported recordings and episodes of diagnosed policies, which no study makes again.
    """

    kinds: Mapping[str, Held]
    leftovers: int
    spared: int
    removed: bool

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(h.bytes for h in self.kinds.values()) + self.leftovers


def existing(folder: str | Path) -> Store:
    """A store that is there. Raises ``UserError`` for a folder that is none: these verbs make no new one."""
    refuse_url(folder)
    if not (Path(folder) / "store.json").is_file():
        raise UserError(f"{folder} is no store; name one with --store")
    return Store(folder)


def list_store(store: str | Path = "store") -> Inventory:
    """Studies, kinds and leftovers of a store. Manifests are read, the artefacts' files are not."""
    place = existing(store)
    studies = []
    for file in sorted(place.root.glob(f"studies/*/{STUDY}")):
        try:
            about = read_object(file)
            studies.append(
                StudyHeld(file.parent.name, str(about["suite"] or "recordings"), file.stat().st_mtime)
            )
        except (OSError, ValueError, KeyError):
            continue  # not written by a run
    return Inventory(studies, _by_kind(list(entries(place))), sum(map(folder_bytes, leftovers(place, ()))))


def verify_store(
    store: str | Path = "store", progress: Callable[[int, int], None] = lambda done, total: None
) -> tuple[int, list[Damaged]]:
    """How many artefacts there are, and those whose files do not match their checksums. Nothing is changed."""
    place = existing(store)
    found = list(entries(place))
    return len(found), [Damaged(e.kind, e.key, problem) for e, problem in damage(place, found, progress)]


def collect_garbage(
    studies: Sequence[Study],
    store: str | Path = "store",
    *,
    kinds: Sequence[str] = (),
    results_only: bool = False,
    delete: bool = False,
) -> Garbage:
    """What none of the studies needs; removed with ``delete``.

    ``kinds``: of these alone. ``results_only``: of the studies' own artefacts too, all that their reports are not made
    from (weights, features, demonstrations): their records stay, and reports with them. What came from
    outside is spared: imported recordings always, what diagnosed policies did unless its kind is named.
    Raises ``UserError`` while a run is under way, or without a study.
    """
    if not studies:
        raise UserError("name the studies whose artefacts are to stay; all else in the store is garbage then")
    place = existing(store)
    if delete and under_way(place):
        raise UserError(f"a run is under way on {place.root}: wait for its end, or look without --delete")
    there = list(entries(place))
    for kind in kinds:
        if kind not in (known := {*KINDS, *(e.kind for e in there)}):
            raise unknown_name("kind of artefact", kind, known)
    planned: set[str] = set()
    needed: set[str] = set()
    for study in studies:
        opened = open_study(study, place.root)
        own = {a.key for a in (*opened.plan.steps.values(), *opened.plan.taken)}
        planned |= own
        needed |= {a.key for a in export_set(opened).whole} if results_only else own
    garbage: list[Entry] = []
    spared = 0
    for entry in there:
        if entry.key in needed or (kinds and entry.kind not in kinds):
            continue
        if _imported(entry) or (entry.kind in DIAGNOSED and entry.kind not in kinds):
            spared += 1
            continue
        garbage.append(entry)
    left = [] if kinds else leftovers(place, planned)
    found = Garbage(_by_kind(garbage), sum(map(folder_bytes, left)), spared, delete)
    if delete:
        for entry in garbage:
            remove(place, entry, keep_record=entry.key in planned)
        for folder in left:
            shutil.rmtree(folder, ignore_errors=True)
    return found


def _imported(entry: Entry) -> bool:
    """Whether an artefact came from outside: no run makes it again."""
    if entry.kind != Demonstrations.kind or entry.recipe is None:
        return entry.kind == Demonstrations.kind
    found = found_demos(entry.recipe)
    return found.sim is None or found.origin != "expert"


def _by_kind(found: Sequence[Entry]) -> dict[str, Held]:
    out = {}
    for kind in sorted({e.kind for e in found}):
        own = [e for e in found if e.kind == kind]
        out[kind] = Held(len(own), sum(e.bytes for e in own), max(e.modified for e in own))
    return out
