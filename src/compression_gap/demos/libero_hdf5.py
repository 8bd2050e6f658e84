"""LIBERO's official demonstrations: one HDF5 file per task, as its authors publish them.

Layout: ``data/demo_i`` with ``actions`` [T, 7] and ``states`` [T, 1 + nq + nv] (MuJoCo's time, positions and
velocities *before* each action); the file's attributes name the task's BDDL file, and each demonstration's
``model_file`` holds where the fixtures stood, which no state does. The files' own images (128 px, upside down) are
not used: frames are rendered again from the stored states, at any size and by the cameras of the study, so that
they are what the simulator shows in an evaluation.

The official images were taken *after* the action beside which they stand, one control step ahead of what a policy
sees when it decides. ``frames="after-as-published"`` pairs them so; the default shows each state before its action.

Each demonstration is replayed once from its first state. All are kept; those whose replay does not reach the goal
are listed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from ..errors import UserError
from ..sims import Observation, SimSpec, simulating
from ..sims.libero import Libero
from ..sims.libero_assets import ROBOSUITE
from ..sims.libero_environment import CONTROL_RATE
from ..sims.libero_tasks import canonical_task
from ..sims.pool import worker_environment
from .checks import missing_parts
from .demoset import DemoWriter
from .experts import Stopped
from .hdf5_file import attribute, check_filters, hdf5_errors, member, opened, stored_parts, text
from .source import parse_json

Frames = Literal["before", "after-as-published"]
ARRAY_BYTES = 2**28  # of a demonstration's states: the longest has less than one MiB
NOT_A_NUMBER = -1  # these initial states have no number: they were recorded elsewhere


@dataclass(frozen=True)
class Recording:
    """One official demonstration."""

    name: str  # demo_0, demo_1, …
    actions: np.ndarray  # float32 [T, 7]
    states: np.ndarray  # float64 [T, 1 + nq + nv]
    model: str  # MuJoCo's XML, or empty


@dataclass(frozen=True)
class _Watched:
    """A demonstration as the simulator shows it, and how its replay went."""

    observations: list[Observation]
    success: bool
    drift: float  # largest difference of a position in the replay, metres or radians


def import_hdf5(
    spec: SimSpec,
    task: str,
    file: Path,
    out: Path,
    *,
    episodes: int | None = None,
    workers: int = 0,
    frames: Frames = "before",
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Mapping[str, Any]:
    """Write the first ``episodes`` demonstrations of an official file (all by default) to the folder ``out``.

    Frames are rendered by ``workers`` processes, each with an environment of about 2 GB (0: in this one). Returns
    what to report. Raises ``UserError`` if the file is not of this task or layout, or was recorded with another
    version; ``Stopped`` if ``should_stop()`` becomes true.
    """
    names = check_file(file, task, episodes)
    info = Libero.describe(spec)
    source = {
        "kind": "libero-hdf5",
        "file": file.name,
        "sha256": sha256(file),
        "frames": frames,
        "sim": spec.model_dump(mode="json"),
        "versions": info.versions,
    }
    writer = DemoWriter(out, source=source)
    failed, lengths, drifts = [], [], []
    for name, actions, watched in _watch_all(spec, task, file, names, frames, workers):
        if should_stop and should_stop():
            raise Stopped
        writer.add(task, NOT_A_NUMBER, watched.observations, list(actions))
        lengths.append(len(actions))
        drifts.append(watched.drift)
        if not watched.success:
            failed.append(name)
        if progress:
            progress(len(lengths), len(names))
    writer.close()
    return {
        "task": task,
        "file": file.name,
        "sha256": source["sha256"],
        "episodes": len(names),
        "replay_failed": failed,
        "replay_success_rate": 1 - len(failed) / len(names),
        "replay_drift": float(np.median(drifts)),
        "mean_length": float(np.mean(lengths)),
        "max_length": max(lengths),
    }


def sha256(file: Path) -> str:
    """The checksum of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def task_of(file: Path) -> str:
    """The task that an official file demonstrates, by the BDDL file that it names."""
    with _open(file) as store:
        return _task(store, file)


def check_file(file: Path, task: str, episodes: int | None) -> list[str]:
    """The names of the first ``episodes`` demonstrations, in the file's order of numbers.

    Raises ``UserError`` as ``import_hdf5`` does, except for what only the simulator can know.
    """
    with _open(file) as store:
        found = _task(store, file)
        if found != task:
            raise UserError(f"{file} demonstrates {found}, not {task}: name that task's own file")
        _check_version(store["data"], file)
        with hdf5_errors(file):
            names = sorted((n for n in store["data"] if n.startswith("demo_")), key=_number)
        if not names:
            raise UserError(f"{file} holds no demonstrations (data/demo_0, …): download it again")
        if episodes is not None and len(names) < episodes:
            raise UserError(f"{file} holds {len(names)} demonstrations, not {episodes}: ask for fewer")
        return names[:episodes]


def read_recording(file: Path, name: str) -> Recording:
    """One demonstration of an official file. Raises ``UserError`` if its arrays are missing or do not fit."""
    with _open(file) as store:
        group = member(store, f"data/{name}", file)
        actions, states = _array(group, "actions", file), _array(group, "states", file)
        with hdf5_errors(file):
            model = text(attribute(group, "model_file", file), f"{file}, {name}, attribute model_file")
    if actions.ndim != 2 or actions.shape[1] != 7 or states.ndim != 2 or len(states) != len(actions):
        raise UserError(
            f"{file}, {name}: actions {actions.shape} and states {states.shape} are not [T, 7] and [T, n]: it is no "
            "official demonstration"
        )
    if not (np.isfinite(actions).all() and np.isfinite(states).all() and len(actions)):
        raise UserError(f"{file}, {name}: it is empty or holds values that are not finite: download it again")
    return Recording(name, actions.astype(np.float32), states.astype(np.float64), model)


def _open(file: Path) -> Any:
    try:
        store = opened(file)
    except ModuleNotFoundError as error:
        raise UserError('HDF5 files need h5py: pip install "compression-gap[libero]"') from error
    if not hasattr(member(store, "data", file), "keys"):
        store.close()
        raise UserError(f"{file} has no group 'data': name one of LIBERO's *_demo.hdf5 files")
    return store


def _array(group: Any, name: str, file: Path) -> np.ndarray:
    """A data set of numbers that lies in this file, whole."""
    found = member(group, name, file)
    where = f"{file}, {group.name}: '{name}'"
    if getattr(found, "dtype", np.dtype("O")).kind not in "fi":
        raise UserError(
            f"{file}, {group.name}: no array of numbers '{name}': it is no official demonstration"
        )
    with hdf5_errors(where):
        check_filters(found, where)
        missing_parts(*stored_parts(found), 2, name, where)
        if found.nbytes > ARRAY_BYTES:
            raise UserError(f"{where} claims {found.nbytes >> 20} MiB: it is no official demonstration")
        return np.asarray(found)


def _task(store: Any, file: Path) -> str:
    with hdf5_errors(file):
        named = text(attribute(store["data"], "bddl_file_name", file), f"{file}, attribute bddl_file_name")
    if not named:
        raise UserError(
            f"{file} does not say its task (attribute bddl_file_name): it is no official demonstration"
        )
    return canonical_task(named.replace("\\", "/").rpartition("/")[2].removesuffix(".bddl"))


def _check_version(data: Any, file: Path) -> None:
    """Refuse what another robosuite or another controller recorded: its actions mean something else."""
    with hdf5_errors(file):
        env_args, recorded = (
            text(attribute(data, n, file), f"{file}, attribute {n}")
            for n in ("env_args", "repository_version")
        )
    args = parse_json(env_args or "{}", f"{file}, attribute env_args")
    try:
        kwargs = args.get("env_kwargs") or {}
        controller = (kwargs.get("controller_configs") or {}).get("type", "OSC_POSE")
        frequency = kwargs.get("control_freq", 20)
    except AttributeError as error:
        raise UserError(
            f"{file}: its attribute env_args is not of LIBERO's form: it is no official demonstration"
        ) from error
    version = recorded or str(args.get("env_version") or "")
    if version and not version.startswith(f"{ROBOSUITE}."):
        raise UserError(
            f"{file} was recorded with robosuite {version}, and its states and actions fit {ROBOSUITE} alone: record it "
            f"again, or take LIBERO's own file"
        )
    if controller != "OSC_POSE" or frequency != CONTROL_RATE:
        raise UserError(
            f"{file} was recorded with the controller {controller} at {frequency} Hz, not OSC_POSE at {CONTROL_RATE} Hz: its "
            "actions mean something else here"
        )


def _number(name: str) -> int:
    tail = name.removeprefix("demo_")
    return int(tail) if tail.isascii() and tail.isdecimal() and len(tail) < 10 else 1 << 30


def fixture_places(model: str, names: tuple[str, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Where these bodies stand in MuJoCo's XML: position [3] and quaternion wxyz [4]."""
    if not model:
        return {}
    places = {}
    for body in ElementTree.fromstring(model).iter("body"):
        if body.get("name") in names:
            position = np.array((body.get("pos") or "0 0 0").split(), float)
            quaternion = np.array((body.get("quat") or "1 0 0 0").split(), float)
            places[str(body.get("name"))] = (position, quaternion)
    return places


def _watch_all(
    spec: SimSpec, task: str, file: Path, names: list[str], frames: Frames, workers: int
) -> Iterator[tuple[str, np.ndarray, _Watched]]:
    jobs = [(spec, task, file, name, frames) for name in names]
    if workers:
        with worker_environment(), get_context("forkserver").Pool(min(workers, len(jobs))) as pool:
            yield from pool.imap(_watch_job, jobs)
        return
    try:
        for job in jobs:
            yield _watch_job(job)
    finally:
        _close_simulator()


_simulators: dict[str, Libero] = {}  # of this process: making one takes seconds


def _watch_job(job: tuple[SimSpec, str, Path, str, Frames]) -> tuple[str, np.ndarray, _Watched]:
    spec, task, file, name, frames = job
    key = spec.model_dump_json()
    if key not in _simulators:
        _close_simulator()
        with simulating(spec, task, name):
            _simulators[key] = Libero(spec)
    recording = read_recording(file, name)
    with simulating(spec, task, name):
        return name, recording.actions, watch(_simulators[key], task, recording, file, frames)


def _close_simulator() -> None:
    while _simulators:
        _simulators.popitem()[1].close()


def watch(sim: Libero, task: str, recording: Recording, file: Path, frames: Frames) -> _Watched:
    """Replay a demonstration once from its first state, and show its stored states."""
    places = _place(sim, task, recording, file)
    drift = 0.0
    for action, state in zip(recording.actions, recording.states, strict=True):
        drift = max(drift, float(np.abs(_positions(sim, sim.environment.flat() - state)).max()))
        sim.step(action)
    success = sim.success
    sim.reset_to(task, recording.states[-1], places)
    sim.step(recording.actions[-1])
    last = sim.environment.flat()
    shown = recording.states if frames == "before" else np.concatenate([recording.states[1:], last[None]])
    observations = []
    sim.reset_to(task, shown[0], places)
    for state in shown:
        sim.environment.set_flat(state)
        observations.append(sim.observe())
    return _Watched(observations, success, drift)


def _positions(sim: Libero, difference: np.ndarray) -> np.ndarray:
    return difference[1 : 1 + sim.environment.model.nq]


def _place(sim: Libero, task: str, recording: Recording, file: Path) -> Mapping[str, Any]:
    """Start the episode at the recording's first state; where its fixtures stand."""
    sim.load(task)
    model = sim.environment.model
    if recording.states.shape[1] != 1 + model.nq + model.nv:
        raise UserError(
            f"{file}, {recording.name}: its states have {recording.states.shape[1]} numbers, and {task} has "
            f"{1 + model.nq + model.nv} here: it was recorded with another version of robosuite or LIBERO"
        )
    try:
        places = fixture_places(recording.model, sim.environment.fixtures())
    except (ElementTree.ParseError, ValueError) as error:
        raise UserError(
            f"{file}, {recording.name}: its model_file is not MuJoCo's XML ({error}): download it again"
        ) from error
    sim.reset_to(task, recording.states[0], places)
    return places
