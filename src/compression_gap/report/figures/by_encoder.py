"""Outcomes against the encoders from the lower limit to the upper, a line per action representation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.axes import Axes

from ...results.records.cells import Cell, ChunkError, Outcome, Reference, Success
from ...results.records.study import ErrorSummary, SuccessSummary
from .style import GREY, LINES, STYLE, Ranged, bars, colours, marker, subplots, svg, whole

WIDE = 40  # characters of a name in the legend: longer ones stand alone


def success(summary: SuccessSummary) -> str:
    """Success of every encoder, with the experts as thin lines; empty without evidence."""
    cells = [(c, c.outcome.rate) for c in summary.cells if c.outcome.rate is not None and whole(c)]
    if not cells:
        return ""
    encoders = list(dict.fromkeys(c.encoder for c in summary.cells))
    with rc_context(STYLE):
        figure, axes = subplots(figsize=(6.4, 3.8))
        names = _lines(axes, cells, encoders, colours(summary.cells), 100)
        _expert_lines(axes, summary.references, len(encoders))
        axes.set_xticks(range(len(encoders)), encoders)
        axes.set_xlim(-0.4, len(encoders) - 0.6 + 0.9)
        axes.set_ylim(0, 104)
        axes.set_ylabel("success, % of episodes")
        axes.set_xlabel("encoder: from the lower limit to the upper")
        # below: inside it would lie on lines that rise early
        columns = 2 if max(map(len, names)) <= WIDE else 1
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, fontsize=8.5)
        return svg(figure, "Success against encoder")


def chunk_error(summary: ErrorSummary) -> str:
    """The chunk error of every encoder, with plain predictors as thin lines."""
    cells = [(c, c.outcome.error) for c in summary.cells if c.outcome.error is not None]
    encoders = summary.found.encoders
    with rc_context(STYLE):
        figure, axes = subplots(figsize=(6.8, 4.0))
        _lines(axes, cells, encoders, colours(summary.cells), 1)
        highest = max(error.high or error.value for _, error in cells)
        _predictor_lines(axes, summary.references, len(encoders), highest)
        axes.set_xticks(range(len(encoders)), encoders)
        axes.set_xlim(-0.4, len(encoders) - 0.6 + 0.9)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("held-out chunk error, standard deviations²")
        axes.set_xlabel("encoder: from the lower limit to the upper" if len(encoders) > 1 else "encoder")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8.5)
        return svg(figure, "Chunk error against encoder")


def _lines(
    axes: Axes,
    cells: Sequence[tuple[Cell[Outcome], Ranged]],
    encoders: Sequence[str],
    colour: Mapping[str, str],
    scale: float,
) -> list[str]:
    """A line with intervals for each configuration but for its encoder, side by side; their names."""
    series: dict[str, list[tuple[Cell[Outcome], Ranged]]] = {}
    for c, value in cells:
        series.setdefault(c.label.replace(f" · {c.encoder}", "", 1), []).append((c, value))
    shift = min(0.09, 0.7 / len(series))
    for i, (name, points) in enumerate(series.items()):
        offset = (i - (len(series) - 1) / 2) * shift
        values, action = [v for _, v in points], points[0][0].action
        alike = [of[0][0].action for of in list(series.values())[:i]].count(action)  # it shares their colour
        axes.errorbar(
            [encoders.index(c.encoder) + offset for c, _ in points],
            [scale * v.value for v in values],
            yerr=bars(values, scale),
            marker=marker(action, colour, alike), ls=LINES[alike % len(LINES)],
            ms=5, lw=1.8, capsize=3, color=colour[action], label=name,
        )  # fmt: skip
    return list(series)


def _expert_lines(axes: Axes, references: Sequence[Reference[Success]], right: int) -> None:
    """Thin lines for the expert levels; labels of lines that coincide are joined."""
    rows: dict[int, list[str]] = {}
    for ref in references:
        name = ref.label
        if rest := name.removeprefix("expert-coded (").removesuffix(")"):
            name = name if rest == name else f"coded: {rest}"
        assert ref.outcome.rate is not None
        rows.setdefault(round(100 * ref.outcome.rate.value), []).append(name)
    last = 200.0
    for y, names in sorted(rows.items(), reverse=True):
        axes.axhline(y, color=GREY, lw=0.8, ls=(0, (4, 3)))
        lines = ["; ".join(names[i : i + 2]) for i in range(0, len(names), 2)]
        at = min(y, last)
        label = axes.text(right - 0.55, at, "\n".join(lines), color=GREY, fontsize=8, va="center")
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
        last = at - 4.5 * len(lines)


def _predictor_lines(
    axes: Axes, references: Sequence[Reference[ChunkError]], right: int, highest: float
) -> None:
    """Thin lines for predictors that see nothing; those far above all cells stand in the table alone."""
    for ref in references:
        assert ref.outcome.error is not None
        y = ref.outcome.error.value
        if y > 3 * highest:
            continue
        axes.axhline(y, color=GREY, lw=0.8, ls=(0, (4, 3)))
        name = ref.label.replace("the demonstrated chunk through", "code:")
        axes.text(right - 0.55, y, name, color=GREY, fontsize=8, va="bottom")
