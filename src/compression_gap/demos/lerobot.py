"""LeRobotDataset v2.0, v2.1 and v3.0: https://github.com/huggingface/lerobot (read here without the library).

v2: one table and one video an episode (``data/chunk-000/episode_000000.parquet``), ``meta/episodes.jsonl``,
``meta/tasks.jsonl``. v3: many episodes in one table and in one video (``data/chunk-000/file-000.parquet``);
``meta/episodes/…parquet`` says which rows and which times are whose; ``meta/tasks.parquet``.
Frame i of an episode is shown at ``from_timestamp`` + i / fps of its video.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .checks import check_row_size, whole_array
from .lerobot_info import read_info
from .lerobot_meta import LeRobotEpisode, episodes_v2, episodes_v3, split_marks, task_names
from .source import BLOCK, RowStream, block_rows, decode_image, failure_note, inside, read_bytes, vector_rows
from .tables import (
    arrow_errors,
    check_images,
    check_width,
    flags,
    matrix,
    numbers,
    opened_table,
    read_table,
    wrong_width,
)
from .video import decode_frames

KEYS = ("episode_index", "frame_index", "timestamp", "task_index")
SUCCESS = "next.success"
IMAGE_BYTES = 2**26  # of a compressed image
OPEN_FILES = 64  # among which episodes may alternate


def is_lerobot(path: Path) -> bool:
    """Whether a folder looks like a LeRobotDataset."""
    return (path / "meta" / "info.json").is_file()


class LeRobot:
    """An opened LeRobotDataset: every table's episodes, frames, times and tasks have been checked."""

    def __init__(self, path: Path) -> None:
        self.path = path
        info = read_info(path)
        self.version, self.format = info.version, f"lerobot-{info.version}"
        self.fps: float | None = info.fps
        self.fields, self._videos, self._totals = info.fields, info.videos, info.totals
        self.episodes = (episodes_v3 if info.version == "v3.0" else episodes_v2)(path, info)
        if not self.episodes:
            raise UserError(f"{path} holds no episodes; record some")
        self.lengths = tuple(e.length for e in self.episodes)
        self.marks = split_marks(info.splits, self.episodes)
        self.without_observations = ""
        self.notes: list[str] = []
        self._task_of: dict[int, int] = {}  # episode -> task; −1: several
        self._scan()
        self._check_totals()

    # What the files say

    def _scan(self) -> None:
        """Check each table's episodes, frames and times; find the task of each episode."""
        fps = self.fps or 1.0
        failed = []
        for path, group in self._files([e.table for e in self.episodes]).items():
            file = inside(self.path, path)
            table = read_table(file, KEYS, [SUCCESS])
            length = sum(e.length for e in group)
            right = len(table) == length
            if right:
                index, frame, task = (
                    whole_array(numbers(table, k, file), k, file)
                    for k in ("episode_index", "frame_index", "task_index")
                )
                time = numbers(table, "timestamp", file)
                starts = np.cumsum([0, *(e.length for e in group)])
                right = np.array_equal(index, np.repeat([e.index for e in group], np.diff(starts)))
                right &= np.array_equal(frame, np.arange(length) - np.repeat(starts[:-1], np.diff(starts)))
            if not right:
                raise UserError(
                    f"{self.path}/{path} holds {len(table)} rows that are not the {length} frames of "
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
            success = flags(table, SUCCESS)
            for e, start in zip(group, starts.tolist(), strict=False):
                own = np.unique(task[start : start + e.length])
                self._task_of[e.index] = int(own[0]) if len(own) == 1 else -1
                if success is not None and not success[start : start + e.length].any():
                    failed.append(str(e.index))
        self.notes += failure_note(self.path, failed, f"no frame with {SUCCESS}")

    def _check_totals(self) -> None:
        found = {"total_episodes": len(self.lengths), "total_frames": sum(self.lengths)}
        for name, said in self._totals.items():
            if said != found[name]:
                raise UserError(
                    f"{self.path}/meta/info.json says {name} {said}, the tables hold {found[name]}; fetch the data "
                    "set again, or correct it"
                )

    def _files(self, paths: Sequence[str]) -> dict[str, list[LeRobotEpisode]]:
        """The episodes of each file, in order. They need not follow one another in the set."""
        out: dict[str, list[LeRobotEpisode]] = {}
        for path, e in zip(paths, self.episodes, strict=True):
            out.setdefault(path, []).append(e)
        return out

    def _read_in_order(
        self, paths: Sequence[str], opened: Callable[[str, list[LeRobotEpisode]], Iterator[np.ndarray]]
    ) -> Iterator[np.ndarray]:
        """The rows of all episodes in their order; each file is read from front to back as they ask for it."""
        groups, streams = self._files(paths), dict[str, RowStream]()
        left = {path: len(group) for path, group in groups.items()}
        for path, run in itertools.groupby(zip(paths, self.episodes, strict=True), key=lambda p: p[0]):
            own = [e for _, e in run]
            if path not in streams:
                if len(streams) == OPEN_FILES:
                    raise UserError(
                        f"{self.path}: its episodes alternate among more than {OPEN_FILES} files; sort the set"
                    )
                streams[path] = RowStream(opened(path, groups[path]))
            yield from streams[path].take(sum(e.length for e in own))
            left[path] -= len(own)
            if not left[path]:
                streams.pop(path).close()

    # The protocol of a source

    def tasks(self, key: str | None) -> list[str]:
        """The task of each episode, by the tables' task_index and the set's list of tasks."""
        if key is not None:
            raise UserError(
                "a LeRobotDataset names its tasks itself: leave --task-key out, or use --task-text"
            )
        known = task_names(self.path, self.version)
        out = []
        for e in self.episodes:
            which = self._task_of[e.index]
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
        def film(path: str, group: list[LeRobotEpisode]) -> Iterator[np.ndarray]:
            return self._film(path, [(e.videos[name][1], e.length) for e in group])

        return self._read_in_order([e.videos[name][0] for e in self.episodes], film)

    def _film(self, path: str, spans: Sequence[tuple[float, int]]) -> Iterator[np.ndarray]:
        """The frames of a video's episodes, each given by its first time and its length."""
        fps = self.fps or 1.0
        for (start, length), (after, _) in itertools.pairwise(sorted(spans)):
            if after - (start + (length - 1) / fps) < 0.5 / fps:
                raise UserError(
                    f"{self.path}/{path}: the times of its episodes overlap; correct from_timestamp in meta/episodes"
                )
        # A video is decoded from front to back: once more for an episode that lies before the last one.
        runs = [0, *(i for i in range(1, len(spans)) if spans[i][0] < spans[i - 1][0]), len(spans)]
        for first, stop in itertools.pairwise(runs):
            wanted = [start + np.arange(length) / fps for start, length in spans[first:stop]]
            file = inside(self.path, path)
            yield from decode_frames(file, np.concatenate(wanted), fps, f"{self.path}/{path}")

    def _images(self, name: str) -> Iterator[np.ndarray]:
        def pictures(path: str, _: list[LeRobotEpisode]) -> Iterator[np.ndarray]:
            where, shape = f"{self.path}/{path}, field {name}", None
            for column in self._column(path, name, BLOCK, 1):
                frames: list[np.ndarray] = []
                for at in range(len(column)):
                    with arrow_errors(where):
                        image = column[at].as_py()
                    frames.append(self._picture(image, where))
                    if shape not in (None, frames[-1].shape):
                        raise UserError(
                            f"{self.path}/{path}: the images of {name} differ in size; resize them"
                        )
                    shape = frames[-1].shape
                    if len(frames) == block_rows(shape):
                        yield np.stack(frames)
                        frames = []
                if frames:
                    yield np.stack(frames)

        return self._read_in_order([e.table for e in self.episodes], pictures)

    def _picture(self, image: Any, where: str) -> np.ndarray:
        data = image.get("bytes") if isinstance(image, dict) else image
        path = image.get("path") if isinstance(image, dict) else None
        if data is None and isinstance(path, str) and path:
            file = inside(self.path, path)
            where, data = str(file), read_bytes(file, IMAGE_BYTES)
        if not isinstance(data, bytes):
            raise UserError(f"{where} has a frame without an image; fetch it again")
        return decode_image(data, where)

    def _vectors(self, name: str) -> Iterator[np.ndarray]:
        (said,) = self.fields[name].shape
        check_row_size(name, (said,), self.path / "meta/info.json")

        def vectors(path: str, _: list[LeRobotEpisode]) -> Iterator[np.ndarray]:
            for column in self._column(path, name, block_rows((said,), 8, 4096), said):
                rows = vector_rows(matrix(column, f"{self.path}/{path}, field {name}"), name)
                if rows.shape[1] != said:
                    raise wrong_width(f"{self.path}/{path}", name, rows.shape[1], said)
                yield rows

        return self._read_in_order([e.table for e in self.episodes], vectors)

    def _column(self, path: str, name: str, rows: int, width: int) -> Iterator[Any]:
        """A column in batches; ``width``: the numbers of a row."""
        file = inside(self.path, path)
        with arrow_errors(file), opened_table(file, name) as table:
            if table.schema_arrow.names.count(name) != 1:
                raise UserError(f"{file} has no column {name} of its own, which meta/info.json lists; add it")
            if self.fields[name].camera:
                check_images(table, name, f"{self.path}/{path}")
            else:
                check_width(table, name, width, f"{self.path}/{path}")
            for batch in table.iter_batches(rows, columns=[name]):
                yield batch.column(0)
