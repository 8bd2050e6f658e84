"""``cgap doctor``: whether this machine can run the program, and what to do where it cannot."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .errors import UserError


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, whether it will do, and what to do if not."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def checks(store: Path) -> list[Check]:
    """All checks, in the order in which problems should be mended."""
    return [_python(), _torch(), _cores(), _memory(), _disk(store), _rendering()]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, sys.version.split()[0], "" if ok else "install Python 3.11 or newer")


def _torch() -> Check:
    try:
        import torch
    except ImportError as error:
        return Check(
            "torch", False, str(error), "pip install 'torch>=2.7' (a CPU build first, without a GPU)"
        )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU only: sizes xs and S"
    return Check("torch", True, f"{torch.__version__}, {device}")


def _cores() -> Check:
    cores = os.cpu_count() or 1
    return Check("cores", True, str(cores), "" if cores > 1 else "one core: expect the demo to take an hour")


def _memory() -> Check:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Check("memory", gib >= 6, f"{gib:.0f} GiB", "" if gib >= 6 else "use --processes 1")


def _disk(store: Path) -> Check:
    place = next(p for p in (store.absolute(), *store.absolute().parents) if p.exists())
    gib = shutil.disk_usage(place).free / 2**30
    return Check(
        "disk", gib >= 3, f"{gib:.0f} GiB free at {place.name or place}",
        "" if gib >= 3 else "the demo writes about 1 GiB; choose another place with --store",
    )  # fmt: skip


def _rendering() -> Check:
    from .sims.metaworld import render_check

    try:
        renderer = render_check()
    except UserError as error:
        return Check("rendering", False, "no frame could be rendered", str(error))
    return Check("rendering", True, f"{renderer} (metaworld {metadata.version('metaworld')})")
