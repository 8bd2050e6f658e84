"""Kind "policy-episodes": any policy's episodes, as it is or under one change; kind "policy-film": one of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import Interrupted
from ..records import parse_json
from ..rollouts.changes import ChangedActor
from ..sims import EvaluationProtocol, sim_info
from ..store.artifact import Artifact, Job
from ..store.store import Store, digest
from .changed import UnderChange
from .episodes import FILE, FILM, read_columns

if TYPE_CHECKING:
    from ..rollouts.actors import Turn
    from ..rollouts.run import EpisodeRow

TRACE = "trace.npz"
ROWS = "rows.jsonl"  # of the work folder: the rows of episodes that have ended


@dataclass(frozen=True)
class Trace:
    """What a policy did at its N decisions: of which episode (row), its own state [N, p], its raw chunk [N, H, d]."""

    episode: np.ndarray
    decision: np.ndarray
    proprio: np.ndarray
    chunk: np.ndarray


class PolicyEpisodes(UnderChange, Artifact, kind="policy-episodes", version=1, simulated=True):
    """``undisturbed``: the policy's own episodes, whose states' mean it is shown where ``sight`` says so.

    An evaluation that executes more or fewer actions a decision is another ``protocol``.
    """

    protocol: EvaluationProtocol
    undisturbed: PolicyEpisodes | None = None

    @property
    def words(self) -> str:
        """The change, in words; of none, or of another protocol, the actions a decision."""
        return self.change or f"{self.protocol.execute} actions a decision"

    @property
    def label(self) -> str:
        """Under which change."""
        return f"episodes of {self.policy.name}, {self.words}"

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
        kept = _Kept(job.work, every, resumes=self.where.folder is None)
        left = [e for e in every if e not in kept.rows]

        def ended(row: EpisodeRow) -> None:
            kept.ended(row)
            job.progress(len(kept.rows), len(every))
            if kept.resumes and len(kept.rows) < len(every) and job.should_stop():
                raise Interrupted

        if left:
            with self.played(job.store) as actor:
                actor.keep = lambda turn, proprio, chunk: kept.decided(left, turn, proprio, chunk)
                pool = pool_for(self.protocol.sim)
                run_episodes(actor, self.protocol, pool, actor_key=self.key, episodes=left, record=ended)
        table = pa.Table.from_pylist([kept.rows[e] for e in every], schema=EPISODE_SCHEMA)
        parquet.write_table(table, job.out / FILE)
        np.savez(job.out / TRACE, **vars(kept.trace()))
        return {"protocol": self.protocol.hash}

    def played(self, store: Store) -> AbstractContextManager[ChangedActor]:
        """The actor of these episodes."""
        sim = self.protocol.sim
        mean = None if self.undisturbed is None else self.undisturbed.trace(store).proprio.mean(0)
        return self.acting(store, sim.tasks, sim_info(sim), mean)

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

    def build(self, job: Job) -> Mapping[str, Any]:
        """Play it once more, and film it: how it ended this time."""
        from ..rollouts.video import record_episode

        path, protocol = job.out / FILM, self.played.protocol
        with self.played.played(job.store) as actor:
            row = record_episode(
                actor, protocol, self.task, self.initial_state, path, actor_key=self.played.key
            )
        return {"success": row.success}

    def load(self, store: Store) -> Path:
        """The MP4 file."""
        return store.open(self) / FILM
