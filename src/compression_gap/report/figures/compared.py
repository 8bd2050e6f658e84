"""Differences of policies, with their intervals."""

from __future__ import annotations

from matplotlib import rc_context

from ...results.records.compared import ComparedPolicies
from .style import GREY, PALETTE, STYLE, subplots, svg


def differences(found: ComparedPolicies) -> str:
    """A row a pair, and a row a task below it where there are several; coloured where p is below 0.05 after Holm."""
    rows = []
    for pair in found.pairs:
        rows.append((f"{pair.first} − {pair.second}", pair.pooled, pair.holm < 0.05, 6.0))
        if len(pair.per_task) > 1:
            rows += [(task, d, False, 3.5) for task, d in pair.per_task.items()]
    with rc_context(STYLE):
        figure, axes = subplots(figsize=(9.0, 0.8 + 0.3 * len(rows)))
        for y, (_, d, told, size) in enumerate(reversed(rows)):
            colour = PALETTE[1] if told else GREY
            axes.plot([100 * d.low, 100 * d.high], [y, y], color=colour, lw=size / 3)
            axes.plot(100 * d.value, y, "o", color=colour, ms=size)
        axes.axvline(0, color="#111827", lw=0.8)
        axes.set_yticks(range(len(rows)), [name for name, *_ in reversed(rows)])
        axes.grid(axis="x")
        axes.set_xlabel("difference of success, points")
        figure.tight_layout()
        return svg(figure, "Differences of policies")
