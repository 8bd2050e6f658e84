"""How much faster LIBERO runs when it is rendered only where the policy looks, and is reset softly.

Two loops drive the same episodes: the usual one (LIBERO's own ``OffScreenRenderEnv``: two cameras at every control
step, the model loaded anew at every reset) and ``EpisodeRunner`` on this program's simulator. Same tasks, initial
states, actions and rendering flags; what the policy sees at each decision is asserted to be equal bit by bit, and
so is success.

    OMP_NUM_THREADS=1 LP_NUM_THREADS=0 python benchmarks/libero_speed.py [--task libero_object-0] [--episodes 3]

One thread, one process at a time. The stand-in policy costs nothing: it replays the scripted expert's actions, so
that episodes succeed, with a tremor that depends on the pixels, so that a wrong frame changes the episode. On tasks
without an expert the tremor is all.
"""

from __future__ import annotations

import argparse
import os
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("LP_NUM_THREADS", "0")  # Mesa's software renderer: no threads beside the main one

import numpy as np
from rows import show

from compression_gap.errors import UserError
from compression_gap.sims import EVALUATION_STATES, SimSpec, make_sim
from compression_gap.sims.episode import Drive, EpisodeRunner, Outcome
from compression_gap.sims.libero import DEFAULT_CAMERAS
from compression_gap.sims.libero_assets import bddl_file, import_libero, initial_states
from compression_gap.sims.libero_environment import OPEN_AND_STILL

EXECUTE = 16
SIZE = 128


def policy(images: dict[str, np.ndarray], recorded: np.ndarray, decision: int) -> np.ndarray:
    """A stand-in: recorded actions (float32 [n, 7]; still after their end), and a tremor from the pixels."""
    seen = sum(int(image.astype(np.int64).sum()) for image in images.values())
    chunk = np.tile(np.asarray(OPEN_AND_STILL, np.float32), (EXECUTE, 1))
    told = recorded[decision * EXECUTE : (decision + 1) * EXECUTE]
    chunk[: len(told)] = told
    tremor = 0.02 * np.random.default_rng(seen).standard_normal((EXECUTE, 6)).astype(np.float32)
    chunk[:, :6] += tremor
    return np.clip(chunk, -1, 1)


def recording(sim, task: str, k: int, steps: int) -> np.ndarray:
    """The scripted expert's actions from an initial state, float32 [n, 7]; none where there is no expert."""
    sim.reset(task, EVALUATION_STATES + k)
    actions: list[np.ndarray] = []
    try:
        expert = sim.expert()
        while not sim.success and len(actions) < steps:
            actions.append(expert.act(sim))
            sim.step(actions[-1])
    except UserError as error:
        print(f"({error})")
    return np.asarray(actions, np.float32).reshape(-1, 7)


class Usual:
    """The loop of the published harnesses, on LIBERO's own wrapper."""

    def __init__(self, task: str) -> None:
        import_libero()
        from libero.libero.envs import OffScreenRenderEnv

        self.env = OffScreenRenderEnv(
            bddl_file_name=str(bddl_file(task)), camera_heights=SIZE, camera_widths=SIZE, ignore_done=True
        )
        self.states = initial_states(task)

    def episode(
        self, k: int, steps: int, recorded: np.ndarray
    ) -> tuple[list[dict[str, np.ndarray]], bool, int]:
        """What the policy saw at its decisions, success, and the steps taken."""
        self.env.seed(k)
        self.env.reset()
        seen = self.env.set_init_state(self.states[k])
        for _ in range(10):
            seen, *_ = self.env.step(list(OPEN_AND_STILL))
        decisions = []
        for t in range(steps):
            if t % EXECUTE == 0:
                decisions.append(self.images(seen))
                chunk = policy(decisions[-1], recorded, t // EXECUTE)
            seen, _, done, _ = self.env.step(chunk[t % EXECUTE])
            if done:
                return decisions, True, t + 1
        return decisions, False, steps

    @staticmethod
    def images(seen: dict) -> dict[str, np.ndarray]:
        """The frames, upright."""
        return {c: seen[f"{c}_image"][::-1] for c in DEFAULT_CAMERAS}


def where_it_looks(
    sim, task: str, k: int, steps: int, recorded: np.ndarray
) -> tuple[list[dict[str, np.ndarray]], bool, int]:
    """The same episode, rendered at the decision points only."""
    runner = EpisodeRunner(sim, Drive("observation", EXECUTE, steps, images=True))
    decisions = []
    asked = runner.start(task, EVALUATION_STATES + k)
    while not isinstance(asked, Outcome):
        decisions.append({c: image[0, 0] for c, image in asked.images.items()})
        asked = runner.execute(policy(decisions[-1], recorded, len(decisions) - 1))
    return decisions, asked.success, asked.length


def same(a: list[dict], b: list[dict]) -> bool:
    """Whether the policy saw the same, bit by bit."""
    return len(a) == len(b) and all(np.array_equal(x[c], y[c]) for x, y in zip(a, b, strict=True) for c in x)


def memory() -> tuple[float, float]:
    """This process's resident memory, now and at its peak, in GB."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak = (int(lines[name].split()[0]) / 1e6 for name in ("VmRSS", "VmHWM"))
    return now, peak


def serve(pipe: Connection, task: str) -> None:
    """The usual loop in a process of its own: robosuite frees its OpenGL objects in whichever context is current.

    Answers (k, steps, recording) with what ``Usual.episode`` returns, the seconds that it took and the memory.
    """
    usual = Usual(task)
    usual.episode(0, 1, np.zeros((0, 7)))
    pipe.send(None)
    while (asked := pipe.recv()) is not None:
        start = time.perf_counter()
        done = usual.episode(*asked)
        pipe.send((done, time.perf_counter() - start, memory()))
    os._exit(0)  # robosuite's exit handlers complain about contexts that are gone


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="libero_object-0")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="per episode")
    options = parser.parse_args()
    context = get_context("spawn")
    pipe, other = context.Pipe()
    process = context.Process(target=serve, args=(other, options.task), daemon=True)
    process.start()
    pipe.recv()
    spec = SimSpec(sim="libero", tasks=(options.task,), image_size=SIZE, rendering="default")
    sim = make_sim(spec)
    sim.reset(options.task, EVALUATION_STATES)  # the environment, the renderer and the caches
    sim.observe()
    print(
        f"{options.task}, {options.steps} steps, two {SIZE} px cameras, execute {EXECUTE}, one process at a time"
    )
    rates, successes = ([], []), 0
    for k in range(options.episodes):
        recorded = recording(sim, options.task, k, options.steps)
        pipe.send((k, options.steps, recorded))
        theirs, taken, usual_memory = pipe.recv()
        start = time.perf_counter()
        ours = where_it_looks(sim, options.task, k, options.steps, recorded)
        rates[0].append(60 / taken)
        rates[1].append(60 / (time.perf_counter() - start))
        assert same(theirs[0], ours[0]), "the frames at the decision points differ"
        assert theirs[1:] == ours[1:], "success or length differ"
        successes += ours[1]
    pipe.send(None)
    print(
        f"the same frames at all decisions, the same success ({successes} of {options.episodes}) and length"
    )
    usual = "every step, hard resets"
    show(f"rollout on {options.task}", "episodes/min", rates[1], beside=rates[0], of=usual, wanted="≥ 10")
    show(f"memory of a rollout on {options.task}", "GB", [memory()[1]], beside=usual_memory[1], of=usual)
    sim.close()


if __name__ == "__main__":
    main()
