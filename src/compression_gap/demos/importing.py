"""Other people's recordings → the same sets of demonstrations that the simulators make, in the store.

A source's fields are mapped by name: action, the robot's own state (→ ``proprio``), cameras, task; a simulator's
true state (→ ``state``) only on demand. What is not given is inferred where the names leave no doubt. The recipe
pins the source's content, the mapping and the image size, so that importing twice gives the same artefact.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..artifacts import Recipe, Store, canonical_json, file_sha256
from ..errors import UserError, unknown_name
from .demoset import DemoWriter
from .hdf5 import Hdf5, is_hdf5
from .lerobot import LeRobot, is_lerobot
from .source import BOOKKEEPING, Source, file_names, first_episode, rows_of, short_name
from .zarr_replay import ZarrReplay, is_zarr

VERSION = 2  # raised when the import's bytes change
Format = Literal["auto", "lerobot", "hdf5", "zarr"]
READERS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Source]]] = {
    "lerobot": (is_lerobot, LeRobot),
    "hdf5": (is_hdf5, Hdf5),
    "zarr": (is_zarr, ZarrReplay),
}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
PART = re.compile(r"(.+)\[(\d*):(\d*)\]")
FEWEST = 3  # episodes of a task: one each for training, validation and test


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


def open_source(path: Path, format: Format = "auto") -> Source:
    """Open a data set. Raises ``UserError`` if it is none, or not as its format demands."""
    if not path.exists():
        raise UserError(
            f"{path} does not exist: name a folder or file of recordings, or a hub id as owner/name[@revision]"
        )
    kinds = list(READERS) if format == "auto" else [format]
    for kind in kinds:
        fits, reader = READERS[kind]
        if fits(path):
            return reader(path)
    what = "no data set of a known format" if format == "auto" else f"no data set of the format {format}"
    raise UserError(
        f"{path} is {what}: a LeRobotDataset has meta/info.json, an HDF5 file ends in .hdf5, a Zarr replay buffer "
        "is a folder or .zip with data/ and meta/episode_ends; name one of these"
    )


def locate(text: str) -> tuple[Path, dict[str, str] | None]:
    """A local path as it is; a hub id is downloaded: its folder, and the id and revision that name its content."""
    path = Path(text).expanduser()
    if path.exists() or not HUB_ID.fullmatch(text) or text.startswith("."):
        return path, None
    name, _, revision = text.partition("@")
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(name, repo_type="dataset", revision=revision or None))
    except Exception as error:  # the network, the hub and its client fail in many ways
        raise UserError(
            f"{text} is no local path, and could not be downloaded from the hub ({type(error).__name__}); check "
            "its name, or fetch it on another machine and name its local folder"
        ) from error
    return folder, {"hub": name, "revision": folder.name}


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
    return mapping


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
    raise UserError(
        f"{source.path}: which field is the robot's own state is not clear; give --state, one or several in order "
        f"({_list(_numeric(source))})"
    )


def _is_true_state(name: str) -> bool:
    """Whether a name is commonly that of objects, goals or the whole simulator."""
    short = short_name(name)
    return short == "states" or any(
        w in short for w in ("object", "environment", "env_state", "goal", "keypoint")
    )


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


def recipe_of(source: Source, wanted: Wanted, mapping: Mapping, origin: dict[str, str] | None) -> Recipe:
    """The recipe of the import: it holds no path, and changes with the source's content."""
    pinned: dict[str, Any] = {
        "format": source.format,
        **(origin or {"sha256": content_hash(source, mapping)}),
    }
    about = {
        "source": pinned,
        "action": [str(v) for v in mapping.action],
        "proprio": [str(v) for v in mapping.proprio],
        "state": [str(v) for v in mapping.state],
        "cameras": [[safe, name] for safe, name in mapping.cameras.items()],
        "image_size": wanted.image_size,
        "task_key": wanted.task_key,
        "episode_tasks": hashlib.sha256(canonical_json(list(mapping.tasks)).encode()).hexdigest(),
    }
    tasks = list(dict.fromkeys(mapping.tasks))
    return Recipe("demos", {"import": about, "tasks": tasks}, {}, VERSION)


def content_hash(source: Source, mapping: Mapping) -> str:
    """SHA-256 over the names and contents of all files that are read."""
    files = [[name, file_sha256(file)] for name, file in source.files(mapping.fields)]
    return hashlib.sha256(canonical_json(files).encode()).hexdigest()


def import_demos(
    source: Source,
    wanted: Wanted,
    store: Store,
    *,
    origin: dict[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Recipe, bool]:
    """Import a source into the store; the recipe of the set, and whether it was there already.

    Frames pass through memory in blocks; each camera is read by a thread of its own. ``progress(done, total)``
    counts frames of all cameras. A failure leaves nothing in the store.
    """
    mapping = resolve(source, wanted)
    recipe = recipe_of(source, wanted, mapping, origin)
    if store.has(recipe):
        store.open(recipe)
        return recipe, True
    meta: dict[str, Any] = {}
    begun = time.perf_counter()
    with store.create(recipe, meta) as out:
        _write(source, wanted, mapping, dict(recipe.spec), out, progress)
        meta |= {"episodes": len(source.lengths), "frames": sum(source.lengths), "fps": source.fps}
        meta["build_seconds"] = time.perf_counter() - begun
    return recipe, False


def _write(
    source: Source,
    wanted: Wanted,
    mapping: Mapping,
    spec: dict[str, Any],
    out: Path,
    progress: Callable[[int, int], None],
) -> None:
    about = {"kind": "import", "fps": source.fps, **spec["import"]}
    writer = DemoWriter(out, source=about, cameras=list(mapping.cameras))
    for task, length in zip(mapping.tasks, source.lengths, strict=True):
        writer.episode(task, length)
    for stream, vectors in mapping.vectors.items():
        for rows in _joined(source, vectors):
            writer.stream(stream, rows)
    frames = sum(source.lengths)
    counter, lock, stopped = Counter[str](), threading.Lock(), threading.Event()

    def copy(camera: str) -> None:
        try:
            for block in _frames(source, mapping.cameras[camera], wanted.image_size):
                if stopped.is_set():
                    return
                writer.stream(f"images-{camera}", block)
                with lock:
                    counter[camera] += len(block)
                    progress(counter.total(), frames * len(mapping.cameras))
        except BaseException:
            stopped.set()
            raise

    with ThreadPoolExecutor(min(4, len(mapping.cameras))) as pool:
        tasks = [pool.submit(copy, camera) for camera in mapping.cameras]
        try:
            for task_ in tasks:
                task_.result()
        except BaseException:
            stopped.set()
            raise
    for camera, found in counter.items():
        if found != frames:
            raise UserError(
                f"{source.path}: {mapping.cameras[camera]} has {found} frames for {frames} actions; fetch it again"
            )
    writer.close()


def _joined(source: Source, vectors: Sequence[Vector]) -> Iterator[np.ndarray]:
    """The vectors side by side, float32 [n, sum of their sizes]. Refuses NaN, infinity and a missing row."""
    done, total = 0, sum(source.lengths)
    for blocks in zip(*(rows_of(source.read(v.name), 4096) for v in vectors), strict=True):
        rows = np.concatenate(
            [b[:, v.start : v.stop].astype(np.float32) for b, v in zip(blocks, vectors, strict=True)], axis=1
        )
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            episode, frame = first_episode(done + int(bad[0]), source.lengths)
            names = ", ".join(v.name for v in vectors)
            raise UserError(
                f"{source.path}: {names} is NaN or infinite in frame {frame} of episode {episode}; remove or repair "
                "that episode"
            )
        done += len(rows)
        yield rows
    if done != total:
        raise UserError(
            f"{source.path}: {vectors[0].name} has {done} rows for {total} frames; fetch it again"
        )


def _frames(source: Source, name: str, size: int | None) -> Iterator[np.ndarray]:
    """A camera's frames, uint8 [n, h, w, 3], resized to ``size`` × ``size`` if it is given."""
    shape: tuple[int, ...] | None = None
    for rows in source.read(name):
        if shape is not None and rows.shape[1:] != shape:
            raise UserError(
                f"{source.path}: {name} changes its size from {shape[:2]} to {rows.shape[1:3]}; resize its frames"
            )
        shape = rows.shape[1:]
        yield rows if size is None or shape[:2] == (size, size) else resize(rows, size)


def resize(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames [n, h, w, 3] at ``size`` × ``size``: averages over areas, linear where they are enlarged.

    Both sides are scaled apart, so the aspect ratio of an oblong frame is not kept.
    """
    from PIL import Image

    shrinks = min(frames.shape[1:3]) >= size
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.stack([np.asarray(Image.fromarray(f).resize((size, size), how)) for f in frames])
