"""How much faster a rollout is when it renders only where the policy looks.

Two loops drive the same episodes with the same actions: one renders every step, as common evaluation loops
do; the other is ``EpisodeRunner``, which renders the decision points and the one frame before each. Both use
the same rendering flags; the frames at the decision points are asserted to be identical.

    OMP_NUM_THREADS=1 LP_NUM_THREADS=0 python benchmarks/rollout_speed.py [--task push-v3] [--episodes 3]

One process, one thread. The stand-in policy costs nothing: it holds still, so that no episode ends early.
"""

from __future__ import annotations

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: no threads beside the main one

import numpy as np
from rows import show

from compression_gap.sims import EVALUATION_STATES, Observation, SimSpec, make_sim
from compression_gap.sims.base import arrays_equal
from compression_gap.sims.episode import Drive, EpisodeRunner, Outcome

N_OBS_STEPS = 2
STEPS = 96  # per episode: a multiple of both execution horizons


def policy(asked: Observation) -> np.ndarray:
    """A stand-in: small moves that depend on the pixels, so that a wrong frame changes the episode."""
    seen = sum(int(image.astype(np.int64).sum()) for image in asked.images.values())
    return 0.05 * np.random.default_rng(seen).standard_normal((16, 4)).astype(np.float32)


def every_step(sim, task: str, state: int, execute: int) -> list[Observation]:
    """Render after each step; returns what the policy saw."""
    sim.reset(task, state)
    frames = [sim.observe()] * N_OBS_STEPS
    decisions = []
    for t in range(STEPS):
        if t % execute == 0:
            decisions.append(Observation.history(frames[-N_OBS_STEPS:]))
            chunk = policy(decisions[-1])
        sim.step(chunk[t % execute])
        frames.append(sim.observe())
    return decisions


def where_it_looks(sim, task: str, state: int, execute: int) -> list[Observation]:
    """Render at decision points only; returns what the policy saw."""
    drive = Drive("observation", execute, STEPS, N_OBS_STEPS, images=True)
    runner = EpisodeRunner(sim, drive)
    decisions = []
    asked = runner.start(task, state)
    while not isinstance(asked, Outcome):
        decisions.append(asked)
        asked = runner.execute(policy(asked))
    return decisions


def same(a: list[Observation], b: list[Observation]) -> bool:
    """Whether the policy saw the same, bit by bit."""
    return len(a) == len(b) and all(arrays_equal(x, y) for x, y in zip(a, b, strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="push-v3")
    parser.add_argument("--episodes", type=int, default=3)
    options = parser.parse_args()
    sim = make_sim(SimSpec(sim="metaworld", tasks=(options.task,)))
    every_step(sim, options.task, 0, 16)  # the environment, the renderer and the caches
    print(f"{options.task}, {STEPS} steps, one 84 px camera, {N_OBS_STEPS} observation steps, one process")
    for execute in (8, 16):
        rates: tuple[list[float], list[float]] = ([], [])
        for k in range(options.episodes):
            seen = []
            for at, loop in enumerate((every_step, where_it_looks)):
                start = time.perf_counter()
                seen.append(loop(sim, options.task, EVALUATION_STATES + k, execute))
                rates[at].append(60 / (time.perf_counter() - start))
            assert same(*seen), "the frames at the decision points differ"
        what = f"rollout on {options.task}, {execute} actions a decision, rendered where the policy looks"
        show(what, "episodes/min", rates[1], beside=rates[0], of="rendered at every step")
    sim.close()


if __name__ == "__main__":
    main()
