"""What is read from a ledger's artefacts: demand, supply, kept, gap, delivered; what holds the bits back; the law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..artifacts import Recipe, Store
from ..bits.estimate import drawn_interval, estimate, resampled
from ..errors import UserError
from .cells import Code, Trained
from .evidence import episode_columns
from .ledger import DISTURBANCES, DISTURBED, SIGMAS, LedgerSteps, pair
from .verdict import LEAD


@dataclass(frozen=True)
class _Rates:
    """Rates at one resolution: by share and context, per held-out chunk."""

    bits: dict[int, dict[str, np.ndarray]]
    linear: dict[str, np.ndarray]
    episode: np.ndarray

    def difference(self, of: str, given: str) -> dict[str, Any]:
        """R(of) − R(given) as an ``Estimate``: what ``given`` tells beyond ``of``; its ceiling is R(of)."""
        parts = {k: b[of] - b[given] for k, b in self.bits.items()}
        probe = self.linear[of] - self.linear[given]
        return asdict(estimate(parts, self.episode, ceiling=float(self.bits[1][of].mean()), probe=probe))


def _at(values: np.ndarray, sigma: float) -> np.ndarray:
    """Rates [..., S] at σ, linear in ln σ between the resolutions that are kept."""
    at = np.interp(np.log(sigma), np.log(SIGMAS), np.arange(len(SIGMAS)))
    i = min(int(at), len(SIGMAS) - 2)
    return np.asarray(values[..., i] + (at - i) * (values[..., i + 1] - values[..., i]))


def _rates(steps: LedgerSteps, store: Store, sigma: float) -> _Rates:
    names = list(steps.contexts)
    bits, linear, episode = {}, {}, np.zeros(0)
    for share, recipe in steps.rates.items():
        folder = store.open(recipe)
        found = _at(np.load(folder / "bits.npy", allow_pickle=False), sigma)
        bits[share] = dict(zip(names, found, strict=True))
        if share == 1:
            linear = dict(
                zip(names, _at(np.load(folder / "linear.npy", allow_pickle=False), sigma), strict=True)
            )
            episode = np.load(folder / "episode.npy", allow_pickle=False)
    return _Rates(bits, linear, episode)


def resolution(steps: LedgerSteps, store: Store) -> dict[str, Any]:
    """σ* with its interval, pooled and per task, for each disturbance; or the σ that was given."""
    from ..bits.resolution import task_resolution

    if steps.undisturbed is None or steps.protocol is None:
        sigma = steps.section.sigma or 0.1
        return {"sigma": sigma, "measured": False, "assumed": steps.section.sigma is None}
    plain, tasks = _success(store, steps.undisturbed)
    out: dict[str, Any] = {
        "measured": True,
        "assumed": False,
        "episodes": len(plain),
        "grid": list(DISTURBED),
    }
    names = list(dict.fromkeys(tasks))
    for kind in DISTURBANCES:
        success = np.stack([_success(store, steps.disturbed[kind, s])[0] for s in DISTURBED])
        pooled = task_resolution(DISTURBED, success, plain, tasks)
        per_task = {}
        for name in names:
            own = tasks == name
            if plain[own].any():
                per_task[name] = _plain(task_resolution(DISTURBED, success[:, own], plain[own], tasks[own]))
        out[kind] = {**_plain(pooled), "per_task": per_task}
    sigma = float(out["white"]["value"])
    out["sigma"] = float(np.clip(sigma, SIGMAS[0], SIGMAS[-1]))
    return out


def _plain(value: Any) -> dict[str, Any]:
    """A dataclass as JSON values."""
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(value).items()}


def _success(store: Store, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    rows = episode_columns(store, recipe)
    return rows["success"].astype(float), rows["task"]


def read_ledger(steps: LedgerSteps, store: Store, sigma: float | None = None) -> dict[str, Any]:
    """Everything that is shown, as JSON values. ``sigma``: another resolution than the ledger's own."""
    found = resolution(steps, store)
    if sigma is not None:
        if not SIGMAS[0] <= sigma <= SIGMAS[-1]:
            raise UserError(
                f"sigma {sigma:g} is out of range; rates are kept for {SIGMAS[0]:g} to {SIGMAS[-1]:g}"
            )
        found = {**found, "sigma": sigma}
    sigma = float(found["sigma"])
    rates = _rates(steps, store, sigma)
    marginal = {k: b[""] for k, b in rates.bits.items()}
    health = {c: store.manifest(r)["meta"] for c, r in steps.health.items()}
    codes = [
        {
            "code": c.name,
            "tokenizer_seed": c.seed,
            "capacity_bits": health[c]["capacity_bits"],
            "used_bits": health[c]["used_bits"],
            "prior_converged": health[c]["prior_converged"],
            "distortion": health[c]["distortion"],
            "kept": rates.difference("", c.name),
        }
        for c in steps.codes
    ]
    encoders = [
        {"encoder": e, "supply": rates.difference("", e), "visual_supply": rates.difference("blind", e)}
        for e in ("blind", *steps.encoders)
    ]
    pairs = [
        {
            "encoder": e,
            "code": c.name,
            "used_bits": health[c]["used_bits"],
            "gap": rates.difference(c.name, pair(e, c)),
            "passes": _passes(rates, e, c),
        }
        for c in steps.codes
        for e in ("blind", *steps.encoders)
    ]
    delivered = _delivered(steps, store, rates, sigma)
    meta = store.manifest(steps.rates[1])["meta"]
    return {
        "resolution": found,
        "demand": asdict(estimate(marginal, rates.episode, probe=rates.linear[""])),
        "encoders": encoders,
        "codes": codes,
        "pairs": pairs,
        "binding": [
            _binding(rates, steps, e, c) for c in steps.codes for e in steps.encoders if e != "oracle"
        ],
        "law": [_law(rates, steps, health, e) for e in steps.encoders],
        "delivered": delivered,
        "beyond_supply": _beyond_supply(encoders, delivered),
        "network_converged": meta["network_converged"],
        "training_episodes": {
            k: store.manifest(r)["meta"]["training_episodes"] for k, r in steps.rates.items()
        },
        "chunks": len(rates.episode),
        "episodes": len(np.unique(rates.episode)),
        "minutes": sum(store.manifest(r)["meta"]["build_seconds"] for r in steps.rates.values()) / 60,
    }


def _passes(rates: _Rates, encoder: str, code: Code) -> dict[str, Any]:
    """What of the supply passes the code: I(Z; A_σ) − gap = I(Z; T) − I(Z; T|A_σ)."""
    parts = {k: _passing(b, encoder, code) for k, b in rates.bits.items()}
    return asdict(estimate(parts, rates.episode, probe=_passing(rates.linear, encoder, code)))


def _passing(bits: Mapping[str, np.ndarray], encoder: str, code: Code) -> np.ndarray:
    return np.asarray(bits[""] - bits[encoder] - bits[code.name] + bits[pair(encoder, code)])


def _binding(rates: _Rates, steps: LedgerSteps, encoder: str, code: Code) -> dict[str, Any]:
    """Which stage holds the bits back: what passes more when the encoder, or the code, is relaxed alone.

    The encoder is relaxed to the oracle (or, without a true state, to the best encoder listed), the code to
    continuous actions, whose gain is the gap. A stage binds when it leads in 95 % of resampled episodes.
    """
    bits = rates.bits[1]
    others = [e for e in steps.encoders if e != encoder]
    best = "oracle" if "oracle" in others else min(others, key=lambda e: float(bits[e].mean()), default=None)
    own = _passing(bits, encoder, code)
    gains = {"code": bits[code.name] - bits[pair(encoder, code)]}
    joint = None
    if best is not None:
        gains["encoder"] = _passing(bits, best, code) - own
        joint = bits[""] - bits[best] - own
    drawn = {stage: resampled(g, rates.episode) for stage, g in gains.items()}
    leader = max(gains, key=lambda s: float(gains[s].mean()))
    rival = np.max([np.zeros(len(drawn[leader])), *(d for s, d in drawn.items() if s != leader)], axis=0)
    share = float((drawn[leader] > rival).mean())

    def span(values: np.ndarray) -> dict[str, float]:
        low, high = drawn_interval(values, rates.episode)
        return {"value": float(values.mean()), "low": low, "high": high}

    found = {s: span(g) for s, g in gains.items()}
    whole = None if joint is None else span(joint)
    stage = leader if share >= LEAD and found[leader]["low"] > 0 else None
    both = (
        whole is not None
        and stage is None
        and all(g["low"] <= 0 for g in found.values())
        and whole["low"] > 0
    )
    return {
        "encoder": encoder,
        "code": code.name,
        "relaxed_to": best,
        "stage": stage,
        "jointly": both,
        "share": share,
        "gains": found,
        "joint": whole,
    }


def _law(
    rates: _Rates, steps: LedgerSteps, health: Mapping[Code, Mapping[str, Any]], encoder: str
) -> dict[str, Any]:
    """The codebook law: how many bits a code must use before this encoder's supply comes through.

    gap_bits against used_bits, made to fall (isotonic regression); the answer is where it crosses a tenth of the
    encoder's supply. With the crossing before the smallest or beyond the largest code it is a bound.
    """
    from ..bits.resolution import crossing

    codes = sorted(steps.codes, key=lambda c: float(health[c]["used_bits"]))
    used = np.array([float(health[c]["used_bits"]) for c in codes])
    keep = np.append(True, np.diff(used) > 1e-9) & (used > 0)  # a collapsed code says nothing
    codes, used = [c for c, k in zip(codes, keep, strict=True) if k], used[keep]
    if len(codes) < 2:
        return {"encoder": encoder, "bits": None, "bound": "too few codes", "low": None, "high": None}
    bits = rates.bits[1]
    gaps = np.stack([bits[c.name] - bits[pair(encoder, c)] for c in codes], 1)
    columns = np.concatenate([gaps, (bits[""] - bits[encoder])[:, None]], 1)

    def answer(means: np.ndarray) -> Any:
        return crossing(used, means[:-1], 0.1 * means[-1])

    found = answer(columns.mean(0))
    drawn = [answer(m).value for m in resampled(columns, rates.episode, 400)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "encoder": encoder,
        "used_bits": used.tolist(),
        "gap": gaps.mean(0).tolist(),
        "bits": found.value,
        "bound": found.bound,
        "low": float(low),
        "high": float(high),
    }


def _delivered(steps: LedgerSteps, store: Store, rates: _Rates, sigma: float) -> list[dict[str, Any]]:
    """What each policy delivers of the chunk, from its own loss against the ledger's marginals."""
    groups: dict[tuple[Any, ...], list[tuple[Trained, Recipe]]] = {}
    for cell, recipe in steps.delivered:
        groups.setdefault(cell.levels, []).append((cell, recipe))
    out = []
    for group in groups.values():
        cell, values = group[0][0], []
        kind = store.manifest(group[0][1])["meta"]["kind"]
        row = {"action": cell.representation, "encoder": cell.encoder, "size": cell.size, "kind": kind}
        row |= {"code": cell.code and cell.code.name, "seeds": len(group)}
        row["policy"] = f"{_head(cell)} · {cell.encoder}"
        if kind is None:
            out.append({**row, "bits": None})
            continue
        for _, recipe in group:
            folder = store.open(recipe)
            bits = np.load(folder / "bits.npy", allow_pickle=False)
            among = np.load(folder / "among.npy", allow_pickle=False)
            episode = rates.episode[among]
            if kind == "continuous":
                values.append(rates.bits[1][""][among] - _at(bits, sigma))
            else:
                assert cell.code is not None
                prior = np.load(store.open(steps.health[cell.code]) / "prior.npy", allow_pickle=False)
                values.append(prior[np.load(folder / "rows.npy", allow_pickle=False)] - bits)
        out.append({**row, "bits": asdict(estimate({1: np.mean(values, 0)}, episode))})
    return out


def _head(cell: Trained) -> str:
    """A policy's action representation, with its code's name."""
    if cell.code is None:
        return cell.representation
    same = cell.representation == cell.code.tokenizer
    return cell.code.name if same else f"{cell.representation} ({cell.code.name})"


def _beyond_supply(
    encoders: Sequence[Mapping[str, Any]], delivered: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Continuous policies that deliver more than the ledger found their encoder to supply, which cannot be.

    Their network denoises better than the ledger's, whose rates given that context (upper bounds) are then too high.
    Token policies deliver bits of their tokens, at the code's own resolution, and are not compared.
    """
    supply = {e["encoder"]: e["supply"] for e in encoders}
    return [
        {
            "policy": d["policy"],
            "encoder": d["encoder"],
            "delivered": d["bits"],
            "supply": supply[d["encoder"]],
        }
        for d in delivered
        if d["kind"] == "continuous" and d["bits"]["low"] > supply[d["encoder"]]["high"]
    ]


UPGRADES = 5  # fewer say nothing of a correlation


def hypothesis(ledger: Mapping[str, Any], contrasts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paper's hypothesis as a prediction that can fail (THEORY.md, section 4).

    An encoder upgrade should change success with what it adds to I(Z; A_σ*) under a continuous policy, and with what
    it adds to what passes the code under a token policy. All upgrades between neighbours of the study's ladders; the
    correlation's interval is Fisher's. Declined below five upgrades.
    """
    supply = {e["encoder"]: e["supply"]["value"] for e in ledger["encoders"]}
    passes = {(p["encoder"], p["code"]): p["passes"]["value"] for p in ledger["pairs"]}
    order = list(supply)
    points = []
    for c in contrasts:
        if c["kind"] != "delta_enc" or not set(c["encoders"]) <= set(order):
            continue
        low, high = c["encoders"]
        if order.index(high) - order.index(low) != 1:
            continue
        code = c["code"]
        predicted = supply[high] - supply[low] if code is None else passes[high, code] - passes[low, code]
        observed = {k: c[k] for k in ("value", "low", "high")}
        points.append({"label": c["label"], "action": c["action"], "bits": predicted, "observed": observed})
    found: dict[str, Any] = {"upgrades": points, "correlation": None, "low": None, "high": None}
    x, y = np.array([p["bits"] for p in points]), np.array([p["observed"]["value"] for p in points])
    if len(points) < UPGRADES or np.ptp(x) == 0 or np.ptp(y) == 0:
        return found
    r = float(np.corrcoef(x, y)[0, 1])
    z, half = np.arctanh(np.clip(r, -0.9999, 0.9999)), 1.96 / np.sqrt(len(points) - 3)
    return {
        **found,
        "correlation": r,
        "low": min(r, float(np.tanh(z - half))),
        "high": max(r, float(np.tanh(z + half))),
    }
