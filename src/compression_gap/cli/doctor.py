"""``cgap doctor``: whether this machine can run the program, and what to do where it cannot."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .. import extras
from ..errors import UserError


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was found, whether it will do, and what to do if not."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def checks(store: Path) -> list[Check]:
    """All checks, in the order in which problems should be mended; an extra that is not there is no problem."""
    extra = [_extra(name) for name in extras.names()]
    first = [_python(), _packages(), _torch(), _cores(), _memory(), _disk(store), _rendering()]
    return [*first, *([_heads()] if all(c.ok for c in first[1:3]) else []), *extra]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("python", ok, sys.version.split()[0], "" if ok else "install Python 3.11 or newer")


def _packages() -> Check:
    program = extras.installed()
    words = program.untested_words()
    if program.missing:
        words = f"missing: {', '.join(program.missing)}"
    return Check(
        "packages", not words, words or f"{len(program.found)} in tested versions",
        f"pip install --upgrade {extras.DISTRIBUTION}" if words else "",
    )  # fmt: skip


def _extra(name: str) -> Check:
    """What one extra needs: all there, not installed (which is fine), or in versions that were not tested."""
    extra = extras.installed(name)
    if extra.untested:
        return Check(f"extra {name}", False, extra.untested_words(), extras.install(name))
    if extra.missing:
        return Check(
            f"extra {name}", True, f"not installed: {', '.join(extra.missing)}", extras.install(name)
        )
    return Check(f"extra {name}", True, ", ".join(f"{p} {v}" for p, v in extra.found.items()))


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


def _heads() -> Check:
    """Every head trains and samples on the device that is there; a new kind of device fails here, not in a study."""
    from ..costs.benchmark import head_speed
    from ..policies.registry import HEADS

    speeds = []
    for name, entry in HEADS.items():
        action = name if entry.continuous else {"autoregressive": "oat", "hybrid": "oat-hybrid"}.get(name)
        if action is None:
            continue  # of another package, over a tokenizer of its own
        try:
            speeds.append(head_speed(action))
        except Exception as error:  # whatever a driver raises
            return Check(
                "heads", False, f"{name}: {type(error).__name__}: {error}", "report it with this line"
            )
    words = [f"{s.action} {1000 * s.step_seconds:.0f} / {1000 * s.sample_seconds:.0f} ms" for s in speeds]
    return Check("heads", True, f"a training step / a sample: {', '.join(words)}")


def _rendering() -> Check:
    from ..sims.opengl import render_check

    mujoco = extras.version_of("mujoco")
    if mujoco is None:
        words = f"{extras.install('metaworld')}, or with [libero], for a simulator that renders"
        return Check("rendering", True, "MuJoCo is not installed", words)
    try:
        renderer = render_check()
    except UserError as error:
        return Check("rendering", False, "no frame could be rendered", str(error))
    return Check("rendering", True, f"{renderer} (mujoco {mujoco})")
