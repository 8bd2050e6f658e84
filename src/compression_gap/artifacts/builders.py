"""How each kind of artefact is built: the only place where the store meets the rooms that do the work.

``BUILDERS[kind](job)`` fills ``job.out``; what it returns is kept as the artefact's ``meta``.
"""

from __future__ import annotations

import atexit
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ..demos import DemoSet, Normaliser, make_windows
from ..errors import UserError
from ..sims import EvaluationProtocol, SimSpec
from ..store.store import Recipe, Store, Superseded
from ..study.plan import Step
from ..study.resolution import disturbance_of

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """A step with everything that its builder needs."""

    step: Step
    store: Store
    out: Path
    progress: Progress
    should_stop: Callable[[], bool]

    @property
    def spec(self) -> Any:
        """The resolved specification."""
        return self.step.recipe.spec

    def input(self, role: str) -> Path:
        """The verified folder of one input."""
        return self.store.open(self.step.inputs[role])

    def recipes(self, role: str) -> list[Recipe]:
        """The inputs ``role/0``, ``role/1``, … in order."""
        found = {r: i for r, i in self.step.inputs.items() if r.startswith(f"{role}/")}
        return [found[f"{role}/{i}"] for i in range(len(found))]

    def demosets(self) -> list[DemoSet]:
        """The demonstrations, one set per task."""
        return [DemoSet.load(self.store.open(r)) for r in self.recipes("demos")]


def build(step: Step, store: Store, *, progress: Progress, should_stop: Callable[[], bool]) -> None:
    """Build one step's artefact and commit it; nothing is done if it is there already."""
    if store.has(step.recipe):
        return
    meta: dict[str, Any] = {}
    begun = time.perf_counter()
    try:
        with store.create(step.recipe, meta) as out:
            meta |= BUILDERS[step.recipe.kind](Job(step, store, out, progress, should_stop)) or {}
            meta["build_seconds"] = time.perf_counter() - begun
            meta["machine"] = machine()
    except Superseded:
        if not store.has(step.recipe):
            raise


def machine() -> dict[str, str]:
    """What the artefact was built on; it is no part of any key."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def _demos(job: Job) -> dict[str, Any]:
    from ..demos.experts import collect_demos

    if "origin" in job.spec:
        task, episodes = job.spec["task"], job.spec["episodes"]
        raise UserError(
            f"{episodes} official demonstrations of {task} are not in the store: run  cgap demos make "
            f"{job.spec['sim']['sim']}/{task} --episodes {episodes} --official FOLDER  with the folder of their HDF5 files, "
            "and the study's cameras and store"
        )
    sim = SimSpec.model_validate(_tuples(job.spec["sim"]))
    return collect_demos(sim, job.spec["task"], job.spec["episodes"], job.out, progress=job.progress)


def _normaliser(job: Job) -> dict[str, Any]:
    actions = [
        demos.actions[e.start : e.start + e.length] for demos in job.demosets() for e in demos.split("train")
    ]
    Normaliser.fit(np.concatenate(actions)).save(job.out)
    return {"frames": int(sum(map(len, actions)))}


def _chunks(job: Job, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Normalised chunks [N, H, d] and their valid mask [N, H], in the order of ``make_windows``."""
    return _chunks_by_episode(job, split)[:2]


def _chunks_by_episode(job: Job, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    demosets = job.demosets()
    tasks = sorted({t for d in demosets for t in d.tasks})
    windows = make_windows(demosets, tasks, job.spec["horizon"], 1, split, job.spec["stride"])
    actions = np.concatenate([d.actions for d in demosets])
    chunks = Normaliser.load(job.input("normaliser")).normalise(actions)[windows.actions]
    return chunks, windows.valid, windows.episode


def _tokenizer(job: Job) -> dict[str, Any]:
    from ..tokenizers import make_tokenizer

    spec = job.spec
    how: dict[str, Any] = dict(spec["fitting"])
    if how:  # the others have no network to train
        how |= {
            "work": job.store.work(job.step.recipe),
            "should_stop": job.should_stop,
            "progress": job.progress,
        }
    chunks, valid = _chunks(job, "train")
    tokenizer = make_tokenizer(spec["tokenizer"], **spec["options"])
    tokenizer.fit(chunks, valid, validation=_chunks(job, "validation"), **how)
    tokenizer.save(job.out)
    test, test_valid = _chunks(job, "test")
    error = (tokenizer.decode(tokenizer.encode(test)).chunk - test) ** 2
    return {
        "training": tokenizer.report,
        "capacity_bits": tokenizer.capacity_bits,
        "distortion": float(error[test_valid].mean()),  # held-out, normalised units²
    }


def _tokens(job: Job) -> dict[str, Any]:
    from ..tokenizers import load_tokenizer

    tokenizer = load_tokenizer(job.input("tokenizer"))
    for split in ("train", "validation", "test"):
        chunks, _ = _chunks(job, split)
        tokens = tokenizer.encode(chunks)
        coded = tokenizer.decode(tokens)
        if not coded.ok.all():
            raise ValueError(f"{tokenizer.name} cannot decode {(~coded.ok).sum()} of its own sequences")
        for name, array in {"ids": tokens.ids, "lengths": tokens.lengths, "coded": coded.chunk}.items():
            np.save(job.out / f"{name}-{split}.npy", array, allow_pickle=False)
    return {}


def _prepared(job: Job) -> Path | None:
    """The folder of a prepared encoder, where the step has one."""
    return job.input("encoder") if "encoder" in job.step.inputs else None


def _features(job: Job) -> dict[str, Any]:
    from ..encoders import make_encoder
    from ..encoders.cache import cache_features

    demos = DemoSet.load(job.input("demos"))
    encoder = make_encoder(
        job.spec["encoder"], cameras=len(demos.images), folder=_prepared(job), crop=job.spec.get("crop")
    )
    work = (
        job.store.work(job.step.recipe) if "encoder" in job.step.inputs else None
    )  # the others take seconds
    cache_features(encoder, demos, job.out, job.progress, work=work, should_stop=job.should_stop)
    return {}


def _policy(job: Job) -> dict[str, Any]:
    from ..encoders.text import Instructions
    from ..policies.train import train_policy
    from ..tokenizers import Tokens, load_tokenizer

    tokenizer = load_tokenizer(job.input("tokenizer")) if "tokenizer" in job.step.inputs else None
    tokens, coded = {}, {}
    if "tokens" in job.step.inputs:
        folder = job.input("tokens")
        for split in ("train", "validation"):
            ids, lengths, coded[split] = (
                np.load(folder / f"{name}-{split}.npy", allow_pickle=False)
                for name in ("ids", "lengths", "coded")
            )
            tokens[split] = Tokens(ids, lengths)
    features = [
        np.load(job.store.open(r) / "features.npy", mmap_mode="r", allow_pickle=False)
        for r in job.recipes("features")
    ]
    return train_policy(
        job.spec,
        job.demosets(),
        features or None,
        Normaliser.load(job.input("normaliser")),
        tokenizer,
        tokens if tokenizer else None,
        coded or None,
        prepared=_prepared(job),
        instructions=Instructions.load(job.input("text")) if "text" in job.step.inputs else None,
        out=job.out,
        work=job.store.work(job.step.recipe),
        should_stop=job.should_stop,
        progress=job.progress,
    )


_pools: dict[str, Any] = {}


def pool_for(sim: SimSpec, workers: int) -> Any:
    """The process's pool of simulator workers: kept between steps, since starting one takes seconds."""
    from ..sims.pool import SimPool

    key = f"{workers} {sim.model_dump_json()}"
    if key not in _pools:
        close_pools()
        _pools[key] = SimPool(sim, workers)
    return _pools[key]


def close_pools() -> None:
    """End the simulator workers of this process."""
    while _pools:
        _pools.popitem()[1].close()


atexit.register(close_pools)

# Workers of one rollout: several episodes in flight make the policy's batches worth their overhead.
ROLLOUT_WORKERS = 4


def make_actor(step: Step, store: Store) -> Any:
    """The actor that an ``episodes`` step rolls out."""
    from ..rollouts.run import CodedActor, DisturbedActor, ExpertActor, ExpertChunkedActor
    from ..tokenizers import load_tokenizer

    spec, kind = step.recipe.spec, step.recipe.spec["actor"]
    if kind == "expert":
        return ExpertActor()
    if kind == "expert-chunked":
        return ExpertChunkedActor(spec["horizon"])
    if kind == "expert-coded":
        return CodedActor(spec["horizon"], _round_trip(step, store))
    if kind == "expert-disturbed":
        return DisturbedActor(spec["horizon"], disturbance_of(step, store))
    if kind in ("policy", "snapped"):
        from ..policies import Policy, SnappedPolicy

        folder = store.open(step.inputs["policy"])
        policy = Policy.load(
            folder / "checkpoints" / str(spec["checkpoint"]) if "checkpoint" in spec else folder
        )
        if kind == "policy":
            return policy
        return SnappedPolicy(policy, load_tokenizer(store.open(step.inputs["tokenizer"])))
    raise UserError(f"unknown actor '{kind}' in the plan")


def _round_trip(step: Step, store: Store) -> Any:
    """Raw chunks through the step's code and back; ``prefix`` keeps the first tokens alone."""
    from ..policies import coded_round_trip
    from ..tokenizers import load_tokenizer

    tokenizer = load_tokenizer(store.open(step.inputs["tokenizer"]))
    normaliser = Normaliser.load(store.open(step.inputs["normaliser"]))
    return coded_round_trip(tokenizer, normaliser, step.recipe.spec.get("prefix"))


def _episodes(job: Job) -> dict[str, Any]:
    import pyarrow.parquet as parquet

    from ..rollouts.run import run_episodes

    protocol = EvaluationProtocol.model_validate(_tuples(job.spec["protocol"]))
    pool = pool_for(protocol.sim, ROLLOUT_WORKERS)
    actor = make_actor(job.step, job.store)
    table = run_episodes(actor, protocol, pool, actor_key=job.step.recipe.key, progress=job.progress)
    parquet.write_table(table, job.out / "episodes.parquet")
    return {"protocol": protocol.hash}


def _replay(job: Job) -> dict[str, Any]:
    """Open-loop replay of the held-out recordings, raw or through a code: a diagnostic of demonstrations."""
    import pyarrow.parquet as parquet

    from ..rollouts.run import ReplayActor, run_episodes

    protocol = EvaluationProtocol.model_validate(_tuples(job.spec["protocol"]))
    recorded = {
        (e.task, e.initial_state): np.asarray(d.actions[e.start : e.start + e.length])
        for d in job.demosets()
        for e in d.split("test")
    }
    code = _round_trip(job.step, job.store) if "tokenizer" in job.step.inputs else None
    table = run_episodes(
        ReplayActor(recorded, job.spec["horizon"], code),
        protocol,
        pool_for(protocol.sim, ROLLOUT_WORKERS),
        actor_key=job.step.recipe.key,
        episodes=[(task, state, 0) for task, state in recorded],
        progress=job.progress,
    )
    parquet.write_table(table, job.out / "episodes.parquet")
    return {"protocol": protocol.hash}


def _health(job: Job) -> dict[str, Any]:
    from ..information.health import code_health, throughput
    from ..information.prior import prior_bits
    from ..tokenizers import Tokens, load_tokenizer

    tokenizer = load_tokenizer(job.input("tokenizer"))
    folder = job.input("tokens")
    tokens = {
        split: Tokens(*(np.load(folder / f"{n}-{split}.npy", allow_pickle=False) for n in ("ids", "lengths")))
        for split in ("train", "validation", "test")
    }
    chunks, valid, episode = _chunks_by_episode(job, "test")
    health = code_health(tokenizer, tokens["train"], chunks, valid, episode, sigma=job.spec["sigma"])
    prior = prior_bits(
        tokenizer,
        tokens,
        steps=job.spec["prior_steps"],
        work=job.store.work(job.step.recipe),
        should_stop=job.should_stop,
        progress=job.progress,
    )
    np.save(job.out / "prior.npy", prior.per_chunk.numpy().astype(np.float64), allow_pickle=False)
    health |= {
        "used_bits": float(prior.per_chunk.mean()),
        "prior_converged": prior.converged,
        "fitting": tokenizer.report,
        **throughput(tokenizer, chunks[:256]),
    }
    return health


def _built_in(module: str, function: str) -> Callable[[Job], dict[str, Any]]:
    """A builder that is imported when its first step runs: the calibration and the bits need much."""

    def build_part(job: Job) -> dict[str, Any]:
        made: dict[str, Any] = getattr(import_module(module, __package__), function)(job)
        return made

    return build_part


def _tuples(value: Any) -> Any:
    """JSON lists back to the tuples that strict models ask for."""
    if isinstance(value, list | tuple):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return value


BUILDERS: dict[str, Callable[[Job], dict[str, Any]]] = {
    "demos": _demos,
    "normaliser": _normaliser,
    "tokenizer": _tokenizer,
    "tokens": _tokens,
    "frames": _built_in("..study.encoders", "build_frames"),
    "encoder": _built_in("..study.encoders", "build_encoder"),
    "features": _features,
    "text": _built_in("..study.encoders", "build_text"),
    "probe": _built_in("..study.encoders", "build_probe"),
    "policy": _policy,
    "error": _built_in(".chunk_error", "build_error"),
    "episodes": _episodes,
    "replay": _replay,
    "health": _health,
    "rates": _built_in(".measures", "build_rates"),
    "delivered": _built_in(".measures", "build_delivered"),
    "known": _built_in("..study.calibrate", "build_known"),
    "wide": _built_in("..study.calibrate", "build_wide"),
    "verdicts": _built_in("..study.calibrate", "build_verdicts"),
    "coverage": _built_in("..study.calibrate", "build_coverage"),
}
