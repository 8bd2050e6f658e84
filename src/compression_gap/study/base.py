"""What every study's plan is, whatever its outcome is read from: in a simulator or on recordings."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Self

from ..artifacts.demonstrations import Demonstrations
from ..artifacts.probe import Probe
from ..sims import EvaluationProtocol
from ..store.artifact import Artifact
from ..store.graph import Graph
from ..store.store import Store
from ..tokenizers.code import Code
from .actions import action_parts, study_codes
from .cells import Cell, E, Reference
from .file import Study
from .ledger import LedgerSteps
from .parts import Level, Seen, add_seen


@dataclass(frozen=True)
class Dimensions:
    """What a policy's shape takes from the demonstrations."""

    action_dim: int
    proprio_dim: int
    state_dim: int  # of the true state; 0 where it is not known
    cameras: int
    image_size: int


@dataclass
class StudyPlan(Graph, ABC, Generic[E]):
    """The steps of a study, and what it reads from them."""

    study: Study
    tasks: tuple[str, ...]
    cells: list[Cell[E]] = field(default_factory=list, kw_only=True)
    references: list[Reference[E]] = field(default_factory=list, kw_only=True)
    probes: dict[str, Probe] = field(default_factory=dict, kw_only=True)  # by frozen encoder
    ledger: LedgerSteps | None = field(default=None, kw_only=True)

    @property
    def wanted(self) -> list[Artifact]:
        """Evidence and policies of all cells, the references' evidence, the probes, the ledger."""
        cells: list[Artifact] = []
        for c in self.cells:
            cells += [c.evidence, c.policy, *(e for _, e in c.checkpoints)]
        ledger = [] if self.ledger is None else self.ledger.wanted
        runs = [e for r in self.references for e in r.runs.values()]
        return [*cells, *runs, *self.probes.values(), *ledger]

    def with_cells(self, cells: Sequence[Cell[E]]) -> Self:
        """The same plan with some of its cells, without the steps that only others need."""
        seeds = {c.seed for c in cells}
        made = replace(
            self,
            cells=list(cells),
            references=[r.of_seeds(seeds) for r in self.references],
            ledger=None if self.ledger is None else self.ledger.of_cells(cells),
        )
        needed: dict[str, Artifact] = {}
        ahead = list(made.wanted)
        while ahead:
            step = ahead.pop()
            if step.key not in needed:
                needed[step.key] = step
                ahead += step.inputs.values()
        made.steps = {key: step for key, step in self.steps.items() if key in needed}
        return made

    @property
    @abstractmethod
    def encoders(self) -> tuple[str, ...]:
        """The encoder levels, from the lower limit to the upper."""

    @property
    def rolled_out(self) -> EvaluationProtocol | None:
        """How policies are rolled out; None on recordings."""
        return None

    @property
    def taken(self) -> Sequence[Demonstrations]:
        """Demonstrations that the study takes as they are."""
        return ()

    @property
    @abstractmethod
    def dimensions(self) -> Dimensions:
        """Sizes of what is seen and done."""

    @abstractmethod
    def frames(self, store: Store) -> tuple[dict[str, float], bool]:
        """Frames of each set of demonstrations by key, and whether any of these numbers is an assumption."""

    def trainings(
        self, demos: Sequence[Demonstrations], actions: Sequence[str]
    ) -> Iterator[tuple[Level, Seen, list[Code | None]]]:
        """The levels of every training, what its encoder gives, and the codes that it is trained with."""
        factors = self.study.factors
        seen: dict[tuple[str, int], Seen] = {}
        for levels in itertools.product(self.encoders, factors.size, actions, factors.task, factors.seed):
            at = Level(*levels)
            tokenizer = action_parts(at.action)[1]
            codes: list[Code | None] = [*study_codes(self.study, tokenizer)] if tokenizer else [None]
            if (at.encoder, at.seed) not in seen:
                seen[at.encoder, at.seed] = add_seen(self, self.study, demos, at.encoder, at.seed)
            yield at, seen[at.encoder, at.seed], codes
