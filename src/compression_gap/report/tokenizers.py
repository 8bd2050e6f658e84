"""The page of a comparison of tokenizers: the rate–distortion plot, success against bits, and the table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from ..information.rate_distortion import gaussian_rate_of
from . import figures
from .page import template, write_text


def write_tokenizer_page(found: dict[str, Any], path: Path) -> None:
    """Draw a comparison (``study.tokenizer_table.table``) into ``path``."""
    text = template("tokenizers.html").render(
        s=found,
        whole=[r for r in found["rows"] if r["health"]],
        plot=rate_distortion(found),
        success=success_against_bits(found) if found["references"] else "",
        csv={"tokenizers": _csv(found)},
    )
    write_text(text, path)


def _series(found: dict[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Each code's rows, prefixes first, by its label."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        groups.setdefault(row["label"].split(", first")[0] + f"|{row['tokenizer_seed']}", []).append(row)
    return [(name.split("|")[0], rows) for name, rows in groups.items()]


def _style(i: int) -> dict[str, Any]:
    palette, markers = figures.PALETTE, figures.MARKERS
    return {"color": palette[i % len(palette)], "marker": markers[i // len(palette) % len(markers)]}


def rate_distortion(found: dict[str, Any]) -> str:
    """Distortion against bits: capacity (hollow) and used (filled), prefixes, the Gaussian reference."""
    with plt.rc_context({**figures.STYLE, "axes.grid.axis": "both"}):
        figure, axes = plt.subplots(figsize=(6.8, 4.4))
        for i, (name, rows) in enumerate(_series(found)):
            style, last = _style(i), rows[-1]
            used = last["health"]["used_bits"]
            axes.plot(
                [r["nominal_bits"] for r in rows], [r["distortion"] for r in rows],
                ms=7, mfc="white", lw=1.2, **style,
            )  # fmt: skip
            axes.plot(
                [used, last["nominal_bits"]], [last["distortion"]] * 2, lw=0.9, ls=":", color=style["color"]
            )
            axes.plot([used], [last["distortion"]], ms=8, ls="", label=name, **style)
            axes.annotate(
                f" {name}", (used, last["distortion"]), color=style["color"], fontsize=9,
                xytext=(-2, 6), textcoords="offset points", ha="right",
            )  # fmt: skip
        _reference_curve(axes, found)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("bits per action chunk")
        axes.set_ylabel("distortion, standard deviations²")
        return figures.svg(figure, "Rate and distortion")


def _reference_curve(axes: Axes, found: dict[str, Any]) -> None:
    eigenvalues = np.array(found["eigenvalues"])
    values = [r["distortion"] for r in found["rows"]]
    grid = np.geomspace(min(values) / 2, min(max(values) * 1.5, 0.95 * eigenvalues.mean()), 100)
    least = min(min(r["nominal_bits"], (r["health"] or {}).get("used_bits", np.inf)) for r in found["rows"])
    rates = np.array([gaussian_rate_of(eigenvalues, d) for d in grid])
    rates, grid = rates[rates >= min(1, least)], grid[rates >= min(1, least)]
    axes.plot(rates, grid, color=figures.GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    if not len(rates):
        return
    at = len(rates) // 3
    axes.annotate(
        "Gaussian source of the same\ncovariance: a guide, no bound", (rates[at], grid[at]),
        color=figures.GREY, fontsize=8, xytext=(6, 2), textcoords="offset points",
    )  # fmt: skip


def success_against_bits(found: dict[str, Any]) -> str:
    """Success of the coded expert, and of open-loop replay, against nominal bits."""
    with plt.rc_context(figures.STYLE):
        figure, axes = plt.subplots(figsize=(6.8, 4.0))
        for i, (name, rows) in enumerate(_series(found)):
            style = _style(i)
            x = [r["nominal_bits"] for r in rows]
            for kind, filled, ls in (("expert_coded", True, "-"), ("replay", False, ":")):
                rates = [r[kind] for r in rows]
                y = [100 * r["value"] for r in rates]
                bars: Any = [
                    [100 * (r["value"] - r["low"]) for r in rates],
                    [100 * (r["high"] - r["value"]) for r in rates],
                ]
                axes.errorbar(
                    x, y, yerr=bars, ls=ls, lw=1.4, ms=6, capsize=2, elinewidth=0.8,
                    mfc=style["color"] if filled else "white", label=name if filled else None, **style,
                )  # fmt: skip
        for (name, ref), side in zip(found["references"].items(), ("left", "right"), strict=True):
            axes.axhline(100 * ref["value"], color=figures.GREY, lw=0.8, ls=(0, (4, 3)))
            axes.annotate(
                name, (0.0 if side == "left" else 1.0, 100 * ref["value"]), va="bottom", ha=side,
                xycoords=("axes fraction", "data"), color=figures.GREY, fontsize=8,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0, 106)
        axes.set_xlabel("nominal bits per action chunk")
        axes.set_ylabel("success, % of episodes")
        axes.legend(fontsize=8.5, loc="lower right")
        return figures.svg(figure, "Success against bits")


CSV = (
    "capacity_bits", "used_bits", "position_bits", "tokens_mean", "tokens_p95", "distortion", "distortion_low",
    "distortion_high", "within_sigma", "order_preservation", "codes", "dead_codes", "mean_perplexity",
    "gaussian_reference_rate", "decode_failures_corrupted", "encode_per_second", "decode_per_second",
)  # fmt: skip


def _csv(found: dict[str, Any]) -> str:
    lines: list[Sequence[Any]] = [("tokenizer", "seed", *CSV, "expert_coded", "replay")]
    for row in found["rows"]:
        if row["health"]:
            success = ["" if row[k] is None else row[k]["value"] for k in ("expert_coded", "replay")]
            values = [row["health"][name] for name in CSV]
            lines.append((row["label"], row["tokenizer_seed"], *values, *success))
    return "\n".join(",".join(map(str, line)) for line in lines) + "\n"
