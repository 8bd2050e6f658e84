"""Calibration: every instrument against a known truth (THEORY.md, section 8), as a plan of its own.

Estimators alone on distributions with known information; the channel with its dials, with fitted tokenizers and
trained policies, through the same study, ledger and verdicts as anyone's; verdicts on simulated studies of the
channel's whole grid of dials; and the coverage of success intervals. All of it resumes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..demos import Normaliser
from ..information import channel_truth as channel
from ..information.estimate import estimate
from ..information.known import distributions
from ..information.wide import SHARES, SPECTRA, Wide
from ..nn.convergence import in_words
from ..sims.channel import quantise
from ..store.store import Recipe, Store
from .file import load_study
from .plan import Code, Graph, Plan, make_plan

if TYPE_CHECKING:
    from ..artifacts.builders import Job
    from ..statistics.coverage import Quantity

DRAWS = 20  # of each setting of known information among many columns
WIDE_DENOISING = {"steps": 100, "seeds": 2, "batch_size": 256, "width": 128, "neighbours": 1024}
DIFFER = 0.05  # single-stage gains that differ by less are a tie
DIALS = (1, 2, 3, 4, 5)  # bits a dimension, of the encoder and of the code in simulated studies
SEED_SPREAD = 0.03
SAMPLES = {True: (8_000, 300), False: (20_000, 1_000)}  # of each distribution, and training steps
STUDIES = {
    True: (2, 200),
    False: (20, 1000),
}  # simulated: for verdicts (at each pair of dials and number of seeds), for coverage
QUANTITIES: tuple[Quantity, ...] = ("rate", "delta", "interaction", "log odds", "waterfall")
SEEDS = (1, 2, 3, 5)  # of simulated studies
RELATIVE, ABSOLUTE = 0.1, 0.3  # of the channel: within 10 % or 0.3 bit


@dataclass(kw_only=True)
class Calibration(Graph):
    """The steps of the study, and those of the other parts."""

    plan: Plan
    known: list[tuple[str, Recipe]] = field(default_factory=list)
    wide: list[tuple[Wide, Recipe]] = field(default_factory=list)
    verdicts: Recipe | None = None
    coverage: list[tuple[str, Recipe]] = field(default_factory=list)

    @property
    def wanted(self) -> list[Recipe]:
        """What the page reads."""
        own = [r for _, r in (*self.known, *self.wide, *self.coverage)]
        return [*self.plan.wanted, *own, *([] if self.verdicts is None else [self.verdicts])]


def plan_calibration(quick: bool) -> Calibration:
    """All steps; ``quick``: fewer of them, smaller."""
    from ..statistics.coverage import settings

    plan = make_plan(load_study(None, "calibration-quick" if quick else "calibration"))
    made = Calibration(plan=plan, steps=plan.steps)
    samples, steps = SAMPLES[quick]
    for known in distributions(quick):
        spec = {"distribution": known.name, "samples": samples, "steps": steps}
        made.known.append((known.name, made.add("known", spec, {}, f"known: {known.name}", 0.06 * steps)))
    for many, draws in wide_settings(quick):
        # Linear regression finds what is linear.
        how = {**WIDE_DENOISING, "reduction_steps": 400 if many.nonlinear else 100}
        spec = {"setting": asdict(many), "draws": draws, "denoising": how}
        cost = draws * (8 + 0.03 * many.nuisance)
        made.wide.append((many, made.add("wide", spec, {}, f"known: {many.label}", cost)))
    spec = {"dials": list(DIALS), "studies": STUDIES[quick][0], "seeds": list(SEEDS), "episodes": 400}
    made.verdicts = made.add("verdicts", spec, {}, "verdicts on simulated studies", 60)
    studies = STUDIES[quick][1]
    for quantity, setting in ((q, s) for q in QUANTITIES for s in settings(q, quick)):
        spec = {"quantity": quantity, "setting": asdict(setting), "studies": studies}
        label = f"coverage of the {quantity}, {setting}"
        made.coverage.append((quantity, made.add("coverage", spec, {}, label, 0.02 * studies)))
    return made


def wide_settings(quick: bool) -> list[tuple[Wide, int]]:
    """Known information among many columns, and how many draws of each."""
    if quick:
        return [(Wide(253, "power law"), 1), (Wide(253, "white", 30), 1)]
    settings = [Wide(0), Wide(0, episodes=30)]
    settings += [
        Wide(nuisance, spectrum, episodes)
        for nuisance in (61, 253, 765)
        for spectrum in SPECTRA
        for episodes in (200, 30)
    ]
    return [(s, DRAWS) for s in settings] + [(Wide(n, nonlinear=True), 5) for n in (0, 20, 100)]


def build_wide(job: Job) -> dict[str, Any]:
    """Estimates of one setting's draws: of c alone, of the features, and of the upgrade that is worth nothing."""
    from ..information.immse import Denoising
    from ..information.wide import measured

    setting, draws, how = Wide(**job.spec["setting"]), job.spec["draws"], Denoising(**job.spec["denoising"])
    rows = []
    for draw in range(draws):
        rows.append({name: asdict(e) for name, e in measured(setting, draw, how).items()})
        job.progress(draw + 1, draws)
    return {"truth": setting.bits, "rows": rows}


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


def build_known(job: Job) -> dict[str, Any]:
    """I-MMSE and the probe on one distribution: an 80/10/10 split, and half of the training split."""
    from ..information.gaussian import Part
    from ..information.immse import Denoising, conditional_rates

    known = next(k for k in distributions() if k.name == job.spec["distribution"])
    n = job.spec["samples"]
    a, c = known.draw(n, np.random.default_rng(0))
    held = n // 10
    ends = {"train": n - 2 * held, "validation": n - held, "test": n}
    first = {"train": 0, "validation": ends["train"], "test": ends["validation"]}
    values, probe, seeds = {}, np.zeros(0), np.zeros(0)
    how = Denoising(steps=job.spec["steps"], batch_size=256)
    for share in SHARES:
        rows = {s: np.arange(first[s], ends[s]) for s in ends}
        rows["train"] = rows["train"][::share]

        def progress(done: int, total: int, share: int = share) -> None:
            job.progress(done + total * SHARES.index(share), len(SHARES) * total)

        rates, _ = conditional_rates(
            {s: a[r] for s, r in rows.items()},
            {"c": Part({s: c[r] for s, r in rows.items()})},
            {"": (), "c": ("c",)},
            rows["train"],
            [known.sigma],
            how if share == 1 else how.shared(share),
            progress=progress,
        )
        values[share] = (rates[""].bits - rates["c"].bits)[:, 0]
        seeds = (rates[""].by_seed - rates["c"].by_seed)[:, 0]
        probe = (rates[""].linear - rates["c"].linear)[:, 0]
    episode = np.arange(held)
    return {
        "truth": known.bits,
        "gaussian": known.gaussian,
        "dimensions": known.dimensions,
        "estimate": asdict(estimate(values, episode, by_seed=seeds, probe=probe)),
        "probe": asdict(estimate({1: probe}, episode)),
    }


def build_verdicts(job: Job) -> dict[str, Any]:
    """Verdicts on studies drawn from the truth of nested dials: paired episodes, seeds that differ."""
    from ..statistics.bottleneck import locate

    spec, rng = job.spec, np.random.default_rng(0)
    rate = _nested(spec["dials"])
    pairs = list(itertools.product(spec["seeds"], spec["dials"], spec["dials"]))
    strata = np.zeros(spec["episodes"], int)
    rows: dict[int, list[dict[str, Any]]] = {seeds: [] for seeds in spec["seeds"]}
    for done, (count, z, t) in enumerate(pairs):
        truth = {"encoder": rate[None, t] - rate[z, t], "code": rate[z, None] - rate[z, t]}
        for _ in range(spec["studies"]):
            luck = rng.random(spec["episodes"])  # an episode is as hard for one policy as for another

            def outcomes(p: float, luck: np.ndarray = luck, count: int = count) -> np.ndarray:
                seeds = np.clip(p + SEED_SPREAD * rng.standard_normal((count, 1)), 0, 1)
                own = rng.random((count, len(luck)))
                return np.asarray((np.where(rng.random(own.shape) < 0.5, luck, own) < seeds).astype(float))

            cell = outcomes(rate[z, t])
            relaxed = {
                "encoder": (outcomes(rate[None, t]), "relaxing the encoder"),
                "code": (outcomes(rate[z, None]), "relaxing the code"),
            }
            verdict = locate(cell, relaxed, outcomes(rate[None, None]), strata, advise=False)
            rows[count].append(_judged(truth, verdict.stage))
        job.progress(done + 1, len(pairs))
    several = [row for seeds, found in rows.items() if seeds > 1 for row in found]
    by_seeds = [{"seeds": seeds, **_accuracy(found)} for seeds, found in rows.items()]
    return {**_accuracy(several), "by_seeds": by_seeds}


def _nested(dials: Sequence[int]) -> dict[tuple[int | None, int | None], float]:
    """Success by bits of Z and T, None for the whole truth: a policy that draws from its posterior."""
    where = channel.goals()
    out = {}
    for z, t in itertools.product((*dials, None), (*dials, None)):
        seen = np.arange(len(where)) if z is None else channel.cells(z, where)
        executed = where if t is None else quantise(where, t)
        out[z, t] = channel.success_sampling(seen, executed)
    return out


def _judged(truth: dict[str, float], stage: str | None) -> dict[str, Any]:
    """One verdict against true single-stage gains."""
    best = max(truth, key=lambda s: truth[s])
    lead = truth[best] - max([0.0, *(g for s, g in truth.items() if s != best)])
    return {"expected": best if lead >= DIFFER else None, "stage": stage}


def _accuracy(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares of right and wrong names where one stage leads, and of names where none does."""
    lead, tie = [r for r in rows if r["expected"]], [r for r in rows if not r["expected"]]
    right = sum(r["stage"] == r["expected"] for r in lead)
    wrong = sum(r["stage"] not in (None, r["expected"]) for r in lead)
    return {
        "cells": len(lead),
        "right": right,
        "wrong": wrong,
        "unresolved": len(lead) - right - wrong,
        "accuracy": right / len(lead) if lead else None,
        "ties": len(tie),
        "named_in_ties": sum(r["stage"] is not None for r in tie),
    }


def build_coverage(job: Job) -> dict[str, Any]:
    """One setting's share of intervals that hold the truth."""
    from ..statistics.coverage import Runs, Setting, coverage

    fields = job.spec["setting"]
    setting = Setting(**{**fields, "cells": tuple(Runs(**c) for c in fields["cells"])})
    return asdict(coverage(job.spec["quantity"], setting, job.spec["studies"], progress=job.progress))


def read_calibration(made: Calibration, store: Store) -> dict[str, Any]:
    """Everything on the page, as JSON values."""
    from ..results.records.json import as_json
    from ..results.summary import summarise

    plan = made.plan
    assert plan.ledger is not None
    assert made.verdicts is not None
    summary = as_json(summarise(plan, store))
    ledger = summary["ledger"]
    partitions = _partitions(plan, store)
    bits = _bits_rows(plan, store, ledger, partitions)
    success, verdicts = _success_rows(plan, summary, partitions)
    known = [{"name": n, **store.manifest(r)["meta"]} for n, r in made.known]
    for row in known:
        limit = max(0.1, 0.03 * row["truth"]) if row["gaussian"] else max(ABSOLUTE, RELATIVE * row["truth"])
        row["within"] = abs(row["estimate"]["value"] - row["truth"]) <= limit
        row["covered"] = row["estimate"]["low"] <= row["truth"] <= row["estimate"]["high"]
    cover = [
        {"quantity": q, **store.manifest(r)["spec"]["setting"], **store.manifest(r)["meta"]}
        for q, r in made.coverage
    ]
    shares = {q: [c["share"] for c in cover if c["quantity"] == q] for q in QUANTITIES}
    simulated = store.manifest(made.verdicts)["meta"]
    wide = [
        _wide_row(w, **{k: store.manifest(r)["meta"][k] for k in ("truth", "rows")}) for w, r in made.wide
    ]
    return {
        "known": known,
        "wide": wide,
        "bits": bits,
        "success": success,
        "verdicts": verdicts,
        "simulated": simulated,
        "trained": _accuracy(verdicts),
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
    from ..tokenizers import load_tokenizer

    where = channel.goals()
    out: dict[str | Code, Any] = {"blind": np.zeros(len(where), np.int64), "oracle": np.arange(len(where))}
    for encoder in plan.study.factors.encoder:
        out[encoder] = channel.cells(int(encoder.removeprefix("oracle-").removesuffix("b")), where)
    assert plan.ledger is not None
    normaliser = _normaliser(plan, store)
    chunks = normaliser.normalise(channel.chunks(where))
    for code in plan.ledger.codes:
        step = plan.steps[plan.ledger.health_of(code).key]
        tokenizer = load_tokenizer(store.open(step.inputs["tokenizer"]))
        tokens = tokenizer.encode(chunks)
        labels = np.unique(tokens.ids, axis=0, return_inverse=True)[1].reshape(-1)
        ends = channel.end_points(normaliser.denormalise(tokenizer.decode(tokens).chunk))
        out[code] = labels, ends
    return out


def _normaliser(plan: Plan, store: Store) -> Normaliser:
    (recipe,) = {
        s.recipe.key: s.recipe for s in plan.steps.values() if s.recipe.kind == "normaliser"
    }.values()
    return Normaliser.load(store.open(recipe))


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
            {"label": v["label"], "truth": truth, "sentence": v["sentence"], **_judged(truth, v["stage"])}
        )
    return success, verdicts
