"""The ledger: its steps in a plan, and what is read from them: demand, supply, kept, gap, delivered, in bits.

One set of rates (``information/immse.py``) for all contexts of a set of demonstrations, at N / 4, N / 2 and N training
episodes; σ* from disturbed experts where there is a simulator; what each policy delivers from its own loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..artifacts.demonstrations import Demonstrations
from ..artifacts.features import Features
from ..artifacts.health import CodeHealth
from ..artifacts.normaliser import FittedNormaliser
from ..artifacts.rates import OWN, Delivered, Rates
from ..artifacts.tokens import TargetTokens
from ..encoders.registry import check_encoder, is_trained
from ..errors import UserError
from ..sims import EvaluationProtocol
from ..store.artifact import Artifact
from ..store.graph import Graph
from ..tokenizers.code import Code, code_names
from ..tokenizers.levels import Levels
from .actions import check_code, codes_of
from .cells import Cell
from .encoders import add_features
from .file import Ledger, Tokenizer
from .parts import add_normaliser, add_tokens, to_collect
from .resolution import Disturbed, add_disturbed
from .setting import reference_protocol, simulator_of

SHARES = (1, 2, 4)
SIGMAS = (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)  # where rates are kept


@dataclass
class LedgerSteps:
    """The artefacts that a ledger reads."""

    section: Ledger
    encoders: tuple[str, ...]
    codes: dict[Code, str]  # with the names that they go by here; as fitted for the seed ``first``
    contexts: dict[str, tuple[str, ...]]
    first: int = 0  # of several fitted tokenizers or encoders of one name, those of this training seed
    rates: dict[int, Rates] = field(default_factory=dict)  # by share
    prefix: dict[int, Rates] = field(default_factory=dict)  # the same of the actions executed of a chunk
    health: dict[Code, CodeHealth] = field(default_factory=dict)  # of every code as fitted
    disturbed: Disturbed | None = None  # where σ* is measured
    delivered: list[tuple[Cell[Any], Delivered]] = field(default_factory=list)

    def health_of(self, code: Code) -> CodeHealth:
        """The health of the code that stands in the ledger under this level."""
        return self.health[code.fitted(self.first)]

    def of_cells(self, cells: Sequence[Cell[Any]]) -> LedgerSteps:
        """The same without what only other cells need."""
        policies, seeds = {c.policy.key for c in cells}, {self.first, *(c.seed for c in cells)}
        fitted = {code.fitted(seed) for code in self.codes for seed in seeds}
        return replace(
            self,
            health={code: health for code, health in self.health.items() if code in fitted},
            delivered=[(c, d) for c, d in self.delivered if c.policy.key in policies],
        )

    @property
    def wanted(self) -> list[Artifact]:
        """All of them."""
        disturbed = [] if self.disturbed is None else self.disturbed.wanted
        rates = (*self.rates.values(), *self.prefix.values())
        return [*rates, *self.health.values(), *disturbed, *(d for _, d in self.delivered)]


def pair(encoder: str, code: str) -> str:
    """The name of the context that holds both."""
    return f"{encoder} | {code}"


def check_range(sigma: float | None) -> None:
    """Refuse a resolution for which no rates are kept."""
    if sigma is not None and not SIGMAS[0] <= sigma <= SIGMAS[-1]:
        raise UserError(
            f"sigma {sigma:g} is out of range: rates are kept for {SIGMAS[0]:g} to {SIGMAS[-1]:g} standard deviations"
        )


def add_ledger(
    graph: Graph,
    section: Ledger,
    normaliser: FittedNormaliser,
    tasks: Sequence[str],
    features: Mapping[str, tuple[Features, ...]],
    levels: Sequence[Code],
    codes: Mapping[Code, TargetTokens],
    *,
    horizon: int,
    execute: int,
    n_obs_steps: int,
    stride: int,
    protocol: EvaluationProtocol | None,
    cells: Sequence[Cell[Any]] = (),
    first: int = 0,
) -> LedgerSteps:
    """Add the steps. ``features``: those of each set, by encoder; ``levels``: the codes that the ledger holds;
    ``codes``: target tokens, by code as fitted; ``protocol``: where σ* is measured, unless the section gives σ.

    Where each training seed has its own tokenizer or encoder, bits are those of the seed ``first``; what the policies
    of every seed deliver is measured with that seed's own.
    """
    check_range(section.sigma)
    encoders = tuple(e for e in features if e != "blind")
    names = code_names(levels)
    parts = {code: f"code {name} {code.fitted(first).seed}" for code, name in names.items()}
    contexts: dict[str, tuple[str, ...]] = {"": (), "blind": (OWN,), **{e: (OWN, e) for e in encoders}}
    for code, name in names.items():
        contexts[name] = (parts[code],)
        contexts |= {pair(e, name): (*contexts[e], parts[code]) for e in ("blind", *encoders)}
    steps = LedgerSteps(section, encoders, names, contexts, first)
    shape: dict[str, Any] = {
        "horizon": horizon,
        "n_obs_steps": n_obs_steps,
        "stride": stride,
        "tasks": tuple(tasks),
        "demos": normaliser.demos,
        "normaliser": normaliser,
    }
    how = {
        "steps": section.steps,
        "reduction_steps": max(1, section.steps // 3),
        "seeds": section.seeds,
        "batch_size": section.batch_size,
        "seed": section.seed,
    }
    seen = {name: of for name, of in contexts.items() if not set(of) & set(parts.values())}
    for executed, share in itertools.product((horizon, execute) if execute < horizon else (horizon,), SHARES):
        whole = executed == horizon
        rates = Rates(
            **shape,
            executed=executed,
            encoders=encoders,
            codes=tuple(parts.values()) if whole else (),
            contexts=tuple((contexts if whole else seen).items()),
            sigmas=SIGMAS,
            share=share,
            denoising=how,
            features=tuple(features[e] for e in encoders),
            tokens=tuple(codes[code.fitted(first)] for code in names) if whole else (),
        )
        (steps.rates if whole else steps.prefix)[share] = graph.add(rates)
    for code, tokens in codes.items():
        health = CodeHealth(
            horizon=horizon,
            stride=stride,
            sigma=section.sigma or 0.1,
            prior_steps=section.prior_steps,
            demos=normaliser.demos,
            normaliser=normaliser,
            tokenizer=tokens.tokenizer,
            tokens=tokens,
        )
        steps.health[code] = graph.add(health)
    if protocol is not None and section.sigma is None:
        steps.disturbed = add_disturbed(
            graph,
            normaliser,
            {name: codes[code.fitted(first)] for code, name in names.items()},
            protocol,
            episodes=section.episodes_per_sigma,
            horizon=horizon,
            stride=stride,
            kinds=section.disturbances,
            dimensions=section.dimensions,
        )
    done = set()
    for cell in cells:
        if cell.policy.key in done or cell.trained_on != "chunk":
            continue
        done.add(cell.policy.key)
        delivered = Delivered(
            **shape,
            sigmas=SIGMAS,
            chunks=section.delivered_chunks,
            policy=cell.policy,
            features=cell.policy.features,
            tokens=None if cell.code is None or cell.swapped else codes[cell.code.fitted(cell.seed)],
        )
        steps.delivered.append((cell, graph.add(delivered)))
    return steps


@dataclass
class LedgerPlan(Graph):
    """The graph of a ledger of demonstrations alone: no policies."""

    ledger: LedgerSteps | None = None

    @property
    def wanted(self) -> list[Artifact]:
        """What the ledger reads."""
        return [] if self.ledger is None else self.ledger.wanted


def plan_ledger(
    section: Ledger,
    demos: Sequence[Demonstrations],
    encoders: Sequence[str],
    tokenizers: Sequence[str],
    codebooks: Sequence[Levels],
    fitting: Tokenizer,
    *,
    horizon: int,
    n_obs_steps: int,
    execute: int,
) -> LedgerPlan:
    """The graph for these demonstrations, which are collected first where they were not found in a store.

    σ* is measured if they come from one simulator and the section gives no σ; else 0.1 is assumed.
    """
    sim, tasks = simulator_of(demos)
    graph = LedgerPlan(steps=to_collect(demos))
    for encoder in encoders:
        if is_trained(encoder):
            raise UserError(
                f"{encoder} is trained with its policy and has no features of its own: "
                "its bits stand in the ledger of a study"
            )
        if sim is not None:
            check_encoder(encoder, image_size=sim.image_size, sim=sim.sim)
    normaliser = add_normaliser(graph, demos)
    codes = {}
    for code in (c for name in dict.fromkeys(tokenizers) for c in codes_of(name, codebooks, (0,))):
        check_code(code, fitting, horizon)
        codes[code] = add_tokens(graph, normaliser, code, fitting, horizon)
    protocol = None
    if sim is not None and section.sigma is None:
        protocol = reference_protocol(sim, section.episodes_per_sigma, horizon=horizon, execute=execute)
    graph.ledger = add_ledger(
        graph,
        section,
        normaliser,
        tasks,
        {e: add_features(graph, e, demos) for e in dict.fromkeys(("blind", *encoders))},
        list(codes),
        codes,
        horizon=horizon,
        execute=execute,
        n_obs_steps=n_obs_steps,
        stride=1,
        protocol=protocol,
    )
    return graph
