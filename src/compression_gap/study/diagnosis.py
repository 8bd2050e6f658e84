"""The diagnosis of one policy, trained anywhere, as a graph: as it is, and under one change at a time.

All episodes start from the same initial states, so that every change is paired with the policy as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..artifacts.acted import ActedChunks
from ..artifacts.demonstrations import Demonstrations
from ..artifacts.episodes import Episodes
from ..artifacts.normaliser import FittedNormaliser
from ..artifacts.policy_episodes import PolicyEpisodes, PolicyIdentity, Where
from ..artifacts.tokenizer import FittedTokenizer
from ..errors import UserError, unknown_name
from ..rollouts.changes import Sight
from ..serving.binding import Binding
from ..sims import EvaluationProtocol, sim_info
from ..store.artifact import Artifact
from ..store.graph import Graph
from ..tokenizers import tokenizer_entry
from ..tokenizers.code import Code
from ..tokenizers.levels import Levels, prefix_lengths
from .actions import check_code, codes_of
from .file import Tokenizer
from .parts import add_normaliser, add_tokens
from .resolution import GRID

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


@dataclass(frozen=True)
class Condition:
    """The policy under one change. ``size``: where it lies on its group's axis; ``code``: of the chunks' tokens.

    ``expert``: the expert's chunks through the same code, where there is one.
    """

    group: Group
    episodes: PolicyEpisodes
    size: float | None = None
    code: Code | None = None
    expert: Episodes | None = None


@dataclass(kw_only=True)
class Diagnosis(Graph):
    """The graph, and what is read from it. ``skipped``: groups that this policy does not have, and why."""

    subject: Subject
    protocol: EvaluationProtocol
    undisturbed: PolicyEpisodes
    conditions: list[Condition] = field(default_factory=list)
    references: dict[str, Episodes] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    own_chunks: bool = False  # codes and noise are measured on the policy's own chunks

    @property
    def wanted(self) -> list[Artifact]:
        """Every rollout."""
        coded = [c.expert for c in self.conditions if c.expert is not None]
        return [self.undisturbed, *(c.episodes for c in self.conditions), *self.references.values(), *coded]


def plan_diagnosis(subject: Subject, protocol: EvaluationProtocol, spec: DiagnosisSpec) -> Diagnosis:
    """The graph. Raises ``UserError`` for a group or a tokenizer that is not known."""
    for name in spec.groups:
        if name not in GROUPS:
            raise unknown_name("group of changes", name, GROUPS)
    made = Diagnosis(
        subject=subject,
        protocol=protocol,
        undisturbed=PolicyEpisodes(
            protocol=protocol, policy=subject.identity, binding=subject.binding, where=subject.where
        ),
    )
    made.add(made.undisturbed)
    groups = {group for name in spec.groups for group in GROUPS[name]}
    expert = not sim_info(protocol.sim).without_expert
    if expert:
        made.references["expert"] = made.add(Episodes(protocol=_plain(protocol), actor="expert"))
        made.references["expert-chunked"] = made.add(
            Episodes(protocol=_plain(protocol), actor="expert-chunked", horizon=subject.horizon)
        )
    if groups & {"code", "white", "offset"}:
        _add_chunk_changes(made, spec, groups, expert)
    for group, add in _SEEN.items():
        if group in groups:
            add(made)
    return made


def _changed(made: Diagnosis, group: Group, size: float | None = None, **change: Any) -> Condition:
    protocol = change.pop("protocol", made.protocol)
    s = made.subject
    episodes = PolicyEpisodes(
        protocol=protocol, policy=s.identity, binding=s.binding, where=s.where, **change
    )
    condition = Condition(group, made.add(episodes), size)
    made.conditions.append(condition)
    return condition


def _add_chunk_changes(made: Diagnosis, spec: DiagnosisSpec, groups: set[Group], expert: bool) -> None:
    """Noise on the chunks, and codes; what they are measured in comes from demonstrations, or from the policy."""
    horizon = made.subject.horizon
    demos: Sequence[Demonstrations] = spec.demos
    made.own_chunks = not demos
    if not demos:
        if len(made.protocol.episodes()) < 3:
            raise UserError(
                "codes and noise are fitted to the policy's own chunks here, and a three-way split needs at least 3 "
                "episodes: raise --episodes, or name --demos"
            )
        demos = (made.add(ActedChunks(played=made.undisturbed)),)
    normaliser = add_normaliser(made, demos)
    noises: tuple[Group, ...] = ("white", "offset")
    for noise in noises:
        if noise in groups:
            for sigma in GRID:
                _changed(made, noise, sigma, noise=noise, sigma=sigma, normaliser=normaliser)
    if "code" not in groups:
        return
    stride = horizon if made.own_chunks else 1
    for name in dict.fromkeys(spec.tokenizers):
        for section in _ladder(name, spec.section):
            for code in codes_of(name, spec.codebooks, (0,)):
                check_code(code, section, horizon)
                tokenizer = add_tokens(made, normaliser, code, section, horizon, stride).tokenizer
                _add_code(made, normaliser, code, tokenizer, section, expert)


def _ladder(tokenizer: str, section: Tokenizer) -> list[Tokenizer]:
    """The tokenizer's own prefixes are a ladder; bins of several numbers are another."""
    if tokenizer != "bins":
        return [section]
    return [section.model_copy(update={"bins": n}) for n in BINS]


def _add_code(
    made: Diagnosis,
    normaliser: FittedNormaliser,
    code: Code,
    tokenizer: FittedTokenizer,
    section: Tokenizer,
    expert: bool,
) -> None:
    option = tokenizer_entry(code.tokenizer).ordered_by
    shorter = prefix_lengths(getattr(section, option))[:-1] if option else []
    for prefix in (*shorter, None):
        condition = _changed(made, "code", tokenizer=tokenizer, normaliser=normaliser, prefix=prefix)
        coded = None
        if expert:
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


def _add_averaged(made: Diagnosis) -> None:
    if _sees(made, "vision"):
        for r in RESOLUTIONS:
            if r < made.protocol.sim.image_size:
                _changed(made, "averaged", r, sight=Sight("averaged", float(r)))


def _add_blurred(made: Diagnosis) -> None:
    if _sees(made, "vision"):
        for share in BLURS:
            _changed(made, "blurred", share, sight=Sight("blurred", share))


def _add_colour(made: Diagnosis) -> None:
    if _sees(made, "vision"):
        _changed(made, "colour", sight=Sight("grey"))


def _add_cameras(made: Diagnosis) -> None:
    if not _sees(made, "vision"):
        return
    cameras = made.protocol.sim.cameras
    for camera in cameras if len(cameras) > 1 else ():
        _changed(made, "camera", sight=Sight("black", camera=camera))
    _changed(made, "camera", sight=Sight("black"))


def _sees(made: Diagnosis, group: str) -> bool:
    if not made.subject.needs_images:
        made.skipped[group] = "the policy sees no images"
    return made.subject.needs_images


def _add_horizons(made: Diagnosis) -> None:
    own = made.protocol.execute
    if made.subject.horizon == 1:
        made.skipped["horizon"] = "the policy's server answers one action at a time"
    for n in EXECUTED:
        if n <= made.subject.horizon and n != own:
            _changed(made, "horizon", n, protocol=made.protocol.model_copy(update={"execute": n}))


def _add_state(made: Diagnosis) -> None:
    binding = made.subject.binding
    if binding is not None and binding.state is None:
        made.skipped["state"] = "the binding sends no state"
        return
    _changed(made, "state", sight=Sight("mean state"), undisturbed=made.undisturbed)


def _add_prompts(made: Diagnosis) -> None:
    if not made.subject.conditioned:
        made.skipped["language"] = "the policy is not told the task"
        return
    if len(made.protocol.sim.tasks) > 1:
        _changed(made, "prompt", sight=Sight("other prompt"))
    else:
        made.skipped["language"] = "one task has no other task's prompt"
    if made.subject.prompted:
        _changed(made, "prompt", sight=Sight("empty prompt"))


_SEEN: dict[Group, Callable[[Diagnosis], None]] = {
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
