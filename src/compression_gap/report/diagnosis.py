"""The page of a policy's diagnosis."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from ..results.records.diagnosis import Diagnosed, DiagnosedErrors
from ..results.records.study import Video
from .figures.diagnosis import errors, forest, sensitivity
from .page import table_csv, template, write_text


def write_diagnosis(found: Diagnosed, path: Path, videos: Sequence[Video] = ()) -> None:
    """Draw a diagnosis, and videos of episodes that a change cost, into ``path``."""
    text = template("diagnosis.html").render(
        s=found,
        curves=sensitivity(found),
        forest=forest(found),
        videos=[(v, base64.b64encode(v.path.read_bytes()).decode()) for v in videos],
        csv={"changes": table_csv(_rows(found))},
    )
    write_text(text, path)


def _rows(found: Diagnosed) -> list[dict[str, object]]:
    return [
        {
            "group": c.group,
            "change": c.name,
            "size": "" if c.size is None else c.size,
            "success": c.rate.value,
            "success_low": c.rate.low,
            "success_high": c.rate.high,
            "difference": c.difference.value,
            "difference_low": c.difference.low,
            "difference_high": c.difference.high,
            "p_exact": c.difference.p,
            "p_holm": c.p,
            "episodes": c.difference.pairs,
            "lost": c.lost,
            "gained": c.gained,
        }
        for c in found.changes
    ]


def write_recorded(found: DiagnosedErrors, path: Path) -> None:
    """Draw a diagnosis on recordings into ``path``."""
    rows: list[dict[str, object]] = [vars(c) for c in found.changes]
    csv = {"changes": table_csv(rows)}
    write_text(template("diagnosis_errors.html").render(s=found, figure=errors(found), csv=csv), path)
