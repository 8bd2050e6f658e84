"""Which stage is the bottleneck, in words to act on: what replacing it gains, what that costs, and what to run next."""

from __future__ import annotations

import math

from ..information.estimate import Estimate
from ..statistics.intervals import Span
from .comparisons import ORACLE
from .records.bits import Binding, BitsAnswer, Cost, Ledger, SuccessAnswer
from .records.cells import Trainings
from .records.comparisons import Bottleneck
from .records.study import ErrorSummary, SimulatorFindings, SuccessSummary

MOST_FURTHER_EPISODES = 10_000


def of_study(summary: SuccessSummary | ErrorSummary) -> list[SuccessAnswer]:
    """One answer per policy under test, from the success of its study; none on recordings, whose success is not known.

    ``costs``: of the policy, and of each replacement that could be bought; the true state cannot, so what the encoder
    gains is a limit.
    """
    if not isinstance(summary.found, SimulatorFindings):
        return []
    cells = {c.label: c.training for c in summary.cells}
    refused = {r.label: r.next for r in summary.found.refusals if r.reference == ORACLE}
    return [
        SuccessAnswer(
            label=v.label,
            stage=v.verdict.stage,
            kind=v.verdict.kind,
            sentence=v.verdict.sentence,
            costs=[
                _cost("as it is", cells[v.label]),
                *(
                    _cost(f"{stage} replaced: {other}", cells[other])
                    for stage, other in v.relaxed.items()
                    if stage != "encoder"
                ),
            ],
            unconverged=v.unconverged,
            next=refused.get(v.label) or _next_in_study(v),
        )
        for v in summary.found.verdicts
    ]


def _cost(what: str, trained: Trainings) -> Cost:
    return Cost(
        what=what,
        parameters=None if trained.parameters is None else trained.parameters["total"],
        flops=trained.flops,
        hours=None if trained.train_seconds is None else trained.train_seconds / 3600,
    )


def _next_in_study(of: Bottleneck) -> str:
    v = of.verdict
    missing = {"encoder", "code", "policy"} - {g.stage for g in v.gains}
    if v.kind == "not-separated":
        if all(g.contrast.high < 0 for g in v.gains):
            return "raise training.steps: the limit did worse than what it limits, so it has not been learned"
        more = []
        if v.further_seeds:
            more.append(f"factors.seed: {v.further_seeds} more")
        if v.further_episodes:
            more.append(f"rollout.episodes_per_task: {v.further_episodes} more in all")
        if more:
            return f"raise {' or '.join(more)}, and run the study again: only what is new is built"
        return "the gains are too small to separate: look for a larger change than these"
    if v.kind == "jointly-bound":
        return "change encoder and code together: neither alone gains"
    if "policy" in missing:
        return "add a larger size to factors.size to see whether the policy would gain too"
    return f"try an upgrade of the {v.stage}: put it into factors and run the study again"


def of_ledger(ledger: Ledger) -> list[BitsAnswer]:
    """One answer per encoder and code, from bits alone."""
    return [
        BitsAnswer(binding=b, sentence=_sentence(b), next=_next_in_bits(b, ledger)) for b in ledger.binding
    ]


def _span(g: Estimate | Span) -> str:
    return f"{g.value:.2f} bits [{g.low:.2f}, {g.high:.2f}]"


def _sentence(row: Binding) -> str:
    gains = row.gains
    parts = [f"continuous actions in place of the code would let {_span(gains['code'])} more through"]
    if _oracle_below(row):
        parts.append(
            f"no gain of the encoder is given: through the code the true state was found to supply "
            f"{_span(_negated(gains['encoder']))} less than {row.encoder}, which cannot be, so its supply has not settled"
        )
    elif "encoder" in gains:
        what = "the true state" if row.relaxed_to == "oracle" else row.relaxed_to
        parts.append(f"{what} in place of {row.encoder} {_span(gains['encoder'])}")
    if row.joint is not None and row.stage is None and not _oracle_below(row):
        parts.append(f"both together {_span(row.joint)}")
    if row.stage:
        head = f"the {row.stage} holds the bits back"
    elif row.jointly:
        head = "encoder and code hold the bits back together"
    elif all(g.high < 0.5 for g in gains.values()):
        head = "neither encoder nor code holds back half a bit"
    else:
        head = "encoder and code are not separated"
    return f"With {row.encoder} and {row.code}, {head}: {'; '.join(parts)}."


def _oracle_below(row: Binding) -> bool:
    """Whether the true state passes significantly fewer bits than features of its image: then it bounds nothing."""
    return row.relaxed_to == "oracle" and row.gains["encoder"].high < 0


def _negated(g: Estimate) -> Span:
    return Span(value=-g.value, low=-g.high, high=-g.low)


def _next_in_bits(row: Binding, ledger: Ledger) -> str:
    if _oracle_below(row):
        return "raise ledger.steps or record more demonstrations, until the supply of oracle has settled"
    if row.stage == "code":
        return "a finer code, or continuous actions: compare tokenizers with cgap tokenizers"
    if row.stage == "encoder":
        return "a better encoder: run a study with it, and see whether the bits become success"
    if row.jointly:
        return "a better encoder together with a finer code"
    gains = row.gains
    if "encoder" not in gains:
        return "add an encoder to compare with, or oracle where the true state is known"
    lead = abs(gains["encoder"].value - gains["code"].value)
    width = math.hypot(*((g.high - g.low) / 2 for g in gains.values()))
    needed = math.ceil(ledger.episodes * ((width / max(lead, 1e-9)) ** 2 - 1))
    if 0 < needed <= MOST_FURTHER_EPISODES:
        return f"about {10 * needed} further demonstrations (a tenth is held out) would separate them"
    return "nothing: what either would add is too small to tell apart"
