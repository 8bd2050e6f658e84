"""How often LIBERO's scripted experts succeed, and whether their stored actions do it again.

For each task and initial state: one episode with the expert in charge; then the same initial state and the same
actions (float32, as they are stored), without the expert. Success counts within the suite's step limit only.

    OMP_NUM_THREADS=1 python benchmarks/libero_experts.py --out experts.json [--tasks libero_object-0 ...]

By default every offered task from its first ten official initial states, which the experts were not tuned on:
``--first 1000000`` takes random resets instead, as demonstrations and tuning do. One process; no frame is drawn.
Core-seconds are the process's own and do not count making the environment.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from compression_gap.sims import EVALUATION_STATES, Sim, SimSpec, make_sim
from compression_gap.sims.libero_expert import EXPERT_TASKS


def demonstrate(sim: Sim, task: str, state: int) -> tuple[bool, np.ndarray]:
    """One episode of the expert: whether it succeeded, and its actions, float32 [n, 7]."""
    sim.reset(task, state)
    expert = sim.expert()
    actions: list[np.ndarray] = []
    while not sim.success and len(actions) < sim.info.step_limit:
        actions.append(expert.act(sim))
        sim.step(actions[-1])
    return sim.success, np.asarray(actions, np.float32)


def replay(sim: Sim, task: str, state: int, actions: np.ndarray) -> bool:
    """The same actions from the same initial state: whether they succeed again."""
    sim.reset(task, state)
    for action in actions:
        sim.step(action)
    return sim.success


def measure(task: str, states: range) -> dict[str, Any]:
    """One task's row."""
    sim = make_sim(SimSpec(sim="libero", tasks=(task,)))
    wins: list[bool] = []
    lengths: list[int] = []
    again: list[bool] = []
    seconds = 0.0
    try:
        sim.reset(task, states[0])  # makes the environment
        for state in states:
            start = time.process_time()
            success, actions = demonstrate(sim, task, state)
            seconds += time.process_time() - start
            wins.append(success)
            lengths.append(len(actions))
            if success:
                again.append(replay(sim, task, state, actions))
    finally:
        sim.close()
    return {
        "task": task,
        "instruction": EXPERT_TASKS[task],
        "episodes": len(wins),
        "successes": sum(wins),
        "failed_states": [s for s, won in zip(states, wins, strict=True) if not won],
        "replayed": len(again),
        "replay_successes": sum(again),
        "mean_steps": float(np.mean(np.array(lengths)[wins])) if any(wins) else None,
        "step_limit": sim.info.step_limit,
        "core_seconds_per_demonstration": seconds / max(1, sum(wins)),
        "versions": sim.info.versions,
    }


def total(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The sums over each suite's tasks."""
    suites: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        suites.setdefault(row["task"].rpartition("-")[0], []).append(row)
    keys = ("episodes", "successes", "replayed", "replay_successes")
    return [{"suite": s, **{k: sum(row[k] for row in part) for k in keys}} for s, part in suites.items()]


def main() -> None:
    """Measure, print a line per task, and write the table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=tuple(EXPERT_TASKS), default=tuple(EXPERT_TASKS), metavar="TASK"
    )
    parser.add_argument("--states", type=int, default=10)
    parser.add_argument("--first", type=int, default=EVALUATION_STATES)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for task in args.tasks:
        rows.append(row := measure(task, range(args.first, args.first + args.states)))
        print(
            f"{task:17} {row['successes']:3}/{row['episodes']:<3} replay {row['replay_successes']:3}/{row['replayed']:<3}"
            f" {row['mean_steps'] or 0:6.1f} steps (limit {row['step_limit']})"
            f" {row['core_seconds_per_demonstration']:6.2f} core-s  {row['failed_states'] or ''}",
            flush=True,
        )
        if args.out:
            args.out.write_text(json.dumps({"tasks": rows, "suites": total(rows)}, indent=2) + "\n")
    for row in total(rows):
        print(
            f"{row['suite']}: {row['successes']}/{row['episodes']}, replay {row['replay_successes']}/{row['replayed']}"
        )


if __name__ == "__main__":
    main()
