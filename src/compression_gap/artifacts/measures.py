"""How the artefacts of the ledger are built: rates of all contexts, and what each policy delivers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..demos import DemoSet, Normaliser
from ..demos.demoset import SPLITS
from ..errors import UserError
from ..information.gaussian import Part
from ..information.immse import Denoising, conditional_rates
from ..information.points import Points, decision_points, feature_part, own_part
from ..information.width import hidden
from ..study.ledger import OWN

if TYPE_CHECKING:
    from .builders import Job


VALIDATED = 256  # chunks by which a policy's estimates are stacked


def build_rates(job: Job) -> dict[str, Any]:
    """``bits`` and ``linear`` [contexts, N, S] of the held-out chunks, ``by_seed`` [contexts, K, S], ``episode`` [N].

    After the contexts come those of the width control (``information/width.py``), one for each encoder that is wider than the
    ``known`` one: the oracle, or the narrowest.
    """
    spec, demosets = job.spec, job.demosets()
    points = {s: _points(job, demosets, s, spec["share"] if s == "train" else 1) for s in SPLITS}
    held = len(np.unique(points["test"].episode))
    if held < 2:
        raise UserError(
            f"bits need intervals over held-out episodes, and these demonstrations hold {held} (a tenth of each "
            "task's): record more, or leave the ledger out"
        )
    parts = {OWN: Part({s: own_part(p, demosets, spec["tasks"]) for s, p in points.items()})}
    for i, encoder in enumerate(spec["encoders"]):
        features = _features(job, f"features/{i}")
        parts[encoder] = Part({s: feature_part(p, features) for s, p in points.items()}, wide=True)
    for i, code in enumerate(spec["codes"]):
        folder = job.store.open(job.step.inputs[f"tokens/{i}"])
        coded = {s: np.load(folder / f"coded-{s}.npy", mmap_mode="r", allow_pickle=False) for s in SPLITS}
        parts[code] = Part({s: coded[s][p.rows].reshape(len(p.rows), -1) for s, p in points.items()})
    contexts = {name: tuple(of) for name, of in spec["contexts"]}
    known, controls = _add_controls(
        parts, contexts, spec["encoders"], {s: p.episode for s, p in points.items()}
    )
    how = Denoising(**spec["denoising"])
    rates, converged = conditional_rates(
        {s: p.chunks[:, : spec["executed"]].reshape(len(p.rows), -1) for s, p in points.items()},
        parts,
        contexts,
        points["train"].episode,
        spec["sigmas"],
        how if spec["share"] == 1 else how.shared(spec["share"]),
        work=job.store.work(job.step.recipe),
        should_stop=job.should_stop,
        progress=job.progress,
    )
    for name in ("bits", "linear", "by_seed"):
        np.save(
            job.out / f"{name}.npy", np.stack([getattr(r, name) for r in rates.values()]), allow_pickle=False
        )
    np.save(job.out / "episode.npy", points["test"].episode, allow_pickle=False)
    return {
        "network_converged": converged,
        "training_episodes": len(np.unique(points["train"].episode)),
        "known": known,
        "controls": controls,
    }


def _add_controls(
    parts: dict[str, Part],
    contexts: dict[str, tuple[str, ...]],
    encoders: Sequence[str],
    episode: Mapping[str, np.ndarray],
) -> tuple[str | None, list[str]]:
    """Add the width control of each encoder wider than the known one; returns that one, and those."""
    width = {e: parts[e].values["train"].shape[1] for e in encoders}
    known = "oracle" if "oracle" in width else min(width, key=lambda e: width[e], default=None)
    controls = [] if known is None else [e for e in encoders if width[e] > width[known]]
    for encoder in controls:
        assert known is not None
        name = f"{encoder}, control"
        parts[name] = Part(hidden(parts[known].values, parts[encoder].values, episode), wide=True)
        contexts[name] = (OWN, name)
    return known if controls else None, controls


def build_delivered(job: Job) -> dict[str, Any]:
    """``bits`` of the held-out whole chunks: R(A_σ|Z) [N, S] of a denoising policy, −log2 p(T|Z) [N] of tokens."""
    from ..information.delivered import conditional_rates as rates_of
    from ..information.delivered import kind_of, token_rates
    from ..policies import Policy
    from ..tokenizers import Tokens

    policy, demosets = Policy.load(job.input("policy")), job.demosets()
    kind = kind_of(policy)
    if kind is None:
        return {"kind": None}
    features = np.concatenate(_features(job, "features"))
    proprio = np.concatenate([d.proprio for d in demosets])

    def seen(points: Points) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = points.windows
        return features[at.frames], proprio[at.frames], at.task

    whole = _points(job, demosets, "test", 1)
    points = whole.some(job.spec["chunks"])
    if kind == "continuous":
        held = _points(job, demosets, "validation", 1).some(VALIDATED)
        bits = rates_of(
            policy,
            *seen(points),
            points.chunks,
            job.spec["sigmas"],
            validation=(*seen(held), held.chunks),
            progress=job.progress,
        )
    else:
        folder = job.input("tokens")
        ids, lengths = (
            np.load(folder / f"{n}-test.npy", allow_pickle=False)[points.rows] for n in ("ids", "lengths")
        )
        bits = token_rates(policy, *seen(points), Tokens(ids, lengths))
    np.save(job.out / "bits.npy", bits, allow_pickle=False)
    np.save(job.out / "rows.npy", points.rows, allow_pickle=False)  # among all windows, as a prior's
    among = np.searchsorted(whole.rows, points.rows)  # among whole chunks, as the rates'
    np.save(job.out / "among.npy", among, allow_pickle=False)
    return {"kind": kind}


def _points(job: Job, demosets: list[DemoSet], split: str, share: int) -> Points:
    spec = job.spec
    return decision_points(
        demosets,
        spec["tasks"],
        Normaliser.load(job.input("normaliser")),
        split,
        horizon=spec["horizon"],
        n_obs_steps=spec["n_obs_steps"],
        stride=spec["stride"],
        share=share,
    )


def _features(job: Job, role: str) -> list[np.ndarray]:
    return [
        np.load(job.store.open(r) / "features.npy", mmap_mode="r", allow_pickle=False)
        for r in job.recipes(role)
    ]
