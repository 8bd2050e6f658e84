"""Diagnosing any policy: its episodes as it is and under one change at a time, and what they say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..artifacts.demonstrations import Demonstrations, open_demos
from ..artifacts.policy_episodes import PolicyIdentity, Where
from ..errors import UserError
from ..results.diagnosis import read_diagnosis
from ..results.films import film_changes
from ..results.records.diagnosis import Diagnosed
from ..results.records.json import as_json
from ..serving.remote import RemoteActor
from ..store.store import Store, write_json
from ..study.diagnosis import Diagnosis, DiagnosisSpec, Subject, plan_diagnosis
from .actors import OpenPolicy, PolicyOptions, open_policy
from .build import build_all
from .options import Running, at_least, can_film, folder_of


@dataclass(frozen=True)
class DiagnosisOptions:
    """How a policy is diagnosed. ``name``: what it is called; ``episodes``: of each task and change;
    ``videos``: changes of which the page shows an episode.
    """

    suite: str | None = None
    name: str | None = None
    episodes: int = 20
    execute: int | None = None
    spec: DiagnosisSpec = field(default_factory=DiagnosisSpec)
    demos: tuple[Path, ...] = ()
    policy: PolicyOptions = field(default_factory=PolicyOptions)
    videos: int = 2


@dataclass(frozen=True)
class MadeDiagnosis:
    """What was found, and the folder with its page and its JSON."""

    found: Diagnosed
    folder: Path


def diagnose(
    named: Sequence[str],
    options: DiagnosisOptions | None = None,
    *,
    store: str | Path = "store",
    running: Running | None = None,
) -> MadeDiagnosis:
    """Diagnose the policy in a folder, or behind addresses ws://HOST:PORT; finished episodes are kept in the store."""
    from ..report.diagnosis import write_diagnosis

    o, place = options or DiagnosisOptions(), Store(Path(store))
    at_least(1, episodes=o.episodes, execute=o.execute)
    opened = open_policy(named, o.suite, o.policy)
    try:
        made = plan_diagnosis(
            _subject(opened, named, o),
            opened.protocol(episodes=o.episodes, execute=o.execute),
            _with_demos(o, opened, place),
        )
    finally:
        opened.close()
    folder = folder_of(place.root / "diagnoses" / _slug(made.subject.identity))
    build_all(made, place, folder, running or Running())
    found = read_diagnosis(made, place)
    write_json(folder / "diagnosis.json", as_json(found))
    videos = film_changes(made, found, place, o.videos) if o.videos and can_film() else []
    write_diagnosis(found, folder / "diagnosis.html", videos)
    return MadeDiagnosis(found, folder)


def _subject(opened: OpenPolicy, named: Sequence[str], options: DiagnosisOptions) -> Subject:
    actor = opened.actor
    name = options.name or opened.name
    if isinstance(actor, RemoteActor):
        where = Where(None, tuple(named), options.policy.timeout, actor.horizon)
        identity = PolicyIdentity.served(name, actor.metadata or {})
        binding = actor.binding
        prompted = binding.prompt is not None
        return Subject(
            identity, where, binding, actor.horizon, actor.needs_images, prompted,
            conditioned=prompted or binding.task is not None,
        )  # fmt: skip
    folder = Path(named[0]).resolve()
    return Subject(
        PolicyIdentity.in_folder(name, folder), Where(folder), None, actor.horizon, actor.needs_images,
        prompted=False, conditioned=len(actor.spec.tasks) > 1,
    )  # fmt: skip


def _with_demos(options: DiagnosisOptions, opened: OpenPolicy, store: Store) -> DiagnosisSpec:
    """What codes are fitted to: sets in the same store."""
    from dataclasses import replace

    if not options.demos:
        return options.spec
    place, sets = open_demos(options.demos)
    if place.root.resolve() != store.root.resolve():
        raise UserError(
            f"the demonstrations lie in {place.root}, and the diagnosis in {store.root}: give --store {place.root}"
        )
    _check_actions(sets, opened, place)
    return replace(options.spec, demos=tuple(sets))


def _check_actions(sets: Sequence[Demonstrations], opened: OpenPolicy, store: Store) -> None:
    from ..sims import sim_info

    wanted = sim_info(opened.sim).action_dim
    for s in sets:
        if (found := s.load(store).actions.shape[1]) != wanted:
            raise UserError(
                f"{s.key} has actions of {found} numbers, {opened.sim.sim} of {wanted}: name other --demos"
            )


def _slug(identity: PolicyIdentity) -> str:
    return f"{re.sub(r'[^a-z0-9]+', '-', identity.name.lower()).strip('-')[:60]}-{identity.digest[:8]}"


__all__ = ["Diagnosis", "DiagnosisOptions", "MadeDiagnosis", "diagnose"]
