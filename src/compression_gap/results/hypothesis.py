"""Success predicted from bits, over the encoder upgrades of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..statistics.intervals import Span
from .records.bits import Hypothesis, Ledger, Upgrade
from .records.comparisons import Comparison, EncoderGain

UPGRADES = 5  # fewer say nothing of a correlation


def hypothesis(ledger: Ledger, contrasts: Sequence[Comparison]) -> Hypothesis:
    """The paper's hypothesis as a prediction that can fail (docs/theory.md).

    An encoder upgrade should change success with what it adds to I(Z; A_σ*) under a continuous policy, and with what
    it adds to what passes the code under a token policy. ``contrasts``: the Δ_enc of the ledger's demonstrations. All
    upgrades between neighbours of the ladder, each once for an action representation: policies that differ in size or
    task conditioning share its prediction, and are averaged. The correlation's interval is Fisher's with as many
    points as there are encoder upgrades, since representations share these, too; declined below five of them.
    """
    supply = {e.encoder: e.supply.value for e in ledger.encoders}
    passes = {(p.encoder, p.code): p.passes.value for p in ledger.pairs}
    order = list(supply)
    alike: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for c in contrasts:
        if not isinstance(c.about, EncoderGain) or not set(c.about.encoders) <= set(order):
            continue
        low, high = c.about.encoders
        if order.index(high) - order.index(low) == 1:
            alike.setdefault((low, high, c.about.action, c.about.code or ""), []).append(c)
    points = []
    for (low, high, action, code), own in alike.items():
        predicted = passes[high, code] - passes[low, code] if code else supply[high] - supply[low]
        observed = {k: float(np.mean([getattr(c.found, k) for c in own])) for k in ("value", "low", "high")}
        label = own[0].label if len(own) == 1 else f"Δ_enc {high} − {low} · {action}, {len(own)} averaged"
        points.append(Upgrade(label=label, action=action, bits=predicted, observed=Span(**observed)))
    number = len({key[:2] for key in alike})
    found = Hypothesis(upgrades=points, encoder_upgrades=number, correlation=None, low=None, high=None)
    x, y = np.array([p.bits for p in points]), np.array([p.observed.value for p in points])
    if number < UPGRADES or np.ptp(x) == 0 or np.ptp(y) == 0:
        return found
    r = float(np.corrcoef(x, y)[0, 1])
    z, half = np.arctanh(np.clip(r, -0.9999, 0.9999)), 1.96 / np.sqrt(number - 3)
    return replace(
        found,
        correlation=r,
        low=min(r, float(np.tanh(z - half))),
        high=max(r, float(np.tanh(z + half))),
    )
