"""Bits per action chunk, and what they predict."""

from __future__ import annotations

from matplotlib import rc_context

from ...information.estimate import Estimate
from ...results.records.bits import Ledger
from ...results.records.study import ErrorSummary, SuccessSummary
from .style import GREY, PALETTE, STYLE, bars, colours, marker, subplots, svg


def of_summary(summary: SuccessSummary | ErrorSummary) -> str:
    """The ledger of a study; empty without one."""
    return "" if summary.ledger is None else ledger(summary.ledger)


def ledger(found: Ledger) -> str:
    """Bits per action chunk as bars: demand, supply, kept, passed and delivered, with intervals.

    Hatched: bits of the tokens themselves, which may be finer than the resolution.
    """
    rows: list[tuple[str, Estimate, str, str]] = [("demand of the task", found.demand, GREY, "")]
    rows += [(f"supplied by {e.encoder}", e.supply, PALETTE[0], "") for e in found.encoders]
    rows += [(f"kept by {c.code}", c.kept, PALETTE[1], "") for c in found.codes]
    rows += [(f"{p.encoder} through {p.code}", p.passes, PALETTE[2], "") for p in found.pairs]
    rows += [
        (f"delivered by {d.policy}", d.bits, PALETTE[3], "///" if d.kind == "tokens" else "")
        for d in found.delivered
        if d.bits
    ]
    with rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = subplots(figsize=(6.8, 0.8 + 0.27 * len(rows)))
        for i, (_, e, colour, hatch) in enumerate(rows):
            axes.barh(i, e.value, height=0.6, color=colour, alpha=0.75, hatch=hatch, edgecolor="white", lw=0)
            axes.plot([e.low, e.high], [i, i], color="#111827", lw=1.2)
        axes.axvline(0, color="#374151", lw=0.8)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8.5)
        axes.invert_yaxis()
        axes.set_xlabel(f"bits per action chunk, at {found.resolution.sigma:.2g} standard deviations")
        return svg(figure, "Ledger")


def predicted(summary: SuccessSummary) -> str:
    """What an upgrade adds in bits against what it gains in success; empty where none is known."""
    found = None if summary.ledger is None else summary.ledger.hypothesis
    if found is None or not found.upgrades:
        return ""
    colour = colours(summary.cells)
    with rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure, axes = subplots(figsize=(6.4, 3.6))
        named = set()
        for p in found.upgrades:
            o = p.observed
            axes.errorbar(
                [p.bits], [100 * o.value], yerr=bars([o], 100), capsize=3, ls="", ms=6, color=colour[p.action],
                marker=marker(p.action, colour), label=None if p.action in named else p.action,
            )  # fmt: skip
            named.add(p.action)
        axes.axhline(0, color="#374151", lw=0.8)
        axes.set_xlabel("bits that the encoder upgrade adds (through the code, for tokens)")
        axes.set_ylabel("points of success gained")
        axes.legend(fontsize=8.5, loc="lower right")
        return svg(figure, "Predicted and observed")
