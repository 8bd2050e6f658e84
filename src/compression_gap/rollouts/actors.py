"""Actors: what a rollout asks for chunks. The reference actors of docs/theory.md, are here (expert,
expert-chunked, expert-coded, replay); a policy is an actor by having the same attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from ..errors import UserError
from ..policies import Emission
from ..sims import Observation

Asks = Literal["observation", "expert-chunk", "expert", "recording"]


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


@dataclass(frozen=True)
class Turn:
    """A decision's place: of which episode (its index in the list that is run), and its number there, from 0."""

    episode: int
    decision: int


@runtime_checkable
class SessionActor(Protocol):
    """An actor with a session for each episode, which can be lost with it: a policy behind a connection."""

    def act_in(
        self, turns: Sequence[Turn], asked: Observation, seeds: np.ndarray
    ) -> tuple[Emission, np.ndarray]:
        """As ``act``, and which episodes were lost, bool [B]: those are run again from their start."""

    def end(self, episode: int) -> None:
        """An episode has ended."""


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
    """The expert's chunk with noise on it: how precisely must a chunk be executed (docs/theory.md)?

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


def _verbatim(chunks: np.ndarray) -> Emission:
    return Emission(np.asarray(chunks, np.float32), np.ones(len(chunks), bool))
