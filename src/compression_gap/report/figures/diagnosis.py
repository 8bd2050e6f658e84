"""Success of one policy under changes: a panel for each axis, and a forest of all differences."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.ticker import LogLocator

from ...results.records.diagnosis import Changed, Diagnosed, DiagnosedErrors
from .style import GREY, PALETTE, STYLE, bars, subplots, svg

AXES = {
    "code": "bits a chunk",
    "averaged": "image, pixels across",
    "blurred": "blur, share of the width",
    "white": "noise on actions, σ",
    "offset": "offset of actions, σ",
    "horizon": "actions a decision",
}


def sensitivity(found: Diagnosed) -> str:
    """Success against every change with an axis; empty where there is none."""
    groups = [g for g in AXES if sum(c.group == g and c.size is not None for c in found.changes) > 1]
    if not groups:
        return ""
    columns = min(3, len(groups))
    rows = -(-len(groups) // columns)
    with rc_context(STYLE):
        figure, panels = subplots(rows, columns, figsize=(3.1 * columns, 2.7 * rows), squeeze=False)
        for axes in panels.flat[len(groups) :]:
            axes.set_visible(False)
        for axes, group in zip(panels.flat, groups, strict=False):
            whole = found.undisturbed.points()
            axes.axhspan(whole.low, whole.high, color=GREY, alpha=0.15, lw=0)
            axes.axhline(whole.value, color=GREY, lw=1)
            own = [c for c in found.changes if c.group == group and c.size is not None]
            for i, family in enumerate(dict.fromkeys(_family(c) for c in own)):
                _curve(axes, sorted((c for c in own if _family(c) == family), key=_size), i, family)
            for i, n in enumerate(n for n in found.needed if n.group == group):
                if not n.bound:
                    axes.axvline(n.value, color=PALETTE[i], lw=1, ls=":")
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
            axes.set_xlabel(AXES[group])
            axes.set_ylim(-3, 103)
            if group == "code":
                axes.legend(fontsize=8, loc="lower right")
        for axes in panels[:, 0]:
            axes.set_ylabel("success, %")
        figure.tight_layout()
        return svg(figure, "Sensitivity")


def _family(changed: Changed) -> str:
    """The tokenizer of a code."""
    return (
        changed.name.removeprefix("chunks through ").split(",")[0].split(" ")[0]
        if changed.group == "code"
        else ""
    )


def _size(changed: Changed) -> float:
    return changed.size or 0.0


def _curve(axes, own: Sequence[Changed], i: int, family: str) -> None:  # type: ignore[no-untyped-def]
    rates = [c.rate.points() for c in own]
    axes.errorbar(
        [_size(c) for c in own],
        [r.value for r in rates],
        yerr=bars(rates),
        color=PALETTE[i],
        marker="os^D"[i % 4],
        ms=4,
        lw=1.2,
        elinewidth=0.8,
        label=family or None,
    )


def forest(found: Diagnosed) -> str:
    """Every change's difference of success, in points, with its interval; those below 0 after Holm in colour."""
    shown = [c for c in found.changes if c.size is None or c.group not in AXES]
    if not shown:
        return ""
    with rc_context(STYLE):
        figure, axes = subplots(figsize=(9.0, 0.8 + 0.32 * len(shown)))
        for y, c in enumerate(reversed(shown)):
            colour = PALETTE[1] if c.p < 0.05 else GREY
            d = c.difference
            axes.plot([100 * d.low, 100 * d.high], [y, y], color=colour, lw=1.5)
            axes.plot(100 * d.value, y, "o", color=colour, ms=5)
        axes.axvline(0, color="#111827", lw=0.8)
        axes.set_yticks(range(len(shown)), [c.name for c in reversed(shown)])
        axes.grid(axis="x")
        axes.set_xlabel("success under the change less success as it is, points")
        figure.tight_layout()
        return svg(figure, "Differences")


def errors(found: DiagnosedErrors) -> str:
    """Chunk error under every change, over the policy's own, on a logarithmic axis."""
    with rc_context(STYLE):
        figure, axes = subplots(figsize=(9.0, 0.8 + 0.26 * len(found.changes)))
        own = found.undisturbed
        for y, c in enumerate(reversed(found.changes)):
            ends = [max(own + x, own / 50) / own for x in (c.low, c.value, c.high)]
            colour = PALETTE[1] if c.p < 0.05 and c.value > 0 else GREY
            axes.plot([ends[0], ends[2]], [y, y], color=colour, lw=1.5)
            axes.plot(ends[1], y, "o", color=colour, ms=4)
        axes.axvline(1, color="#111827", lw=0.8)
        axes.set_xscale("log")
        axes.set_yticks(range(len(found.changes)), [c.name for c in reversed(found.changes)], fontsize=8)
        axes.grid(axis="x")
        axes.set_xlabel("chunk error under the change, times the policy's own")
        figure.tight_layout()
        return svg(figure, "Errors")
