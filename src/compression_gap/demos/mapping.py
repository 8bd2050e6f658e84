"""Which fields of a recorded data set become what: by the names that the user gives, else by what names leave no doubt.

A set needs an action, the robot's own state (→ ``proprio``), cameras and the task of each episode; a simulator's true
state (→ ``state``) only on demand. A split that the recording names for all of its episodes is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import UserError, unknown_name
from .source import BOOKKEEPING, Source, file_names, short_name

PART = re.compile(r"(.+)\[([0-9]{0,9}):([0-9]{0,9})\]")
FEWEST = 3  # episodes of a task: one each for training, validation and test
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "valid": "validation", "val": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What the user asks for; what is empty is inferred. A vector's part is written KEY[2:5]."""

    action: tuple[str, ...] = ()
    state: tuple[str, ...] = ()  # the robot's own
    true_state: tuple[str, ...] = ()  # the simulator's; never inferred
    cameras: tuple[str, ...] = ()
    task_key: str | None = None
    task_text: str | None = None
    image_size: int | None = None  # pixels, square; None: as recorded


@dataclass(frozen=True)
class Vector:
    """Numbers of a frame: a field, or some of its columns."""

    name: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.name}[{self.start}:{self.stop}]"


@dataclass(frozen=True)
class Mapping:
    """Which fields become what. Vectors are joined in this order; ``cameras``: file name -> field."""

    action: tuple[Vector, ...]
    proprio: tuple[Vector, ...]
    state: tuple[Vector, ...]
    cameras: dict[str, str]
    tasks: tuple[str, ...]  # of each episode
    splits: tuple[str, ...] | None = None  # of each episode, if the recording names them

    @property
    def vectors(self) -> dict[str, tuple[Vector, ...]]:
        """The vectors by the stream that they become."""
        streams = {"actions": self.action, "proprio": self.proprio, "state": self.state}
        return {name: vectors for name, vectors in streams.items() if vectors}

    @property
    def fields(self) -> list[str]:
        """Every field that is read."""
        vectors = (v.name for vectors in self.vectors.values() for v in vectors)
        return sorted({*vectors, *self.cameras.values()})


def resolve(source: Source, wanted: Wanted) -> Mapping:
    """Map the source's fields. Raises ``UserError`` that lists the names found where one must be chosen."""
    mapping = Mapping(
        action=_vectors(source, wanted.action or _only_action(source), "--action"),
        proprio=_vectors(source, wanted.state or _only_state(source), "--state"),
        state=_vectors(source, wanted.true_state, "--true-state"),
        cameras=_cameras(source, wanted.cameras),
        tasks=tuple(
            [wanted.task_text] * len(source.lengths) if wanted.task_text else source.tasks(wanted.task_key)
        ),
    )
    for task, episodes in Counter(mapping.tasks).items():
        if episodes < FEWEST:
            raise UserError(
                f"{source.path} holds {episodes} episode{'s' * (episodes > 1)} of '{task}': a three-way split needs "
                f"at least {FEWEST} per task; record more, or join all tasks with --task-text"
            )
    _warn(source, mapping)
    return replace(mapping, splits=_splits(source, mapping.tasks))


def _numeric(source: Source) -> list[str]:
    return [n for n, f in source.fields.items() if not f.camera]


def _only_action(source: Source) -> tuple[str, ...]:
    names = _numeric(source)
    for name in ("action", "actions"):
        if name in names:
            return (name,)
    alike = [n for n in names if short_name(n).startswith("action")]
    if len(alike) == 1:
        return (alike[0],)
    raise UserError(f"{source.path}: which field is the action is not clear; give --action ({_list(names)})")


def _only_state(source: Source) -> tuple[str, ...]:
    known = source.proprio()
    if known:
        return known
    names = [
        n
        for n in _numeric(source)
        if short_name(n) not in BOOKKEEPING
        and not short_name(n).startswith("action")
        and not _is_true_state(n)
    ]
    if len(names) == 1:
        return (names[0],)
    if source.without_observations:
        raise UserError(f"{source.path}: {source.without_observations}")
    raise UserError(
        f"{source.path}: which field is the robot's own state is not clear; give --state, one or several in order "
        f"({_list(names)})"
    )


def _is_true_state(name: str) -> bool:
    """Whether a name is commonly that of objects, goals or the whole simulator."""
    short = short_name(name)
    return short == "states" or any(
        w in short for w in ("object", "environment", "env_state", "goal", "keypoint")
    )


def _splits(source: Source, tasks: Sequence[str]) -> tuple[str, ...] | None:
    """The recording's own split, where it names one for every episode; None otherwise, with a note that says why.

    Where no episodes are marked as test, every second one of those for validation is.
    """
    if source.marks is None:
        return None
    own = [SPLIT_NAMES.get(mark or "") for mark in source.marks]
    kept = None
    if None in own:
        why = f"it names {sum(s is not None for s in own)} of {len(own)} episodes"
    else:
        splits = [str(s) for s in own]
        if "test" not in splits:
            for task in dict.fromkeys(tasks):
                held = [i for i, t in enumerate(tasks) if t == task and splits[i] == "validation"]
                for i in held[1::2]:
                    splits[i] = "test"
        found = {(t, s) for t, s in zip(tasks, splits, strict=True)}
        lacking = [
            (t, s)
            for t in dict.fromkeys(tasks)
            for s in ("train", "validation", "test")
            if (t, s) not in found
        ]
        if lacking:
            why = f"it leaves '{lacking[0][0]}' without {lacking[0][1]} episodes"
        else:
            kept = tuple(splits)
            counts = Counter(splits)
            why = ", ".join(f"{counts[s]} {s}" for s in ("train", "validation", "test"))
    say = "its own split is kept" if kept else "its own split is not taken, and episodes are split anew"
    _note(source, f"{source.path}: {say} ({why})")
    return kept


def _warn(source: Source, mapping: Mapping) -> None:
    """Name what is taken as the robot's own and is commonly not."""
    for vector in mapping.proprio:
        if _is_true_state(vector.name):
            _note(
                source,
                f"{source.path}: {vector} is taken as the robot's own state, and that name is commonly of objects, goals "
                "or the whole simulator, which no robot knows (--true-state imports it as such)",
            )


def _note(source: Source, note: str) -> None:
    if note not in source.notes:
        source.notes.append(note)


def _list(names: Sequence[str]) -> str:
    return f"found: {', '.join(names) or 'none'}"


def _vectors(source: Source, names: Sequence[str], option: str) -> tuple[Vector, ...]:
    out = []
    for text in names:
        match = PART.fullmatch(text) if text not in source.fields else None
        name = _find(source, match[1] if match else text, option, camera=False)
        (size,) = source.fields[name].shape
        start = int(match[2] or 0) if match else 0
        stop = int(match[3] or size) if match else size
        if not 0 <= start < stop <= size:
            raise UserError(
                f"{option} {text}: {name} has {size} numbers, from 0 to {size - 1}; correct the part"
            )
        out.append(Vector(name, start, stop))
    return tuple(out)


def _cameras(source: Source, names: Sequence[str]) -> dict[str, str]:
    if names:
        found = [_find(source, n, "--cameras", camera=True) for n in names]
    else:
        found = [n for n, f in source.fields.items() if f.camera and len(f.shape) == 3 and f.shape[2] == 3]
    if not found:
        if source.without_observations:
            raise UserError(f"{source.path}: {source.without_observations}")
        raise UserError(
            f"{source.path} holds no colour camera ({_list(list(source.fields))}); record with one"
        )
    return file_names(list(dict.fromkeys(found)))


def _find(source: Source, name: str, option: str, *, camera: bool) -> str:
    """A field by its name, or by what is left of it without its format's prefix."""
    fit = [n for n, f in source.fields.items() if f.camera == camera]
    if name in fit:
        return name
    short = [n for n in fit if short_name(n) == name]
    if len(short) == 1:
        return short[0]
    raise unknown_name(f"field in {source.path} for {option}", name, fit)
