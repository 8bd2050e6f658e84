"""A served policy as an actor: a connection for each running episode, one message for each decision.

A connection that breaks, or a server that does not answer in time, loses the episode that ran on it: it is run again
from its start, on a new connection, since the server may have kept something of it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..errors import UserError
from ..policies import Emission
from ..rollouts.actors import Turn
from ..sims import Observation, SimInfo
from ..sims.base import instruction_of
from .binding import Binding, is_own, own_binding
from .client import Connection, Lost
from .wire import Message

FIRST = 900.0  # seconds for the first answer of all, in which a server may compile its model
TIMEOUT = 60.0  # for every other
PATIENCE = 60.0  # seconds in which a server that has gone may come back
MOST_LOST = 3  # times that one episode may be lost


def is_address(policy: str) -> bool:
    """Whether a policy is named by the address of a server."""
    return policy.startswith(("ws://", "wss://"))


def greet(address: str, wire: Literal["openpi", "vla-eval"] = "openpi") -> Mapping[str, Any]:
    """What the server at an address says of its policy. Raises ``UserError`` where nothing answers."""
    connection = _connected(address, wire, TIMEOUT, patience=0.0)
    connection.close()
    return connection.metadata


def binding_for(metadata: Mapping[str, Any], known: Binding | None) -> Binding:
    """The binding that was asked for, or that of ``cgap serve`` where that is what answers."""
    if known is not None:
        return known
    if is_own(metadata):
        return own_binding(metadata)
    raise UserError(
        "this server does not say how its policy is spoken to; name a --binding: openpi-libero, vla-eval-libero, or a "
        "YAML file"
    )


@dataclass
class RemoteActor:
    """One policy behind one or more servers. Not for several threads. Use ``close`` when done.

    ``tasks``: those that observations number; ``info``: of the simulator.
    """

    addresses: Sequence[str]
    binding: Binding
    tasks: tuple[str, ...]
    info: SimInfo
    timeout: float = TIMEOUT
    patience: float = 0.0  # seconds in which a server may start, at the beginning
    horizon: int = 0  # H: found out by asking once
    asks: Literal["observation"] = "observation"
    metadata: Mapping[str, Any] | None = None
    running: dict[int, Connection] = field(default_factory=dict)  # by episode
    idle: list[Connection] = field(default_factory=list)
    lost: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.n_obs_steps = self.binding.n_obs_steps
        self.needs_images = bool(self.binding.cameras)
        self.words = [instruction_of(t, self.info.instructions) for t in self.tasks]
        for address in self.addresses:  # one connection each: a server that is not there is found out now
            self.idle.append(self._open(address, self.patience))
        if not self.horizon:  # each is asked once, since a server may compile its model then
            lengths = {self._ask_once(number) for number in range(len(self.addresses))}
            if len(lengths) > 1:
                raise UserError(
                    f"{', '.join(self.addresses)} answer chunks of different lengths: one policy is needed"
                )
            self.horizon = lengths.pop()

    def act(self, asked: Observation, seeds: np.ndarray) -> Emission:
        """Chunks float32 [B, H, d] for B observations, each the first of an episode of its own.

        Raises ``UserError`` if the server goes away.
        """
        chunks = [self._one(Turn(-1 - row, 0), asked, row, int(seed)) for row, seed in enumerate(seeds)]
        return Emission(np.stack(chunks), np.ones(len(chunks), bool))

    def act_in(
        self, turns: Sequence[Turn], asked: Observation, seeds: np.ndarray
    ) -> tuple[Emission, np.ndarray]:
        """As ``rollouts.actors.SessionActor``. All are asked before any answer is waited for."""
        chunks = np.zeros((len(turns), self.horizon, self.info.action_dim), np.float32)
        lost = np.array([
            not self._send(turn, asked, row, int(seed))
            for row, (turn, seed) in enumerate(zip(turns, seeds, strict=True))
        ])  # fmt: skip
        for row, turn in enumerate(turns):
            if not lost[row]:
                chunk = self._receive(turn)
                lost[row] = chunk is None
                chunks[row] = 0 if chunk is None else chunk
        return Emission(chunks, np.ones(len(turns), bool)), lost

    def end(self, episode: int) -> None:
        """The episode's connection serves another one."""
        self.lost.pop(episode, None)
        if (connection := self.running.pop(episode, None)) is not None:
            connection.end()
            self.idle.append(connection)

    def close(self) -> None:
        """Hang up."""
        for connection in (*self.running.values(), *self.idle):
            connection.close()
        self.running.clear()
        self.idle.clear()

    def _one(
        self, turn: Turn, asked: Observation, row: int, seed: int, timeout: float | None = None
    ) -> np.ndarray:
        """The chunk of an episode's first decision, asked for until it is not lost."""
        while True:
            if self._send(turn, asked, row, seed) and (made := self._receive(turn, timeout)) is not None:
                self.end(turn.episode)
                return made

    def _send(self, turn: Turn, asked: Observation, row: int, seed: int) -> bool:
        """Ask for a decision; whether that went out."""
        try:
            if turn.decision == 0:
                self._begin(turn.episode, self.tasks[int(asked.task[row])])
            self.running[turn.episode].send(self._message(asked, row, seed))
        except Lost as error:
            self._lose(turn.episode, error)
            return False
        return True

    def _message(self, asked: Observation, row: int, seed: int) -> Message:
        task = int(asked.task[row])
        words = asked.text[row] if asked.text is not None else self.words[task]
        return self.binding.message(asked, row, self.tasks[task], words, seed)

    def _receive(self, turn: Turn, timeout: float | None = None) -> np.ndarray | None:
        """The chunk [H, d]; None if the episode was lost."""
        connection = self.running[turn.episode]
        try:
            answer = connection.receive(timeout)
        except Lost as error:
            self._lose(turn.episode, error)
            return None
        try:
            chunk = self.binding.chunk(answer, self.info.action_dim)
            if self.horizon and len(chunk) != self.horizon:
                raise UserError(f"it answered {len(chunk)} actions now, and {self.horizon} before")
            # What it makes of a blank scene, when it is asked for its horizon, is not executed.
            if self.horizon and not np.isfinite(chunk).all():
                raise UserError("it answered actions that are NaN or infinite")
        except UserError as error:
            raise UserError(f"the policy at {connection.url}: {error}") from error
        return chunk

    def _begin(self, episode: int, task: str) -> None:
        """A connection for an episode that starts, or starts again."""
        wanted = self.addresses[episode % len(self.addresses)]
        free = next((c for c in self.idle if c.url == wanted), None)
        if free is not None:
            self.idle.remove(free)
        self.running[episode] = self._open(wanted) if free is None else free
        self.running[episode].begin(task)

    def _lose(self, episode: int, error: Lost) -> None:
        """The episode's connection is given up. Raises ``UserError`` when it was lost too often."""
        connection = self.running.pop(episode, None)
        where = self.addresses[episode % len(self.addresses)] if connection is None else connection.url
        if connection is not None:
            connection.close()
        # What is idle may be as dead: the server may have been started again.
        for other in [c for c in self.idle if c.url == where]:
            self.idle.remove(other)
            other.close()
        self.lost[episode] += 1
        if self.lost[episode] >= MOST_LOST:
            raise UserError(
                f"the policy at {where} was lost {MOST_LOST} times in one episode ({error}); see its log, raise "
                "--timeout if it is only slow, and give the same command again: finished episodes are kept"
            ) from error

    def _open(self, address: str, patience: float = PATIENCE) -> Connection:
        """A new connection to the same policy as before. Raises ``UserError`` for another one."""
        connection = _connected(address, self.binding.wire, self.timeout, patience)
        if self.metadata is None:
            self.metadata = connection.metadata
        elif repr(connection.metadata) != repr(self.metadata):
            connection.close()
            raise UserError(
                f"{address} serves another policy than before (its greeting has changed); several addresses, and a "
                "server that was started again, must serve one and the same"
            )
        return connection

    def _ask_once(self, number: int) -> int:
        """How many actions the policy answers, on an observation of zeros."""
        size, steps, info = self.binding.image_size, self.n_obs_steps, self.info
        blank = Observation(
            images={c: np.zeros((1, steps, size, size, 3), np.uint8) for c in self.binding.cameras},
            proprio=np.zeros((1, steps, info.proprio_dim), np.float32),
            task=np.zeros(1, np.int64),
            state=np.zeros((1, steps, info.state_dim), np.float32),
        )
        chunk = self._one(Turn(number, 0), blank, 0, 0, FIRST)
        if len(chunk) < self.binding.execute:
            raise UserError(
                f"the policy at {self.addresses[number]} answers chunks of {len(chunk)} actions, and the binding executes "
                f"{self.binding.execute} of them: lower 'execute'"
            )
        return len(chunk)


def _connected(
    address: str, wire: Literal["openpi", "vla-eval"], timeout: float, patience: float
) -> Connection:
    """A connection; a server that is not there is tried again for ``patience`` seconds."""
    until, wait = time.monotonic() + patience, 0.25
    while True:
        try:
            return Connection(address, wire, timeout=timeout)
        except Lost as error:
            if time.monotonic() + wait > until:
                raise UserError(
                    f"no policy answers at {address} ({error}); start its server, or correct the address"
                ) from error
        time.sleep(wait)
        wait = min(2 * wait, 5.0)
