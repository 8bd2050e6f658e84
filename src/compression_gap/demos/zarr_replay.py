"""Zarr replay buffers: ``data/{action, …}`` with all episodes joined, and ``meta/episode_ends``.

Written by Diffusion Policy (https://github.com/real-stanford/diffusion_policy, ``common/replay_buffer.py``), UMI
and OAT (whose keys for LIBERO are ``agentview_rgb``, ``robot0_eye_in_hand_rgb``, ``robot0_eef_pos``,
``robot0_eef_quat``, ``robot0_gripper_qpos``, ``task_uid``): a folder or a .zip, Zarr format 2 or 3.
Arrays of Python objects are pickled; they are never decoded.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..errors import UserError
from .source import (
    BLOCK,
    Field,
    broken,
    camera_shape,
    colour_rows,
    files_below,
    parse_json,
    vector_rows,
)

MARKS = (".zgroup", "zarr.json", ".zmetadata")
ENDS = ("meta/episode_ends/.zarray", "meta/episode_ends/zarr.json")
CONVENTIONS = (
    ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"),  # OAT
    ("robot0_eef_pos", "robot0_eef_rot_axis_angle", "robot0_gripper_width"),  # UMI
    ("agent_pos",),
)
# PushT's state is (agent x, y, block x, y, angle): its robot is the agent alone.
PUSHT = {"action": (2,), "state": (5,), "keypoint": (18,)}


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
        self._objects = {n for n, text in self._texts.items() if _holds_objects(text, f"{path}, {n}")}
        group = self._open()
        self.lengths = self._episode_lengths(group)
        frames = sum(self.lengths)
        self._arrays: dict[str, Any] = {}
        self.fields: dict[str, Field] = {}
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
        marks = {p: f for p, f in found if PurePosixPath(p).name in (".zarray", "zarr.json")}
        return {str(PurePosixPath(p).parent): f.read_bytes() for p, f in marks.items()}

    def _zip_metadata(self) -> dict[str, bytes]:
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = archive.namelist()
                ends = [n for n in names if n.endswith(ENDS)]
                if not ends:
                    raise UserError(
                        f"{self.path} holds no replay buffer (meta/episode_ends); name another file"
                    )
                self._prefix = min(ends, key=len).rsplit("meta/episode_ends/", 1)[0]
                own = [
                    n for n in names if n.startswith(self._prefix) and n.endswith((".zarray", "zarr.json"))
                ]
                return {str(PurePosixPath(n.removeprefix(self._prefix)).parent): archive.read(n) for n in own}
        except (OSError, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise broken(self.path, error) from error

    def _names(self, below: str) -> list[str]:
        names = (n.removeprefix(below) for n in self._texts if n.startswith(below))
        return [n for n in names if "/" not in n and _is_array(self._texts[below + n])]

    def _open(self) -> Any:
        import zarr

        try:
            store: Any
            if self.path.is_file():
                store = zarr.storage.ZipStore(self.path, mode="r")
            else:
                store = zarr.storage.LocalStore(self.path, read_only=True)
            return zarr.open_group(store, path=self._prefix.rstrip("/"), mode="r", use_consolidated=False)
        except Exception as error:  # the library raises many kinds for broken files
            raise broken(self.path, error) from error

    def _array(self, group: Any, name: str) -> Any:
        if name in self._objects:
            raise UserError(
                f"{self.path}: {name} is an array of Python objects, which would be unpickled; store it as numbers "
                "or fixed-length text"
            )
        if name not in self._texts:
            raise UserError(f"{self.path} has no {name}, so it is no replay buffer; name another file")
        try:
            return group[name]
        except Exception as error:  # an unknown codec, a broken shape: the library raises many kinds
            raise UserError(
                f"{self.path}: {name} cannot be opened ({error}); store it with Blosc or Zstd"
            ) from error

    def _episode_lengths(self, group: Any) -> tuple[int, ...]:
        ends = _read(self._array(group, "meta/episode_ends"), slice(None), f"{self.path}, meta/episode_ends")
        if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends):
            raise UserError(
                f"{self.path}: meta/episode_ends is no list of numbers; store the ends of episodes"
            )
        lengths = np.diff(ends.astype(np.int64), prepend=0)
        if (lengths < 1).any():
            raise UserError(f"{self.path}: meta/episode_ends does not increase; correct it")
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
        rows = _read(self._arrays[name], slice(None), f"{self.path}, data/{name}")
        out = []
        for number, own in enumerate(np.split(rows, np.cumsum(self.lengths)[:-1])):
            values = np.unique(own)
            if len(values) != 1:
                raise UserError(
                    f"{self.path}: episode {number} has {len(values)} values of {name}; name one task for all "
                    "with --task-text"
                )
            out.append(_text(values[0]))
        return out

    def proprio(self) -> tuple[str, ...]:
        """OAT's and UMI's keys, ``agent_pos``, or ``state``; of PushT's state the agent's two numbers."""
        for names in CONVENTIONS:
            if all(n in self.fields for n in names):
                return names
        if "state" not in self.fields:
            return ()
        shapes = {n: f.shape for n, f in self.fields.items()}
        flat = {n: (int(np.prod(s)),) for n, s in shapes.items()}
        pusht = all(flat.get(n) == s for n, s in PUSHT.items() if n != "keypoint")
        return ("state[0:2]",) if pusht else ("state",)

    def files(self, names: Sequence[str]) -> list[tuple[str, Path]]:
        """The .zip, or the files of these fields and of ``meta``."""
        if self.path.is_file():
            return [(self.path.name, self.path)]
        folders = ["meta", *(f"data/{n}" for n in names)]
        return [pair for folder in folders for pair in files_below(self.path, folder)]

    def read(self, name: str) -> Iterator[np.ndarray]:
        """The rows of a field; never more than one chunk of the array, or a block of whole ones."""
        self._check_complete(name)
        array, where = self._arrays[name], f"{self.path}, data/{name}"
        chunk = int((getattr(array, "shards", None) or array.chunks)[0])
        step = chunk if chunk >= BLOCK else BLOCK // chunk * chunk
        for start in range(0, array.shape[0], step):
            rows = _read(array, slice(start, start + step), where)
            yield colour_rows(rows, where) if self.fields[name].camera else vector_rows(rows, where)

    def _check_complete(self, name: str) -> None:
        """A missing chunk reads as zeros, and Zarr 3 leaves out those that are; a whole one of them is rare but in
        a field of one number."""
        array = self._arrays[name]
        there, all_ = array.nchunks_initialized, array.nchunks
        if there >= all_:
            return
        what = f"{self.path}: {all_ - there} of {all_} chunks of data/{name} are not there"
        if int(np.prod(array.shape[1:], dtype=int)) > 1:
            raise UserError(
                f"{what}, and would be read as zeros; fetch it again (if they are zeros, store them: write_empty_chunks)"
            )
        if (note := f"{what}, and are read as zeros") not in self.notes:
            self.notes.append(note)


def _is_array(text: bytes) -> bool:
    about = parse_json(text, "zarr")
    return isinstance(about, dict) and about.get("node_type", "array") == "array"


def _holds_objects(text: bytes, where: str) -> bool:
    """Whether an array's metadata say that it holds objects. Raises ``UserError`` if they would be unpickled."""
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
    return "O" in str(about.get("dtype", ""))


def _names_pickle(codecs: Any) -> bool:
    if isinstance(codecs, dict):
        name = str(codecs.get("id") or codecs.get("name") or "")
        return "pickle" in name or _names_pickle(list(codecs.values()))
    return isinstance(codecs, list) and any(map(_names_pickle, codecs))


def _read(array: Any, rows: slice, where: str) -> np.ndarray:
    try:
        return np.asarray(array[rows])
    except Exception as error:  # codecs raise many kinds for broken chunks
        raise broken(where, error) from error


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else f"task {float(value):g}"
