"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.ticker import LogLocator

from ...results.records.cells import Cell, ChunkError, Success
from ...results.records.study import ErrorSummary, SuccessSummary
from .style import PALETTE, STYLE, subplots, svg


def curves(summary: SuccessSummary | ErrorSummary) -> str:
    """Validation loss of every cell, a panel per action representation (their losses differ in kind).

    Empty where nothing is trained.
    """
    cells: Sequence[Cell[Success] | Cell[ChunkError]] = summary.cells
    if not any(c.training.curves for c in cells):
        return ""
    shown = [c for c in cells if c.training.curves and c.executed == "chunk"]
    actions = list(dict.fromkeys(c.action for c in shown))
    encoders = list(dict.fromkeys(c.encoder for c in cells))
    columns = min(3, len(actions))
    rows = -(-len(actions) // columns)
    with rc_context(STYLE):
        figure, panels = subplots(rows, columns, figsize=(6.4, 2.8 * rows), squeeze=False)
        for axes in panels.flat[len(actions) :]:
            axes.set_visible(False)
        for axes, action in zip(panels.flat, actions, strict=False):
            named = set[str]()
            for c in (c for c in shown if c.action == action):
                for curve in c.training.curves:
                    shade = PALETTE[encoders.index(c.encoder) % len(PALETTE)]
                    name = None if c.encoder in named else c.encoder
                    axes.plot(curve.step, curve.validation, color=shade, lw=1.2, label=name)
                    named.add(c.encoder)
            axes.set_title(
                action.replace(" the code", "\nthe code"), fontsize=10 if len(actions) < 3 else 8.5
            )
            axes.set_xlabel("step")
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
            axes.legend(fontsize=8, loc="upper right")  # the best place takes minutes to find among thousands
        for axes in panels[:, 0]:
            axes.set_ylabel("validation loss")
        figure.tight_layout()
        return svg(figure, "Learning curves")
