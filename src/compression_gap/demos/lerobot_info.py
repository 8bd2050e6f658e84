"""A LeRobotDataset's ``meta/info.json``: what is used of it, read and checked in one place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..errors import UserError
from .checks import real, shown, whole
from .source import Field, camera_shape, inside, read_json

TOTALS = ("total_episodes", "total_frames")
VERSIONS = ("v2.0", "v2.1", "v3.0")
V2_DATA = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
V2_VIDEO = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
V3_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
V3_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


@dataclass(frozen=True)
class Info:
    """What is used of ``info.json``. Texts, depth and what is empty are no fields."""

    version: str  # of VERSIONS
    fps: float
    fields: dict[str, Field]
    videos: tuple[str, ...]  # the fields that are videos, sorted
    chunk_size: int  # v2: episodes of a folder
    data_path: str  # templates, for ``tables.fill``
    video_path: str
    splits: tuple[tuple[str, range], ...]  # name, episodes; empty where it does not name several
    totals: dict[str, int]  # those of TOTALS that it names


def read_info(root: Path) -> Info:
    """What ``meta/info.json`` says. Raises ``UserError`` that names what is missing or wrong."""
    file = root / "meta/info.json"
    info = read_json(inside(root, "meta/info.json"))
    features = info.get("features") if isinstance(info, dict) else None
    if not isinstance(features, dict):
        raise UserError(f"{root}/meta/info.json describes no features; fetch the data set again")
    version = str(info.get("codebase_version"))
    if version not in VERSIONS:
        raise UserError(
            f"{root} is a LeRobotDataset {version}; convert it to v3.0 (known: {', '.join(VERSIONS)})"
        )
    old = version != "v3.0"
    fps = real(info.get("fps"), "fps", file, positive=True)
    fields = {n: field for n, f in features.items() if (field := _field(n, f, file)) is not None}
    videos = sorted(n for n, f in features.items() if _kind(f) == "video")
    for name in videos:
        _check_rate(name, features[name], fps, file)
    return Info(
        version=version,
        fps=fps,
        fields=fields,
        videos=tuple(n for n in videos if not _is_depth(features[n])),
        chunk_size=whole(info.get("chunks_size") or 1000, "chunks_size", file, least=1) if old else 0,
        data_path=str(info.get("data_path") or (V2_DATA if old else V3_DATA)),
        video_path=str(info.get("video_path") or (V2_VIDEO if old else V3_VIDEO)),
        splits=_splits(info.get("splits")),
        totals={n: whole(info[n], n, file) for n in TOTALS if info.get(n) is not None},
    )


def _field(name: str, feature: Any, file: Path) -> Field | None:
    said = feature.get("shape") if isinstance(feature, dict) else None
    if not isinstance(said, (list, tuple)):
        raise UserError(f"{file} gives {name} no shape; correct it")
    shape = [whole(n, f"the shape of {name}", file, most=2**40) for n in said]
    if _kind(feature) in ("video", "image"):
        return None if _is_depth(feature) else Field(name, camera_shape(shape) or tuple(shape), camera=True)
    if _kind(feature) in ("string", "language") or 0 in shape:
        return None
    return Field(name, (math.prod(shape),))


def _check_rate(name: str, feature: Any, fps: float, file: Path) -> None:
    """Refuse a video of another rate than the set's."""
    about = feature.get("info") or feature.get("video_info") or {}
    said = about.get("video.fps") if isinstance(about, dict) else None
    if said is None:
        return
    try:
        rate = float(Fraction(str(said)))  # 30, 29.97, or "30/1"
    except (ValueError, ZeroDivisionError, OverflowError) as error:
        raise UserError(f"{file} gives the videos of {name} a rate of {shown(said)}; correct it") from error
    if not abs(rate - fps) <= 0.01:
        raise UserError(
            f"{file} has two rates, fps {fps:g} and {rate:g} for the videos of {name}; correct it, or record at "
            "one rate"
        )


def _splits(said: Any) -> tuple[tuple[str, range], ...]:
    """ "0:40" are the episodes 0 to 39."""
    if not isinstance(said, dict) or len(said) < 2:
        return ()
    out = []
    for name, span in said.items():
        start, colon, stop = span.partition(":") if isinstance(span, str) else ("", "", "")
        if not colon or not all(n.isascii() and n.isdecimal() and len(n) < 16 for n in (start, stop)):
            return ()
        out.append((name, range(int(start), int(stop))))
    return tuple(out)


def _kind(feature: Any) -> str:
    return str(feature.get("dtype")) if isinstance(feature, dict) else ""


def _is_depth(feature: Any) -> bool:
    about = [feature.get("info"), feature.get("video_info")] if isinstance(feature, dict) else []
    return any(
        isinstance(a, dict) and (a.get("is_depth_map") or a.get("video.is_depth_map")) is True for a in about
    )
