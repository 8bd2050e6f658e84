"""A policy server that is not ours, whose answers a test makes up."""

import asyncio
import threading

import numpy as np
from websockets.asyncio.server import serve

from compression_gap.serving.wire import pack, unpack


def heads_for_the_goal(message):
    """A policy of six lines: the goal is the bright spot."""
    weight = message["observation/image"][:, :, 0].astype(float)
    centres = ((np.arange(16) + 0.5) / 8 - 1) * 1.25
    goal = np.array([(weight.sum(0) * centres).sum(), -(weight.sum(1) * centres).sum()])
    state = message["observation/state"]
    goal = goal / max(weight.sum(), 1)  # a blank image has none
    move = (goal - state[:2]) / (16 - np.round(state[2] * 16)) / 0.125
    return {"actions": np.repeat(move[None], 6, 0)}


class Strange:
    """A server of openpi's messages whose answers a test makes up: ``answer(number, message)``."""

    def __init__(self, answer, metadata=None):
        self.make, self.metadata, self.asked, self.connections = answer, metadata or {}, 0, 0
        self.loop, self.port = asyncio.new_event_loop(), 0
        started = threading.Event()

        async def run():
            self.stop = asyncio.Event()
            async with serve(self.handle, "127.0.0.1", self.port, max_size=None) as server:
                self.port = server.sockets[0].getsockname()[1]
                started.set()
                await self.stop.wait()

        self.thread = threading.Thread(target=lambda: self.loop.run_until_complete(run()), daemon=True)
        self.thread.start()
        started.wait()
        self.url = f"ws://127.0.0.1:{self.port}"

    async def handle(self, connection):
        self.connections += 1
        await connection.send(pack(self.metadata))
        async for data in connection:
            self.asked += 1
            made = self.make(self.asked, unpack(data))
            if made is None:  # hang up in the middle
                connection.transport.abort()
                return
            if isinstance(made, float):
                await asyncio.sleep(made)
            else:
                await connection.send(made if isinstance(made, bytes | str) else pack(made))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()
