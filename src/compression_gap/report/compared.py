"""The page of a comparison of policies."""

from __future__ import annotations

from pathlib import Path

from ..results.records.compared import ComparedPolicies
from .figures.compared import differences
from .page import table_csv, template, write_text


def write_compared(found: ComparedPolicies, path: Path) -> None:
    """Draw a comparison into ``path``."""
    rows: list[dict[str, object]] = [
        {
            "first": pair.first,
            "second": pair.second,
            "task": task,
            "difference": d.value,
            "low": d.low,
            "high": d.high,
            "p": d.p,
            "pairs": d.pairs,
            "method": d.method,
        }
        for pair in found.pairs
        for task, d in {"all": pair.pooled, **pair.per_task}.items()
    ]
    csv = {"differences": table_csv(rows)}
    write_text(template("compared.html").render(s=found, figure=differences(found), csv=csv), path)
