"""The figures of a comparison of tokenizers."""

from __future__ import annotations

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes

from ...information.rate_distortion import gaussian_rate_of
from ...results.records.tokenizers import TokenizerRow, TokenizerTable
from .style import GREY, MARKERS, PALETTE, STYLE, bars, subplots, svg


def _series(found: TokenizerTable) -> list[tuple[str, list[TokenizerRow]]]:
    """Each code's rows, prefixes first, by its label."""
    groups: dict[str, list[TokenizerRow]] = {}
    for row in found.rows:
        groups.setdefault(row.label.split(", first")[0] + f"|{row.tokenizer_seed}", []).append(row)
    return [(name.split("|")[0], rows) for name, rows in groups.items()]


def _style(i: int) -> tuple[str, str]:
    """Colour and marker of the i-th code."""
    return PALETTE[i % len(PALETTE)], MARKERS[i // len(PALETTE) % len(MARKERS)]


def rate_distortion(found: TokenizerTable) -> str:
    """Distortion against bits: capacity (hollow) and used (filled), prefixes, the Gaussian reference."""
    with rc_context({**STYLE, "axes.grid.axis": "both"}):
        figure, axes = subplots(figsize=(6.8, 4.4))
        for i, (name, rows) in enumerate(_series(found)):
            (colour, mark), last = _style(i), rows[-1]
            assert last.health is not None
            used = last.health.used_bits
            axes.plot(
                [r.nominal_bits for r in rows], [r.distortion for r in rows],
                ms=7, mfc="white", lw=1.2, color=colour, marker=mark,
            )  # fmt: skip
            axes.plot([used, last.nominal_bits], [last.distortion] * 2, lw=0.9, ls=":", color=colour)
            axes.plot([used], [last.distortion], ms=8, ls="", label=name, color=colour, marker=mark)
            axes.annotate(
                f" {name}", (used, last.distortion), color=colour, fontsize=9,
                xytext=(-2, 6), textcoords="offset points", ha="right",
            )  # fmt: skip
        _reference_curve(axes, found)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("bits per action chunk")
        axes.set_ylabel("distortion, standard deviations²")
        return svg(figure, "Rate and distortion")


def _reference_curve(axes: Axes, found: TokenizerTable) -> None:
    eigenvalues = np.array(found.eigenvalues)
    values = [r.distortion for r in found.rows]
    grid = np.geomspace(min(values) / 2, min(max(values) * 1.5, 0.95 * eigenvalues.mean()), 100)
    least = min(min(r.nominal_bits, r.health.used_bits if r.health else np.inf) for r in found.rows)
    rates = np.array([gaussian_rate_of(eigenvalues, d) for d in grid])
    rates, grid = rates[rates >= min(1, least)], grid[rates >= min(1, least)]
    axes.plot(rates, grid, color=GREY, lw=1, ls=(0, (4, 3)), zorder=0)
    if not len(rates):
        return
    at = len(rates) // 3
    axes.annotate(
        "Gaussian source of the same\ncovariance: a guide, no bound", (rates[at], grid[at]),
        color=GREY, fontsize=8, xytext=(6, 2), textcoords="offset points",
    )  # fmt: skip


def success_against_bits(found: TokenizerTable) -> str:
    """Success of the coded expert, and of open-loop replay, against nominal bits."""
    with rc_context(STYLE):
        figure, axes = subplots(figsize=(6.8, 4.0))
        for i, (name, rows) in enumerate(_series(found)):
            colour, mark = _style(i)
            x = [r.nominal_bits for r in rows]
            for kind, filled, ls in (("expert_coded", True, "-"), ("replay", False, ":")):
                rates = [getattr(r, kind) for r in rows]
                y = [100 * r.value for r in rates]
                axes.errorbar(
                    x, y, yerr=bars(rates, 100), ls=ls, lw=1.4, ms=6, capsize=2, elinewidth=0.8,
                    mfc=colour if filled else "white", label=name if filled else None, color=colour, marker=mark,
                )  # fmt: skip
        for (name, ref), side in zip(found.references.items(), ("left", "right"), strict=True):
            axes.axhline(100 * ref.value, color=GREY, lw=0.8, ls=(0, (4, 3)))
            axes.annotate(
                name, (0.0 if side == "left" else 1.0, 100 * ref.value), va="bottom", ha=side,
                xycoords=("axes fraction", "data"), color=GREY, fontsize=8,
            )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(0, 106)
        axes.set_xlabel("nominal bits per action chunk")
        axes.set_ylabel("success, % of episodes")
        axes.legend(fontsize=8.5, loc="lower right")
        return svg(figure, "Success against bits")
