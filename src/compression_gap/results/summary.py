"""The summary of a study, from its evidence: what the report and the terminal show. All JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import __version__
from ..artifacts.probe import Probe
from ..artifacts.tokenizer import FittedTokenizer
from ..encoders.ladder import is_pose
from ..errors import UserError
from ..nn.convergence import convergence, end_of_fit, in_words
from ..statistics import intervals as statistics
from ..store.engine import failure_file
from ..store.graph import Graph
from ..store.store import Store
from ..study.actions import study_codes
from ..study.cells import Trained
from ..study.file import Study
from ..study.plan import Plan
from ..tokenizers.code import Code
from . import comparisons
from .evidence import Group, MeasuredReference, code_words, groups, label, measured_reference, rate, strata
from .published import published_beside
from .versions import version_words


def summarise(plan: Plan, store: Store) -> dict[str, Any]:
    """Everything the report and the terminal show. Raises ``UserError`` if nothing was measured yet."""
    found = groups(plan, store)
    measured = [m for r in plan.references if (m := measured_reference(plan, store, r)) is not None]
    if all(g.success is None for g in found) and not measured:
        raise UserError(f"the study '{plan.study.name}' has no results yet; run it first: cgap study run")
    tasks = strata(plan)
    # The controlled swap's mixed cells (trained with the code or executed with it) stand in its own tables.
    whole = [g for g in found if g.head.trained_on == "chunk" or g.head.executed == "snapped"]
    whole = [g for g in whole if g.head.trained_on == "coded" or g.head.executed == "chunk"]
    refused = comparisons.refusals(plan, whole, measured, tasks)
    verdicts = comparisons.verdicts(plan, whole, refused, tasks)
    contrasts = comparisons.contrasts(plan, whole, tasks)
    protocol = {"hash": plan.protocol.hash, **plan.protocol.model_dump(mode="json")}
    cells = [_cell(plan, store, g, tasks) for g in found]
    for v in verdicts:
        v["unconverged"] = _unconverged(v, cells)
    return {
        "study": plan.study.model_dump(mode="json"),
        "version": __version__,
        "tasks": list(plan.tasks),
        "protocol": protocol,
        "headline": _headline(plan, verdicts),
        "fixed": fixed_fits(plan.study),
        "selection": _selected(plan),
        "cells": cells,
        "references": [_reference(plan, m, tasks) for m in measured],
        "contrasts": contrasts,
        "trends": comparisons.trends(plan, whole, tasks),
        "refusals": refused,
        "waterfalls": comparisons.waterfalls(plan, whole, measured, refused, tasks),
        "verdicts": verdicts,
        "swaps": comparisons.swaps(plan, found, tasks),
        "tokenizers": tokenizers(plan, store),
        "probes": probes(plan.probes, store),
        "published": published_beside(plan.study, protocol, cells),
        "ledger": _ledger(plan, store, contrasts),
        "machine": machine(plan.cells, store),
        "version_words": version_words(plan, store),
    }


def probes(of: Mapping[str, Probe], store: Store) -> list[dict[str, Any]]:
    """What a linear reader recovers of the true state from each frozen encoder's features (``encoders.probe``)."""
    out = []
    for encoder, probe in of.items():
        if store.has(probe):
            found = store.meta(probe)
            if found["mean"] is None:  # nothing moves in these demonstrations
                continue
            out.append({"encoder": encoder, **{k: found[k] for k in ("mean", "tasks", "features")}})
    return out


def _ledger(plan: Plan, store: Store, contrasts: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Bits, and success predicted from them; None without a ledger section, or while a part is missing."""
    from .information import hypothesis, read_ledger

    if plan.ledger is None or not all(store.has(r) for r in plan.ledger.wanted):
        return None
    found = read_ledger(plan.ledger, store)
    most = max(plan.study.factors.demos)  # the demonstrations that the ledger is about
    own = [c for c in contrasts if c["kind"] == "delta_enc" and c["demos"] == most]
    return {**found, "hypothesis": hypothesis(found, own)}


def _per_task(plan: Plan, success: np.ndarray, tasks: np.ndarray) -> list[dict[str, Any]]:
    out = []
    for i, task in enumerate(plan.tasks):
        own = success[:, tasks == i]
        out.append({"task": task, **rate(own, np.zeros(own.shape[1], int))})
    return out


def _cell(plan: Plan, store: Store, group: Group, tasks: np.ndarray) -> dict[str, Any]:
    cell = group.head
    return {
        "label": label(cell, plan),
        "encoder": cell.encoder,
        "action": cell.representation,
        "size": cell.size,
        "demos": cell.demos,
        "task": cell.task,
        **code_levels(cell.code),
        "trained_on": cell.trained_on,
        "executed": cell.executed,
        "seeds": list(group.seeds),
        "episodes": len(plan.protocol.episodes()),
        "rate": None if group.success is None else rate(group.success, tasks),
        "per_seed": None
        if group.success is None
        else [float(np.mean([row[tasks == t].mean() for t in set(tasks)])) for row in group.success],
        "per_task": None if group.success is None else _per_task(plan, group.success, tasks),
        "decode_failures": group.decode_failures,
        "selection": _selection(plan, group),
        **trained(group.cells, store),
    }


def _selected(plan: Plan) -> dict[str, Any] | None:
    """Whether rates are peaks, in words for the report; None where they are of the final checkpoint."""
    rollout = plan.study.rollout
    if rollout.select == "final":
        return None
    return {"checkpoints": rollout.checkpoints, "mark": f"peak of {rollout.checkpoints} (optimistic)"}


def _selection(plan: Plan, group: Group) -> dict[str, Any] | None:
    """Success of every evaluated checkpoint, and which one counts; None where the final one alone is evaluated.

    ``optimism``: by how much the best of so many evaluations lies above the true rate by luck, if all checkpoints
    were as good as the final one and their evaluations independent (``statistics.peak_optimism``).
    """
    if group.by_step is None:
        return None
    last, final = group.head.policy.training["steps"], float(group.by_step[:, -1].mean())
    return {
        "select": plan.study.rollout.select,
        "steps": [*(step for step, _ in group.head.checkpoints), last],
        "rates": [[None if np.isnan(v) else float(v) for v in row] for row in group.by_step],
        "chosen": list(group.chosen),
        "final": final,
        "optimism": statistics.peak_optimism(len(plan.protocol.episodes()), group.by_step.shape[1], final),
    }


def trained(cells: Sequence[Trained], store: Store) -> dict[str, Any]:
    """What the trainings of one cell's replicates report: convergence, sizes, times, curves, failures."""
    there = [(c, store.meta(c.policy)) for c in cells if store.has(c.policy)]
    metas = [meta for _, meta in there]
    failures = []
    for c in cells:
        file = failure_file(store, c.policy)
        if file.exists() and not store.has(c.policy):
            failures.append({"seed": c.seed, "record": file.read_text()})
    first = metas[0] if metas else None
    return {
        "failures": failures,
        **training_ends([m["curve"] for m in metas]),
        "parameters": first and first["parameters"],
        "flops": first and first["flops"],
        "latency_seconds": first and float(np.median([m["latency_seconds"] for m in metas])),
        "train_seconds": first and float(np.mean([m["train_seconds"] for m in metas])),
        "curves": [{"seed": c.seed, **meta["curve"]} for c, meta in there],
        "policies": [str(store.path(c.policy)) for c, _ in there],
    }


def training_ends(curves: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How each training of a cell ended, in the seeds' order; ``converged``: whether all had, None without any."""
    ends = [convergence(c["validation"]) for c in curves]
    return {"convergence": ends, "converged": all(e == "converged" for e in ends) if ends else None}


def code_levels(code: Code | None) -> dict[str, Any]:
    """A code's levels as JSON values."""
    if code is None:
        return {"tokenizer": None, "codebook": None, "tokenizer_seed": None}
    codebook = None if code.codebook is None else [list(p) for p in code.codebook]
    return {"tokenizer": code.tokenizer, "codebook": codebook, "tokenizer_seed": code.seed}  # or "training"


def fixed_fits(study: Study) -> list[str]:
    """What was fitted once for all training seeds, a sentence each: no interval holds how that fit turned out."""
    out, factors = [], study.factors
    seeds = factors.tokenizer_seed
    if seeds != "training" and any(c.seed is not None for c in study_codes(study)):
        row = "in each row (tokenizer seeds are rows)" if len(seeds) > 1 else "for all training seeds"
        out.append(f"One fitted tokenizer {row}: its luck is in no interval.")
    if factors.encoder_seed != "training" and any(is_pose(e) for e in factors.encoder):
        out.append(
            f"One pretrained encoder of each name for all training seeds (seed {factors.encoder_seed}): its luck is in "
            "no interval."
        )
    return out


def _reference(plan: Plan, of: MeasuredReference, tasks: np.ndarray) -> dict[str, Any]:
    r, success = of.reference, of.success
    name = r.actor
    if r.code is not None:
        several = len({x.code.tokenizer for x in plan.references if x.code is not None}) > 1
        which = [r.code.tokenizer] * several + code_words(r.code, plan.study)
        which += [f"{r.demos} demos"] * (len(plan.study.factors.demos) > 1)
        name += f" ({', '.join(which)})" if which else ""
    return {
        "label": name,
        "actor": r.actor,
        **code_levels(r.code),
        "demos": r.demos,
        "fitted_seeds": list(of.seeds),
        "episodes": len(plan.protocol.episodes()),
        "rate": rate(success, tasks),
        "per_task": _per_task(plan, success, tasks),
    }


def _unconverged(verdict: dict[str, Any], cells: Sequence[dict[str, Any]]) -> dict[str, str]:
    """How the trainings ended that a verdict rests on, by cell; those that converged are left out."""
    wanted = (verdict["label"], *verdict["relaxed"].values())
    return {
        c["label"]: in_words(c["convergence"])
        for c in cells
        if c["label"] in wanted and c["converged"] is False
    }


def _headline(plan: Plan, verdicts: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence per action representation, for the best encoder of the file that is not a limit."""
    if not verdicts:
        return [
            "No stage could be relaxed: the study needs an encoder between blind and oracle, "
            "and evidence for the oracle policy."
        ]
    last = verdicts[-1]["encoder"]
    chosen: dict[str, str] = {}
    for v in verdicts:
        if v["encoder"] == last:
            ended = "; ".join(f"{name} ({how})" for name, how in v["unconverged"].items())
            chosen.setdefault(
                v["action"], v["sentence"] + (f" Trainings not converged: {ended}." if ended else "")
            )
    return [f"On {plan.study.suite} with {last} and {a}, {s}" for a, s in chosen.items()]


def tokenizers(plan: Graph, store: Store) -> list[dict[str, Any]]:
    """The fitted tokenizers of a graph: capacity, held-out distortion, convergence."""
    out = []
    for step in plan.steps.values():
        if isinstance(step, FittedTokenizer) and store.has(step):
            meta = store.meta(step)
            out.append(
                {
                    "label": step.label,
                    "capacity_bits": meta["capacity_bits"],
                    "distortion": meta["distortion"],
                    "convergence": end_of_fit(meta["training"]),
                    "train_seconds": meta["build_seconds"],
                }
            )
    return out


def machine(cells: Sequence[Trained], store: Store) -> dict[str, str]:
    """What the first policy that is there was trained on."""
    for cell in cells:
        if store.has(cell.policy):
            return dict(store.meta(cell.policy)["machine"])
    return {}
