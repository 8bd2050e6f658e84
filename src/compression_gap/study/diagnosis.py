"""The diagnosis of one policy, trained anywhere, as a graph: as it is, and under one change at a time.

All episodes start from the same initial states, so that every change is paired with the policy as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, TypeVar

from ..artifacts.acted import ActedChunks
from ..artifacts.changed import PolicyIdentity, Where
from ..artifacts.demonstrations import Demonstrations
from ..artifacts.episodes import Episodes
from ..artifacts.normaliser import FittedNormaliser
from ..artifacts.policy_episodes import PolicyEpisodes
from ..artifacts.policy_errors import PolicyErrors
from ..artifacts.tokenizer import FittedTokenizer
from ..demos import DemoSet
from ..errors import UserError, unknown_name
from ..rollouts.changes import Sight
from ..serving.binding import Binding
from ..sims import TUNING_STATES, EvaluationProtocol, sim_info
from ..store.artifact import Artifact
from ..store.graph import Graph
from ..tokenizers.code import Code
from ..tokenizers.levels import Levels
from .actions import check_code, codes_of, shorter_prefixes
from .file import Tokenizer
from .parts import add_normaliser, add_tokens, to_collect
from .resolution import GRID
from .setting import tasks_of

Group = Literal[
    "code", "white", "offset", "averaged", "blurred", "colour", "camera", "horizon", "state", "prompt"
]
Curve = Literal["code", "white", "offset", "averaged", "blurred", "horizon"]  # groups along an axis
GROUPS: dict[str, tuple[Group, ...]] = {
    "code": ("code",),
    "precision": ("white", "offset"),
    "vision": ("averaged", "blurred", "colour", "camera"),
    "horizon": ("horizon",),
    "state": ("state",),
    "language": ("prompt",),
}
BINS = (2, 4, 8, 16, 32, 64, 256)  # a number, of the tokenizer "bins": a ladder of codes
RESOLUTIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # pixels, square
BLURS = (0.01, 0.02, 0.04, 0.08, 0.16)  # standard deviation, of the image's width
EXECUTED = (1, 2, 4, 8, 16, 32, 64)  # actions a decision


@dataclass(frozen=True)
class Subject:
    """A policy: what it is, how it is spoken to, where it is found, and what it emits and sees."""

    identity: PolicyIdentity
    where: Where
    binding: Binding | None
    horizon: int
    n_obs_steps: int
    needs_images: bool
    prompted: bool  # by the words of an instruction
    conditioned: bool  # on the task, in words or by its number


@dataclass(frozen=True)
class DiagnosisSpec:
    """What is changed. ``groups``: of ``GROUPS``; ``demos``: what codes are fitted to, else the policy's own chunks."""

    groups: tuple[str, ...] = tuple(GROUPS)
    tokenizers: tuple[str, ...] = ("bins", "oat")
    codebooks: tuple[Levels, ...] = (((8, 5, 5, 5),),)
    section: Tokenizer = field(default_factory=Tokenizer)
    demos: tuple[Demonstrations, ...] = ()


Measured = TypeVar("Measured", PolicyEpisodes, PolicyErrors)


@dataclass(frozen=True)
class Condition(Generic[Measured]):
    """The policy under one change. ``size``: where it lies on its group's axis; ``code``: of the chunks' tokens.

    ``expert``: the expert's chunks through the same code, where there is one.
    """

    group: Group
    measured: Measured
    size: float | None = None
    code: Code | None = None
    expert: Episodes | None = None


@dataclass(kw_only=True)
class Diagnosis(Graph, Generic[Measured]):
    """The graph, and what is read from it. ``skipped``: groups that this policy does not have, and why.

    ``protocol``: of the episodes; None where errors on recordings are measured. ``measure`` makes a measurement of a
    change; ``own_chunks``: codes and noise are measured on the policy's own chunks.
    """

    subject: Subject
    tasks: tuple[str, ...]
    cameras: tuple[str, ...]
    image_size: int
    protocol: EvaluationProtocol | None
    measure: Callable[..., Measured]
    undisturbed: Measured
    conditions: list[Condition[Measured]] = field(default_factory=list)
    references: dict[str, Episodes] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    own_chunks: bool = False

    @property
    def wanted(self) -> list[Artifact]:
        """Every measurement."""
        coded: list[Artifact] = [c.expert for c in self.conditions if c.expert is not None]
        return [self.undisturbed, *(c.measured for c in self.conditions), *self.references.values(), *coded]


def plan_diagnosis(
    subject: Subject, protocol: EvaluationProtocol, spec: DiagnosisSpec
) -> Diagnosis[PolicyEpisodes]:
    """The graph in a simulator. Raises ``UserError`` for a group or a tokenizer that is not known."""

    def measure(protocol: EvaluationProtocol = protocol, **change: Any) -> PolicyEpisodes:
        return PolicyEpisodes(protocol=protocol, **_of(subject), **change)

    whole, sim = measure(), protocol.sim
    made = Diagnosis(
        subject=subject, tasks=sim.tasks, cameras=sim.cameras, image_size=sim.image_size, protocol=protocol,
        measure=measure, undisturbed=whole, own_chunks=not spec.demos,
    )  # fmt: skip
    made.add(whole)
    if not sim_info(sim).without_expert:
        made.references["expert"] = made.add(Episodes(protocol=_plain(protocol), actor="expert"))
        made.references["expert-chunked"] = made.add(
            Episodes(protocol=_plain(protocol), actor="expert-chunked", horizon=subject.horizon)
        )
    groups = _groups(spec)
    if groups & {"code", "white", "offset"}:
        demos: Sequence[Demonstrations] = spec.demos
        if not demos:
            if len(protocol.episodes()) < 3:
                raise UserError(
                    "codes and noise are fitted to the policy's own chunks here, and a three-way split needs at least "
                    "3 episodes: raise --episodes, or name --demos"
                )
            # From other initial states than those that codes are judged on.
            other = protocol.model_copy(update={"first_initial_state": TUNING_STATES})
            demos = (made.add(ActedChunks(played=made.add(measure(other)))),)
        _add_chunk_changes(made, spec, groups, add_normaliser(made, demos))
    _add_seen(made, groups)
    return made


def plan_recorded(
    subject: Subject, sets: Sequence[Demonstrations], first: DemoSet, spec: DiagnosisSpec, *, points: int
) -> Diagnosis[PolicyErrors]:
    """The graph on recordings: chunk errors at about ``points`` held-out decisions; ``first``: of the sets, loaded."""
    normaliser, tasks = FittedNormaliser(demos=tuple(sets)), tasks_of(sets)

    def measure(**change: Any) -> PolicyErrors:
        return PolicyErrors(
            **_of(subject), **{"normaliser": normaliser, **change}, tasks=tasks, horizon=subject.horizon,
            n_obs_steps=subject.n_obs_steps, points=points, demos=tuple(sets),
        )  # fmt: skip

    whole = measure()
    made = Diagnosis(
        steps=to_collect(sets), subject=subject, tasks=tasks, cameras=tuple(first.images), protocol=None, measure=measure,
        image_size=next((a.shape[1] for a in first.images.values()), 0), undisturbed=whole,
    )  # fmt: skip
    made.add(normaliser)
    made.add(whole)
    groups = _groups(spec) - {"white", "offset"}
    made.skipped["precision"] = "noise on an answer is as large as it is made, whatever the policy"
    _add_chunk_changes(made, spec, groups, normaliser)
    _add_seen(made, groups)
    return made


def _groups(spec: DiagnosisSpec) -> set[Group]:
    for name in spec.groups:
        if name not in GROUPS:
            raise unknown_name("group of changes", name, GROUPS)
    return {group for name in spec.groups for group in GROUPS[name]}


def _of(subject: Subject) -> dict[str, Any]:
    return {"policy": subject.identity, "binding": subject.binding, "where": subject.where}


def _changed(
    made: Diagnosis[Measured], group: Group, size: float | None = None, **change: Any
) -> Condition[Measured]:
    condition = Condition(group, made.add(made.measure(**change)), size)
    made.conditions.append(condition)
    return condition


def _add_seen(made: Diagnosis[Any], groups: set[Group]) -> None:
    for group, add in _SEEN.items():
        if group in groups:
            add(made)


def _add_chunk_changes(
    made: Diagnosis[Any], spec: DiagnosisSpec, groups: set[Group], normaliser: FittedNormaliser
) -> None:
    """Noise on the chunks, and codes; what they are measured in comes from demonstrations, or from the policy."""
    horizon = made.subject.horizon
    noises: tuple[Group, ...] = ("white", "offset")
    for noise in noises:
        if noise in groups:
            for sigma in GRID:
                _changed(made, noise, sigma, noise=noise, sigma=sigma, normaliser=normaliser)
    if "code" not in groups:
        return
    for name in dict.fromkeys(spec.tokenizers):
        for section in _ladder(name, spec.section):
            for code in codes_of(name, spec.codebooks, (0,)):
                check_code(code, section, horizon)
                stride = horizon if made.own_chunks else 1
                tokenizer = add_tokens(made, normaliser, code, section, horizon, stride).tokenizer
                _add_code(made, normaliser, code, tokenizer, section)


def _ladder(tokenizer: str, section: Tokenizer) -> list[Tokenizer]:
    """The tokenizer's own prefixes are a ladder; bins of several numbers are another."""
    if tokenizer != "bins":
        return [section]
    return [section.model_copy(update={"bins": n}) for n in BINS]


def _add_code(
    made: Diagnosis[Any],
    normaliser: FittedNormaliser,
    code: Code,
    tokenizer: FittedTokenizer,
    section: Tokenizer,
) -> None:
    for prefix in (*shorter_prefixes(code, section), None):
        condition = _changed(made, "code", tokenizer=tokenizer, normaliser=normaliser, prefix=prefix)
        coded = None
        if made.protocol is not None and made.references:
            coded = made.add(
                Episodes(
                    protocol=_plain(made.protocol),
                    actor="expert-coded",
                    horizon=made.subject.horizon,
                    tokenizer=tokenizer,
                    normaliser=normaliser,
                    prefix=prefix,
                )
            )
        made.conditions[-1] = replace(condition, code=code, expert=coded)


def _add_averaged(made: Diagnosis[Any]) -> None:
    if _sees(made, "vision"):
        for r in RESOLUTIONS:
            if r < made.image_size:
                _changed(made, "averaged", r, sight=Sight("averaged", float(r)))


def _add_blurred(made: Diagnosis[Any]) -> None:
    if _sees(made, "vision"):
        for share in BLURS:
            _changed(made, "blurred", share, sight=Sight("blurred", share))


def _add_colour(made: Diagnosis[Any]) -> None:
    if _sees(made, "vision"):
        _changed(made, "colour", sight=Sight("grey"))


def _add_cameras(made: Diagnosis[Any]) -> None:
    if not _sees(made, "vision"):
        return
    cameras = made.cameras
    for camera in cameras if len(cameras) > 1 else ():
        _changed(made, "camera", sight=Sight("black", camera=camera))
    _changed(made, "camera", sight=Sight("black"))


def _sees(made: Diagnosis[Any], group: str) -> bool:
    if not made.subject.needs_images:
        made.skipped[group] = "the policy sees no images"
    return made.subject.needs_images


def _add_horizons(made: Diagnosis[Any]) -> None:
    protocol = made.protocol
    if protocol is None:
        made.skipped["horizon"] = "nothing is executed on recordings"
        return
    if made.subject.horizon == 1:
        made.skipped["horizon"] = "the policy's server answers one action at a time"
    for n in EXECUTED:
        if n <= made.subject.horizon and n != protocol.execute:
            _changed(made, "horizon", n, protocol=protocol.model_copy(update={"execute": n}))


def _add_state(made: Diagnosis[Any]) -> None:
    binding = made.subject.binding
    if binding is not None and binding.state is None:
        made.skipped["state"] = "the binding sends no state"
        return
    source: dict[str, Any] = {} if made.protocol is None else {"undisturbed": made.undisturbed}
    _changed(made, "state", sight=Sight("mean state"), **source)


def _add_prompts(made: Diagnosis[Any]) -> None:
    if not made.subject.conditioned:
        made.skipped["language"] = "the policy is not told the task"
        return
    if len(made.tasks) > 1:
        _changed(made, "prompt", sight=Sight("other prompt"))
    else:
        made.skipped["language"] = "one task has no other task's prompt"
    if made.subject.prompted:
        _changed(made, "prompt", sight=Sight("empty prompt"))


_SEEN: dict[Group, Callable[[Diagnosis[Any]], None]] = {
    "averaged": _add_averaged,
    "blurred": _add_blurred,
    "colour": _add_colour,
    "camera": _add_cameras,
    "horizon": _add_horizons,
    "state": _add_state,
    "prompt": _add_prompts,
}


def _plain(protocol: EvaluationProtocol) -> EvaluationProtocol:
    """That of a reference actor, which looks at nothing: all policies share it."""
    return protocol.model_copy(update={"n_obs_steps": 1})
