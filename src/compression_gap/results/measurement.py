"""What a study measures: success in a simulator, or chunk errors on recordings. Everything else is one path.

A measurement brings rows of outcomes for each configuration, and says in which unit, with which references, and under
which labels they stand. It never compares two kinds of outcomes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from ..artifacts.tokenizer import FittedTokenizer
from ..statistics import intervals as statistics
from ..statistics.rounds import Rounds, Weights, in_rounds
from ..statistics.sequential import LEAST_SEEDS
from ..statistics.variance import Outcomes
from ..store.outcome import lasting_failure
from ..store.store import Store
from ..study.cells import Cell as StudyCell
from ..study.cells import E
from ..study.file import Study, Until
from ..tokenizers.code import Code
from ..tokenizers.levels import codebook_name
from .records.cells import Cell, CodeLevels, Outcome, Reference, Selected
from .records.comparisons import Comparison, EncoderGain, ErrorChange
from .records.study import Found


@dataclass(frozen=True, eq=False)
class Group(Generic[E]):
    """The replicates of one configuration: the same levels, several training seeds."""

    cells: tuple[StudyCell[E], ...]
    seeds: tuple[int, ...]  # those with evidence
    rows: np.ndarray | None  # float [seeds, initial states or held-out episodes]; None without evidence
    decode_failures: float | None

    @property
    def cell(self) -> StudyCell[E]:
        """A cell that stands for the levels."""
        return self.cells[0]

    @property
    def evidence(self) -> np.ndarray:
        """The rows of a group that has some."""
        assert self.rows is not None
        return self.rows


def replicates(cells: Iterable[StudyCell[E]]) -> list[tuple[StudyCell[E], ...]]:
    """The cells that share their levels, in the plan's order."""
    by_levels: dict[tuple[Any, ...], list[StudyCell[E]]] = {}
    for cell in cells:
        by_levels.setdefault(cell.levels, []).append(cell)
    return [tuple(of) for of in by_levels.values()]


G = TypeVar("G", bound=Group[Any])
Question = Literal["bottleneck", "upgrade", "interaction"]


@dataclass(frozen=True, eq=False)
class Asked(Generic[G]):
    """One question of a study that grows by seeds: its configurations, and the contrasts on which it hangs, by label.

    ``beside``: configurations that grow along without a contrast.
    """

    label: str
    cells: Sequence[G]
    contrasts: Mapping[str, Weights]
    beside: Sequence[G] = ()


class Measurement(ABC, Generic[G, Outcome, Found]):
    """The measurement of one study, read from its store."""

    outcomes: ClassVar[Outcomes]  # what is known of them before any is seen
    unit: ClassVar[float]  # what a study file's widths are divided by: rates are written in percentage points
    study: Study
    store: Store
    groups: Sequence[G]
    strata: np.ndarray  # the task of each column of rows
    encoders: Sequence[str]  # from the lower limit to the upper

    @property
    @abstractmethod
    def measured(self) -> bool:
        """Whether anything was."""

    @abstractmethod
    def outcome(self, group: G) -> Outcome:
        """What stands beside a configuration."""

    def selected(self, group: G) -> Selected | None:
        """Which of several checkpoints count; None where a measurement knows none."""
        return None

    @abstractmethod
    def references(self) -> list[Reference[Outcome]]:
        """Those with evidence."""

    @abstractmethod
    def comparisons(self) -> list[Comparison]:
        """All of them; ``p_holm`` is adjusted afterwards."""

    @abstractmethod
    def asked(self, question: Question) -> list[Asked[G]]:
        """What a question means here, of the configurations with evidence.

        Raises ``UserError`` for one that this measurement cannot answer.
        """

    @property
    def until(self) -> Until | None:
        """What a study asks that grows by seeds; None of any other, and where it has too few to be looked at."""
        return self.study.until if len(self.study.factors.seed) >= LEAST_SEEDS else None

    @cached_property
    def rounds(self) -> list[tuple[Asked[G], Rounds]]:
        """What the looks of a study with ``until`` say of each of its questions; none without."""
        until, most = self.until, len(self.study.factors.seed)
        if until is None:
            return []
        return [
            (
                asked,
                in_rounds(
                    [self.in_order(g) for g in asked.cells],
                    list(asked.contrasts.values()),
                    self.strata,
                    most,
                    within=None if until.within is None else until.within / self.unit,
                    outcomes=self.outcomes,
                ),
            )
            for asked in self.asked(until.question)
        ]

    def in_order(self, group: G) -> np.ndarray:
        """The rows of a group's first seeds, up to the first one that is still to come [seeds, states]."""
        to_come = [s for s in self.study.factors.seed if s not in (*group.seeds, *self.diverged(group))]
        order = list(self.study.factors.seed)
        there = [s for s in group.seeds if not to_come or order.index(s) < order.index(to_come[0])]
        return group.evidence[: len(there)]

    def diverged(self, group: G) -> set[int]:
        """The seeds whose training has failed for good: others take their places."""
        return {c.seed for c in group.cells if lasting_failure(self.store, c.policy) is not None}

    @abstractmethod
    def found(self, cells: Sequence[Cell[Outcome]]) -> Found:
        """What this kind of study says beyond every study. ``cells``: of the summary."""

    @abstractmethod
    def headline(self, contrasts: Sequence[Comparison], found: Found) -> list[str]:
        """The sentences at the top of the page."""

    def seed_means(self, rows: np.ndarray) -> list[float]:
        """The mean of each seed: over the tasks of a task's mean."""
        tasks = sorted(set(self.strata[: rows.shape[1]]))
        return [float(np.mean([row[self.strata == t].mean() for t in tasks])) for row in rows]

    def label(self, group: G) -> str:
        """A configuration's levels in words; factors with one level are left out."""
        return label(group.cell, self.study)

    def label_without_encoder(self, group: G) -> str:
        """A configuration's levels without its encoder."""
        return " · ".join(words(group.cell, self.study))

    def ladders(self, found: Sequence[G]) -> list[list[G]]:
        """Configurations with evidence that differ in the encoder alone, in the order of the encoders."""
        out: dict[tuple[Any, ...], list[G]] = {}
        order = {e: i for i, e in enumerate(self.encoders)}
        for g in found:
            if g.rows is not None:
                out.setdefault(g.cell.others, []).append(g)
        return [sorted(ladder, key=lambda g: order[g.cell.encoder]) for ladder in out.values()]

    def change(self, low: G, high: G, about: EncoderGain | ErrorChange) -> Comparison:
        """Δ_enc: the second configuration less the first, which differ in the encoder alone."""
        found = statistics.contrast(
            [high.evidence, low.evidence], [1, -1], self.strata, outcomes=self.outcomes
        )
        label = self.label_of_gain(low, high)
        return Comparison(kind="delta_enc", label=label, about=about, found=found, p_holm=found.p)

    def label_of_gain(self, low: G, high: G) -> str:
        """Which encoders, under which configuration."""
        return f"Δ_enc {high.cell.encoder} − {low.cell.encoder} · {self.label_without_encoder(low)}"

    def asked_of_gains(self, gains: Sequence[tuple[G, G]]) -> list[Asked[G]]:
        """What each Δ_enc is, of these pairs."""
        labels = [self.label_of_gain(low, high) for low, high in gains]
        return [Asked(name, pair, {name: (-1.0, 1.0)}) for name, pair in zip(labels, gains, strict=True)]


def label(cell: StudyCell[Any], study: Study) -> str:
    """A cell's levels in words; factors with one level are left out."""
    action, *rest = words(cell, study)
    return " · ".join([action, cell.encoder, *rest])


def words(cell: StudyCell[Any], study: Study) -> list[str]:
    """The action representation, then the levels of what the study has several of."""
    sizes = [cell.size] if len(study.factors.size) > 1 else []
    codes, tasks = code_words(cell.code, study), conditioning_words(cell.task, study)
    several = cell.demos is not None and len(study.factors.demos) > 1
    return [cell.representation, *sizes, *codes, *tasks, *([f"{cell.demos} demos"] if several else [])]


def code_words(code: Code | None, study: Study) -> list[str]:
    """Codebook and tokenizer seed, where the study has several."""
    factors, parts = study.factors, []
    if code is not None and code.codebook is not None and len(factors.codebook) > 1:
        parts.append(f"codebook {codebook_name(code.codebook, factors.codebook)}")
    own = factors.tokenizer_seed
    if code is not None and code.seed is not None and own != "training" and len(own) > 1:
        parts.append(f"tokenizer seed {code.seed}")
    return parts


def conditioning_words(task: str, study: Study) -> list[str]:
    """How the task enters the policy, where the study has several ways."""
    return [f"task as {task}"] if len(study.factors.task) > 1 else []


def code_levels(code: Code | None, fitted: FittedTokenizer | None, store: Store) -> CodeLevels:
    """A code's levels, with the capacity of one that was fitted."""
    if code is None:
        return CodeLevels()
    there = fitted is not None and store.recorded(fitted)
    return CodeLevels(
        tokenizer=code.tokenizer,
        codebook=code.codebook,
        tokenizer_seed=code.seed,
        capacity_bits=store.meta(fitted)["capacity_bits"] if fitted is not None and there else None,
    )
