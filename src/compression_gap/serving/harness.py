"""The protocol of vla-eval's harness, beside openpi's: a connection's first message says which is spoken.

Its frames are maps ``{type, payload, seq, timestamp}`` (https://pypi.org/project/vla-eval, module protocol): HELLO
from both sides, then EPISODE_START, an OBSERVATION for each step, which is answered by the ACTION of that step with
the same ``seq``, and EPISODE_END; a sentence comes as an ERROR. openpi's client, in turn, says nothing until it has
the server's metadata. One greeting serves both: the metadata, which is also the frame of the server's HELLO.

The harness executes one action for each observation, so the server takes ``execute`` of each chunk, one by one, and
the policy sees every step.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import __version__
from ..errors import UserError
from .session import Session
from .wire import Message, pack, unpack

PROTOCOL_VERSION = 1
FRAME = {"type", "payload", "seq", "timestamp"}
# What the harness's benchmarks name in an observation, and what it is called here; they send other things, too.
FIELDS = {
    "images": "images",
    "state": "proprio",
    "states": "proprio",
    "task_description": "prompt",
    "task": "task",
    "true_state": "true_state",
}


def greeting(about: Mapping[str, Any]) -> Message:
    """The metadata ``about`` a policy, and beside it the frame of HELLO, with the same metadata as its payload."""
    return {**about, **_frame("hello", _hello(about), 0)}


def is_frame(message: Any) -> bool:
    """Whether a message is a frame of the harness; no observation has these keys."""
    return isinstance(message, dict) and message.keys() >= FRAME


def _hello(about: Mapping[str, Any]) -> Message:
    # The benchmark is made with these, as far as it knows them.
    wanted = {"send_state": about["proprio_dim"] > 0, "send_wrist_image": len(about["cameras"]) > 1}
    return {
        **about,
        "harness_version": f"compression-gap {__version__}",
        "protocol_version": PROTOCOL_VERSION,
        "model_server": "compression-gap",
        "capabilities": {},
        "observation_params": wanted,
    }


def _frame(kind: str, payload: Message, seq: int) -> Message:
    return {"type": kind, "payload": payload, "seq": seq, "timestamp": time.time()}


class Conversation:
    """A connection's messages, in whichever protocol the client speaks, answered from its session."""

    def __init__(self, session: Session, about: Mapping[str, Any], *, execute: int) -> None:
        """``about``: the metadata, as it was sent; ``execute``: actions of each chunk that the harness executes."""
        self.session, self.about, self.execute = session, about, execute
        self.framed: bool | None = None  # not known before the first message that can be read
        self.greeted = False
        self.ahead: deque[np.ndarray] = deque()  # actions [d] of the last chunk that are still to be executed

    def answer(self, message: bytes | str, total: float | None = None) -> bytes | None:
        """The answer to one message, if it gets one. Raises ``UserError`` for a client of openpi's protocol.

        ``total``: seconds that the answer before took in all.
        """
        seq = 0
        try:
            content = unpack(message)
            if self.framed is None:
                self.framed = is_frame(content)
                if self.framed:
                    self.session.history = "consecutive"  # the harness shows every step
            if not self.framed:
                return pack(self.session.reply(content).message(total))
            if not is_frame(content):
                raise UserError(
                    "this is no frame of type, payload, seq and timestamp, as the first message was"
                )
            seq = content["seq"] if type(content["seq"]) is int else 0
            answered = self._answer(content["type"], content["payload"])
        except UserError as error:
            if not self.framed:
                raise
            answered = "error", {"error": str(error)}
        return None if answered is None else pack(_frame(*answered, seq), text_keys=True)

    def _answer(self, kind: Any, payload: Any) -> tuple[str, Message] | None:
        if not isinstance(payload, dict):
            raise UserError("a frame's payload is a map")
        if kind == "hello":
            first, self.greeted = not self.greeted, True
            return None if first else ("hello", _hello(self.about))  # the greeting was the first one's answer
        if kind == "observation":
            return "action", self._act(payload)
        if kind not in ("episode_start", "episode_end", "error"):
            raise UserError(
                f"the type of a frame is {str(kind)[:40]!r}; known: hello, episode_start, observation, episode_end"
            )
        if kind != "error":
            self.ahead.clear()
            self.session.reply({"reset": True})
        return None

    def _act(self, observation: Mapping[str, Any]) -> Message:
        """The action of this step: of the chunk that is being executed, or of a new one."""
        shown = self.session.reply({**self._message(observation), "act": not self.ahead})
        if not self.ahead:
            assert shown.acted is not None
            self.ahead.extend(shown.acted.actions[: self.execute])
        return {"actions": self.ahead.popleft()}

    def _message(self, observation: Mapping[str, Any]) -> Message:
        """An observation in this server's words, without what the policy does not see."""
        out: dict[str, Any] = {}
        for name, value in observation.items():
            own = FIELDS.get(name)
            if own in out:
                raise UserError(f"'{own}' is given twice, as state and as states")
            if own is not None:
                out[own] = value
        images, cameras = out.pop("images", {}), self.about["cameras"]
        if not isinstance(images, dict):
            raise UserError("images is no map from camera to array")
        missing = [c for c in cameras if c not in images]
        if missing and self.about["needs_images"]:
            sent = ", ".join(str(c)[:40] for c in images) or "none"
            raise UserError(
                f"no image of {', '.join(missing)}; this policy sees {', '.join(cameras)}, the benchmark sends {sent}"
            )
        return {**out, "images": {c: images[c] for c in cameras if c in images}}
