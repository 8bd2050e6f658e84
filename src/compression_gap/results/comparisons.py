"""Comparisons of success: contrasts, trends, waterfalls, verdicts, the matched-head ablation."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..encoders.registry import is_limit
from ..nn.convergence import in_words
from ..statistics import intervals as statistics
from ..statistics.bottleneck import Verdict, locate, locate_in_rounds
from ..statistics.rounds import Rounds, pairs
from ..study.actions import action_parts, study_codes
from ..study.cells import Cell
from ..tokenizers.code import code_names
from .evidence import MeasuredReference, SuccessGroup
from .measurement import Asked, Measurement
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
    Waterfall,
)
from .records.study import SimulatorFindings

CellMeasurement = Measurement[SuccessGroup, Success, SimulatorFindings]


def _ends_and_neighbours(ladder: Sequence[SuccessGroup]) -> list[tuple[SuccessGroup, SuccessGroup]]:
    """Neighbours on the ladder, and its two ends."""
    pairs = list(itertools.pairwise(ladder))
    return pairs if len(ladder) < 3 else [*pairs, (ladder[0], ladder[-1])]


# two configurations that differ in the encoder alone, the lower one first
Pair = tuple[SuccessGroup, SuccessGroup]
INTERACTION = (1.0, -1.0, -1.0, 1.0)  # of the cells of ``_table``


def encoder_gains(of: CellMeasurement, found: Sequence[SuccessGroup]) -> list[Pair]:
    """The pairs whose difference is a Δ_enc, ladder after ladder."""
    return [pair for ladder in of.ladders(found) for pair in _ends_and_neighbours(ladder)]


def interactions(gains: Sequence[Pair]) -> list[tuple[Pair, Pair]]:
    """Two Δ_enc each, of the same encoders under two action representations, whose difference is an interaction.

    Each representation is compared with the first continuous one, and a head with its own code switched on (the
    matched-head ablation) with that head.
    """
    alike: dict[tuple[Any, ...], list[Pair]] = {}
    for low, high in gains:
        cell = low.cell
        at = (cell.encoder, high.cell.encoder, cell.size, cell.demos, cell.task)
        alike.setdefault(at, []).append((low, high))
    out = []
    for same in alike.values():
        continuous = [p[0].cell.action for p in same if action_parts(p[0].cell.action)[1] is None]
        reference = [*continuous, same[0][0].cell.action][0]
        same.sort(key=lambda pair: pair[0].cell.action != reference)
        for one, two in itertools.combinations(same, 2):
            if _compared(one[0].cell, two[0].cell, reference):
                out.append((one, two))
    return out


def _table(one: Pair, two: Pair) -> list[SuccessGroup]:
    """The four cells of an interaction: each pair's higher encoder, then its lower one."""
    return [one[1], one[0], two[1], two[0]]


def interaction_label(of: CellMeasurement, one: Pair, two: Pair) -> str:
    """Which encoders, under which two configurations."""
    pair = " − ".join(of.label_without_encoder(p[0]) for p in (one, two))
    return f"Δ_enc({one[1].cell.encoder} − {one[0].cell.encoder}): {pair}"


def asked_of_pairs(of: CellMeasurement, gains: Sequence[Pair]) -> list[Asked[SuccessGroup]]:
    """What each interaction is, of these Δ_enc."""
    out = []
    for one, two in interactions(gains):
        label = interaction_label(of, one, two)
        out.append(Asked(label, _table(one, two), {label: INTERACTION}))
    return out


def contrasts(of: CellMeasurement, found: Sequence[SuccessGroup]) -> list[Comparison]:
    """Δ_enc of every head and size, and its interaction with the action representation."""
    out: list[Comparison] = []
    names = code_names(study_codes(of.study))
    gains = encoder_gains(of, found)
    for low, high in gains:
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
    for one, two in interactions(gains):
        cells = [g.evidence for g in _table(one, two)]
        c = statistics.contrast(cells, INTERACTION, of.strata)
        odds = statistics.interaction_log_odds([cells[:2], cells[2:]], of.strata)
        name = interaction_label(of, one, two)
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


def find_measured(found: Sequence[SuccessGroup], cell: Cell) -> SuccessGroup | None:
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
    oracle = find_measured(found, replace(g.cell, encoder="oracle"))
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
            policy = find_measured(found, replace(g.cell, encoder=encoder))
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
    by_looks = of.until is not None and of.until.question == "bottleneck"
    ended = {c.label: in_words(c.training.convergence) for c in cells if c.training.converged is False}
    for g in _under_test(found):
        label = of.label(g)
        refusal = no_oracle.get(label)
        looks = next((r for a, r in of.rounds if a.label == label and r.looks), None) if by_looks else None
        stages = replaced(of, found, g, oracle=refusal is None or looks is not None)
        stands = {stage: of.label(other) for stage, (other, _) in stages.by.items()}
        if stands or refusal is not None:
            out.append(
                Bottleneck(
                    label=label,
                    encoder=g.cell.encoder,
                    action=g.cell.representation,
                    relaxed=stands,
                    verdict=_judged(of, g, stages, refusal, looks),
                    unconverged={n: how for n, how in ended.items() if n in (label, *stands.values())},
                )
            )
    return out


@dataclass(frozen=True)
class Replaced:
    """The configurations with one stage of a policy replaced by its upper bound, in words; ``joint``: encoder and code."""

    by: Mapping[str, tuple[SuccessGroup, str]]
    joint: SuccessGroup | None

    @property
    def evidence(self) -> dict[str, tuple[np.ndarray, str]]:
        """As ``bottleneck.locate`` takes it."""
        return {stage: (g.evidence, words) for stage, (g, words) in self.by.items()}


def replaced(
    of: CellMeasurement, found: Sequence[SuccessGroup], g: SuccessGroup, *, oracle: bool = True
) -> Replaced:
    """What stands for each stage of a policy, as far as it is measured. ``oracle``: whether an oracle policy may."""
    cell, by = g.cell, dict[str, tuple[SuccessGroup, str]]()
    sizes: list[str] = list(of.study.factors.size)
    continuous = [a for a in of.study.factors.action if action_parts(a)[1] is None]
    seeing = find_measured(found, replace(cell, encoder="oracle")) if oracle else None
    if seeing is not None:
        by["encoder"] = seeing, f"replacing {cell.encoder} by the true state"
    joint = None
    if cell.code is not None and (cell.swapped or continuous):
        other = cell.action if cell.swapped else continuous[0]
        swap = replace(cell, code=None, action=other, trained_on="chunk", executed="chunk")
        if (open_code := find_measured(found, swap)) is not None:
            how = "with head, loss and sampler as they are" if cell.swapped else "another head"
            by["code"] = open_code, f"replacing the codebook by continuous actions ({other}, {how})"
        joint = find_measured(found, replace(swap, encoder="oracle")) if oracle else None
    larger = sizes[sizes.index(cell.size) + 1 :][:1]
    if larger and (bigger := find_measured(found, replace(cell, size=larger[0]))) is not None:
        by["policy"] = bigger, f"growing the policy to size {larger[0]}"
    return Replaced(by, joint)


def asked_of_stages(of: CellMeasurement, found: Sequence[SuccessGroup]) -> list[Asked[SuccessGroup]]:
    """The bottleneck of each policy under test: every difference between it and what replaces its stages.

    An oracle policy that bounds nothing is asked about, too: the looks put it out.
    """
    out = []
    for g in _under_test(found):
        label = of.label(g)
        stages = replaced(of, found, g)
        cells = [g, *(other for other, _ in stages.by.values())]
        names = [f"{of.label(two)} − {of.label(one)}" for one, two in itertools.combinations(cells, 2)]
        beside = [] if stages.joint is None else [stages.joint]
        if stages.by:
            out.append(Asked(label, cells, dict(zip(names, pairs(len(cells)), strict=True)), beside))
    return out


def _judged(
    of: CellMeasurement, g: SuccessGroup, stages: Replaced, refusal: str | None, looks: Rounds | None
) -> Verdict:
    """The verdict, with the sentence of a refused oracle policy; of a study that grows by seeds, what its looks say."""
    if not stages.by:
        return Verdict("not-separated", None, 0.0, [], None, refusal or "", None)
    joint = None if stages.joint is None else stages.joint.evidence
    if looks is not None:
        rows = {stage: (of.in_order(other), words) for stage, (other, words) in stages.by.items()}
        found = locate_in_rounds(of.in_order(g), rows, joint, of.strata, looks)
    else:
        found = locate(g.evidence, stages.evidence, joint, of.strata)
    if refusal is None:
        return found
    return replace(found, sentence=f"{found.sentence} {refusal[0].upper()}{refusal[1:]}")
