"""The report's figures as SVG with text that can be selected. One colour per action representation."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

# Okabe and Ito's colours: told apart with any colour vision, and in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^"  # a colour comes again with another marker
GREY = "#6b7280"
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
    "svg.hashsalt": "compression-gap",
    "font.family": "DejaVu Sans",  # ships with matplotlib, so the layout is the same everywhere
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9ca3af",
    "axes.labelcolor": "#374151",
    "xtick.color": "#374151",
    "ytick.color": "#374151",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def colours(summary: dict[str, Any]) -> dict[str, str]:
    """A fixed colour for every action representation of a study, the same in all figures."""
    ordered = sorted(summary["cells"], key=lambda c: not _whole(c))
    return dict(zip(dict.fromkeys(c["action"] for c in ordered), itertools.cycle(PALETTE), strict=False))


def marker(action: str, colour: dict[str, str]) -> str:
    """The marker of an action representation."""
    return MARKERS[list(colour).index(action) // len(PALETTE) % len(MARKERS)]


def _whole(cell: dict[str, Any]) -> bool:
    """No mixed cell of the controlled swap: those stand in its own tables."""
    return (cell["trained_on"] == "coded") == (cell["executed"] == "snapped")


def svg(figure: Figure, title: str) -> str:
    """The figure as SVG for a page: as wide as its place, text that can be selected."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Title": title})
    plt.close(figure)
    text = stream.getvalue()
    # Inline SVG takes its width from the page; ids must not clash between figures of one page.
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text[text.index("<svg") :], count=1)
    text = text.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif")
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)


def success_by_encoder(summary: dict[str, Any]) -> str:
    """Success against the encoder ladder, a line per action representation, experts as thin lines."""
    cells = [c for c in summary["cells"] if c["rate"] and _whole(c)]
    encoders = list(dict.fromkeys(c["encoder"] for c in summary["cells"]))
    colour = colours(summary)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.8))
        series: dict[str, list[dict[str, Any]]] = {}
        for c in cells:
            series.setdefault(c["label"].replace(f" · {c['encoder']}", "", 1), []).append(c)
        shift = min(0.09, 0.7 / len(series))
        for i, (name, points) in enumerate(series.items()):
            offset = (i - (len(series) - 1) / 2) * shift
            _errorbars(axes, [encoders.index(p["encoder"]) + offset for p in points], points, name, colour)
        _reference_lines(axes, summary["references"], len(encoders))
        axes.set_xticks(range(len(encoders)), encoders)
        axes.set_xlim(-0.4, len(encoders) - 0.6 + 0.9)
        axes.set_ylim(0, 104)
        axes.set_ylabel("success, % of episodes")
        axes.set_xlabel("encoder: from the lower limit to the upper")
        if len(series) > 4:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=8.5)
        else:
            axes.legend(loc=(0.02, 0.7))
        return svg(figure, "Success against encoder")


def _errorbars(
    axes: Axes, x: list[float], points: list[dict[str, Any]], name: str, colour: dict[str, str]
) -> None:
    rates = [p["rate"] for p in points]
    y = [100 * r["value"] for r in rates]
    below = [100 * (r["value"] - r["low"]) for r in rates]
    above = [100 * (r["high"] - r["value"]) for r in rates]
    bars: Any = [below, above]
    action = points[0]["action"]
    shade, shape = colour[action], marker(action, colour)
    axes.errorbar(x, y, yerr=bars, marker=shape, ms=5, lw=1.8, capsize=3, color=shade, label=name)


def _reference_lines(axes: Axes, references: Sequence[dict[str, Any]], right: int) -> None:
    """Thin lines for the expert levels; labels of lines that coincide are joined."""
    rows: dict[int, list[str]] = {}
    for ref in references:
        name = ref["label"]
        if rest := name.removeprefix("expert-coded (").removesuffix(")"):
            name = name if rest == name else f"coded: {rest}"
        rows.setdefault(round(100 * ref["rate"]["value"]), []).append(name)
    last = 200.0
    for y, names in sorted(rows.items(), reverse=True):
        axes.axhline(y, color=GREY, lw=0.8, ls=(0, (4, 3)))
        lines = ["; ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
        at = min(y, last)
        label = axes.text(right - 0.55, at, "\n".join(lines), color=GREY, fontsize=8, va="center")
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        last = at - 4.5 * len(lines)


def gains(summary: dict[str, Any]) -> str:
    """What relaxing one stage gains, in points, with intervals."""
    rows = [(v["label"], v["action"], g) for v in summary["verdicts"] for g in v["gains"]]
    colour = colours(summary)
    with plt.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = plt.subplots(figsize=(6.4, 0.6 + 0.42 * len(rows)))
        for i, (_, action, gain) in enumerate(rows):
            c = gain["contrast"]
            axes.barh(i, 100 * c["value"], height=0.55, color=colour[action], alpha=0.75)
            axes.plot([100 * c["low"], 100 * c["high"]], [i, i], color="#111827", lw=1.4)
        axes.axvline(0, color="#374151", lw=0.8)
        axes.set_yticks(range(len(rows)), [f"{label}: relax {g['stage']}" for label, _, g in rows])
        axes.invert_yaxis()
        axes.set_xlabel("points of success gained")
        return svg(figure, "Single-stage gains")


def success_by_probe(summary: dict[str, Any]) -> str:
    """Success against what a probe recovers of the true state: encoder quality as it was measured."""
    measured = {p["encoder"]: p["mean"] for p in summary["probes"]}
    cells = [c for c in summary["cells"] if c["rate"] and _whole(c) and c["encoder"] in measured]
    colour = colours(summary)
    with plt.rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure, axes = plt.subplots(figsize=(6.4, 3.6))
        named: set[str] = set()
        for c in cells:
            x, y, action = measured[c["encoder"]], c["rate"], c["action"]
            axes.errorbar(
                [x["value"]], [100 * y["value"]], xerr=_bars(x), yerr=_bars(y, 100), ls="", ms=5, lw=1, capsize=2,
                color=colour[action], marker=marker(action, colour), label=None if action in named else action,
            )  # fmt: skip
            named.add(action)
        ends: list[float] = []  # of the last name in each row of names
        for encoder, x in sorted(measured.items(), key=lambda item: item[1]["value"]):
            half = 0.012 * len(encoder)
            row = next((i for i, end in enumerate(ends) if x["value"] - half > end), len(ends))
            ends[row : row + 1] = [x["value"] + half]
            axes.text(x["value"], -4 - 7 * row, encoder, color=GREY, fontsize=8, ha="center", va="top")
        axes.set_ylim(-6 - 7 * len(ends), 104)
        axes.set_yticks(range(0, 101, 20))
        axes.set_xlabel("probe: held-out R² of the true state, mean over what moves")
        axes.set_ylabel("success, % of episodes")
        axes.legend(fontsize=8.5)
        return svg(figure, "Success against probe")


def _bars(e: dict[str, Any], scale: float = 1) -> Any:
    """An interval as matplotlib's distances from its value."""
    return [[scale * max(0.0, e["value"] - e["low"])], [scale * max(0.0, e["high"] - e["value"])]]


def waterfall(fall: dict[str, Any], colour: str) -> str:
    """Signed differences from the expert down to the blind policy."""
    levels, steps = fall["levels"], fall["steps"]
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 3.2))
        for i, level in enumerate(levels):
            y = 100 * level["value"]
            axes.bar(i, y, width=0.62, color=colour if "policy" in level["name"] else "#9ca3af", alpha=0.75)
            axes.plot([i, i], [100 * level["low"], 100 * level["high"]], color="#111827", lw=1.2)
            if i:
                step = steps[i - 1]
                text = f"{step['names']}\n{100 * step['value']:+.0f} [{100 * step['low']:.0f}, {100 * step['high']:.0f}]"
                axes.text(i - 0.5, 108, text, ha="center", va="bottom", fontsize=7.5, color="#374151")
        names = [level["name"].replace(" ", "\n").replace("-", "-\n", 1) for level in levels]
        axes.set_xticks(range(len(levels)), names, fontsize=8.5)
        axes.set_ylim(0, 106)
        axes.set_ylabel("success, %")
        return svg(figure, f"Waterfall {fall['label']}")


def curves(summary: dict[str, Any]) -> str:
    """Validation loss of every cell, a panel per action representation (their losses differ in kind)."""
    cells = [c for c in summary["cells"] if c["curves"] and c["executed"] == "chunk"]
    actions = list(dict.fromkeys(c["action"] for c in cells))
    encoders = list(dict.fromkeys(c["encoder"] for c in summary["cells"]))
    columns = min(3, len(actions))
    rows = -(-len(actions) // columns)
    with plt.rc_context(STYLE):
        figure, panels = plt.subplots(rows, columns, figsize=(6.4, 2.8 * rows), squeeze=False)
        for axes in panels.flat[len(actions) :]:
            axes.set_visible(False)
        for axes, action in zip(panels.flat, actions, strict=False):
            for c in (c for c in cells if c["action"] == action):
                for i, curve in enumerate(c["curves"]):
                    shade = PALETTE[encoders.index(c["encoder"]) % len(PALETTE)]
                    name = None if i else c["encoder"]
                    axes.plot(curve["step"], curve["validation"], color=shade, lw=1.2, label=name)
            axes.set_title(
                action.replace(" the code", "\nthe code"), fontsize=10 if len(actions) < 3 else 8.5
            )
            axes.set_xlabel("step")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
            axes.legend(fontsize=8)
        for axes in panels[:, 0]:
            axes.set_ylabel("validation loss")
        figure.tight_layout()
        return svg(figure, "Learning curves")


def ledger(found: dict[str, Any]) -> str:
    """Bits per action chunk as bars: demand, supply, kept, passed and delivered, with intervals.

    Hatched: bits of the tokens themselves, which may be finer than the resolution.
    """
    rows: list[tuple[str, dict[str, Any], str, str]] = [("demand of the task", found["demand"], GREY, "")]
    rows += [(f"supplied by {e['encoder']}", e["supply"], PALETTE[0], "") for e in found["encoders"]]
    rows += [(f"kept by {c['code']}", c["kept"], PALETTE[1], "") for c in found["codes"]]
    rows += [(f"{p['encoder']} through {p['code']}", p["passes"], PALETTE[2], "") for p in found["pairs"]]
    rows += [
        (f"delivered by {d['policy']}", d["bits"], PALETTE[3], "///" if d["kind"] == "tokens" else "")
        for d in found["delivered"]
        if d["bits"]
    ]
    with plt.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure, axes = plt.subplots(figsize=(6.8, 0.8 + 0.27 * len(rows)))
        for i, (_, e, colour, hatch) in enumerate(rows):
            axes.barh(
                i, e["value"], height=0.6, color=colour, alpha=0.75, hatch=hatch, edgecolor="white", lw=0
            )
            axes.plot([e["low"], e["high"]], [i, i], color="#111827", lw=1.2)
        axes.axvline(0, color="#374151", lw=0.8)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows], fontsize=8.5)
        axes.invert_yaxis()
        axes.set_xlabel(f"bits per action chunk, at {found['resolution']['sigma']:.2g} standard deviations")
        return svg(figure, "Ledger")


def predicted(found: dict[str, Any], colour: dict[str, str]) -> str:
    """What an upgrade adds in bits against what it gains in success."""
    with plt.rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure, axes = plt.subplots(figsize=(6.4, 3.6))
        named = set()
        for p in found["hypothesis"]["upgrades"]:
            o = p["observed"]
            bars: Any = [[100 * (o["value"] - o["low"])], [100 * (o["high"] - o["value"])]]
            axes.errorbar(
                [p["bits"]], [100 * o["value"]], yerr=bars, capsize=3, ls="", ms=6, color=colour[p["action"]],
                marker=marker(p["action"], colour), label=None if p["action"] in named else p["action"],
            )  # fmt: skip
            named.add(p["action"])
        axes.axhline(0, color="#374151", lw=0.8)
        axes.set_xlabel("bits that the encoder upgrade adds (through the code, for tokens)")
        axes.set_ylabel("points of success gained")
        axes.legend(fontsize=8.5)
        return svg(figure, "Predicted and observed")
