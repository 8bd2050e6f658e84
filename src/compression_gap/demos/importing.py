"""Other people's recordings → the same sets of demonstrations that the simulators make, in the store.

A source's fields are mapped by name: action, the robot's own state (→ ``proprio``), cameras, task; a simulator's
true state (→ ``state``) only on demand. What is not given is inferred where the names leave no doubt. The recipe
pins the source's content, the mapping and the image size, so that importing twice gives the same artefact.
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UserError
from ..store.store import Recipe, Store, canonical_json, file_sha256
from .demoset import DemoWriter
from .hdf5 import Hdf5, is_hdf5
from .lerobot import LeRobot, is_lerobot
from .mapping import Mapping, Vector, Wanted, resolve
from .source import Source, block_rows, first_episode, rows_of
from .zarr_replay import ZarrReplay, is_zarr

VERSION = 2  # raised when the import's bytes change
Format = Literal["auto", "lerobot", "hdf5", "zarr"]
READERS: dict[str, tuple[Callable[[Path], bool], Callable[[Path], Source]]] = {
    "lerobot": (is_lerobot, LeRobot),
    "hdf5": (is_hdf5, Hdf5),
    "zarr": (is_zarr, ZarrReplay),
}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
DISK_KEPT = 2**28  # bytes that an import leaves free


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
    if mapping.splits is not None:
        about["episode_splits"] = hashlib.sha256(canonical_json(list(mapping.splits)).encode()).hexdigest()
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
    _check_disk(source, wanted, mapping, store.root)
    meta: dict[str, Any] = {}
    begun = time.perf_counter()
    with store.create(recipe, meta) as out:
        about = {"kind": "import", "fps": source.fps, **recipe.spec["import"]}
        writer = DemoWriter(out, source=about, cameras=list(mapping.cameras))
        _write(source, wanted, mapping, writer, progress)
        meta |= {"episodes": len(source.lengths), "frames": sum(source.lengths), "fps": source.fps}
        meta["build_seconds"] = time.perf_counter() - begun
    return recipe, False


def _check_disk(source: Source, wanted: Wanted, mapping: Mapping, root: Path) -> None:
    """Compare the frames that the files claim with the free disk, before anything is written."""
    size = wanted.image_size
    frame = 4 * sum(v.stop - v.start for vectors in mapping.vectors.values() for v in vectors)
    for field in mapping.cameras.values():
        frame += 3 * size * size if size else math.prod(source.fields[field].shape)
    needed, free = frame * sum(source.lengths), shutil.disk_usage(root).free
    if needed + DISK_KEPT > free:
        raise UserError(
            f"{source.path} claims {sum(source.lengths)} frames, {needed / 1e9:.1f} GB once they are imported, and the "
            f"disk with {root} has {free / 1e9:.1f} GB free: free some, take fewer --cameras or a smaller --image-size, or "
            "correct the recording if it does not hold so many"
        )


def _write(
    source: Source,
    wanted: Wanted,
    mapping: Mapping,
    writer: DemoWriter,
    progress: Callable[[int, int], None],
) -> None:
    splits = mapping.splits or [None] * len(source.lengths)
    for task, length, split in zip(mapping.tasks, source.lengths, splits, strict=True):
        writer.episode(task, length, split=split)
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
    rows = block_rows((sum(source.fields[v.name].shape[0] for v in vectors),), 8, 4096)
    for blocks in zip(*(rows_of(source.read(v.name), rows) for v in vectors), strict=True):
        joined = np.concatenate(
            [b[:, v.start : v.stop].astype(np.float32) for b, v in zip(blocks, vectors, strict=True)], axis=1
        )
        bad = np.flatnonzero(~np.isfinite(joined).all(1))
        if len(bad):
            episode, frame = first_episode(done + int(bad[0]), source.lengths)
            names = ", ".join(v.name for v in vectors)
            raise UserError(
                f"{source.path}: {names} is NaN or infinite in frame {frame} of episode {episode}; remove or repair "
                "that episode"
            )
        done += len(joined)
        yield joined
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
