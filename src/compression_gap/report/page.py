"""The report: one self-contained HTML page. No server, no network; it prints, and it reads on a phone."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ..nn.convergence import in_words
from ..results.information import fitted_words
from ..results.records.comparisons import Comparison
from ..results.records.progress import Progress
from ..results.records.study import ErrorSummary, SimulatorFindings, SuccessSummary, Video
from ..results.resolution import resolution_rows, resolution_words
from ..store.store import disk_error
from . import figures, format
from .figures.style import colours
from .figures.waterfall import waterfall

FALLS = 24  # waterfalls on a page: nobody looks at more, and each takes a tenth of a second


def write_page(
    summary: SuccessSummary | ErrorSummary | None,
    videos: Sequence[Video],
    path: Path,
    progress: Progress | None = None,
) -> None:
    """Draw a study's summary and the videos of its rollouts into ``path``; of one that is not done, its progress.

    ``summary``: None while nothing has been measured.
    """
    write_text(render_page(summary, videos, progress), path)


def write_text(text: str, path: Path) -> None:
    """Write a page in one step: a reader never sees half of it."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        raise disk_error(error, path.parent) from error


FILTERS: dict[str, Callable[[Any], Any]] = {
    **{f.__name__: f for f in (format.bits, format.points, format.percent, format.span, format.count)},
    **{f.__name__: f for f in (format.error, format.signed, format.outcome)},
    "resolution": resolution_words,
    "resolution_rows": resolution_rows,
    "fitted": fitted_words,
    "ends": in_words,
}


def template(name: str) -> Template:
    """A page's template with style, script and filters; everything is escaped."""
    made = Environment(
        loader=PackageLoader("compression_gap", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = resources.files("compression_gap.report") / "templates"
    made.filters |= FILTERS
    made.globals |= {
        "style": (folder / "page.css").read_text(),
        "script": (folder / "page.js").read_text(),
    }
    return made.get_template(name)


def render_page(
    summary: SuccessSummary | ErrorSummary | None,
    videos: Sequence[Video] = (),
    progress: Progress | None = None,
) -> str:
    """The page's HTML: of a simulator's study, or of recordings; see ``write_page``."""
    if summary is None:
        return template("waiting.html").render(progress=progress, csv={})
    if isinstance(summary.found, SimulatorFindings):
        return _simulator(summary, videos, progress)
    return _recordings(summary, progress)


def _simulator(summary: SuccessSummary, videos: Sequence[Video], progress: Progress | None) -> str:
    colour = colours(summary.cells)
    return template("simulator.html").render(
        **_shared(summary, progress),
        **_drawn(figures.SIMULATOR, summary),
        falls=[(w, waterfall(w, colour[w.action])) for w in summary.found.waterfalls[:FALLS]],
        undrawn=len(summary.found.waterfalls[FALLS:]),
        videos=[(v, base64.b64encode(v.path.read_bytes()).decode()) for v in videos],
        csv={"cells": table_csv(_success_rows(summary)), "contrasts": _contrasts_csv(summary.contrasts)},
    )


def _recordings(summary: ErrorSummary, progress: Progress | None) -> str:
    return template("recordings.html").render(
        **_shared(summary, progress),
        **_drawn(figures.RECORDINGS, summary),
        upgrades="",  # what an upgrade gains in success takes a simulator
        csv={"cells": table_csv(_error_rows(summary)), "contrasts": _contrasts_csv(summary.contrasts)},
    )


def _shared(summary: SuccessSummary | ErrorSummary, progress: Progress | None) -> dict[str, object]:
    """What the templates of both take."""
    study = summary.study.model_dump(mode="json")
    return {
        "s": summary,
        "progress": progress,
        "study_file": yaml.safe_dump(study, sort_keys=False, allow_unicode=True),
        "failures": [
            (c.label, f.seed, json.loads(f.record)["sentence"])
            for c in summary.cells
            for f in c.training.failures
        ],
    }


def _drawn(registered: Mapping[str, figures.Figure[figures.S]], summary: figures.S) -> dict[str, object]:
    """Every figure by name, and those with a caption once more as further ones."""
    drawn = {name: figure.draw(summary) for name, figure in registered.items()}
    further = [(n, drawn[n], f.caption) for n, f in registered.items() if f.caption and drawn[n]]
    return {**drawn, "further": further}


def table_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows of one table as CSV."""
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return stream.getvalue()


def _success_rows(summary: SuccessSummary) -> list[dict[str, object]]:
    return [
        {
            "cell": c.label,
            "encoder": c.encoder,
            "action": c.action,
            "size": c.size,
            "seeds": len(c.seeds),
            "episodes": c.outcome.episodes,
            **vars(c.outcome.rate),
            "training": c.training.ended,
        }
        for c in summary.cells
        if c.outcome.rate is not None
    ]


def _error_rows(summary: ErrorSummary) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for c in summary.cells:
        error, executed = c.outcome.error, c.outcome.executed_error
        if error is not None and executed is not None:
            rows.append(
                {
                    "cell": c.label,
                    "encoder": c.encoder,
                    "action": c.action,
                    "size": c.size,
                    "seeds": len(c.seeds),
                    "episodes": summary.found.held_out.episodes,
                    **{k: getattr(error, k) for k in ("value", "low", "high", "method")},
                    **{f"executed_{k}": getattr(executed, k) for k in ("value", "low", "high")},
                    **{f"rmse_{i}": v for i, v in enumerate(c.outcome.rmse or ())},
                }
            )
    return rows


def _contrasts_csv(contrasts: Sequence[Comparison]) -> str:
    names = ("seeds", "states", "method")
    return table_csv(
        [
            {
                "label": c.label,
                **{n: getattr(c.found, n) for n in ("value", "low", "high", "p")},
                "p_holm": c.p_holm,
                **{n: getattr(c.found, n) for n in names},
            }
            for c in contrasts
        ]
    )
