"""Success in a simulator as a study's measurement: episodes, experts as references, verdicts on the bottleneck."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from ..artifacts.episodes import Episodes
from ..statistics import intervals as statistics
from ..statistics.variance import RATES
from ..store.store import Store
from ..study.cells import Reference as StudyReference
from ..study.plan import Plan
from . import comparisons
from .codes import code_costs, code_sentences
from .evidence import MeasuredReference, SuccessGroup, groups, measured_reference, strata
from .matched_head import swaps
from .measurement import Asked, Measurement, Question, code_levels, code_words
from .published import published_beside
from .records.cells import Actor, Cell, Checkpoints, Reference, Selected, Success, TaskRate
from .records.comparisons import Comparison, Refusal
from .records.study import SelectionRule, SimulatorFindings


class SuccessRates(Measurement[SuccessGroup, Success, SimulatorFindings]):
    """Success by initial state."""

    outcomes, unit = RATES, 100.0

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store, self.study, self.encoders = plan, store, plan.study, plan.study.encoders
        self.groups = groups(plan, store)
        self.runs = [m for r in plan.references if (m := measured_reference(plan, store, r)) is not None]
        self.strata = strata(plan)

    @property
    def whole(self) -> list[SuccessGroup]:
        """All but the matched-head ablation's mixed cells (trained with the code or executed with it): its own tables."""
        return [g for g in self.groups if (g.cell.trained_on == "coded") == (g.cell.executed == "snapped")]

    @property
    def measured(self) -> bool:
        """Whether there are episodes of a policy or a reference."""
        return bool(self.runs) or any(g.rows is not None for g in self.groups)

    def outcome(self, group: SuccessGroup) -> Success:
        """Success of a configuration."""
        return self._success(group.rows, group.cell.demos)

    def _success(self, rows: np.ndarray | None, demos: int | None) -> Success:
        return Success(
            demos=demos,
            episodes=len(self.plan.protocol.episodes()),
            rate=None if rows is None else statistics.rate_interval(rows, self.strata),
            per_task=None if rows is None else self._per_task(rows),
        )

    def _per_task(self, rows: np.ndarray) -> list[TaskRate]:
        out = []
        for i, task in enumerate(self.plan.tasks):
            own = rows[:, self.strata == i]
            rate = statistics.rate_interval(own, np.zeros(own.shape[1], int))
            out.append(TaskRate(**vars(rate), task=task))
        return out

    def selected(self, group: SuccessGroup) -> Selected:
        """Success of every evaluated checkpoint, and which one counts."""
        if group.by_step is None:
            return Selected(selection=None)
        final = float(group.by_step[:, -1].mean())
        return Selected(
            selection=Checkpoints(
                select=self.study.rollout.select,
                steps=[
                    *(step for step, _ in group.cell.checkpoints),
                    group.cell.policy.training["steps"],
                ],
                rates=[[None if np.isnan(v) else float(v) for v in row] for row in group.by_step],
                chosen=group.chosen,
                final=final,
                optimism=statistics.peak_optimism(
                    len(self.plan.protocol.episodes()), group.by_step.shape[1], final
                ),
            )
        )

    def references(self) -> list[Reference[Success]]:
        """The experts that were rolled out."""
        return [self._reference(m) for m in self.runs]

    def _reference_label(self, r: StudyReference[Episodes]) -> str:
        """The actor, with the levels of its code that the study has several of."""
        name = r.actor
        if r.code is not None:
            several = len({x.code.tokenizer for x in self.plan.references if x.code is not None}) > 1
            which = [r.code.tokenizer] * several + code_words(r.code, self.study)
            which += [f"{r.demos} demos"] * (len(self.study.factors.demos) > 1)
            name += f" ({', '.join(which)})" if which else ""
        return name

    def _reference(self, of: MeasuredReference) -> Reference[Success]:
        r = of.reference
        return Reference(
            label=self._reference_label(r),
            of=Actor(actor=r.actor),
            code=code_levels(r.code, r.fitted, self.store),
            fitted_seeds=of.seeds,
            outcome=self._success(of.success, r.demos),
        )

    def comparisons(self) -> list[Comparison]:
        """Encoder gains and interactions; of a study of codes alone, what each code costs the expert."""
        if not self.encoders:
            return code_costs(self.runs, self.strata, self.store)
        return comparisons.contrasts(self, self.whole)

    def asked(self, question: Question) -> list[Asked[SuccessGroup]]:
        """The bottleneck of each policy under test, each Δ_enc, or each interaction."""
        if question == "bottleneck":
            return comparisons.asked_of_stages(self, self.whole)
        gains = comparisons.encoder_gains(self, self.whole)
        return (
            self.asked_of_gains(gains) if question == "upgrade" else comparisons.asked_of_pairs(self, gains)
        )

    @cached_property
    def refused(self) -> list[Refusal]:
        """References that bound nothing."""
        return comparisons.refusals(self, self.whole, self.runs)

    def found(self, cells: Sequence[Cell[Success]]) -> SimulatorFindings:
        """Trends, waterfalls, verdicts, the matched-head ablation, the published table."""
        refused = self.refused
        return SimulatorFindings(
            protocol=self.plan.protocol,
            selection=_rule(self.plan),
            trends=comparisons.trends(self, self.whole),
            refusals=refused,
            waterfalls=comparisons.waterfalls(self, self.whole, self.runs, refused),
            verdicts=comparisons.verdicts(self, self.whole, refused, cells),
            swaps=swaps(self, self.groups),
            published=published_beside(self.study, self.plan.protocol, cells),
        )

    def headline(self, contrasts: Sequence[Comparison], found: SimulatorFindings) -> list[str]:
        """One sentence per action representation, for the best encoder of the file that is not a limit.

        Of a study of codes alone: which of them cost the expert success, and which cannot be told.
        """
        if not self.encoders:
            return code_sentences(self.study.suite, contrasts)
        if not found.verdicts:
            return [
                "No stage could be replaced by an upper bound: the study needs an encoder between blind and oracle, "
                "and evidence for the oracle policy."
            ]
        last = found.verdicts[-1].encoder
        chosen: dict[str, str] = {}
        for v in found.verdicts:
            if v.encoder == last:
                ended = "; ".join(f"{name} ({how})" for name, how in v.unconverged.items())
                more = f" Trainings not converged: {ended}." if ended else ""
                chosen.setdefault(v.action, v.verdict.sentence + more)
        return [f"On {self.study.suite} with {last} and {a}, {s}" for a, s in chosen.items()]


def _rule(plan: Plan) -> SelectionRule | None:
    """Whether rates are peaks, in words for the report; None where they are of the final checkpoint."""
    rollout = plan.study.rollout
    if rollout.select == "final":
        return None
    return SelectionRule(checkpoints=rollout.checkpoints, mark=f"peak of {rollout.checkpoints} (optimistic)")
