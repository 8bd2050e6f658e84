"""Write the tables and figures of docs/results from the rows that lie beside them; the prose around them stays.

    python scripts/results_pages.py            # writes what has changed
    python scripts/results_pages.py --check    # exit code 1 where a page is not what its rows say

A page is a README.md with places ``<!-- rows: FOLDER TABLE -->`` … ``<!-- end -->``: FOLDER holds an exported study
(``cgap store export``), TABLE is cells, tasks, contrasts, swaps, probes or ladder. Its figures are written beside it, as
``<!-- figure: FOLDER NAME -->``. Results in the prose (a signed number, a percentage, an interval)
must stand in a table of the same page: what no row says is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

from compression_gap.api.exported import opened_export
from compression_gap.api.results import summarise_study
from compression_gap.report import figures
from compression_gap.report.format import bits, percent, points, span
from compression_gap.results.records.study import SimulatorFindings, SuccessSummary

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PLACE = re.compile(r"(<!-- rows: (\S+) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"<!-- figure: (\S+) (\S+) -->")
# A signed or plain number with a unit or an interval: what a result looks like, and a setting does not.
RESULT = re.compile(r"[+−]?\d+(?:\.\d+)?(?: %)? \[[^\]]*\]|[+−]\d+(?:\.\d+)?\b|\b\d+(?:\.\d+)? %")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, the first column on the left."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cells(s: SuccessSummary) -> str:
    """Success of every cell: a row an encoder and size, a column an action representation."""
    names = {c.label: _without(c.label, c.encoder, c.size) for c in s.cells if c.outcome.rate is not None}
    columns = list(dict.fromkeys(names.values()))
    several = len(s.study.factors.size) > 1
    rows: dict[str, dict[str, str]] = {}
    for c in s.cells:
        if c.outcome.rate is not None:
            row = f"{c.encoder} · {c.size}" if several else c.encoder
            ended = "" if c.training.converged else f" ({c.training.ended})"
            rows.setdefault(row, {})[names[c.label]] = (
                f"{percent(c.outcome.rate.value)} {span(c.outcome.rate)}{ended}"
            )
    lines = [[name, *(of.get(column, "") for column in columns)] for name, of in rows.items()]
    for r in s.references:
        if r.outcome.rate is not None:
            lines.append(
                [
                    r.label,
                    f"{percent(r.outcome.rate.value)} {span(r.outcome.rate)}",
                    *[""] * (len(columns) - 1),
                ]
            )
    return table(["success", *(columns or ["all"])], lines)


def _without(label: str, encoder: str, size: str) -> str:
    return " · ".join(part for part in label.split(" · ") if part not in (encoder, size))


def tasks(s: SuccessSummary) -> str:
    """Success by task."""
    rows = []
    for of in [*s.cells, *s.references]:
        if of.outcome.per_task is not None:
            rows.append([of.label, *(f"{percent(t.value)} {span(t)}" for t in of.outcome.per_task)])
    return table(["success", *s.tasks], rows)


def contrasts(s: SuccessSummary) -> str:
    """Every contrast with its interval and Holm's p."""
    rows = [[c.label, f"{points(c.found.value)} {span(c.found)}", f"{c.p_holm:.2g}"] for c in s.contrasts]
    return table(["contrast", "points", "p (Holm)"], rows)


def swaps(s: SuccessSummary) -> str:
    """The matched-head ablation: the four cells, and what the code costs."""
    rows = [
        [
            w.label,
            *(f"{percent(c.value)} {span(c)}" for c in w.cells),
            f"{points(w.g_code.value)} {span(w.g_code)}",
        ]
        for w in s.found.swaps
    ]
    return table(["trained on, executed", "A, Â", "A, snapped", "Ã, Â", "Ã, snapped", "g_code"], rows)


def probes(s: SuccessSummary) -> str:
    """What a linear reader recovers of the true state."""
    return table(["encoder", "probe, mean R²"], [[p.encoder, bits(p.mean)] for p in s.probes])


def ladder(s: SuccessSummary) -> str:
    """The encoders of continuous policies, with what a linear reader recovers of the true state; success by task."""
    probed = {p.encoder: bits(p.mean) for p in s.probes}
    rows = [
        [
            c.encoder,
            probed.get(c.encoder, ""),
            f"{percent(c.outcome.rate.value)} {span(c.outcome.rate)}",
            *(percent(t.value) for t in c.outcome.per_task or ()),
        ]
        for c in s.cells
        if c.outcome.rate is not None and c.code.codebook is None
    ]
    return table(["encoder", "probe, mean R²", "success", *s.tasks], rows)


TABLES: dict[str, Callable[[SuccessSummary], str]] = {
    f.__name__: f for f in (cells, tasks, contrasts, swaps, probes, ladder)
}


@lru_cache
def summary(folder: Path) -> SuccessSummary:
    """The summary of an exported study."""
    with opened_export(folder) as opened:
        found = summarise_study(opened)
    if not isinstance(found.found, SimulatorFindings):
        raise ValueError(f"{folder} holds a study of recordings: it has no success to show")
    return found  # type: ignore[return-value]


def pages() -> Iterator[Path]:
    """Every page under docs/results, and the encoders'."""
    return iter([RESULTS.parent / "encoders.md", *sorted(RESULTS.rglob("README.md"))])


def render(page: Path) -> tuple[str, dict[Path, str]]:
    """What the page and its figures are, from the rows. Raises ``ValueError`` for a number that no table holds."""
    text = page.read_text(encoding="utf-8")
    text = PLACE.sub(lambda m: m[1] + TABLES[m[3]](summary(page.parent / m[2])) + "\n" + m[4], text)
    drawn = {
        page.parent / m[1] / f"{m[2]}.svg": figures.SIMULATOR[m[2]].draw(summary(page.parent / m[1]))
        for m in FIGURE.finditer(text)
    }
    held, prose = " ".join(m[0] for m in PLACE.finditer(text)), PLACE.sub("", text)
    if strange := [m[0] for m in RESULT.finditer(prose) if m[0] not in held]:
        raise ValueError(f"{page}: no table of the page holds {', '.join(strange)}")
    return text, drawn


def main() -> int:
    """Write, or check."""
    stale = []
    for page in pages():
        text, drawn = render(page)
        for path, content in {page: text, **drawn}.items():
            if not path.exists() or path.read_text(encoding="utf-8") != content:
                stale.append(path)
                if "--check" not in sys.argv:
                    path.write_text(content, encoding="utf-8")
    for path in stale:
        print(path)
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    raise SystemExit(main())
