"""Rollouts: actor × simulator × protocol → one evidence row per episode.

An actor is asked at decision points only and answers with an action chunk, of which the protocol's
``execute`` first actions are executed. The reference actors of THEORY.md, section 5, are here (expert,
expert-chunked, expert-coded, replay); a policy is an actor by having the same attributes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from ..errors import UserError
from ..policies import Emission
from ..sims import EvaluationProtocol, Observation, Sim, SimPool, make_sim, simulating
from ..sims.episode import Drive, EpisodeRunner, Outcome
from ..sims.pool import Job

Asks = Literal["observation", "expert-chunk", "expert", "recording"]

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


class Actor(Protocol):
    """What a rollout drives. ``asks`` says what ``act`` gets as ``asked``.

    "observation": an ``Observation`` [B, n_obs_steps, ...]; "expert-chunk": the expert's chunk from the
    present state, float32 [B, H, d]; "recording": the next recorded chunk, float32 [B, H, d]; "expert": the
    expert acts at every step, and ``act`` is never called.
    """

    @property
    def asks(self) -> Asks:
        """What a decision is made from."""

    @property
    def n_obs_steps(self) -> int:
        """Observation steps per decision."""

    @property
    def horizon(self) -> int:
        """H, the length of a chunk."""

    @property
    def needs_images(self) -> bool:
        """Whether frames have to be rendered."""

    def act(self, asked: Any, seeds: np.ndarray) -> Any:
        """An ``Emission`` for B decisions; ``seeds`` int64 [B], one for each (episode, decision)."""


Code = Callable[[np.ndarray], Any]  # chunks [B, H, d] -> Emission: a tokenizer's round trip


@dataclass(frozen=True)
class ExpertActor:
    """The scripted expert, acting at every step."""

    asks: Asks = "expert"
    n_obs_steps: int = 1
    horizon: int = 1
    needs_images: bool = False

    def act(self, asked: Any, seeds: np.ndarray) -> Emission:
        """Never called: the expert acts where the simulator is."""
        raise NotImplementedError("the expert acts in the simulator's process")


@dataclass(frozen=True)
class ExpertChunkedActor:
    """The expert's chunk, rolled from a clone of the state, executed open loop."""

    horizon: int
    asks: Asks = "expert-chunk"
    n_obs_steps: int = 1
    needs_images: bool = False

    def act(self, asked: np.ndarray, seeds: np.ndarray) -> Emission:
        """The chunks as they are."""
        return _verbatim(asked)


@dataclass(frozen=True)
class CodedActor:
    """expert-coded: the expert's chunk through a code and back, which names the code's loss."""

    horizon: int
    code: Code
    asks: Asks = "expert-chunk"
    n_obs_steps: int = 1
    needs_images: bool = False

    def act(self, asked: np.ndarray, seeds: np.ndarray) -> Any:
        """The chunks after the round trip."""
        return self.code(asked)


@dataclass(frozen=True)
class DisturbedActor:
    """The expert's chunk with noise on it: how precisely must a chunk be executed (THEORY.md, section 3)?

    ``disturb``: (raw chunks [B, H, d], seeds int64 [B]) → raw chunks.
    """

    horizon: int
    disturb: Callable[[np.ndarray, np.ndarray], np.ndarray]
    asks: Asks = "expert-chunk"
    n_obs_steps: int = 1
    needs_images: bool = False

    def act(self, asked: np.ndarray, seeds: np.ndarray) -> Emission:
        """The chunks after the disturbance."""
        return _verbatim(self.disturb(asked, seeds))


@dataclass(frozen=True)
class ReplayActor:
    """Open-loop replay of recorded actions from their own initial states, raw or through a code.

    ``recorded``: (task, initial state) -> float32 [n, d]. The last chunk is filled by repeating the last
    action, as in training; an episode ends when its recording does.
    """

    recorded: Mapping[tuple[str, int], np.ndarray]
    horizon: int
    code: Code | None = None
    asks: Asks = "recording"
    n_obs_steps: int = 1
    needs_images: bool = False

    def act(self, asked: np.ndarray, seeds: np.ndarray) -> Any:
        """The recorded chunks, or what the code makes of them."""
        return self.code(asked) if self.code else _verbatim(asked)

    def actions(self, task: str, initial_state: int) -> np.ndarray:
        """The recording of one episode. Raises ``UserError`` if there is none."""
        try:
            return self.recorded[task, initial_state]
        except KeyError as error:
            raise UserError(
                f"no recorded episode of {task} starts from initial state {initial_state}: replay only the "
                "initial states of the demonstrations"
            ) from error


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
    decider = _Decider(actor, protocol, actor_key, episodes)
    rows: dict[int, EpisodeRow] = {}

    def done(job: Job, outcome: Outcome) -> None:
        rows[job.index] = decider.row(job.index, outcome)
        if record:
            record(rows[job.index])
        if progress:
            progress(len(rows), len(episodes))

    def decide(jobs: list[Job], asked: list[Any]) -> list[np.ndarray]:
        return decider.decide([job.index for job in jobs], asked)

    pool.run([(task, state) for task, state, _ in episodes], decider.drive, decide, done)
    return pa.Table.from_pylist([vars(rows[i]) for i in range(len(episodes))], schema=EPISODE_SCHEMA)


@dataclass
class _Decider:
    """Turns what the episodes ask into chunks, and keeps count."""

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

    def decide(self, at: Sequence[int], asked: Sequence[Any]) -> list[np.ndarray]:
        """One chunk float32 [n, d] for each asking episode (``at``: indices into the episode list)."""
        limits = [self.actor.horizon] * len(at)
        if isinstance(self.actor, ReplayActor):
            asked, limits = self._recordings(self.actor, at, asked)
        seeds = np.array([decision_seed(*self.episodes[i], self.decisions[i]) for i in at], np.int64)
        batch = Observation.batch(asked) if isinstance(asked[0], Observation) else np.stack(asked)
        emission = self.actor.act(batch, seeds)
        chunks = np.asarray(emission.chunk, np.float32)
        if chunks.shape[:2] != (len(at), self.actor.horizon):
            raise ValueError(f"{self.actor_key} emitted {chunks.shape}, not {len(at)} × {self.actor.horizon}")
        if not np.isfinite(chunks).all():
            raise UserError(
                f"{self.actor_key} emitted an action that is not a finite number: its training has diverged; "
                "train it again with a lower learning rate"
            )
        for i, ok, limit in zip(at, np.asarray(emission.ok, bool), limits, strict=True):
            self.decisions[i] += 1
            self.failures[i] += limit > 0 and not ok
        return [chunk[:limit] for chunk, limit in zip(chunks, limits, strict=True)]

    def row(self, i: int, outcome: Outcome) -> EpisodeRow:
        """The evidence row of episode ``i``."""
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


def _verbatim(chunks: np.ndarray) -> Emission:
    return Emission(np.asarray(chunks, np.float32), np.ones(len(chunks), bool))


def record_episode(
    actor: Actor,
    protocol: EvaluationProtocol,
    task: str,
    initial_state: int,
    path: Path,
    *,
    actor_key: str,
    repeat: int = 0,
    size: int = 168,
    every: int = 2,
    fps: int = 30,
) -> EpisodeRow:
    """Run one episode in this process, film it, and return its evidence row.

    The film (MP4, H.264 where the encoder is there) shows every ``every``-th step in ``size`` pixels, an even
    number. It is rendered from a second simulator, so that the actor sees what it sees in an evaluation.
    """
    decider = _Decider(actor, protocol, actor_key, [(task, initial_state, repeat)])
    sim = make_sim(protocol.sim)
    camera = make_sim(protocol.sim.model_copy(update={"image_size": size}))
    frames: list[np.ndarray] = []

    def film(running: Sim) -> None:
        if runner.steps % every == 0 or running.success:
            camera.set_state(running.get_state())
            frames.append(next(iter(camera.observe().images.values()))[0, 0])

    try:
        runner = EpisodeRunner(sim, decider.drive, after_step=film)
        with simulating(protocol.sim, task, initial_state):
            camera.reset(task, initial_state)
            asked = runner.start(task, initial_state)
        while not isinstance(asked, Outcome):
            chunk = decider.decide([0], [asked])[0]
            with simulating(protocol.sim, task, initial_state):
                asked = runner.execute(chunk)
    finally:
        sim.close()
        camera.close()
    _write_video(frames, path, fps)
    return decider.row(0, asked)


def _write_video(frames: Sequence[np.ndarray], path: Path, fps: int) -> None:
    """Write frames, uint8 [h, w, 3], as MP4. Browsers play H.264 with 4:2:0 colours."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError('videos need PyAV: pip install "compression-gap[metaworld]"') from error
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
