"""LeRobotDataset v2.0, v2.1 and v3.0: https://github.com/huggingface/lerobot (read here without the library).

v2: one table and one video an episode (``data/chunk-000/episode_000000.parquet``), ``meta/episodes.jsonl``,
``meta/tasks.jsonl``. v3: many episodes in one table and in one video (``data/chunk-000/file-000.parquet``);
``meta/episodes/…parquet`` says which rows and which times are whose; ``meta/tasks.parquet``.
Frame i of an episode is shown at ``from_timestamp`` + i / fps of its video.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .source import (
    BLOCK,
    Field,
    broken,
    camera_shape,
    decode_image,
    inside,
    read_json,
    vector_rows,
)
from .tables import fill, matrix, number, read_jsonl, read_table
from .video import decode_frames

VERSIONS = ("v2.0", "v2.1", "v3.0")
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
KEYS = ("episode_index", "frame_index", "timestamp", "task_index")


@dataclass(frozen=True)
class _Episode:
    index: int
    length: int
    table: str  # path inside the data set
    videos: dict[str, tuple[str, float]]  # camera -> path, time of its first frame


def is_lerobot(path: Path) -> bool:
    """Whether a folder looks like a LeRobotDataset."""
    return (path / "meta" / "info.json").is_file()


class LeRobot:
    """An opened LeRobotDataset: every table's episodes, frames, times and tasks have been checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        info = read_json(inside(path, "meta/info.json"))
        if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
            raise UserError(f"{path}/meta/info.json describes no features; fetch the data set again")
        self.info = info
        version = str(info.get("codebase_version"))
        if version not in VERSIONS:
            raise UserError(
                f"{path} is a LeRobotDataset {version}; convert it to v3.0 (known: {', '.join(VERSIONS)})"
            )
        self.format = f"lerobot-{version}"
        self.fps: float | None = number(info, "fps", path)
        if not self.fps > 0:
            raise UserError(f"{path}/meta/info.json gives {self.fps} frames per second; correct it")
        self._videos = {k for k, f in info["features"].items() if _kind(f) == "video"}
        self._depth = {k for k, f in info["features"].items() if _is_depth(f)}
        self.fields = {f.name: f for f in map(self._field, info["features"]) if f is not None}
        self._check_video_fps()
        self.episodes = self._episodes_v3() if version == "v3.0" else self._episodes_v2()
        if not self.episodes:
            raise UserError(f"{path} holds no episodes; record some")
        self.lengths = tuple(e.length for e in self.episodes)
        self.notes: list[str] = []
        self._task_of = self._scan()
        self._check_totals()

    # What the files say

    def _field(self, name: str) -> Field | None:
        feature = self.info["features"][name]
        shape = feature.get("shape") if isinstance(feature, dict) else None
        if not isinstance(shape, list) or not all(isinstance(n, int) for n in shape):
            raise UserError(f"{self.path}/meta/info.json gives {name} no shape; correct it")
        if _kind(feature) in ("video", "image"):
            if name in self._depth:
                return None
            return Field(name, camera_shape(shape) or tuple(shape), camera=True)
        if _kind(feature) in ("string", "language"):
            return None
        return Field(name, (int(np.prod(shape)),))

    def _check_video_fps(self) -> None:
        for key in sorted(self._videos):
            feature = self.info["features"][key]
            about = feature.get("info") or feature.get("video_info") or {}
            said = about.get("video.fps") if isinstance(about, dict) else None
            if said is None:
                continue
            try:
                rate = float(Fraction(str(said)))  # 30, 29.97, or "30/1"
            except (ValueError, ZeroDivisionError) as error:
                raise UserError(
                    f"{self.path}/meta/info.json gives the videos of {key} a rate of {said!r}; correct it"
                ) from error
            if abs(rate - (self.fps or 0)) > 0.01:
                raise UserError(
                    f"{self.path}/meta/info.json has two rates, fps {self.fps:g} and {rate:g} for the "
                    f"videos of {key}; correct it, or record at one rate"
                )

    def _episodes_v2(self) -> list[_Episode]:
        rows = read_jsonl(inside(self.path, "meta/episodes.jsonl"))
        size = int(number(self.info, "chunks_size", self.path, 1000)) or 1000
        data = self.info.get("data_path") or V2_DATA
        video = self.info.get("video_path") or V2_VIDEO
        out = []
        for row in sorted(rows, key=lambda r: int(number(r, "episode_index", self.path))):
            index = int(row["episode_index"])
            known: dict[str, Any] = {"episode_chunk": index // size, "episode_index": index}
            videos = {
                k: (fill(video, {**known, "video_key": k}, self.path), 0.0)
                for k in self._videos - self._depth
            }
            length = int(number(row, "length", self.path))
            out.append(_Episode(index, length, fill(data, known, self.path), videos))
        return out

    def _episodes_v3(self) -> list[_Episode]:
        files = sorted((self.path / "meta" / "episodes").glob("*/*.parquet"))
        if not files:
            raise UserError(f"{self.path} has no table of episodes (meta/episodes); fetch it again")
        cameras = sorted(self._videos - self._depth)
        names = ["episode_index", "length", "data/chunk_index", "data/file_index"]
        names += ["dataset_from_index", "dataset_to_index"]
        for key in cameras:
            names += [
                f"videos/{key}/{n}" for n in ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
            ]
        rows: list[dict[str, Any]] = []
        for file in files:
            table = read_table(inside(self.path, file.relative_to(self.path).as_posix()), names)
            rows += table.to_pylist()
        rows.sort(key=lambda r: r["episode_index"])
        return [self._episode_v3(row, cameras) for row in rows]

    def _episode_v3(self, row: dict[str, Any], cameras: Sequence[str]) -> _Episode:
        index, length, fps = int(row["episode_index"]), int(row["length"]), self.fps or 1.0
        if length != row["dataset_to_index"] - row["dataset_from_index"]:
            raise UserError(
                f"{self.path}: episode {index} has {length} frames but the rows {row['dataset_from_index']} to "
                f"{row['dataset_to_index']}; correct meta/episodes"
            )
        data = self.info.get("data_path") or V3_DATA
        video = self.info.get("video_path") or V3_VIDEO
        known = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
        videos = {}
        for key in cameras:
            at = {n: row[f"videos/{key}/{n}"] for n in ("chunk_index", "file_index")}
            start, end = row[f"videos/{key}/from_timestamp"], row[f"videos/{key}/to_timestamp"]
            if abs((end - start) * fps - length) > 0.5:
                raise UserError(
                    f"{self.path}: episode {index} has {length} frames at fps {fps:g}, but lasts "
                    f"{end - start:.3f} s in the video of {key}: two rates, or a wrong boundary; correct meta"
                )
            videos[key] = (fill(video, {**at, "video_key": key}, self.path), float(start))
        return _Episode(index, length, fill(data, known, self.path), videos)

    def _scan(self) -> list[int]:
        """Check each table's episodes, frames and times; the task number of each episode."""
        tasks: list[int] = []
        fps = self.fps or 1.0
        for path, group in self._by_table():
            table = read_table(inside(self.path, path), KEYS)
            index, frame, time, task = (table.column(k).to_numpy() for k in KEYS)
            want_index = np.repeat([e.index for e in group], [e.length for e in group])
            want_frame = np.concatenate([np.arange(e.length) for e in group])
            if not np.array_equal(index, want_index) or not np.array_equal(frame, want_frame):
                raise UserError(
                    f"{self.path}/{path} holds {len(index)} rows that are not the {len(want_index)} frames of "
                    f"the episodes {group[0].index} to {group[-1].index} in order, as meta says; fetch it again"
                )
            wrong = np.flatnonzero(~(np.abs(time * fps - frame) <= 0.25))
            if len(wrong):
                at = wrong[0]
                raise UserError(
                    f"{self.path}/{path}: frame {frame[at]} of episode {index[at]} has the timestamp "
                    f"{time[at]:.3f} s, which is not that of fps {fps:g} (two rates in one set?); record at one "
                    "rate, or correct meta/info.json"
                )
            for e, start in zip(group, np.cumsum([0, *(e.length for e in group)]).tolist(), strict=False):
                own = np.unique(task[start : start + e.length])
                tasks.append(int(own[0]) if len(own) == 1 else -1)
        return tasks

    def _check_totals(self) -> None:
        found = {"total_episodes": len(self.lengths), "total_frames": sum(self.lengths)}
        for name, count in found.items():
            said = self.info.get(name)
            if said is not None and said != count:
                raise UserError(
                    f"{self.path}/meta/info.json says {name} {said}, the tables hold {count}; fetch the data "
                    "set again, or correct it"
                )

    def _by_table(self) -> Iterator[tuple[str, list[_Episode]]]:
        return self._groups([e.table for e in self.episodes])

    def _groups(self, paths: Sequence[str]) -> Iterator[tuple[str, list[_Episode]]]:
        """Episodes in order, joined where they lie in one file."""
        seen: set[str] = set()
        pairs = zip(paths, self.episodes, strict=True)
        for path, group in itertools.groupby(pairs, key=lambda p: p[0]):
            if path in seen:
                raise UserError(
                    f"{self.path}/{path} holds episodes that do not follow one another; sort the set"
                )
            seen.add(path)
            yield path, [e for _, e in group]

    # The protocol of a source

    def tasks(self, key: str | None) -> list[str]:
        """The task of each episode, by the tables' task_index and the set's list of tasks."""
        if key is not None:
            raise UserError(
                "a LeRobotDataset names its tasks itself: leave --task-key out, or use --task-text"
            )
        known = self._task_names()
        out = []
        for e, which in zip(self.episodes, self._task_of, strict=True):
            if which == -1:
                raise UserError(
                    f"{self.path}: episode {e.index} has several tasks; name one for all with --task-text"
                )
            if which not in known:
                raise UserError(
                    f"{self.path}: episode {e.index} has the task {which}, which meta does not name"
                )
            out.append(known[which])
        return out

    def _task_names(self) -> dict[int, str]:
        if self.format != "lerobot-v3.0":
            rows = read_jsonl(inside(self.path, "meta/tasks.jsonl"))
            return {int(number(r, "task_index", self.path)): str(r.get("task")) for r in rows}
        import pyarrow as pa
        import pyarrow.parquet as parquet

        file = inside(self.path, "meta/tasks.parquet")
        try:
            table = parquet.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise broken(file, error) from error
        # The text is the data frame's index: a column "task", or without a name.
        texts = [
            f.name for f in table.schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)
        ]
        text = "task" if "task" in texts else texts[0] if texts else None
        if text is None or "task_index" not in table.column_names:
            raise UserError(f"{file} names no tasks; fetch it again")
        pairs = zip(table["task_index"].to_pylist(), table[text].to_pylist(), strict=True)
        return {int(i): str(t) for i, t in pairs}

    def proprio(self) -> tuple[str, ...]:
        """``observation.state``, or ``state`` as openpi writes it."""
        return next(((n,) for n in ("observation.state", "state") if n in self.fields), ())

    def files(self, names: Sequence[str]) -> list[tuple[str, Path]]:
        """Metadata, tables, and the videos of the cameras among ``names``."""
        paths = {"meta/info.json", *(e.table for e in self.episodes)}
        if self.format == "lerobot-v3.0":
            meta = self.path / "meta"
            found = [meta / "tasks.parquet", *(meta / "episodes").glob("*/*.parquet")]
            paths |= {f.relative_to(self.path).as_posix() for f in found}
        else:
            paths |= {"meta/tasks.jsonl", "meta/episodes.jsonl"}
        paths |= {e.videos[n][0] for e in self.episodes for n in names if n in e.videos}
        out = [(p, inside(self.path, p)) for p in sorted(paths)]
        for path, file in out:
            if not file.is_file():
                raise UserError(f"{self.path}/{path} is missing; the data set is incomplete, fetch it again")
        return out

    def read(self, name: str) -> Iterator[np.ndarray]:
        """The rows of a field, decoded once from front to back."""
        if name in self._videos:
            return self._video(name)
        return self._images(name) if self.fields[name].camera else self._vectors(name)

    def _video(self, name: str) -> Iterator[np.ndarray]:
        fps = self.fps or 1.0
        for path, group in self._groups([e.videos[name][0] for e in self.episodes]):
            wanted = np.concatenate([e.videos[name][1] + np.arange(e.length) / fps for e in group])
            if len(wanted) > 1 and np.diff(wanted).min() < 0.5 / fps:
                raise UserError(
                    f"{self.path}/{path}: the times of its episodes overlap; correct from_timestamp in meta/episodes"
                )
            yield from decode_frames(inside(self.path, path), wanted, fps, f"{self.path}/{path}")

    def _images(self, name: str) -> Iterator[np.ndarray]:
        for path, column in self._column(name, BLOCK):
            frames = []
            for image in column.to_pylist():
                where = f"{self.path}/{path}, field {name}"
                data = image.get("bytes") if isinstance(image, dict) else image
                if data is None and isinstance(image, dict) and image.get("path"):
                    file = inside(self.path, image["path"])
                    where = str(file)
                    if not file.is_file():
                        raise UserError(f"{file} is missing; the data set is incomplete, fetch it again")
                    data = file.read_bytes()
                if not isinstance(data, bytes):
                    raise UserError(f"{where} has a frame without an image; fetch it again")
                frames.append(decode_image(data, where))
            if len({f.shape for f in frames}) > 1:
                raise UserError(f"{self.path}/{path}: the images of {name} differ in size; resize them")
            yield np.stack(frames)

    def _vectors(self, name: str) -> Iterator[np.ndarray]:
        for path, column in self._column(name, 4096):
            rows = vector_rows(matrix(column, f"{self.path}/{path}, field {name}"), name)
            (said,) = self.fields[name].shape
            if rows.shape[1] != said:
                raise UserError(
                    f"{self.path}/{path} has {rows.shape[1]} numbers of {name} a row, meta/info.json says {said}; "
                    "correct its shape"
                )
            yield rows

    def _column(self, name: str, rows: int) -> Iterator[tuple[str, Any]]:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        for path, _ in self._by_table():
            file = inside(self.path, path)
            try:
                with parquet.ParquetFile(file) as table:
                    if name not in table.schema_arrow.names:
                        raise UserError(
                            f"{file} has no column {name}, which meta/info.json lists; fetch it again"
                        )
                    for batch in table.iter_batches(rows, columns=[name]):
                        yield path, batch.column(0)
            except (OSError, pa.ArrowException) as error:
                raise broken(file, error) from error


def _kind(feature: Any) -> str:
    return str(feature.get("dtype")) if isinstance(feature, dict) else ""


def _is_depth(feature: Any) -> bool:
    about = [feature.get("info"), feature.get("video_info")] if isinstance(feature, dict) else []
    return any(
        isinstance(a, dict) and (a.get("is_depth_map") or a.get("video.is_depth_map")) is True for a in about
    )
