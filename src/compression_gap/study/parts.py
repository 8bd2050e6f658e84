"""The parts that every plan is put together from: demonstrations, normaliser, target tokens, trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..artifacts.demonstrations import Demonstrations
from ..artifacts.encoder import PreparedEncoder
from ..artifacts.features import Features
from ..artifacts.instructions import EmbeddedInstructions
from ..artifacts.normaliser import FittedNormaliser
from ..artifacts.policy import TrainedOn, TrainedPolicy
from ..artifacts.tokenizer import FittedTokenizer
from ..artifacts.tokens import TargetTokens
from ..encoders.registry import crop_of, is_trained
from ..policies.registry import HEADS, action_parts
from ..registry import specified
from ..sims import SimSpec
from ..store.artifact import Artifact
from ..store.graph import Graph
from ..tokenizers import tokenizer_entry
from ..tokenizers.code import Code
from .actions import encoder_seed
from .encoders import add_features, add_prepared
from .file import Study, Tokenizer


def demonstrations_of(
    sim: SimSpec, task: str, episodes: int, versions: Mapping[str, str], origin: str = "expert"
) -> Demonstrations:
    """The demonstrations of one task: one artefact, shared by every suite and evaluation protocol."""
    own = sim.model_copy(update={"tasks": (task,), "protocol": ""})
    return Demonstrations(sim=own, task=task, episodes=episodes, versions=versions, origin=origin)


def to_collect(demos: Sequence[Demonstrations]) -> dict[str, Artifact]:
    """The steps of demonstrations that were not found in a store, by key."""
    return {d.key: d for d in demos if d.found is None}


def add_normaliser(graph: Graph, demos: Sequence[Demonstrations]) -> FittedNormaliser:
    """The one normaliser of all that learns from these demonstrations."""
    return graph.add(FittedNormaliser(demos=tuple(demos)))


def add_tokens(
    graph: Graph, normaliser: FittedNormaliser, code: Code, section: Tokenizer, horizon: int, stride: int = 1
) -> TargetTokens:
    """The target tokens of a code, with its fitted tokenizer.

    A tokenizer that is fitted without a seed has none in its key: equal fits are one artefact.
    """
    entry, values = tokenizer_entry(code.tokenizer), section.model_dump(mode="json")
    options = specified(entry.takes, section)
    if code.codebook is not None:
        options["levels"] = [list(p) for p in code.codebook]
        options["tokens"] = code.tokens(section.tokens)
    fitting = {}
    if entry.trained:
        fitting = {"seed": code.seed_number, **{n: values[n] for n in ("steps", "batch_size", "lr")}}
    tokenizer = FittedTokenizer(
        tokenizer=code.tokenizer,
        horizon=horizon,
        stride=stride,
        options=options,
        fitting=fitting,
        demos=normaliser.demos,
        normaliser=normaliser,
    )
    return graph.add(
        TargetTokens(
            horizon=horizon,
            stride=stride,
            demos=normaliser.demos,
            normaliser=normaliser,
            tokenizer=graph.add(tokenizer),
        )
    )


@dataclass(frozen=True)
class Level:
    """The levels of one training, but for its code."""

    encoder: str
    size: str
    action: str
    task: str  # how the task enters the policy
    seed: int


@dataclass(frozen=True)
class TrainingData:
    """What trainings learn from. ``codes``: target tokens, by code as fitted."""

    sim: str
    tasks: tuple[str, ...]
    normaliser: FittedNormaliser
    codes: Mapping[Code, TargetTokens]
    texts: Mapping[str, EmbeddedInstructions | None]  # by how the task enters


@dataclass(frozen=True)
class Seen:
    """What a policy's encoder gives: features, unless it is trained with its policy."""

    prepared: PreparedEncoder | None
    features: tuple[Features, ...]


def add_seen(graph: Graph, study: Study, demos: Sequence[Demonstrations], encoder: str, seed: int) -> Seen:
    """What an encoder needs in trainings of this seed, and its features if it is frozen."""
    seed = encoder_seed(study, seed)
    prepared = add_prepared(graph, encoder, demos, seed)
    if is_trained(encoder):
        return Seen(prepared, ())
    return Seen(prepared, add_features(graph, encoder, demos, study.cameras.cropped(), seed))


def add_policy(
    graph: Graph,
    study: Study,
    data: TrainingData,
    seen: Seen,
    at: Level,
    code: Code | None,
    trained_on: TrainedOn = "chunk",
) -> TrainedPolicy:
    """One training, on recorded chunks or on what a code makes of them."""
    head, tokenizer = action_parts(at.action)
    training = study.training.for_action(at.action)
    mode = study.tokenizer.mode
    takes_dropout = tokenizer is not None and "dropout" in tokenizer_entry(tokenizer).takes
    tokens = data.codes[code.fitted(at.seed)] if code and (tokenizer or trained_on == "coded") else None
    return graph.add(
        TrainedPolicy(
            sim=data.sim,
            encoder=at.encoder,
            head=head,
            size=at.size,
            horizon=study.policy.horizon,
            n_obs_steps=study.policy.n_obs_steps,
            stride=study.policy.stride,
            tasks=data.tasks,
            seed=at.seed,
            training=training,
            options=study.policy.of_head(head),
            target=trained_on,
            task=at.task,
            crop=crop_of(at.encoder, study.cameras.cropped()),
            tokenizer_mode=mode if HEADS[head].targets == "tokens" and takes_dropout else "eval",
            checkpoints=tuple(study.rollout.earlier(int(training["steps"]))),
            demos=data.normaliser.demos,
            normaliser=data.normaliser,
            prepared=seen.prepared,
            features=seen.features,
            text=data.texts[at.task],
            tokenizer=tokens.tokenizer if tokens and tokenizer else None,
            tokens=tokens,
        )
    )
