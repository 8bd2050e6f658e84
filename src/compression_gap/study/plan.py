"""The plan: a study as a graph of artefacts, each listed once however many cells need it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from ..artifacts.demonstrations import Demonstrations
from ..artifacts.episodes import Episodes
from ..artifacts.policy import Executed, TrainedOn
from ..artifacts.tokenizer import FittedTokenizer
from ..encoders.registry import is_trained
from ..sims import EvaluationProtocol, SimInfo
from ..store.store import Store
from ..tokenizers.code import Code
from .actions import check_actions, check_encoders, encoder_seed, fitted_codes, study_codes
from .base import Dimensions, StudyPlan
from .cells import Cell, Reference
from .encoders import add_features, add_instructions, add_probe
from .file import Cameras, Ledger, Study
from .ledger import add_ledger
from .parts import (
    Level,
    Seen,
    TrainingData,
    add_normaliser,
    add_policy,
    add_tokens,
    demonstrations_of,
)
from .setting import check_experts, evaluation_of, resolve_suite
from .yaml import of_key

FRAMES_SHARE = 0.5  # of the step limit, that a demonstration lasts until some were made


@dataclass
class Plan(StudyPlan[Episodes]):
    """A study in a simulator."""

    protocol: EvaluationProtocol
    info: SimInfo
    demos: dict[int, tuple[Demonstrations, ...]] = field(default_factory=dict)

    @property
    def encoders(self) -> tuple[str, ...]:
        """Those of the file, and the limits."""
        return self.study.encoders

    @property
    def rolled_out(self) -> EvaluationProtocol:
        """The protocol."""
        return self.protocol

    @property
    def dimensions(self) -> Dimensions:
        """The simulator's."""
        info, sim = self.info, self.protocol.sim
        return Dimensions(
            info.action_dim, info.proprio_dim, info.state_dim, len(info.cameras), sim.image_size
        )

    def frames(self, store: Store) -> tuple[dict[str, float], bool]:
        """As they were collected; before that a share of the step limit."""
        frames, assumed = {}, False
        for of in {d.key: d for sets in self.demos.values() for d in sets}.values():
            mean = store.meta(of).get("mean_length") if store.recorded(of) else None
            assumed = assumed or mean is None
            length = FRAMES_SHARE * self.protocol.step_limit if mean is None else float(mean)
            frames[of.key] = length * of.episodes
        return frames, assumed


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
    plan = Plan(study, spec.tasks, protocol, info, sketch=sketch)
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
        _add_ledger(plan, study.ledger)
    return plan


def _add_ledger(plan: Plan, section: Ledger) -> None:
    """The ledger of the study's largest set of demonstrations, with the encoders whose features are cached."""
    study, most = plan.study, max(plan.study.factors.demos)
    policy, normaliser = study.policy, add_normaliser(plan, plan.demos[most])
    first = study.factors.seed[0]
    encoders = [e for e in ("blind", *study.encoders) if not is_trained(e)]
    plan.ledger = add_ledger(
        plan,
        section,
        normaliser,
        plan.tasks,
        {
            e: add_features(plan, e, plan.demos[most], study.cameras.cropped(), encoder_seed(study, first))
            for e in dict.fromkeys(encoders)
        },
        study_codes(study),
        {
            c: add_tokens(plan, normaliser, c, study.tokenizer, policy.horizon, policy.stride)
            for c in fitted_codes(study)
        },
        horizon=study.policy.horizon,
        execute=plan.protocol.execute,
        n_obs_steps=study.policy.n_obs_steps,
        stride=study.policy.stride,
        protocol=plan.protocol,
        cells=[c for c in plan.cells if c.demos == most and not is_trained(c.encoder)],
        first=first,
    )


def _add_plain_references(plan: Plan) -> None:
    horizon = plan.study.policy.horizon
    for episodes in (
        Episodes(protocol=plan.protocol, actor="expert"),
        Episodes(protocol=plan.protocol, actor="expert-chunked", horizon=horizon),
    ):
        plan.references.append(Reference(episodes.actor, None, None, {None: plan.add(episodes)}))


def _add_cells(plan: Plan, n_demos: int) -> None:
    study, factors, policy = plan.study, plan.study.factors, plan.study.policy
    sim, versions = plan.protocol.sim, plan.protocol.versions
    demos = plan.demos[n_demos] = tuple(
        plan.add(demonstrations_of(sim, task, n_demos, versions, study.demonstrations)) for task in plan.tasks
    )
    normaliser = add_normaliser(plan, demos)
    codes = {
        code: add_tokens(plan, normaliser, code, study.tokenizer, policy.horizon, policy.stride)
        for code in fitted_codes(study)
    }
    for code in study_codes(study) if study.references else ():
        runs: dict[int | None, Episodes] = {}
        for fitted in dict.fromkeys(code.fitted(seed) for seed in factors.seed):
            coded = Episodes(
                protocol=plan.protocol,
                actor="expert-coded",
                horizon=policy.horizon,
                tokenizer=codes[fitted].tokenizer,
                normaliser=normaliser,
            )
            runs[fitted.seed_number] = plan.add(coded)
        plan.references.append(Reference("expert-coded", code, n_demos, runs))

    texts = add_instructions(plan, study, plan.tasks, plan.info.instructions)
    data = TrainingData(sim.sim, plan.tasks, normaliser, codes, texts)
    actions = tuple(dict.fromkeys([*factors.action, *(study.swap.head if study.swap else ())]))
    for at, seen, own in plan.trainings(demos, actions):
        for of in own:
            _add_cells_of(plan, data, seen, at, n_demos, of, "chunk", ("chunk",))
        if study.swap and at.action in study.swap.head:
            for code in itertools.chain(*(study_codes(study, t) for t in study.swap.tokenizer)):
                _add_cells_of(plan, data, seen, at, n_demos, code, "chunk", ("snapped",))
                _add_cells_of(plan, data, seen, at, n_demos, code, "coded", ("chunk", "snapped"))


def _add_cells_of(
    plan: Plan,
    data: TrainingData,
    seen: Seen,
    at: Level,
    n_demos: int,
    code: Code | None,
    trained_on: TrainedOn,
    executions: tuple[Executed, ...],
) -> None:
    """One policy, and a cell for each way in which it is executed."""
    policy = add_policy(plan, plan.study, data, seen, at, code, trained_on)
    for executed in executions:
        through = data.codes[code.fitted(at.seed)].tokenizer if executed == "snapped" and code else None

        def episodes(checkpoint: int | None = None, through: FittedTokenizer | None = through) -> Episodes:
            return plan.add(
                Episodes(
                    protocol=plan.protocol,
                    actor="policy" if through is None else "snapped",
                    checkpoint=checkpoint,
                    policy=policy,
                    tokenizer=through,
                )
            )

        earlier = tuple((step, episodes(step)) for step in policy.checkpoints)
        plan.cells.append(
            Cell(
                at.encoder,
                at.action,
                at.size,
                n_demos,
                code,
                at.seed,
                policy,
                episodes(),
                trained_on,
                executed,
                at.task,
                earlier,
            )
        )
