"""A policy behind a websocket: messages, episodes of a connection, the server."""

from typing import Any

__all__ = ["PolicyServer", "metadata", "serve_forever"]


def __getattr__(name: str) -> Any:
    # ``wire`` must stay importable without torch: a client needs it alone.
    if name in __all__:
        from . import server

        return getattr(server, name)
    raise AttributeError(name)
