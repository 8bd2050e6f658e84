"""Diagnosing any policy: its episodes as it is and under one change at a time, and what they say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from ..artifacts.changed import PolicyIdentity, Where
from ..artifacts.demonstrations import Demonstrations, open_demos
from ..artifacts.policy_errors import recorded_info
from ..errors import UserError
from ..results.diagnosis import read_diagnosis, undisturbed_rows
from ..results.diagnosis_errors import read_recorded
from ..results.records.diagnosis import Diagnosed, DiagnosedErrors
from ..results.records.json import as_json
from ..results.videos import videos_of_changes
from ..serving.binding import is_own
from ..serving.remote import RemoteActor
from ..store.store import Store, write_json
from ..study.diagnosis import DiagnosisSpec, Subject, plan_diagnosis, plan_recorded
from ..study.setting import tasks_of
from .actors import OpenPolicy, open_for_recordings, open_policy
from .build import build_all
from .options import PolicyOptions, Running, at_least, can_film, folder_of

if TYPE_CHECKING:
    from ..policies import Policy


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


Found = TypeVar("Found", Diagnosed, DiagnosedErrors)


@dataclass(frozen=True)
class MadeDiagnosis(Generic[Found]):
    """What was found, and the folder with its page and its JSON."""

    found: Found
    folder: Path


def diagnose(
    named: Sequence[str],
    options: DiagnosisOptions | None = None,
    *,
    store: str | Path = "store",
    running: Running | None = None,
) -> MadeDiagnosis[Diagnosed]:
    """Diagnose the policy in a folder, or behind addresses ws://HOST:PORT; finished episodes are kept in the store."""
    from ..report.diagnosis import write_diagnosis

    o, place = options or DiagnosisOptions(), Store(Path(store))
    at_least(1, episodes=o.episodes, execute=o.execute)
    opened = open_policy(named, o.suite, o.policy)
    try:
        made = plan_diagnosis(
            _subject(opened.actor, named, o),
            opened.protocol(episodes=o.episodes, execute=o.execute),
            _with_demos(o, opened, place),
        )
    finally:
        opened.close()
    folder = folder_of(place.root / "diagnoses" / _slug(made.subject.identity))
    running = running or Running()
    build_all(replace(made, conditions=[], references={}), place, folder, running)
    undisturbed_rows(made, place)  # a policy that never succeeds is told so before hours of changes
    build_all(made, place, folder, running)
    found = read_diagnosis(made, place)
    write_json(folder / "diagnosis.json", as_json(found))
    videos = videos_of_changes(made, found, place, o.videos) if o.videos and can_film() else []
    write_diagnosis(found, folder / "diagnosis.html", videos)
    return MadeDiagnosis(found, folder)


def diagnose_recordings(
    named: Sequence[str],
    recordings: Sequence[Path],
    options: DiagnosisOptions | None = None,
    *,
    points: int = 300,
    running: Running | None = None,
) -> MadeDiagnosis[DiagnosedErrors]:
    """Chunk errors of a policy on the held-out episodes of recordings (folders STORE/demos/KEY), under the same changes.

    ``points``: decisions that the policy is asked for under each change, about.
    """
    from ..report.diagnosis import write_recorded

    o = options or DiagnosisOptions()
    at_least(1, points=points, execute=o.execute)
    place, sets = open_demos(recordings)
    first, tasks = sets[0].load(place), tasks_of(sets)
    actor = open_for_recordings(named, tasks, recorded_info(first), o.policy)
    try:
        subject = _subject(actor, named, o)
    finally:
        if isinstance(actor, RemoteActor):
            actor.close()
    made = plan_recorded(subject, sets, first, o.spec, points=points)
    folder = folder_of(place.root / "diagnoses" / f"{_slug(subject.identity)}-recordings")
    build_all(made, place, folder, running or Running())
    found = read_recorded(made, place)
    write_json(folder / "diagnosis.json", as_json(found))
    write_recorded(found, folder / "diagnosis.html")
    return MadeDiagnosis(found, folder)


def _name(actor: Policy | RemoteActor, named: Sequence[str], given: str | None) -> str:
    """What the policy is called. A server that does not say what its weights are needs a name from the user."""
    if given is not None:
        return given
    if not isinstance(actor, RemoteActor):
        return Path(named[0]).name
    about = actor.metadata or {}
    if not is_own(about):
        raise UserError(
            f"{named[0]} does not say which weights it serves: give the policy a --name of its own, and another one when "
            "you load others, since finished episodes are kept under it"
        )
    return f"{about['head']} {about['encoder']}"


def _subject(actor: Policy | RemoteActor, named: Sequence[str], options: DiagnosisOptions) -> Subject:
    name = _name(actor, named, options.name)
    if isinstance(actor, RemoteActor):
        binding = actor.binding
        prompted = binding.prompt is not None
        where = Where(None, tuple(named), options.policy.timeout, actor.horizon)
        identity = PolicyIdentity.served(name, actor.metadata or {})
        conditioned = prompted or binding.task is not None
    else:
        binding, prompted, conditioned = None, False, len(actor.spec.tasks) > 1
        where = Where(Path(named[0]).resolve())
        identity = PolicyIdentity.in_folder(name, Path(named[0]))
    return Subject(
        identity=identity,
        where=where,
        binding=binding,
        horizon=actor.horizon,
        n_obs_steps=actor.n_obs_steps,
        needs_images=actor.needs_images,
        prompted=prompted,
        conditioned=conditioned,
    )


def _with_demos(options: DiagnosisOptions, opened: OpenPolicy, store: Store) -> DiagnosisSpec:
    """What codes are fitted to: sets in the same store."""
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
