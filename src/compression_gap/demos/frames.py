"""Pretraining frames: what the cameras see at diverse moments, with the simulator's true state.

An episode is the scripted expert, disturbed: Gaussian noise on its actions, of a size drawn for the episode, and
stretches in which one random action is held. A few frames are kept of each, spread over its length, and only these
are rendered. Frames of a task come in blocks of ``BLOCK``; block 0 is for validation, training begins with block 1.
Every block has initial states of its own, and every episode's draws come from its initial state alone, so the
first k frames of a task are the same however many follow: smaller sets are nested in larger ones, and each is
what the same procedure gives within k frames.

Files: ``images-CAMERA.npy`` uint8 [N, h, w, 3]; ``state.npy`` float32 [N, s]; ``initial_state.npy`` int64 [N];
``frames.json``: task, cameras, names of the state's dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..records import read_array, read_json
from ..sims import PRETRAINING_STATES, TUNING_STATES, Observation, Sim, SimSpec, make_sim, simulating

BLOCK = 500  # frames of an artefact
VALIDATION = 0  # the number of the block that is not trained on
FRAMES_PER_EPISODE = 5
STATES_PER_BLOCK = 1_000  # initial states that are kept for a block: more than enough
BLOCKS = (TUNING_STATES - PRETRAINING_STATES) // STATES_PER_BLOCK
NOISE = 1.0  # the largest standard deviation of the noise; actions lie in [−1, 1]
HELD = 0.5  # the largest share of an episode's stretches in which a random action is held
STRETCH = (5, 15)  # steps, shortest and longest
_SEED = 0xF4A3E5  # separates these draws from others with the same small numbers


@dataclass(frozen=True)
class FrameSet:
    """Frames of one task. Arrays are read-only memory maps."""

    task: str
    images: dict[str, np.ndarray]  # camera -> uint8 [N, h, w, 3]
    state: np.ndarray  # float32 [N, s]
    initial_state: np.ndarray  # int64 [N]
    state_names: tuple[str, ...]

    @staticmethod
    def load(folder: Path) -> FrameSet:
        """Map a block from its folder (the store has verified it)."""
        about = read_json(folder / "frames.json")

        def array(name: str) -> np.ndarray:
            return read_array(folder / f"{name}.npy", mapped=True)

        return FrameSet(
            task=about["task"],
            images={camera: array(f"images-{camera}") for camera in about["cameras"]},
            state=array("state"),
            initial_state=array("initial_state"),
            state_names=tuple(about["state_names"]),
        )

    def __len__(self) -> int:
        return len(self.state)


def join_frames(blocks: Sequence[FrameSet], count: int) -> FrameSet:
    """The first ``count`` frames of consecutive blocks of one task, in memory."""
    if sum(map(len, blocks)) < count:
        raise ValueError(f"{sum(map(len, blocks))} frames in {len(blocks)} blocks, {count} wanted")
    first = blocks[0]

    def join(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(arrays)[:count]

    return FrameSet(
        task=first.task,
        images={c: join([b.images[c] for b in blocks]) for c in first.images},
        state=join([b.state for b in blocks]),
        initial_state=join([b.initial_state for b in blocks]),
        state_names=first.state_names,
    )


def collect_frames(
    spec: SimSpec,
    task: str,
    block: int,
    out: Path,
    *,
    frames: int = BLOCK,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Write one block of frames of ``task`` to the folder ``out``; returns what to report.

    Raises ``UserError`` for a simulator without true state and for a block beyond the last.
    """
    if not 0 <= block < BLOCKS or frames > STATES_PER_BLOCK * FRAMES_PER_EPISODE:
        raise UserError(
            f"there are initial states for {BLOCKS - 1} blocks of {BLOCK} pretraining frames a task, "
            f"not for block {block}: pretrain on fewer frames"
        )
    first = PRETRAINING_STATES + block * STATES_PER_BLOCK
    with simulating(spec, task, first):
        sim = make_sim(spec)
    try:
        if sim.info.state_dim == 0:
            raise UserError(f"{spec.sim} gives no true state to pretrain on: take another encoder")
        arrays: dict[str, np.ndarray] = {}
        done, state = 0, first
        while done < frames:
            for seen in _in_words(disturbed_episode(sim, task, state), spec, task, state):
                for name, row in _rows(seen, state).items():
                    if name not in arrays:
                        shape = (frames, *row.shape)
                        file = out / f"{name}.npy"
                        arrays[name] = np.lib.format.open_memmap(file, "w+", row.dtype, shape)
                    arrays[name][done] = row
                done += 1
                if done == frames:
                    break
            progress(done, frames)
            state += 1
        for array in arrays.values():
            array.flush()  # type: ignore[attr-defined]
        about = {
            "task": task,
            "cameras": list(sim.info.cameras),
            "state_names": [n for n in sim.info.state_names],
        }
        (out / "frames.json").write_text(json.dumps(about, indent=1, allow_nan=False))
    finally:
        sim.close()
    return {"frames": frames, "episodes": state - first}


def disturbed_episode(sim: Sim, task: str, initial_state: int) -> Iterator[Observation]:
    """The frames that are kept of one episode, rendered when they are asked for: one of each fifth of it.

    The episode ends when the task is solved, or after half the step limit. Physics comes first, since only then
    is its length known; the simulator is then put back to the moments that were chosen.
    """
    rng = np.random.default_rng([_SEED, initial_state])
    # Cubes: most episodes are disturbed a little, few so much that the expert gets nowhere.
    noise, held = NOISE * rng.random() ** 3, HELD * rng.random() ** 3
    sim.reset(task, initial_state)
    expert, d = sim.expert(), sim.info.action_dim
    states: list[Any] = []
    left, hold = 0, False
    while not states or (not sim.success and len(states) < sim.info.step_limit // 2):
        states.append(sim.get_state())
        if left == 0:
            left = int(rng.integers(*STRETCH, endpoint=True))
            hold, action = bool(rng.random() < held), rng.uniform(-1, 1, d)
        if not hold:
            action = expert.act(sim) + noise * rng.standard_normal(d)
        sim.step(np.clip(action, -1, 1).astype(np.float32))
        left -= 1
    part = len(states) / FRAMES_PER_EPISODE
    for moment in (np.arange(FRAMES_PER_EPISODE) + rng.random(FRAMES_PER_EPISODE)) * part:
        sim.set_state(states[int(moment)])
        yield sim.observe()


def _in_words(
    frames: Iterator[Observation], spec: SimSpec, task: str, initial_state: int
) -> Iterator[Observation]:
    """The same frames; an error of the simulator becomes a sentence."""
    while True:
        with simulating(spec, task, initial_state):
            seen = next(frames, None)
        if seen is None:
            return
        yield seen


def _rows(seen: Observation, initial_state: int) -> dict[str, np.ndarray]:
    if seen.state is None:
        raise ValueError("a simulator with a state dimension must observe its true state")
    rows = {f"images-{camera}": images[0, 0] for camera, images in seen.images.items()}
    return {**rows, "state": seen.state[0, 0], "initial_state": np.array(initial_state, np.int64)}
