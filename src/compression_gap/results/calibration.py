"""What the calibration shows: each instrument's result against the truth that it was held to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..artifacts.calibration import accuracy, judged
from ..demos import Normaliser
from ..information import channel_truth as channel
from ..information.wide import Wide
from ..nn.convergence import in_words
from ..store.store import Store
from ..study.calibration import QUANTITIES, Calibration
from ..study.plan import Plan
from ..tokenizers.code import Code
from .records.json import as_json
from .summary import summarise

RELATIVE, ABSOLUTE = 0.1, 0.3  # of the channel: within 10 % or 0.3 bit


def _wide_row(setting: Wide, truth: float, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A setting in short: mean error, how often intervals hold the truth, how often an error is flagged.

    ``tight and wrong``: draws whose estimate is off by more than its limit, is called converged, and whose interval
    misses the truth.
    """
    name = "wide" if setting.nuisance else "alone"
    own = [row[name] for row in rows]
    errors = np.array([e["value"] - truth for e in own])
    limit = max(ABSOLUTE, RELATIVE * truth)
    holds = [e["low"] <= truth <= e["high"] for e in own]
    wrong = [
        abs(error) > limit and bool(e["converged"]) and not held
        for error, e, held in zip(errors, own, holds, strict=True)
    ]
    ups = [row["upgrade"] for row in rows if "upgrade" in row]
    return {
        "label": setting.label,
        "draws": len(rows),
        "truth": truth,
        "mean": float(truth + errors.mean()),
        "spread": float(errors.std(ddof=1)) if len(errors) > 1 else None,
        "probe": float(np.mean([e["probe"] for e in own])),
        "within": bool(abs(errors.mean()) <= limit),
        "covered": float(np.mean(holds)),
        "flagged": float(np.mean([not e["converged"] for e in own])),
        "tight_and_wrong": int(sum(wrong)),
        "lost": float(np.mean([e["missing"] for e in own])),
        "upgrade": float(np.mean([e["value"] for e in ups])) if ups else None,
        "upgrade_holds_zero": float(np.mean([e["low"] <= 0 <= e["high"] for e in ups])) if ups else None,
    }


def read_calibration(made: Calibration, store: Store) -> dict[str, Any]:
    """Everything on the page, as JSON values."""
    plan = made.plan
    assert plan.ledger is not None
    summary = as_json(summarise(plan, store))
    ledger = summary["ledger"]
    partitions = _partitions(plan, store)
    bits = _bits_rows(plan, store, ledger, partitions)
    success, verdicts = _success_rows(plan, summary, partitions)
    known = [{"name": k.distribution, **store.meta(k)} for k in made.known]
    for row in known:
        limit = max(0.1, 0.03 * row["truth"]) if row["gaussian"] else max(ABSOLUTE, RELATIVE * row["truth"])
        row["within"] = abs(row["estimate"]["value"] - row["truth"]) <= limit
        row["covered"] = row["estimate"]["low"] <= row["truth"] <= row["estimate"]["high"]
    cover = [{"quantity": c.quantity, **c.spec["setting"], **store.meta(c)} for c in made.coverage]
    shares = {q: [c["share"] for c in cover if c["quantity"] == q] for q in QUANTITIES}
    simulated = store.meta(made.verdicts)
    wide = [_wide_row(w.setting, store.meta(w)["truth"], store.meta(w)["rows"]) for w in made.wide]
    return {
        "known": known,
        "wide": wide,
        "bits": bits,
        "success": success,
        "verdicts": verdicts,
        "simulated": simulated,
        "trained": accuracy(verdicts),
        "coverage": cover,
        "verdict_accuracy": simulated["accuracy"],
        "interval_coverage": {q: [min(s), max(s)] for q, s in shares.items()},
        "bits_within": sum(b["within"] for b in bits) / len(bits),
        "bits_covered": sum(b["covered"] for b in bits) / len(bits),
        "machine": summary["machine"],
        "version": summary["version"],
    }


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
    plan: Plan, store: Store, ledger: dict[str, Any], partitions: dict[Any, Any]
) -> list[dict[str, Any]]:
    """Estimated and true bits of every quantity of the ledger."""
    std = _normaliser(plan, store).std.astype(np.float64)
    truth = channel.ChannelTruth(std, ledger["resolution"]["sigma"])
    assert plan.ledger is not None
    labels = {c.name: partitions[c][0] for c in plan.ledger.codes}
    rows = [("demand", "", "", truth.demand(), ledger["demand"])]
    for e in ledger["encoders"]:
        rows.append(("supply", e["encoder"], "", truth.information(partitions[e["encoder"]]), e["supply"]))
    for c in ledger["codes"]:
        rows.append(("kept", "", c["code"], truth.information(labels[c["code"]]), c["kept"]))
    for p in ledger["pairs"]:
        known = truth.gap(partitions[p["encoder"]], labels[p["code"]])
        rows.append(("gap", p["encoder"], p["code"], known, p["gap"]))
    return [
        {
            "quantity": quantity,
            "encoder": encoder,
            "code": code,
            "truth": known,
            "estimate": found,
            "within": abs(found["value"] - known) <= max(ABSOLUTE, RELATIVE * known),
            "covered": found["low"] <= known <= found["high"],
        }
        for quantity, encoder, code, known, found in rows
    ]


def _success_rows(
    plan: Plan, summary: dict[str, Any], partitions: dict[Any, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Success of each cell, and each verdict, against the truth of a policy that draws from its posterior."""
    assert plan.ledger is not None
    ends: dict[str | None, np.ndarray] = {None: channel.goals()}
    ends |= {str([list(p) for p in c.codebook or ()]): partitions[c][1] for c in plan.ledger.codes}

    def true_rate(encoder: str, codebook: str | None) -> float:
        return channel.success_sampling(partitions[encoder], ends[codebook])

    rates = {}
    success = []
    for c in summary["cells"]:
        book = None if c["codebook"] is None else str(c["codebook"])
        rates[c["encoder"], book] = true_rate(c["encoder"], book)
        success.append(
            {
                "label": c["label"],
                "truth": rates[c["encoder"], book],
                "rate": c["rate"],
                "training": in_words(c["convergence"]),
            }
        )
    labels = {c["label"]: c for c in summary["cells"]}
    verdicts = []
    for v in summary["verdicts"]:
        c = labels[v["label"]]
        book = None if c["codebook"] is None else str(c["codebook"])
        own = rates[c["encoder"], book]
        truth = {"encoder": rates["oracle", book] - own}
        if book is not None:
            truth["code"] = rates[c["encoder"], None] - own
        verdicts.append(
            {"label": v["label"], "truth": truth, "sentence": v["sentence"], **judged(truth, v["stage"])}
        )
    return success, verdicts
