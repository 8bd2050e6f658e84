"""What success gains when one stage is replaced by its upper bound."""

from __future__ import annotations

from matplotlib import rc_context

from ...results.records.study import SuccessSummary
from .style import STYLE, colours, subplots, svg


def gains(summary: SuccessSummary) -> str:
    """What replacing one stage by its upper bound gains, in percentage points, with intervals; empty where none was."""
    rows = [(v.label, v.action, g) for v in summary.found.verdicts for g in v.verdict.gains]
    if not rows:
        return ""
    colour = colours(summary.cells)
    with rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = subplots(figsize=(6.4, 0.6 + 0.42 * len(rows)))
        for i, (_, action, gain) in enumerate(rows):
            c = gain.contrast
            axes.barh(i, 100 * c.value, height=0.55, color=colour[action], alpha=0.75)
            axes.plot([100 * c.low, 100 * c.high], [i, i], color="#111827", lw=1.4)
        axes.axvline(0, color="#374151", lw=0.8)
        axes.set_yticks(range(len(rows)), [f"{label}: {g.stage} replaced" for label, _, g in rows])
        axes.invert_yaxis()
        axes.set_xlabel("points of success gained")
        return svg(figure, "Single-stage gains")
