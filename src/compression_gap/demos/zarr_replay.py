"""Zarr replay buffers: ``data/{action, …}`` with all episodes joined, and ``meta/episode_ends``.

Written by Diffusion Policy (https://github.com/real-stanford/diffusion_policy, ``common/replay_buffer.py``), UMI
and OAT (whose keys for LIBERO are ``agentview_rgb``, ``robot0_eye_in_hand_rgb``, ``robot0_eef_pos``,
``robot0_eef_quat``, ``robot0_gripper_qpos``, ``task_uid``): a folder or a .zip, Zarr format 2 or 3.
Arrays of Python objects are pickled; they are never decoded.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import UserError
from .checks import check_row_size, library_errors, missing_parts, short, whole, whole_array
from .source import (
    Field,
    block_rows,
    camera_shape,
    colour_rows,
    files_below,
    parse_json,
    read_bytes,
    too_long,
    vector_rows,
)
from .zarr_store import CHUNK_BYTES, SPARE, bounded, check_codecs

METADATA = (".zarray", ".zgroup", ".zattrs", "zarr.json")  # what the library reads as JSON
METADATA_BYTES = 2**24  # of one of these: zarr.json of a group may hold those of all its arrays
MOST_CHUNKS = 2**22
MOST_DIMENSIONS = 32
COLUMN_BYTES = 2**28  # of a field that is read whole: the episodes' ends, the tasks
MARKS = (".zgroup", "zarr.json", ".zmetadata")
ENDS = ("meta/episode_ends/.zarray", "meta/episode_ends/zarr.json")
CONVENTIONS = (
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),  # OAT
    ("robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width"),  # UMI
    ("agent_pos",),
)
# PushT's state is (agent x, y, block x, y, angle): its robot is the agent alone. Its other fields tell it from others.
PUSHT = {"action": 2, "state": 5}
PUSHT_MARKS = {"keypoint": 18, "n_contacts": 1}


def is_zarr(path: Path) -> bool:
    """Whether a folder or a .zip holds a replay buffer."""
    if path.is_dir():
        return any((path / m).is_file() for m in (*MARKS, *ENDS))
    return zipfile.is_zipfile(path)


class ZarrReplay:
    """An opened replay buffer: all its fields have as many rows as its episodes have frames."""

    format = "zarr"
    fps: float | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._prefix = ""
        self._texts = self._zip_metadata() if path.is_file() else self._folder_metadata()
        self._objects = {n for n, text in self._texts.items() if _check_metadata(text, f"{path}, {n}")}
        group = self._open()
        self.lengths = self._episode_lengths(group)
        frames = sum(self.lengths)
        self._arrays: dict[str, Any] = {}
        self.fields: dict[str, Field] = {}
        self.marks: tuple[str | None, ...] | None = None
        self.without_observations = ""
        self.notes: list[str] = []
        for name in sorted(self._names("data/")):
            if f"data/{name}" in self._objects:
                continue
            array = self._array(group, f"data/{name}")
            if not array.shape or array.dtype.kind not in "fiubUS":
                continue
            if array.shape[0] != frames:
                raise UserError(
                    f"{path}: data/{name} has {array.shape[0]} rows for the {frames} frames of meta/episode_ends; "
                    "fetch it again, or remove that array"
                )
            self._arrays[name] = array
            seen = camera_shape(array.shape[1:])
            if seen is not None:
                self.fields[name] = Field(name, seen, camera=True)
            elif len(array.shape) <= 2 and array.dtype.kind in "fiub":
                self.fields[name] = Field(name, (int(np.prod(array.shape[1:], dtype=int)),))

    # Metadata is read as JSON before the library opens anything.

    def _folder_metadata(self) -> dict[str, bytes]:
        found = files_below(self.path)  # no file of it may be a link to the outside
        texts = {p: read_bytes(f, METADATA_BYTES) for p, f in found if PurePosixPath(p).name in METADATA}
        return _of_arrays(texts)

    def _zip_metadata(self) -> dict[str, bytes]:
        kinds = (
            OSError,
            zipfile.BadZipFile,
            RuntimeError,
            NotImplementedError,
            ValueError,
            EOFError,
            zlib.error,
        )
        with library_errors(self.path, *kinds), zipfile.ZipFile(self.path) as archive:
            names = archive.namelist()
            ends = [n for n in names if n.endswith(ENDS)]
            if not ends:
                raise UserError(f"{self.path} holds no replay buffer (meta/episode_ends); name another file")
            self._prefix = min(ends, key=len).rsplit("meta/episode_ends/", 1)[0]
            texts = {}
            for about in archive.infolist():
                name = about.filename
                if name.startswith(self._prefix) and PurePosixPath(name).name in METADATA:
                    if about.file_size > METADATA_BYTES:
                        raise too_long(f"{self.path}, {name}", METADATA_BYTES)
                    texts[name.removeprefix(self._prefix)] = archive.read(about)
            return _of_arrays(texts)

    def _sizes(self) -> list[tuple[str, int]]:
        """The files, or the members of a .zip, and their sizes unpacked."""
        if self.path.is_file():
            with zipfile.ZipFile(self.path) as archive:
                return [(about.filename, about.file_size) for about in archive.infolist()]
        return [(name, file.stat().st_size) for name, file in files_below(self.path)]

    def _names(self, below: str) -> list[str]:
        names = (n.removeprefix(below) for n in self._texts if n.startswith(below))
        return [n for n in names if "/" not in n and _is_array(self._texts[below + n])]

    def _open(self) -> Any:
        import zarr

        with zarr_errors(self.path):
            # A file that is far too large is not even read.
            for name, size in self._sizes():
                if size > CHUNK_BYTES + SPARE:
                    raise UserError(
                        f"{self.path}, {name} has {size >> 20} MiB, too much for a chunk; store smaller ones"
                    )
            store: Any
            if self.path.is_file():
                store = zarr.storage.ZipStore(self.path, mode="r")
            else:
                store = zarr.storage.LocalStore(self.path, read_only=True)
            return zarr.open_group(
                bounded(store, str(self.path)),
                path=self._prefix.rstrip("/"),
                mode="r",
                use_consolidated=False,
            )

    def _array(self, group: Any, name: str) -> Any:
        if name in self._objects:
            raise UserError(
                f"{self.path}: {name} is an array of Python objects, which would be unpickled; store it as numbers "
                "or fixed-length text"
            )
        if name not in self._texts:
            raise UserError(f"{self.path} has no {name}, so it is no replay buffer; name another file")
        try:
            array = group[name]
            chunk = math.prod(getattr(array, "shards", None) or array.chunks) * array.dtype.itemsize
        except Exception as error:  # an unknown codec, a broken shape: the library raises many kinds
            raise UserError(
                f"{self.path}: {name} cannot be opened ({short(error)}); if its codec is not installed here, store it with "
                "Blosc or Zstd"
            ) from error
        if chunk > CHUNK_BYTES:
            raise UserError(
                f"{self.path}: a chunk of {name} has {chunk >> 20} MiB, too much to read at once; store it in smaller ones"
            )
        return array

    def _whole(self, array: Any, name: str) -> np.ndarray:
        """An array that is read at once, which must be small."""
        if array.nbytes > COLUMN_BYTES:
            raise UserError(
                f"{self.path}: {name} claims {array.nbytes >> 20} MiB, too much for it; correct it"
            )
        with zarr_errors(f"{self.path}, {name}"):
            return np.asarray(array[:])

    def _episode_lengths(self, group: Any) -> tuple[int, ...]:
        name = "meta/episode_ends"
        where = f"{self.path}, {name}"
        array = self._array(group, name)
        if len(array.shape) != 1 or array.dtype.kind not in "iuf" or not array.shape[0]:
            raise UserError(
                f"{self.path}: meta/episode_ends is no list of numbers; store the ends of episodes"
            )
        there, all_ = self._parts(array, where)
        missing_parts(there, all_, 2, name, self.path)
        ends = whole_array(self._whole(array, name), name, where, row="episode {}".format)
        lengths = np.diff(ends, prepend=0)
        if (lengths < 1).any():
            at = int(np.flatnonzero(lengths < 1)[0])
            raise UserError(
                f"{self.path}: meta/episode_ends does not increase: episode {at} would have {lengths[at]} frames; "
                "correct it"
            )
        return tuple(lengths.tolist())

    # The protocol of a source

    def tasks(self, key: str | None) -> list[str]:
        """By ``key``, else by ``task_uid`` ("task 3"), else the buffer's name for all."""
        name = key or ("task_uid" if "task_uid" in self._arrays else None)
        if name is None:
            return [self.path.name.split(".")[0] or "task"] * len(self.lengths)
        if name not in self._arrays:
            if f"data/{name}" in self._objects:
                self._array(None, f"data/{name}")
            raise UserError(f"{self.path} has no field '{name}' a frame (found: {', '.join(self._arrays)})")
        self._check_complete(name)
        rows = self._whole(self._arrays[name], f"data/{name}")
        out = []
        for number, own in enumerate(np.split(rows, np.cumsum(self.lengths)[:-1])):
            values = np.unique(own)
            if len(values) != 1:
                raise UserError(
                    f"{self.path}: episode {number} has {len(values)} values of {name}; name one task for all "
                    "with --task-text"
                )
            out.append(_task(values[0], f"{self.path}, data/{name} of episode {number}"))
        return out

    def proprio(self) -> tuple[str, ...]:
        """OAT's and UMI's keys, ``agent_pos``, or ``state``; of PushT's state the agent's two numbers.

        Raises ``UserError`` for a state that may be PushT's: most of it would be the block's pose.
        """
        for names in CONVENTIONS:
            if all(n in self.fields for n in names):
                return names
        if "state" not in self.fields:
            return ()
        sizes = {n: int(np.prod(a.shape[1:], dtype=int)) for n, a in self._arrays.items()}
        if not all(sizes.get(n) == s for n, s in PUSHT.items()):
            return ("state",)
        if any(sizes.get(n) == s for n, s in PUSHT_MARKS.items()):
            return ("state[0:2]",)
        raise UserError(
            f"{self.path}: state has five numbers beside an action of two, as PushT's has, where two are the robot's and "
            "three the block's pose; give --state state[0:2] if it is PushT's, --state state if all are the robot's own"
        )

    def files(self, names: Sequence[str]) -> list[tuple[str, Path]]:
        """The .zip, or the files of these fields and of ``meta``."""
        if self.path.is_file():
            return [(self.path.name, self.path)]
        folders = ["meta", *(f"data/{n}" for n in names)]
        return [pair for folder in folders for pair in files_below(self.path, folder)]

    def read(self, name: str) -> Iterator[np.ndarray]:
        """The rows of a field; never more than one chunk of the array, or a block of whole ones."""
        self._check_complete(name)
        array, where, field = self._arrays[name], f"{self.path}, data/{name}", self.fields[name]
        check_row_size(name, field.shape, self.path, item=array.dtype.itemsize)
        chunk = int((getattr(array, "shards", None) or array.chunks)[0])
        most = block_rows(array.shape[1:], array.dtype.itemsize)
        step = max(1, most // chunk) * chunk
        for start in range(0, array.shape[0], step):
            with zarr_errors(where):
                rows = np.asarray(array[start : start + step])
            yield colour_rows(rows, where) if field.camera else vector_rows(rows, where)

    def _check_complete(self, name: str) -> None:
        array = self._arrays[name]
        there, all_ = self._parts(array, f"{self.path}, data/{name}")
        size = int(np.prod(array.shape[1:], dtype=int))
        note = missing_parts(there, all_, size, f"data/{name}", self.path)
        if note and note not in self.notes:
            self.notes.append(note)

    def _parts(self, array: Any, where: str) -> tuple[int, int]:
        with zarr_errors(where):
            if array.nchunks > MOST_CHUNKS:  # the library looks for each of them
                raise UserError(f"{where} claims {array.nchunks} chunks, too many; store it in larger ones")
            return array.nchunks_initialized, array.nchunks


def zarr_errors(where: Path | str) -> AbstractContextManager[None]:
    """Turn what zarr and its codecs raise (many kinds for broken files) into a sentence."""
    return library_errors(where, Exception)


def _of_arrays(texts: dict[str, bytes]) -> dict[str, bytes]:
    """Of all metadata those of the arrays, by the arrays' names."""
    own = {p: t for p, t in texts.items() if PurePosixPath(p).name in (".zarray", "zarr.json")}
    return {str(PurePosixPath(p).parent): t for p, t in own.items()}


def _is_array(text: bytes) -> bool:
    about = parse_json(text, "zarr")
    return isinstance(about, dict) and about.get("node_type", "array") == "array"


def _check_metadata(text: bytes, where: str) -> bool:
    """Check an array's metadata before the library reads them; whether they say that it holds objects.

    Raises ``UserError`` if these would be unpickled, or if its sizes are none.
    """
    about = parse_json(text, where)
    if not isinstance(about, dict):
        raise UserError(f"{where} has no metadata; fetch the replay buffer again")
    if _names_pickle(about.get("filters")) or _names_pickle(about.get("compressor")):
        raise UserError(
            f"{where} is stored with the pickle codec, which can run code when it is read; store it as numbers or "
            "fixed-length text"
        )
    if _names_pickle(about.get("codecs")):
        raise UserError(
            f"{where} is stored with the pickle codec, which can run code when it is read; store it anew"
        )
    if about.get("node_type", "array") == "array":
        if "O" not in str(about.get("dtype", "")):
            check_codecs(about, where)
        grid = about.get("chunk_grid")
        inner = grid.get("configuration") if isinstance(grid, dict) else None
        chunks: Any = inner.get("chunk_shape") if isinstance(inner, dict) else about.get("chunks")
        for name, sizes, least in (("shape", about.get("shape"), 0), ("chunks", chunks, 1)):
            if not isinstance(sizes, list) or len(sizes) > MOST_DIMENSIONS:
                raise UserError(f"{where} gives no {name}; correct its metadata")
            for size in sizes:
                whole(size, name, where, least=least)
        if len(chunks) != len(about["shape"]):
            raise UserError(
                f"{where} has chunks of {len(chunks)} dimensions for {len(about['shape'])}; correct them"
            )
    return "O" in str(about.get("dtype", ""))


def _names_pickle(codecs: Any) -> bool:
    left = [codecs]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if "pickle" in str(one.get("id") or one.get("name") or ""):
                return True
            left += one.values()
        elif isinstance(one, list):
            left += one
    return False


def _task(value: Any, where: str) -> str:
    """A task by its text, or by its number."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{where} is no text in UTF-8 ({short(error)}); correct it") from error
    return str(value) if isinstance(value, str) else f"task {whole(value, 'the task', where)}"
