"""The websocket server: what openpi's clients expect of one, on this machine's loopback by default.

On connection the server sends what the policy is (``metadata``); then every binary message is an observation
(``messages``), answered by a map with ``actions`` float32 [H, d] in raw action units, its ``seed``, and
``server_timing`` in milliseconds. A message that cannot be answered gets one sentence as text, which openpi's
client raises as an error; nothing of it is kept, and the connection goes on. One that is too large closes its
connection (code 1009), and so does one that all clients' messages together leave no room for (1013).
``GET /healthz`` answers 200. A client of vla-eval's harness is answered in its own protocol (``harness``).

All sessions act in one thread, one after another: what one client gets does not depend on the others.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from .. import __version__
from ..errors import UserError, counted
from ..policies import Policy
from .harness import Conversation, greeting
from .memory import Budget, counted_by
from .messages import check_task, needs_true_state
from .session import Session, check_history
from .wire import Message, pack

CONNECTIONS = 64  # at a time
EXECUTE = 8  # actions of each chunk, for a client of vla-eval
QUEUE = 2  # messages that wait in a connection until the one before is answered
log = logging.getLogger(__name__)


def metadata(policy: Policy) -> Message:
    """What a client has to know of a policy; sent when it connects."""
    spec = policy.spec
    return {
        "library": "compression-gap",
        "version": __version__,
        "sim": spec.sim,
        "encoder": spec.encoder,
        "head": spec.head,
        "size": spec.size,
        "tasks": list(spec.tasks),
        "cameras": list(spec.cameras),
        "image_size": spec.image_size,
        "needs_images": policy.needs_images,
        "needs_true_state": needs_true_state(policy),
        "n_obs_steps": spec.n_obs_steps,
        "proprio_dim": spec.proprio_dim,
        "horizon": spec.horizon,
        "action_dim": spec.action_dim,
        "weights": policy.digest(),
    }


class PolicyServer:
    """Serves one policy. ``with PolicyServer(policy) as server`` serves in a thread, at ``server.url``."""

    def __init__(
        self,
        policy: Policy,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        max_message_mb: float = 64,
        max_total_mb: float = 512,
        task: str | None = None,
        history: str = "consecutive",
        execute: int | None = None,
    ) -> None:
        """``port`` 0 takes a free one; ``task``: that of messages which name none; ``history``: see ``Session``.

        ``max_total_mb``: of the messages of all clients that wait for an answer; ``execute``: actions of each chunk
        that a client of vla-eval executes, 8 or the whole of a shorter chunk by default.

        Raises ``UserError`` for a task that the policy does not know, a port that is none, or a missing library.
        """
        if not 0 <= port < 2**16:
            raise UserError(f"--port {port} is no port; give 0 (any that is free) to 65535")
        if not max_message_mb > 0:
            raise UserError(f"--max-message-mb {max_message_mb} leaves no room for a message; give 1 or more")
        if not max_total_mb >= max_message_mb:
            raise UserError(
                f"--max-total-mb {max_total_mb} is less than one message (--max-message-mb {max_message_mb}); raise it"
            )
        self.execute = min(EXECUTE, policy.horizon) if execute is None else execute
        if not 1 <= self.execute <= policy.horizon:
            raise UserError(f"--execute {execute}: a chunk of this policy has 1 to {policy.horizon} actions")
        self.policy, self.host, self.port = policy, host, port
        self.history, self.budget = check_history(history), Budget(int(max_total_mb * 2**20))
        self.limit = int(max_message_mb * 2**20)
        self.task = None if task is None else check_task(policy, task)
        self.metadata = metadata(policy)
        self.about = {
            **self.metadata,
            "history": history,
            "execute": self.execute,
            "task": task,
            "max_message_bytes": self.limit,
        }
        self._websockets()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serve until ``stop``; ``ready`` is called when clients can connect, and ``port`` is known.

        Raises ``UserError`` where the address cannot be had.
        """
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        # One thread acts for all: the policy sees one observation at a time.
        with ThreadPoolExecutor(1, "policy") as self._acting:
            try:
                server = await self._websockets()(
                    self._serve_one,
                    self.host,
                    self.port,
                    process_request=self._before,
                    origins=self._origins(),
                    compression=None,
                    max_size=self.limit,
                    max_queue=QUEUE,
                    create_connection=counted_by(self.budget),
                    logger=_quiet(),
                )
            except (OSError, UnicodeError) as error:
                raise _no_address(self.host, self.port, error) from error
            self.port = server.sockets[0].getsockname()[1]
            async with server:
                ready()
                await self._stop.wait()

    def stop(self) -> None:
        """Close all connections (code 1001) and end ``run``. From any thread."""
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)

    def __enter__(self) -> PolicyServer:
        started = threading.Event()
        failed: list[Exception] = []

        def serve() -> None:
            try:
                asyncio.run(self.run(started.set))
            except Exception as error:
                failed.append(error)
            finally:
                started.set()

        self._thread = threading.Thread(target=serve, name="policy-server", daemon=True)
        self._thread.start()
        started.wait()
        if failed:
            raise failed[0]
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _websockets(self) -> Any:
        try:
            from websockets.asyncio.server import serve
        except ModuleNotFoundError as error:
            raise UserError('serving needs websockets: pip install "compression-gap[serve]"') from error
        return serve

    def _origins(self) -> list[Any]:
        """A browser names the page that connects; no page but one of this very server may."""
        hosts = "|".join(re.escape(h) for h in ("127.0.0.1", "localhost", "[::1]", self.host))
        return [None, re.compile(rf"http://({hosts})(:\d+)?")]

    def _before(self, connection: Any, request: Any) -> Any:
        """Before the handshake: the health check, and the limit of connections."""
        if request.path.partition("?")[0] in ("/healthz", "/health"):  # openpi's path, vla-eval's path
            return connection.respond(HTTPStatus.OK, "OK\n")
        if len(connection.server.connections) >= CONNECTIONS:
            return connection.respond(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{counted(CONNECTIONS, 'client is', 'clients are')} connected\n",
            )
        return None

    async def _serve_one(self, connection: Any) -> None:
        """One client, until it goes."""
        from websockets.exceptions import ConnectionClosed

        loop, total = asyncio.get_running_loop(), None
        session = Session(self.policy, self.task, history=self.history, notice=_log)
        conversation = Conversation(session, self.about, execute=self.execute)
        with suppress(ConnectionClosed):
            await connection.send(pack(greeting(self.about)))
            while True:
                message = await connection.recv()
                begun = time.perf_counter()
                try:
                    answer = await loop.run_in_executor(self._acting, conversation.answer, message, total)
                    if answer is not None:
                        await connection.send(answer)
                except UserError as error:
                    await connection.send(str(error))
                except ConnectionClosed:
                    raise
                except Exception as error:  # a fault of ours: say so, keep serving the others
                    log.exception("a message could not be answered")
                    await connection.send(
                        f"the server failed on this message ({type(error).__name__}); its log says where"
                    )
                    await connection.close(1011, "the server failed")
                    return
                finally:
                    connection.answered(message)
                total = time.perf_counter() - begun


def serve_forever(server: PolicyServer, ready: Callable[[], None] = lambda: None) -> None:
    """Serve in this thread until it is interrupted (Ctrl-C) or asked to end (SIGTERM)."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
                loop.add_signal_handler(number, server.stop)
        await server.run(ready)

    asyncio.run(run())


def _log(sentence: str) -> None:
    log.warning("%s", sentence)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _no_address(host: str, port: int, error: Exception) -> UserError:
    if isinstance(error, socket.gaierror | UnicodeError):
        return UserError(f"there is no address '{host}' on this machine; give --host 127.0.0.1")
    return UserError(
        f"cannot listen on {host}, port {port} ({getattr(error, 'strerror', None) or error}); choose another "
        "with --port (0 takes a free one) or --host"
    )


def _quiet() -> logging.Logger:
    """The library's log of every failed handshake goes nowhere: anyone can cause one."""
    logger = logging.getLogger(f"{__name__}.websockets")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    return logger
