"""What a recorded data set is to the import: named fields, episodes, and rows that stream in blocks.

A reader (``lerobot.py``, ``hdf5.py``, ``zarr_replay.py``) opens the files, checks their structure and yields
each field's rows in the order of the episodes; it never holds more than a block of them. What is read comes from
others: no path may leave the data set's folder, and nothing in a file is run.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from .. import records
from ..errors import UserError
from .checks import TEXT_BYTES, check_row_size, short, unreadable

BLOCK = 128  # rows that are in memory at once: 128 frames of 480 × 640 are 118 MB
BLOCK_BYTES = 2**28  # of the rows that are in memory at once: fewer where one is large

# Bookkeeping and labels: never the robot's state.
BOOKKEEPING = {"timestamp", "frame_index", "episode_index", "index", "task_index", "task", "task_uid"}
BOOKKEEPING |= {"reward", "rewards", "done", "dones", "terminal", "terminals", "success", "n_contacts"}
BOOKKEEPING |= {"next.reward", "next.done", "next.success", "next.truncated"}


@dataclass(frozen=True)
class Field:
    """A named stream of a data set. ``shape`` is one row's: (h, w, 3) of a camera, (d,) of anything else."""

    name: str
    shape: tuple[int, ...]
    camera: bool = False


class Source(Protocol):
    """An opened data set. Its structure has been checked; rows are checked as they are read."""

    format: str  # "lerobot-v3.0", "hdf5", ...
    path: Path  # what the user named
    fps: float | None
    fields: dict[str, Field]
    lengths: tuple[int, ...]  # frames of each episode, in order
    notes: list[str]  # what the user should know of how it was read; complete once it has been
    marks: (
        tuple[str | None, ...] | None
    )  # the split that the recording names for each episode, if it names any
    without_observations: str  # why it has neither camera nor robot state, and what to do; empty where it has

    def tasks(self, key: str | None) -> list[str]:
        """The task of each episode; ``key``: the field that holds it, if the user names one."""

    def proprio(self) -> tuple[str, ...]:
        """The fields that are the robot's own state by the format's convention; empty if there is none."""

    def files(self, names: Sequence[str]) -> list[tuple[str, Path]]:
        """The files that hold these fields, by their names inside the data set."""

    def read(self, name: str) -> Iterator[np.ndarray]:
        """The rows of a field in blocks: uint8 [n, h, w, 3] of a camera, a numeric [n, d] of anything else."""


def block_rows(shape: Sequence[int], item: int = 1, most: int = BLOCK) -> int:
    """How many rows of this shape are read at once: ``most``, or as many as ``BLOCK_BYTES`` hold; at least one."""
    return max(1, min(most, BLOCK_BYTES // max(1, math.prod(shape) * item)))


def inside(root: Path, relative: str) -> Path:
    """The file ``relative`` of the folder ``root``. Raises ``UserError`` for a path that leaves the folder.

    Links may point to other files of the folder, and a hub download's to the blobs beside its snapshots.
    """
    parts = PurePosixPath(relative.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or "\0" in relative or not parts.parts:
        raise UserError(
            f"{root}: the path '{relative}' leaves the data set's folder, and is not read; correct it"
        )
    file, home = root / parts, root.resolve()
    try:
        real = file.resolve()
    except (OSError, RuntimeError) as error:  # a link to itself, a name that is too long
        raise UserError(
            f"{file} leads nowhere ({short(error)}), and is not read; put the file in its place"
        ) from error
    homes = [home]
    # models--a--b/snapshots/REVISION links into models--a--b/blobs
    homes += [of.parent / "blobs" for of in home.parents if of.name == "snapshots"]
    if not any(real.is_relative_to(h) for h in homes):
        raise UserError(
            f"{file} is a link that leaves the data set's folder, and is not followed; put the file in its place"
        )
    if real.exists() and not real.is_file() and not real.is_dir():  # a pipe would be waited for
        raise UserError(f"{file} is neither a file nor a folder, and is not read; put the file in its place")
    return file


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Raise ``UserError`` if one of these files is there, and is a link to elsewhere, or no file."""
    for name in names:
        if (folder / name).is_symlink() or (folder / name).exists():
            inside(folder, name)


def files_below(root: Path, folder: str = ".") -> list[tuple[str, Path]]:
    """All files below a folder of the data set, sorted by name; each is ``inside`` the root."""
    out = []
    for where, folders, names in os.walk(root / folder):
        for name in [*names, *(f for f in folders if (Path(where) / f).is_symlink())]:
            relative = (Path(where) / name).relative_to(root).as_posix()
            file = inside(root, relative)
            if file.is_file():
                out.append((relative, file))
    return sorted(out)


def read_json(file: Path) -> Any:
    """The content of a JSON file. Raises ``UserError`` if it is missing or broken."""
    return parse_json(read_text(file), str(file))


def read_text(file: Path, limit: int = TEXT_BYTES) -> str:
    """The content of a text file of at most ``limit`` bytes. Raises ``UserError`` if it is missing or no text."""
    try:
        return read_bytes(file, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is no text in UTF-8 ({short(error)}); store it so, or fetch it again"
        ) from error


def read_bytes(file: Path, limit: int = TEXT_BYTES) -> bytes:
    """The content of a file of metadata, which is small: a larger one than ``limit`` is not read."""
    try:
        with file.open("rb") as stream:
            content = stream.read(limit + 1)
    except OSError as error:
        raise unreadable(file, error) from error
    if len(content) > limit:
        raise too_long(file, limit)
    return content


def read_start(file: Path, size: int) -> bytes:
    """The first bytes of a file, which tell its format."""
    try:
        with file.open("rb") as stream:
            return stream.read(size)
    except OSError as error:
        raise unreadable(file, error) from error


def too_long(where: Path | str, limit: int) -> UserError:
    """The error for metadata that are larger than any data set needs."""
    return UserError(f"{where} is larger than {limit >> 20} MiB, too large for metadata; correct it")


def parse_json(text: str | bytes, where: str) -> Any:
    """Parse JSON. Raises ``UserError`` that names ``where`` if it is broken."""
    try:
        return records.parse_json(text)
    except ValueError as error:
        if str(error) == records.TOO_DEEP:
            raise UserError(f"{where} nests its JSON too deeply to be read; correct it") from error
        raise UserError(
            f"{where} is not valid JSON ({short(error)}); repair it, or fetch the data set again"
        ) from error


def file_names(names: Sequence[str]) -> dict[str, str]:
    """Safe, distinct camera names, one for each source name: ``{safe: name}`` in the order given.

    What is common to all cameras of a format ("observation.images.", "obs/") is left away; any other character
    than letters, digits, "-" and "_" becomes "_"; a name that is taken (case apart) gets a number.
    """
    out: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        base = re.sub(r"[^A-Za-z0-9_-]", "_", short_name(name))[:80] or "camera"
        safe, number = base, 2
        while safe.lower() in taken:
            safe, number = f"{base}-{number}", number + 1
        taken.add(safe.lower())
        out[safe] = name
    return out


def short_name(name: str) -> str:
    """A field's name without what its format puts before all of them."""
    for prefix in ("observation.images.", "observation.", "obs/"):
        if name.startswith(prefix) and len(name) > len(prefix):
            return name.removeprefix(prefix)
    return name


def failure_note(path: Path, failed: Sequence[str], mark: str) -> list[str]:
    """What to say of episodes that are marked as failed; nothing if there are none."""
    if not failed:
        return []
    named = ", ".join(failed[:5]) + (f" and {len(failed) - 5} more" if len(failed) > 5 else "")
    one = len(failed) == 1
    return [
        f"{path}: {len(failed)} demonstration{'' if one else 's'} ({named}) {'has' if one else 'have'} {mark}: they "
        "are imported like the others; remove them from the recording if a policy should not imitate them"
    ]


class RowStream:
    """Rows from a stream of blocks, taken by their number."""

    def __init__(self, blocks: Iterator[np.ndarray]) -> None:
        self._blocks = blocks
        self._held: np.ndarray | None = None

    def take(self, rows: int) -> Iterator[np.ndarray]:
        """The next ``rows`` rows, in blocks; fewer if the stream ends."""
        while rows:
            held = next(self._blocks, None) if self._held is None else self._held
            if held is None:
                return
            part, rest = held[:rows], held[rows:]
            self._held = rest if len(rest) else None
            rows -= len(part)
            yield part

    def close(self) -> None:
        """Close the stream."""
        close = getattr(self._blocks, "close", None)
        if close:
            close()


def rows_of(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same rows in blocks of ``size`` (the last may be shorter)."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        while len(block):
            part, block = block[: size - count], block[size - count :]
            held.append(part)
            count += len(part)
            if count == size:
                yield held[0] if len(held) == 1 else np.concatenate(held)
                held, count = [], 0
    if held:
        yield np.concatenate(held)


def decode_image(data: bytes, where: str) -> np.ndarray:
    """A PNG or JPEG → uint8 [h, w, 3]. Raises ``UserError`` for what is no 8-bit colour or grey image."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            check_row_size("an image", (image.height, image.width, 3), where, item=1)
            if image.mode not in ("RGB", "RGBA", "L", "P"):
                raise UserError(f"{where} holds images of kind {image.mode}, not 8-bit colour; leave it out")
            return np.asarray(image.convert("RGB"))
    except UserError:
        raise
    except Exception as error:  # the library raises many kinds for broken files
        raise unreadable(where, error) from error


def colour_rows(rows: np.ndarray, where: str) -> np.ndarray:
    """Frames as stored in an array → uint8 [n, h, w, 3]; floats must be whole numbers from 0 to 255."""
    if rows.ndim != 4:
        raise UserError(
            f"{where} is no camera: its rows have the shape {rows.shape[1:]}, not (h, w, 3); choose others"
        )
    if rows.shape[3] != 3 and rows.shape[1] == 3:
        rows = rows.transpose(0, 2, 3, 1)
    if rows.shape[3] != 3:
        raise UserError(
            f"{where} is no colour camera: its frames have {rows.shape[3]} channels; leave it out"
        )
    if rows.dtype == np.uint8:
        return rows
    with np.errstate(invalid="ignore"):
        whole = rows.astype(np.uint8)
    if not np.array_equal(whole, rows):
        raise UserError(
            f"{where} holds pixels that are no whole numbers from 0 to 255; store its frames as uint8"
        )
    return whole


def camera_shape(shape: Sequence[int]) -> tuple[int, ...] | None:
    """(h, w, 3) if rows of this shape are colour frames, stored (h, w, 3) or (3, h, w); else None."""
    if len(shape) != 3 or 3 not in (shape[0], shape[2]) or min(shape) < 1:
        return None
    return tuple(shape) if shape[2] == 3 else (shape[1], shape[2], shape[0])


def vector_rows(rows: np.ndarray, where: str) -> np.ndarray:
    """Rows of numbers as [n, d]; a number a row becomes d = 1."""
    if rows.dtype.kind not in "fiub":
        raise UserError(f"{where} holds no numbers ({rows.dtype}); choose another field")
    return rows.reshape(len(rows), -1)


def first_episode(frame: int, lengths: Sequence[int]) -> tuple[int, int]:
    """The episode of a frame, and the frame's number in it."""
    ends = np.cumsum(lengths)
    episode = int(np.searchsorted(ends, frame, side="right"))
    return episode, int(frame - (ends[episode] - lengths[episode]))
