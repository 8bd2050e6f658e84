"""What a LeRobotDataset's metadata say: its episodes and where they lie, its tasks, its splits.

v2: ``meta/episodes.jsonl``, ``meta/tasks.jsonl``. v3: ``meta/episodes/…parquet`` and ``meta/tasks.parquet``, where
pandas keeps the texts as the data frame's index: a column "task", or "__index_level_0__" where it has no name.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..store.columns import check_texts
from .checks import TABLE_ROWS, real, shown, whole, whole_array
from .lerobot_info import Info
from .source import inside
from .tables import arrow_errors, fill, numbers, opened_table, plain, read_jsonl, read_table

MOST_VIDEOS = 2**20  # of all episodes and cameras: each takes about 300 bytes of memory
UNNAMED = "__index_level_0__"  # pandas' name for the column of an index without one


@dataclass(frozen=True)
class LeRobotEpisode:
    """One episode: its number, its frames, and the files that hold them."""

    index: int
    length: int
    table: str  # path inside the data set
    videos: dict[str, tuple[str, float]]  # camera -> path, time of its first frame


def episodes_v2(root: Path, info: Info) -> list[LeRobotEpisode]:
    """The episodes that ``meta/episodes.jsonl`` lists, by their numbers."""
    file = inside(root, "meta/episodes.jsonl")
    out = []
    for line, row in enumerate(read_jsonl(file)):
        if not isinstance(row, dict):
            raise UserError(f"{file} holds {shown(row)} as entry {line}, which is no episode; correct it")
        index = whole(row.get("episode_index"), f"episode_index of entry {line}", file)
        _check_count(line + 1, info, file)
        length = _length(row.get("length"), index, file)
        known = {"episode_chunk": index // info.chunk_size, "episode_index": index}
        videos = {k: (fill(info.video_path, {**known, "video_key": k}, root), 0.0) for k in info.videos}
        out.append(LeRobotEpisode(index, length, fill(info.data_path, known, root), videos))
    return _in_order(out, file)


def episodes_v3(root: Path, info: Info) -> list[LeRobotEpisode]:
    """The episodes that the tables of ``meta/episodes`` list, by their numbers."""
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise UserError(f"{root} has no table of episodes (meta/episodes); fetch it again")
    whole_ones = ["episode_index", "length", "data/chunk_index", "data/file_index"]
    whole_ones += ["dataset_from_index", "dataset_to_index"]
    whole_ones += [f"videos/{key}/{n}" for key in info.videos for n in ("chunk_index", "file_index")]
    real_ones = [f"videos/{key}/{n}" for key in info.videos for n in ("from_timestamp", "to_timestamp")]
    out: list[LeRobotEpisode] = []
    for found in files:
        file = inside(root, found.relative_to(root).as_posix())
        table = read_table(file, [*whole_ones, *real_ones])
        index = whole_array(numbers(table, "episode_index", file), "episode_index", file)
        _check_count(len(out) + len(index), info, file)
        # A row is named by the episode that it describes.
        names = [f"episode {i}" for i in index.tolist()]
        places: dict[str, list[int]] = {
            n: whole_array(numbers(table, n, file), n, file, row=names.__getitem__).tolist()
            for n in whole_ones
        }
        times: dict[str, list[float]] = {n: numbers(table, n, file).tolist() for n in real_ones}
        for row in range(len(index)):
            at = {n: c[row] for n, c in places.items()}
            out.append(_episode_v3(root, info, at, {n: c[row] for n, c in times.items()}, file))
    return _in_order(out, root / "meta/episodes")


def _episode_v3(
    root: Path, info: Info, row: Mapping[str, int], times: Mapping[str, float], file: Path
) -> LeRobotEpisode:
    """The episode of a row: its numbers and places, and the ``times`` of its videos."""
    index = row["episode_index"]
    length = _length(row["length"], index, file)
    if length != row["dataset_to_index"] - row["dataset_from_index"]:
        raise UserError(
            f"{root}: episode {index} has {length} frames but the rows {row['dataset_from_index']} to "
            f"{row['dataset_to_index']}; correct meta/episodes"
        )
    known = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
    videos = {}
    for key in info.videos:
        at = {n: row[f"videos/{key}/{n}"] for n in ("chunk_index", "file_index")}
        start, end = (
            real(times[f"videos/{key}/{n}"], f"videos/{key}/{n} of episode {index}", file)
            for n in ("from_timestamp", "to_timestamp")
        )
        if abs((end - start) * info.fps - length) > 0.5:
            raise UserError(
                f"{root}: episode {index} has {length} frames at fps {info.fps:g}, but lasts "
                f"{end - start:.3f} s in the video of {key}: two rates, or a wrong boundary; correct meta"
            )
        videos[key] = (fill(info.video_path, {**at, "video_key": key}, root), start)
    return LeRobotEpisode(index, length, fill(info.data_path, known, root), videos)


def _check_count(episodes: int, info: Info, file: Path) -> None:
    """Refuse more episodes, and files of their cameras, than the memory holds."""
    if episodes * (1 + len(info.videos)) > MOST_VIDEOS:
        raise UserError(
            f"{file} lists more than {MOST_VIDEOS:,} episodes and videos; split the set, or leave cameras out of meta/info.json"
        )


def _length(value: Any, index: int, file: Path) -> int:
    length = whole(value, f"length of episode {index}", file, most=TABLE_ROWS)
    if length == 0:
        raise UserError(f"{file}: episode {index} has no frames; remove it")
    return length


def _in_order(episodes: list[LeRobotEpisode], file: Path) -> list[LeRobotEpisode]:
    episodes.sort(key=lambda e: e.index)
    for one, next_ in itertools.pairwise(episodes):
        if one.index == next_.index:
            raise UserError(f"{file} lists episode {one.index} twice; remove one of them")
    return episodes


def task_names(root: Path, version: str) -> dict[int, str]:
    """The texts of the tasks by their numbers."""
    if version == "v3.0":
        file = inside(root, "meta/tasks.parquet")
        pairs = _tasks_v3(file)
    else:
        file = inside(root, "meta/tasks.jsonl")
        pairs = [
            (r.get("task_index"), r.get("task")) if isinstance(r, dict) else (r, r) for r in read_jsonl(file)
        ]
    out: dict[int, str] = {}
    for row, (number, text) in enumerate(pairs):
        index = whole(number, f"task_index of row {row}", file)
        if not isinstance(text, str):
            raise UserError(
                f"{file} gives the task {index} as {shown(text)}, not as a text 'task'; name that task"
            )
        if index in out:
            raise UserError(f"{file} lists the task {index} twice; remove one of them")
        out[index] = text
    return out


def _tasks_v3(file: Path) -> list[tuple[Any, Any]]:
    with arrow_errors(file), opened_table(file) as opened:
        if opened.metadata.num_rows > TABLE_ROWS // 64:
            raise UserError(f"{file} claims {opened.metadata.num_rows} tasks; correct it")
        if opened.schema_arrow.names.count("task_index") != 1:
            raise UserError(f"{file} has no column task_index that numbers the tasks; add it")
        name = _text_column(opened.schema_arrow, file)
    table = read_table(file, ["task_index"])
    index = numbers(table, "task_index", file) if len(table) else np.zeros(0, np.int64)
    with arrow_errors(file), opened_table(file, name) as opened:
        column = opened.read(columns=[name])[name]
        check_texts(column, name)
        text = plain(column).to_pylist()
        return list(zip(index.tolist(), text, strict=True))


def _text_column(schema: Any, file: Path) -> str:
    """The column of the texts: "task", else the data frame's index, else the only one that holds text."""
    import pyarrow as pa

    names = [n for n in schema.names if schema.names.count(n) == 1 and _is_text(schema.field(n).type)]
    index = [n for n in (schema.pandas_metadata or {}).get("index_columns", []) if isinstance(n, str)]
    for name in ("task", *(index if len(index) == 1 else ()), UNNAMED):
        if name in names:
            return name
        if schema.names.count(name) > 1:
            raise UserError(f"{file} has several columns {name}; remove all but one")
        if name in schema.names and pa.types.is_null(schema.field(name).type):
            raise UserError(f"{file} has no value in any row of {name}; name the tasks there")
    if len(names) == 1:
        return names[0]
    found = f"its text columns are {', '.join(names)}" if names else "it has no text column"
    raise UserError(f"{file} does not say which column names the tasks ({found}); call that column 'task'")


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def split_marks(
    splits: Sequence[tuple[str, range]], episodes: Sequence[LeRobotEpisode]
) -> tuple[str | None, ...] | None:
    """The split that info.json names for each episode (empty: it names several); None if it names no splits."""
    if not splits:
        return None
    of = [[name for name, span in splits if e.index in span] for e in episodes]
    return tuple((names[0] if len(names) == 1 else "") if names else None for names in of)
