"""One connection to a served policy, in openpi's messages or in vla-eval's frames; see ``server`` and ``harness``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

from .. import __version__
from ..errors import UserError
from .harness import FRAME, PROTOCOL_VERSION
from .wire import Message, pack, unpack

Wire = Literal["openpi", "vla-eval"]
LARGEST = 2**26  # bytes of an answer
OPENING = 10.0  # seconds for a handshake


class Lost(Exception):
    """The connection broke, or no answer came in time. One line."""


class Connection:
    """An open connection. ``metadata``: what the server said of the policy; empty where it says nothing."""

    def __init__(self, url: str, wire: Wire, *, timeout: float) -> None:
        """``timeout``: seconds to wait for an answer. Raises ``Lost`` where there is no server.

        Raises ``UserError`` for what is no address, or where a server says something else than a greeting.
        """
        self.url, self.wire, self.timeout = url, wire, timeout
        self.seq = 0
        connect, failures = _websockets()
        self._failures: tuple[type[Exception], ...] = (failures, OSError, EOFError)
        try:
            self.socket = connect(
                url,
                compression=None,
                max_size=LARGEST,
                open_timeout=OPENING,
                ping_interval=None,  # a server that compiles its model answers no pings for minutes
                proxy=None,
            )
        except self._failures as error:
            raise Lost(_words(error)) from error
        try:
            self.metadata = self._greeted()
        except BaseException:
            self.close()
            raise

    def send(self, message: Message) -> None:
        """Ask for a chunk. Raises ``Lost``."""
        self._send("observation", message)

    def receive(self, timeout: float | None = None) -> Mapping[str, Any]:
        """The answer. Raises ``Lost``, and ``UserError`` for a server's own sentence or for what is no answer."""
        content = self._receive(timeout)
        if self.wire == "openpi":
            return content
        payload = content["payload"]
        if content["type"] == "error":
            raise UserError(f"the policy at {self.url} says: {_line(payload.get('error', payload))}")
        if content["type"] != "action":
            raise UserError(
                f"the policy at {self.url} answered an observation with a frame of type {content['type']!r:.40}"
            )
        if content["seq"] != self.seq:
            raise UserError(
                f"the policy at {self.url} answered frame {content['seq']!r:.20} when frame {self.seq} was asked: "
                "its answers do not follow the questions"
            )
        return dict(payload)

    def begin(self, task: str) -> None:
        """An episode starts. Raises ``Lost``."""
        if self.wire == "vla-eval":
            self._send("episode_start", {"task": {"name": task}})

    def end(self) -> None:
        """An episode has ended. A connection that is gone is found out later."""
        if self.wire == "vla-eval":
            with suppress(Lost):
                self._send("episode_end", {})

    def close(self) -> None:
        """Hang up."""
        with suppress(*self._failures):
            self.socket.close()

    def _greeted(self) -> Mapping[str, Any]:
        """Metadata, without what changes from connection to connection."""
        if self.wire == "vla-eval":
            hello = {
                "harness_version": f"compression-gap {__version__}",
                "protocol_version": PROTOCOL_VERSION,
            }
            self._send("hello", hello)
            content = self._receive(OPENING)
            if content["type"] != "hello":
                raise UserError(f"{self.url} greeted with a frame of type {content['type']!r:.40}, not hello")
            return dict(content["payload"])
        content = self._receive(OPENING)
        return {k: v for k, v in content.items() if k not in FRAME}

    def _send(self, kind: str, message: Message) -> None:
        if self.wire == "vla-eval":
            self.seq += 1
            frame = {"type": kind, "payload": message, "seq": self.seq, "timestamp": time.time()}
            data = pack(frame, text_keys=True)
        else:
            data = pack(message)
        try:
            self.socket.send(data)
        except self._failures as error:
            raise Lost(_words(error)) from error

    def _receive(self, timeout: float | None) -> Mapping[str, Any]:
        seconds = self.timeout if timeout is None else timeout
        try:
            data = self.socket.recv(timeout=seconds)
        except TimeoutError as error:
            raise Lost(f"no answer for {seconds:g} s") from error
        except self._failures as error:
            raise Lost(_words(error)) from error
        if isinstance(data, str):  # openpi's servers send what went wrong as text
            raise UserError(f"the policy at {self.url} says: {_line(data)}")
        try:
            content = unpack(data)
        except UserError as error:
            raise UserError(f"the answer of {self.url} cannot be read: {error}") from error
        framed = (
            isinstance(content, dict) and content.keys() >= FRAME and isinstance(content["payload"], dict)
        )
        if not isinstance(content, dict) or (self.wire == "vla-eval" and not framed):
            raise UserError(
                f"{self.url} answered a {type(content).__name__} that is no "
                f"{'map' if self.wire == 'openpi' else 'frame of vla-eval'}; choose another --binding"
            )
        return {str(k): v for k, v in content.items()}


def _line(words: object) -> str:
    """What a server says, in one line: of a traceback, its last."""
    lines = [line for line in str(words).splitlines() if line.strip()] or ["nothing"]
    return "".join(c for c in " ".join(lines[-1].split()) if c.isprintable())[:400]


def _words(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _websockets() -> tuple[Any, type[Exception]]:
    try:
        from websockets.exceptions import InvalidURI, WebSocketException
        from websockets.sync.client import connect
    except ModuleNotFoundError as error:
        raise UserError('a served policy needs websockets: pip install "compression-gap[serve]"') from error

    def checked(url: str, **options: Any) -> Any:
        try:
            return connect(url, **options)
        except (InvalidURI, ValueError) as error:
            raise UserError(f"{url} is no address of a policy; give ws://HOST:PORT") from error

    return checked, WebSocketException
