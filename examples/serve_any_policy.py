"""Serve any policy to `cgap diagnose` and `cgap rollout`, from an environment that has msgpack, NumPy and websockets.

    python serve_any_policy.py my_module:load_policy --port 8000

`load_policy()` returns a function from an observation (a dict of arrays and the prompt) to an action chunk [H, d]. It
keeps nothing from one call to the next: the observations of several episodes come in turn. For lerobot: build the batch from the observation, and return `policy.predict_action_chunk(batch)[0].cpu().numpy()`.
"""

import argparse
import importlib
import threading

import msgpack
import numpy as np
from websockets.sync.server import serve


def to_message(value):
    """An array, as openpi's clients read it."""
    about = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
    return {b"__ndarray__": True, **about}


def from_message(value):
    """An array of a message; all else as it is."""
    if b"__ndarray__" not in value:
        return value
    return np.frombuffer(value[b"data"], value[b"dtype"]).reshape(value[b"shape"])


def main():
    """Serve until it is interrupted."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("policy", help="MODULE:FUNCTION that returns the policy")
    options.add_argument("--port", type=int, default=8000)
    given = options.parse_args()
    module, _, function = given.policy.partition(":")
    act = getattr(importlib.import_module(module), function)()

    one_at_a_time = threading.Lock()

    def answer(connection):
        connection.send(msgpack.packb({"policy": given.policy}))  # what tells this policy from another
        for data in connection:
            with one_at_a_time:
                chunk = act(msgpack.unpackb(data, object_hook=from_message))
            connection.send(msgpack.packb({"actions": np.asarray(chunk, np.float32)}, default=to_message))

    with serve(answer, "127.0.0.1", given.port, compression=None, max_size=None) as server:
        print(f"serving {given.policy} at ws://127.0.0.1:{server.socket.getsockname()[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
