"""The plan: a study as a graph of artefacts, each listed once however many cells need it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from ..artifacts import Recipe
from ..errors import UserError
from ..sims import (
    EVALUATION_STATES,
    TUNING_STATES,
    EvaluationProtocol,
    SimSpec,
    sim_info,
    suite,
)
from .spec import Study

# What an action representation is made of: head, and tokenizer if its targets are tokens.
ACTIONS: dict[str, tuple[str, str | None]] = {
    "diffusion": ("diffusion", None),
    "oat": ("autoregressive", "oat"),
}

# Encoders that are trained with the policy: they have no cached features.
TRAINED_ENCODERS = ("resnet18",)

# Raised when a builder's bytes change, so that old artefacts are not taken for new ones.
BUILDER_VERSIONS = {
    "demos": 2,
    "normaliser": 1,
    "tokenizer": 1,
    "tokens": 1,
    "features": 1,
    "policy": 1,
    "episodes": 1,
}


@dataclass(frozen=True)
class Step:
    """One artefact to build: its recipe, the recipes of its inputs by role, and a guess at its cost."""

    recipe: Recipe
    label: str
    inputs: dict[str, Recipe]
    cost: float  # core-seconds, a rough guess that the engine corrects as it goes


@dataclass(frozen=True)
class Cell:
    """One trained policy of the factorial: its levels, and the keys of what it needs."""

    encoder: str
    action: str
    size: str
    demos: int
    codebook: tuple[int, ...] | None
    tokenizer_seed: int | None
    seed: int
    policy: Recipe
    episodes: Recipe

    @property
    def levels(self) -> tuple[Any, ...]:
        """The levels without the training seed: cells that share them are replicates."""
        return (self.encoder, self.action, self.size, self.demos, self.codebook, self.tokenizer_seed)


@dataclass(frozen=True)
class Reference:
    """A reference actor that needs no training: expert, expert-chunked, expert-coded."""

    actor: str
    codebook: tuple[int, ...] | None
    tokenizer_seed: int | None
    demos: int | None
    episodes: Recipe


@dataclass
class Plan:
    """The steps in an order in which they can run, and what the study reads from them."""

    study: Study
    protocol: EvaluationProtocol
    tasks: tuple[str, ...]
    steps: dict[str, Step] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    demos: dict[int, list[Recipe]] = field(default_factory=dict)

    def add(
        self, kind: str, spec: dict[str, Any], inputs: dict[str, Recipe], label: str, cost: float
    ) -> Recipe:
        """Add a step, unless an equal one is there, and return its recipe."""
        recipe = Recipe(kind, spec, {r: i.key for r, i in inputs.items()}, BUILDER_VERSIONS[kind])
        self.steps.setdefault(recipe.key, Step(recipe, label, inputs, cost))
        return recipe


def demos_step(spec: SimSpec, task: str, episodes: int, versions: dict[str, str]) -> Step:
    """The demonstrations of one task: one artefact, shared by every suite that holds the task."""
    one = spec.model_copy(update={"tasks": (task,)}).model_dump(mode="json")
    made = {"sim": one, "task": task, "episodes": episodes, "versions": versions}
    recipe = Recipe("demos", made, {}, BUILDER_VERSIONS["demos"])
    return Step(recipe, f"{episodes} demonstrations of {task}", {}, 0.8 * episodes)


def make_plan(study: Study) -> Plan:
    """Resolve a study into its graph. Unknown suites, tasks, encoders and actions are errors here."""
    from ..encoders.registry import check_encoder

    sim, tasks = suite(study.suite)
    spec = SimSpec(
        sim=sim,
        tasks=tasks,
        cameras=study.cameras.names,
        image_size=study.cameras.image_size,
        rendering=study.cameras.rendering,
    )
    info = sim_info(spec)
    spec = spec.model_copy(update={"cameras": info.cameras})
    for encoder in study.encoders:
        check_encoder(encoder, image_size=spec.image_size)
    for action in study.factors.action:
        if action not in ACTIONS:
            from ..errors import unknown_name

            raise unknown_name("action", action, ACTIONS)
    if study.rollout.execute > study.policy.horizon:
        raise UserError(
            f"rollout.execute ({study.rollout.execute}) is longer than policy.horizon "
            f"({study.policy.horizon}); execute at most the chunk"
        )
    protocol = EvaluationProtocol(
        sim=spec,
        episodes_per_task=study.rollout.episodes_per_task,
        first_initial_state=EVALUATION_STATES if study.rollout.states == "evaluation" else TUNING_STATES,
        repeats=study.rollout.repeats,
        execute=study.rollout.execute,
        n_obs_steps=study.policy.n_obs_steps,
        step_limit=study.rollout.step_limit or info.step_limit,
        versions=info.versions,
    )
    plan = Plan(study, protocol, tasks)
    for demos in study.factors.demos:
        _add_cells(plan, demos)
    if study.references:
        _add_plain_references(plan)
    return plan


def _episodes_cost(plan: Plan, per_episode: float) -> float:
    return 5 + per_episode * len(plan.protocol.episodes())


def _add_plain_references(plan: Plan) -> None:
    for actor, spec in (
        ("expert", {"actor": "expert"}),
        ("expert-chunked", {"actor": "expert-chunked", "horizon": plan.study.policy.horizon}),
    ):
        episodes = plan.add(
            "episodes",
            {"protocol": plan.protocol.model_dump(mode="json"), **spec},
            {},
            f"episodes of {actor}",
            _episodes_cost(plan, 0.3),
        )
        plan.references.append(Reference(actor, None, None, None, episodes))


def _add_cells(plan: Plan, n_demos: int) -> None:
    study, factors = plan.study, plan.study.factors
    spec = plan.protocol.sim
    demos = []
    for task in plan.tasks:
        step = demos_step(spec, task, n_demos, plan.protocol.versions)
        plan.steps.setdefault(step.recipe.key, step)
        demos.append(step.recipe)
    plan.demos[n_demos] = demos
    sets = {f"demos/{i}": d for i, d in enumerate(demos)}
    normaliser = plan.add("normaliser", {}, sets, "normaliser", 1)
    base = {**sets, "normaliser": normaliser}

    codes: dict[tuple, tuple[Recipe, Recipe]] = {}
    if any(ACTIONS[a][1] for a in factors.action):
        for codebook, seed in itertools.product(factors.codebook, factors.tokenizer_seed):
            codes[codebook, seed] = _add_tokenizer(plan, base, codebook, seed)
            if study.references:
                tokenizer = codes[codebook, seed][0]
                episodes = plan.add(
                    "episodes",
                    {
                        "protocol": plan.protocol.model_dump(mode="json"),
                        "actor": "expert-coded",
                        "horizon": study.policy.horizon,
                    },
                    {"tokenizer": tokenizer, "normaliser": normaliser},
                    f"episodes of expert-coded ({_levels(codebook)})",
                    _episodes_cost(plan, 0.6),
                )
                plan.references.append(Reference("expert-coded", codebook, seed, n_demos, episodes))

    for encoder, size, action, seed in itertools.product(
        study.encoders, factors.size, factors.action, factors.seed
    ):
        inputs = dict(base)
        if encoder not in TRAINED_ENCODERS:
            for i, d in enumerate(demos):
                inputs[f"features/{i}"] = plan.add(
                    "features", {"encoder": encoder}, {"demos": d}, f"features of {encoder}", 5
                )
        for code in codes if ACTIONS[action][1] else [None]:
            _add_cell(plan, inputs, encoder, size, action, seed, n_demos, code, codes)


def _add_cell(
    plan: Plan,
    inputs: dict[str, Recipe],
    encoder: str,
    size: str,
    action: str,
    seed: int,
    n_demos: int,
    code: tuple | None,
    codes: dict[tuple, tuple[Recipe, Recipe]],
) -> None:
    study = plan.study
    head, tokenizer = ACTIONS[action]
    options: dict[str, Any] = {"attention": study.policy.attention}
    if tokenizer:
        options |= {"temperature": study.policy.temperature, "top_k": study.policy.top_k}
    else:
        options |= {
            "prediction": study.policy.prediction,
            "sampler": study.policy.sampler,
            "sampling_steps": study.policy.sampling_steps,
        }
    training = study.training.for_action(action)
    spec = {
        "sim": plan.protocol.sim.sim,
        "encoder": encoder,
        "head": head,
        "size": size,
        "horizon": study.policy.horizon,
        "n_obs_steps": study.policy.n_obs_steps,
        "tasks": list(plan.tasks),
        "seed": seed,
        "training": training,
        "options": options,
    }
    name = f"{action}{'' if code is None else ' ' + _levels(code[0])} · {encoder} · {size} · seed {seed}"
    if code is not None:
        inputs = {**inputs, "tokenizer": codes[code][0], "tokens": codes[code][1]}
    slow = {"xs": 0.06, "S": 0.2, "M": 0.7, "L": 2.0}[size] * training["batch_size"] / 128
    policy = plan.add("policy", spec, inputs, f"training {name}", 5 + slow * training["steps"])
    episodes = plan.add(
        "episodes",
        {"protocol": plan.protocol.model_dump(mode="json"), "actor": "policy"},
        {"policy": policy},
        f"episodes of {name}",
        _episodes_cost(plan, 1.0),
    )
    codebook, tokenizer_seed = code or (None, None)
    plan.cells.append(Cell(encoder, action, size, n_demos, codebook, tokenizer_seed, seed, policy, episodes))


def _add_tokenizer(
    plan: Plan, base: dict[str, Recipe], codebook: tuple[int, ...], seed: int
) -> tuple[Recipe, Recipe]:
    study = plan.study
    t = study.tokenizer
    spec = {"tokenizer": "oat", "horizon": study.policy.horizon, "levels": list(codebook), "seed": seed}
    spec |= t.model_dump(mode="json")
    tokenizer = plan.add("tokenizer", spec, base, f"tokenizer oat {_levels(codebook)}", 5 + 0.05 * t.steps)
    tokens = plan.add(
        "tokens",
        {"horizon": study.policy.horizon},
        {**base, "tokenizer": tokenizer},
        f"target tokens of oat {_levels(codebook)}",
        5,
    )
    return tokenizer, tokens


def _levels(codebook: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, codebook))}]"
