"""What engines cost: a Ray cluster with one and with two workers on independent steps, and a step that does nothing.

    python benchmarks/engine_speed.py [--seconds 4] [--steps 12] [--rounds 3]

Needs the extra ``ray``, and as many quiet cores as workers. Ratios are of one run; medians of the rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from ray.cluster_utils import Cluster
from rows import show

from compression_gap.store.engine import Engine, run_plan
from compression_gap.store.ray import OnRay
from compression_gap.store.store import Store
from compression_gap.store.workers import Workers
from plain_steps import Piece, Quiet, graph


def seconds(engine: Engine, steps: int, work: float) -> float:
    """How long an engine takes for so many independent steps of ``work`` core-seconds each, all processes started before."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        pieces = [Piece(number=i, work=work) for i in range(steps)]
        begun = time.perf_counter()
        outcome = run_plan(graph(pieces, goals=pieces), store, engine=engine, watcher=Quiet())
        assert len(outcome.built) == steps, outcome.failures
        return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="core-seconds of a step")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    import ray

    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    engine = OnRay()
    found: dict[str, list[float]] = {"one": [], "two": [], "empty on Ray": [], "empty, local": []}
    seconds(engine, 2, 0.0)  # its process is there
    for _ in range(asked.rounds):
        found["one"].append(seconds(engine, asked.steps, asked.seconds))
    second = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    seconds(engine, 4, 1.0)
    for _ in range(asked.rounds):
        found["two"].append(seconds(engine, asked.steps, asked.seconds))
    cluster.remove_node(second)
    # Starting processes is not a step's cost: twice as many steps tell what a step adds.
    for name, tried in (("empty on Ray", engine), ("empty, local", Workers(1))):
        for _ in range(asked.rounds):
            few, many = seconds(tried, 20, 0.0), seconds(tried, 120, 0.0)
            found[name].append((many - few) / 100)
    ray.shutdown()
    cluster.shutdown()
    what = f"{asked.steps} steps of {asked.seconds:g} s on Ray, two workers"
    show(what, "s", found["two"], beside=found["one"], of="one worker", wanted="≥ 1.7")
    ms = {name: [1e3 * s for s in found[name]] for name in ("empty on Ray", "empty, local")}
    show(
        "a step that does nothing, on Ray",
        "ms",
        ms["empty on Ray"],
        beside=ms["empty, local"],
        of="local engine",
        wanted="≤ 200 ms more",
    )


if __name__ == "__main__":
    main()
