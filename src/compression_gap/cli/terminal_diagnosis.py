"""A diagnosis in a terminal."""

from __future__ import annotations

from ..report.format import percent, points, span
from ..results.records.diagnosis import Diagnosed
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
