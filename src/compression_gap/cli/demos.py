"""The verbs on demonstrations: demos make, demos list, demos import, demos export."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ..errors import UserError, counted
from .options import OneStore, Running, print_json


@dataclass(frozen=True)
class MakeOptions:
    """Collect demonstrations of every task of a suite: from its scripted expert, or from LIBERO's own files.

    Example: cgap demos make metaworld/precision-4 --episodes 100
    """

    suite: tyro.conf.Positional[str]
    """metaworld/precision-4, metaworld/8, a single task such as metaworld/push, or channel."""
    episodes: int = 100
    """successful episodes per task."""
    cameras: tuple[str, ...] = ()
    """camera names; none takes the simulator's default camera."""
    image_size: int = 84
    """pixels, square."""
    store: Path = Path("store")
    """folder of all artefacts."""
    processes: int | None = None
    """worker processes; as many as cores by default."""
    preset: str | None = None
    """take the number of episodes and the cameras from this preset."""
    official: Path | None = None
    """folder with LIBERO's official HDF5 files, whose images are rendered again."""
    json: bool = False
    """print the result as JSON."""


def make(options: MakeOptions) -> None:
    """Collect, and print a line a task."""
    from ..api.demos import at_preset, make_demos
    from ..api.recordings import make_official

    o, running = options, Running(processes=options.processes)
    if o.official is not None:
        made = make_official(
            o.suite, o.official, o.episodes,
            cameras=o.cameras, image_size=o.image_size, store=o.store, running=running,
        )  # fmt: skip
    else:
        episodes, cameras, size = o.episodes, o.cameras, o.image_size
        if o.preset is not None:
            episodes, seen = at_preset(o.preset)
            cameras, size = seen.names, seen.image_size
        made = make_demos(o.suite, episodes, cameras=cameras, image_size=size, store=o.store, running=running)
    if o.json:
        print_json({"demos": [asdict(one) for one in made]})
        return
    for one in made:
        size_words = f"{counted(one.episodes, 'episode')}, {counted(one.frames, 'frame')}"
        print(f"{one.task}: {size_words}, {one.folder}")


@dataclass(frozen=True)
class ListOptions(OneStore):
    """List the demonstrations in a store, collected and imported ones.

    Example: cgap demos list
    """


def list_(options: ListOptions) -> None:
    """A table, a row a set."""
    from ..api.demos import list_demos

    found = list_demos(options.store)
    if options.json:
        print_json({"demos": found})
        return
    from .terminal_store import demos_table

    demos_table(found)


@dataclass(frozen=True)
class ImportOptions:
    """Import recorded demonstrations: LeRobotDataset v2 and v3, HDF5 (robomimic, LIBERO), Zarr replay buffers.

    Example: cgap demos import my_robot_data --cameras front wrist --image-size 128
    """

    path: tyro.conf.Positional[str]
    """a folder or file, or a hub id as owner/name[@revision]."""
    format: Literal["auto", "lerobot", "hdf5", "zarr"] = "auto"
    """auto, lerobot, hdf5 or zarr."""
    cameras: tuple[str, ...] = ()
    """cameras to import; all colour cameras by default."""
    state: tuple[str, ...] = ()
    """fields of the robot's own state, joined in this order; KEY[0:2] takes some of its numbers."""
    action: tuple[str, ...] = ()
    """fields of the action, joined in this order."""
    true_state: tuple[str, ...] = ()
    """fields of the simulator's true state, for the oracle encoder; never taken unasked."""
    task_key: str | None = None
    """the field that says which task a frame is of (Zarr)."""
    task_text: str | None = None
    """one task for all episodes."""
    image_size: int | None = None
    """pixels, square; as recorded by default."""
    store: Path = Path("store")
    """folder of all artefacts."""
    json: bool = False
    """print the result as JSON."""


def import_recordings(options: ImportOptions) -> None:
    """Import, and say how names were mapped."""
    from ..api.recordings import import_data
    from ..demos.importing import Wanted

    o = options
    wanted = Wanted(o.action, o.state, o.true_state, o.cameras, o.task_key, o.task_text, o.image_size)
    found = import_data(o.path, o.format, wanted, o.store)
    if o.json:
        print_json(found)
        return
    seen = ", ".join(f"{name} {h} × {w}" for name, (h, w) in found.cameras.items())
    counts = f"{counted(found.episodes, 'episode')}, {counted(found.frames, 'frame')}"
    mapping = found.mapping
    print(f"{found.format}: {counts}, {counted(len(found.tasks), 'task')}")
    print(f"cameras: {seen}; action: {', '.join(mapping['action'])}; state: {', '.join(mapping['proprio'])}")
    if mapping["state"]:
        print(f"true state, for the oracle encoder alone: {', '.join(mapping['state'])}")
    print(f"{'there already' if found.reused else 'imported'}: {found.folder}")
    for note in found.notes:
        print(note, file=sys.stderr)


@dataclass(frozen=True)
class ExportOptions:
    """Write demonstrations as one LeRobotDataset v3.0. Splits and initial states are no part of that format.

    Example: cgap demos export store/demos/KEY store/demos/KEY2 my_lerobot_data
    """

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER [FOLDER ...] OUT")]
    """folders STORE/demos/KEY, as demos make and demos import print them (of a suite one for each task), and at the
    end the new folder."""
    fps: float | None = None
    """frames per second; by default those of the recording, or the simulator's control rate."""
    images: bool = False
    """keep frames exactly, as PNG in the tables, instead of video."""
    json: bool = False
    """print the result as JSON."""


def export(options: ExportOptions) -> None:
    """Write the data set, and say what was left out."""
    from ..api.recordings import export_data

    *folders, out = options.paths
    if not folders:
        raise UserError(
            "name the demonstrations, and at the end the new folder: cgap demos export STORE/demos/KEY NEW"
        )
    found = export_data(folders, out, options.fps, options.images)
    if options.json:
        print_json(found)
        return
    counts = f"{counted(found.episodes, 'episode')}, {counted(found.frames, 'frame')}"
    print(
        f"{counts}, {counted(len(found.tasks), 'task')}, {found.fps:g} frames a second, pixels "
        f"{found.pixels}: {found.folder}"
    )
    print(f"not part of the format, and left out: {', '.join(found.left_out)}")
