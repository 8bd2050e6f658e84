"""The verbs that bring data in and out: demos import, demos export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import UserError, counted
from .options import Json, StorePath, print_json


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
    from ..demos.importing import Wanted
    from .commands_data import import_data

    wanted = Wanted(action, state, true_state, cameras, task_key, task_text, image_size)
    found = import_data(path, format, wanted, store)
    if json:
        print_json(found)
        return 0
    seen = ", ".join(f"{name} {h} × {w}" for name, (h, w) in found["cameras"].items())
    counts = ", ".join(counted(found[f"{n}s"], n) for n in ("episode", "frame"))
    mapping = found["mapping"]
    print(f"{found['format']}: {counts}, {counted(len(found['tasks']), 'task')}")
    print(f"cameras: {seen}; action: {', '.join(mapping['action'])}; state: {', '.join(mapping['proprio'])}")
    if mapping["state"]:
        print(f"true state, for the oracle encoder alone: {', '.join(mapping['state'])}")
    print(f"{'there already' if found['reused'] else 'imported'}: {found['folder']}")
    for note in found["notes"]:
        print(note, file=sys.stderr)
    return 0


def demos_export(
    paths: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER [FOLDER ...] OUT")
    ],
    *,
    fps: float | None = None,
    images: bool = False,
    json: Json = False,
) -> int:
    """Write demonstrations as one LeRobotDataset v3.0. Splits and initial states are no part of that format.

    Example: cgap demos export store/demos/KEY store/demos/KEY2 my_lerobot_data

    Args:
        paths: folders STORE/demos/KEY, as demos make and demos import print them (of a suite one for each task), and at
            the end the new folder.
        fps: frames per second; by default those of the recording, or the simulator's control rate.
        images: keep frames exactly, as PNG in the tables, instead of video.
        json: print the result as JSON.
    """
    from .commands_data import export_data

    if len(paths) < 2:
        raise UserError(
            "name the demonstrations, and at the end the new folder: cgap demos export STORE/demos/KEY NEW"
        )
    found = export_data(paths[:-1], paths[-1], fps, images)
    if json:
        print_json(found)
    else:
        counts = ", ".join(counted(found[f"{n}s"], n) for n in ("episode", "frame"))
        print(
            f"{counts}, {counted(len(found['tasks']), 'task')}, {found['fps']:g} frames a second, pixels "
            f"{found['pixels']}: {found['folder']}"
        )
        print(f"not part of the format, and left out: {', '.join(found['left_out'])}")
    return 0
