"""Kind "episodes": one actor on every initial state of an evaluation protocol; kind "replay": recordings, replayed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..sims import EvaluationProtocol
from ..store.artifact import Artifact, Job, elided
from ..store.store import Keyed, Store
from .demonstrations import Demonstrations, load_all
from .normaliser import FittedNormaliser
from .policy import TrainedPolicy
from .tokenizer import FittedTokenizer
from .tokens import TargetTokens

if TYPE_CHECKING:
    import pyarrow as pa

    from ..information.resolution import Disturbance
    from ..rollouts.actors import Actor

FILE = "episodes.parquet"
FILM = "film.mp4"
SECONDS = {"expert": 0.3, "expert-chunked": 0.3, "policy": 1.0, "snapped": 1.0}  # an episode; of others 0.6
ActorName = Literal["expert", "expert-chunked", "expert-coded", "expert-disturbed", "policy", "snapped"]


class Episodes(Artifact, kind="episodes", version=1, simulated=True):
    """``actor`` says which of the other fields there are.

    "expert"; "expert-chunked" (horizon); "expert-coded" (horizon, tokenizer, normaliser, and ``prefix`` where the first
    tokens alone are kept); "expert-disturbed" (horizon, normaliser, ``disturbance`` of size ``sigma``, in one
    ``dimension`` or shaped like the error of ``tokens``); "policy" (and the step of an earlier ``checkpoint``);
    "snapped" (policy, and the tokenizer through which its chunks go).
    """

    protocol: EvaluationProtocol
    actor: ActorName
    horizon: int | None = elided(default=None)
    prefix: int | None = elided(default=None)
    checkpoint: int | None = elided(default=None)
    disturbance: str | None = elided(default=None)
    sigma: float | None = elided(default=None)
    dimension: int | None = elided(default=None)
    stride: int | None = elided(default=None)
    demos: tuple[Demonstrations, ...] = ()
    normaliser: FittedNormaliser | None = None
    policy: TrainedPolicy | None = None
    tokenizer: FittedTokenizer | None = None
    tokens: TargetTokens | None = None

    @property
    def label(self) -> str:
        """Of which actor."""
        if self.policy is not None:
            code = self.policy.code if self.tokenizer is None else self.tokenizer.code
            words = self.policy.words(code, "chunk" if self.actor == "policy" else "snapped")
            return f"episodes of {words}" + ("" if self.checkpoint is None else f" · step {self.checkpoint}")
        if self.tokenizer is not None:
            return f"episodes of {self.actor} ({_of_prefix(self.tokenizer, self.prefix)})"
        if self.actor != "expert-disturbed":
            return f"episodes of {self.actor}"
        noise = f"{self.disturbance} noise"
        if self.tokens is not None:
            noise = f"noise like the error of {self.tokens.tokenizer.code.words},"
        elif self.dimension is not None:
            noise += f" in action dimension {self.dimension}"
        return f"episodes of the expert disturbed by {noise} of {self.sigma:g}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 5 + SECONDS.get(self.actor, 0.6) * len(self.protocol.episodes())

    @property
    def packages(self) -> Mapping[str, str]:
        """The simulator's."""
        return self.protocol.versions

    def build(self, job: Job) -> Mapping[str, Any]:
        """Roll out, and write the rows (``rollouts.run.EPISODE_SCHEMA``)."""
        import pyarrow.parquet as parquet

        from ..rollouts.pools import pool_for
        from ..rollouts.run import run_episodes

        table = run_episodes(
            self.make_actor(job.store),
            self.protocol,
            pool_for(self.protocol.sim),
            actor_key=self.key,
            progress=job.progress,
        )
        parquet.write_table(table, job.out / FILE)
        return {"protocol": self.protocol.hash}

    def make_actor(self, store: Store) -> Actor:
        """What is rolled out."""
        from ..rollouts.actors import CodedActor, DisturbedActor, ExpertActor, ExpertChunkedActor

        if self.actor == "expert":
            return ExpertActor()
        if self.policy is not None:
            from ..policies import SnappedPolicy

            policy = self.policy.load(store, self.checkpoint)
            return policy if self.tokenizer is None else SnappedPolicy(policy, self.tokenizer.load(store))
        assert self.horizon is not None
        if self.tokenizer is not None:
            return CodedActor(self.horizon, self.tokenizer.round_trip(store, self.prefix))
        if self.actor == "expert-chunked":
            return ExpertChunkedActor(self.horizon)
        return DisturbedActor(self.horizon, self._disturb(store))

    def _disturb(self, store: Store) -> Disturbance:
        """The noise of an "expert-disturbed"."""
        from ..information.resolution import disturbance, error_factor

        assert self.normaliser is not None
        assert self.disturbance is not None
        assert self.sigma is not None
        factor = None
        if self.tokens is not None:
            factor = error_factor(self._code_errors(self.tokens, self.normaliser, store))
        normaliser = self.normaliser.load(store)
        return disturbance(self.disturbance, self.sigma, normaliser, dimension=self.dimension, factor=factor)

    def _code_errors(self, tokens: TargetTokens, normaliser: FittedNormaliser, store: Store) -> np.ndarray:
        """What a code adds to the training chunks that lie wholly within their episode: [N, H, d], normalised."""
        assert self.horizon is not None
        chunks = normaliser.chunks(store, "train", horizon=self.horizon, stride=self.stride or 1)
        chunks = chunks.whole() if chunks.valid.all(1).any() else chunks
        return np.asarray(tokens.load(store, "train").of(chunks).coded - chunks.chunks)

    def load(self, store: Store) -> dict[str, np.ndarray]:
        """The verified rows, by column."""
        return read_columns(self, store)


class Replay(Artifact, kind="replay", version=1, simulated=True):
    """Open-loop replay of the held-out recordings, raw or through a code: a diagnostic of demonstrations."""

    protocol: EvaluationProtocol
    horizon: int
    prefix: int | None = elided(default=None)
    demos: tuple[Demonstrations, ...]
    normaliser: FittedNormaliser | None = None
    tokenizer: FittedTokenizer | None = None

    @property
    def label(self) -> str:
        """Through which code."""
        name = "" if self.tokenizer is None else f" ({_of_prefix(self.tokenizer, self.prefix)})"
        return f"open-loop replay{name}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 20.0

    @property
    def packages(self) -> Mapping[str, str]:
        """The simulator's."""
        return self.protocol.versions

    def build(self, job: Job) -> Mapping[str, Any]:
        """Replay from the recordings' own initial states, and write the rows."""
        import pyarrow.parquet as parquet

        from ..rollouts.actors import ReplayActor
        from ..rollouts.pools import pool_for
        from ..rollouts.run import run_episodes

        recorded = {
            (e.task, e.initial_state): np.asarray(d.actions[e.start : e.start + e.length])
            for d in load_all(self.demos, job.store)
            for e in d.split("test")
        }
        code = None if self.tokenizer is None else self.tokenizer.round_trip(job.store, self.prefix)
        table = run_episodes(
            ReplayActor(recorded, self.horizon, code),
            self.protocol,
            pool_for(self.protocol.sim),
            actor_key=self.key,
            episodes=[(task, state, 0) for task, state in recorded],
            progress=job.progress,
        )
        parquet.write_table(table, job.out / FILE)
        return {"protocol": self.protocol.hash}

    def load(self, store: Store) -> dict[str, np.ndarray]:
        """The verified rows, by column."""
        return read_columns(self, store)


def read_table(of: Keyed, store: Store) -> pa.Table:
    """The verified rows of episodes (``EPISODE_SCHEMA``)."""
    from ..rollouts.run import EPISODE_SCHEMA
    from ..store import columns

    return columns.read_columns(store.open(of) / FILE, EPISODE_SCHEMA)


def read_columns(of: Keyed, store: Store) -> dict[str, np.ndarray]:
    """The verified rows of episodes, by column of ``EPISODE_SCHEMA``."""
    import pyarrow as pa

    table = read_table(of, store)

    def values(column: pa.ChunkedArray) -> np.ndarray:
        if not pa.types.is_string(column.type) or column.null_count or not len(column):
            return np.asarray(column.to_pylist() if pa.types.is_string(column.type) else column)
        coded = pa.concat_arrays(
            column.chunks
        ).dictionary_encode()  # few different texts, and millions of rows
        return np.asarray(np.asarray(coded.dictionary.to_pylist())[coded.indices.to_numpy()])

    return {n: values(c) for n, c in zip(table.column_names, table.columns, strict=True)}


def _of_prefix(tokenizer: FittedTokenizer, prefix: int | None) -> str:
    return tokenizer.code.words + ("" if prefix is None else f", first {prefix}")


class Film(Artifact, kind="film", version=1, simulated=True):
    """One episode, filmed. It is made for a page, and never a step of a study."""

    protocol: EvaluationProtocol
    task: str
    initial_state: int
    policy: TrainedPolicy
    played: Episodes

    @cached_property
    def inputs(self) -> dict[str, Artifact]:
        """The policy; how it is played follows from it."""
        return {"policy": self.policy}

    @property
    def label(self) -> str:
        """Whose episode."""
        return f"video of {self.played.label}"

    def build(self, job: Job) -> None:
        """Play it once more, and film it."""
        from ..rollouts.video import record_episode

        actor, path = self.played.make_actor(job.store), job.out / FILM
        record_episode(actor, self.protocol, self.task, self.initial_state, path, actor_key=self.played.key)

    def load(self, store: Store) -> Path:
        """The MP4 file."""
        return store.open(self) / FILM
