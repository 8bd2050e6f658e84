"""The feature cache: what a frozen encoder computes, once per set of demonstrations, as a memory map.

With a ``work`` folder the frames are cut into shards, one file each. A run that was killed goes on after its last
finished shard, and several workers can fill one folder: a worker claims a shard by creating a file, which one of
them alone can do. A claim is a hint and no lock: what others have claimed is left to them, but computed all the
same if they do not deliver it. The bytes do not depend on who computed what: batches are cut at the same frames
always.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..demos import DemoSet
from ..errors import UserError
from ..nn import Interrupted
from ..records import read_array
from ..sims import Observation
from ..store.store import Superseded
from .base import Encoder

BATCH = 64  # frames at a time; larger batches fall out of the processor's cache
SHARDS = 256  # at most; a shard has at least one batch
PATIENCE = 2.0  # times its own slowest shard that a worker waits for the shards of others

Progress = Callable[[int, int], None]


def cache_features(
    encoder: Encoder,
    demos: DemoSet,
    folder: Path,
    progress: Progress = lambda done, total: None,
    *,
    work: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Write ``features.npy`` [F, C, ...] in the encoder's dtype to ``folder``; returns its path.

    ``work``: a folder of this encoder and these demonstrations alone, for shards. Raises ``Interrupted`` when
    ``should_stop()``, ``Superseded`` when another worker was faster, ``UserError`` for features that the
    dtype cannot hold.
    """
    if not encoder.frozen:
        raise ValueError(f"{encoder.name} is trained with the policy: its features cannot be cached")
    frames = len(demos.actions)
    if work is None:
        parts = _batches(encoder, demos, 0, frames, should_stop)
        return _write(encoder, folder, frames, _counted(parts, frames, progress))
    fill_shards(encoder, demos, work, progress, should_stop=should_stop)
    return _write(encoder, folder, frames, (_read(f) for f in _shards(work, frames).values()))


def fill_shards(
    encoder: Encoder,
    demos: DemoSet,
    work: Path,
    progress: Progress = lambda done, total: None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Compute shards until all are there: what each worker of a set does, and all that a helper does."""
    work.mkdir(parents=True, exist_ok=True)
    frames = len(demos.actions)
    shards, slowest = _shards(work, frames), 0.0
    _drop_claims_of_the_dead(work)
    for own in (True, False):  # first what nobody has claimed, then what is still missing
        for (start, stop), file in shards.items():
            if own and not (file.exists() or _claim(file)):
                continue
            if not own:
                _wait(file, PATIENCE * slowest, should_stop)
            if not file.exists():
                begun = time.monotonic()
                try:
                    _compute(encoder, demos, start, stop, file, should_stop)
                except BaseException:
                    file.with_suffix(".claim").unlink(missing_ok=True)
                    raise
                slowest = max(slowest, time.monotonic() - begun)
            progress(sum(b - a for (a, b), f in shards.items() if f.exists()), frames)


def _shards(work: Path, frames: int) -> dict[tuple[int, int], Path]:
    """Frames from, to → the shard's file. A shard is a whole number of batches (the last may be shorter)."""
    size = BATCH * max(1, -(-frames // (BATCH * SHARDS)))
    return {
        (start, min(start + size, frames)): work / f"shard-{start:09d}.npy"
        for start in range(0, frames, size)
    }


def _batches(
    encoder: Encoder, demos: DemoSet, start: int, stop: int, should_stop: Callable[[], bool]
) -> Iterator[np.ndarray]:
    """Features [BATCH, C, ...] of frames ``start`` to ``stop``, in the dtype of the cache."""
    tasks = getattr(encoder, "tasks", demos.tasks)
    for first in range(start, stop, BATCH):
        if should_stop():
            raise Interrupted
        found = encoder.features(frame_batch(demos, slice(first, min(first + BATCH, stop)), tasks))[:, 0]
        with np.errstate(over="ignore"):
            kept = found.astype(encoder.dtype)
        if not np.isfinite(kept).all():
            worst = float(np.abs(found).max())
            raise UserError(
                f"encoder '{encoder.name}' gives features up to {worst:.3g} at frames {first} to "
                f"{first + len(found) - 1}, which {np.dtype(encoder.dtype).name} cannot hold: use another encoder"
            )
        yield kept


def _counted(parts: Iterator[np.ndarray], frames: int, progress: Progress) -> Iterator[np.ndarray]:
    done = 0
    for part in parts:
        yield part
        done += len(part)
        progress(done, frames)


def _compute(
    encoder: Encoder, demos: DemoSet, start: int, stop: int, file: Path, should_stop: Callable[[], bool]
) -> None:
    """One shard, by one rename: it is there as a whole or not at all."""
    rows = np.concatenate(list(_batches(encoder, demos, start, stop, should_stop)))
    scratch = file.with_name(f".{file.stem}.{_me().replace(' ', '.')}.npy")
    try:
        with scratch.open("wb") as stream:
            np.save(stream, rows, allow_pickle=False)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, file)
    except FileNotFoundError as error:
        raise Superseded from error


def _write(encoder: Encoder, folder: Path, frames: int, parts: Iterator[np.ndarray]) -> Path:
    """The parts, one behind the other, as one memory map."""
    out, at = None, 0
    for part in parts:
        if out is None:
            shape = (frames, *part.shape[1:])
            out = np.lib.format.open_memmap(folder / "features.npy", "w+", encoder.dtype, shape)
        if part.dtype != out.dtype or part.shape[1:] != out.shape[1:]:
            raise ValueError(
                f"a part {part.dtype}{part.shape} among {out.dtype}{out.shape}: another encoder's?"
            )
        out[at : at + len(part)] = part
        at += len(part)
    if out is None or at != frames:
        raise ValueError(f"{at} rows of features for {frames} frames")
    out.flush()
    return folder / "features.npy"


def _read(file: Path) -> np.ndarray:
    try:
        return read_array(file, mapped=True)
    except FileNotFoundError as error:
        raise Superseded from error


def _me() -> str:
    return f"{socket.gethostname()} {os.getpid()}"


def _claim(file: Path) -> bool:
    """Create the shard's claim; False if another has."""
    try:
        handle = os.open(file.with_suffix(".claim"), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    except FileNotFoundError as error:
        raise Superseded from error
    with os.fdopen(handle, "w") as stream:
        stream.write(_me())
    return True


def _drop_claims_of_the_dead(work: Path) -> None:
    """Free what killed workers of this machine had claimed (of others': see ``_wait``), and their scraps."""
    host = socket.gethostname()
    for claim in work.glob("*.claim"):
        try:
            owner, _, process = claim.read_text().rpartition(" ")
        except OSError:
            continue  # another worker has just dropped it
        if owner == host and process.isdecimal() and not _alive(int(process)):
            claim.unlink(missing_ok=True)
            for scrap in work.glob(f".{claim.stem}.{host}.{process}.npy"):
                scrap.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _wait(file: Path, patience: float, should_stop: Callable[[], bool]) -> None:
    """Give the worker that claimed a shard time to deliver it."""
    until = time.monotonic() + patience
    while not file.exists() and time.monotonic() < until:
        if not file.parent.is_dir():
            raise Superseded
        if should_stop():
            raise Interrupted
        time.sleep(min(0.5, patience / 20))


def frame_batch(demos: DemoSet, rows: slice, tasks: Sequence[str] | None = None) -> Observation:
    """Frames as a batch of observations with T = 1; the task's number is that among ``tasks``, or else the set's."""
    proprio = demos.proprio[rows][:, None]
    return Observation(
        images={c: a[rows][:, None] for c, a in demos.images.items()},
        proprio=proprio,
        task=_task_numbers(demos, tasks or demos.tasks)[rows],
        state=None if demos.state is None else demos.state[rows][:, None],
    )


def _task_numbers(demos: DemoSet, tasks: Sequence[str]) -> np.ndarray:
    """Each frame's task among ``tasks``, int64 [F]; −1 for one that is not there."""
    numbers = np.full(len(demos.proprio), -1)
    for e in demos.episodes:
        if e.task in tasks:
            numbers[e.start : e.start + e.length] = tasks.index(e.task)
    return numbers
