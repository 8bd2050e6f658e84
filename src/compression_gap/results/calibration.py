"""What the calibration shows: each instrument's result against the truth that it was held to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from ..artifacts import calibration as artifacts
from ..artifacts.calibration import KnownInformation, WideInformation
from ..demos import Normaliser
from ..information import channel_truth as channel
from ..information.estimate import Estimate
from ..information.wide import Wide
from ..statistics.coverage import Coverage, Setting
from ..statistics.growing import Growing
from ..store.store import Store
from ..study.calibration import QUANTITIES, Calibration
from ..study.plan import Plan
from ..tokenizers.code import Code
from ..tokenizers.levels import Levels
from .records import calibration as records
from .records.bits import Ledger
from .records.calibration import (
    Accuracy,
    BitsCheck,
    Built,
    CoverageRow,
    GrowingRow,
    Known,
    Simulated,
    SuccessCheck,
    VerdictCheck,
    WideRow,
)
from .records.study import SuccessSummary
from .summary import summarise

RELATIVE, ABSOLUTE = 0.1, 0.3  # of the channel: within 10 % or 0.3 bit


def _wide_row(setting: Wide, truth: float, rows: Sequence[Mapping[str, Estimate]]) -> WideRow:
    """A setting in short: mean error, how often intervals hold the truth, how often an error is flagged.

    ``tight and wrong``: draws whose estimate is off by more than its limit, is called converged, and whose interval
    misses the truth.
    """
    own = [row["wide" if setting.nuisance else "alone"] for row in rows]
    errors = np.array([e.value - truth for e in own])
    limit = max(ABSOLUTE, RELATIVE * truth)
    holds = [e.low <= truth <= e.high for e in own]
    wrong = [
        abs(error) > limit and bool(e.converged) and not held
        for error, e, held in zip(errors, own, holds, strict=True)
    ]
    ups = [row["upgrade"] for row in rows if "upgrade" in row]
    return WideRow(
        label=setting.label,
        draws=len(rows),
        truth=truth,
        mean=float(truth + errors.mean()),
        spread=float(errors.std(ddof=1)) if len(errors) > 1 else None,
        probe=float(np.mean([e.probe for e in own])),
        within=bool(abs(errors.mean()) <= limit),
        covered=float(np.mean(holds)),
        flagged=float(np.mean([not e.converged for e in own])),
        tight_and_wrong=int(sum(wrong)),
        lost=float(np.mean([e.missing for e in own])),
        upgrade=float(np.mean([e.value for e in ups])) if ups else None,
        upgrade_holds_zero=float(np.mean([e.low <= 0 <= e.high for e in ups])) if ups else None,
    )


def _built(meta: Mapping[str, Any]) -> Built:
    return Built(machine=meta["machine"], build_seconds=meta["build_seconds"])


def _known(of: KnownInformation, store: Store) -> Known:
    meta = store.meta(of)
    truth, gaussian, estimate = meta["truth"], meta["gaussian"], Estimate(**meta["estimate"])
    limit = max(0.1, 0.03 * truth) if gaussian else max(ABSOLUTE, RELATIVE * truth)
    return Known(
        name=of.distribution,
        truth=truth,
        gaussian=gaussian,
        dimensions=meta["dimensions"],
        estimate=estimate,
        probe=Estimate(**meta["probe"]),
        within=abs(estimate.value - truth) <= limit,
        covered=estimate.low <= truth <= estimate.high,
        built=_built(meta),
    )


def _wide(of: WideInformation, store: Store) -> WideRow:
    meta = store.meta(of)
    rows = [{name: Estimate(**e) for name, e in row.items()} for row in meta["rows"]]
    return _wide_row(of.setting, meta["truth"], rows)


def _coverage(of: artifacts.Coverage, store: Store) -> CoverageRow:
    meta = store.meta(of)
    found = Coverage(**{f.name: meta[f.name] for f in fields(Coverage)})
    return CoverageRow(quantity=of.quantity, setting=of.setting, found=found, built=_built(meta))


def _growing(made: Calibration, store: Store) -> list[GrowingRow]:
    """Each setting's fixed design is that of its first gain, the smallest."""
    out: list[GrowingRow] = []
    equal: dict[Setting, float] = {}
    for of in made.growing:
        meta = store.meta(of)
        numbers = {f.name: meta[f.name] for f in fields(Growing)}
        found = Growing(**{**numbers, "fixed": {int(seeds): share for seeds, share in meta["fixed"]}})
        if found.fixed:
            equal[of.setting] = found.equal_seeds()
        seeds = equal[of.setting]
        out.append(
            GrowingRow(
                setting=of.setting,
                gain=of.gain,
                found=found,
                equal_seeds=seeds,
                cost=found.seeds / seeds,
                built=_built(meta),
            )
        )
    return out


def _accuracy(counts: Mapping[str, Any]) -> Accuracy:
    return Accuracy(**{f.name: counts[f.name] for f in fields(Accuracy) if f.name in counts})


def read_calibration(made: Calibration, store: Store) -> records.Calibration:
    """Everything on the page."""
    plan = made.plan
    assert plan.ledger is not None
    summary = summarise(plan, store)
    assert summary.ledger is not None
    partitions = _partitions(plan, store)
    bits = _bits_rows(plan, store, summary.ledger, partitions)
    success, verdicts = _success_rows(plan, summary, partitions)
    coverage = [_coverage(c, store) for c in made.coverage]
    shares = {q: [c.found.share for c in coverage if c.quantity == q] for q in QUANTITIES}
    counts = store.meta(made.verdicts)
    simulated = Simulated(
        all=_accuracy(counts), by_seeds=[_accuracy(c) for c in counts["by_seeds"]], built=_built(counts)
    )
    return records.Calibration(
        known=[_known(k, store) for k in made.known],
        wide=[_wide(w, store) for w in made.wide],
        bits=bits,
        success=success,
        verdicts=verdicts,
        simulated=simulated,
        trained=_accuracy(vars(artifacts.accuracy([(v.expected, v.stage) for v in verdicts]))),
        coverage=coverage,
        growing=_growing(made, store),
        verdict_accuracy=simulated.all.accuracy,
        interval_coverage={q: (min(s), max(s)) for q, s in shares.items()},
        bits_within=sum(b.within for b in bits) / len(bits),
        bits_covered=sum(b.covered for b in bits) / len(bits),
        machine=summary.machine,
        version=summary.version,
    )


def _partitions(plan: Plan, store: Store) -> dict[str | Code, Any]:
    """Labels of the goals by encoder, and by code with the end points that its tokens lead to."""
    where = channel.goals()
    out: dict[str | Code, Any] = {"blind": np.zeros(len(where), np.int64), "oracle": np.arange(len(where))}
    for encoder in plan.study.factors.encoder:
        out[encoder] = channel.cells(int(encoder.removeprefix("oracle-").removesuffix("b")), where)
    assert plan.ledger is not None
    normaliser = _normaliser(plan, store)
    chunks = normaliser.normalise(channel.chunks(where))
    for code in plan.ledger.codes:
        tokenizer = plan.ledger.health_of(code).tokenizer.load(store)
        tokens = tokenizer.encode(chunks)
        labels = np.unique(tokens.ids, axis=0, return_inverse=True)[1].reshape(-1)
        ends = channel.end_points(normaliser.denormalise(tokenizer.decode(tokens).chunk))
        out[code] = labels, ends
    return out


def _normaliser(plan: Plan, store: Store) -> Normaliser:
    assert plan.ledger is not None
    return plan.ledger.rates[1].normaliser.load(store)


def _bits_rows(
    plan: Plan, store: Store, ledger: Ledger, partitions: Mapping[str | Code, Any]
) -> list[BitsCheck]:
    """Estimated and true bits of every quantity of the ledger."""
    std = _normaliser(plan, store).std.astype(np.float64)
    truth = channel.ChannelTruth(std, ledger.resolution.sigma)
    assert plan.ledger is not None
    labels = {c.name: partitions[c][0] for c in plan.ledger.codes}
    rows = [("demand", "", "", truth.demand(), ledger.demand)]
    for e in ledger.encoders:
        rows.append(("supply", e.encoder, "", truth.information(partitions[e.encoder]), e.supply))
    for c in ledger.codes:
        rows.append(("kept", "", c.code, truth.information(labels[c.code]), c.kept))
    for p in ledger.pairs:
        rows.append(("gap", p.encoder, p.code, truth.gap(partitions[p.encoder], labels[p.code]), p.gap))
    return [
        BitsCheck(
            quantity=quantity,
            encoder=encoder,
            code=code,
            truth=known,
            estimate=found,
            within=abs(found.value - known) <= max(ABSOLUTE, RELATIVE * known),
            covered=found.low <= known <= found.high,
        )
        for quantity, encoder, code, known, found in rows
    ]


def _success_rows(
    plan: Plan, summary: SuccessSummary, partitions: Mapping[str | Code, Any]
) -> tuple[list[SuccessCheck], list[VerdictCheck]]:
    """Success of each cell, and each verdict, against the truth of a policy that draws from its posterior."""
    assert plan.ledger is not None
    ends: dict[Levels | None, np.ndarray] = {None: channel.goals()}
    ends |= {c.codebook: partitions[c][1] for c in plan.ledger.codes}
    books = {c.label: c.code.codebook for c in summary.cells}
    encoders = {c.label: c.encoder for c in summary.cells}

    def true_rate(encoder: str, codebook: Levels | None) -> float:
        return channel.success_sampling(partitions[encoder], ends[codebook])

    success = [
        SuccessCheck(
            label=c.label,
            truth=true_rate(c.encoder, c.code.codebook),
            rate=c.outcome.rate,
            training=c.training.ended,
        )
        for c in summary.cells
    ]
    verdicts = []
    for v in summary.found.verdicts:
        encoder, book = encoders[v.label], books[v.label]
        own = true_rate(encoder, book)
        truth = {"encoder": true_rate("oracle", book) - own}
        if book is not None:
            truth["code"] = true_rate(encoder, None) - own
        verdicts.append(
            VerdictCheck(
                label=v.label,
                truth=truth,
                sentence=v.verdict.sentence,
                expected=artifacts.leading(truth),
                stage=v.verdict.stage,
            )
        )
    return success, verdicts
