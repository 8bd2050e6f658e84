"""The report: one self-contained HTML page. No server, no network; it prints, and it reads on a phone."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ..nn.convergence import end_of_fit, in_words
from ..results.information import fitted_words, resolution_words
from ..results.resolution import resolution_rows
from ..store.store import disk_error
from . import figures


def write_page(summary: dict[str, Any], films: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw a study's summary (``study.results.summarise``) and its films into ``path``."""
    write_text(render_page(summary, films), path)


def write_text(text: str, path: Path) -> None:
    """Write a page in one step: a reader never sees half of it."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise disk_error(error, path.parent) from error


def template(name: str, **filters: Callable[[Any], str]) -> Template:
    """A page's template with style, script and filters; everything is escaped."""
    folder = resources.files("compression_gap.report")
    made = Environment(
        loader=PackageLoader("compression_gap", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"bits": bits, "points": points, "percent": percent, "span": span, "count": count}
    made.filters |= {
        "resolution": resolution_words,
        "resolution_rows": resolution_rows,
        "fitted": fitted_words,
        "ends": in_words,
        "fit_end": end_of_fit,
    }
    made.filters |= filters
    made.globals |= {
        "style": (folder / "page.css").read_text(),
        "script": (folder / "page.js").read_text(),
    }
    return made.get_template(name)


def render_page(summary: dict[str, Any], films: Sequence[dict[str, Any]]) -> str:
    """The page's HTML."""
    colour = figures.colours(summary)
    measured = [c for c in summary["cells"] if c["rate"]]
    return template("page.html").render(
        s=summary,
        main=figures.success_by_encoder(summary) if measured else "",
        gains=figures.gains(summary) if any(v["gains"] for v in summary["verdicts"]) else "",
        falls=[(w, figures.waterfall(w, colour[w["action"]])) for w in summary["waterfalls"]],
        quality=figures.success_by_probe(summary) if summary["probes"] and measured else "",
        bits=None if summary["ledger"] is None else figures.ledger(summary["ledger"]),
        upgrades=figures.predicted(summary["ledger"], colour)
        if summary["ledger"] and summary["ledger"]["hypothesis"]["upgrades"]
        else "",
        curves=figures.curves(summary) if any(c["curves"] for c in summary["cells"]) else "",
        films=[{**f, "data": base64.b64encode(Path(f["path"]).read_bytes()).decode()} for f in films],
        study_file=yaml.safe_dump(summary["study"], sort_keys=False, allow_unicode=True),
        csv={"cells": _cells_csv(summary), "contrasts": _contrasts_csv(summary)},
        failures=failed_runs(summary),
    )


def failed_runs(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """The training runs that failed: cell, seed and what was recorded."""
    return [
        {"label": c["label"], "seed": f["seed"], **json.loads(f["record"])}
        for c in summary["cells"]
        for f in c["failures"]
    ]


def points(value: float) -> str:
    """A difference in points, signed."""
    return f"{100 * value:+.0f}".replace("-", "−")


def bits(e: dict[str, Any]) -> str:
    """Bits with their interval."""
    return f"{e['value']:.2f} [{e['low']:.2f}, {e['high']:.2f}]".replace("-", "−")


def percent(value: float) -> str:
    """A rate in percent."""
    return f"{100 * value:.0f} %"


def span(row: dict[str, Any]) -> str:
    """An interval in points."""
    return f"[{100 * row['low']:.0f}, {100 * row['high']:.0f}]".replace("-", "−")


def count(value: float) -> str:
    """A large number in words of three digits: 1.2 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def table_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of one table as CSV."""
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue()


def _cells_csv(summary: dict[str, Any]) -> str:
    return table_csv(
        [
            {
                "cell": c["label"],
                "encoder": c["encoder"],
                "action": c["action"],
                "size": c["size"],
                "seeds": len(c["seeds"]),
                "episodes": c["episodes"],
                **{k: c["rate"][k] for k in ("value", "low", "high", "method")},
                "training": in_words(c["convergence"]),
            }
            for c in [*summary["cells"]]
            if c["rate"]
        ]
    )


def _contrasts_csv(summary: dict[str, Any]) -> str:
    names = ("label", "value", "low", "high", "p", "p_holm", "seeds", "states", "method")
    return table_csv([{n: c[n] for n in names} for c in summary["contrasts"]])
