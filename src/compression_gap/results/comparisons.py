"""Comparisons of cells: contrasts, trends, waterfalls, verdicts, the controlled swap. All JSON values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ..encoders.registry import is_limit
from ..statistics import intervals as statistics
from ..statistics.bottleneck import Verdict, locate
from ..study.plan import Cell, Plan, action_parts, study_codes
from ..tokenizers.code import code_names
from .evidence import (
    Group,
    MeasuredReference,
    code_words,
    conditioning_words,
    label,
    label_without_encoder,
    rate,
)


def _ladders(plan: Plan, found: Sequence[Group]) -> list[list[Group]]:
    """Cells with evidence that differ in the encoder alone, in the order of the ladder."""
    out: dict[tuple, list[Group]] = {}
    order = {e: i for i, e in enumerate(plan.study.encoders)}
    for g in found:
        if g.success is not None:
            out.setdefault(g.head.others, []).append(g)
    return [sorted(ladder, key=lambda g: order[g.head.encoder]) for ladder in out.values()]


def _pairs(ladder: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Neighbours on the ladder, and its two ends."""
    pairs = list(itertools.pairwise(ladder))
    return pairs if len(ladder) < 3 else [*pairs, (ladder[0], ladder[-1])]


def _evidence(g: Group) -> np.ndarray:
    assert g.success is not None
    return g.success


def contrasts(plan: Plan, found: Sequence[Group], tasks: np.ndarray) -> list[dict[str, Any]]:
    """Δ_enc of every head and size, and its interaction with the action representation; Holm over all of them.

    The interaction compares each representation with the first continuous one, and a head with its own code
    switched on (the controlled swap) with that head.
    """
    out: list[dict[str, Any]] = []
    names = code_names(study_codes(plan.study))
    deltas: dict[tuple, list[tuple[Group, Group]]] = {}
    for ladder in _ladders(plan, found):
        for low, high in _pairs(ladder):
            c = statistics.contrast([_evidence(high), _evidence(low)], [1, -1], tasks)
            name = f"Δ_enc {high.head.encoder} − {low.head.encoder} · {label_without_encoder(low.head, plan)}"
            # what a hybrid decodes gets a continuous offset: its bits do not all pass the code
            hybrid = action_parts(low.head.action)[0] == "hybrid"
            code = None if low.head.code is None or hybrid else names[low.head.code]
            row: dict[str, Any] = {
                "kind": "delta_enc",
                "label": name,
                "action": low.head.representation,
                "demos": low.head.demos,
                "code": code,
            }
            out.append({**row, "encoders": [low.head.encoder, high.head.encoder], **asdict(c)})
            at = (low.head.encoder, high.head.encoder, low.head.size, low.head.demos, low.head.task)
            deltas.setdefault(at, []).append((low, high))
    for (low_name, high_name, *_), pairs in deltas.items():
        continuous = [p[0].head.action for p in pairs if action_parts(p[0].head.action)[1] is None]
        reference = [*continuous, pairs[0][0].head.action][0]
        pairs.sort(key=lambda pair: pair[0].head.action != reference)
        for one, two in itertools.combinations(pairs, 2):
            if not _compared(one[0].head, two[0].head, reference):
                continue
            cells = [_evidence(g) for g in (one[1], one[0], two[1], two[0])]
            c = statistics.contrast(cells, [1, -1, -1, 1], tasks)
            odds = statistics.interaction_log_odds([cells[:2], cells[2:]], tasks)
            pair = f"{label_without_encoder(one[0].head, plan)} − {label_without_encoder(two[0].head, plan)}"
            name = f"Δ_enc({high_name} − {low_name}): {pair}"
            out.append({"kind": "interaction", "label": name, **asdict(c), "log_odds": asdict(odds)})
    for row, adjusted in zip(out, statistics.holm([r["p"] for r in out]), strict=True):
        row["p_holm"] = adjusted
    return out


def _compared(one: Cell, two: Cell, reference: str) -> bool:
    """Whether an interaction compares these two, ``one`` first in the order of the pairs."""
    if one.swapped or one.representation == two.representation:
        return False
    return one.action == two.action if two.swapped else one.action == reference


def trends(plan: Plan, found: Sequence[Group], tasks: np.ndarray) -> list[dict[str, Any]]:
    """Page's trend along every ladder with three rungs or more and the same number of seeds."""
    out = []
    for ladder in _ladders(plan, found):
        if len(ladder) >= 3 and len({len(g.seeds) for g in ladder}) == 1:
            trend = statistics.page_trend([_evidence(g) for g in ladder], tasks)
            rest = label_without_encoder(ladder[0].head, plan)
            encoders = [g.head.encoder for g in ladder]
            out.append({"label": rest, "encoders": encoders, **asdict(trend)})
    return out


def _find(found: Sequence[Group], **levels: Any) -> Group | None:
    for g in found:
        if g.success is not None and all(getattr(g.head, k) == v for k, v in levels.items()):
            return g
    return None


def _levels_of(cell: Cell) -> dict[str, Any]:
    names = ("encoder", "action", "trained_on", "executed", "size", "demos", "code", "task")
    return {n: getattr(cell, n) for n in names}


def _under_test(found: Sequence[Group]) -> list[Group]:
    """The cells between the limits, as far as they are measured."""
    return [g for g in found if g.success is not None and not is_limit(g.head.encoder)]


ORACLE = "oracle policy"
EXPERTS = ("expert", "expert-chunked", "expert-coded")
REMEDIES = {  # by the reference that lies below what it should bound
    "expert": "the scripted expert solves too little: choose tasks that it solves, or set 'references: false'",
    "expert-chunked": "the scripted expert's chunks fail too often: lower rollout.execute, or set 'references: false'",
    "expert-coded": "the code spoils the expert's chunks more than the policy's own: fit it longer (tokenizer.steps)",
    ORACLE: "train the oracle policy longer (training.steps) and judge again",
}


def _upper_levels(
    g: Group, found: Sequence[Group], measured: Sequence[MeasuredReference]
) -> list[tuple[str, np.ndarray]]:
    """The references above a cell under test, from the expert down to the oracle policy: outcomes [runs, states]."""
    levels: list[tuple[str, np.ndarray]] = []
    for of in measured:
        r = of.reference
        # A hybrid adds a continuous offset to what it decodes: the code is no stage that it goes through.
        hybrid = action_parts(g.head.action)[0] == "hybrid"
        if r.code is None or ((r.code, r.demos) == (g.head.code, g.head.demos) and not hybrid):
            levels.append((r.actor, of.success))
    levels.sort(key=lambda level: EXPERTS.index(level[0]))
    oracle = _find(found, **{**_levels_of(g.head), "encoder": "oracle"})
    return levels if oracle is None else [*levels, (ORACLE, _evidence(oracle))]


def _step(
    upper: tuple[str, np.ndarray], lower: tuple[str, np.ndarray], tasks: np.ndarray
) -> statistics.Contrast:
    """The difference of two levels. An expert that was run once is deterministic: it has no seed to differ by."""
    once = [i for i, (name, runs) in enumerate((upper, lower)) if name in EXPERTS and len(runs) == 1]
    return statistics.contrast([upper[1], lower[1]], [1, -1], tasks, references=once)


def refusals(
    plan: Plan, found: Sequence[Group], measured: Sequence[MeasuredReference], tasks: np.ndarray
) -> list[dict[str, Any]]:
    """References that lie significantly below the cell that they should bound, with what to do about each.

    No waterfall is drawn of such a cell, and no gain of the encoder from such an oracle policy: the difference would
    say how badly the reference is trained, not what the stage is worth.
    """
    out = []
    for g in _under_test(found):
        for name, success in _upper_levels(g, found, measured):
            c = _step((name, success), ("policy under test", _evidence(g)), tasks)
            if c.high >= 0:
                continue
            rates = [100 * rate(s, tasks)["value"] for s in (success, _evidence(g))]
            what = "no waterfall and no gain of the encoder" if name == ORACLE else "no waterfall"
            sentence = (
                f"{what} is drawn for {label(g.head, plan)} ({rates[1]:.0f} %): the {name} ({rates[0]:.0f} %) lies "
                f"{-100 * c.value:.0f} points [{-100 * c.high:.0f}, {-100 * c.low:.0f}] below it and bounds nothing; "
                f"{REMEDIES[name]}."
            )
            out.append(
                {
                    "label": label(g.head, plan),
                    "reference": name,
                    "contrast": asdict(c),
                    "sentence": sentence,
                    "next": REMEDIES[name],
                }
            )
    return out


def waterfalls(
    plan: Plan,
    found: Sequence[Group],
    measured: Sequence[MeasuredReference],
    refused: Sequence[dict[str, Any]],
    tasks: np.ndarray,
) -> list[dict[str, Any]]:
    """THEORY.md, section 5: signed differences from the expert down to the blind policy; nothing is clamped.

    None for a cell above one of its references (``refusals``).
    """
    out = []
    without = {r["label"] for r in refused}
    for g in _under_test(found):
        if label(g.head, plan) in without:
            continue
        levels = _upper_levels(g, found, measured)
        own = _levels_of(g.head)
        for encoder in (g.head.encoder, "blind"):
            policy = _find(found, **{**own, "encoder": encoder})
            if policy is not None:
                levels.append((f"{encoder} policy", _evidence(policy)))
        names = {"expert-chunked": "horizon", "expert-coded": "code", ORACLE: "policy"}
        names |= {f"{g.head.encoder} policy": "encoder", "blind policy": "vision"}
        steps = []
        for before, after in itertools.pairwise(levels):
            c, name = _step(after, before, tasks), after[0]
            steps.append({"names": names[name], "to": name, **asdict(c)})
        out.append(
            {
                "label": label(g.head, plan),
                "action": g.head.representation,
                "levels": [{"name": n, **rate(s, tasks)} for n, s in levels],
                "steps": steps,
            }
        )
    return out


def verdicts(
    plan: Plan, found: Sequence[Group], refused: Sequence[dict[str, Any]], tasks: np.ndarray
) -> list[dict[str, Any]]:
    """What binds each policy under test: relax one stage at a time and measure (THEORY.md, section 5).

    Of an oracle policy that is refused (``refusals``) no gain of the encoder is taken, alone or with the code's; the
    sentence says so.
    """
    out = []
    no_oracle = {r["label"]: r["sentence"] for r in refused if r["reference"] == ORACLE}
    sizes: list[str] = list(plan.study.factors.size)
    continuous = [a for a in plan.study.factors.action if action_parts(a)[1] is None]
    for g in _under_test(found):
        own, refusal = _levels_of(g.head), no_oracle.get(label(g.head, plan))
        relaxed: dict[str, tuple[np.ndarray, str]] = {}
        cells: dict[str, str] = {}  # the cell that stands for each relaxed stage
        oracle = _find(found, **{**own, "encoder": "oracle"})
        if oracle is not None and refusal is None:
            relaxed["encoder"] = (_evidence(oracle), f"replacing {g.head.encoder} by the true state")
            cells["encoder"] = label(oracle.head, plan)
        joint = None
        if g.head.code is not None and (g.head.swapped or continuous):
            other = g.head.action if g.head.swapped else continuous[0]
            swap = {**own, "code": None, "action": other, "trained_on": "chunk", "executed": "chunk"}
            if (open_code := _find(found, **swap)) is not None:
                how = "with head, loss and sampler as they are" if g.head.swapped else "another head"
                relaxed["code"] = (
                    _evidence(open_code),
                    f"replacing the codebook by continuous actions ({other}, {how})",
                )
                cells["code"] = label(open_code.head, plan)
            both = _find(found, **{**swap, "encoder": "oracle"})
            joint = None if both is None or refusal is not None else _evidence(both)
        larger = sizes.index(g.head.size) + 1
        if larger < len(sizes) and (bigger := _find(found, **{**own, "size": sizes[larger]})) is not None:
            relaxed["policy"] = (_evidence(bigger), f"growing the policy to size {sizes[larger]}")
            cells["policy"] = label(bigger.head, plan)
        if relaxed or refusal is not None:
            verdict = _judged(_evidence(g), relaxed, joint, refusal, tasks)
            out.append(
                {
                    "label": label(g.head, plan),
                    "encoder": g.head.encoder,
                    "action": g.head.representation,
                    "relaxed": cells,
                    **asdict(verdict),
                }
            )
    return out


def _judged(
    cell: np.ndarray,
    relaxed: dict[str, tuple[np.ndarray, str]],
    joint: np.ndarray | None,
    refusal: str | None,
    tasks: np.ndarray,
) -> Verdict:
    """The verdict, with the sentence of a refused oracle policy."""
    if not relaxed:
        return Verdict("not-separated", None, 0.0, [], None, refusal or "", None)
    found = locate(cell, relaxed, joint, tasks)
    if refusal is None:
        return found
    return replace(found, sentence=f"{found.sentence} {refusal[0].upper()}{refusal[1:]}")


def swaps(plan: Plan, found: Sequence[Group], tasks: np.ndarray) -> list[dict[str, Any]]:
    """The controlled swap's 2 × 2 tables: trained on {A, Ã} × executed {Â, snapped} (THEORY, section 6).

    One table a head, encoder, size, number of demonstrations, tokenizer and codebook. Training seeds are the
    replicates, each with its own fitted tokenizer. With fixed tokenizer seeds, several are the replicates, each averaged
    over its training seeds; with one, the spread between fitted tokenizers is unknown, which the table says.
    """
    tables: dict[tuple, dict[tuple[str, str], list[Group]]] = {}
    for g in found:
        if g.head.swapped and g.head.code is not None and g.success is not None:
            c, code = g.head, g.head.code
            at = (c.encoder, c.action, c.size, c.demos, c.task, code.tokenizer, code.codebook)
            tables.setdefault(at, {}).setdefault((c.trained_on, c.executed), []).append(g)
    out = []
    for (encoder, action, size, demos, task, tokenizer, codebook), cells in tables.items():
        plain = _find(
            found, encoder=encoder, action=action, size=size, demos=demos, task=task, code=None,
            trained_on="chunk", executed="chunk",
        )  # fmt: skip
        if plain is None or len(cells) < 3:
            continue
        replicates = {k: _replicates(groups) for k, groups in cells.items()}
        replicates["chunk", "chunk"] = _evidence(plain)
        free, head = replicates["chunk", "chunk"], cells["coded", "snapped"][0].head

        def against(trained_on: str, executed: str, free: np.ndarray = free, of: dict = replicates) -> dict:
            return asdict(statistics.contrast([free, of[trained_on, executed]], [1, -1], tasks))

        whole = cells["coded", "snapped"]
        seeds = len(whole[0].seeds) if head.code and head.code.seed == "training" else len(whole)
        words = [encoder, *([size] if len(plan.study.factors.size) > 1 else [])]
        words += [w for w in code_words(head.code, plan.study) if "seed" not in w]
        words += conditioning_words(task, plan.study) + [f"{demos} demos"] * (
            len(plan.study.factors.demos) > 1
        )
        out.append(
            {
                "label": " · ".join([head.representation, *words]),
                "encoder": encoder,
                "action": action,
                "tokenizer": tokenizer,
                "codebook": None if codebook is None else [list(p) for p in codebook],
                "cells": [
                    {"trained_on": t, "executed": e, **rate(replicates[t, e], tasks)}
                    for t in ("chunk", "coded")
                    for e in ("chunk", "snapped")
                ],
                "g_code": against("coded", "snapped"),
                "training": against("coded", "chunk"),
                "execution": against("chunk", "snapped"),
                "tokenizer_seeds": seeds,
                "tokenizer_is_trained": head.code is not None and head.code.seed is not None,
            }
        )
    return out


def _replicates(groups: Sequence[Group]) -> np.ndarray:
    """Rows [replicates, states] of cells that differ in the tokenizer's seed alone."""
    if len(groups) == 1:
        return _evidence(groups[0])
    return np.stack([_evidence(g).mean(0) for g in groups])
