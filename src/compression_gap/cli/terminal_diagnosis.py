"""A diagnosis in a terminal."""

from __future__ import annotations

from ..report.format import minus, percent, points, span
from ..results.records.diagnosis import Diagnosed, DiagnosedErrors
from .terminal import console, new_table


def diagnosis_table(found: Diagnosed) -> None:
    """The sentences, then a row a change."""
    for sentence in found.sentences:
        print(sentence)
    table = new_table("change", "size", "success", "95 %", "difference", "95 %", "p (Holm)")
    table.add_row("as it is", "", percent(found.undisturbed.value), span(found.undisturbed), "", "", "")
    for c in found.changes:
        d = c.difference
        table.add_row(
            c.name,
            "" if c.size is None else f"{c.size:.3g}",
            percent(c.rate.value),
            span(c.rate),
            points(d.value),
            span(d),
            f"{c.p:.2g}",
        )
    for name, rate in found.references.items():
        table.add_row(name, "", percent(rate.value), span(rate), "", "", "")
    console.print(table)
    for group, why in found.skipped.items():
        print(f"not tried: {group} ({why})")


def recorded_table(found: DiagnosedErrors) -> None:
    """The sentences, then a row a change."""
    for sentence in found.sentences:
        print(sentence)
    table = new_table("change", "size", "chunk error", "difference", "95 %", "p (Holm)")
    table.add_row("as it is", "", f"{found.undisturbed:.3g}", "", "", "")
    for c in found.changes:
        size = "" if c.size is None else f"{c.size:.3g}"
        interval = minus(f"[{c.low:+.3g}, {c.high:+.3g}]")
        table.add_row(c.name, size, f"{c.error:.3g}", minus(f"{c.value:+.3g}"), interval, f"{c.p:.2g}")
    console.print(table)
    for group, why in found.skipped.items():
        print(f"not tried: {group} ({why})")
