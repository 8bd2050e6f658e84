"""Sets of demonstrations → one LeRobotDataset v3.0, as LeRobot's own ``DatasetWriter`` lays it out.

Cameras become MP4 (H.264, yuv420p, a keyframe every second frame: small, but pixels change a little) or PNG in the
tables (``images``: larger, without loss). Episodes, their tasks, actions, proprio and true state are kept exactly;
splits and the numbers of initial states are no part of the format and are left out.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import UserError
from ..store.scratch import scratch_folder
from ..store.store import disk_error, write_json
from .demoset import DemoSet, Episode
from .lerobot_info import V3_DATA, V3_VIDEO
from .video import VideoWriter

CHUNK_FILES, TABLE_MB, VIDEO_MB = 1000, 100, 200  # LeRobot's defaults
CRF = 18  # visually lossless
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
SAMPLED = 100  # frames of an episode that its image statistics read, at least
COUNTERS = ("frame_index", "episode_index", "index", "task_index")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written; ``pixels``: whether they are "exact" or "lossy"."""

    format: str = "lerobot-v3.0"
    folder: Path
    episodes: int
    frames: int
    fps: float
    cameras: tuple[str, ...]
    pixels: str
    tasks: tuple[str, ...]
    left_out: tuple[str, ...] = ("splits", "initial states")


@dataclass
class _Camera:
    """Where a camera's video has got to."""

    name: str
    key: str
    files: int = 0
    frames: int = 0  # in the file that is open
    file: Path | None = None
    writer: VideoWriter | None = None


@dataclass
class _Export:
    """The state of an export."""

    sets: Sequence[DemoSet]
    out: Path
    fps: float
    images: bool
    table_bytes: float
    video_bytes: float
    tasks: dict[str, int]
    cameras: list[_Camera]
    table: Any = None
    tables: int = 0
    frames: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    stats: list[dict[str, dict[str, np.ndarray]]] = field(default_factory=list)


def export_lerobot(
    sets: DemoSet | Sequence[DemoSet],
    out: Path,
    *,
    fps: float,
    images: bool = False,
    table_mb: float = TABLE_MB,
    video_mb: float = VIDEO_MB,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write one set or several, one after the other, to the new folder ``out``.

    ``progress(done, total)`` counts frames. The true state is written where all sets hold it. Raises ``UserError`` if
    ``out`` is there already, the sets differ in their fields, or a camera's sides are odd (video needs even ones).
    """
    sets = [sets] if isinstance(sets, DemoSet) else sets
    _check(sets, out, fps, images)
    total = sum(len(s.actions) for s in sets)
    tasks = dict.fromkeys(task for s in sets for task in s.tasks)
    try:
        with scratch_folder(out.parent, f".{out.name}-") as scratch:
            export = _Export(
                sets,
                scratch,
                fps,
                images,
                table_mb * 2**20,
                video_mb * 2**20,
                {task: i for i, task in enumerate(tasks)},
                [_Camera(c, f"observation.images.{c}") for c in sets[0].images],
            )
            for demos in sets:
                for episode in demos.episodes:
                    _episode(export, demos, episode)
                    progress(export.frames, total)
            _finish(export)
            os.chmod(scratch, 0o755)
            os.rename(scratch, out)
    except OSError as error:
        raise disk_error(error, out.parent) from error
    return Exported(
        folder=out,
        episodes=len(export.rows),
        frames=total,
        fps=fps,
        cameras=tuple(c.key for c in export.cameras),
        pixels="exact" if images else "lossy",
        tasks=tuple(export.tasks),
    )


def _check(sets: Sequence[DemoSet], out: Path, fps: float, images: bool) -> None:
    if out.exists():
        raise UserError(f"{out} is there already; name a new folder")
    if not (np.isfinite(fps) and fps > 0):
        raise UserError(f"--fps {fps} is no rate; give frames per second above 0")
    fields = [_shapes(s) for s in sets]
    for other in fields[1:]:
        if other != fields[0]:
            raise UserError(f"the sets differ in their fields ({fields[0]} and {other}): export them apart")
    for camera, frames in sets[0].images.items():
        height, width = frames.shape[1:3]
        if not images and (height % 2 or width % 2):
            raise UserError(
                f"camera {camera} has {height} × {width} pixels, and video needs even sides; use --images"
            )


def _shapes(demos: DemoSet) -> dict[str, tuple[int, ...]]:
    arrays = {"action": demos.actions, "state": demos.proprio, **demos.images}
    return {name: a.shape[1:] for name, a in arrays.items()}


def _episode(x: _Export, demos: DemoSet, episode: Episode) -> None:
    """Append one episode to the open table and videos."""
    import pyarrow as pa

    at = slice(episode.start, episode.start + episode.length)
    frame, number, start = np.arange(episode.length), len(x.rows), x.frames
    columns = {n: np.asarray(a[at]) for n, a in _vectors(x, demos).items()}
    columns["timestamp"] = (frame / x.fps).astype(np.float32)
    columns["frame_index"] = frame
    columns["episode_index"] = np.full(episode.length, number)
    columns["index"] = start + frame
    columns["task_index"] = np.full(episode.length, x.tasks[episode.task])
    stats = {n: _statistics(a.reshape(len(a), -1)) for n, a in columns.items()}
    row: dict[str, Any] = {
        "episode_index": number,
        "tasks": [episode.task],
        "length": episode.length,
        "dataset_from_index": start,
        "dataset_to_index": start + episode.length,
    }
    arrays = {n: _arrow(n, a) for n, a in columns.items()}
    for camera in x.cameras:
        frames = demos.images[camera.name][at]
        stats[camera.key] = _image_statistics(frames[_sampled(episode.length)])
        if x.images:
            arrays[camera.key] = _pngs(frames)
        else:
            row |= _film(x, camera, frames)
    row |= _append(x, pa.table(arrays))
    row |= {f"stats/{n}/{k}": v.tolist() for n, one in stats.items() for k, v in one.items()}
    row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
    x.rows.append(row)
    x.stats.append(stats)
    x.frames += episode.length


def _vectors(x: _Export, demos: DemoSet) -> dict[str, np.ndarray]:
    out = {"observation.state": demos.proprio}
    known = {None if s.state is None else s.state.shape[1] for s in x.sets}
    if demos.state is not None and len(known) == 1:
        out["observation.environment_state"] = demos.state
    return {**out, "action": demos.actions}


def _arrow(name: str, rows: np.ndarray) -> Any:
    """One number a row as a plain column, several as lists of fixed size."""
    import pyarrow as pa

    kind = pa.int64() if name in COUNTERS else pa.float32()
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1), kind)
    if rows.ndim == 1 or rows.shape[1] == 1:
        return flat
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def _pngs(frames: np.ndarray) -> Any:
    import pyarrow as pa
    from PIL import Image

    rows = []
    for number, frame in enumerate(frames):
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
        rows.append({"bytes": buffer.getvalue(), "path": f"frame-{number:06d}.png"})
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def _append(x: _Export, table: Any) -> dict[str, int]:
    """Append an episode as a row group; a new file once the old one is large."""
    from pyarrow import parquet

    if x.table is not None and Path(x.table.where).stat().st_size >= x.table_bytes:
        x.table.close()
        x.table = None
        x.tables += 1
    where = {"chunk_index": x.tables // CHUNK_FILES, "file_index": x.tables % CHUNK_FILES}
    if x.table is None:
        file = x.out / V3_DATA.format(**where)
        file.parent.mkdir(parents=True, exist_ok=True)
        x.table = parquet.ParquetWriter(str(file), table.schema, compression="snappy")
    x.table.write_table(table)
    return {f"data/{k}": v for k, v in where.items()}


def _film(x: _Export, camera: _Camera, frames: np.ndarray) -> dict[str, float]:
    """Append an episode's frames to the camera's video; a new file once the old one is large."""
    if camera.writer is not None and camera.file is not None and camera.file.stat().st_size >= x.video_bytes:
        camera.writer.close()
        camera.writer, camera.frames, camera.files = None, 0, camera.files + 1
    where = {"chunk_index": camera.files // CHUNK_FILES, "file_index": camera.files % CHUNK_FILES}
    if camera.writer is None:
        camera.file = x.out / V3_VIDEO.format(video_key=camera.key, **where)
        camera.file.parent.mkdir(parents=True, exist_ok=True)
        camera.writer = VideoWriter(camera.file, frames.shape[1:3], x.fps, CRF)
    for number, frame in enumerate(frames):
        camera.writer.write(frame, first=number == 0)
    start = camera.frames
    camera.frames += len(frames)
    found = {**where, "from_timestamp": start / x.fps, "to_timestamp": camera.frames / x.fps}
    return {f"videos/{camera.key}/{k}": v for k, v in found.items()}


def _finish(x: _Export) -> None:
    """Close the files and write ``meta``."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import parquet

    x.table.close()
    for camera in x.cameras:
        if camera.writer is not None:
            camera.writer.close()
    meta = x.out / "meta"
    folder = meta / "episodes" / "chunk-000"
    folder.mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(x.rows), folder / "file-000.parquet", compression="snappy")
    # LeRobot reads the texts as the index of a data frame.
    tasks = pd.DataFrame({"task_index": list(x.tasks.values())}, index=pd.Index(list(x.tasks), name="task"))
    tasks.to_parquet(meta / "tasks.parquet")
    stats = {n: {k: v.tolist() for k, v in _joined([s[n] for s in x.stats]).items()} for n in x.stats[0]}
    write_json(meta / "stats.json", stats)
    write_json(meta / "info.json", _info(x))


def _info(x: _Export) -> dict[str, Any]:
    features: dict[str, Any] = {
        n: {
            "dtype": "float32",
            "shape": [a.shape[1]],
            "names": [f"{n.rsplit('.', 1)[-1]}_{i}" for i in range(a.shape[1])],
        }
        for n, a in _vectors(x, x.sets[0]).items()
    }
    rate: float = int(x.fps) if float(x.fps).is_integer() else x.fps
    for camera in x.cameras:
        height, width = x.sets[0].images[camera.name].shape[1:3]
        about: dict[str, Any] = {"dtype": "image" if x.images else "video", "shape": [height, width, 3]}
        about["names"] = ["height", "width", "channels"]
        if not x.images:
            about["info"] = {
                "video.height": height,
                "video.width": width,
                "video.codec": "h264",
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": rate,
                "video.channels": 3,
                "video.g": 2,
                "video.crf": CRF,
                "has_audio": False,
            }
        features[camera.key] = about
    features["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    features |= {n: {"dtype": "int64", "shape": [1], "names": None} for n in COUNTERS}
    return {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(x.rows),
        "total_frames": x.frames,
        "total_tasks": len(x.tasks),
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": TABLE_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": rate,
        "splits": {"train": f"0:{len(x.rows)}"},
        "data_path": V3_DATA,
        "video_path": None if x.images else V3_VIDEO,
        "features": features,
        "written_by": f"compression-gap {__version__}",
    }


def _statistics(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Of rows [n, d], per column."""
    x = rows.astype(np.float64)
    found = {
        "min": x.min(0),
        "max": x.max(0),
        "mean": x.mean(0),
        "std": x.std(0),
        "count": np.array([len(x)]),
    }
    return found | {_name(q): np.quantile(x, q, axis=0) for q in QUANTILES}


def _image_statistics(frames: np.ndarray) -> dict[str, np.ndarray]:
    """Of frames uint8 [n, h, w, 3] in [0, 1], per channel: [3, 1, 1], from the histogram; ``count`` frames."""
    values = np.arange(256) / 255
    found: dict[str, list[float]] = {}
    for channel in range(3):
        share = np.bincount(frames[..., channel].reshape(-1), minlength=256) / frames[..., channel].size
        present = np.flatnonzero(share)
        mean = float(share @ values)
        one = {
            "min": values[present[0]],
            "max": values[present[-1]],
            "mean": mean,
            "std": float(np.sqrt(share @ (values - mean) ** 2)),
        }
        one |= {_name(q): values[min(255, int(np.searchsorted(np.cumsum(share), q)))] for q in QUANTILES}
        for name, value in one.items():
            found.setdefault(name, []).append(float(value))
    out = {name: np.array(v).reshape(3, 1, 1) for name, v in found.items()}
    return out | {"count": np.array([len(frames)])}


def _sampled(length: int) -> np.ndarray:
    """Evenly spaced frames: all up to a hundred, then length^0.75, as LeRobot samples them."""
    number = max(min(length, SAMPLED), int(length**0.75))
    return np.round(np.linspace(0, length - 1, number)).astype(int)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The statistics of all episodes from each one's (Chan's parallel variance); quantiles are averaged."""
    count = np.array([p["count"][0] for p in parts], dtype=np.float64)
    weight = count / count.sum()

    def over(values: list[np.ndarray]) -> np.ndarray:
        return np.tensordot(weight, np.stack(values), axes=1)

    mean = over([p["mean"] for p in parts])
    out = {
        "min": np.min([p["min"] for p in parts], axis=0),
        "max": np.max([p["max"] for p in parts], axis=0),
        "mean": mean,
        "std": np.sqrt(over([p["std"] ** 2 + (p["mean"] - mean) ** 2 for p in parts])),
        "count": np.array([int(count.sum())]),
    }
    return out | {_name(q): over([p[_name(q)] for p in parts]) for q in QUANTILES}


def _name(quantile: float) -> str:
    return f"q{round(100 * quantile):02d}"
