"""The ledger: its steps in a plan, and what is read from them: demand, supply, kept, gap, delivered, in bits.

One set of rates (``bits/immse.py``) for all contexts of a set of demonstrations, at N / 4, N / 2 and N training
episodes; σ* from disturbed experts where there is a simulator; what each policy delivers from its own loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..artifacts import Recipe, Store
from ..bits.estimate import drawn_interval, estimate, resampled
from ..encoders.registry import check_encoder
from ..errors import UserError
from ..sims import EVALUATION_STATES, EvaluationProtocol, sim_info
from ..tokenizers.levels import Levels
from .plan import TRAINED_ENCODERS, Cell, Code, Graph, Step, add_features, add_tokenizer, check_code, codes_of
from .spec import Ledger, Tokenizer
from .tokenizer_table import simulator_of

OWN = "own"  # the part of every context that sees: proprioception and task
SHARES = (1, 2, 4)
SIGMAS = (0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)  # where rates are kept
DISTURBED = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)  # standard deviations of the disturbed experts
DISTURBANCES = ("white", "offset")
LEAD = 0.95  # share of resamples in which a stage must lead to bind


@dataclass
class LedgerSteps:
    """The artefacts that a ledger reads."""

    section: Ledger
    encoders: tuple[str, ...]
    codes: tuple[Code, ...]
    contexts: dict[str, tuple[str, ...]]
    protocol: EvaluationProtocol | None
    rates: dict[int, Recipe] = field(default_factory=dict)  # by share
    health: dict[Code, Recipe] = field(default_factory=dict)
    disturbed: dict[tuple[str, float], Recipe] = field(default_factory=dict)  # kind, σ
    undisturbed: Recipe | None = None
    delivered: list[tuple[Cell, Recipe]] = field(default_factory=list)

    @property
    def wanted(self) -> list[Recipe]:
        """All of them."""
        undisturbed = [] if self.undisturbed is None else [self.undisturbed]
        recipes = [*self.rates.values(), *self.health.values(), *self.disturbed.values(), *undisturbed]
        return recipes + [r for _, r in self.delivered]


def pair(encoder: str, code: Code) -> str:
    """The name of the context that holds both."""
    return f"{encoder} | {code.name}"


def code_part(code: Code) -> str:
    """The name of a code's decoded chunks among the parts of contexts. Module names may hold no dot."""
    return f"code {code.name} {code.seed}".replace(".", "_")


def add_ledger(
    graph: Graph,
    section: Ledger,
    base: Mapping[str, Recipe],
    tasks: Sequence[str],
    features: Mapping[str, list[Recipe]],
    codes: Mapping[Code, tuple[Recipe, Recipe]],
    *,
    horizon: int,
    n_obs_steps: int,
    stride: int,
    protocol: EvaluationProtocol | None,
    cells: Sequence[Cell] = (),
) -> LedgerSteps:
    """Add the steps. ``base``: demonstrations and normaliser; ``features``: a recipe a set, by encoder;
    ``codes``: tokenizer and target tokens; ``protocol``: where σ* is measured, unless the section gives σ."""
    encoders = tuple(e for e in features if e != "blind")
    contexts: dict[str, tuple[str, ...]] = {"": (), "blind": (OWN,), **{e: (OWN, e) for e in encoders}}
    for code in codes:
        contexts[code.name] = (code_part(code),)
        contexts |= {pair(e, code): (*contexts[e], code_part(code)) for e in ("blind", *encoders)}
    steps = LedgerSteps(section, encoders, tuple(codes), contexts, protocol)
    shape = {"horizon": horizon, "n_obs_steps": n_obs_steps, "stride": stride, "tasks": list(tasks)}
    inputs = dict(base)
    for i, encoder in enumerate(encoders):
        inputs |= {f"features/{i}/{j}": r for j, r in enumerate(features[encoder])}
    inputs |= {f"tokens/{i}": tokens for i, (_, tokens) in enumerate(codes.values())}
    for share in SHARES:
        how = {
            "steps": max(1, section.steps // share),
            "batch_size": section.batch_size,
            "seed": section.seed,
        }
        spec = {
            **shape,
            "encoders": list(encoders),
            "codes": [code_part(c) for c in codes],
            "contexts": [[name, list(of)] for name, of in contexts.items()],
            "sigmas": list(SIGMAS),
            "share": share,
            "denoising": how,
        }
        label = f"rates of {len(contexts)} contexts" + (f", 1/{share} of the episodes" if share > 1 else "")
        steps.rates[share] = graph.add("rates", spec, inputs, label, 30 + 0.09 * how["steps"])
    for code, (tokenizer, tokens) in codes.items():
        steps.health[code] = graph.add(
            "health",
            {
                "horizon": horizon,
                "stride": stride,
                "sigma": section.sigma or 0.1,
                "prior_steps": section.prior_steps,
            },
            {**base, "tokenizer": tokenizer, "tokens": tokens},
            f"health of {code.name}",
            20 + 0.15 * section.prior_steps,
        )
    if protocol is not None and section.sigma is None:
        _add_disturbed(graph, steps, base["normaliser"], protocol, horizon)
    done = set()
    for cell in cells:
        if cell.policy.key in done or cell.trained_on != "chunk":
            continue
        done.add(cell.policy.key)
        given = {**base, "policy": cell.policy}
        given |= {f"features/{j}": r for j, r in enumerate(features[cell.encoder])}
        if cell.code is not None and not cell.swapped:
            given["tokens"] = codes[cell.code][1]
        recipe = graph.add(
            "delivered",
            {**shape, "sigmas": list(SIGMAS)},
            given,
            f"bits delivered by {cell.representation} · {cell.encoder} · {cell.size} · seed {cell.seed}",
            40,
        )
        steps.delivered.append((cell, recipe))
    return steps


@dataclass
class LedgerPlan(Graph):
    """The graph of a ledger of demonstrations alone: no policies."""

    ledger: LedgerSteps | None = None

    @property
    def wanted(self) -> list[Recipe]:
        """What the ledger reads."""
        return [] if self.ledger is None else self.ledger.wanted


def plan_ledger(
    section: Ledger,
    recipes: Sequence[Recipe],
    making: Sequence[Step],
    encoders: Sequence[str],
    tokenizers: Sequence[str],
    codebooks: Sequence[Levels],
    fitting: Tokenizer,
    *,
    horizon: int,
    n_obs_steps: int,
    execute: int,
) -> LedgerPlan:
    """The graph for these demonstrations. ``making``: steps that collect them, where they are not there.

    σ* is measured if they come from one simulator and the section gives no σ; else 0.1 is assumed.
    """
    sim, tasks = simulator_of(recipes)
    graph = LedgerPlan(steps={s.recipe.key: s for s in making})
    for encoder in encoders:
        if encoder in TRAINED_ENCODERS:
            raise UserError(
                f"{encoder} is trained with its policy and has no features of its own: "
                "its bits stand in the ledger of a study"
            )
        if sim is not None:
            check_encoder(encoder, image_size=sim.image_size)
    sets = {f"demos/{i}": recipe for i, recipe in enumerate(recipes)}
    base = {**sets, "normaliser": graph.add("normaliser", {}, sets, "normaliser", 1)}
    codes = {}
    for code in (c for name in dict.fromkeys(tokenizers) for c in codes_of(name, codebooks, (0,))):
        check_code(code, fitting, horizon)
        codes[code] = add_tokenizer(graph, base, code, fitting, horizon)
    protocol = None
    if sim is not None and section.sigma is None:
        info = sim_info(sim)
        protocol = EvaluationProtocol(
            sim=sim,
            episodes_per_task=1,
            first_initial_state=EVALUATION_STATES,
            execute=execute,
            n_obs_steps=1,
            step_limit=info.step_limit,
            versions=info.versions,
        )
    graph.ledger = add_ledger(
        graph,
        section,
        base,
        tasks,
        {e: add_features(graph, e, recipes) for e in dict.fromkeys(("blind", *encoders))},
        codes,
        horizon=horizon,
        n_obs_steps=n_obs_steps,
        stride=1,
        protocol=protocol,
    )
    return graph


def _add_disturbed(
    graph: Graph, steps: LedgerSteps, normaliser: Recipe, protocol: EvaluationProtocol, horizon: int
) -> None:
    episodes = steps.section.episodes_per_sigma
    protocol = protocol.model_copy(
        update={"episodes_per_task": -(-episodes // len(protocol.sim.tasks)), "repeats": 1}
    )
    steps.protocol = protocol
    spec = {"protocol": protocol.model_dump(mode="json"), "horizon": horizon}
    cost = 5 + 0.6 * len(protocol.episodes())
    steps.undisturbed = graph.add(
        "episodes", {**spec, "actor": "expert-chunked"}, {}, "episodes of expert-chunked", cost
    )
    for kind in DISTURBANCES:
        for sigma in DISTURBED:
            steps.disturbed[kind, sigma] = graph.add(
                "episodes",
                {**spec, "actor": "expert-disturbed", "disturbance": kind, "sigma": sigma},
                {"normaliser": normaliser},
                f"episodes of the expert disturbed by {kind} noise of {sigma:g}",
                cost,
            )


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
    import pyarrow.parquet as parquet

    rows = parquet.read_table(store.open(recipe) / "episodes.parquet").to_pylist()
    return np.array([float(r["success"]) for r in rows]), np.array([r["task"] for r in rows])


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
        "delivered": _delivered(steps, store, rates, sigma),
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
    keep = np.append(True, np.diff(used) > 1e-9)
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
    groups: dict[tuple[Any, ...], list[tuple[Cell, Recipe]]] = {}
    for cell, recipe in steps.delivered:
        groups.setdefault(cell.levels, []).append((cell, recipe))
    out = []
    for group in groups.values():
        cell, values = group[0][0], []
        kind = store.manifest(group[0][1])["meta"]["kind"]
        row = {"action": cell.representation, "encoder": cell.encoder, "size": cell.size, "kind": kind}
        row |= {"code": cell.code and cell.code.name, "seeds": len(group)}
        if kind is None:
            out.append({**row, "bits": None})
            continue
        episode = rates.episode
        for _, recipe in group:
            folder = store.open(recipe)
            bits = np.load(folder / "bits.npy", allow_pickle=False)
            if kind == "continuous":
                values.append(rates.bits[1][""] - _at(bits, sigma))
            else:
                assert cell.code is not None
                prior = np.load(store.open(steps.health[cell.code]) / "prior.npy", allow_pickle=False)
                values.append(prior[np.load(folder / "rows.npy", allow_pickle=False)] - bits)
        out.append({**row, "bits": asdict(estimate({1: np.mean(values, 0)}, episode))})
    return out


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
    return {**found, "correlation": r, "low": float(np.tanh(z - half)), "high": float(np.tanh(z + half))}
