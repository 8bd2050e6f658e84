"""HDF5 in the layout of robomimic and LIBERO: ``data/demo_0/{actions, obs/…, states}``; one task a file.

robomimic (https://robomimic.github.io/docs/datasets/overview.html): ``data.attrs["env_args"]`` names the
environment. LIBERO (``scripts/create_dataset.py`` of Lifelong-Robot-Learning/LIBERO): ``problem_info`` holds the
instruction. That script took observation t *after* action t, so each is paired with the action that follows it, and
the first action of a demonstration, which none precedes, is left out. Images stay as stored: LIBERO's are upside
down (OpenGL's convention). Links, external storage and virtual data sets are refused: they would read other files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .source import BLOCK, Field, broken, camera_shape, colour_rows, inside, parse_json, vector_rows

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
SECOND_ARM = ("obs/robot1_eef_pos", "obs/robot1_eef_quat", "obs/robot1_gripper_qpos")


def is_hdf5(path: Path) -> bool:
    """Whether a path is an HDF5 file, or a folder that holds some."""
    if path.is_dir():
        return any(f.suffix.lower() in SUFFIXES for f in path.iterdir())
    with path.open("rb") as stream:
        return stream.read(8) == b"\x89HDF\r\n\x1a\n"


class Hdf5:
    """Opened HDF5 files: all demonstrations hold the same fields, and as many rows as actions."""

    format = "hdf5"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._root = path if path.is_dir() else path.parent
        found = sorted(f for f in path.iterdir() if f.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        self._names = [f.name for f in found]
        self.fields: dict[str, Field] = {}
        self._demos: list[tuple[str, str, int, bool]] = []  # file, group, rows, observed after its actions
        self._tasks: dict[str, str] = {}
        rates: set[float] = set()
        for name in self._names:
            with _opened(inside(self._root, name)) as file:
                self._scan(name, file, rates)
        if len(rates) > 1:
            raise UserError(
                f"{path} holds files of different control rates {sorted(rates)}; import them apart"
            )
        self.fps: float | None = rates.pop() if rates else None
        self.lengths = tuple(rows - late for _, _, rows, late in self._demos)
        self.notes = [f"{path}: {LATE_NOTE}"] if any(late for *_, late in self._demos) else []

    def _scan(self, name: str, file: Any, rates: set[float]) -> None:
        where = self._root / name
        data = _member(file, "data", where)
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
        for group in groups:
            demo = _member(data, group, where)
            place = f"{where}, data/{group}"
            shapes = _shapes(demo, where)
            if "actions" not in shapes:
                raise UserError(f"{place} holds no actions; it is no demonstration, remove it")
            length = shapes["actions"][0][0] if shapes["actions"][0] else 0
            late = length > 0 and _late(demo, shapes, "problem_info" in data.attrs, place)
            if length - late < 1:
                raise UserError(f"{place} has no frames; remove it")
            fields = {n: _field(n, shape, dtype) for n, (shape, dtype) in shapes.items()}
            known = {n: f for n, f in fields.items() if f is not None}
            if not self._demos:
                self.fields = known
            self._compare(known, {n: s[0] for n, (s, _) in shapes.items() if s}, length, place)
            self._demos.append((name, group, length, late))

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
        return [self._tasks[file] for file, *_ in self._demos]

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
        last, file = None, None
        try:
            for at, group, length, late in self._demos:
                if at != last:
                    if file is not None:
                        file.close()
                    last, file = at, _opened(inside(self._root, at))
                rows = _member(_member(_member(file, "data", at), group, at), name, at)
                where = f"{self._root / at}, data/{group}/{name}"
                observed = name.startswith("obs/") or name == "robot_states"
                first, last_row = (0, length - late) if observed else (int(late), length)
                for start in range(first, last_row, BLOCK):
                    yield self._rows(name, rows, slice(start, min(start + BLOCK, last_row)), where)
        finally:
            if file is not None:
                file.close()

    def _rows(self, name: str, rows: Any, at: slice, where: str) -> np.ndarray:
        try:
            block = rows[at]
        except (OSError, RuntimeError, ValueError) as error:
            raise broken(where, error) from error
        return colour_rows(block, where) if self.fields[name].camera else vector_rows(block, where)


def _opened(file: Path) -> Any:
    import h5py

    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise broken(file, error) from error


def _member(group: Any, name: str, where: Any) -> Any:
    """A member of a group by a path of names, None if there is none. Raises ``UserError`` for links."""
    import h5py

    for part in name.split("/"):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise UserError(
                f"{where} has the link {group.name.rstrip('/')}/{part} to another place or file, which is not "
                "followed; copy what it points to into the file"
            )
        try:
            group = group[part]
        except (OSError, KeyError, RuntimeError) as error:
            raise broken(str(where), error) from error
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise UserError(
            f"{where} keeps {group.name} in external files, which are not read; copy it into the file (h5repack)"
        )
    return group


def _shapes(demo: Any, where: Any, prefix: str = "") -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """The data sets of a demonstration: ``name -> (shape, dtype)``; of its groups, ``obs`` alone is entered."""
    import h5py

    out: dict[str, tuple[tuple[int, ...], np.dtype]] = {}
    if not isinstance(demo, h5py.Group):
        return out
    for name in demo:  # names alone: items() would follow links
        member = _member(demo, name, where)
        if isinstance(member, h5py.Dataset):
            out[prefix + name] = (tuple(member.shape or ()), member.dtype)
        elif name == "obs" and not prefix:
            out |= _shapes(member, where, "obs/")
    return out


def _late(demo: Any, shapes: dict[str, tuple[tuple[int, ...], np.dtype]], libero: bool, place: str) -> bool:
    """Whether observation t was taken after action t: by the joints in ``states``, else by whose script it was."""
    joints, states = (shapes.get(n, ((), None))[0] for n in (JOINTS, "states"))
    if len(joints) == len(states) == 2 and joints[1] == 7 and states[1] > 7 and joints[0] == states[0] > 1:
        try:
            seen, recorded = demo[JOINTS][:], demo["states"][:, 1:8]
        except (OSError, RuntimeError, ValueError) as error:
            raise broken(place, error) from error
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
    task: Any = problem.get("language_instruction")
    if isinstance(task, list):  # some files hold its letters
        task = "".join(map(str, task))
    task = task or args.get("env_name")
    if not isinstance(task, str) or not task.strip('" '):
        task = where.stem.removesuffix("_demo")
    options = args.get("env_kwargs")
    rate = options.get("control_freq") if isinstance(options, dict) else None
    if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not rate > 0:
        return task.strip('" '), None
    return task.strip('" '), float(rate)


def _attribute(data: Any, name: str, where: Path) -> dict[str, Any]:
    text = data.attrs.get(name)
    if not isinstance(text, (str, bytes)):
        return {}
    value = parse_json(text, f"{where}, attribute {name}")
    return value if isinstance(value, dict) else {}


def _natural(name: str) -> list[Any]:
    """``demo_2`` before ``demo_10``."""
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]
