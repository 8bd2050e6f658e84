"""What it costs that a policy is served: milliseconds a decision, and episodes a minute on LIBERO.

A decision carries two cameras of 256 px, which are mirrored and scaled to 224 px (the binding "openpi-libero"), to a
server of openpi's messages in a process of its own, which answers at once. Beside it stands the same without a
socket: the binding's own work. Episodes are those of libero_object with a policy that answers at once and stands
still, so that every one runs to its limit: in process, and served; rounds alternate.

    OMP_NUM_THREADS=1 LP_NUM_THREADS=0 python benchmarks/remote_speed.py [--decisions 300] [--episodes 4] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import time
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "0")

import numpy as np
from rows import show

from compression_gap.policies import Emission
from compression_gap.rollouts.actors import Turn
from compression_gap.rollouts.run import run_episodes
from compression_gap.serving.binding import BINDINGS
from compression_gap.serving.remote import RemoteActor
from compression_gap.sims import (
    EVALUATION_STATES,
    EvaluationProtocol,
    Observation,
    SimInfo,
    SimPool,
    SimSpec,
    sim_info,
)

HORIZON = 10
BINDING = BINDINGS["openpi-libero"]
STILL = np.tile(np.array([0, 0, 0, 0, 0, 0, -1], np.float32), (HORIZON, 1))


def serve(pipe: Connection) -> None:
    """A server in a process of its own: openpi's messages, an answer at once."""
    from websockets.sync.server import serve as listen

    from compression_gap.serving.wire import pack

    def answer(connection) -> None:  # type: ignore[no-untyped-def]
        connection.send(pack({}))
        for _ in connection:
            connection.send(pack({"actions": STILL}))

    with listen(answer, "127.0.0.1", 0, compression=None, max_size=None) as server:
        pipe.send(server.socket.getsockname()[1])
        server.serve_forever()


@contextmanager
def served():  # type: ignore[no-untyped-def]
    """The address of such a server."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield f"ws://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()


class Still:
    """The same policy in process."""

    asks, n_obs_steps, horizon, needs_images = "observation", 1, HORIZON, True

    def act(self, asked: Observation, seeds: np.ndarray) -> Emission:
        """Nothing, at once."""
        return Emission(np.tile(STILL, (len(seeds), 1, 1)), np.ones(len(seeds), bool))


def decisions(count: int) -> None:
    """Milliseconds a decision: the whole, and the binding's part."""
    rng = np.random.default_rng(0)
    asked = Observation(
        images={c: rng.integers(0, 256, (1, 1, 256, 256, 3), np.uint8) for c in BINDING.cameras},
        proprio=np.array([[[0, 0, 0, 0, 0, 0, 1, 0, 0]]], np.float32),
        task=np.zeros(1, np.int64),
    )
    info = SimInfo(7, 9, 0, tuple(BINDING.cameras), 280, {})
    with served() as address:
        actor = RemoteActor([address], BINDING, ("t",), info)
        whole, own = [], []
        for i in range(count):
            begun = time.perf_counter()
            actor.act_in([Turn(0, i)], asked, np.zeros(1, np.int64))
            whole.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            BINDING.message(asked, 0, "t", "t", 0)
            own.append(time.perf_counter() - begun)
        actor.close()
    ms = [[1e3 * s for s in of] for of in (whole, own)]
    what = "decision of a served policy, two cameras of 256 px"
    show(what, "ms", ms[0], beside=ms[1], of="mirroring and scaling alone", wanted="≤ 3 ms")


def episodes(count: int, rounds: int, workers: int) -> None:
    """Episodes a minute in process and served."""
    spec = SimSpec(
        sim="libero", tasks=("libero_object-0",), cameras=tuple(BINDING.cameras), image_size=BINDING.image_size,
        rendering="default", protocol=BINDING.protocol,
    )  # fmt: skip
    info = sim_info(spec)
    protocol = EvaluationProtocol(
        sim=spec, episodes_per_task=count, first_initial_state=EVALUATION_STATES, execute=BINDING.execute,
        n_obs_steps=1, step_limit=info.step_limit, versions=info.versions, settings=info.settings,
    )  # fmt: skip
    rates: dict[str, list[float]] = {"in process": [], "served": []}
    with served() as address, SimPool(spec, workers) as pool:
        actor = RemoteActor([address], BINDING, spec.tasks, info)
        run_episodes(Still(), protocol, pool, actor_key="warm", episodes=protocol.episodes()[:workers])
        for _ in range(rounds):
            for name, policy in (("in process", Still()), ("served", actor)):
                begun = time.perf_counter()
                run_episodes(policy, protocol, pool, actor_key=name)
                rates[name].append(60 * count / (time.perf_counter() - begun))
        actor.close()
    what = f"rollout of a served policy on libero_object, {workers} workers"
    show(what, "episodes/min", rates["served"], beside=rates["in process"], of="in process", wanted="≥ 0.9")


def main() -> None:
    """Print both."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--decisions", type=int, default=300)
    options.add_argument("--episodes", type=int, default=4)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--workers", type=int, default=2)
    given = options.parse_args()
    decisions(given.decisions)
    if given.episodes:
        episodes(given.episodes, given.rounds, given.workers)


if __name__ == "__main__":
    main()
