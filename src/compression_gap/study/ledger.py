"""The ledger: its steps in a plan, and what is read from them: demand, supply, kept, gap, delivered, in bits.

One set of rates (``information/immse.py``) for all contexts of a set of demonstrations, at N / 4, N / 2 and N training
episodes; σ* from disturbed experts where there is a simulator; what each policy delivers from its own loss.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..encoders.registry import check_encoder, is_trained
from ..errors import UserError
from ..sims import EvaluationProtocol
from ..store.store import Recipe
from ..tokenizers.levels import Levels
from .cells import Code, Trained, code_names
from .file import Ledger, Tokenizer
from .plan import (
    Graph,
    Plan,
    Step,
    add_base,
    add_features,
    add_tokenizer,
    check_code,
    codes_of,
    encoder_seed,
    fitted_codes,
    study_codes,
    study_tokenizer,
)
from .resolution import Disturbed, add_disturbed
from .tokenizer_table import reference_protocol, simulator_of

OWN = "own"  # the part of every context that sees: proprioception and task
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
    rates: dict[int, Recipe] = field(default_factory=dict)  # by share
    prefix: dict[int, Recipe] = field(default_factory=dict)  # the same of the actions executed of a chunk
    health: dict[Code, Recipe] = field(default_factory=dict)  # of every code as fitted
    disturbed: Disturbed | None = None  # where σ* is measured
    delivered: list[tuple[Trained, Recipe]] = field(default_factory=list)

    def health_of(self, code: Code) -> Recipe:
        """The health of the code that stands in the ledger under this level."""
        return self.health[code.fitted(self.first)]

    @property
    def wanted(self) -> list[Recipe]:
        """All of them."""
        disturbed = [] if self.disturbed is None else self.disturbed.wanted
        recipes = [*self.rates.values(), *self.prefix.values(), *self.health.values(), *disturbed]
        return recipes + [r for _, r in self.delivered]


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
    base: Mapping[str, Recipe],
    tasks: Sequence[str],
    features: Mapping[str, list[Recipe]],
    levels: Sequence[Code],
    codes: Mapping[Code, tuple[Recipe, Recipe]],
    *,
    horizon: int,
    execute: int,
    n_obs_steps: int,
    stride: int,
    protocol: EvaluationProtocol | None,
    cells: Sequence[Trained] = (),
    first: int = 0,
) -> LedgerSteps:
    """Add the steps. ``base``: demonstrations and normaliser; ``features``: a recipe a set, by encoder;
    ``levels``: the codes that the ledger holds; ``codes``: tokenizer and target tokens as fitted; ``protocol``: where
    σ* is measured, unless the section gives σ.

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
    shape = {"horizon": horizon, "n_obs_steps": n_obs_steps, "stride": stride, "tasks": list(tasks)}
    inputs = dict(base)
    for i, encoder in enumerate(encoders):
        inputs |= {f"features/{i}/{j}": r for j, r in enumerate(features[encoder])}
    inputs |= {f"tokens/{i}": codes[code.fitted(first)][1] for i, code in enumerate(names)}
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
        held = contexts if whole else seen
        spec = {
            **shape,
            "executed": executed,
            "encoders": list(encoders),
            "codes": list(parts.values()) if whole else [],
            "contexts": [[name, list(of)] for name, of in held.items()],
            "sigmas": list(SIGMAS),
            "share": share,
            "denoising": how,
        }
        given = inputs if whole else {r: i for r, i in inputs.items() if not r.startswith("tokens/")}
        label = f"rates of {len(held)} contexts" + ("" if whole else f", {executed} steps of a chunk")
        label += f", 1/{share} of the episodes" if share > 1 else ""
        runs = section.seeds if share == 1 else 1
        cost = (
            20
            + (0.05 * section.steps * runs + 2 * len(held) * (1 + runs)) / share
            + 60 * len(encoders) / share
        )
        (steps.rates if whole else steps.prefix)[share] = graph.add("rates", spec, given, label, cost)
    for code, (tokenizer, tokens) in codes.items():
        steps.health[code] = graph.add(
            "health",
            {
                "horizon": horizon,
                "stride": stride,
                "sigma": section.sigma or 0.1,
                "prior_steps": section.prior_steps,
            },
            {**base, "tokenizer": tokenizer, "tokens": tokens},
            f"health of {code.words}",
            20 + 0.15 * section.prior_steps,
        )
    if protocol is not None and section.sigma is None:
        steps.disturbed = add_disturbed(
            graph,
            base,
            {name: codes[code.fitted(first)][1] for code, name in names.items()},
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
        trained = graph.steps[cell.policy.key].inputs
        given = {**base, "policy": cell.policy}
        given |= {role: recipe for role, recipe in trained.items() if role.startswith("features/")}
        if cell.code is not None and not cell.swapped:
            given["tokens"] = codes[cell.code.fitted(cell.seed)][1]
        recipe = graph.add(
            "delivered",
            {**shape, "sigmas": list(SIGMAS), "chunks": section.delivered_chunks},
            given,
            f"bits delivered by {cell.representation} · {cell.encoder} · {cell.size} · seed {cell.seed}",
            40,
        )
        steps.delivered.append((cell, recipe))
    return steps


def add_study_ledger(plan: Plan) -> None:
    """The ledger of the study's largest set of demonstrations, with the encoders whose features are cached."""
    study, most = plan.study, max(plan.study.factors.demos)
    assert study.ledger is not None
    base = add_base(plan, plan.demos[most])
    first = study.factors.seed[0]
    encoders = [e for e in ("blind", *study.encoders) if not is_trained(e)]
    plan.ledger = add_ledger(
        plan,
        study.ledger,
        base,
        plan.tasks,
        {
            e: add_features(plan, e, plan.demos[most], study.cameras.cropped(), encoder_seed(study, first))
            for e in dict.fromkeys(encoders)
        },
        study_codes(study),
        {c: study_tokenizer(plan, base, c) for c in fitted_codes(study)},
        horizon=study.policy.horizon,
        execute=plan.protocol.execute,
        n_obs_steps=study.policy.n_obs_steps,
        stride=study.policy.stride,
        protocol=plan.protocol,
        cells=[c for c in plan.cells if c.demos == most and not is_trained(c.encoder)],
        first=first,
    )


@dataclass
class LedgerPlan(Graph):
    """The graph of a ledger of demonstrations alone: no policies."""

    ledger: LedgerSteps | None = None

    @property
    def wanted(self) -> list[Recipe]:
        """What the ledger reads."""
        return [] if self.ledger is None else self.ledger.wanted


def plan_ledger(
    section: Ledger,
    recipes: Sequence[Recipe],
    making: Sequence[Step],
    encoders: Sequence[str],
    tokenizers: Sequence[str],
    codebooks: Sequence[Levels],
    fitting: Tokenizer,
    *,
    horizon: int,
    n_obs_steps: int,
    execute: int,
) -> LedgerPlan:
    """The graph for these demonstrations. ``making``: steps that collect them, where they are not there.

    σ* is measured if they come from one simulator and the section gives no σ; else 0.1 is assumed.
    """
    sim, tasks = simulator_of(recipes)
    graph = LedgerPlan(steps={s.recipe.key: s for s in making})
    for encoder in encoders:
        if is_trained(encoder):
            raise UserError(
                f"{encoder} is trained with its policy and has no features of its own: "
                "its bits stand in the ledger of a study"
            )
        if sim is not None:
            check_encoder(encoder, image_size=sim.image_size, sim=sim.sim)
    base = add_base(graph, recipes)
    codes = {}
    for code in (c for name in dict.fromkeys(tokenizers) for c in codes_of(name, codebooks, (0,))):
        check_code(code, fitting, horizon)
        codes[code] = add_tokenizer(graph, base, code, fitting, horizon)
    protocol = None
    if sim is not None and section.sigma is None:
        protocol = reference_protocol(sim, section.episodes_per_sigma, horizon=horizon, execute=execute)
    graph.ledger = add_ledger(
        graph,
        section,
        base,
        tasks,
        {e: add_features(graph, e, recipes) for e in dict.fromkeys(("blind", *encoders))},
        list(codes),
        codes,
        horizon=horizon,
        execute=execute,
        n_obs_steps=n_obs_steps,
        stride=1,
        protocol=protocol,
    )
    return graph
