"""The training loop of policies and tokenizers: AdamW, warm-up, clip, EMA, checkpoints, no loader processes.

Every random draw of a step comes from (seed, step): sampled rows, noise, crops, dropout. A run that was
stopped and resumed from its checkpoint therefore ends with the same bits as one that was not.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import Interrupted, UserError
from ..records import read_json
from .convergence import Convergence, convergence
from .ema import EMA
from .ranks import ALONE, Ranks

PARTS = 100  # purposes of ``step_seed`` from here on are those of a batch's parts


class Diverged(UserError):
    """The loss became NaN or infinite: the cell ends with this record."""

    failure = "diverged"


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: learning rate per parameter group, warm-up, decay, validation points."""

    steps: int
    batch_size: int
    lr: float
    encoder_lr: float = 1e-4
    warmup: int = 100
    weight_decay: float = 1e-4
    schedule: str = "cosine"  # or "constant"
    validations: int = 10
    clip: float = 1.0
    betas: tuple[float, float] = (0.9, 0.95)
    # Parts of a batch, each with its own noise; on as many devices, if they are there (``Ranks``)
    devices: int = 1

    def factor(self, step: int) -> float:
        """The learning rate's factor at optimizer step ``step`` (from 0)."""
        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.schedule == "constant":
            return warm
        return warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))


@dataclass
class Curve:
    """What the training reported: one entry per validation."""

    step: list[int] = field(default_factory=list)
    train: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def convergence(self) -> Convergence:
        """How the training ended: converged, still falling, overfit, or too short to say."""
        return convergence(self.validation)

    def converged(self) -> bool:
        """Whether it neither still fell nor had overfitted."""
        return self.convergence() == "converged"


Loss = Callable[[nn.Module, Tensor, torch.Generator], Tensor]  # (module, rows [B], rng) → loss per sample [B]


def step_seed(seed: int, step: int, purpose: int = 0) -> int:
    """A 63-bit seed for one step of one run; ``purpose`` keeps training and validation apart."""
    return int(
        np.random.SeedSequence([seed, step, purpose]).generate_state(2, np.uint32).view(np.uint64)[0] >> 1
    )


def train(
    module: nn.Module,
    loss: Loss,
    rows: int,
    validation_rows: int,
    schedule: Schedule,
    *,
    validation_loss: Loss,
    seed: int,
    device: torch.device,
    encoder_parameters: Sequence[nn.Parameter] = (),
    work: Path | None = None,
    checkpoint_seconds: float = 60.0,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    keep_at: Collection[int] = (),
    keep: Callable[[int, nn.Module], None] = lambda step, average: None,
    ranks: Ranks = ALONE,
) -> tuple[nn.Module, Curve]:
    """Train ``module`` in place on rows 0 … ``rows`` − 1; returns the averaged module and the curve.

    Of several processes (``ranks``) each takes a part of every batch; the first one alone validates and writes.

    ``keep`` is given the averaged module, not to be changed, after each of the steps ``keep_at``; of a training that
    is resumed, those after its checkpoint.

    Raises ``Interrupted`` after saving a checkpoint when ``should_stop()``, ``Diverged`` on a bad loss.
    """
    slow = {id(p) for p in encoder_parameters}
    groups = [
        {"params": [p for p in module.parameters() if id(p) not in slow], "base": schedule.lr},
        {"params": list(encoder_parameters), "base": schedule.encoder_lr},
    ]
    optimizer = torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=schedule.lr,
        betas=schedule.betas,
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    parameters, first_rank = list(module.parameters()), ranks.rank == 0
    ema, curve, first, spent = EMA(module), Curve(), 0, 0.0
    if work is not None and (work / "checkpoint.json").exists():
        first, spent = _resume(work, module, ema, optimizer, curve)
    check_every = max(1, schedule.steps // schedule.validations)
    begun = saved = time.monotonic()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
    rng = torch.Generator(device)
    for step in range(first, schedule.steps):
        rng.manual_seed(step_seed(seed, step))
        torch.manual_seed(step_seed(seed, step, 1))  # dropout
        batch = torch.randint(rows, (schedule.batch_size,), generator=rng, device=device)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * schedule.factor(step)
        module.train()
        optimizer.zero_grad(set_to_none=True)
        running = torch.zeros((), device=device)
        for part in ranks.own(schedule.devices):
            if schedule.devices > 1:
                rng.manual_seed(step_seed(seed, step, PARTS + 2 * part))
                torch.manual_seed(step_seed(seed, step, PARTS + 2 * part + 1))
            with autocast:
                value = loss(module, batch[part :: schedule.devices], rng).mean()
            (value * (ranks.world / schedule.devices)).backward()
            running += value.detach() * (ranks.world / schedule.devices)
        last, done = step + 1 == schedule.steps, step + 1
        running, stop = ranks.averaged(parameters, running, not last and should_stop())
        nn.utils.clip_grad_norm_(module.parameters(), schedule.clip)
        optimizer.step()
        ema.update(module, done)
        save = first_rank and work is not None and (stop or time.monotonic() - saved > checkpoint_seconds)
        validate = first_rank and (last or done % check_every == 0)
        # Looking at the loss waits for a GPU, so not at every step; but nothing bad is ever written down.
        if done % 20 == 0 or validate or save or done in keep_at:
            progress(done, schedule.steps)
            if not math.isfinite(running.item()):
                raise Diverged(
                    f"the training diverged at step {done} of {schedule.steps} (loss {running.item()}, "
                    f"last validation losses {curve.validation[-3:]}): lower the learning rate"
                )
        if validate:
            curve.step.append(done)
            curve.train.append(float(running))
            curve.validation.append(_validate(ema.average, validation_loss, validation_rows, seed, device))
            curve.seconds.append(spent + time.monotonic() - begun)
        if done in keep_at and first_rank:
            keep(done, ema.average)
        if save:
            assert work is not None
            _save(work, module, ema, optimizer, curve, done, spent + time.monotonic() - begun)
            saved = time.monotonic()
        if stop:
            raise Interrupted
    return ema.average, curve


@torch.no_grad()
def _validate(module: nn.Module, loss: Loss, rows: int, seed: int, device: torch.device) -> float:
    """Mean loss over at most 1,024 rows, the same rows and the same noise every time and for every seed."""
    at = (
        torch.arange(rows, device=device)
        if rows <= 1024
        else torch.linspace(0, rows - 1, 1024).long().to(device)
    )
    rng = torch.Generator(device).manual_seed(step_seed(0, 0, 2))
    return float(torch.cat([loss(module, part, rng).float() for part in at.split(256)]).mean())


def _tensors(module: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    out = {f"module.{n}": t for n, t in module.state_dict().items()}
    out |= {f"ema.{n}": t for n, t in ema.average.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        out |= {f"optimizer.{i}.{n}": t for n, t in state.items()}
    return {n: t.detach().contiguous().clone() for n, t in out.items()}


def _save(
    work: Path,
    module: nn.Module,
    ema: EMA,
    optimizer: torch.optim.Optimizer,
    curve: Curve,
    step: int,
    seconds: float,
) -> None:
    """Tensors first, under a name of their own; the JSON that names them is what makes them count."""
    name = f"checkpoint-{step}.safetensors"
    save_file(_tensors(module, ema, optimizer), work / name)
    scratch = work / "checkpoint.json.tmp"
    scratch.write_text(
        json.dumps({"step": step, "seconds": seconds, "file": name, "curve": asdict(curve)}, allow_nan=False)
    )
    os.replace(scratch, work / "checkpoint.json")
    for old in work.glob("checkpoint-*.safetensors"):
        if old.name != name:
            old.unlink()


def _resume(
    work: Path, module: nn.Module, ema: EMA, optimizer: torch.optim.Optimizer, curve: Curve
) -> tuple[int, float]:
    """Put a checkpoint back; returns its step and the seconds that had been spent until then."""
    about: dict[str, Any] = read_json(work / "checkpoint.json")
    tensors = load_file(work / about["file"])

    def part(prefix: str) -> dict[str, Tensor]:
        return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}

    module.load_state_dict(part("module."))
    ema.average.load_state_dict(part("ema."))
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for name, tensor in part("optimizer.").items():
        index, field_name = name.split(".", 1)
        like = parameters[int(index)]
        if (
            tensor.shape == like.shape
        ):  # the fused step walks memory: moments must lie as their parameter does
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(index), {})[field_name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    for name, values in about["curve"].items():
        setattr(curve, name, values)
    return int(about["step"]), float(about["seconds"])
