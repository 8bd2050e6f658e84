"""A plan on the terminal: what would be built, and what it would cost."""

from __future__ import annotations

from collections.abc import Sequence

from ..api.study import PlanSummary
from ..costs.records import Estimate
from ..errors import counted
from ..report.format import count
from .terminal import console, new_table


def plan_table(plan: PlanSummary) -> None:
    """The plan by kind of artefact."""
    table = new_table(
        "artefact",
        "steps",
        "to build",
        "core-minutes",
        title=f"{plan.study}: {counted(plan.cells, 'cell')}",
    )
    for kind, row in plan.kinds.items():
        table.add_row(kind, str(row.steps), str(row.missing), f"{row.core_seconds / 60:.1f}")
    console.print(table)
    estimate_tables(plan.estimate)
    measured = f"protocol {plan.protocol}" if plan.protocol else "recordings: nothing is rolled out"
    console.print(f"tasks: {', '.join(plan.tasks)}; {measured}", markup=False)


def estimate_tables(found: Estimate) -> None:
    """What a plan would cost: policies by action and size over all encoders, encoders, bytes, hours."""
    table = new_table(
        "policy", "size", "trainings", "parameters", "FLOPs a decision", "FLOPs a training step"
    )
    for action, size in dict.fromkeys((p.action, p.size) for p in found.policies):
        own = [p for p in found.policies if (p.action, p.size) == (action, size)]
        rough = "~" if any(p.rough for p in own) else ""
        table.add_row(
            action,
            size,
            str(sum(p.trainings for p in own)),
            _between([None if p.parameters is None else p.parameters["total"] for p in own]),
            rough + _between([p.decision_flops for p in own]),
            rough + _between([p.step_flops for p in own]),
        )
    console.print(table)
    table = new_table("encoder", "features", "frozen", "trained, a camera", "FLOPs an image")
    for e in found.encoders:
        numbers = (e.feature_dim, e.frozen_parameters, e.trained_parameters, e.image_flops)
        table.add_row(e.encoder, *(_between([n]) for n in numbers))
    console.print(table)
    if absent := [e.encoder for e in found.encoders if e.absent]:
        words = "downloaded when the study runs, or given as folder:PATH"
        console.print(f"not on this machine yet: {', '.join(absent)} ({words})", markup=False)
    disk, frames = found.disk, found.frames
    parts = ", ".join(f"{name} {_bytes(n)}" for name, n in disk.items() if n)
    how = " (assumed: half the step limit each)" if frames.assumed else ""
    for line in (
        f"disk: {_bytes(sum(disk.values()))} ({parts}), of {counted(frames.count, 'frame')}{how}",
        f"memory of a training's device: {_bytes(found.device_memory)} of features or images, and the network",
        *_hours(found),
    ):
        console.print(line, markup=False)


def _hours(found: Estimate) -> list[str]:
    """What is left to do, in hours."""
    t, rolled = found.training, found.rollouts
    lines = []
    if (here := t.measured) and here.unmeasured < t.trainings:
        rest = (
            f"; {counted(here.unmeasured, 'training is', 'trainings are')} not measured"
            if here.unmeasured
            else ""
        )
        lines.append(
            f"training on this machine, from measured steps: {here.hours:.3g} h ({here.device}, "
            f"{counted(here.threads, 'thread')}{rest})"
        )
    else:
        lines.append("training on this machine: not measured; --measure runs a few steps of each policy")
    unknown = f", without {counted(t.unknown, 'training')} of unknown cost" if t.unknown else ""
    lines.append(
        f"training on a GPU: {t.gpu.hours:.3g} h for {counted(t.trainings, 'training')} and {t.flops:.2g} FLOPs"
        f"{unknown} ({t.gpu.assumption})"
    )
    lines.append(
        f"features of frozen encoders on that GPU: {found.features.gpu_hours:.2g} h "
        f"({found.features.flops:.2g} FLOPs)"
    )
    if rolled:
        lines.append(
            f"rollouts: {counted(rolled.episodes, 'episode')}, at most {rolled.core_hours:.3g} core-hours (assumed)"
        )
    return lines


def _between(values: Sequence[int | None]) -> str:
    """One number, or the least and the largest; of what is not known, that."""
    known = sorted({v for v in values if v is not None})
    if not known:
        return "unknown"
    words = (
        count(known[0]) if count(known[0]) == count(known[-1]) else f"{count(known[0])} to {count(known[-1])}"
    )
    return words + (" or unknown" if None in values else "")


def _bytes(value: float) -> str:
    return f"{count(value)}B" if value >= 1e3 else f"{value:.0f} B"
