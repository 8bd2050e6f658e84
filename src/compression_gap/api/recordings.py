"""Recordings of others: imported into a store, rendered again, and written as a LeRobotDataset."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..artifacts.demonstrations import Demonstrations
from ..demos import DemoSet
from ..errors import UserError
from ..store.store import Store
from .demos import MadeDemos, describe, planned
from .options import Running
from .progress import progress_bar

if TYPE_CHECKING:
    from ..demos.importing import Format, Wanted
    from ..demos.lerobot_export import Exported

EXTRA = {"av", "h5py", "zarr", "PIL"}


@dataclass(frozen=True)
class Imported:
    """An imported set: its sizes, how names were mapped, where it lies, and what the user should know of it."""

    format: str
    episodes: int
    frames: int
    fps: float
    cameras: Mapping[str, tuple[int, int]]  # height and width
    action: int
    state: int
    true_state: int | None
    tasks: Sequence[str]
    mapping: Mapping[str, Any]
    key: str
    folder: Path
    reused: bool
    notes: Sequence[str]


@contextmanager
def with_extra() -> Iterator[None]:
    """Say which extra to install where a library for data is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        raise UserError(
            f'{error.name} is not installed: run  pip install "compression-gap[data]"  and try again'
        ) from error


def import_data(path: str, format: Format, wanted: Wanted, store_root: Path) -> Imported:
    """Import a data set into the store; an import that is there already is reused."""
    from ..demos.importing import import_demos, locate, open_source

    if wanted.image_size is not None and not 8 <= wanted.image_size <= 4096:
        raise UserError(f"--image-size {wanted.image_size} is no size; give 8 to 4096 pixels")
    with with_extra():
        folder, origin = locate(path)
        source = open_source(folder, format)
        store = Store(store_root)
        store.sweep()
        with progress_bar(f"importing {folder.name}") as progress:
            recipe, reused = import_demos(source, wanted, store, origin=origin, progress=progress)
    place = store.open(recipe)
    demos = DemoSet.load(place)
    about, cameras = demos.source, {camera: frames.shape[1:3] for camera, frames in demos.images.items()}
    return Imported(
        format=about["source"]["format"],
        episodes=len(demos.episodes),
        frames=len(demos.actions),
        fps=about["fps"],
        cameras=cameras,
        action=demos.actions.shape[1],
        state=demos.proprio.shape[1],
        true_state=None if demos.state is None else demos.state.shape[1],
        tasks=demos.tasks,
        mapping={name: about[name] for name in ("action", "proprio", "state", "cameras", "task_key")},
        key=recipe.key,
        folder=place,
        reused=reused,
        notes=(*source.notes, *_camera_notes(cameras), *_still(demos)),
    )


def _still(demos: DemoSet) -> list[str]:
    """What the user should know of dimensions that hardly move."""
    from ..demos.rounding import notes

    found = []
    arrays = {"action": demos.actions, "proprio": demos.proprio, "state": demos.state}
    for part, values in arrays.items():
        if values is not None:
            split = [vector.rpartition("[") for vector in demos.source[part]]
            spans = [(name, span.removesuffix("]").split(":")) for name, _, span in split]
            names = [f"{name}[{i}]" for name, (a, b) in spans for i in range(int(a), int(b))]
            found += notes(values, names)
    return found


def _camera_notes(cameras: Mapping[str, tuple[int, int]]) -> list[str]:
    """What to say of cameras that no study can take: it needs square ones of one size."""
    sizes = set(cameras.values())
    if len(sizes) == 1 and all(h == w for h, w in sizes):
        return []
    side = min(128, *(n for size in sizes for n in size))
    return [
        "a study needs square cameras of one size: for one, import the recording again with --image-size, as in "
        f"--image-size {side}"
    ]


def export_data(folders: Sequence[Path], out: Path, fps: float | None, images: bool) -> Exported:
    """Write sets of a store as one LeRobotDataset v3.0, at the rate of their recording or of their simulator."""
    from ..artifacts.demonstrations import open_demos
    from ..demos.lerobot_export import export_lerobot

    store, recipes = open_demos(folders)
    if len({r.key for r in recipes}) < len(recipes):
        raise UserError("the same demonstrations are named twice; name each set once")
    sets = [DemoSet.load(store.open(r)) for r in recipes]
    if fps is None:
        rates = {f"{rate:g}": rate for rate in map(frame_rate, folders, sets)}
        if len(rates) > 1:
            raise UserError(
                f"the sets have {' and '.join(rates)} frames a second: export them apart, or give --fps"
            )
        (fps,) = rates.values()
    with with_extra(), progress_bar(f"exporting {out.name}") as progress:
        return export_lerobot(sets, out, fps=float(fps), images=images, progress=progress)


def frame_rate(folder: Path, demos: DemoSet) -> float:
    """The frames a second of a set: those of the recording, or the control rate of the simulator that made it."""
    from ..sims import SimSpec, sim_info

    rate, sim = demos.source.get("fps"), demos.source.get("sim")
    if rate is None and sim is not None:
        try:
            rate = sim_info(SimSpec.model_validate_json(json.dumps(sim))).control_rate
        except UserError as error:
            raise UserError(f"{folder}: {error}; or give --fps") from error
    if rate is None:
        raise UserError(f"{folder} does not say how many frames a second it has; give --fps")
    return float(rate)


def make_official(
    suite: str,
    folder: Path,
    episodes: int = 100,
    *,
    cameras: tuple[str, ...] = (),
    image_size: int = 84,
    store: str | Path = "store",
    running: Running | None = None,
) -> list[MadeDemos]:
    """LIBERO's official demonstrations of a suite's tasks, from the HDF5 files in ``folder``, rendered again."""
    steps, place = planned(suite, episodes, cameras, image_size, "official"), Store(Path(store))
    place.sweep()
    _take([s for s in steps if not place.has(s)], folder, place, (running or Running()).workers)
    return describe(steps, place)


def _take(steps: list[Demonstrations], folder: Path, store: Store, workers: int) -> None:
    """Render the demonstrations of these steps; those whose replay fails are kept and named."""
    from ..demos.libero_hdf5 import import_hdf5
    from ..sims.libero_tasks import full_name

    if any(s.sim is None or s.sim.sim != "libero" for s in steps):
        raise UserError("--official reads LIBERO's own demonstrations: name a suite or task of libero")
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: name the one with LIBERO's HDF5 files")
    found: dict[str, Path] = {}
    for step in steps:  # all files first: rendering takes minutes
        task = step.task
        files = sorted(folder.rglob(f"{full_name(task)}_demo.hdf5"))
        if len(files) != 1:
            what = "no file" if not files else f"{len(files)} files"
            raise UserError(
                f"{folder} holds {what} {full_name(task)}_demo.hdf5 for {task}: name the folder with one"
            )
        found[task] = files[0]
    for step in steps:
        meta: dict[str, Any] = {}
        assert step.sim is not None
        with store.create(step.recipe, meta) as out, progress_bar(f"rendering {step.task}") as progress:
            meta |= import_hdf5(
                step.sim, step.task, found[step.task], out,
                episodes=step.episodes, workers=workers, progress=progress,
            )  # fmt: skip
        if meta["replay_failed"]:
            print(
                f"cgap: {step.task}: the replay of {', '.join(meta['replay_failed'])} fails; kept",
                file=sys.stderr,
            )
