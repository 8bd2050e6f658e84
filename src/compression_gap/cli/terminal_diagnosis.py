"""A diagnosis in a terminal."""

from __future__ import annotations

from rich.table import Table

from ..report.format import minus, percent, points, span
from ..results.records.diagnosis import Diagnosed, DiagnosedErrors
from .terminal import console, new_table


def show(found: Diagnosed | DiagnosedErrors) -> None:
    """The sentences, then a row a change, then what was not tried."""
    for sentence in found.sentences:
        print(sentence)
    console.print(_successes(found) if isinstance(found, Diagnosed) else _errors(found))
    for group, why in found.skipped.items():
        print(f"not tried: {group} ({why})")


def _size(size: float | None) -> str:
    return "" if size is None else f"{size:.3g}"


def _successes(found: Diagnosed) -> Table:
    table = new_table("change", "size", "success", "95 %", "difference", "95 %", "p (Holm)")
    table.add_row("as it is", "", percent(found.undisturbed.value), span(found.undisturbed), "", "", "")
    for c in found.changes:
        d = c.difference
        rate = percent(c.rate.value), span(c.rate)
        table.add_row(c.name, _size(c.size), *rate, points(d.value), span(d), f"{c.p:.2g}")
    for name, rate_of in found.references.items():
        table.add_row(name, "", percent(rate_of.value), span(rate_of), "", "", "")
    return table


def _errors(found: DiagnosedErrors) -> Table:
    table = new_table("change", "size", "chunk error", "difference", "95 %", "p (Holm)")
    table.add_row("as it is", "", f"{found.undisturbed:.3g}", "", "", "")
    for c in found.changes:
        interval = minus(f"[{c.low:+.3g}, {c.high:+.3g}]")
        table.add_row(
            c.name, _size(c.size), f"{c.error:.3g}", minus(f"{c.value:+.3g}"), interval, f"{c.p:.2g}"
        )
    return table
