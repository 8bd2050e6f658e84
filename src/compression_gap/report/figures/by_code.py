"""Success against the bits of the code, a line per encoder, the expert's coded chunks on top."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from matplotlib import rc_context
from matplotlib.axes import Axes

from ...results.records.cells import CodeLevels
from ...results.records.study import SuccessSummary
from ...statistics.intervals import Interval
from .style import GREY, MARKERS, PALETTE, STYLE, bars, subplots, svg

Points = list[tuple[float, Interval, CodeLevels]]


def success_by_code(summary: SuccessSummary) -> str:
    """Empty with fewer than three codes. Dashed and hollow: codes whose codebooks are listed position by position."""
    series: Mapping[str, Points] = defaultdict(list)
    for r in summary.references:
        if r.code.capacity_bits is not None and r.outcome.rate is not None:
            series[f"the expert's chunks · {r.code.tokenizer}"].append(
                (r.code.capacity_bits, r.outcome.rate, r.code)
            )
    for c in summary.cells:
        if c.code.capacity_bits is not None and c.outcome.rate is not None and c.trained_on == "chunk":
            who = " · ".join([c.encoder, *([c.size] if len(summary.study.factors.size) > 1 else [])])
            if c.executed == "chunk":
                series[f"{who} · {c.code.tokenizer}"].append((c.code.capacity_bits, c.outcome.rate, c.code))
    if len({bits for points in series.values() for bits, _, _ in points}) < 3:
        return ""
    with rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure, axes = subplots(figsize=(6.8, 4.2))
        for i, (name, points) in enumerate(series.items()):
            colour, mark = PALETTE[i % len(PALETTE)], MARKERS[i // len(PALETTE) % len(MARKERS)]
            points.sort(key=lambda p: p[0])
            for listed in (False, True):
                own = [p for p in points if (len(p[2].codebook or ()) > 1) == listed]
                if own:
                    rates = [p[1] for p in own]
                    axes.errorbar(
                        [p[0] for p in own], [100 * r.value for r in rates], yerr=bars(rates, 100),
                        label=name + (", codebooks listed by position" if listed else ""), color=colour, marker=mark,
                        mfc="white" if listed else colour, ls="--" if listed else "-",
                        ms=5, lw=1.4, capsize=2, elinewidth=0.9,
                    )  # fmt: skip
        _plain(axes, summary)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0, 104)
        axes.set_xlabel("capacity of the code, bits per action chunk")
        axes.set_ylabel("success, % of episodes")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8.5)
        return svg(figure, "Success against the bits of the code")


def _plain(axes: Axes, summary: SuccessSummary) -> None:
    for r in summary.references:
        if r.label == "expert-chunked" and r.outcome.rate is not None:
            y = 100 * r.outcome.rate.value
            axes.axhline(y, color=GREY, lw=0.8, ls=(0, (4, 3)))
            axes.text(
                1.0, y, "expert-chunked", transform=axes.get_yaxis_transform(), color=GREY, fontsize=8,
                va="bottom", ha="right",
            )  # fmt: skip
