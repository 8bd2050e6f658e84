"""The page of a study of recordings: held-out chunk error by encoder, then the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import yaml
from matplotlib.axes import Axes

from . import figures
from .page import failed_runs, table_csv, template, write_text


def write_offline_page(summary: dict[str, Any], path: Path) -> None:
    """Draw a summary (``study.offline_results.summarise_offline``) into ``path``."""
    write_text(render_offline_page(summary), path)


def render_offline_page(summary: dict[str, Any]) -> str:
    """The page's HTML."""
    return template("offline.html", error=error_words, signed=signed).render(
        s=summary,
        main=error_by_encoder(summary),
        bits=None if summary["ledger"] is None else figures.ledger(summary["ledger"]),
        upgrades="",  # what an upgrade gains in success takes a simulator
        curves=figures.curves(summary) if any(c["curves"] for c in summary["cells"]) else "",
        study_file=yaml.safe_dump(summary["study"], sort_keys=False, allow_unicode=True),
        csv={"cells": _cells_csv(summary), "contrasts": _contrasts_csv(summary)},
        failures=failed_runs(summary),
    )


def error_words(e: dict[str, Any]) -> str:
    """An error with its interval, where there is one."""
    if e["low"] is None:
        return f"{e['value']:.3g}"
    return f"{e['value']:.3g} [{e['low']:.3g}, {e['high']:.3g}]"


def signed(e: dict[str, Any]) -> str:
    """A difference of errors with its interval."""
    return f"{e['value']:+.3g} [{e['low']:+.3g}, {e['high']:+.3g}]".replace("-", "−")


def error_by_encoder(summary: dict[str, Any]) -> str:
    """Chunk error against the encoder ladder, a line per action representation, plain predictors as thin lines."""
    cells = [c for c in summary["cells"] if c["error"]]
    encoders, colour = summary["encoders"], figures.colours(summary)
    series: dict[str, list[dict[str, Any]]] = {}
    for c in cells:
        series.setdefault(c["label"].replace(f" · {c['encoder']}", "", 1), []).append(c)
    with plt.rc_context(figures.STYLE):
        figure, axes = plt.subplots(figsize=(6.8, 4.0))
        shift = min(0.09, 0.7 / len(series))
        for i, (name, points) in enumerate(series.items()):
            offset = (i - (len(series) - 1) / 2) * shift
            _error_bars(axes, [encoders.index(p["encoder"]) + offset for p in points], points, name, colour)
        highest = max(c["error"]["high"] or c["error"]["value"] for c in cells)
        _predictor_lines(axes, summary["references"], len(encoders), highest)
        axes.set_xticks(range(len(encoders)), encoders)
        axes.set_xlim(-0.4, len(encoders) - 0.6 + 0.9)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("held-out chunk error, standard deviations²")
        axes.set_xlabel("encoder: from the lower limit to the upper" if len(encoders) > 1 else "encoder")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8.5)
        return figures.svg(figure, "Chunk error against encoder")


def _error_bars(
    axes: Axes, x: list[float], points: Sequence[dict[str, Any]], name: str, colour: dict[str, str]
) -> None:
    errors = [p["error"] for p in points]
    y = [e["value"] for e in errors]
    bars: Any = [
        [e["value"] - (e["value"] if e["low"] is None else e["low"]) for e in errors],
        [(e["value"] if e["high"] is None else e["high"]) - e["value"] for e in errors],
    ]
    action = points[0]["action"]
    shape = figures.marker(action, colour)
    axes.errorbar(x, y, yerr=bars, marker=shape, ms=5, lw=1.8, capsize=3, color=colour[action], label=name)


def _predictor_lines(axes: Axes, references: Sequence[dict[str, Any]], right: int, highest: float) -> None:
    """Thin lines for predictors that see nothing; those far above all cells stand in the table alone."""
    for ref in references:
        y = ref["error"]["value"]
        if y > 3 * highest:
            continue
        axes.axhline(y, color=figures.GREY, lw=0.8, ls=(0, (4, 3)))
        name = ref["label"].replace("the demonstrated chunk through", "code:")
        axes.text(right - 0.55, y, name, color=figures.GREY, fontsize=8, va="bottom")


def _cells_csv(summary: dict[str, Any]) -> str:
    return table_csv(
        [
            {
                "cell": c["label"],
                "encoder": c["encoder"],
                "action": c["action"],
                "size": c["size"],
                "seeds": len(c["seeds"]),
                "episodes": summary["held_out"]["episodes"],
                **{k: c["error"][k] for k in ("value", "low", "high", "method")},
                **{f"executed_{k}": c["executed_error"][k] for k in ("value", "low", "high")},
                **{f"rmse_{i}": v for i, v in enumerate(c["rmse"])},
            }
            for c in summary["cells"]
            if c["error"]
        ]
    )


def _contrasts_csv(summary: dict[str, Any]) -> str:
    names = ("label", "value", "low", "high", "p", "p_holm", "seeds", "states", "method")
    return table_csv([{n: c[n] for n in names} for c in summary["contrasts"]])
