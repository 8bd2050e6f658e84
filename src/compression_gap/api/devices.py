"""The GPUs of this machine: which a run uses, and what a process needs in its environment to use one of them."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError

VISIBLE, EGL = "CUDA_VISIBLE_DEVICES", "MUJOCO_EGL_DEVICE_ID"


def environments(asked: str | None) -> list[dict[str, str]]:
    """One environment for each GPU of ``--devices`` ("0,1", as this process counts them; None: all that there are).

    Empty without a GPU. Each names the GPU for CUDA and, by EGL's own number, for MuJoCo's renderer, unless the
    latter is set already. Raises ``UserError`` for a device that is not there.
    """
    names = _visible()
    if asked is None:
        chosen = list(range(len(names)))
    else:
        parts = [p.strip() for p in asked.split(",")]
        if not all(p.isdecimal() for p in parts):
            raise UserError(f"--devices '{asked}' is no list of devices; write it as 0,1")
        chosen = list(dict.fromkeys(map(int, parts)))
        if absent := [d for d in chosen if d >= len(names)]:
            there = (
                f"{len(names)} are there, counted from 0" if names else "there is no GPU that torch can use"
            )
            raise UserError(f"--devices {asked}: no device {absent[0]}; {there}")
    if len(chosen) < 2 and len(names) < 2:
        return [{VISIBLE: names[d]} for d in chosen]  # nothing to tell apart
    from ..sims.egl import egl_of_cuda

    known = {} if EGL in os.environ else egl_of_cuda()
    out = []
    for name in (names[d] for d in chosen):
        egl = known.get(int(name)) if name.isdecimal() else None
        out.append({VISIBLE: name} | ({} if egl is None else {EGL: str(egl)}))
    return out


def choose_renderer() -> None:
    """Let this process render on its own GPU; one of no GPU of its own, on one of the machine's, by its process number."""
    if EGL in os.environ:
        return
    from ..sims.egl import egl_of_cuda

    if known := egl_of_cuda():
        own = [
            known[int(n)] for n in os.environ.get(VISIBLE, "").split(",") if n.isdecimal() and int(n) in known
        ]
        choice = own or sorted(known.values())
        os.environ[EGL] = str(choice[os.getpid() % len(choice)])


def _visible() -> list[str]:
    """What CUDA calls the GPUs that this process may use: numbers of this machine, or names (UUIDs)."""
    given = os.environ.get(VISIBLE)
    if given is None and not _driver():
        return []  # without asking torch, whose import takes seconds
    import torch

    count = torch.cuda.device_count()
    names = [str(d) for d in range(count)] if given is None else [n.strip() for n in given.split(",")]
    return names[:count]


def _driver() -> bool:
    """Whether NVIDIA's driver is there."""
    return Path("/dev/nvidiactl").exists()
