"""Where a study takes place: its simulator, and the protocol by which success is measured."""

from __future__ import annotations

from collections.abc import Sequence

from ..artifacts.demonstrations import Demonstrations
from ..errors import UserError
from ..sims import (
    EVALUATION_STATES,
    TUNING_STATES,
    EvaluationProtocol,
    SimInfo,
    SimSpec,
    default_rendering,
    sim_info,
    suite,
)
from .file import Cameras, Study

EXECUTE = 8  # actions per decision, where neither the study nor the simulator's protocol says


def resolve_suite(name: str, cameras: Cameras, protocol: str = "") -> tuple[SimSpec, SimInfo]:
    """A suite by name, seen by these cameras: the simulator's specification, and what it says of itself."""
    sim, tasks = suite(name)
    spec = SimSpec(
        sim=sim,
        tasks=tasks,
        cameras=cameras.names,
        image_size=cameras.image_size,
        rendering=cameras.rendering or default_rendering(sim),
        protocol=protocol,
    )
    info = sim_info(spec)
    if protocol and not info.settings:
        raise UserError(f"{sim} has one protocol, and no '{protocol}': leave it out")
    return spec.model_copy(update={"cameras": info.cameras}), info


def check_experts(study: Study, info: SimInfo) -> None:
    """Refuse what needs a scripted expert where a task has none."""
    if not info.without_expert:
        return
    tasks = ", ".join(info.without_expert)
    if study.demonstrations == "expert":
        raise UserError(
            f"there is no scripted expert for {tasks}: take the tasks that have one, or 'demonstrations: official'"
        )
    if study.references:
        raise UserError(
            f"there is no scripted expert for {tasks}, so no reference actor: set 'references: false'"
        )
    if study.ledger is not None and study.ledger.sigma is None:
        raise UserError(
            f"there is no scripted expert for {tasks} to measure σ* with: give ledger.sigma, as in 0.1, or leave the "
            "ledger out"
        )


def check_execute(execute: int, study: Study) -> None:
    """Refuse to execute more than a chunk."""
    if execute > study.policy.horizon:
        raise UserError(
            f"rollout.execute ({execute}) is longer than policy.horizon "
            f"({study.policy.horizon}); execute at most the chunk"
        )


def evaluation_of(study: Study, spec: SimSpec, info: SimInfo) -> EvaluationProtocol:
    """The study's evaluation; what its file leaves open is the simulator's."""
    execute = study.rollout.execute or info.execute or EXECUTE
    check_execute(execute, study)
    rollout, most = study.rollout, info.evaluation_states
    if rollout.states == "evaluation" and most is not None and rollout.episodes_per_task > most:
        raise UserError(
            f"rollout.episodes_per_task is {rollout.episodes_per_task}, and {spec.sim} has {most} initial states of each "
            "task for evaluation: ask for at most as many, raise rollout.repeats, or name another rollout.protocol"
        )
    return EvaluationProtocol(
        sim=spec,
        episodes_per_task=rollout.episodes_per_task,
        first_initial_state=EVALUATION_STATES if rollout.states == "evaluation" else TUNING_STATES,
        repeats=rollout.repeats,
        execute=execute,
        n_obs_steps=study.policy.n_obs_steps,
        step_limit=rollout.step_limit or info.step_limit,
        versions=info.versions,
        settings=info.settings,
    )


def tasks_of(demos: Sequence[Demonstrations]) -> tuple[str, ...]:
    """Their tasks, in order of first appearance."""
    return tuple(dict.fromkeys(task for d in demos for task in d.tasks))


def simulator_of(demos: Sequence[Demonstrations]) -> tuple[SimSpec | None, tuple[str, ...]]:
    """The simulator that the demonstrations come from, if it is one and the same, and their tasks.

    Official recordings have none: their initial states have no numbers here.
    """
    tasks = tasks_of(demos)
    sims = {d.sim.model_copy(update={"tasks": ()}) if d.sim else None for d in demos if d.origin == "expert"}
    if len(sims) != 1 or any(d.origin != "expert" for d in demos) or (sim := sims.pop()) is None:
        return None, tasks
    return sim.model_copy(update={"tasks": tasks}), tasks


def reference_protocol(
    sim: SimSpec, episodes_per_task: int, *, horizon: int, execute: int
) -> EvaluationProtocol:
    """How the expert's chunks are rolled out, where there is no study to say it."""
    if execute > horizon:
        raise UserError(f"--execute {execute} is longer than --horizon {horizon}")
    return protocol_of(sim, episodes_per_task, execute=execute)


def protocol_of(
    sim: SimSpec,
    episodes_per_task: int,
    *,
    execute: int,
    n_obs_steps: int = 1,
    first_initial_state: int = EVALUATION_STATES,
) -> EvaluationProtocol:
    """An evaluation to the simulator's own limits, where there is no study to say it."""
    info = sim_info(sim)
    return EvaluationProtocol(
        sim=sim,
        episodes_per_task=episodes_per_task,
        first_initial_state=first_initial_state,
        execute=execute,
        n_obs_steps=n_obs_steps,
        step_limit=info.step_limit,
        versions=info.versions,
        settings=info.settings,
    )
