"""Kind "policy-episodes": any policy's episodes, as it is or under one change.

The policy lies in a folder, or is served: where is no part of the key. What it is, is its name and a hash: of the
files of its folder, or of what its server says of it. A remote policy's identity is only as good as that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..records import parse_json
from ..rollouts.changes import ChangedActor, Move, Sight
from ..serving.binding import Binding
from ..sims import EvaluationProtocol, sim_info
from ..sims.base import instruction_of
from ..store.artifact import Artifact, Job, elided
from ..store.store import Store, digest
from .episodes import FILE, FILM, read_columns
from .normaliser import FittedNormaliser
from .tokenizer import FittedTokenizer

if TYPE_CHECKING:
    from ..rollouts.actors import Actor, Turn
    from ..rollouts.run import EpisodeRow

TRACE = "trace.npz"
START = 5.0  # seconds to wait for a server that is not there: every change asks anew
ROWS = "rows.jsonl"  # of the work folder: the rows of episodes that have ended


@dataclass(frozen=True)
class PolicyIdentity:
    """A policy: its name, as the user declares it, and a hash of its files, or of what its server says of it."""

    name: str
    digest: str

    @staticmethod
    def in_folder(name: str, folder: Path) -> PolicyIdentity:
        """That of a policy's files."""
        files = sorted(f for f in folder.rglob("*.*") if f.suffix in (".json", ".safetensors"))
        return PolicyIdentity(
            name,
            digest({str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}),
        )

    @staticmethod
    def served(name: str, metadata: Mapping[str, Any]) -> PolicyIdentity:
        """That of what a server greets with."""
        return PolicyIdentity(name, digest({str(k): repr(v) for k, v in sorted(metadata.items())}))


@dataclass(frozen=True)
class Where:
    """Where a policy is found: its folder, or the addresses of its servers and how long to wait for an answer."""

    folder: Path | None = None
    addresses: tuple[str, ...] = ()
    timeout: float = 60.0
    horizon: int = 0  # of a served policy's chunks, known from the first question


@dataclass(frozen=True)
class Trace:
    """What a policy did at its N decisions: of which episode (row), its own state [N, p], its raw chunk [N, H, d]."""

    episode: np.ndarray
    decision: np.ndarray
    proprio: np.ndarray
    chunk: np.ndarray


class PolicyEpisodes(Artifact, kind="policy-episodes", version=1, simulated=True):
    """One change at the most: of ``sight`` (``undisturbed``: whose states' mean is shown), or of the chunks.

    Chunks go through the ``tokenizer`` (``prefix``: its first tokens alone), or get ``noise`` of size ``sigma``. An
    evaluation that executes more or fewer actions is another ``protocol``.
    """

    protocol: EvaluationProtocol
    policy: PolicyIdentity
    binding: Binding | None = elided(default=None)
    sight: Sight | None = elided(default=None)
    noise: str | None = elided(default=None)
    sigma: float | None = elided(default=None)
    prefix: int | None = elided(default=None)
    undisturbed: PolicyEpisodes | None = None
    normaliser: FittedNormaliser | None = None
    tokenizer: FittedTokenizer | None = None
    where: Where = field(default_factory=Where)

    @property
    def spec(self) -> dict[str, Any]:
        """The specification: not where the policy is found."""
        return {k: v for k, v in super().spec.items() if k != "where"}

    @property
    def label(self) -> str:
        """Under which change."""
        return f"episodes of {self.policy.name}, {self.change}"

    @property
    def change(self) -> str:
        """The change, in words."""
        if self.tokenizer is not None:
            kept = "" if self.prefix is None else f", first {self.prefix}"
            bins = self.tokenizer.options.get("bins")
            name = self.tokenizer.code.words if bins is None else f"{self.tokenizer.tokenizer} {bins}"
            return f"chunks through {name}{kept}"
        if self.noise is not None:
            return (
                f"{self.noise} noise, σ {self.sigma:g}"
                if self.noise == "white"
                else f"offset, σ {self.sigma:g}"
            )
        if self.sight is not None:
            return self.sight.words
        return f"{self.protocol.execute} actions a decision"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 5 + 1.0 * len(self.protocol.episodes())

    @property
    def packages(self) -> Mapping[str, str]:
        """The simulator's."""
        return self.protocol.versions

    def build(self, job: Job) -> Mapping[str, Any]:
        """Roll out; write the rows (``rollouts.run.EPISODE_SCHEMA``) and the trace.

        A served policy's rows are kept as episodes end, so that a run that is broken off goes on: its decisions are
        asked one by one, and do not depend on what else runs.
        """
        import pyarrow as pa
        import pyarrow.parquet as parquet

        from ..rollouts.pools import pool_for
        from ..rollouts.run import EPISODE_SCHEMA, run_episodes

        every = self.protocol.episodes()
        kept = _Kept(job.work, every, resumes=not self.where.folder)
        left = [e for e in every if e not in kept.rows]
        actor = self.make_actor(job.store)
        actor.keep = lambda turn, proprio, chunk: kept.decided(left, turn, proprio, chunk)

        def ended(row: EpisodeRow) -> None:
            kept.ended(row)
            job.progress(len(kept.rows), len(every))

        try:
            if left:
                pool = pool_for(self.protocol.sim)
                run_episodes(actor, self.protocol, pool, actor_key=self.key, episodes=left, record=ended)
        finally:
            if close := getattr(actor.inner, "close", None):
                close()
        table = pa.Table.from_pylist([kept.rows[e] for e in every], schema=EPISODE_SCHEMA)
        parquet.write_table(table, job.out / FILE)
        np.savez(job.out / TRACE, **vars(kept.trace()))
        return {"protocol": self.protocol.hash}

    def make_actor(self, store: Store) -> ChangedActor:
        """The policy under its change. Of a served policy the caller closes ``inner``."""
        see = None
        if self.sight is not None:
            info = sim_info(self.protocol.sim)
            words = [instruction_of(t, info.instructions) for t in self.protocol.sim.tasks]
            mean = None if self.undisturbed is None else self.undisturbed.trace(store).proprio.mean(0)
            see = self.sight.see(words, mean)
        return ChangedActor(self._actor(), see, self._move(store))

    def _actor(self) -> Actor:
        where, tasks = self.where, self.protocol.sim.tasks
        if where.folder is not None:
            from ..policies import Policy

            return Policy.load(where.folder).on_tasks(tasks)
        from ..serving.remote import RemoteActor

        assert self.binding is not None
        info = sim_info(self.protocol.sim)
        return RemoteActor(where.addresses, self.binding, tasks, info, where.timeout, START, where.horizon)

    def _move(self, store: Store) -> Move | None:
        if self.tokenizer is not None:
            code = self.tokenizer.round_trip(store, self.prefix)
            return lambda chunks, seeds: code(chunks)
        if self.noise is None:
            return None
        from ..information.resolution import disturbance
        from ..policies import Emission

        assert self.normaliser is not None
        assert self.sigma is not None
        disturb = disturbance(self.noise, self.sigma, self.normaliser.load(store))
        return lambda chunks, seeds: Emission(disturb(chunks, seeds), np.ones(len(chunks), bool))

    def load(self, store: Store) -> dict[str, np.ndarray]:
        """The verified rows, by column."""
        return read_columns(self, store)

    def trace(self, store: Store) -> Trace:
        """What it did, before a change of its chunks."""
        with np.load(store.open(self) / TRACE, allow_pickle=False) as arrays:
            return Trace(**arrays)


class _Kept:
    """Rows and decisions of the episodes that have ended, in memory and, where a run resumes, in the work folder."""

    def __init__(self, work: Path, episodes: list[tuple[str, int, int]], *, resumes: bool) -> None:
        self.work, self.episodes, self.resumes = work, episodes, resumes
        self.rows: dict[tuple[str, int, int], dict[str, object]] = {}
        self.running: dict[tuple[str, int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
        self.done: dict[tuple[str, int, int], list[tuple[np.ndarray, np.ndarray]]] = {}
        if resumes:
            self._read()

    def decided(
        self, episodes: list[tuple[str, int, int]], turn: Turn, proprio: np.ndarray, chunk: np.ndarray
    ) -> None:
        """A decision of an episode that runs; its first forgets what an earlier attempt did."""
        made = self.running.setdefault(episodes[turn.episode], [])
        if turn.decision == 0:
            made.clear()
        made.append((proprio.copy(), chunk))

    def ended(self, row: EpisodeRow) -> None:
        """An episode has ended: its decisions are written first, then its row."""
        episode = (row.task, row.initial_state, row.repeat)
        self.done[episode] = made = self.running.pop(episode)
        self.rows[episode] = dict(vars(row))
        if self.resumes:
            np.savez(self._file(episode), proprio=[p for p, _ in made], chunk=[c for _, c in made])
            with (self.work / ROWS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(row)) + "\n")

    def trace(self) -> Trace:
        """All decisions, in the order of the episodes."""
        every = [(i, j, p, c) for i, e in enumerate(self.episodes) for j, (p, c) in enumerate(self.done[e])]
        episode, decision, proprio, chunk = (np.array(column) for column in zip(*every, strict=True))
        return Trace(episode, decision, proprio, chunk)

    def _read(self) -> None:
        file = self.work / ROWS
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
        for line in lines:
            if not line.endswith("\n"):  # the run was killed while it wrote: this episode runs again
                break
            row = parse_json(line)
            episode = (row["task"], row["initial_state"], row["repeat"])
            with np.load(self._file(episode), allow_pickle=False) as arrays:
                self.done[episode] = list(zip(arrays["proprio"], arrays["chunk"], strict=True))
            self.rows[episode] = row
        if lines and not lines[-1].endswith("\n"):
            file.write_text("".join(lines[:-1]), encoding="utf-8")

    def _file(self, episode: tuple[str, int, int]) -> Path:
        return self.work / f"{digest(list(episode))[:16]}.npz"


class PolicyFilm(Artifact, kind="policy-film", version=1, simulated=True):
    """One episode of a policy's, as it is or under a change, filmed for the page."""

    task: str
    initial_state: int
    played: PolicyEpisodes

    @property
    def label(self) -> str:
        """Whose, under which change."""
        return f"video of {self.played.label}"

    def build(self, job: Job) -> None:
        """Play it once more, and film it."""
        from ..rollouts.video import record_episode

        actor, protocol = self.played.make_actor(job.store), self.played.protocol
        try:
            path = job.out / FILM
            record_episode(actor, protocol, self.task, self.initial_state, path, actor_key=self.played.key)
        finally:
            if close := getattr(actor.inner, "close", None):
                close()

    def load(self, store: Store) -> Path:
        """The MP4 file."""
        return store.open(self) / FILM
