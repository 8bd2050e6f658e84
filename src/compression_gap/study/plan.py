"""The plan: a study as a graph of artefacts, each listed once however many cells need it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..encoders.registry import check_encoder, is_trained
from ..errors import UserError, counted
from ..policies.registry import HEADS, action_parts
from ..registry import specified
from ..sims import EvaluationProtocol, SimSpec
from ..store.store import Recipe
from ..tokenizers import tokenizer_entry
from ..tokenizers.levels import Levels, codebook_name
from .cells import Cell, Code, Executed, OwnSeed, Reference, TrainedOn, representation, task_words
from .encoders import add_features, add_instructions, add_probe, prepared_inputs
from .file import Cameras, Study, Tokenizer, of_key
from .setting import check_experts, evaluation_of, resolve_suite

if TYPE_CHECKING:
    from .ledger import LedgerSteps

# Raised when a builder's bytes change, so that old artefacts are not taken for new ones.
BUILDER_VERSIONS = {
    "demos": 2,
    "normaliser": 1,
    "tokenizer": 4,
    "tokens": 3,
    "frames": 1,
    "encoder": 1,
    "features": 1,
    "text": 1,
    "probe": 2,
    "policy": 3,
    "error": 1,
    "episodes": 1,
    "health": 3,
    "replay": 1,
    "rates": 3,
    "delivered": 2,
    "known": 3,
    "wide": 1,
    "verdicts": 1,
    "coverage": 1,
}


@dataclass(frozen=True)
class Step:
    """One artefact to build: its recipe, the recipes of its inputs by role, and a guess at its cost."""

    recipe: Recipe
    label: str
    inputs: dict[str, Recipe]
    cost: float  # core-seconds, a rough guess that the engine corrects as it goes


@dataclass(kw_only=True)
class Graph:
    """Steps in an order in which they can run, each listed once however many need it."""

    steps: dict[str, Step] = field(default_factory=dict)
    # A sketch is to be looked at, not built: checkpoints that the network would tell more about are named in
    # ``absent``, with the sentence that a study refuses them with, and their keys are not those that it would have.
    sketch: bool = False
    absent: dict[str, str] = field(default_factory=dict)

    def add(
        self, kind: str, spec: dict[str, Any], inputs: dict[str, Recipe], label: str, cost: float
    ) -> Recipe:
        """Add a step, unless an equal one is there, and return its recipe."""
        recipe = Recipe(kind, spec, {r: i.key for r, i in inputs.items()}, BUILDER_VERSIONS[kind])
        self.steps.setdefault(recipe.key, Step(recipe, label, inputs, cost))
        return recipe

    @property
    def wanted(self) -> list[Recipe]:
        """The artefacts that results are read from."""
        raise NotImplementedError


@dataclass
class Plan(Graph):
    """The steps of a study, and what it reads from them."""

    study: Study
    protocol: EvaluationProtocol
    tasks: tuple[str, ...]
    instructions: Mapping[str, str] = field(default_factory=dict)  # the simulator's own, by task
    cells: list[Cell] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    demos: dict[int, list[Recipe]] = field(default_factory=dict)
    probes: dict[str, Recipe] = field(default_factory=dict)  # by frozen encoder
    ledger: LedgerSteps | None = None

    @property
    def wanted(self) -> list[Recipe]:
        """Episodes and policies of all cells, the references' episodes, the probes, the ledger."""
        cells = [r for c in self.cells for r in (c.episodes, c.policy, *(e for _, e in c.checkpoints))]
        ledger = [] if self.ledger is None else self.ledger.wanted
        runs = [e for r in self.references for e in r.runs.values()]
        return cells + runs + [*self.probes.values()] + ledger


def demos_step(
    spec: SimSpec, task: str, episodes: int, versions: dict[str, str], origin: str = "expert"
) -> Step:
    """The demonstrations of one task: one artefact, shared by every suite and evaluation protocol.

    ``origin``: the scripted "expert", or the benchmark's "official" recordings.
    """
    one = spec.model_copy(update={"tasks": (task,), "protocol": ""}).model_dump(mode="json")
    made = {"sim": one, "task": task, "episodes": episodes, "versions": versions}
    if origin != "expert":
        made["origin"] = origin
    recipe = Recipe("demos", made, {}, BUILDER_VERSIONS["demos"])
    return Step(recipe, f"{counted(episodes, 'demonstration')} of {task}", {}, 0.8 * episodes)


def _check_swap(study: Study) -> None:
    if study.swap is None:
        return
    for i, head in enumerate(study.swap.head):
        with of_key("swap", "head", i):
            if action_parts(head)[1] is not None:
                known = ", ".join(name for name, entry in HEADS.items() if entry.continuous)
                raise UserError(f"'{head}' is no continuous head; known: {known}")
    for i, tokenizer in enumerate(study.swap.tokenizer):
        with of_key("swap", "tokenizer", i):
            tokenizer_entry(tokenizer)


def codes_of(tokenizer: str, codebooks: Sequence[Levels], seeds: Sequence[int] | OwnSeed) -> list[Code]:
    """The codes of one tokenizer: codebooks × seeds, where it has them; "training" is one level."""
    entry = tokenizer_entry(tokenizer)
    levels = codebooks if entry.codebook else (None,)
    of: Sequence[int | OwnSeed | None] = (seeds,) if seeds == "training" else seeds
    return [Code(tokenizer, *c) for c in itertools.product(levels, of if entry.trained else (None,))]


def check_code(code: Code, section: Tokenizer, horizon: int) -> None:
    """Refuse at once what fitting would refuse after hours of other steps."""
    positions = len(code.codebook or ())
    if positions > 1 and positions != section.tokens:
        raise UserError(
            f"a codebook for each of {positions} positions, but {section.tokens} tokens a chunk "
            "(tokenizer.tokens): make the two agree"
        )
    stride = horizon / section.tokens
    if code.tokenizer == "quest" and (stride < 1 or not math.log2(stride).is_integer()):
        raise UserError(
            f"quest halves the horizon until its tokens remain; {horizon} steps do not become "
            f"{section.tokens} tokens so: take a power of two times as many steps as tokens"
        )


def study_codes(study: Study, tokenizer: str | None = None) -> list[Code]:
    """The codes of one tokenizer, or all that the study needs."""
    names = [] if tokenizer is None else [tokenizer]
    if tokenizer is None:
        names = [t for a in study.factors.action if (t := action_parts(a)[1])]
        names += study.swap.tokenizer if study.swap else ()
    factors = study.factors
    return [
        code
        for name in dict.fromkeys(names)
        for code in codes_of(name, factors.codebook, factors.tokenizer_seed)
    ]


def fitted_codes(study: Study) -> list[Code]:
    """What is fitted for all training seeds: a code that is fixed, or fitted without a seed, once."""
    return list(dict.fromkeys(c.fitted(seed) for c in study_codes(study) for seed in study.factors.seed))


def encoder_seed(study: Study, seed: int) -> int:
    """The seed with which an encoder is pretrained for this training seed."""
    own = study.factors.encoder_seed
    return seed if own == "training" else own


def check_actions(study: Study) -> None:
    """Refuse action representations and codes that cannot be, and a training's values for such."""
    for i, action in enumerate(study.factors.action):
        with of_key("factors", "action", i):
            action_parts(action)
    _check_swap(study)
    for name in ("steps", "lr"):
        values = getattr(study.training, name)
        for action in values if isinstance(values, dict) else ():
            with of_key("training", name, action):
                action_parts(action)
    for code in study_codes(study):
        with of_key("tokenizer", "tokens"):
            check_code(code, study.tokenizer, study.policy.horizon)


def check_encoders(study: Study, encoders: Sequence[str], **seen: Any) -> None:
    """Refuse encoders that are not known, or do not suit what is ``seen`` (``encoders.registry.check_encoder``)."""
    listed = study.factors.encoder
    for encoder in encoders:
        with of_key(*(("factors", "encoder", listed.index(encoder)) if encoder in listed else ("limits",))):
            check_encoder(encoder, crop=study.cameras.cropped(), **seen)


def make_plan(study: Study, *, sketch: bool = False) -> Plan:
    """Resolve a simulator's study into its graph. Unknown suites, tasks, encoders and actions are errors here.

    ``sketch``: plan all the same where the hub cannot be reached (``Graph.absent``); not to be built.
    """
    if study.suite is None:
        raise ValueError("a study of recordings has a plan of its own: offline.make_offline_plan")
    with of_key("suite"):
        resolve_suite(study.suite, Cameras())
    with of_key("cameras", "names"):
        resolve_suite(study.suite, study.cameras)
    with of_key("rollout", "protocol"):
        spec, info = resolve_suite(study.suite, study.cameras, study.rollout.protocol)
    check_encoders(study, study.encoders, image_size=spec.image_size, sim=spec.sim)
    check_actions(study)
    with of_key("suite"):
        check_experts(study, info)
    protocol = evaluation_of(study, spec, info)
    plan = Plan(study, protocol, spec.tasks, info.instructions, sketch=sketch)
    for demos in study.factors.demos:
        _add_cells(plan, demos)
    if info.state_dim:
        most = plan.demos[max(plan.demos)]
        frozen = [e for e in study.encoders if not is_trained(e)]
        crop, first = study.cameras.cropped(), encoder_seed(study, study.factors.seed[0])
        plan.probes = {e: add_probe(plan, e, most, info.state_names, crop, first) for e in frozen}
    if study.references:
        _add_plain_references(plan)
    if study.ledger is not None:
        from .ledger import add_study_ledger

        add_study_ledger(plan)
    return plan


def add_base(graph: Graph, demos: Sequence[Recipe]) -> dict[str, Recipe]:
    """What everything that learns from demonstrations takes, by role: the sets, and their one normaliser."""
    sets = {f"demos/{i}": d for i, d in enumerate(demos)}
    return {**sets, "normaliser": graph.add("normaliser", {}, sets, "normaliser", 1)}


def study_tokenizer(plan: Plan, base: dict[str, Recipe], code: Code) -> tuple[Recipe, Recipe]:
    """A code of the study: its fitted tokenizer and target tokens."""
    policy = plan.study.policy
    return add_tokenizer(plan, base, code, plan.study.tokenizer, policy.horizon, policy.stride)


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
        plan.references.append(Reference(actor, None, None, {None: episodes}))


def _add_cells(plan: Plan, n_demos: int) -> None:
    study, factors = plan.study, plan.study.factors
    spec = plan.protocol.sim
    demos = []
    for task in plan.tasks:
        step = demos_step(spec, task, n_demos, plan.protocol.versions, study.demonstrations)
        plan.steps.setdefault(step.recipe.key, step)
        demos.append(step.recipe)
    plan.demos[n_demos] = demos
    base = add_base(plan, demos)

    codes = {code: study_tokenizer(plan, base, code) for code in fitted_codes(study)}
    for code in study_codes(study) if study.references else ():
        runs: dict[int | None, Recipe] = {}
        for fitted in dict.fromkeys(code.fitted(seed) for seed in factors.seed):
            runs[fitted.seed_number] = plan.add(
                "episodes",
                {
                    "protocol": plan.protocol.model_dump(mode="json"),
                    "actor": "expert-coded",
                    "horizon": study.policy.horizon,
                },
                {"tokenizer": codes[fitted][0], "normaliser": base["normaliser"]},
                f"episodes of expert-coded ({fitted.words})",
                _episodes_cost(plan, 0.6),
            )
        plan.references.append(Reference("expert-coded", code, n_demos, runs))

    actions = dict.fromkeys([*factors.action, *(study.swap.head if study.swap else ())])
    texts = add_instructions(plan, study, plan.tasks, plan.instructions)
    for encoder, size, action, task, seed in itertools.product(
        study.encoders, factors.size, actions, factors.task, factors.seed
    ):
        own_seed = encoder_seed(study, seed)
        inputs = base | prepared_inputs(plan, encoder, demos, own_seed) | texts[task]
        if not is_trained(encoder):
            seen = add_features(plan, encoder, demos, study.cameras.cropped(), own_seed)
            inputs |= {f"features/{i}": f for i, f in enumerate(seen)}
        add = partial(_add_cells_of, plan, inputs, codes, encoder, size, seed, n_demos, task, action)
        tokenizer = action_parts(action)[1]
        own: list[Code | None] = [*study_codes(study, tokenizer)] if tokenizer else [None]
        for of in own:
            add(of, "chunk", ("chunk",))
        if study.swap and action in study.swap.head:
            for code in itertools.chain(*(study_codes(study, t) for t in study.swap.tokenizer)):
                add(code, "chunk", ("snapped",))
                add(code, "coded", ("chunk", "snapped"))


def add_policy(
    graph: Graph,
    study: Study,
    sim: str,
    tasks: Sequence[str],
    inputs: dict[str, Recipe],
    codes: dict[Code, tuple[Recipe, Recipe]],
    encoder: str,
    size: str,
    seed: int,
    action: str,
    code: Code | None,
    trained_on: TrainedOn = "chunk",
    task: str = "embedding",
) -> Recipe:
    """One training. ``inputs``: what is seen and learnt from; ``codes``: tokenizer and target tokens as fitted.

    What stands at its default in later additions to the study file is left out of the specification, so that the
    keys of older policies hold.
    """
    head, tokenizer = action_parts(action)
    training = study.training.for_action(action)
    spec = {
        "sim": sim,
        "encoder": encoder,
        "head": head,
        "size": size,
        "horizon": study.policy.horizon,
        "n_obs_steps": study.policy.n_obs_steps,
        "stride": study.policy.stride,
        "tasks": list(tasks),
        "seed": seed,
        "training": training,
        "options": study.policy.of_head(head),
        "target": trained_on,
    }
    if task != "embedding":
        spec["task"] = task
    if (crop := study.cameras.cropped().for_encoder(encoder)) is not None:
        spec["crop"] = crop
    mode = study.tokenizer.mode
    published = mode != "eval" and HEADS[head].targets == "tokens"
    if published and "dropout" in tokenizer_entry(tokenizer or "").takes:
        spec["tokenizer_mode"] = mode
    if checkpoints := study.rollout.earlier(training["steps"]):
        spec["checkpoints"] = checkpoints
    name = representation(action, code, trained_on, "chunk")
    if tokenizer and code:
        fitted, tokens = codes[code.fitted(seed)]
        inputs = inputs | {"tokenizer": fitted, "tokens": tokens}
    elif trained_on == "coded" and code:
        inputs = inputs | {"tokens": codes[code.fitted(seed)][1]}
    name += _codebook_words(code) if "tokens" in inputs else ""
    slow = {"xs": 0.06, "S": 0.2, "M": 0.7, "L": 2.0}[size] * training["batch_size"] / 128
    slow *= 3 if tokenizer and tokenizer.startswith("bins") else 1  # a token a step and dimension
    label = " · ".join([f"training {name}", *task_words(task), encoder, size, f"seed {seed}"])
    return graph.add("policy", spec, inputs, label, 5 + slow * training["steps"])


def _codebook_words(code: Code | None) -> str:
    return f" {codebook_name(code.codebook)}" if code and code.codebook else ""


def _add_cells_of(
    plan: Plan,
    inputs: dict[str, Recipe],
    codes: dict[Code, tuple[Recipe, Recipe]],
    encoder: str,
    size: str,
    seed: int,
    n_demos: int,
    task: str,
    action: str,
    code: Code | None,
    trained_on: TrainedOn,
    executions: tuple[Executed, ...],
) -> None:
    """One policy, and a cell for each way in which it is executed."""
    policy = add_policy(
        plan, plan.study, plan.protocol.sim.sim, plan.tasks, inputs, codes, encoder, size, seed, action, code,
        trained_on, task,
    )  # fmt: skip
    codebook, at = _codebook_words(code), " · ".join([*task_words(task), encoder, size, f"seed {seed}"])
    for executed in executions:
        actor, needs = {"actor": "policy"}, {"policy": policy}
        if executed == "snapped" and code:
            actor = {"actor": "snapped"}
            needs = {"policy": policy, "tokenizer": codes[code.fitted(seed)][0]}
        spec = {"protocol": plan.protocol.model_dump(mode="json"), **actor}
        name = f"episodes of {representation(action, code, trained_on, executed)}{codebook} · {at}"
        cost = _episodes_cost(plan, 1.0)
        earlier = [
            (step, plan.add("episodes", {**spec, "checkpoint": step}, needs, f"{name} · step {step}", cost))
            for step in policy.spec.get("checkpoints", ())
        ]
        episodes = plan.add("episodes", spec, needs, name, cost)
        plan.cells.append(
            Cell(
                encoder,
                action,
                size,
                n_demos,
                code,
                seed,
                policy,
                episodes,
                trained_on,
                executed,
                task,
                tuple(earlier),
            )
        )


def add_tokenizer(
    graph: Graph, base: dict[str, Recipe], code: Code, section: Tokenizer, horizon: int, stride: int = 1
) -> tuple[Recipe, Recipe]:
    """A fitted tokenizer and the target tokens of all splits; ``base``: demonstrations and normaliser.

    A tokenizer that is fitted without a seed has none in its key: equal fits are one artefact.
    """
    entry, values = tokenizer_entry(code.tokenizer), section.model_dump(mode="json")
    options = specified(entry.takes, section)
    if code.codebook is not None:
        options["levels"] = [list(p) for p in code.codebook]
    spec = {
        "tokenizer": code.tokenizer,
        "horizon": horizon,
        "stride": stride,
        "options": options,
        "fitting": {},
    }
    cost = 10.0
    if entry.trained:
        spec["fitting"] = {"seed": code.seed_number, **{n: values[n] for n in ("steps", "batch_size", "lr")}}
        cost = 5 + {"xs": 0.15, "S": 0.8, "M": 4}[section.size] * section.steps * section.batch_size / 256
    tokenizer = graph.add("tokenizer", spec, base, f"tokenizer {code.words}", cost)
    tokens = graph.add(
        "tokens",
        {"horizon": horizon, "stride": stride},
        {**base, "tokenizer": tokenizer},
        f"target tokens of {code.words}",
        5,
    )
    return tokenizer, tokens
