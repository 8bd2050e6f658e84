"""The verbs that bring data in and out: demos import, demos export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import tyro

from .cli_types import Json, StorePath, print_json
from .errors import counted


def demos_import(
    path: tyro.conf.Positional[str],
    *,
    format: Literal["auto", "lerobot", "hdf5", "zarr"] = "auto",
    cameras: tuple[str, ...] = (),
    state: tuple[str, ...] = (),
    action: tuple[str, ...] = (),
    true_state: tuple[str, ...] = (),
    task_key: str | None = None,
    task_text: str | None = None,
    image_size: int | None = None,
    store: StorePath = Path("store"),
    json: Json = False,
) -> int:
    """Import recorded demonstrations: LeRobotDataset v2 and v3, HDF5 (robomimic, LIBERO), Zarr replay buffers.

    Example: cgap demos import my_robot_data --cameras front wrist --image-size 128

    Args:
        path: a folder or file, or a hub id as owner/name[@revision].
        format: auto, lerobot, hdf5 or zarr.
        cameras: cameras to import; all colour cameras by default.
        state: fields of the robot's own state, joined in this order; KEY[0:2] takes some of its numbers.
        action: fields of the action, joined in this order.
        true_state: fields of the simulator's true state, for the oracle encoder; never taken unasked.
        task_key: the field that says which task a frame is of (Zarr).
        task_text: one task for all episodes.
        image_size: pixels, square; as recorded by default.
        store: folder of all artefacts.
        json: print the result as JSON.
    """
    from .commands_data import import_data
    from .demos.importing import Wanted

    wanted = Wanted(action, state, true_state, cameras, task_key, task_text, image_size)
    found = import_data(path, format, wanted, store)
    if json:
        print_json(found)
        return 0
    seen = ", ".join(f"{name} {h} × {w}" for name, (h, w) in found["cameras"].items())
    print(
        f"{found['format']}: {counted(found['episodes'], 'episode')}, {counted(found['frames'], 'frame')}, "
        f"{counted(len(found['tasks']), 'task')}"
    )
    print(f"cameras: {seen}; state: {', '.join(found['mapping']['proprio'])}")
    print(f"{'there already' if found['reused'] else 'imported'}: {found['folder']}")
    for note in found["notes"]:
        print(note, file=sys.stderr)
    return 0


def demos_export(
    folder: tyro.conf.Positional[Path],
    out: tyro.conf.Positional[Path],
    *,
    fps: float | None = None,
    images: bool = False,
    json: Json = False,
) -> int:
    """Write demonstrations as a LeRobotDataset v3.0. Splits and initial states are no part of that format.

    Example: cgap demos export store/demos/KEY my_lerobot_data --fps 20

    Args:
        folder: a folder STORE/demos/KEY, as demos make and demos import print it.
        out: the new folder.
        fps: frames per second; by default that of the recording.
        images: keep frames exactly, as PNG in the tables, instead of video.
        json: print the result as JSON.
    """
    from .commands_data import export_data

    found = export_data(folder, out, fps, images)
    if json:
        print_json(found)
    else:
        print(
            f"{counted(found['episodes'], 'episode')}, {counted(found['frames'], 'frame')}, pixels {found['pixels']}: "
            f"{found['folder']}"
        )
        print(f"not part of the format, and left out: {', '.join(found['left_out'])}")
    return 0
