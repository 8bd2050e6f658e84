"""Rollouts: actor × simulator × protocol → one evidence row per episode.

An actor is asked at decision points only and answers with an action chunk, of which the protocol's
``execute`` first actions are executed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import UserError
from ..sims import EvaluationProtocol, Observation, SimPool
from ..sims.episode import Drive, Outcome
from ..sims.pool import Job
from .actors import Actor, ReplayActor, SessionActor, Turn

EPISODE_SCHEMA = pa.schema(
    [
        ("actor", pa.string()),
        ("protocol", pa.string()),  # the protocol's hash
        ("task", pa.string()),
        ("initial_state", pa.int64()),
        ("repeat", pa.int64()),
        ("success", pa.bool_()),
        ("length", pa.int64()),  # steps until success, or the limit
        ("decisions", pa.int64()),
        ("decode_failures", pa.int64()),  # decisions whose emission did not decode
    ]
)


@dataclass(frozen=True)
class EpisodeRow:
    """One episode, as a row of ``EPISODE_SCHEMA``."""

    actor: str
    protocol: str
    task: str
    initial_state: int
    repeat: int
    success: bool
    length: int
    decisions: int
    decode_failures: int


def decision_seed(task: str, initial_state: int, repeat: int, decision: int) -> int:
    """The seed of one decision of one episode, 0 ≤ seed < 2⁶³: a hash, the same for every actor."""
    text = f"{task}|{initial_state}|{repeat}|{decision}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def run_episodes(
    actor: Actor,
    protocol: EvaluationProtocol,
    pool: SimPool,
    *,
    actor_key: str,
    episodes: Sequence[tuple[str, int, int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
    record: Callable[[EpisodeRow], None] | None = None,
) -> pa.Table:
    """Run every episode of the protocol; rows (``EPISODE_SCHEMA``) in the order of ``protocol.episodes()``.

    ``episodes`` (task, initial state, repeat) are run in their stead: those that a replay has recordings of.
    ``progress(done, total)`` and ``record(row)`` are called as each episode ends. Raises ``UserError`` if
    the actor does not fit the protocol, or emits an action that is not a finite number.
    """
    if pool.spec != protocol.sim:
        raise ValueError("the pool simulates something else than the protocol asks for")
    episodes = protocol.episodes() if episodes is None else episodes
    decider = Decider(actor, protocol, actor_key, episodes)
    rows: dict[int, EpisodeRow] = {}

    def done(job: Job, outcome: Outcome) -> None:
        rows[job.index] = decider.end(job.index, outcome)
        if record:
            record(rows[job.index])
        if progress:
            progress(len(rows), len(episodes))

    def decide(jobs: list[Job], asked: list[Any]) -> list[np.ndarray | None]:
        return decider.decide([job.index for job in jobs], asked)

    pool.run([(task, state) for task, state, _ in episodes], decider.drive, decide, done)
    return pa.Table.from_pylist([vars(rows[i]) for i in range(len(episodes))], schema=EPISODE_SCHEMA)


@dataclass
class Decider:
    """Turns what the episodes ask into chunks, and keeps count. Of this room alone."""

    actor: Actor
    protocol: EvaluationProtocol
    actor_key: str
    episodes: Sequence[tuple[str, int, int]]
    decisions: Counter[int] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        actor, protocol = self.actor, self.protocol
        if actor.asks != "expert" and actor.horizon < protocol.execute:
            raise UserError(
                f"{self.actor_key} emits chunks of {actor.horizon} actions, but the protocol executes "
                f"{protocol.execute} per decision: lower 'execute'"
            )
        if actor.asks == "observation" and actor.n_obs_steps != protocol.n_obs_steps:
            raise UserError(
                f"{self.actor_key} looks at {actor.n_obs_steps} observation steps, the protocol gives "
                f"{protocol.n_obs_steps}: set 'n_obs_steps' to the same number"
            )

    @property
    def drive(self) -> Drive:
        """The worker's part."""
        actor = self.actor
        return Drive(
            asks="step" if actor.asks == "recording" else actor.asks,
            execute=self.protocol.execute,
            step_limit=self.protocol.step_limit,
            n_obs_steps=actor.n_obs_steps,
            horizon=actor.horizon,
            images=actor.needs_images,
        )

    def decide(self, at: Sequence[int], asked: Sequence[Any]) -> list[np.ndarray | None]:
        """One chunk float32 [n, d] for each asking episode (``at``: indices into the episode list).

        None: the episode was lost, and has to be run again from its start.
        """
        limits = [self.actor.horizon] * len(at)
        if isinstance(self.actor, ReplayActor):
            asked, limits = self._recordings(self.actor, at, asked)
        seeds = np.array([decision_seed(*self.episodes[i], self.decisions[i]) for i in at], np.int64)
        batch = Observation.batch(asked) if isinstance(asked[0], Observation) else np.stack(asked)
        lost = np.zeros(len(at), bool)
        if isinstance(self.actor, SessionActor):
            assert isinstance(batch, Observation)
            turns = [Turn(i, self.decisions[i]) for i in at]
            emission, lost = self.actor.act_in(turns, batch, seeds)
        else:
            emission = self.actor.act(batch, seeds)
        chunks = np.asarray(emission.chunk, np.float32)
        if chunks.shape[:2] != (len(at), self.actor.horizon):
            raise ValueError(f"{self.actor_key} emitted {chunks.shape}, not {len(at)} × {self.actor.horizon}")
        if not np.isfinite(chunks[~lost]).all():
            raise UserError(
                f"{self.actor_key} emitted an action that is not a finite number: its training has diverged; "
                "train it again with a lower learning rate"
            )
        for i, ok, limit in zip(at, np.asarray(emission.ok, bool), limits, strict=True):
            self.decisions[i] += 1
            self.failures[i] += limit > 0 and not ok
        for i, gone in zip(at, lost, strict=True):
            if gone:
                self.decisions[i] = self.failures[i] = 0
        return [
            None if gone else chunk[:limit] for chunk, limit, gone in zip(chunks, limits, lost, strict=True)
        ]

    def end(self, i: int, outcome: Outcome) -> EpisodeRow:
        """The evidence row of episode ``i``, which has ended."""
        if isinstance(self.actor, SessionActor):
            self.actor.end(i)
        task, initial_state, repeat = self.episodes[i]
        return EpisodeRow(
            actor=self.actor_key,
            protocol=self.protocol.hash,
            task=task,
            initial_state=initial_state,
            repeat=repeat,
            success=outcome.success,
            length=outcome.length,
            decisions=outcome.decisions,
            decode_failures=self.failures[i],
        )

    def _recordings(
        self, actor: ReplayActor, at: Sequence[int], steps: Sequence[int]
    ) -> tuple[list[np.ndarray], list[int]]:
        """The next recorded chunks, float32 [H, d] each, and how many of their actions are real."""
        chunks, real = [], []
        for i, step in zip(at, steps, strict=True):
            task, initial_state, _ = self.episodes[i]
            actions = np.asarray(actor.actions(task, initial_state), np.float32)
            rows = np.minimum(np.arange(step, step + actor.horizon), len(actions) - 1)
            chunks.append(actions[rows])
            real.append(max(0, len(actions) - step))
        return chunks, real
