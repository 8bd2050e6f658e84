"""Saved policies: exported with a model card, and rolled out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..study.file import Study
from .actors import open_policy
from .card import policy_card
from .options import PolicyOptions, at_least, folder_of

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
    named: Sequence[str],
    suite: str | None = None,
    *,
    episodes: int = 5,
    execute: int | None = None,
    first_initial_state: int | None = None,
    out: Path | None = None,
    options: PolicyOptions | None = None,
) -> tuple[list[EpisodeRow], list[Path]]:
    """Roll out a saved policy, or a served one: its episodes' rows, and in ``out`` a video of each task's first one.

    ``named``: a folder, or addresses; ``suite``: by default the policy's own simulator and tasks. ``episodes``: of each
    task. ``execute``: actions executed per decision, by default the binding's, or 8. ``first_initial_state``: by
    default the evaluation's.
    """
    from ..rollouts.run import EpisodeRow, run_episodes
    from ..rollouts.video import record_episode
    from ..sims import SimPool

    at_least(1, episodes=episodes, execute=execute)
    at_least(0, first_initial_state=first_initial_state)
    opened = open_policy(named, suite, options or PolicyOptions())
    try:
        protocol = opened.protocol(
            episodes=episodes, execute=execute, first_initial_state=first_initial_state
        )
        if out is not None:
            folder_of(out)
        with SimPool(protocol.sim, workers=min(os.cpu_count() or 1, len(protocol.episodes()))) as pool:
            table = run_episodes(opened.actor, protocol, pool, actor_key=opened.name)
        films = [] if out is None else [out / f"{task}.mp4" for task in protocol.sim.tasks]
        for task, film in zip(protocol.sim.tasks, films, strict=False):
            start = protocol.first_initial_state
            record_episode(opened.actor, protocol, task, start, film, actor_key=opened.name)
    finally:
        opened.close()
    return [EpisodeRow(**row) for row in table.to_pylist()], films
