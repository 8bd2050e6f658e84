"""What all connections together hold of messages, bounded: each may send large ones, and not all at once."""

from __future__ import annotations

from typing import Any

LATER = 1013  # the close code "try again later"
HEADER = 14  # bytes of a frame's, at most


class Budget:
    """Bytes that have come in and were not answered yet, of all connections of a server."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    @property
    def sentence(self) -> str:
        """Why a connection is closed that would exceed it; a reason has room for 123 bytes."""
        return f"the clients' messages together exceed {self.most / 2**20:g} MiB; send it again later"


def counted_by(budget: Budget) -> Any:
    """The class of a server's connections, which count their bytes in ``budget`` from the moment they come in."""
    from websockets.asyncio.server import ServerConnection
    from websockets.protocol import State

    class Counted(ServerConnection):
        """A connection that is closed where there is no room for what it sends."""

        held = 0

        def data_received(self, data: bytes) -> None:
            """More bytes, of whatever part of a message."""
            if self.protocol.state is State.OPEN:
                self.held += len(data)
                budget.held += len(data)
                if budget.held > budget.most:
                    self.protocol.fail(LATER, budget.sentence)  # what follows is discarded
                    self.release(self.held)
            super().data_received(data)

        def release(self, size: int) -> None:
            """A message of that size was answered, or is given up."""
            freed = min(self.held, size)
            self.held -= freed
            budget.held -= freed

        def answered(self, message: bytes | str) -> None:
            """Release a message."""
            self.release((len(message) if isinstance(message, bytes) else len(message.encode())) + HEADER)

        def connection_lost(self, exc: Exception | None) -> None:
            """Nothing more comes."""
            self.release(self.held)
            super().connection_lost(exc)

    return Counted
