"""A comparison of policies in a terminal."""

from __future__ import annotations

from ..report.format import percent, points, span
from ..results.records.compared import ComparedPolicies
from .terminal import console, new_table


def compared_tables(found: ComparedPolicies) -> None:
    """The sentences, the policies, the differences by task."""
    for pair in found.pairs:
        print(pair.sentence)
    for note in found.notes:
        print(note)
    rates = new_table("policy", "success", "95 %", "seeds", "episodes")
    for p in found.policies:
        rates.add_row(p.name, percent(p.rate.value), span(p.rate), str(p.seeds), str(p.episodes))
    console.print(rates)
    table = new_table("difference", "task", "points", "95 %", "p", "p (Holm)", "shared episodes")
    for pair in found.pairs:
        name = f"{pair.first} − {pair.second}"
        d = pair.pooled
        table.add_row(name, "all", points(d.value), span(d), f"{d.p:.2g}", f"{pair.holm:.2g}", str(d.pairs))
        for task, d in pair.per_task.items() if len(pair.per_task) > 1 else ():
            table.add_row(name, task, points(d.value), span(d), f"{d.p:.2g}", "", str(d.pairs))
    console.print(table)
