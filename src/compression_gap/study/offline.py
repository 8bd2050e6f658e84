"""A study of recordings alone: no simulator, so no episodes and no verdict on success.

Its graph: normaliser, tokenizers and tokens, features, policies (the same artefacts that a simulator's study of the
same sets would build), the held-out chunk error of each policy, probes where the sets hold the true state, and the
ledger, if the file has that section.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..artifacts.demonstrations import Demonstrations, open_demos
from ..artifacts.error import ChunkError, Predicts
from ..artifacts.normaliser import FittedNormaliser
from ..artifacts.policy import TrainedPolicy
from ..artifacts.tokens import TargetTokens
from ..demos import SPLITS, DemoSet
from ..encoders.registry import is_trained, reads_state
from ..errors import UserError
from ..store.store import Store
from .actions import check_actions, check_encoders, encoder_seed, fitted_codes, study_codes
from .base import Dimensions, StudyPlan
from .cells import Cell, Reference
from .encoders import add_features, add_instructions, add_probe
from .file import Cameras, Factors, Rollout, Study
from .ledger import add_ledger
from .parts import TrainingData, add_normaliser, add_policy, add_tokens
from .setting import EXECUTE, check_execute, simulator_of

RECORDINGS = "recordings"  # in place of a simulator's name, where the sets do not come from one
SIMPLE: tuple[Predicts, ...] = ("mean", "last")  # predictors that are no policy and no code
POINTS = 2000  # decision points of the test split at which a policy's error is measured, at most


@dataclass(frozen=True)
class Recordings:
    """What a study of recordings learns from. All sets have these cameras and sizes."""

    demos: tuple[Demonstrations, ...]
    sim: str  # the simulator that all of them come from, or "recordings"
    tasks: tuple[str, ...]
    cameras: tuple[str, ...]
    image_size: int
    action_dim: int
    proprio_dim: int
    state_dim: int | None  # of the true state, where all sets hold it
    episodes: dict[str, int]  # by split
    frames: int


@dataclass
class OfflinePlan(StudyPlan[ChunkError]):
    """A study of recordings."""

    recordings: Recordings
    levels: tuple[str, ...]  # of the encoder

    @property
    def encoders(self) -> tuple[str, ...]:
        """Those of the file, and the limits that the recordings allow."""
        return self.levels

    @property
    def execute(self) -> int:
        """The first steps of a chunk, whose error is shown apart."""
        return self.study.rollout.execute or EXECUTE

    @property
    def taken(self) -> tuple[Demonstrations, ...]:
        """The recordings."""
        return self.recordings.demos

    @property
    def dimensions(self) -> Dimensions:
        """The recordings'."""
        own = self.recordings
        return Dimensions(
            own.action_dim, own.proprio_dim, own.state_dim or 0, len(own.cameras), own.image_size
        )

    def frames(self, store: Store) -> tuple[dict[str, float], bool]:
        """All of them, in equal parts."""
        own = self.recordings
        return {d.key: own.frames / len(own.demos) for d in own.demos}, False


def make_offline_plan(study: Study, store: Store, *, sketch: bool = False) -> OfflinePlan:
    """Resolve a study of recordings into its graph. The sets must lie in ``store``.

    ``sketch``: see ``make_plan``. Raises ``UserError`` for sets that are not there or do not fit together, for keys that need a simulator, and
    for encoders and actions that are not known or do not suit the recordings.
    """
    _check_keys(study)
    recordings = open_recordings(study.data or (), store)
    plan = OfflinePlan(study, recordings.tasks, recordings, _encoders(study, recordings), sketch=sketch)
    check_actions(study)
    check_execute(plan.execute, study)
    policy, factors, demos = study.policy, study.factors, recordings.demos
    normaliser = add_normaliser(plan, demos)
    codes = {
        code: add_tokens(plan, normaliser, code, study.tokenizer, policy.horizon, policy.stride)
        for code in fitted_codes(study)
    }
    for name in SIMPLE:
        plan.references.append(Reference(name, None, None, {None: _add_error(plan, normaliser, name)}))
    for level in study_codes(study):
        runs: dict[int | None, ChunkError] = {}
        for fitted in dict.fromkeys(level.fitted(seed) for seed in factors.seed):
            runs[fitted.seed_number] = _add_error(plan, normaliser, "coded", tokens=codes[fitted])
        plan.references.append(Reference("coded", level, None, runs))
    crop, first = study.cameras.cropped(), factors.seed[0]
    texts = add_instructions(plan, study, plan.tasks, {})
    data = TrainingData(recordings.sim, plan.tasks, normaliser, codes, texts)
    for at, seen, own in plan.trainings(demos, factors.action):
        for code in own:
            trained = add_policy(plan, study, data, seen, at, code)
            error = _add_error(plan, normaliser, "policy", policy=trained)
            plan.cells.append(
                Cell(at.encoder, at.action, at.size, None, code, at.seed, trained, error, task=at.task)
            )
    frozen = [e for e in plan.encoders if not is_trained(e)]
    if recordings.state_dim is not None:
        plan.probes = {e: add_probe(plan, e, demos, (), crop, encoder_seed(study, first)) for e in frozen}
    if study.ledger is not None:
        plan.ledger = add_ledger(
            plan,
            study.ledger,
            normaliser,
            plan.tasks,
            {
                e: add_features(plan, e, demos, crop, encoder_seed(study, first))
                for e in dict.fromkeys(("blind", *frozen))
            },
            study_codes(study),
            codes,
            horizon=policy.horizon,
            execute=plan.execute,
            n_obs_steps=policy.n_obs_steps,
            stride=policy.stride,
            protocol=None,
            cells=[c for c in plan.cells if c.encoder in frozen],
            first=first,
        )
    return plan


def _add_error(
    plan: OfflinePlan,
    normaliser: FittedNormaliser,
    predictor: Predicts,
    *,
    policy: TrainedPolicy | None = None,
    tokens: TargetTokens | None = None,
) -> ChunkError:
    own = plan.study.policy
    return plan.add(
        ChunkError(
            predictor=predictor,
            tasks=plan.tasks,
            horizon=own.horizon,
            n_obs_steps=own.n_obs_steps,
            stride=own.stride,
            execute=plan.execute,
            points=POINTS,
            demos=normaliser.demos,
            normaliser=normaliser,
            features=() if policy is None else policy.features,
            policy=policy,
            tokens=tokens,
        )
    )


def _check_keys(study: Study) -> None:
    """Refuse what needs a simulator, unless it stands at its default."""
    if study.swap is not None:
        raise UserError(
            "swap: the matched-head ablation is measured by success, which recordings cannot tell: leave it out"
        )
    if study.published is not None:
        raise UserError(
            "published: the published tables are of success, which recordings cannot tell: leave it out"
        )
    own = {n: v for n, v in study.cameras if not n.startswith("crop")}
    if own != {n: v for n, v in Cameras() if not n.startswith("crop")}:
        raise UserError(
            "cameras: recordings have their own: leave all but crop out, and choose cameras and size with "
            "cgap demos import --cameras and --image-size"
        )
    if study.factors.demos != Factors.model_fields["demos"].default:
        raise UserError(
            "factors.demos: recordings are taken whole: leave it out, and list other sets in data"
        )
    for name, value in study.rollout:
        if name != "execute" and value != getattr(Rollout(), name):
            raise UserError(
                f"rollout.{name}: nothing is rolled out in a study of recordings: leave it out (rollout.execute "
                "sets the steps of a chunk whose error is shown apart)"
            )


def _encoders(study: Study, recordings: Recordings) -> tuple[str, ...]:
    """The encoder levels. ``limits`` adds oracle only where all sets hold the true state."""
    found = study.encoders
    if recordings.state_dim is None:
        if any(reads_state(e) for e in study.factors.encoder):
            raise UserError(
                "factors.encoder: oracle reads the true state, which not all of these recordings hold: leave it out, "
                "or import them with --true-state"
            )
        found = tuple(e for e in found if e != "oracle")
    try:
        check_encoders(study, found, image_size=recordings.image_size, sim=recordings.sim)
    except UserError as error:
        resized = "import the recordings again with a larger --image-size; it was"
        raise UserError(str(error).replace("raise cameras.image_size", resized)) from error
    return found


def open_recordings(names: Sequence[str], store: Store) -> Recordings:
    """The sets of these folders ``STORE/demos/KEY``, or of these keys in ``store``.

    Relative folders count from the working directory, as ``--store`` does. Files are not verified here: the steps
    do that when they read them.
    """
    folders = [_folder(name, store) for name in names]
    found, demos = open_demos(folders)
    if found.root.resolve() != store.root.resolve():
        raise UserError(
            f"data: {names[0]} lies in the store {found.root}, and the study runs in the store {store.root}: "
            f"give --store {found.root}, or import the recordings into {store.root}"
        )
    sets = [_load(folder) for folder in folders]
    for name, own in zip(names, sets, strict=True):
        _check_set(name, own, str(names[0]), sets[0])
    _check_no_overlap(names, demos)
    sim, _ = simulator_of(demos)
    first, states = sets[0], [s.state for s in sets]
    return Recordings(
        demos=tuple(demos),
        sim=RECORDINGS if sim is None else sim.sim,
        tasks=tuple(dict.fromkeys(task for s in sets for task in s.tasks)),
        cameras=tuple(first.images),
        image_size=next(iter(first.images.values())).shape[1],
        action_dim=first.actions.shape[1],
        proprio_dim=first.proprio.shape[1],
        state_dim=None if first.state is None or any(s is None for s in states) else first.state.shape[1],
        episodes={split: sum(len(s.split(split)) for s in sets) for split in SPLITS},
        frames=sum(len(s.actions) for s in sets),
    )


def _folder(name: str, store: Store) -> Path:
    path = Path(name).expanduser()
    if path.parent == Path() and not path.is_dir():  # a key by itself
        path = store.root / "demos" / name
    if not path.is_dir():
        raise UserError(
            f"data: there is no folder {path}: name folders STORE/demos/KEY as 'cgap demos import' prints them "
            "(relative ones count from the working directory), or their keys"
        )
    return path


def _load(folder: Path) -> DemoSet:
    try:
        return DemoSet.load(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"data: {folder} cannot be read ({error}); import it again") from error


def _check_set(name: str, demos: DemoSet, first_name: str, first: DemoSet) -> None:
    """Refuse a set that no policy can see, or that does not fit the first."""
    if not demos.images:
        raise UserError(f"data: {name} holds no camera images, and policies see: import it with a camera")
    shapes = {c: a.shape[1:3] for c, a in demos.images.items()}
    if len({*shapes.values()}) > 1 or any(h != w for h, w in shapes.values()):
        seen = ", ".join(f"{c} {h} × {w}" for c, (h, w) in shapes.items())
        raise UserError(
            f"data: the images of {name} ({seen}) are not square and of one size: import it again with "
            "--image-size, as in --image-size 128"
        )

    def sizes(s: DemoSet) -> dict[str, int | dict[str, int]]:
        return {
            "cameras": {c: a.shape[1] for c, a in s.images.items()},
            "numbers of an action": s.actions.shape[1],
            "numbers of the robot's own state": s.proprio.shape[1],
        }

    own, other = sizes(demos), sizes(first)
    if demos.state is not None and first.state is not None:
        own["numbers of the true state"] = demos.state.shape[1]
        other["numbers of the true state"] = first.state.shape[1]
    for what, value in own.items():
        # cameras must also stand in one order, which is that of the features
        if json.dumps(value) != json.dumps(other[what]):
            raise UserError(
                f"data: {name} and {first_name} differ in {what} ({_words(value)} and {_words(other[what])}): "
                "import them alike, or study them apart"
            )
    rates = [s.source.get("fps") for s in (demos, first)]
    if None not in rates and rates[0] != rates[1]:
        raise UserError(
            f"data: {name} and {first_name} have {rates[0]:g} and {rates[1]:g} frames a second, so that a chunk lasts "
            "longer in one: study them apart"
        )
    missing = [split for split in SPLITS if not demos.split(split)]
    if missing:
        raise UserError(
            f"data: {name} holds no {missing[0]} episodes: a set needs at least three per task; record more"
        )


def _words(value: int | dict[str, int]) -> str:
    return ", ".join(f"{k} {v} px" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _check_no_overlap(names: Sequence[str], demos: Sequence[Demonstrations]) -> None:
    """Refuse two sets of one source: what one of them trains on, the other may hold out."""
    sources: dict[str, str] = {}
    for name, of in zip(names, demos, strict=True):
        own = of.spec.get("import", {}).get("source", of.key)
        if of.sim is not None:  # its states are numbered from 0, so a longer set holds a shorter one
            own = {"sim": of.sim.sim, "task": of.task}
        other = sources.setdefault(json.dumps(own, sort_keys=True), name)
        if other != name:
            raise UserError(
                f"data: {other} and {name} are made from the same recordings, so one would train on what the other "
                "holds out: keep one of them"
            )
