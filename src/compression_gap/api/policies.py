"""Saved policies: exported with a model card, and rolled out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..study.file import Study
from ..study.offline import RECORDINGS
from .card import policy_card
from .options import at_least, folder_of

if TYPE_CHECKING:
    from ..policies.card import Card
    from ..rollouts.run import EpisodeRow


@dataclass(frozen=True)
class ExportedPolicy:
    """What an export wrote: its folder, the files in it, and the card's figures."""

    folder: str
    files: list[str]
    card: Card


def export_policy(folder: Path, out: Path, study: Study | None = None) -> ExportedPolicy:
    """Save a policy and its card in a new folder. ``study``: the one whose cell alone the card names."""
    from ..policies import Policy
    from ..policies.sharing import check_new

    check_new(out)  # before the policy is read and its card is made, which takes seconds
    card = policy_card(folder, study)
    made = Policy.from_pretrained(folder).save_pretrained(out, card=card)
    files = sorted(str(f.relative_to(made)) for f in made.rglob("*") if f.is_file())
    return ExportedPolicy(str(made), files, card)


def roll_out(
    folder: Path,
    suite: str | None = None,
    *,
    episodes: int = 5,
    execute: int = 8,
    first_initial_state: int | None = None,
    out: Path | None = None,
) -> tuple[list[EpisodeRow], list[Path]]:
    """Roll out a saved policy: its episodes' rows, and in ``out`` a video of the first one of each task.

    ``suite``: by default the policy's own simulator and tasks. ``episodes``: of each task. ``execute``: actions
    executed per decision. ``first_initial_state``: by default the evaluation's.
    """
    from ..policies import Policy
    from ..rollouts.run import EpisodeRow, run_episodes
    from ..rollouts.video import record_episode
    from ..sims import EVALUATION_STATES, EvaluationProtocol, SimPool, SimSpec, default_rendering, sim_info
    from ..sims import suite as suite_named

    at_least(1, episodes=episodes, execute=execute)
    at_least(0, first_initial_state=first_initial_state)
    policy = Policy.load(folder)
    if suite is None and policy.spec.sim == RECORDINGS:
        raise UserError(
            f"{folder} was trained on recordings, which no simulator repeats: name one with --suite, or serve it to "
            "the robot with cgap serve"
        )
    sim, tasks = suite_named(suite) if suite else (policy.spec.sim, policy.spec.tasks)
    spec = SimSpec(
        sim=sim,
        tasks=tasks,
        cameras=policy.spec.cameras,
        image_size=policy.spec.image_size,
        rendering=default_rendering(sim),
    )
    info = sim_info(spec)
    policy = policy.on_tasks(tasks)
    protocol = EvaluationProtocol(
        sim=spec,
        episodes_per_task=episodes,
        first_initial_state=EVALUATION_STATES if first_initial_state is None else first_initial_state,
        execute=min(execute, policy.horizon),
        n_obs_steps=policy.n_obs_steps,
        step_limit=info.step_limit,
        versions=info.versions,
        settings=info.settings,
    )
    if out is not None:
        folder_of(out)
    with SimPool(spec, workers=min(os.cpu_count() or 1, len(protocol.episodes()))) as pool:
        table = run_episodes(policy, protocol, pool, actor_key=folder.name)
    films = [] if out is None else [out / f"{task}.mp4" for task in tasks]
    for task, film in zip(tasks, films, strict=False):
        record_episode(policy, protocol, task, protocol.first_initial_state, film, actor_key=folder.name)
    return [EpisodeRow(**row) for row in table.to_pylist()], films
