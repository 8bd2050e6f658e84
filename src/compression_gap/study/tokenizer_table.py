"""The comparison of tokenizers on a set of demonstrations, as a graph of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..artifacts.demonstrations import Demonstrations
from ..artifacts.episodes import Episodes, Replay
from ..artifacts.health import CodeHealth
from ..artifacts.normaliser import FittedNormaliser
from ..sims import EvaluationProtocol
from ..store.artifact import Artifact
from ..store.graph import Graph
from ..tokenizers.code import Code
from ..tokenizers.levels import Levels
from .actions import check_code, codes_of, shorter_prefixes
from .file import Tokenizer
from .parts import add_normaliser, add_tokens, to_collect
from .setting import reference_protocol, simulator_of


@dataclass(frozen=True)
class TableSpec:
    """What is compared, and how."""

    tokenizers: tuple[str, ...]
    codebooks: tuple[Levels, ...] = (((8, 5, 5, 5),),)
    seeds: tuple[int, ...] = (0,)
    section: Tokenizer = field(default_factory=Tokenizer)
    horizon: int = 16
    execute: int = 8
    sigma: float = 0.1
    prior_steps: int = 500
    episodes: int = 20  # of expert-coded per task; 0: no rollouts


@dataclass
class Row:
    """One code, or a prefix of it, with the steps that measure it."""

    code: Code
    health: CodeHealth
    prefix: int | None = None  # None: the whole code
    coded: Episodes | None = None
    replay: Replay | None = None


@dataclass
class TablePlan(Graph):
    """The graph, and what the table reads from it."""

    spec: TableSpec
    demos: tuple[Demonstrations, ...]
    tasks: tuple[str, ...]
    protocol: EvaluationProtocol | None
    rows: list[Row] = field(default_factory=list)
    references: dict[str, Episodes | Replay] = field(default_factory=dict)

    @property
    def wanted(self) -> list[Artifact]:
        """Health and rollouts of every row, and the references' rollouts."""
        rows = [r for row in self.rows for r in (row.health, row.coded, row.replay) if r is not None]
        return [*self.references.values(), *rows]


def plan_table(spec: TableSpec, demos: Sequence[Demonstrations]) -> TablePlan:
    """The graph of a comparison. Demonstrations are collected first where they were not found in a store."""
    sim, tasks = simulator_of(demos)
    protocol = None
    if sim is not None and spec.episodes:
        protocol = reference_protocol(sim, spec.episodes, horizon=spec.horizon, execute=spec.execute)
    plan = TablePlan(spec, tuple(demos), tasks, protocol, steps=to_collect(demos))
    normaliser = add_normaliser(plan, demos)
    if protocol is not None:
        chunked = Episodes(protocol=protocol, actor="expert-chunked", horizon=spec.horizon)
        plan.references["expert-chunked"] = plan.add(chunked)
        replay = Replay(protocol=protocol, horizon=spec.horizon, demos=normaliser.demos)
        plan.references["replay"] = plan.add(replay)
    for name in dict.fromkeys(spec.tokenizers):
        for code in codes_of(name, spec.codebooks, spec.seeds):
            check_code(code, spec.section, spec.horizon)
            _add_code(plan, normaliser, code)
    return plan


def _add_code(plan: TablePlan, normaliser: FittedNormaliser, code: Code) -> None:
    spec = plan.spec
    tokens = add_tokens(plan, normaliser, code, spec.section, spec.horizon)
    health = plan.add(
        CodeHealth(
            horizon=spec.horizon,
            stride=1,
            sigma=spec.sigma,
            prior_steps=spec.prior_steps,
            demos=normaliser.demos,
            normaliser=normaliser,
            tokenizer=tokens.tokenizer,
            tokens=tokens,
        )
    )
    for prefix in (*shorter_prefixes(code, spec.section), None):
        row = Row(code, health, prefix)
        if plan.protocol is not None:
            row.coded = plan.add(
                Episodes(
                    protocol=plan.protocol,
                    actor="expert-coded",
                    horizon=spec.horizon,
                    prefix=prefix,
                    tokenizer=tokens.tokenizer,
                    normaliser=normaliser,
                )
            )
            row.replay = plan.add(
                Replay(
                    protocol=plan.protocol,
                    horizon=spec.horizon,
                    prefix=prefix,
                    demos=normaliser.demos,
                    normaliser=normaliser,
                    tokenizer=tokens.tokenizer,
                )
            )
        plan.rows.append(row)
