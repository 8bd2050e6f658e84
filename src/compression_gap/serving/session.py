"""One connection: its episodes, the observation steps that were seen, and the seeds of its decisions.

A policy sees ``n_obs_steps`` consecutive steps, so those are kept from message to message. At an episode's
start the first is repeated, as in training. For clients that show only the steps at which they decide there is
another ``history``, "repeat": the newest step stands for those before it, too. A seed that is not given is ``decision_seed(task, episode, 0,
decision)``, both counted from 0 in the connection: the same messages get the same answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from ..errors import UserError, counted, unknown_name
from ..policies import Policy
from ..rollouts.run import decision_seed
from ..sims import Observation
from .messages import Request, read_request
from .wire import Message, unpack

History = Literal["consecutive", "repeat"]
SKIPPED = (
    "the policy sees {0} consecutive steps, and this client asks for a chunk with every step that it shows: if it "
    "executes more than one action of each chunk, the policy's history is wrong. Show the steps between, too ('act' "
    "false), or all {0} in each message, or serve with --history repeat"
)


def check_history(history: str) -> str:
    """Raises ``UserError`` for a name that is not known."""
    if history not in get_args(History):
        raise unknown_name("history", history, get_args(History))
    return history


@dataclass(frozen=True)
class Acted:
    """A chunk float32 [H, d] in raw action units, whether it decoded, and the seed of its noise."""

    actions: np.ndarray
    ok: bool
    seed: int


@dataclass(frozen=True)
class Answer:
    """What a message is answered: ``acted`` where a chunk was asked for, after so many ``seconds``."""

    episode: int
    decision: int = 0
    reset: bool = False
    acted: Acted | None = None
    seconds: float = 0.0
    warning: str | None = None

    def message(self, total: float | None = None) -> Message:
        """As it is sent. ``total``: seconds that the answer before took in all."""
        if self.reset:
            return {"reset": True, "episode": self.episode}
        out: Message = {"episode": self.episode, "decision": self.decision}
        if self.acted is not None:
            timing = {"infer_ms": 1e3 * self.seconds}
            if total is not None:
                timing["prev_total_ms"] = 1e3 * total
            out |= {**vars(self.acted), "server_timing": timing}
        return out if self.warning is None else {**out, "warning": self.warning}


class Session:
    """Answers one connection's messages. For one thread: the server calls all sessions from the same."""

    def __init__(
        self,
        policy: Policy,
        task: str | None = None,
        *,
        history: str = "consecutive",
        notice: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        """``task``: that of messages which name none. ``notice`` tells whoever runs the server."""
        self.policy, self.task, self.notice = policy, task, notice
        self.history = check_history(history)
        self.episode = 0
        self.noticed = False
        self._begin()

    def _begin(self) -> None:
        self.decision = 0
        self.steps: int | None = 0  # of this episode so far; None: windows came without their number
        self.seen: list[Observation] = []  # single steps, oldest first, n_obs_steps of them
        self.acted = False  # on the message before, which had no number

    def answer(self, message: bytes | str) -> Message:
        """The answer to one message. Raises ``UserError``; the session is then as it was before."""
        return self.reply(unpack(message)).message()

    def reply(self, message: Any) -> Answer:
        """The answer to a message that was unpacked."""
        begun = time.perf_counter()
        request = read_request(message, self.policy, self.task)
        fresh = request.reset or not self.seen
        episode = self.episode + bool(request.reset and self.seen)
        if request.seen is None:
            self.episode = episode
            self._begin()
            return Answer(episode, reset=True)
        seen = self._joined(request.seen, [] if fresh else self.seen)
        steps = self._counted(request, 0 if fresh else self.steps)
        decision = 0 if fresh else self.decision
        acted = self._act(request, seen, episode, decision) if request.act else None
        seconds = time.perf_counter() - begun
        warning = self._warning(request, fresh)
        self.episode, self.seen, self.steps = episode, seen, steps
        self.decision = decision + request.act
        return Answer(episode, decision, acted=acted, seconds=seconds, warning=warning)

    def _joined(self, new: Observation, before: Sequence[Observation]) -> list[Observation]:
        """The last ``n_obs_steps`` steps; before an episode's first, that one is repeated."""
        wanted, sent = self.policy.n_obs_steps, new.proprio.shape[1]
        if self.history == "repeat" and sent < wanted:
            return [_at(new, sent - 1)] * wanted
        steps = [*before, *(_at(new, t) for t in range(max(0, sent - wanted), sent))]
        return [steps[0]] * (wanted - len(steps)) + steps[-wanted:]

    def _counted(self, request: Request, before: int | None) -> int | None:
        """How many steps the episode has had; refuses what is not consecutive, where steps are numbered."""
        whole = self.history == "repeat" or request.steps >= self.policy.n_obs_steps
        if request.step is None:
            return None if whole or before is None else before + request.steps
        least = 0 if before is None else before + (0 if whole else request.steps - 1)
        if request.step < least or (request.step > least and before is not None and not whole):
            came = (
                "an episode begins at step 0"
                if before == 0
                else f"{counted(before or 0, 'step')} seen so far"
            )
            raise UserError(
                f"step {request.step} does not follow ({came}, and this message holds {request.steps}); the policy "
                f"sees {self.policy.n_obs_steps} consecutive steps: send those between with 'act' false, or all of "
                "them in each message, or start an episode with 'reset'"
            )
        return request.step + 1

    def _warning(self, request: Request, fresh: bool) -> str | None:
        """Decisions that follow each other step by step are rare; where steps were left out, the history is wrong."""
        wanted = self.policy.n_obs_steps
        unsure = request.step is None and request.act and request.steps < wanted and self.history != "repeat"
        warned = unsure and self.acted and not fresh
        self.acted = unsure
        if not warned:
            return None
        if not self.noticed:
            self.noticed = True
            self.notice(SKIPPED.format(wanted))
        return SKIPPED.format(wanted)

    def _act(self, request: Request, seen: Sequence[Observation], episode: int, decision: int) -> Acted:
        whole, number = Observation.history(seen), int(seen[-1].task[0])
        seed = request.seed
        if seed is None:
            seed = decision_seed(self.policy.spec.tasks[number], episode, 0, decision)
        asked = Observation(whole.images, whole.proprio, np.array([number], np.int64), whole.state)
        emission = self.policy.act(asked, np.array([seed], np.int64))
        actions = np.asarray(emission.chunk[0], np.float32)
        if not np.isfinite(actions).all():
            raise UserError(
                "the policy emitted an action that is not a finite number: its training has diverged"
            )
        return Acted(actions, bool(np.asarray(emission.ok)[0]), seed)


def _at(seen: Observation, t: int) -> Observation:
    """One step of an observation [1, T, ...], as [1, 1, ...]: copied, so that the message's bytes can go."""
    return Observation(
        images={c: a[:, t : t + 1].copy() for c, a in seen.images.items()},
        proprio=seen.proprio[:, t : t + 1].copy(),
        task=seen.task,
        state=None if seen.state is None else seen.state[:, t : t + 1].copy(),
    )
