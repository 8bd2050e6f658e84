"""Where success is lost between the expert and the blind policy."""

from __future__ import annotations

from matplotlib import rc_context

from ...results.records.comparisons import Waterfall
from .style import STYLE, subplots, svg


def waterfall(fall: Waterfall, colour: str) -> str:
    """Signed differences from the expert down to the blind policy."""
    levels, steps = fall.levels, fall.steps
    with rc_context(STYLE):
        figure, axes = subplots(figsize=(6.4, 3.2))
        for i, level in enumerate(levels):
            y = 100 * level.value
            axes.bar(i, y, width=0.62, color=colour if "policy" in level.name else "#9ca3af", alpha=0.75)
            axes.plot([i, i], [100 * level.low, 100 * level.high], color="#111827", lw=1.2)
            if i:
                step = steps[i - 1]
                text = f"{step.names}\n{100 * step.value:+.0f} [{100 * step.low:.0f}, {100 * step.high:.0f}]"
                axes.text(i - 0.5, 108, text, ha="center", va="bottom", fontsize=7.5, color="#374151")
        names = [level.name.replace(" ", "\n").replace("-", "-\n", 1) for level in levels]
        axes.set_xticks(range(len(levels)), names, fontsize=8.5)
        axes.set_ylim(0, 106)
        axes.set_ylabel("success, %")
        return svg(figure, f"Waterfall {fall.label}")
