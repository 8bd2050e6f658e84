"""Demonstrations from a simulator's scripted expert: one task, successful episodes only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..sims import DEMONSTRATION_STATES, PRETRAINING_STATES, Observation, Sim, SimSpec, make_sim, simulating
from .demoset import DemoWriter

FAIR_ATTEMPTS = 12  # before an expert may be called hopeless
HOPELESS = 0.25  # share of attempts that must succeed


class Stopped(Exception):
    """``should_stop`` said so: the set is not complete."""


def collect_demos(
    spec: SimSpec,
    task: str,
    episodes: int,
    out: Path,
    *,
    first_state: int = DEMONSTRATION_STATES,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Mapping[str, Any]:
    """Write ``episodes`` successful demonstrations of ``task`` to the folder ``out``; return what to report.

    Initial states are ``first_state``, ``first_state`` + 1, ...; those where the expert fails are left out
    and listed. An episode ends with the step that reached success. Raises ``UserError`` if less than a
    quarter of a fair number of attempts succeed, ``Stopped`` if ``should_stop()`` becomes true.
    """
    with simulating(spec, task, first_state):
        sim = make_sim(spec)
    source = {"kind": "expert", "sim": spec.model_dump(mode="json"), "versions": sim.info.versions}
    writer = DemoWriter(out, source=source)
    failed: list[int] = []
    lengths: list[int] = []
    try:
        state = first_state
        while len(lengths) < episodes:
            if should_stop and should_stop():
                raise Stopped
            _check_range(state)
            # Physics first: it is far cheaper than frames, which a failed attempt does not need.
            with simulating(spec, task, state):
                actions = expert_actions(sim, task, state)
            if actions is None:
                failed.append(state)
                _check_hope(task, len(lengths), len(failed))
            else:
                with simulating(spec, task, state):
                    seen = _watch(sim, task, state, actions)
                writer.add(task, state, seen, actions)
                lengths.append(len(actions))
            if progress:  # after a failure, too: it is a sign of life
                progress(len(lengths), episodes)
            state += 1
        writer.close()
    finally:
        sim.close()
    return {
        "task": task,
        "episodes": episodes,
        "attempts": len(lengths) + len(failed),
        "failed_states": failed,
        "success_rate": len(lengths) / (len(lengths) + len(failed)),
        "mean_length": float(np.mean(lengths)),
        "max_length": max(lengths),
    }


def expert_actions(sim: Sim, task: str, initial_state: int) -> list[np.ndarray] | None:
    """The expert's actions (float32 [d] each) up to the step that succeeded, or None if none did."""
    sim.reset(task, initial_state)
    expert = sim.expert()
    actions: list[np.ndarray] = []
    while len(actions) < sim.info.step_limit:
        actions.append(expert.act(sim))
        sim.step(actions[-1])
        if sim.success:
            return actions
    return None


def _watch(sim: Sim, task: str, initial_state: int, actions: list[np.ndarray]) -> list[Observation]:
    """What is seen before each action when the episode is run once more."""
    sim.reset(task, initial_state)
    seen = []
    for action in actions:
        seen.append(sim.observe())
        sim.step(action)
    if not sim.success:
        raise RuntimeError(f"{task} from initial state {initial_state} did not repeat: the simulator drifts")
    return seen


def _check_hope(task: str, succeeded: int, failed: int) -> None:
    attempts = succeeded + failed
    if attempts >= FAIR_ATTEMPTS and succeeded < HOPELESS * attempts:
        raise UserError(
            f"the expert failed {failed} of {attempts} attempts at {task}: it cannot demonstrate this task; "
            "choose another one"
        )


def _check_range(state: int) -> None:
    """Demonstrations never use an initial state that is kept for pretraining, tuning or evaluation."""
    if not DEMONSTRATION_STATES <= state < PRETRAINING_STATES:
        raise UserError(
            f"demonstrations use initial states from {DEMONSTRATION_STATES} to {PRETRAINING_STATES - 1}, "
            f"not {state}: the others are kept for pretraining, tuning and evaluation"
        )
