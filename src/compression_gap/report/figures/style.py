"""How figures look: SVG with text that can be selected, one colour per action representation."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from matplotlib.figure import Figure

from ...results.records.cells import Cell, Outcome

# Okabe and Ito's colours: told apart with any colour vision, and in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^"  # a colour comes again with another marker
LINES = ("-", "--", ":", "-.")
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


def subplots(*shape: int, figsize: tuple[float, float], squeeze: bool = True) -> tuple[Figure, Any]:
    """A figure and its axes. Without ``pyplot``, which keeps figures alive and is slow to import."""
    figure = Figure(figsize=figsize)
    return figure, figure.subplots(*shape, squeeze=squeeze)


def colours(cells: Sequence[Cell[Outcome]]) -> dict[str, str]:
    """A fixed colour for every action representation of a study, the same in all figures."""
    ordered = sorted(cells, key=lambda c: not whole(c))
    return dict(zip(dict.fromkeys(c.action for c in ordered), itertools.cycle(PALETTE), strict=False))


def marker(action: str, colour: Mapping[str, str], alike: int = 0) -> str:
    """The marker of an action representation; ``alike``: how many lines of it, and of its colour, came before."""
    return MARKERS[(list(colour).index(action) // len(PALETTE) + alike) % len(MARKERS)]


def whole(cell: Cell[Outcome]) -> bool:
    """No mixed cell of the matched-head ablation: those stand in its own tables."""
    return (cell.trained_on == "coded") == (cell.executed == "snapped")


class Ranged(Protocol):
    """A value with an interval, where there is one."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def low(self) -> float | None:
        """The lower end."""

    @property
    def high(self) -> float | None:
        """The upper end."""


def bars(values: Sequence[Ranged], scale: float = 1) -> list[list[float]]:
    """Intervals as matplotlib's distances from their values; 0 where there is none, or it does not hold its value."""
    ends = [
        (e.value, e.value if e.low is None else e.low, e.value if e.high is None else e.high) for e in values
    ]
    return [
        [scale * max(0.0, v - low) for v, low, _ in ends],
        [scale * max(0.0, high - v) for v, _, high in ends],
    ]


def svg(figure: Figure, title: str) -> str:
    """The figure as SVG for a page: as wide as its place, text that can be selected."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None, "Title": title})
    text = stream.getvalue()
    # Inline SVG takes its width from the page; ids must not clash between figures of one page.
    text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text[text.index("<svg") :], count=1)
    text = text.replace("'DejaVu Sans'", "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif")
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)
