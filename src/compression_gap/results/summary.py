"""The summary of a study, from its evidence: what the report and the terminal show. One path for all measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast, overload

import numpy as np

from .. import __version__
from ..artifacts.probe import Probe
from ..artifacts.tokenizer import FittedTokenizer
from ..encoders.ladder import is_pose
from ..errors import UserError
from ..nn.convergence import convergence, end_of_fit
from ..statistics.intervals import holm
from ..store.graph import Graph
from ..store.outcome import lasting_failure
from ..store.store import Store
from ..study.actions import study_codes
from ..study.base import StudyPlan
from ..study.cells import Cell as StudyCell
from ..study.file import Study
from ..study.offline import OfflinePlan
from ..study.plan import Plan
from .chunk_error import ChunkErrors
from .hypothesis import hypothesis
from .information import read_ledger
from .measurement import G, Measurement, code_levels
from .records.bits import Ledger
from .records.cells import Cell, Curve, Failure, Outcome, Trainings
from .records.comparisons import Comparison, EncoderGain
from .records.study import (
    ErrorSummary,
    Found,
    ProbeScore,
    SuccessSummary,
    Summary,
    TokenizerFit,
)
from .rounds import narrowed, sequential, with_looks
from .success import SuccessRates
from .versions import version_words


@overload
def summarise(plan: Plan, store: Store) -> SuccessSummary: ...


@overload
def summarise(plan: OfflinePlan, store: Store) -> ErrorSummary: ...


def summarise(plan: Plan | OfflinePlan, store: Store) -> SuccessSummary | ErrorSummary:
    """Everything the report and the terminal show. Raises ``UserError`` if nothing was measured yet."""
    if plan.study.data is None:
        return _summary(plan, SuccessRates(cast(Plan, plan), store), store)
    return _summary(plan, ChunkErrors(cast(OfflinePlan, plan), store), store)


def _summary(
    plan: StudyPlan[Any], of: Measurement[G, Outcome, Found], store: Store
) -> Summary[Outcome, Found]:
    """The summary of a measurement."""
    study = plan.study
    if not of.measured:
        raise UserError(f"the study '{study.name}' has no results yet; run it first: cgap study run")
    cells = [_cell(of, g, store) for g in of.groups]
    contrasts = with_looks(of, of.comparisons())
    adjusted = holm([c.found.p for c in contrasts])
    contrasts = [replace(c, p_holm=p) for c, p in zip(contrasts, adjusted, strict=True)]
    found = of.found(cells)
    return Summary(
        study=study,
        version=__version__,
        tasks=plan.tasks,
        headline=of.headline(contrasts, found),
        fixed=fixed_fits(study),
        cells=cells,
        references=of.references(),
        contrasts=contrasts,
        probes=probes(plan.probes, store),
        tokenizers=tokenizers(plan, store),
        ledger=_ledger(plan, of, store, contrasts),
        machine=machine(plan.cells, store),
        version_words=version_words(plan, store, plan.taken),
        found=found,
        sequential=sequential(of),
    )


def _cell(of: Measurement[G, Outcome, Found], group: G, store: Store) -> Cell[Outcome]:
    cell = group.cell
    return Cell(
        label=of.label(group),
        encoder=cell.encoder,
        action=cell.representation,
        size=cell.size,
        task=cell.task,
        code=code_levels(cell.code, cell.fitted, store),
        trained_on=cell.trained_on,
        executed=cell.executed,
        seeds=group.seeds,
        outcome=of.outcome(group),
        per_seed=None if group.rows is None else of.seed_means(group.rows),
        decode_failures=group.decode_failures,
        selected=of.selected(group),
        training=trained(group.cells, store),
    )


def probes(of: Mapping[str, Probe], store: Store) -> list[ProbeScore]:
    """What a linear reader recovers of the true state from each frozen encoder's features (``encoders.probe``)."""
    out = []
    for encoder, probe in of.items():
        if store.recorded(probe):
            found = probe.load(store)
            if found.mean is not None:  # something moves in these demonstrations
                own = ProbeScore(encoder=encoder, mean=found.mean, tasks=found.tasks, features=found.features)
                out.append(own)
    return out


def _ledger(
    plan: StudyPlan[Any], of: Measurement[G, Any, Any], store: Store, contrasts: Sequence[Comparison]
) -> Ledger | None:
    """Bits, and success predicted from them; None without a ledger section, or while a part is missing.

    Of a study that grows by seeds: of the cells that were looked at.
    """
    steps = plan.ledger if plan.study.until is None else narrowed(plan, of).ledger
    if steps is None or not all(store.has(r) for r in steps.wanted):
        return None
    found = read_ledger(steps, store)
    if plan.study.data is not None:
        return found
    most = max(plan.study.factors.demos)  # the demonstrations that the ledger is about
    own = [c for c in contrasts if isinstance(c.about, EncoderGain) and c.about.demos == most]
    return replace(found, hypothesis=hypothesis(found, own))


def trained(cells: Sequence[StudyCell[Any]], store: Store) -> Trainings:
    """What the trainings of one cell's replicates report."""
    there = [(c, store.meta(c.policy)) for c in cells if store.recorded(c.policy)]
    metas = [meta for _, meta in there]
    failures = []
    for c in cells:
        if (file := lasting_failure(store, c.policy)) is not None:
            failures.append(Failure(seed=c.seed, record=file.read_text()))
    ends = [convergence(m["curve"]["validation"]) for m in metas]
    return Trainings(
        failures=failures,
        convergence=ends,
        converged=all(e == "converged" for e in ends) if ends else None,
        parameters=metas[0]["parameters"] if metas else None,
        flops=metas[0]["flops"] if metas else None,
        latency_seconds=float(np.median([m["latency_seconds"] for m in metas])) if metas else None,
        train_seconds=float(np.mean([m["train_seconds"] for m in metas])) if metas else None,
        curves=[Curve(seed=c.seed, **meta["curve"]) for c, meta in there],
        policies=[str(store.path(c.policy)) for c, _ in there if store.has(c.policy)],
    )


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


def tokenizers(plan: Graph, store: Store) -> list[TokenizerFit]:
    """The fitted tokenizers of a graph: capacity, held-out distortion, convergence."""
    out = []
    for step in plan.steps.values():
        if isinstance(step, FittedTokenizer) and store.recorded(step):
            meta = store.meta(step)
            out.append(
                TokenizerFit(
                    label=step.label,
                    capacity_bits=meta["capacity_bits"],
                    distortion=meta["distortion"],
                    convergence=end_of_fit(meta["training"]),
                    train_seconds=meta["build_seconds"],
                )
            )
    return out


def machine(cells: Sequence[StudyCell[Any]], store: Store) -> dict[str, str]:
    """What the first policy that is there was trained on."""
    for cell in cells:
        if store.recorded(cell.policy):
            return dict(store.meta(cell.policy)["machine"])
    return {}
