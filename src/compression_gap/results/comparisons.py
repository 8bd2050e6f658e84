"""Comparisons of success: contrasts, trends, waterfalls, verdicts, the matched-head ablation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..encoders.registry import is_limit
from ..nn.convergence import in_words
from ..statistics import intervals as statistics
from ..statistics.bottleneck import Verdict, locate
from ..study.actions import action_parts, study_codes
from ..study.cells import Cell, Executed, TrainedOn
from ..tokenizers.code import code_names
from .evidence import MeasuredReference, SuccessGroup
from .measurement import Measurement, code_words, conditioning_words
from .records.cells import Cell as CellRecord
from .records.cells import Success
from .records.comparisons import (
    Bottleneck,
    Comparison,
    Drop,
    EncoderGain,
    EncoderTrend,
    Interaction,
    Level,
    Refusal,
    Swap,
    SwapCell,
    Waterfall,
)
from .records.study import SimulatorFindings

CellMeasurement = Measurement[SuccessGroup, Success, SimulatorFindings]


def _pairs(ladder: Sequence[SuccessGroup]) -> list[tuple[SuccessGroup, SuccessGroup]]:
    """Neighbours on the ladder, and its two ends."""
    pairs = list(itertools.pairwise(ladder))
    return pairs if len(ladder) < 3 else [*pairs, (ladder[0], ladder[-1])]


def contrasts(of: CellMeasurement, found: Sequence[SuccessGroup]) -> list[Comparison]:
    """Δ_enc of every head and size, and its interaction with the action representation.

    The interaction compares each representation with the first continuous one, and a head with its own code
    switched on (the matched-head ablation) with that head.
    """
    out: list[Comparison] = []
    names = code_names(study_codes(of.study))
    deltas: dict[tuple[Any, ...], list[tuple[SuccessGroup, SuccessGroup]]] = {}
    for ladder in of.ladders(found):
        for low, high in _pairs(ladder):
            cell = low.cell
            # what a hybrid decodes gets a continuous offset: its bits do not all pass the code
            hybrid = action_parts(cell.action)[0] == "hybrid"
            about = EncoderGain(
                encoders=(cell.encoder, high.cell.encoder),
                action=cell.representation,
                demos=cell.demos,
                code=None if cell.code is None or hybrid else names[cell.code],
            )
            out.append(of.change(low, high, about))
            at = (cell.encoder, high.cell.encoder, cell.size, cell.demos, cell.task)
            deltas.setdefault(at, []).append((low, high))
    for (low_name, high_name, *_), pairs in deltas.items():
        continuous = [p[0].cell.action for p in pairs if action_parts(p[0].cell.action)[1] is None]
        reference = [*continuous, pairs[0][0].cell.action][0]
        pairs.sort(key=lambda pair: pair[0].cell.action != reference)
        for one, two in itertools.combinations(pairs, 2):
            if not _compared(one[0].cell, two[0].cell, reference):
                continue
            cells = [g.evidence for g in (one[1], one[0], two[1], two[0])]
            c = statistics.contrast(cells, [1, -1, -1, 1], of.strata)
            odds = statistics.interaction_log_odds([cells[:2], cells[2:]], of.strata)
            pair = " − ".join(of.label_without_encoder(p[0]) for p in (one, two))
            name = f"Δ_enc({high_name} − {low_name}): {pair}"
            about_odds = Interaction(log_odds=odds)
            out.append(Comparison(kind="interaction", label=name, about=about_odds, found=c, p_holm=c.p))
    return out


def _compared(one: Cell, two: Cell, reference: str) -> bool:
    """Whether an interaction compares these two, ``one`` first in the order of the pairs."""
    if one.swapped or one.representation == two.representation:
        return False
    return one.action == two.action if two.swapped else one.action == reference


def trends(of: CellMeasurement, found: Sequence[SuccessGroup]) -> list[EncoderTrend]:
    """Page's trend along every ladder with three levels or more and the same number of seeds."""
    out = []
    for ladder in of.ladders(found):
        if len(ladder) >= 3 and len({len(g.seeds) for g in ladder}) == 1:
            trend = statistics.page_trend([g.evidence for g in ladder], of.strata)
            rest = of.label_without_encoder(ladder[0])
            encoders = [g.cell.encoder for g in ladder]
            out.append(EncoderTrend(**vars(trend), label=rest, encoders=encoders))
    return out


def _find(found: Sequence[SuccessGroup], cell: Cell) -> SuccessGroup | None:
    """The configuration with this cell's levels, if it is measured."""
    return next((g for g in found if g.rows is not None and g.cell.levels == cell.levels), None)


def _under_test(found: Sequence[SuccessGroup]) -> list[SuccessGroup]:
    """The cells between the limits, as far as they are measured."""
    return [g for g in found if g.rows is not None and not is_limit(g.cell.encoder)]


ORACLE = "oracle policy"
EXPERTS = ("expert", "expert-chunked", "expert-coded")
REMEDIES = {  # by the reference that lies below what it should bound
    "expert": "the scripted expert solves too little: choose tasks that it solves, or set 'references: false'",
    "expert-chunked": "the scripted expert's chunks fail too often: lower rollout.execute, or set 'references: false'",
    "expert-coded": "the code spoils the expert's chunks more than the policy's own: fit it longer (tokenizer.steps)",
    ORACLE: "train the oracle policy longer (training.steps) and judge again",
}


def _upper_levels(
    g: SuccessGroup, found: Sequence[SuccessGroup], measured: Sequence[MeasuredReference]
) -> list[tuple[str, np.ndarray]]:
    """The references above a cell under test, from the expert down to the oracle policy: outcomes [runs, states]."""
    levels: list[tuple[str, np.ndarray]] = []
    for m in measured:
        r = m.reference
        # A hybrid adds a continuous offset to what it decodes: the code is no stage that it goes through.
        hybrid = action_parts(g.cell.action)[0] == "hybrid"
        if r.code is None or ((r.code, r.demos) == (g.cell.code, g.cell.demos) and not hybrid):
            levels.append((r.actor, m.success))
    levels.sort(key=lambda level: EXPERTS.index(level[0]))
    oracle = _find(found, replace(g.cell, encoder="oracle"))
    return levels if oracle is None else [*levels, (ORACLE, oracle.evidence)]


def _step(
    upper: tuple[str, np.ndarray], lower: tuple[str, np.ndarray], tasks: np.ndarray
) -> statistics.Contrast:
    """The difference of two levels. An expert that was run once is deterministic: it has no seed to differ by."""
    once = [i for i, (name, runs) in enumerate((upper, lower)) if name in EXPERTS and len(runs) == 1]
    return statistics.contrast([upper[1], lower[1]], [1, -1], tasks, references=once)


def refusals(
    of: CellMeasurement, found: Sequence[SuccessGroup], measured: Sequence[MeasuredReference]
) -> list[Refusal]:
    """References that lie significantly below the cell that they should bound, with what to do about each.

    No waterfall is drawn of such a cell, and no gain of the encoder from such an oracle policy: the difference would
    say how badly the reference is trained, not what the stage is worth.
    """
    out = []
    for g in _under_test(found):
        for name, success in _upper_levels(g, found, measured):
            c, label = _step((name, success), ("policy under test", g.evidence), of.strata), of.label(g)
            if c.high >= 0:
                continue
            rates = [100 * statistics.rate_interval(s, of.strata).value for s in (success, g.evidence)]
            what = "no waterfall and no gain of the encoder" if name == ORACLE else "no waterfall"
            sentence = (
                f"{what} is drawn for {label} ({rates[1]:.0f} %): the {name} ({rates[0]:.0f} %) lies "
                f"{-100 * c.value:.0f} points [{-100 * c.high:.0f}, {-100 * c.low:.0f}] below it and bounds nothing; "
                f"{REMEDIES[name]}."
            )
            out.append(
                Refusal(label=label, reference=name, contrast=c, sentence=sentence, next=REMEDIES[name])
            )
    return out


def waterfalls(
    of: CellMeasurement,
    found: Sequence[SuccessGroup],
    measured: Sequence[MeasuredReference],
    refused: Sequence[Refusal],
) -> list[Waterfall]:
    """docs/theory.md: signed differences from the expert down to the blind policy; nothing is clamped.

    None for a cell above one of its references (``refusals``).
    """
    out = []
    without = {r.label for r in refused}
    for g in _under_test(found):
        if of.label(g) in without:
            continue
        levels = _upper_levels(g, found, measured)
        for encoder in (g.cell.encoder, "blind"):
            policy = _find(found, replace(g.cell, encoder=encoder))
            if policy is not None:
                levels.append((f"{encoder} policy", policy.evidence))
        names = {"expert-chunked": "horizon", "expert-coded": "code", ORACLE: "policy"}
        names |= {f"{g.cell.encoder} policy": "encoder", "blind policy": "vision"}
        out.append(
            Waterfall(
                label=of.label(g),
                action=g.cell.representation,
                levels=[Level(**vars(statistics.rate_interval(s, of.strata)), name=n) for n, s in levels],
                steps=[
                    Drop(**vars(_step(after, before, of.strata)), names=names[after[0]], to=after[0])
                    for before, after in itertools.pairwise(levels)
                ],
            )
        )
    return out


def verdicts(
    of: CellMeasurement,
    found: Sequence[SuccessGroup],
    refused: Sequence[Refusal],
    cells: Sequence[CellRecord[Success]],
) -> list[Bottleneck]:
    """The bottleneck of each policy under test: replace one stage at a time by its upper bound and measure (docs/theory.md).

    Of an oracle policy that is refused (``refusals``) no gain of the encoder is taken, alone or with the code's; the
    sentence says so. ``cells``: of the summary, which know how their trainings ended.
    """
    out = []
    no_oracle = {r.label: r.sentence for r in refused if r.reference == ORACLE}
    ended = {c.label: in_words(c.training.convergence) for c in cells if c.training.converged is False}
    sizes: list[str] = list(of.study.factors.size)
    continuous = [a for a in of.study.factors.action if action_parts(a)[1] is None]
    for g in _under_test(found):
        cell, label = g.cell, of.label(g)
        refusal = no_oracle.get(label)
        relaxed: dict[str, tuple[np.ndarray, str]] = {}
        stands: dict[str, str] = {}  # the cell that stands for each relaxed stage
        oracle = _find(found, replace(cell, encoder="oracle"))
        if oracle is not None and refusal is None:
            relaxed["encoder"] = (oracle.evidence, f"replacing {cell.encoder} by the true state")
            stands["encoder"] = of.label(oracle)
        joint = None
        if cell.code is not None and (cell.swapped or continuous):
            other = cell.action if cell.swapped else continuous[0]
            swap = replace(cell, code=None, action=other, trained_on="chunk", executed="chunk")
            if (open_code := _find(found, swap)) is not None:
                how = "with head, loss and sampler as they are" if cell.swapped else "another head"
                words = f"replacing the codebook by continuous actions ({other}, {how})"
                relaxed["code"] = (open_code.evidence, words)
                stands["code"] = of.label(open_code)
            both = _find(found, replace(swap, encoder="oracle"))
            joint = None if both is None or refusal is not None else both.evidence
        larger = sizes[sizes.index(cell.size) + 1 :][:1]
        if larger and (bigger := _find(found, replace(cell, size=larger[0]))) is not None:
            relaxed["policy"] = (bigger.evidence, f"growing the policy to size {larger[0]}")
            stands["policy"] = of.label(bigger)
        if relaxed or refusal is not None:
            out.append(
                Bottleneck(
                    label=label,
                    encoder=cell.encoder,
                    action=cell.representation,
                    relaxed=stands,
                    verdict=_judged(g.evidence, relaxed, joint, refusal, of.strata),
                    unconverged={n: how for n, how in ended.items() if n in (label, *stands.values())},
                )
            )
    return out


def _judged(
    cell: np.ndarray,
    relaxed: Mapping[str, tuple[np.ndarray, str]],
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


def swaps(of: CellMeasurement, found: Sequence[SuccessGroup]) -> list[Swap]:
    """The matched-head ablation's 2 × 2 tables: trained on {A, Ã} × executed {Â, snapped} (docs/theory.md).

    One table a head, encoder, size, number of demonstrations, tokenizer and codebook. Training seeds are the
    replicates, each with its own fitted tokenizer. With fixed tokenizer seeds, several are the replicates, each averaged
    over its training seeds; with one, the spread between fitted tokenizers is unknown, which the table says.
    """
    tables: dict[tuple[Any, ...], dict[tuple[TrainedOn, Executed], list[SuccessGroup]]] = {}
    for g in found:
        if g.cell.swapped and g.cell.code is not None and g.rows is not None:
            c, code = g.cell, g.cell.code
            at = (c.encoder, c.action, c.size, c.demos, c.task, code.tokenizer, code.codebook)
            tables.setdefault(at, {}).setdefault((c.trained_on, c.executed), []).append(g)
    factors, out = of.study.factors, []
    for cells in tables.values():
        one = next(iter(cells.values()))[0].cell
        plain = _find(found, replace(one, code=None, trained_on="chunk", executed="chunk"))
        if plain is None or len(cells) < 3:
            continue
        whole = cells["coded", "snapped"]
        head = whole[0].cell
        assert head.code is not None
        rows = {k: _replicates(groups) for k, groups in cells.items()} | {("chunk", "chunk"): plain.evidence}

        def against(
            trained_on: TrainedOn,
            executed: Executed,
            rows: Mapping[tuple[TrainedOn, Executed], np.ndarray] = rows,
        ) -> statistics.Contrast:
            pair = [rows["chunk", "chunk"], rows[trained_on, executed]]
            return statistics.contrast(pair, [1, -1], of.strata)

        words = [head.encoder, *([head.size] if len(factors.size) > 1 else [])]
        words += [w for w in code_words(head.code, of.study) if "seed" not in w]
        words += conditioning_words(head.task, of.study) + [f"{head.demos} demos"] * (len(factors.demos) > 1)
        places: list[tuple[TrainedOn, Executed]] = [
            ("chunk", "chunk"), ("chunk", "snapped"), ("coded", "chunk"), ("coded", "snapped"),
        ]  # fmt: skip
        out.append(
            Swap(
                label=" · ".join([head.representation, *words]),
                encoder=head.encoder,
                action=head.action,
                tokenizer=head.code.tokenizer,
                codebook=head.code.codebook,
                cells=[
                    SwapCell(
                        **vars(statistics.rate_interval(rows[at], of.strata)),
                        trained_on=at[0],
                        executed=at[1],
                    )
                    for at in places
                ],
                g_code=against("coded", "snapped"),
                training=against("coded", "chunk"),
                execution=against("chunk", "snapped"),
                tokenizer_seeds=len(whole[0].seeds) if head.code.seed == "training" else len(whole),
                tokenizer_is_trained=head.code.seed is not None,
            )
        )
    return out


def _replicates(groups: Sequence[SuccessGroup]) -> np.ndarray:
    """Rows [replicates, states] of cells that differ in the tokenizer's seed alone."""
    if len(groups) == 1:
        return groups[0].evidence
    return np.stack([g.evidence.mean(0) for g in groups])
