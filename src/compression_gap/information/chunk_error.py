"""How near chunks come to the demonstrated ones on held-out demonstrations.

With Â the predicted and A the demonstrated chunk in standard deviations, at the decision points t of one episode,

    error = Σ_t Σ_h v_th Σ_j (Â_thj − A_thj)² / (d Σ_t Σ_h v_th),      v_th: step h lies within the episode,

over whole chunks, and over the first ``execute`` steps. A head that samples pays for its spread: of a policy that
samples the demonstrations' own distribution p(A | Z), the expected error is twice the variance of A given Z, while
one that predicts the mean has it once. So errors compare encoders under one head, not heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..demos import ChunkSet, DemoSet, Windows
from ..sims import Observation

if TYPE_CHECKING:
    from ..policies import Policy

BATCH = 64


def held_out(points: ChunkSet, most: int = 2000) -> ChunkSet:
    """About ``most`` of the decision points, evenly spread; at least one of each episode."""
    if len(points) <= most:
        return points
    rows = np.linspace(0, len(points) - 1, most).astype(np.int64)
    # the middle of each episode that the even spread has missed
    episode, first, length = np.unique(points.episode, return_index=True, return_counts=True)
    middles = (first + length // 2)[~np.isin(episode, points.episode[rows])]
    return points.at(np.unique(np.concatenate([rows, middles])))


def error_sums(
    predicted: np.ndarray, chunks: np.ndarray, points: ChunkSet, execute: int
) -> dict[str, np.ndarray]:
    """Sums per episode, of whole chunks and of their first ``execute`` steps.

    ``predicted`` broadcasts to ``chunks`` [N, H, d], both standardised. Returns ``sums`` float64 [2, E, d] of squared
    errors, ``counts`` int64 [2, E] of valid steps, ``episode`` and ``task`` int64 [E].
    """
    episode, first, number = np.unique(points.episode, return_index=True, return_inverse=True)
    squared = (np.asarray(predicted, np.float64) - chunks) ** 2
    sums, counts = [], []
    for steps in (chunks.shape[1], execute):
        valid = points.valid[:, :steps]
        of_point = (squared[:, :steps] * valid[..., None]).sum(1)
        sums.append(np.stack([np.bincount(number, column) for column in of_point.T], 1))
        counts.append(np.bincount(number, valid.sum(1)).astype(np.int64))
    task = points.windows.task[first]
    return {"sums": np.stack(sums), "counts": np.stack(counts), "episode": episode, "task": task}


def sampled(
    policy: Policy,
    demosets: Sequence[DemoSet],
    features: Sequence[np.ndarray],
    points: ChunkSet,
    tasks: Sequence[str],
    progress: Callable[[int, int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """A chunk per decision point, float32 [N, H, d], standardised, and whether it decoded [N]."""
    at, seeds = points.windows, decision_seeds(points, tasks)
    chunks, ok = [], []
    for start in range(0, len(at), BATCH):
        batch = at.at(np.arange(start, min(start + BATCH, len(at))))
        emitted = _emit(policy, demosets, features, batch, seeds[start : start + BATCH])
        chunks.append(emitted.chunk)
        ok.append(np.asarray(emitted.ok, bool))
        progress(start + len(batch), len(at))
    return np.concatenate(chunks), np.concatenate(ok)


def _emit(
    policy: Policy,
    demosets: Sequence[DemoSet],
    features: Sequence[np.ndarray],
    at: Windows,
    seeds: np.ndarray,
) -> Any:
    if features:
        proprio = _rows([d.proprio for d in demosets], at.frames)
        return policy.emit_from(_rows(features, at.frames), proprio, at.task, seeds)
    return policy.emit(observed(demosets, at), seeds)


def observed(demosets: Sequence[DemoSet], at: Windows) -> Observation:
    """What is seen at decision points of these sets, joined in order: [N, T, ...]."""
    states = [d.state for d in demosets if d.state is not None]
    return Observation(
        images={c: _rows([d.images[c] for d in demosets], at.frames) for c in demosets[0].images},
        proprio=_rows([d.proprio for d in demosets], at.frames),
        task=at.task,
        state=_rows(states, at.frames) if len(states) == len(demosets) else None,
    )


def decision_seeds(points: ChunkSet, tasks: Sequence[str]) -> np.ndarray:
    """The seed of each decision, int64 [N]: a hash of its task, episode and step, the same for every policy."""
    from ..rollouts.run import decision_seed

    at = points.windows
    return np.array(
        [
            decision_seed(tasks[task], int(episode), 0, int(step))
            for task, episode, step in zip(at.task, at.episode, points.rows.step, strict=True)
        ],
        np.int64,
    )


def _rows(arrays: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Rows [..., *shape] of memory maps that count as joined; no more than these are read."""
    starts = np.cumsum([0, *(len(a) for a in arrays)])
    out = np.empty((*rows.shape, *arrays[0].shape[1:]), arrays[0].dtype)
    for array, start, stop in zip(arrays, starts, starts[1:], strict=False):
        own = (rows >= start) & (rows < stop)
        out[own] = array[rows[own] - start]
    return out
