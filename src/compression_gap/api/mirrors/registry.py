"""Mirrors by name. A new one is a file, and one entry here or in another package.

An entry point of another package names an entry:

    [project.entry-points."compression_gap.mirrors"]
    mine = "my_package.entries:MINE"   # MINE = MirrorEntry("my_package.mine:Mine")
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ...errors import UserError
from ...extras import install
from ...registry import Registry, located
from ...store.remote import open_store
from ...store.store import Store
from ..follower import PATIENCE, Follower, Say
from .base import Mirror
from .study import StudyMirror


@dataclass(frozen=True)
class MirrorEntry:
    """What is known of a mirror before its class is imported: a ``Mirror``, or "module:Class"."""

    cls: str | Callable[..., Mirror]
    package: str = ""  # that it needs, of this program's extra of the same name


HERE = __package__
MIRRORS: Registry[MirrorEntry] = Registry(
    "mirror",
    "compression_gap.mirrors",
    MirrorEntry,
    {
        "tensorboard": MirrorEntry(f"{HERE}.tensorboard:TensorBoard", "tensorboard"),
        "trackio": MirrorEntry(f"{HERE}.trackio:Trackio", "trackio"),
        "wandb": MirrorEntry(f"{HERE}.wandb:WeightsAndBiases", "wandb"),
    },
)


def mirror_names(given: Sequence[str]) -> list[str]:
    """The mirrors that are named, each once; several may stand in one text, with commas between.

    Raises ``UserError`` for a mirror that is not known, or whose package is not installed.
    """
    names = list(dict.fromkeys(name.strip() for text in given for name in text.split(",")))
    for name in names:
        package = MIRRORS[name].package
        if package and find_spec(package) is None:
            raise UserError(f"the mirror '{name}' needs {package}, which is not installed: {install(name)}")
    return names


def mirror_followers(names: Sequence[str], study: str, folder: Path, store: Store) -> list[Follower]:
    """What mirrors a study, each in a process of its own; their files lie in ``folder``/mirrors."""
    places = {name: folder / "mirrors" / name for name in names}
    return [
        Follower(
            f"the mirror '{name}'",
            partial(_made, MIRRORS[name].cls, study, place, store.address),
            place.with_name(f"{name}.log"),
            PATIENCE,
        )
        for name, place in places.items()
    ]


def _made(cls: str | Callable[..., Mirror], study: str, folder: Path, store: str, say: Say) -> StudyMirror:
    """In the mirror's own process."""
    folder.mkdir(parents=True, exist_ok=True)
    return StudyMirror(located(cls)(study, folder, say), study, open_store(store))
