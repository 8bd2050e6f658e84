"""The summary of a study of recordings: chunk errors with intervals, Δ_enc, probes, tokenizers, bits. JSON values.

Errors are mean squared errors in standard deviations²: each held-out episode counts the same within its task, and
each task the same. Rows [seeds, episodes] go into the same variance components as success, with no upper bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import __version__
from ..artifacts.error import EpisodeErrors
from ..encoders.registry import is_limit
from ..errors import UserError
from ..statistics import intervals as statistics
from ..statistics.variance import ERRORS
from ..store.store import Store
from ..study.offline import OfflineCell, OfflinePlan, Predictor
from .evidence import code_words, conditioning_words
from .summary import code_levels, fixed_fits, machine, probes, tokenizers, trained
from .versions import version_words

CAUTION = (
    "A chunk error is no success rate: it says how near sampled chunks come to demonstrated ones on held-out "
    "recordings, not what the robot would do. Which stage binds on the robot is not decided by it."
)


@dataclass(frozen=True, eq=False)
class _Group:
    """The replicates of one cell that have been measured."""

    cells: tuple[OfflineCell, ...]
    seeds: tuple[int, ...]
    errors: tuple[EpisodeErrors, ...]  # of each seed

    @property
    def head(self) -> OfflineCell:
        return self.cells[0]

    def rows(self, name: str = "whole") -> np.ndarray:
        """Errors [seeds, episodes]."""
        return np.stack([getattr(e, name) for e in self.errors])


def summarise_offline(plan: OfflinePlan, store: Store) -> dict[str, Any]:
    """Everything the report and the terminal show. Raises ``UserError`` if nothing was measured yet."""
    groups = _groups(plan, store)
    if not any(g.errors for g in groups):
        raise UserError(f"the study '{plan.study.name}' has no results yet; run it first: cgap study run")
    first = next(g.errors[0] for g in groups if g.errors)
    contrasts = _contrasts(plan, groups, first.task)
    recordings = plan.recordings
    return {
        "study": plan.study.model_dump(mode="json"),
        "version": __version__,
        "tasks": list(plan.tasks),
        "recordings": {
            "sets": [d.key for d in recordings.demos],
            "source": recordings.sim,
            "cameras": list(recordings.cameras),
            "image_size": recordings.image_size,
            "action_dim": recordings.action_dim,
            "proprio_dim": recordings.proprio_dim,
            "true_state_dim": recordings.state_dim,
            "episodes": recordings.episodes,
            "frames": recordings.frames,
        },
        "held_out": {
            "episodes": len(first.episode),
            "points": first.points,
            "execute": plan.execute,
        },
        "encoders": list(plan.encoders),
        "fixed": fixed_fits(plan.study),
        "headline": [CAUTION, *_findings(plan, contrasts)],
        "cells": [_cell(plan, store, g) for g in groups],
        "references": [r for p in plan.predictors if (r := _reference(plan, p, store)) is not None],
        "contrasts": contrasts,
        "probes": probes(plan.probes, store),
        "tokenizers": tokenizers(plan, store),
        "ledger": _ledger(plan, store),
        "machine": machine(plan.cells, store),
        "version_words": version_words(plan, store, plan.recordings.demos),
    }


def _groups(plan: OfflinePlan, store: Store) -> list[_Group]:
    by_levels: dict[tuple[Any, ...], list[OfflineCell]] = {}
    for cell in plan.cells:
        by_levels.setdefault(cell.levels, []).append(cell)
    out = []
    for cells in by_levels.values():
        there = [c for c in cells if store.has(c.error)]
        errors = tuple(c.error.load(store) for c in there)
        out.append(_Group(tuple(cells), tuple(c.seed for c in there), errors))
    found = [e for g in out for e in g.errors]
    if any(not np.array_equal(e.episode, found[0].episode) for e in found):
        raise ValueError("the errors of a study are not of the same held-out episodes")
    return out


def _interval(rows: np.ndarray, task: np.ndarray) -> dict[str, Any]:
    """The mean of errors [seeds, episodes] and its interval; none from a single held-out episode."""
    found = statistics.contrast([rows], [1], task, outcomes=ERRORS)
    span = {n: getattr(found, n) for n in ("value", "low", "high", "method", "seed_variance_unknown")}
    if rows.shape[1] < 2:
        span |= {"low": None, "high": None, "method": "no interval: one held-out episode"}
    return span


def _root_mean_square(errors: Sequence[EpisodeErrors]) -> list[float]:
    """Of each action dimension, in raw units; episodes, tasks and seeds weigh as in the error."""
    task = errors[0].task
    mean = np.mean([e.raw for e in errors], axis=0)
    of_tasks = [mean[task == t].mean(0) for t in np.unique(task)]
    return [float(v) for v in np.sqrt(np.mean(of_tasks, axis=0))]


def _per_task(plan: OfflinePlan, rows: np.ndarray, task: np.ndarray) -> list[dict[str, Any]]:
    out = []
    for i, name in enumerate(plan.tasks):
        own = rows[:, task == i]
        if own.shape[1]:
            out.append({"task": name, "episodes": own.shape[1], **_interval(own, task[task == i])})
    return out


def _measured(plan: OfflinePlan, errors: Sequence[EpisodeErrors]) -> dict[str, Any]:
    """What is shown of the errors of one cell's seeds, or of one predictor."""
    task = errors[0].task
    whole, executed = (np.stack([getattr(e, n) for e in errors]) for n in ("whole", "executed"))
    return {
        "error": _interval(whole, task),
        "executed_error": _interval(executed, task),
        "rmse": _root_mean_square(errors),
        "per_task": _per_task(plan, whole, task),
    }


NOTHING = {"error": None, "executed_error": None, "rmse": None, "per_task": None}


def label(cell: OfflineCell, plan: OfflinePlan) -> str:
    """A cell's levels in words; factors with one level are left out."""
    return " · ".join([cell.action, cell.encoder, *_varied(cell, plan)])


def _varied(cell: OfflineCell, plan: OfflinePlan) -> list[str]:
    sizes = [cell.size] if len(plan.study.factors.size) > 1 else []
    return sizes + code_words(cell.code, plan.study) + conditioning_words(cell.task, plan.study)


def _cell(plan: OfflinePlan, store: Store, group: _Group) -> dict[str, Any]:
    cell, errors = group.head, group.errors
    seeds = [float(_interval(row[None], errors[0].task)["value"]) for row in group.rows()] if errors else None
    return {
        "label": label(cell, plan),
        "encoder": cell.encoder,
        "action": cell.action,
        "size": cell.size,
        "task": cell.task,
        **code_levels(cell.code),
        "trained_on": "chunk",
        "executed": "chunk",
        "seeds": list(group.seeds),
        **(_measured(plan, errors) if errors else NOTHING),
        "per_seed": seeds,
        "decode_failures": float(np.mean([e.decode_failures for e in errors])) if errors else None,
        **trained(group.cells, store),
    }


def _reference(plan: OfflinePlan, predictor: Predictor, store: Store) -> dict[str, Any] | None:
    there = {seed: run for seed, run in predictor.runs.items() if store.has(run)}
    if not there:
        return None
    words = {"mean": "the mean action", "last": "the last action, repeated"}
    name = words.get(predictor.name, "")
    if predictor.code is not None:
        name = " · ".join([f"the demonstrated chunk through {predictor.code.tokenizer}",
                           *code_words(predictor.code, plan.study)])  # fmt: skip
    return {
        "label": name,
        "predictor": predictor.name,
        **code_levels(predictor.code),
        "fitted_seeds": [seed for seed in there if seed is not None],
        **_measured(plan, [e.load(store) for e in there.values()]),
    }


def _contrasts(plan: OfflinePlan, groups: Sequence[_Group], task: np.ndarray) -> list[dict[str, Any]]:
    """Δ_enc under each head: neighbours on the ladder, its ends, and the last encoder that is no limit against blind.

    Below 0 the better encoder errs less.

    Never between heads: see ``chunk_error``. Holm over all.
    """
    if len(task) < 2:
        return []
    ladders: dict[tuple[Any, ...], list[_Group]] = {}
    for g in groups:
        if g.errors:
            ladders.setdefault(g.head.others, []).append(g)
    out: list[dict[str, Any]] = []
    for ladder in ladders.values():
        ladder.sort(key=lambda g: plan.encoders.index(g.head.encoder))
        pairs = list(itertools.pairwise(ladder))
        own = [g for g in ladder if not is_limit(g.head.encoder)]
        ends = [(ladder[0], ladder[-1])] + [(ladder[0], g) for g in own[-1:]]
        pairs += [p for p in ends if p[0] is not p[1] and p not in pairs]
        for low, high in dict.fromkeys(pairs):
            found = statistics.contrast([high.rows(), low.rows()], [1, -1], task, outcomes=ERRORS)
            rest = " · ".join([low.head.action, *_varied(low.head, plan)])
            out.append(
                {
                    "kind": "delta_enc",
                    "label": f"Δ_enc {high.head.encoder} − {low.head.encoder} · {rest}",
                    "under": rest,
                    "encoders": [low.head.encoder, high.head.encoder],
                    **asdict(found),
                }
            )
    for row, adjusted in zip(out, statistics.holm([r["p"] for r in out]), strict=True):
        row["p_holm"] = adjusted
    return out


def _findings(plan: OfflinePlan, contrasts: Sequence[dict[str, Any]]) -> list[str]:
    """What the best encoder of the file changes against the one that sees nothing, one sentence a head."""
    own = [e for e in plan.encoders if not is_limit(e)]
    out = []
    for c in contrasts:
        if own and c["encoders"] == ["blind", own[-1]]:
            span = f"{c['value']:+.3g} [{c['low']:+.2g}, {c['high']:+.2g}]".replace("-", "−")
            stands = "is not separated from none" if c["low"] <= 0 <= c["high"] else "stands"
            out.append(
                f"Under {c['under']}, seeing with {own[-1]} in place of nothing changes the held-out chunk error by "
                f"{span} standard deviations², which {stands}."
            )
    return out


def _ledger(plan: OfflinePlan, store: Store) -> dict[str, Any] | None:
    """Bits; None without a ledger section, or while a part is missing."""
    from .information import read_ledger

    if plan.ledger is None or not all(store.has(r) for r in plan.ledger.wanted):
        return None
    return read_ledger(plan.ledger, store)
