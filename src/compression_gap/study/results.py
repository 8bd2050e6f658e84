"""From episode rows to the summary of a study: rates, contrasts, waterfalls, verdicts. All JSON values.

An evidence row is one episode. Rows are unique in (actor, protocol, task, initial state, repeat); a set of
rows that is not, or that was measured under another protocol, is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import __version__
from ..artifacts import Recipe, Store
from ..errors import UserError
from . import statistics
from .engine import failure_file
from .plan import ACTIONS, Cell, Plan, Reference
from .verdict import locate


@dataclass(frozen=True)
class Group:
    """The replicates of one cell: the same levels, several training seeds."""

    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]  # those with evidence
    success: np.ndarray | None  # float [seeds, states]; None without evidence
    decode_failures: float | None  # share of decisions

    @property
    def head(self) -> Cell:
        """A cell that stands for the levels."""
        return self.cells[0]


def read_rows(plan: Plan, store: Store, recipe: Recipe) -> dict[str, np.ndarray] | None:
    """The verified rows of one ``episodes`` artefact by column, or None if it is not there yet."""
    import pyarrow.parquet as parquet

    if not store.has(recipe):
        return None
    table = parquet.read_table(store.open(recipe) / "episodes.parquet")
    rows = {name: np.asarray(table[name].to_pylist()) for name in table.column_names}
    if set(rows["protocol"]) != {plan.protocol.hash}:
        raise UserError(
            f"episodes {recipe.key} were measured under another protocol than {plan.protocol.hash}: "
            "rates of two protocols cannot be compared; run the study again"
        )
    return rows


def success_matrix(plan: Plan, rows: dict[str, np.ndarray]) -> np.ndarray:
    """Success per initial state [states], averaged over repeats, in the protocol's order."""
    values: dict[tuple[str, int], dict[int, float]] = {}
    for task, state, repeat, success in zip(
        rows["task"], rows["initial_state"], rows["repeat"], rows["success"], strict=True
    ):
        of_state = values.setdefault((str(task), int(state)), {})
        if int(repeat) in of_state:
            raise UserError(
                f"two rows for {task}, initial state {state}, repeat {repeat}: evidence counted twice"
            )
        of_state[int(repeat)] = float(success)
    states = [(t, s) for t in plan.tasks for s in plan.protocol.initial_states]
    if set(states) != set(values) or any(len(v) != plan.protocol.repeats for v in values.values()):
        raise UserError("the episode rows are not those of the protocol; run the study again")
    return np.array([np.mean(list(values[s].values())) for s in states])


def strata(plan: Plan) -> np.ndarray:
    """The task index of each initial state [states]."""
    return np.repeat(np.arange(len(plan.tasks)), plan.protocol.episodes_per_task)


def groups(plan: Plan, store: Store) -> list[Group]:
    """The cells of the factorial with their evidence, in the plan's order."""
    by_levels: dict[tuple, list[Cell]] = {}
    for cell in plan.cells:
        by_levels.setdefault(cell.levels, []).append(cell)
    out = []
    for cells in by_levels.values():
        found = [(c.seed, r) for c in cells if (r := read_rows(plan, store, c.episodes)) is not None]
        decisions = sum(int(r["decisions"].sum()) for _, r in found)
        failures = sum(int(r["decode_failures"].sum()) for _, r in found)
        out.append(
            Group(
                tuple(cells),
                tuple(seed for seed, _ in found),
                np.stack([success_matrix(plan, r) for _, r in found]) if found else None,
                failures / decisions if decisions else None,
            )
        )
    return out


def summarise(plan: Plan, store: Store) -> dict[str, Any]:
    """Everything the report and the terminal show. Raises ``UserError`` if nothing was measured yet."""
    found = groups(plan, store)
    references = [(r, read_rows(plan, store, r.episodes)) for r in plan.references]
    measured = [(r, success_matrix(plan, rows)) for r, rows in references if rows is not None]
    if all(g.success is None for g in found) and not measured:
        raise UserError(f"the study '{plan.study.name}' has no results yet; run it first: cgap study run")
    tasks = strata(plan)
    contrasts = _contrasts(plan, found, tasks)
    verdicts = _verdicts(plan, found, tasks)
    return {
        "study": plan.study.model_dump(mode="json"),
        "version": __version__,
        "tasks": list(plan.tasks),
        "protocol": {"hash": plan.protocol.hash, **plan.protocol.model_dump(mode="json")},
        "headline": _headline(plan, verdicts),
        "cells": [_cell(plan, store, g, tasks) for g in found],
        "references": [_reference(plan, r, s, tasks) for r, s in measured],
        "contrasts": contrasts,
        "trends": _trends(plan, found, tasks),
        "waterfalls": _waterfalls(plan, found, measured, tasks),
        "verdicts": verdicts,
        "tokenizers": _tokenizers(plan, store),
        "machine": _machine(plan, store),
    }


def label(cell: Cell, plan: Plan) -> str:
    """A cell's levels in words; factors with one level are left out."""
    factors = plan.study.factors
    parts = [cell.action, cell.encoder]
    if len(factors.size) > 1:
        parts.append(cell.size)
    if cell.codebook is not None and len(factors.codebook) > 1:
        parts.append(f"codebook {int(np.prod(cell.codebook))}")
    if cell.tokenizer_seed is not None and len(factors.tokenizer_seed) > 1:
        parts.append(f"tokenizer seed {cell.tokenizer_seed}")
    if len(factors.demos) > 1:
        parts.append(f"{cell.demos} demos")
    return " · ".join(parts)


def _rate(success: np.ndarray, tasks: np.ndarray) -> dict[str, Any]:
    return asdict(statistics.rate_interval(success, tasks))


def _per_task(plan: Plan, success: np.ndarray, tasks: np.ndarray) -> list[dict[str, Any]]:
    out = []
    for i, task in enumerate(plan.tasks):
        own = success[:, tasks == i]
        out.append({"task": task, **_rate(own, np.zeros(own.shape[1], int))})
    return out


def _cell(plan: Plan, store: Store, group: Group, tasks: np.ndarray) -> dict[str, Any]:
    cell = group.head
    metas = [store.manifest(c.policy)["meta"] for c in group.cells if store.has(c.policy)]
    failures = []
    for c in group.cells:
        file = failure_file(store, c.policy)
        if file.exists() and not store.has(c.policy):
            failures.append({"seed": c.seed, "record": file.read_text()})
    first = metas[0] if metas else None
    return {
        "label": label(cell, plan),
        "encoder": cell.encoder,
        "action": cell.action,
        "size": cell.size,
        "demos": cell.demos,
        "codebook": None if cell.codebook is None else list(cell.codebook),
        "tokenizer_seed": cell.tokenizer_seed,
        "seeds": list(group.seeds),
        "episodes": len(plan.protocol.episodes()),
        "rate": None if group.success is None else _rate(group.success, tasks),
        "per_seed": None
        if group.success is None
        else [float(np.mean([row[tasks == t].mean() for t in set(tasks)])) for row in group.success],
        "per_task": None if group.success is None else _per_task(plan, group.success, tasks),
        "decode_failures": group.decode_failures,
        "failures": failures,
        "converged": all(m["converged"] for m in metas) if metas else None,
        "parameters": first and first["parameters"],
        "flops": first and first["flops"],
        "latency_seconds": first and float(np.median([m["latency_seconds"] for m in metas])),
        "train_seconds": first and float(np.mean([m["train_seconds"] for m in metas])),
        "curves": [
            {"seed": c.seed, **store.manifest(c.policy)["meta"]["curve"]}
            for c in group.cells
            if store.has(c.policy)
        ],
        "policies": [str(store.path(c.policy)) for c in group.cells if store.has(c.policy)],
    }


def _reference(plan: Plan, r: Reference, success: np.ndarray, tasks: np.ndarray) -> dict[str, Any]:
    factors, name = plan.study.factors, r.actor
    if r.codebook is not None:
        which = [f"codebook {int(np.prod(r.codebook))}"] * (len(factors.codebook) > 1)
        which += [f"tokenizer seed {r.tokenizer_seed}"] * (len(factors.tokenizer_seed) > 1)
        which += [f"{r.demos} demos"] * (len(factors.demos) > 1)
        name += f" ({', '.join(which)})" if which else ""
    return {
        "label": name,
        "actor": r.actor,
        "codebook": None if r.codebook is None else list(r.codebook),
        "tokenizer_seed": r.tokenizer_seed,
        "demos": r.demos,
        "episodes": len(plan.protocol.episodes()),
        "rate": _rate(success[None], tasks),
        "per_task": _per_task(plan, success[None], tasks),
    }


def _rest(group: Group, plan: Plan) -> str:
    """A cell's label without its encoder."""
    return label(group.head, plan).replace(f" · {group.head.encoder}", "", 1)


def _others(group: Group) -> tuple:
    """The levels of a cell apart from its encoder."""
    return group.head.levels[1:]


def _ladders(plan: Plan, found: Sequence[Group]) -> list[list[Group]]:
    """Cells with evidence that differ in the encoder alone, in the order of the ladder."""
    out: dict[tuple, list[Group]] = {}
    order = {e: i for i, e in enumerate(plan.study.encoders)}
    for g in found:
        if g.success is not None:
            out.setdefault(_others(g), []).append(g)
    return [sorted(ladder, key=lambda g: order[g.head.encoder]) for ladder in out.values()]


def _pairs(ladder: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Neighbours on the ladder, and its two ends."""
    pairs = list(itertools.pairwise(ladder))
    return pairs if len(ladder) < 3 else [*pairs, (ladder[0], ladder[-1])]


def _evidence(g: Group) -> np.ndarray:
    assert g.success is not None
    return g.success


def _contrasts(plan: Plan, found: Sequence[Group], tasks: np.ndarray) -> list[dict[str, Any]]:
    """Δ_enc of every head and size, and the interaction of Δ_enc with the action; Holm over all of them."""
    out: list[dict[str, Any]] = []
    deltas: dict[tuple, list[tuple[Group, Group]]] = {}
    for ladder in _ladders(plan, found):
        for low, high in _pairs(ladder):
            c = statistics.contrast([_evidence(high), _evidence(low)], [1, -1], tasks)
            name = f"Δ_enc {high.head.encoder} − {low.head.encoder}"
            rest = _rest(low, plan)
            out.append(
                {"kind": "delta_enc", "label": f"{name} · {rest}", "action": low.head.action, **asdict(c)}
            )
            at = (low.head.encoder, high.head.encoder, low.head.size, low.head.demos)
            deltas.setdefault(at, []).append((low, high))
    for (low_name, high_name, *_), pairs in deltas.items():
        for one, two in itertools.combinations(pairs, 2):
            if one[0].head.action == two[0].head.action:
                continue
            cells = [_evidence(g) for g in (one[1], one[0], two[1], two[0])]
            c = statistics.contrast(cells, [1, -1, -1, 1], tasks)
            odds = statistics.interaction_log_odds([cells[:2], cells[2:]], tasks)
            name = f"Δ_enc({high_name} − {low_name}): {_rest(one[0], plan)} − {_rest(two[0], plan)}"
            out.append({"kind": "interaction", "label": name, **asdict(c), "log_odds": asdict(odds)})
    for row, adjusted in zip(out, statistics.holm([r["p"] for r in out]), strict=True):
        row["p_holm"] = adjusted
    return out


def _trends(plan: Plan, found: Sequence[Group], tasks: np.ndarray) -> list[dict[str, Any]]:
    """Page's trend along every ladder with three rungs or more and the same number of seeds."""
    out = []
    for ladder in _ladders(plan, found):
        if len(ladder) >= 3 and len({len(g.seeds) for g in ladder}) == 1:
            trend = statistics.page_trend([_evidence(g) for g in ladder], tasks)
            rest = _rest(ladder[0], plan)
            encoders = [g.head.encoder for g in ladder]
            out.append({"label": rest, "encoders": encoders, **asdict(trend)})
    return out


def _find(found: Sequence[Group], **levels: Any) -> Group | None:
    for g in found:
        if g.success is not None and all(getattr(g.head, k) == v for k, v in levels.items()):
            return g
    return None


def _levels_of(cell: Cell) -> dict[str, Any]:
    names = ("encoder", "action", "size", "demos", "codebook", "tokenizer_seed")
    return {n: getattr(cell, n) for n in names}


def _waterfalls(
    plan: Plan, found: Sequence[Group], measured: Sequence[tuple[Reference, np.ndarray]], tasks: np.ndarray
) -> list[dict[str, Any]]:
    """THEORY.md, section 5: signed differences from the expert down to the blind policy; nothing is clamped."""
    out = []
    for g in found:
        if g.success is None or g.head.encoder in ("blind", "oracle"):
            continue
        levels: list[tuple[str, np.ndarray]] = []
        for r, success in measured:
            fits = r.codebook is None or (
                (r.codebook, r.tokenizer_seed, r.demos)
                == (g.head.codebook, g.head.tokenizer_seed, g.head.demos)
            )
            if fits:
                levels.append((r.actor, success[None]))
        order = ["expert", "expert-chunked", "expert-coded"]
        levels.sort(key=lambda level: order.index(level[0]))
        own = _levels_of(g.head)
        for encoder in ("oracle", g.head.encoder, "blind"):
            policy = _find(found, **{**own, "encoder": encoder})
            if policy is not None:
                levels.append((f"{encoder} policy", _evidence(policy)))
        names = {"expert-chunked": "horizon", "expert-coded": "code", "oracle policy": "policy"}
        names |= {f"{g.head.encoder} policy": "encoder", "blind policy": "vision"}
        steps = []
        for (_, before), (name, after) in itertools.pairwise(levels):
            c = statistics.contrast([after, before], [1, -1], tasks)
            steps.append({"names": names[name], "to": name, **asdict(c)})
        out.append(
            {
                "label": label(g.head, plan),
                "action": g.head.action,
                "levels": [{"name": n, **_rate(s, tasks)} for n, s in levels],
                "steps": steps,
            }
        )
    return out


def _verdicts(plan: Plan, found: Sequence[Group], tasks: np.ndarray) -> list[dict[str, Any]]:
    """What binds each policy under test: relax one stage at a time and measure (THEORY.md, section 5)."""
    out = []
    sizes: list[str] = list(plan.study.factors.size)
    continuous = [a for a in plan.study.factors.action if ACTIONS[a][1] is None]
    for g in found:
        if g.success is None or g.head.encoder in ("blind", "oracle"):
            continue
        own = _levels_of(g.head)
        relaxed: dict[str, tuple[np.ndarray, str]] = {}
        free = {"codebook": None, "tokenizer_seed": None}
        if (oracle := _find(found, **{**own, "encoder": "oracle"})) is not None:
            relaxed["encoder"] = (_evidence(oracle), f"replacing {g.head.encoder} by the true state")
        joint = None
        if g.head.codebook is not None and continuous:
            swap = {**own, **free, "action": continuous[0]}
            if (open_code := _find(found, **swap)) is not None:
                what = f"replacing the codebook by continuous actions ({continuous[0]}, another head)"
                relaxed["code"] = (_evidence(open_code), what)
            both = _find(found, **{**swap, "encoder": "oracle"})
            joint = None if both is None else _evidence(both)
        larger = sizes.index(g.head.size) + 1
        if larger < len(sizes) and (bigger := _find(found, **{**own, "size": sizes[larger]})) is not None:
            relaxed["policy"] = (_evidence(bigger), f"growing the policy to size {sizes[larger]}")
        if relaxed:
            verdict = locate(g.success, relaxed, joint, tasks)
            out.append(
                {
                    "label": label(g.head, plan),
                    "encoder": g.head.encoder,
                    "action": g.head.action,
                    **asdict(verdict),
                }
            )
    return out


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
            chosen.setdefault(v["action"], v["sentence"])
    return [f"On {plan.study.suite} with {last} and {a}, {s}" for a, s in chosen.items()]


def _tokenizers(plan: Plan, store: Store) -> list[dict[str, Any]]:
    out = []
    for step in plan.steps.values():
        if step.recipe.kind == "tokenizer" and store.has(step.recipe):
            meta = store.manifest(step.recipe)["meta"]
            out.append(
                {
                    "label": step.label,
                    "capacity_bits": meta["capacity_bits"],
                    "distortion": meta["distortion"],
                    "converged": meta["training"]["converged"],
                    "train_seconds": meta["build_seconds"],
                }
            )
    return out


def _machine(plan: Plan, store: Store) -> dict[str, str]:
    for cell in plan.cells:
        if store.has(cell.policy):
            return dict(store.manifest(cell.policy)["meta"]["machine"])
    return {}
