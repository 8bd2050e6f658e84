"""Kinds "rates" and "delivered": bits of chunks given contexts, and what a policy delivers of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..demos import SPLITS, ChunkSet, DemoSet, decision_rows, make_chunks
from ..errors import UserError
from ..records import read_array
from ..store.artifact import Artifact, Job
from ..store.store import Store
from .demonstrations import Demonstrations, load_all
from .features import Features, load_features
from .normaliser import FittedNormaliser
from .policy import TrainedPolicy
from .tokens import TargetTokens

if TYPE_CHECKING:
    from ..information.gaussian import Part

OWN = "own"  # the part of every context that sees: proprioception and task
VALIDATED = 256  # chunks by which a policy's estimates are stacked


class _Shaped(Protocol):
    """What decision points are read with."""

    @property
    def horizon(self) -> int: ...

    @property
    def n_obs_steps(self) -> int: ...

    @property
    def stride(self) -> int: ...

    @property
    def tasks(self) -> tuple[str, ...]: ...

    @property
    def normaliser(self) -> FittedNormaliser: ...


def _points(of: _Shaped, store: Store, sets: Sequence[DemoSet], split: str, share: int = 1) -> ChunkSet:
    """The whole chunks of one split."""
    from ..information.points import whole_chunks

    return whole_chunks(
        make_chunks(
            sets,
            of.normaliser.load(store),
            split,
            horizon=of.horizon,
            n_obs_steps=of.n_obs_steps,
            stride=of.stride,
            tasks=of.tasks,
        ),
        share,
    )


@dataclass(frozen=True)
class RateTable:
    """Rates of N held-out chunks at S resolutions, given C contexts and then the controls."""

    bits: np.ndarray  # float64 [C, N, S]
    linear: np.ndarray  # float64 [C, N, S]: of the Gaussian probe
    by_seed: np.ndarray  # float64 [C, K, S]: means, by seed of the estimator
    episode: np.ndarray  # int64 [N]
    known: str | None  # the encoder that the width controls are made of
    controls: tuple[str, ...]  # the encoders that have one
    network_converged: bool
    training_episodes: int
    build_seconds: float


class Rates(Artifact, kind="rates", version=3, gpus=0.25):
    """R(A_σ | context) of the ``executed`` first actions of held-out chunks, by I-MMSE (``information/immse.py``).

    ``contexts``: each one's name and the parts that it holds: ``OWN``, encoders, codes. ``share``: one of so many
    training episodes is used. ``sigmas``: the resolutions that are kept, in standard deviations. ``denoising``: the
    fields of ``immse.Denoising``.
    """

    horizon: int
    n_obs_steps: int
    stride: int
    tasks: tuple[str, ...]
    executed: int
    encoders: tuple[str, ...]
    codes: tuple[str, ...]
    contexts: tuple[tuple[str, tuple[str, ...]], ...]
    sigmas: tuple[float, ...]
    share: int
    denoising: Mapping[str, int]
    demos: tuple[Demonstrations, ...]
    normaliser: FittedNormaliser
    features: tuple[tuple[Features, ...], ...]  # by encoder
    tokens: tuple[TargetTokens, ...]  # by code

    @property
    def label(self) -> str:
        """Of how many contexts."""
        part = "" if self.executed == self.horizon else f", {self.executed} steps of a chunk"
        return f"rates of {len(self.contexts)} contexts{part}" + (
            f", 1/{self.share} of the episodes" if self.share > 1 else ""
        )

    @property
    def cost(self) -> float:
        """Core-seconds."""
        runs = self.denoising["seeds"] if self.share == 1 else 1
        own = 0.05 * self.denoising["steps"] * runs + 2 * len(self.contexts) * (1 + runs)
        return 20 + (own + 60 * len(self.encoders)) / self.share

    def build(self, job: Job) -> Mapping[str, Any]:
        """``bits``, ``linear``, ``by_seed`` and ``episode`` of ``RateTable``.

        After the contexts come those of the width control (``information/width.py``), one for each encoder that is
        wider than the ``known`` one: the oracle, or the narrowest.
        """
        from ..information.denoising import Denoising
        from ..information.gaussian import Part
        from ..information.immse import conditional_rates
        from ..information.points import feature_part, own_part

        sets = load_all(self.demos, job.store)
        points = {s: _points(self, job.store, sets, s, self.share if s == "train" else 1) for s in SPLITS}
        held = len(np.unique(points["test"].episode))
        if held < 2:
            raise UserError(
                f"bits need intervals over held-out episodes, and these demonstrations hold {held} (a tenth of each "
                "task's): record more, or leave the ledger out"
            )
        parts = {OWN: Part({s: own_part(p, sets, self.tasks) for s, p in points.items()})}
        for encoder, of in zip(self.encoders, self.features, strict=True):
            features = load_features(of, self.demos, sets, job.store)
            parts[encoder] = Part({s: feature_part(p, features) for s, p in points.items()}, wide=True)
        for code, tokens in zip(self.codes, self.tokens, strict=True):
            coded = {s: tokens.load(job.store, s).of(p).coded for s, p in points.items()}
            parts[code] = Part({s: c.reshape(len(c), -1) for s, c in coded.items()})
        contexts = dict(self.contexts)
        known, controls = _add_controls(
            parts, contexts, self.encoders, {s: p.episode for s, p in points.items()}
        )
        how = Denoising(**self.denoising)
        rates, converged = conditional_rates(
            {s: p.chunks[:, : self.executed].reshape(len(p), -1) for s, p in points.items()},
            parts,
            contexts,
            points["train"].episode,
            list(self.sigmas),
            how if self.share == 1 else how.shared(self.share),
            work=job.work,
            should_stop=job.should_stop,
            progress=job.progress,
        )
        for name in ("bits", "linear", "by_seed"):
            values = np.stack([getattr(r, name) for r in rates.values()])
            np.save(job.out / f"{name}.npy", values, allow_pickle=False)
        np.save(job.out / "episode.npy", points["test"].episode, allow_pickle=False)
        return {
            "network_converged": converged,
            "training_episodes": len(np.unique(points["train"].episode)),
            "known": known,
            "controls": controls,
        }

    def load(self, store: Store) -> RateTable:
        """The rates."""
        folder, meta = store.open(self), store.meta(self)
        bits, linear, by_seed, episode = (
            read_array(folder / f"{n}.npy") for n in ("bits", "linear", "by_seed", "episode")
        )
        return RateTable(
            bits,
            linear,
            by_seed,
            episode,
            known=meta["known"],
            controls=tuple(meta["controls"]),
            network_converged=meta["network_converged"],
            training_episodes=meta["training_episodes"],
            build_seconds=meta["build_seconds"],
        )


def _add_controls(
    parts: dict[str, Part],
    contexts: dict[str, tuple[str, ...]],
    encoders: Sequence[str],
    episode: Mapping[str, np.ndarray],
) -> tuple[str | None, list[str]]:
    """Add the width control of each encoder wider than the known one; returns that one, and those."""
    from ..information.gaussian import Part
    from ..information.width import hidden

    width = {e: parts[e].values["train"].shape[1] for e in encoders}
    known = "oracle" if "oracle" in width else min(width, key=lambda e: width[e], default=None)
    controls = [] if known is None else [e for e in encoders if width[e] > width[known]]
    for encoder in controls:
        assert known is not None
        name = f"{encoder}, control"
        parts[name] = Part(hidden(parts[known].values, parts[encoder].values, episode), wide=True)
        contexts[name] = (OWN, name)
    return known if controls else None, controls


@dataclass(frozen=True)
class DeliveredBits:
    """What one policy needs for M held-out whole chunks: of ``kind`` "continuous" or "tokens"."""

    kind: str
    bits: np.ndarray  # float64 [M, S] of a denoising policy's R(A_σ | Z), [M] of −log2 p(T | Z)
    rows: np.ndarray  # int64 [M]: their places among all held-out decision points, as a prior's
    among: np.ndarray  # int64 [M]: their places among the whole chunks, as the rates'


class Delivered(Artifact, kind="delivered", version=2, gpus=0.25):
    """What a policy delivers, from its own loss. ``chunks``: at most so many held-out ones are measured."""

    horizon: int
    n_obs_steps: int
    stride: int
    tasks: tuple[str, ...]
    sigmas: tuple[float, ...]
    chunks: int
    demos: tuple[Demonstrations, ...]
    normaliser: FittedNormaliser
    policy: TrainedPolicy
    features: tuple[Features, ...]
    tokens: TargetTokens | None = None

    @property
    def label(self) -> str:
        """By which policy."""
        return f"bits delivered by {self.policy.words(None)}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        return 40.0

    def build(self, job: Job) -> Mapping[str, Any]:
        """The arrays of ``DeliveredBits``; of a policy whose loss is no bound, ``kind`` None and nothing else."""
        from ..information.delivered import conditional_rates, kind_of, token_rates

        policy, sets = self.policy.load(job.store), load_all(self.demos, job.store)
        kind = kind_of(policy)
        if kind is None:
            return {"kind": None}
        features = np.concatenate(load_features(self.features, self.demos, sets, job.store))
        proprio = np.concatenate([d.proprio for d in sets])

        def seen(points: ChunkSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            at = points.windows
            return features[at.frames], proprio[at.frames], at.task

        whole = _points(self, job.store, sets, "test")
        points = whole.some(self.chunks)
        if kind == "continuous":
            held = _points(self, job.store, sets, "validation").some(VALIDATED)
            bits = conditional_rates(
                policy,
                *seen(points),
                points.chunks,
                np.array(self.sigmas),
                validation=(*seen(held), held.chunks),
                progress=job.progress,
            )
        else:
            assert self.tokens is not None
            bits = token_rates(policy, *seen(points), self.tokens.load(job.store, "test").of(points).tokens)
        rows = decision_rows(sets, "test", self.stride).find(points.rows, "the held-out decision points")
        among = whole.rows.find(points.rows, "the whole chunks")
        for name, array in {"bits": bits, "rows": rows, "among": among}.items():
            np.save(job.out / f"{name}.npy", array, allow_pickle=False)
        return {"kind": kind}

    def load(self, store: Store) -> DeliveredBits | None:
        """The bits; None of a policy whose loss is no bound."""
        kind, folder = store.meta(self)["kind"], store.open(self)
        if kind is None:
            return None
        return DeliveredBits(kind, *(read_array(folder / f"{n}.npy") for n in ("bits", "rows", "among")))
