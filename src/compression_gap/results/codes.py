"""What codes cost by themselves: the expert's chunks through each code, against its chunks as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..statistics import intervals as statistics
from ..store.store import Store
from .evidence import MeasuredReference
from .records.comparisons import CodeCost, Comparison

KEPT = 0.05  # a loss below this, at the lower end of the interval, counts as none


def code_costs(runs: Sequence[MeasuredReference], tasks: np.ndarray, store: Store) -> list[Comparison]:
    """Success of expert-coded less that of expert-chunked, code by code from the coarsest; none without the latter.

    Replicates are the fitted tokenizers, as far as a code's fit is random; expert-chunked is one deterministic run.
    """
    plain = next((m for m in runs if m.reference.actor == "expert-chunked"), None)
    if plain is None:
        return []
    out = []
    for m in runs:
        fitted = m.reference.fitted
        if m.reference.code is None or fitted is None:
            continue
        once = [1] if m.seeds else [0, 1]
        found = statistics.contrast([m.success, plain.success], [1, -1], tasks, references=once)
        bits = float(store.meta(fitted)["capacity_bits"])
        about = CodeCost(code=m.reference.code.name, capacity_bits=bits)
        label = f"{about.code} ({bits:.0f} bits) − expert-chunked"
        out.append(Comparison(kind="code_cost", label=label, about=about, found=found, p_holm=found.p))
    return sorted(out, key=lambda c: c.about.capacity_bits if isinstance(c.about, CodeCost) else 0.0)


def code_sentences(suite: str | None, costs: Sequence[Comparison]) -> list[str]:
    """Which codes cost success, which keep it, and of which the episodes cannot tell."""
    lost = [c for c in costs if c.p_holm < 0.05 and c.found.value < 0]
    kept = [c for c in costs if c not in lost and c.found.low >= -KEPT]
    open_ = [c for c in costs if c not in lost and c not in kept]
    words = [
        ("cost the expert success", lost),
        (f"keep it within {100 * KEPT:.0f} points", kept),
        ("leave it open", open_),
    ]
    parts = [f"{what}: {', '.join(map(_one, of))}" for what, of in words if of]
    return (
        [f"On {suite}, of {len(costs)} codes by themselves these {'; these '.join(parts)}."] if costs else []
    )


def _one(cost: Comparison) -> str:
    assert isinstance(cost.about, CodeCost)
    value, low, high = (100 * v for v in (cost.found.value, cost.found.low, cost.found.high))
    return f"{cost.about.code} ({cost.about.capacity_bits:.0f} bits) {value:+.0f} [{low:.0f}, {high:.0f}]".replace(
        "-", "−"
    )
