"""What is read from a ledger's artefacts: demand, supply, kept, gap, delivered; what holds the bits back; the law."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..artifacts.rates import Delivered, Rates
from ..encoders.ladder import is_pose
from ..encoders.registry import is_limit
from ..information.estimate import Estimate, estimate, resampled
from ..statistics.bottleneck import LEAD
from ..store.store import Store
from ..study.cells import Cell
from ..study.ledger import SIGMAS, LedgerSteps, check_range, pair
from ..tokenizers.code import Code
from .records.bits import (
    BeyondSupply,
    Binding,
    CodeBits,
    CodebookLaw,
    EncoderBits,
    Ledger,
    PairBits,
    PolicyBits,
    PrefixBits,
    WidthControl,
)
from .resolution import measured, resolution

SMALL = 0.5  # bits: two stages are the bottleneck together where replacing either alone gains less


@dataclass(frozen=True)
class _Quantity:
    """A difference of rates, or of such: what it is of the rates by context, of whatever shape these have.

    ``low``, ``high``: encoders whose width may make it come out too low, or too high. A rate given wide features comes
    out too high (``information/width.py``).
    """

    of: Callable[[Mapping[str, np.ndarray]], np.ndarray]
    low: frozenset[str] = frozenset()
    high: frozenset[str] = frozenset()

    def __sub__(self, other: _Quantity) -> _Quantity:
        return _Quantity(lambda b: self.of(b) - other.of(b), self.low | other.high, self.high | other.low)


@dataclass(frozen=True)
class _Rates:
    """Rates at one resolution: by share and context, per held-out chunk.

    ``by_seed``, ``by_sigma``: their means over chunks by the estimator's seed [K], and at each draw of σ* [B].
    ``lost``: bits that the width control of an encoder lost.
    """

    bits: dict[int, dict[str, np.ndarray]]
    linear: dict[str, np.ndarray]
    by_seed: dict[str, np.ndarray]
    by_sigma: dict[str, np.ndarray] | None
    lost: dict[str, float]
    episode: np.ndarray
    contexts: Mapping[str, tuple[str, ...]]

    def rate(self, context: str) -> _Quantity:
        """R(A_σ|context)."""
        wide = frozenset(self.lost) & set(self.contexts[context])
        return _Quantity(lambda bits: bits[context], high=wide)

    def gap(self, encoder: str, code: str) -> _Quantity:
        """I(Z; A_σ|T)."""
        return self.rate(code) - self.rate(pair(encoder, code))

    def supply(self, encoder: str) -> _Quantity:
        """I(Z; A_σ)."""
        return self.rate("") - self.rate(encoder)

    def passes(self, encoder: str, code: str) -> _Quantity:
        """What of the supply passes the code: I(Z; A_σ) − gap = I(Z; T) − I(Z; T|A_σ)."""
        return self.supply(encoder) - self.gap(encoder, code)

    def difference(self, of: str, given: str) -> Estimate:
        """R(of) − R(given): what ``given`` tells beyond ``of``; its ceiling is R(of)."""
        return self.estimated(self.rate(of) - self.rate(given), ceiling=float(self.bits[1][of].mean()))

    def estimated(self, quantity: _Quantity, ceiling: float | None = None) -> Estimate:
        """The quantity over all shares."""
        low, high = (
            sum(max(0.0, sign * self.lost[e]) for sign, of in ((1, one), (-1, other)) for e in of)
            for one, other in ((quantity.low, quantity.high), (quantity.high, quantity.low))
        )
        return estimate(
            {k: quantity.of(b) for k, b in self.bits.items()},
            self.episode,
            by_seed=quantity.of(self.by_seed),
            by_sigma=None if self.by_sigma is None else quantity.of(self.by_sigma),
            missing=(low, high),
            ceiling=ceiling,
            probe=quantity.of(self.linear),
        )


def _at(values: np.ndarray, sigma: float | np.ndarray) -> np.ndarray:
    """Rates [..., S] at σ, linear in ln σ between the resolutions that are kept."""
    from ..information.resolution import at_resolution

    return at_resolution(values, SIGMAS, sigma)


def _rates(
    found: Mapping[int, Rates],
    contexts: Mapping[str, tuple[str, ...]],
    store: Store,
    sigma: float,
    drawn: np.ndarray | None = None,
) -> _Rates:
    """The rates of ``found``, by share. ``drawn``: draws of σ*, where it was measured."""
    tables = {share: of.load(store) for share, of in found.items()}
    # the controls' rates come after those of the contexts
    bits = {k: dict(zip(contexts, _at(of.bits, sigma), strict=False)) for k, of in tables.items()}
    whole = tables[1]
    means = whole.bits.mean(1)
    controls = _at(means, sigma)[len(contexts) :]
    known = None if whole.known is None else float(bits[1][whole.known].mean())
    return _Rates(
        bits,
        dict(zip(contexts, _at(whole.linear, sigma), strict=False)),
        dict(zip(contexts, _at(whole.by_seed, sigma), strict=False)),
        None if drawn is None else dict(zip(contexts, _at(means, drawn), strict=False)),
        {} if known is None else {e: float(c) - known for e, c in zip(whole.controls, controls, strict=True)},
        whole.episode,
        contexts,
    )


def read_ledger(steps: LedgerSteps, store: Store, sigma: float | None = None) -> Ledger:
    """Everything that is shown. ``sigma``: another resolution than the ledger's own."""
    found, drawn = resolution(steps, store), None
    if sigma is not None:
        check_range(sigma)
        found = replace(found, sigma=sigma)
    elif steps.disturbed is not None:
        drawn = np.clip(measured(steps.disturbed, store).draws, SIGMAS[0], SIGMAS[-1])
    sigma = found.sigma
    rates = _rates(steps.rates, steps.contexts, store, sigma, drawn)
    health = {c: store.meta(steps.health_of(c)) for c in steps.codes}
    codes = [
        CodeBits(
            code=name,
            tokenizer_seed=c.fitted(steps.first).seed,
            capacity_bits=health[c]["capacity_bits"],
            used_bits=health[c]["used_bits"],
            prior_converged=health[c]["prior_converged"],
            distortion=health[c]["distortion"],
            kept=rates.difference("", name),
        )
        for c, name in steps.codes.items()
    ]
    encoders = _encoders(rates, steps)
    pairs = [
        PairBits(
            encoder=e,
            code=name,
            used_bits=health[c]["used_bits"],
            gap=rates.difference(name, pair(e, name)),
            passes=rates.estimated(rates.passes(e, name)),
        )
        for c, name in steps.codes.items()
        for e in ("blind", *steps.encoders)
    ]
    delivered = _delivered(steps, store, rates, sigma)
    meta = store.meta(steps.rates[1])
    used = {c: float(h["used_bits"]) for c, h in health.items()}
    return Ledger(
        resolution=found,
        fitted_seed=_fitted_seed(steps),
        width_control=WidthControl(known=meta["known"], lost=rates.lost),
        prefix=_prefix(steps, store, sigma, drawn),
        demand=rates.estimated(rates.rate("")),
        encoders=encoders,
        codes=codes,
        pairs=pairs,
        binding=[
            _binding(rates, steps, e, name)
            for name in steps.codes.values()
            for e in steps.encoders
            if not is_limit(e)
        ],
        law=[_law(rates, steps, used, e) for e in steps.encoders],
        delivered=delivered,
        beyond_supply=_beyond_supply(encoders, delivered),
        network_converged=meta["network_converged"],
        training_episodes={k: store.meta(r)["training_episodes"] for k, r in steps.rates.items()},
        chunks=len(rates.episode),
        episodes=len(np.unique(rates.episode)),
        minutes=sum(store.meta(r)["build_seconds"] for r in steps.rates.values()) / 60,
    )


def _encoders(rates: _Rates, steps: LedgerSteps) -> list[EncoderBits]:
    return [
        EncoderBits(encoder=e, supply=rates.difference("", e), visual_supply=rates.difference("blind", e))
        for e in ("blind", *steps.encoders)
    ]


def _prefix(steps: LedgerSteps, store: Store, sigma: float, drawn: np.ndarray | None) -> PrefixBits | None:
    """Demand and supply of the actions that are executed of a chunk; None where all of them are."""
    if not steps.prefix:
        return None
    prefix = steps.prefix[1]
    contexts = dict(prefix.contexts)
    rates = _rates(steps.prefix, contexts, store, sigma, drawn)
    return PrefixBits(
        steps=prefix.executed,
        demand=rates.estimated(rates.rate("")),
        encoders=_encoders(rates, steps),
    )


def _fitted_seed(steps: LedgerSteps) -> int | None:
    """The training seed whose tokenizers and pretrained encoders the bits are of; None where all seeds share them."""
    own = any(c.seed == "training" for c in steps.codes) or any(is_pose(e) for e in steps.encoders)
    return steps.first if own and steps.delivered else None


def fitted_words(seed: int | None) -> str:
    """The same in words; empty where there is nothing to say."""
    if seed is None:
        return ""
    return (
        f"Tokenizers and pretrained encoders are those of training seed {seed}: their luck is in no interval of supply, "
        "kept, gap and passes. What policies deliver is measured with each seed's own."
    )


def _binding(rates: _Rates, steps: LedgerSteps, encoder: str, code: str) -> Binding:
    """Which stage holds the bits back: what passes more when the encoder, or the code, is replaced alone.

    The encoder is replaced by the oracle (or, without a true state, to the best encoder listed), the code to
    continuous actions, whose gain is the gap. A stage is the bottleneck when it leads in 95 % of resampled episodes and the
    intervals of its gain and of its lead, widened as everywhere, are above 0; two bind jointly when each alone gains
    next to nothing and both together more than either.
    """
    bits = rates.bits[1]
    others = [e for e in steps.encoders if e != encoder]
    best = "oracle" if "oracle" in others else min(others, key=lambda e: float(bits[e].mean()), default=None)
    gains = {"code": rates.gap(encoder, code)}
    both: _Quantity | None = None
    if best is not None:
        own = rates.passes(encoder, code)
        gains["encoder"] = rates.passes(best, code) - own
        both = rates.supply(best) - own
    found = {stage: rates.estimated(gain) for stage, gain in gains.items()}
    joint = None if both is None else rates.estimated(both)
    leader = max(found, key=lambda s: found[s].value)
    drawn = {stage: resampled(gain.of(bits), rates.episode) for stage, gain in gains.items()}
    rival = np.max([np.zeros(len(drawn[leader])), *(d for s, d in drawn.items() if s != leader)], axis=0)
    share = float((drawn[leader] > rival).mean())
    leads = [rates.estimated(gains[leader] - g) for s, g in gains.items() if s != leader]
    above = [found[leader], *leads]
    stage = leader if share >= LEAD and all(e.low > 0 for e in above) else None
    jointly = (
        both is not None
        and joint is not None
        and joint.low > 0
        and all(abs(g.value) < SMALL and g.low <= 0 <= g.high for g in found.values())
        and all(rates.estimated(both - gain).low > 0 for gain in gains.values())
    )
    return Binding(
        encoder=encoder,
        code=code,
        relaxed_to=best,
        stage=stage,
        jointly=jointly,
        share=share,
        gains=found,
        joint=joint,
    )


def _law(rates: _Rates, steps: LedgerSteps, used_bits: Mapping[Code, float], encoder: str) -> CodebookLaw:
    """The codebook law: how many bits a code must use before this encoder's supply comes through.

    gap_bits against used_bits, made to fall (isotonic regression); the answer is where it crosses a tenth of the
    encoder's supply. With the crossing before the smallest or beyond the largest code it is a bound.
    """
    from ..information.resolution import Crossing, crossing

    order = sorted(steps.codes, key=used_bits.__getitem__)
    used = np.array([used_bits[c] for c in order])
    keep = np.append(True, np.diff(used) > 1e-9) & (used > 0)  # a collapsed code says nothing
    codes, used = [steps.codes[c] for c, k in zip(order, keep, strict=True) if k], used[keep]
    if len(codes) < 2:
        return CodebookLaw(encoder=encoder, bits=None, bound="too few codes", low=None, high=None)

    def columns(bits: Mapping[str, np.ndarray]) -> np.ndarray:
        gaps = [bits[c] - bits[pair(encoder, c)] for c in codes]
        return np.stack([*gaps, bits[""] - bits[encoder]], 1)

    def answer(means: np.ndarray) -> Crossing:
        return crossing(used, means[:-1], 0.1 * means[-1])

    own = columns(rates.bits[1])
    found = answer(own.mean(0))
    drawn = [answer(m).value for m in resampled(own, rates.episode, 400)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    if 2 in rates.bits:  # as estimates are: by what the last doubling of training episodes changed
        further = found.value - answer(columns(rates.bits[2]).mean(0)).value
        low, high = max(min(low, low + further), 0.0), max(high, high + further)
    return CodebookLaw(
        encoder=encoder,
        used_bits=used.tolist(),
        gap=own.mean(0)[:-1].tolist(),
        bits=found.value,
        bound=found.bound,
        low=float(low),
        high=float(high),
    )


def _delivered(steps: LedgerSteps, store: Store, rates: _Rates, sigma: float) -> list[PolicyBits]:
    """What each policy delivers of the chunk, from its own loss against the ledger's marginals."""
    groups: dict[tuple[Any, ...], list[tuple[Cell[Any], Delivered]]] = {}
    for cell, delivered in steps.delivered:
        groups.setdefault(cell.levels, []).append((cell, delivered))
    out = []
    for group in groups.values():
        cell = group[0][0]
        code = None if cell.code is None else steps.codes[cell.code]
        found = [of.load(store) for _, of in group]
        values: dict[int, list[np.ndarray]] = {}  # by share of the marginal's training episodes
        episode = rates.episode
        for (one, _), of in zip(group, found, strict=True):
            if of is None:
                continue
            episode = rates.episode[of.among]
            if of.kind == "continuous":
                own = _at(of.bits, sigma)
                for k, marginal in rates.bits.items():
                    values.setdefault(k, []).append(marginal[""][of.among] - own)
            else:
                assert one.code is not None
                prior = steps.health[one.code.fitted(one.seed)].prior(store)
                values.setdefault(1, []).append(prior[of.rows] - of.bits)
        means = {k: np.mean(v, 0) for k, v in values.items()}
        out.append(
            PolicyBits(
                action=cell.representation,
                encoder=cell.encoder,
                size=cell.size,
                kind=None if found[0] is None else found[0].kind,
                code=code,
                seeds=len(group),
                policy=f"{_head(cell, code)} · {cell.encoder}",
                bits=estimate(means, episode) if means else None,
            )
        )
    return out


def _head(cell: Cell[Any], code: str | None) -> str:
    """A policy's action representation, with its code's name."""
    if cell.code is None or code is None:
        return cell.representation
    return code if cell.representation == cell.code.tokenizer else f"{cell.representation} ({code})"


def _beyond_supply(encoders: Sequence[EncoderBits], delivered: Sequence[PolicyBits]) -> list[BeyondSupply]:
    """Continuous policies that deliver more than the ledger found their encoder to supply, which cannot be.

    Their network denoises better than the ledger's, whose rates given that context (upper bounds) are then too high.
    Token policies deliver bits of their tokens, at the code's own resolution, and are not compared.
    """
    supply = {e.encoder: e.supply for e in encoders}
    return [
        BeyondSupply(policy=d.policy, encoder=d.encoder, delivered=d.bits, supply=supply[d.encoder])
        for d in delivered
        if d.kind == "continuous" and d.bits is not None and d.bits.low > supply[d.encoder].high
    ]
