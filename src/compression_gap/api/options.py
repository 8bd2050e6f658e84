"""Options that several verbs share, and the sentences that refuse what they cannot be."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import UserError

if TYPE_CHECKING:
    from ..store.engine import Engine

SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, kw_only=True)
class Running:
    """Who builds, with how much of the machine, and for how long."""

    processes: int | None = None
    """worker processes; as many as cores by default, 0 for this process alone."""
    devices: str | None = None
    """GPUs to use, as in 0,1; by default all that there are."""
    engine: Literal["local", "ray"] = "local"
    """this machine, or a Ray cluster."""
    address: str | None = None
    """of the Ray cluster, as in auto or HOST:6379; without one, Ray is started on this machine."""
    budget: str | None = None
    """stop cleanly after this time, as in 90s, 9m or 2h."""

    def make_engine(self) -> Engine:
        """The engine that is asked for. Raises ``UserError`` for options that do not go together."""
        if self.engine == "ray":
            for name, value in (("processes", self.processes), ("devices", self.devices)):
                if value is not None:
                    raise UserError(f"--{name} is the local engine's; Ray takes what its nodes offer")
            from ..store.ray import OnRay
            from .devices import choose_renderer

            return OnRay(self.address, choose_renderer)
        if self.address is not None:
            raise UserError("--address is that of a Ray cluster: give --engine ray, too")
        from ..store.engine import InProcess
        from ..store.workers import Workers
        from .devices import environments

        return Workers(self.workers, environments(self.devices)) if self.workers else InProcess()

    @property
    def workers(self) -> int:
        """How many workers: as asked, or as many as there are cores."""
        if self.processes is not None and self.processes < 0:
            raise UserError(f"--processes {self.processes} is negative; give 0 (this process alone) or more")
        return (os.cpu_count() or 1) if self.processes is None else self.processes

    @property
    def seconds(self) -> float | None:
        """The budget: "90s", "9m" or "2h" in seconds; None without one."""
        if self.budget is None:
            return None
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", self.budget.strip())
        if not match:
            raise UserError(f"--budget '{self.budget}' is not a time; write it as 90s, 9m or 2h")
        return float(match[1]) * SECONDS[match[2]]


@dataclass(frozen=True)
class PolicyOptions:
    """Which policy, and how it is spoken to."""

    binding: str | None = None
    """of a served policy: openpi-libero, vla-eval-libero, or a YAML file; one of cgap serve needs none."""
    timeout: float = 60.0
    """seconds to wait for a served policy's answer; the first may take 15 minutes."""


def at_least(least: int, **given: int | None) -> None:
    """Refuse options below their least value."""
    for name, value in given.items():
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value} is too small; give {least} or more")


def check_sigma(sigma: float | None) -> None:
    """Refuse a resolution that is none."""
    if sigma is not None and not 0 < sigma < float("inf"):
        raise UserError(f"--sigma {sigma} is no resolution; give standard deviations above 0")


def can_film() -> bool:
    """Whether videos can be made; if not, say what they need."""
    there = find_spec("av") is not None
    if not there:
        print('cgap: no videos: they need PyAV (pip install "compression-gap[metaworld]")', file=sys.stderr)
    return there


def folder_of(path: Path) -> Path:
    """Make a folder that the user named."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {path} ({error.strerror}); name another one") from error
    return path
