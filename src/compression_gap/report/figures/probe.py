"""Success against encoder quality."""

from __future__ import annotations

from matplotlib import rc_context

from ...results.records.study import SuccessSummary
from .style import GREY, STYLE, bars, colours, marker, subplots, svg, whole


def success_by_probe(summary: SuccessSummary) -> str:
    """Success against what a probe recovers of the true state: encoder quality as it was measured.

    Empty without probes or evidence.
    """
    measured = {p.encoder: p.mean for p in summary.probes}
    cells = [(c, c.outcome.rate) for c in summary.cells if c.outcome.rate is not None]
    if not (measured and cells):
        return ""
    colour = colours(summary.cells)
    with rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure, axes = subplots(figsize=(6.4, 3.6))
        named: set[str] = set()
        for c, y in cells:
            if not whole(c) or c.encoder not in measured:
                continue
            x, action = measured[c.encoder], c.action
            axes.errorbar(
                [x.value], [100 * y.value], xerr=bars([x]), yerr=bars([y], 100), ls="", ms=5, lw=1, capsize=2,
                color=colour[action], marker=marker(action, colour), label=None if action in named else action,
            )  # fmt: skip
            named.add(action)
        ends: list[float] = []  # of the last name in each row of names
        for encoder, x in sorted(measured.items(), key=lambda item: item[1].value):
            half = 0.012 * len(encoder)
            row = next((i for i, end in enumerate(ends) if x.value - half > end), len(ends))
            ends[row : row + 1] = [x.value + half]
            axes.text(x.value, -4 - 7 * row, encoder, color=GREY, fontsize=8, ha="center", va="top")
        axes.set_ylim(-6 - 7 * len(ends), 104)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel("probe: held-out R² of the true state, mean over what moves")
        axes.set_ylabel("success, % of episodes")
        axes.legend(fontsize=8.5, loc="upper left")
        return svg(figure, "Success against probe")
