"""HDF5 in the layout of robomimic and LIBERO: ``data/demo_0/{actions, obs/…, states}``; one task a file.

robomimic (https://robomimic.github.io/docs/datasets/overview.html): ``data.attrs["env_args"]`` names the
environment. LIBERO (``scripts/create_dataset.py`` of Lifelong-Robot-Learning/LIBERO): ``problem_info`` holds the
instruction. That script took observation t *after* action t, so each is paired with the action that follows it, and
the first action of a demonstration, which none precedes, is left out. Images stay as stored: LIBERO's are upside
down (OpenGL's convention). Links, external storage and virtual data sets are refused: they would read other files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from .checks import check_row_size, missing_parts, real
from .hdf5_file import attribute, check_filters, hdf5_errors, member, opened, stored_parts, text
from .source import (
    Field,
    block_rows,
    camera_shape,
    colour_rows,
    failure_note,
    inside,
    parse_json,
    read_start,
    vector_rows,
)

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".hdf5", ".h5", ".he5")
CONVENTIONS = (
    ("obs/robot0_eef_pos", "obs/robot0_eef_quat", "obs/robot0_gripper_qpos"),  # robomimic, one arm
    ("obs/ee_states", "obs/gripper_states"),  # LIBERO: position, axis-angle, two fingers
)
JOINTS = "obs/joint_states"  # LIBERO's; ``states`` is time, then positions, the robot's seven joints first
JOINTS_AGREE = 0.02  # radians on average: LIBERO's playback may diverge a little from what was recorded
LATE_NOTE = (
    "its observations were recorded after their actions, as LIBERO's script does: each is paired with the action that "
    "follows it, and the first action of each demonstration is left out; images stay as stored (LIBERO's are upside "
    "down)"
)
JOINTS_ROWS = 4096  # of a demonstration that are compared
SPLIT_MASKS = ("train", "valid", "test")
MASK_BYTES = 2**27  # of all names of a mask
MOST_DEMOS = 2**20  # that a mask may name
WITHOUT_OBSERVATIONS = (
    "its demonstrations hold no observations (no group obs), only actions and the simulator's states: extract the "
    "observations first (robomimic's dataset_states_to_obs.py, for a raw file of robosuite after its "
    "convert_robosuite.py; for LIBERO's official files cgap demos make --official), and import the result"
)
SECOND_ARM = ("obs/robot1_eef_pos", "obs/robot1_eef_quat", "obs/robot1_gripper_qpos")


@dataclass(frozen=True)
class _Demo:
    """One demonstration: where it lies, and its rows."""

    file: str
    group: str
    rows: int
    late: bool  # observed after its actions
    mark: str | None  # the mask that names it; empty: several do


def is_hdf5(path: Path) -> bool:
    """Whether a path is an HDF5 file, or a folder that holds some."""
    if path.is_dir():
        return any(f.suffix.lower() in SUFFIXES for f in path.iterdir())
    return path.is_file() and read_start(path, 8) == b"\x89HDF\r\n\x1a\n"


class Hdf5:
    """Opened HDF5 files: all demonstrations hold the same fields, and as many rows as actions."""

    format = "hdf5"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = path if path.is_dir() else path.parent
        found = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        self._names = [f.name for f in found]
        self.fields: dict[str, Field] = {}
        self._demos: list[_Demo] = []
        self._tasks: dict[str, str] = {}
        # Of each field: its parts that are there, all of them, the first demonstration that lacks one.
        self._missing: dict[str, tuple[int, int, str]] = {}
        failed: list[str] = []
        rates: set[float] = set()
        for name in self._names:
            with opened(inside(self._root, name)) as file, hdf5_errors(self._root / name):
                self._scan(name, file, rates, failed)
        if len(rates) > 1:
            raise UserError(
                f"{path} holds files of different control rates {sorted(rates)}; import them apart"
            )
        self.fps: float | None = rates.pop() if rates else None
        self.lengths = tuple(d.rows - d.late for d in self._demos)
        self.marks = (
            tuple(d.mark for d in self._demos) if any(d.mark is not None for d in self._demos) else None
        )
        self.notes = [f"{path}: {LATE_NOTE}"] if any(d.late for d in self._demos) else []
        self.notes += failure_note(path, failed, "the attribute success=False")
        observed = any(n.startswith("obs/") for n in self.fields)
        self.without_observations = "" if observed else WITHOUT_OBSERVATIONS

    def _scan(self, name: str, file: Any, rates: set[float], failed: list[str]) -> None:
        where = self._root / name
        data = member(file, "data", where)
        if data is None or not hasattr(data, "keys"):
            raise UserError(
                f"{where} holds no group 'data' with demonstrations, as files of robomimic and LIBERO do; "
                "convert it, or name another file"
            )
        self._tasks[name], rate = _about(data, where)
        if rate is not None:
            rates.add(rate)
        groups = sorted(data.keys(), key=_natural)
        if not groups:
            raise UserError(f"{where} holds no demonstrations; record some")
        marks = _masks(file, where)
        for group in groups:
            demo = member(data, group, where)
            place = f"{where}, data/{group}"
            sets = _datasets(demo, where)
            shapes = {n: (tuple(d.shape or ()), d.dtype) for n, d in sets.items()}
            if "actions" not in shapes:
                raise UserError(f"{place} holds no actions; it is no demonstration, remove it")
            length = shapes["actions"][0][0] if shapes["actions"][0] else 0
            late = length > 0 and _late(sets, "problem_info" in data.attrs, place)
            if length - late < 1:
                raise UserError(f"{place} has no frames; remove it")
            fields = {n: _field(n, shape, dtype) for n, (shape, dtype) in shapes.items()}
            known = {n: f for n, f in fields.items() if f is not None}
            if not self._demos:
                self.fields = known
            self._compare(known, {n: s[0] for n, (s, _) in shapes.items() if s}, length, place)
            self._demos.append(_Demo(name, group, length, late, marks.get(group)))
            self._count_parts({n: sets[n] for n in known}, place)
            if any(_is_false(attribute(demo, n, place)) for n in ("success", "successful")):
                failed.append(group if len(self._names) == 1 else f"{name}: {group}")

    def _count_parts(self, sets: Mapping[str, h5py.Dataset], place: str) -> None:
        for name, dataset in sets.items():
            there, all_ = stored_parts(dataset)
            before = self._missing.get(name, (0, 0, ""))
            first = before[2] or (place if there < all_ else "")
            self._missing[name] = (before[0] + there, before[1] + all_, first)

    def _compare(self, known: dict[str, Field], rows: dict[str, int], length: int, place: str) -> None:
        for name in sorted(self.fields.keys() | known.keys()):
            here, before = known.get(name), self.fields.get(name)
            if here != before:
                shapes = [None if f is None else f.shape for f in (here, before)]
                raise UserError(
                    f"{place} has {name} of shape {shapes[0]}, the demonstrations before have {shapes[1]}; all "
                    "must be alike: import them apart"
                )
            if rows[name] != length:
                raise UserError(
                    f"{place} has {rows[name]} rows of {name} for {length} actions; remove or repair it"
                )

    def tasks(self, key: str | None) -> list[str]:
        """The instruction (LIBERO) or environment (robomimic) of each demonstration's file, else its name."""
        if key is not None:
            raise UserError("an HDF5 file names its task itself: leave --task-key out, or use --task-text")
        return [self._tasks[d.file] for d in self._demos]

    def proprio(self) -> tuple[str, ...]:
        """robomimic: end effector and gripper of each arm; LIBERO: ``ee_states`` and ``gripper_states``."""
        for names in CONVENTIONS:
            if all(n in self.fields for n in names):
                second = SECOND_ARM if names is CONVENTIONS[0] else ()
                return (*names, *(second if all(n in self.fields for n in second) else ()))
        return ()

    def files(self, names: Sequence[str]) -> list[tuple[str, Path]]:
        """The files, whole."""
        return [(name, inside(self._root, name)) for name in self._names]

    def read(self, name: str) -> Iterator[np.ndarray]:
        """The rows of a field, demonstration after demonstration."""
        field = self.fields[name]
        check_row_size(name, field.shape, self.path, item=1 if field.camera else 4)
        there, all_, place = self._missing[name]
        note = missing_parts(there, all_, int(np.prod(field.shape)), name, place)
        if note and note not in self.notes:
            self.notes.append(note)
        last, file = None, None
        try:
            for demo in self._demos:
                if demo.file != last:
                    if file is not None:
                        file.close()
                    last, file = demo.file, opened(inside(self._root, demo.file))
                where = f"{self._root / demo.file}, data/{demo.group}/{name}"
                rows = member(file, f"data/{demo.group}/{name}", self._root / demo.file)
                observed = name.startswith("obs/") or name == "robot_states"
                first, stop = (0, demo.rows - demo.late) if observed else (int(demo.late), demo.rows)
                with hdf5_errors(where):
                    check_filters(rows, where)
                    step = block_rows(rows.shape[1:], rows.dtype.itemsize)
                    for start in range(first, stop, step):
                        block = rows[start : min(start + step, stop)]
                        yield colour_rows(block, where) if field.camera else vector_rows(block, where)
        finally:
            if file is not None:
                file.close()


def _datasets(demo: Any, where: Any, prefix: str = "") -> dict[str, h5py.Dataset]:
    """The data sets of a demonstration by their names; of its groups, ``obs`` alone is entered."""
    import h5py

    out: dict[str, h5py.Dataset] = {}
    if not isinstance(demo, h5py.Group):
        return out
    for name in demo:  # names alone: items() would follow links
        found = member(demo, name, where)
        if isinstance(found, h5py.Dataset):
            out[prefix + name] = found
        elif name == "obs" and not prefix:
            out |= _datasets(found, where, "obs/")
    return out


def _masks(file: Any, where: Path) -> dict[str, str]:
    """robomimic's filter keys: the split that ``mask/train``, ``mask/valid`` or ``mask/test`` gives a demonstration.

    A demonstration of several masks is of none ("").
    """
    out: dict[str, str] = {}
    for split in SPLIT_MASKS:
        mask = member(file, f"mask/{split}", where)
        if mask is None:
            continue
        if not hasattr(mask, "dtype") or len(mask.shape or ()) != 1 or mask.dtype.kind not in "SO":
            raise UserError(f"{where}: mask/{split} is no list of demonstrations' names; remove it")
        if mask.shape[0] > MOST_DEMOS:
            raise UserError(f"{where}: mask/{split} claims {mask.shape[0]} names; remove it")
        for group in {text(name, f"{where}, mask/{split}") for name in _names_in(mask, where)}:
            out[group] = split if group not in out else ""
    return out


def _names_in(mask: Any, where: Path) -> Iterator[Any]:
    """The names in a mask, a few at a time: each may be as long as the file."""
    step = max(1, min(mask.shape[0], MASK_BYTES // max(1, where.stat().st_size)))
    long = 0
    for start in range(0, mask.shape[0], step):
        for name in mask[start : start + step].tolist():
            long += len(name)
            if long > MASK_BYTES:
                raise UserError(f"{where}: a mask holds more text than names of demonstrations; remove it")
            yield name


def _is_false(value: Any) -> bool:
    """Whether an attribute says no: False, 0, or such a word."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value.lower() in ("false", "0")
    found = np.asarray(value)
    return found.dtype.kind in "biuf" and found.size == 1 and not found.any()


def _late(sets: Mapping[str, h5py.Dataset], libero: bool, place: str) -> bool:
    """Whether observation t was taken after action t: by the joints in ``states``, else by whose script it was."""
    if JOINTS in sets and "states" in sets:
        joints, states = sets[JOINTS], sets["states"]
        alike = (
            len(joints.shape or ()) == len(states.shape or ()) == 2 and joints.shape[0] == states.shape[0] > 1
        )
        stored = all(there == all_ for there, all_ in map(stored_parts, (joints, states)))
        numeric = joints.dtype.kind in "fiu" and states.dtype.kind in "fiu"
        if alike and numeric and joints.shape[1] == 7 and states.shape[1] > 7 and stored:
            with hdf5_errors(place):
                check_filters(joints, place)
                check_filters(states, place)
                seen, recorded = joints[:JOINTS_ROWS], states[:JOINTS_ROWS, 1:8]
            after, before = (float(np.abs(seen[:-1] - r).mean()) for r in (recorded[1:], recorded[:-1]))
            if min(after, before) < JOINTS_AGREE and after != before:
                return after < before
    return libero


def _field(name: str, shape: tuple[int, ...], dtype: np.dtype) -> Field | None:
    """Frames, or numbers; None for what is neither."""
    if dtype.kind not in "fiub" or not shape:
        return None
    seen = camera_shape(shape[1:])
    if seen is not None and name.startswith("obs/"):
        return Field(name, seen, camera=True)
    return Field(name, (int(np.prod(shape[1:], dtype=int)),)) if len(shape) <= 2 else None


def _about(data: Any, where: Path) -> tuple[str, float | None]:
    """The task and the control rate that the attributes of ``data`` name."""
    args = _attribute(data, "env_args", where)
    problem = _attribute(data, "problem_info", where)
    task = problem.get("language_instruction")
    if isinstance(task, list):  # some files hold its letters
        task = "".join(map(str, task))
    task = task or args.get("env_name")
    if not isinstance(task, str) or not task.strip('" '):
        task = where.stem.removesuffix("_demo")
    options = args.get("env_kwargs")
    rate = options.get("control_freq") if isinstance(options, dict) else None
    if rate is not None:
        rate = real(rate, "control_freq", f"{where}, attribute env_args", positive=True)
    return task.strip('" '), rate


def _attribute(data: Any, name: str, where: Path) -> dict[str, object]:
    found = text(attribute(data, name, where), f"{where}, attribute {name}")
    value = parse_json(found, f"{where}, attribute {name}") if found else None
    return value if isinstance(value, dict) else {}


def _natural(name: str) -> list[Any]:
    """``demo_2`` before ``demo_10``."""
    parts = [p for p in re.split(r"([0-9]{1,18})", name) if p]
    return [(0, int(p), "") if p.isascii() and p.isdecimal() else (1, 0, p) for p in parts]
