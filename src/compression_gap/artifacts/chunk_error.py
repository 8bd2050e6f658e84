"""How near chunks come to the demonstrated ones on held-out demonstrations: how the artefact "error" is built.

With Â the predicted and A the demonstrated chunk in standard deviations, at the decision points t of one episode,

    error = Σ_t Σ_h v_th Σ_j (Â_thj − A_thj)² / (d Σ_t Σ_h v_th),      v_th: step h lies within the episode,

over whole chunks, and over the first ``execute`` steps. A head that samples pays for its spread: of a policy that
samples the demonstrations' own distribution p(A | Z), the expected error is twice the variance of A given Z, while
one that predicts the mean has it once. So errors compare encoders under one head, not heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..demos import DemoSet, Normaliser, Windows, make_windows
from ..errors import UserError
from ..sims import Observation
from ..store.store import Recipe, Store

if TYPE_CHECKING:
    from ..policies import Policy
    from .builders import Job

BATCH = 64


@dataclass(frozen=True)
class HeldOut:
    """N held-out decision points; ``rows``: where they are among all of the test split; ``step``: in the episode."""

    rows: np.ndarray  # int64 [N]
    windows: Windows
    step: np.ndarray  # int64 [N]


def held_out(
    demosets: Sequence[DemoSet],
    tasks: Sequence[str],
    *,
    horizon: int,
    n_obs_steps: int,
    stride: int = 1,
    most: int = 2000,
) -> HeldOut:
    """Decision points of the test split, about ``most`` of them, evenly spread; at least one of each episode."""
    windows = make_windows(demosets, tasks, horizon, n_obs_steps, "test", stride)
    rows = np.arange(len(windows))
    if len(windows) > most:
        rows = np.linspace(0, len(windows) - 1, most).astype(np.int64)
        # the middle of each episode that the even spread has missed
        episode, first, length = np.unique(windows.episode, return_index=True, return_counts=True)
        middles = (first + length // 2)[~np.isin(episode, windows.episode[rows])]
        rows = np.unique(np.concatenate([rows, middles]))
    kept, starts, offset = windows.at(rows), [], 0
    for demos in demosets:
        starts += [offset + e.start for e in demos.episodes]
        offset += len(demos.actions)
    return HeldOut(rows, kept, kept.frames[:, -1] - np.array(starts)[kept.episode])


def error_sums(
    predicted: np.ndarray, chunks: np.ndarray, points: HeldOut, execute: int
) -> dict[str, np.ndarray]:
    """Sums per episode, of whole chunks and of their first ``execute`` steps.

    ``predicted`` broadcasts to ``chunks`` [N, H, d], both standardised. Returns ``sums`` float64 [2, E, d] of squared
    errors, ``counts`` int64 [2, E] of valid steps, ``episode`` and ``task`` int64 [E].
    """
    episode, first, number = np.unique(points.windows.episode, return_index=True, return_inverse=True)
    squared = (np.asarray(predicted, np.float64) - chunks) ** 2
    sums, counts = [], []
    for steps in (chunks.shape[1], execute):
        valid = points.windows.valid[:, :steps]
        of_point = (squared[:, :steps] * valid[..., None]).sum(1)
        sums.append(np.stack([np.bincount(number, column) for column in of_point.T], 1))
        counts.append(np.bincount(number, valid.sum(1)).astype(np.int64))
    task = points.windows.task[first]
    return {"sums": np.stack(sums), "counts": np.stack(counts), "episode": episode, "task": task}


def build_error(job: Job) -> dict[str, Any]:
    """``sums``, ``counts``, ``episode``, ``task`` of ``error_sums``, for a policy or another predictor.

    ``predictor``: "policy"; "mean", the mean of the training actions; "last", the action before the decision (the
    mean, where there is none); "coded", the demonstrated chunk through a code.
    """
    spec, demosets = job.spec, job.demosets()
    normaliser = Normaliser.load(job.input("normaliser"))
    points = held_out(
        demosets,
        spec["tasks"],
        horizon=spec["horizon"],
        n_obs_steps=spec["n_obs_steps"],
        stride=spec["stride"],
        most=spec["points"],
    )
    actions = normaliser.normalise(np.concatenate([d.actions for d in demosets]))
    failures = 0.0
    if spec["predictor"] == "policy":
        predicted, ok = _sampled(job, demosets, points)
        failures = float(1 - ok.mean())
    elif spec["predictor"] == "coded":
        coded = np.load(job.input("tokens") / "coded-test.npy", mmap_mode="r", allow_pickle=False)
        predicted = coded[points.rows]
    elif spec["predictor"] == "last":
        before = actions[np.maximum(points.windows.frames[:, -1] - 1, 0)]
        predicted = np.where(points.step[:, None] > 0, before, 0.0)[:, None]
    else:
        predicted = np.zeros((1, 1, actions.shape[1]))  # the training mean, standardised
    found = error_sums(predicted, actions[points.windows.actions], points, spec["execute"])
    for name, array in found.items():
        np.save(job.out / f"{name}.npy", array, allow_pickle=False)
    return {
        "points": len(points.rows),
        "episodes": len(found["episode"]),
        "decode_failures": failures,
        "std": normaliser.std.tolist(),  # raw units
    }


def _sampled(job: Job, demosets: Sequence[DemoSet], points: HeldOut) -> tuple[np.ndarray, np.ndarray]:
    """A chunk per decision point, float32 [N, H, d], standardised, and whether it decoded [N].

    A decision's seed is a hash of its task, episode and step: the same for every policy.
    """
    from ..policies import Policy
    from ..rollouts.run import decision_seed

    policy, at, tasks = Policy.load(job.input("policy")), points.windows, job.spec["tasks"]
    features = [
        np.load(job.store.open(r) / "features.npy", mmap_mode="r", allow_pickle=False)
        for r in job.recipes("features")
    ]
    seeds = np.array(
        [
            decision_seed(tasks[task], int(episode), 0, int(step))
            for task, episode, step in zip(at.task, at.episode, points.step, strict=True)
        ],
        np.int64,
    )
    chunks, ok = [], []
    for start in range(0, len(at), BATCH):
        batch = at.at(np.arange(start, min(start + BATCH, len(at))))
        of = seeds[start : start + BATCH]
        emitted = _emit(policy, demosets, features, batch, of)
        chunks.append(emitted.chunk)
        ok.append(np.asarray(emitted.ok, bool))
        job.progress(start + len(batch), len(at))
    whole = np.concatenate(chunks)
    if not np.isfinite(whole).all():
        raise UserError(
            f"the policy {job.step.inputs['policy'].key} emits actions that are no finite numbers: its training has "
            "diverged; train it again with a lower learning rate"
        )
    return whole, np.concatenate(ok)


def _emit(
    policy: Policy,
    demosets: Sequence[DemoSet],
    features: Sequence[np.ndarray],
    at: Windows,
    seeds: np.ndarray,
) -> Any:
    proprio = _rows([d.proprio for d in demosets], at.frames)
    if features:
        return policy.emit_from(_rows(features, at.frames), proprio, at.task, seeds)
    images = {c: _rows([d.images[c] for d in demosets], at.frames) for c in demosets[0].images}
    return policy.emit(Observation(images=images, proprio=proprio, task=at.task), seeds)


def _rows(arrays: Sequence[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """Rows [..., *shape] of memory maps that count as joined; no more than these are read."""
    starts = np.cumsum([0, *(len(a) for a in arrays)])
    out = np.empty((*rows.shape, *arrays[0].shape[1:]), arrays[0].dtype)
    for array, start, stop in zip(arrays, starts, starts[1:], strict=False):
        own = (rows >= start) & (rows < stop)
        out[own] = array[rows[own] - start]
    return out


@dataclass(frozen=True)
class EpisodeErrors:
    """Errors per held-out episode, E of them, over whole chunks and over the executed steps."""

    whole: np.ndarray  # float64 [E]: mean squared error, standard deviations²
    executed: np.ndarray  # float64 [E]
    raw: np.ndarray  # float64 [E, d]: mean squared error of whole chunks, raw action units²
    episode: np.ndarray  # int64 [E]
    task: np.ndarray  # int64 [E]
    points: int
    decode_failures: float


def read_errors(store: Store, recipe: Recipe) -> EpisodeErrors:
    """One "error" artefact, verified."""
    folder, meta = store.open(recipe), store.manifest(recipe)["meta"]
    sums, counts, episode, task = (
        np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("sums", "counts", "episode", "task")
    )
    mean = sums / counts[..., None]  # [2, E, d]
    return EpisodeErrors(
        whole=mean[0].mean(1),
        executed=mean[1].mean(1),
        raw=mean[0] * np.asarray(meta["std"]) ** 2,
        episode=episode,
        task=task,
        points=meta["points"],
        decode_failures=meta["decode_failures"],
    )
