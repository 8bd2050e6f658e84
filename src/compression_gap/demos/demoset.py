"""Demonstrations as arrays: ``DemoSet`` (memory-mapped), its writer, and the three-way split by episode.

Files of a set, F frames in E episodes, episode after episode:
``actions.npy`` float32 [F, d]; ``proprio.npy`` float32 [F, p]; ``state.npy`` float32 [F, s] (if known);
``images-CAMERA.npy`` uint8 [F, h, w, 3]; ``demos.json``: episodes, tasks, cameras, source.
Row t holds what is seen before action t. No pickle: ``allow_pickle=False`` throughout.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..records import read_array, read_object, whole
from ..sims import Observation

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Episode:
    """One demonstration: its rows are ``start`` to ``start + length``."""

    task: str
    start: int
    length: int
    initial_state: int  # the simulator's number for it; −1 when it was recorded elsewhere
    split: str


@dataclass(frozen=True)
class DemoSet:
    """A set of demonstrations. Arrays are read-only memory maps."""

    episodes: tuple[Episode, ...]
    actions: np.ndarray  # float32 [F, d]
    proprio: np.ndarray  # float32 [F, p]
    state: np.ndarray | None  # float32 [F, s]
    images: dict[str, np.ndarray]  # camera -> uint8 [F, h, w, 3]
    source: dict[str, Any]

    @staticmethod
    def load(folder: Path) -> DemoSet:
        """Map a set from its folder (the store has verified it). Raises ``UserError`` for a record that is none."""
        about = _record(folder)

        def array(name: str) -> np.ndarray:
            return read_array(folder / f"{name}.npy", mapped=True)

        try:
            return DemoSet._checked(about, array)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} holds no demonstrations that can be read: {error}") from error

    @staticmethod
    def _checked(about: _Record, array: Callable[[str], np.ndarray]) -> DemoSet:
        """The set of a record. Raises ``ValueError`` for arrays that are not its streams."""
        made = DemoSet(
            episodes=about.episodes,
            actions=array("actions"),
            proprio=array("proprio"),
            state=array("state") if about.has_state else None,
            images={camera: array(f"images-{camera}") for camera in about.cameras},
            source=about.source,
        )
        frames = sum(e.length for e in made.episodes)
        streams = [made.actions, made.proprio, *([] if made.state is None else [made.state])]
        for rows, dtype, axes in (
            *((s, "f4", 2) for s in streams),
            *((i, "u1", 4) for i in made.images.values()),
        ):
            if rows.dtype != dtype or rows.ndim != axes or len(rows) != frames:
                raise ValueError(
                    f"an array of {rows.dtype}{list(rows.shape)} is no stream of {frames} frames"
                )
        return made

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks in order of first appearance."""
        return tuple(dict.fromkeys(e.task for e in self.episodes))

    def split(self, name: str) -> tuple[Episode, ...]:
        """The episodes of one split."""
        return tuple(e for e in self.episodes if e.split == name)

    def observation(self, frame: int, task_index: int = 0) -> Observation:
        """One frame as an observation (B = T = 1)."""
        at = slice(frame, frame + 1)
        return Observation(
            images={c: a[at][None] for c, a in self.images.items()},
            proprio=self.proprio[at][None],
            task=np.array([task_index]),
            state=None if self.state is None else self.state[at][None],
        )


def assign_splits(episodes: int, *, seed: int = 0) -> list[str]:
    """Split episodes (never frames) 80/10/10, with at least one each for validation and test.

    The order is a fixed random permutation, so a longer set of the same source keeps the proportion.
    """
    if episodes < 3:
        raise ValueError("a three-way split needs at least three episodes")
    held = max(1, round(0.1 * episodes))
    names = ["validation"] * held + ["test"] * held + ["train"] * (episodes - 2 * held)
    order = np.random.default_rng([seed, episodes]).permutation(episodes)
    out = [""] * episodes
    for name, at in zip(names, order, strict=True):
        out[at] = name
    return out


class DemoWriter:
    """Collects episodes and writes a set. Frames are appended to their files, never held together.

    Either whole episodes (``add``), or streams of their own pace: ``stream`` appends rows to one file, in the order
    of the episodes that ``episode`` names; each stream may come from a thread of its own. ``cameras`` fixes their
    order; by default it is that of the first frames.
    """

    def __init__(self, folder: Path, *, source: dict[str, Any], cameras: Sequence[str] | None = None) -> None:
        self.folder = folder
        self.source = source
        self.cameras = cameras
        self._arrays: dict[str, _Appender] = {}
        self._episodes: list[dict[str, Any]] = []
        self._frames = 0

    def add(
        self,
        task: str,
        initial_state: int,
        observations: Sequence[Observation],
        actions: Sequence[np.ndarray],
    ) -> None:
        """Append one episode: one observation (B = T = 1) before each action."""
        if len(observations) != len(actions) or not actions:
            raise ValueError("an episode needs one observation before each of its actions")
        whole = Observation.history(observations)
        streams = {"actions": np.asarray(actions, dtype=np.float32), "proprio": whole.proprio[0]}
        if whole.state is not None:
            streams["state"] = whole.state[0]
        streams |= {f"images-{camera}": frames[0] for camera, frames in whole.images.items()}
        if self._arrays and streams.keys() != self._arrays.keys():
            raise ValueError(f"episode streams {sorted(streams)} differ from {sorted(self._arrays)}")
        for name, rows in streams.items():
            self.stream(name, rows)
        self.episode(task, len(actions), initial_state)

    def episode(self, task: str, length: int, initial_state: int = -1, *, split: str | None = None) -> None:
        """Name the next episode: its rows are the next ``length`` of every stream.

        ``split`` is given for all episodes or for none: then they are split at the end.
        """
        if length < 1:
            raise ValueError("an episode needs at least one frame")
        self._episodes.append(
            {"task": task, "start": self._frames, "length": int(length), "initial_state": int(initial_state)}
            | ({} if split is None else {"split": split})
        )
        self._frames += int(length)

    def stream(self, name: str, rows: np.ndarray) -> None:
        """Append rows [n, ...] to a stream: "actions", "proprio", "state" (float32), "images-CAMERA" (uint8)."""
        if name not in self._arrays:
            _check_name(name)
            self._arrays[name] = _Appender(self.folder / f"{name}.npy", rows.dtype, rows.shape[1:])
        self._arrays[name].append(rows)

    def close(self) -> None:
        """Write the headers and ``demos.json``; where no splits were given they are assigned within each task."""
        for array in self._arrays.values():
            array.close()
        rows = {name: array.rows for name, array in self._arrays.items()}
        if set(rows.values()) - {self._frames}:
            raise ValueError(f"the episodes have {self._frames} frames, the streams {rows}")
        for task in {e["task"] for e in self._episodes if "split" not in e}:
            of_task = [e for e in self._episodes if e["task"] == task]
            for episode, split in zip(of_task, assign_splits(len(of_task)), strict=True):
                episode["split"] = split
        cameras = [n.removeprefix("images-") for n in self._arrays if n.startswith("images-")]
        about = {
            "episodes": self._episodes,
            "cameras": cameras if self.cameras is None else sorted(cameras, key=self.cameras.index),
            "has_state": "state" in self._arrays,
            "source": self.source,
        }
        (self.folder / "demos.json").write_text(json.dumps(about, indent=1, allow_nan=False))


def read_episodes(folder: Path) -> tuple[Episode, ...]:
    """The episodes of the set in a folder. Raises ``UserError`` for a record that is none."""
    return _record(folder).episodes


@dataclass(frozen=True)
class _Record:
    """A ``demos.json``."""

    episodes: tuple[Episode, ...]
    cameras: tuple[str, ...]
    has_state: bool
    source: dict[str, Any]


def _record(folder: Path) -> _Record:
    try:
        return _read_record(folder / "demos.json")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} holds no demonstrations that can be read: {error}") from error


def _read_record(file: Path) -> _Record:
    """Raises ``ValueError`` unless this is the content of a ``demos.json``."""
    about = read_object(file)
    kinds = {"episodes": list, "cameras": list, "has_state": bool, "source": dict}
    if wrong := [name for name, kind in kinds.items() if not isinstance(about.get(name), kind)]:
        raise ValueError(f"demos.json: '{wrong[0]}' is missing, or no {kinds[wrong[0]].__name__}")
    for camera in about["cameras"]:
        if not isinstance(camera, str):
            raise ValueError("demos.json: a camera has no name")
        _check_name(f"images-{camera}")
    start = 0
    for number, e in enumerate(about["episodes"]):
        if not isinstance(e, dict) or set(e) != {f.name for f in fields(Episode)}:
            raise ValueError(f"demos.json: episode {number} has not the fields of one")
        whole(e, "start", start, start)
        start += whole(e, "length", 1, 2**40)
        whole(e, "initial_state", -1, 2**63)
        if not isinstance(e["task"], str) or e["split"] not in SPLITS:
            raise ValueError(f"demos.json: episode {number} has no task, or none of the splits")
    episodes = tuple(Episode(**e) for e in about["episodes"])
    return _Record(episodes, tuple(about["cameras"]), about["has_state"], about["source"])


def _check_name(name: str) -> None:
    """A stream is a file of the set's own folder."""
    if Path(name).name != name or "\\" in name or "\0" in name:
        raise ValueError(f"the stream '{name}' cannot name a file")


class _Appender:
    """An .npy file that grows row by row: the header is rewritten at the end, in the space kept for it."""

    def __init__(self, file: Path, dtype: np.dtype, row_shape: tuple[int, ...]) -> None:
        self.dtype, self.row_shape, self.rows = np.dtype(dtype), tuple(row_shape), 0
        self.stream = file.open("wb")
        self._header()

    def _header(self) -> None:
        # A header padded to 192 bytes (128 + 64) has room for any row count.
        text = repr({"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.row_shape)})
        body = text.encode("latin1").ljust(192 - 10 - 1) + b"\n"
        self.stream.write(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)

    def append(self, rows: np.ndarray) -> None:
        if rows.shape[1:] != self.row_shape or rows.dtype != self.dtype:
            raise ValueError(f"rows {rows.dtype}{rows.shape[1:]} do not fit {self.dtype}{self.row_shape}")
        self.stream.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def close(self) -> None:
        self.stream.seek(0)
        self._header()
        self.stream.close()
