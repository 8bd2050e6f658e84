"""An error inside a simulator's packages, as a sentence: where, with which versions, and what to do."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import extras
from ..errors import UserError
from .base import SimSpec


class SimulatorError(UserError):
    """A simulator raised an error that this program does not know."""

    failure = "simulator"


@contextmanager
def simulating(spec: SimSpec, task: str, initial_state: int | str) -> Iterator[None]:
    """Turn an error of the simulator into a ``SimulatorError`` that names the episode; a ``UserError`` passes."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise SimulatorError(describe(spec.sim, task, initial_state, error)) from error


def describe(sim: str, task: str, initial_state: int | str, error: Exception) -> str:
    """The sentence: what failed where, and the remedy that the installed versions suggest."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f", {Path(last[0].filename).name} line {last[0].lineno}" if last else ""
    what = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}{where}"
    start = f"the simulator '{sim}' failed at {task}, initial state {initial_state} ({what})"
    if sim not in extras.names():
        return f"{start}: mend the package that provides it"
    found = extras.installed(sim)
    if found.missing:
        return f"{start}; {', '.join(found.missing)} is not installed: {extras.install(sim)}"
    if found.untested:
        return f"{start}; not a tested version: {found.untested_words()}: {extras.install(sim)}"
    versions = ", ".join(f"{package} {version}" for package, version in found.found.items())
    return f"{start}, with the tested versions {versions}: see what  cgap doctor  says, and the log for the traceback"
