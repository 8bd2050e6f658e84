"""Simulators by name: the ones that are built in, and those of other packages' entry points.

An entry point of the group ``compression_gap.sims`` names a class that is made from a ``SimSpec``, has the
methods of ``Sim`` and a static method ``describe(spec) -> SimInfo`` that makes no environment, and has
``TASKS`` (all its tasks) and, if it likes, ``SUITES`` (name -> tasks) as attributes of its module, or a function
``resolve(wanted) -> tasks`` of its own for what a study writes after the slash.
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from typing import Any, Literal

from ..errors import UserError, unknown_name
from .base import Sim, SimInfo, SimSpec

ENTRY_POINTS = "compression_gap.sims"
MOST_NAMED = 60  # tasks that an error lists
_BUILT_IN = {
    "channel": ("compression_gap.sims.channel", "Channel"),
    "libero": ("compression_gap.sims.libero", "Libero"),
    "metaworld": ("compression_gap.sims.metaworld", "MetaWorld"),
}


def make_sim(spec: SimSpec) -> Sim:
    """A new simulator. Raises ``UserError`` for an unknown simulator, task or camera."""
    made: Sim = _sim_class(spec.sim)(spec)
    return made


def sim_info(spec: SimSpec) -> SimInfo:
    """Sizes, limits and versions; cheap, no environment is made. Raises as ``make_sim`` does."""
    info: SimInfo = _sim_class(spec.sim).describe(spec)
    return info


def default_rendering(name: str) -> Literal["fast", "default"]:
    """How a simulator is drawn where nothing else is asked for: as its reported scores are measured."""
    rendering: Literal["fast", "default"] = getattr(
        sys.modules[_sim_class(name).__module__], "RENDERING", "fast"
    )
    return rendering


def suite(name: str) -> tuple[str, tuple[str, ...]]:
    """A suite's simulator and tasks: "metaworld/precision-4", "metaworld/push,hammer", "channel".

    Raises ``UserError`` for an unknown name, with the list of those that are known.
    """
    sim, _, wanted = name.partition("/")
    if not sim:
        raise unknown_name("suite", name, simulators())
    module = sys.modules[_sim_class(sim).__module__]
    tasks: tuple[str, ...] = tuple(module.TASKS)
    suites: dict[str, tuple[str, ...]] = getattr(module, "SUITES", {})
    if not wanted:
        if len(tasks) > 1:
            named = (*suites, *tasks) if len(tasks) <= MOST_NAMED else tuple(suites)
            raise unknown_name("suite", name, [f"{sim}/{k}" for k in named])
        return sim, tasks
    if hasattr(module, "resolve"):
        return sim, _once(name, module.resolve(wanted))
    if wanted in suites:
        return sim, suites[wanted]
    short = {t.removesuffix("-v3"): t for t in tasks}
    canonical = {**{t: t for t in tasks}, **short}
    known = [f"{sim}/{k}" for k in (*suites, *short)]
    found = []
    for part in wanted.split(","):
        if part not in canonical:
            raise unknown_name("suite or task", f"{sim}/{part}", known)
        found.append(canonical[part])
    return sim, _once(name, tuple(found))


def _once(name: str, tasks: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(tasks)) < len(tasks):
        raise UserError(f"the suite '{name}' names a task twice: name each once")
    return tasks


def simulators() -> tuple[str, ...]:
    """All names that are known."""
    return (*_BUILT_IN, *(e.name for e in metadata.entry_points(group=ENTRY_POINTS)))


def _sim_class(name: str) -> Any:
    if name in _BUILT_IN:
        module, attribute = _BUILT_IN[name]
        return getattr(import_module(module), attribute)
    for entry in metadata.entry_points(group=ENTRY_POINTS):
        if entry.name == name:
            return entry.load()
    raise unknown_name("simulator", name, simulators())
