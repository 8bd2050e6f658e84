"""What a benchmark measures: one number beside its limit or peer, of the same run; printed, and kept for the table."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median

KEPT = "CGAP_BENCH_ROWS"  # the file to which ``python benchmarks`` wants the rows
TIMES = ("ms", "s", "MB", "GB")  # units of which less is better


@dataclass(frozen=True)
class Row:
    """The median of so many rounds, with the least and the most; ``beside``: the limit or peer that ``of`` names.

    ``ratio``: how many times better than that; at most 1 beside a limit.
    """

    what: str
    unit: str
    here: float
    least: float
    most: float
    rounds: int
    beside: float | None = None
    of: str = ""
    wanted: str = ""

    @property
    def ratio(self) -> float | None:
        """None where nothing stands beside it."""
        if not self.beside or not self.here:
            return None
        return self.beside / self.here if self.unit in TIMES else self.here / self.beside

    def cells(self) -> list[str]:
        """As a line of the table."""
        spread = "" if self.rounds == 1 else f" [{number(self.least)}, {number(self.most)}]"
        return [
            self.what,
            f"{number(self.here)} {self.unit}{spread}",
            "" if self.beside is None else f"{number(self.beside)} {self.unit}, {self.of}",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            self.wanted,
        ]


def number(value: float) -> str:
    """Three digits, thousands with commas."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def show(
    what: str,
    unit: str,
    values: Sequence[float],
    *,
    beside: float | Sequence[float] | None = None,
    of: str = "",
    wanted: str = "",
) -> Row:
    """Print a row, and keep it. ``values``: of all rounds; ``beside``: a number, or of all rounds, too."""
    other = median(beside) if isinstance(beside, Sequence) else beside
    row = Row(what, unit, median(values), min(values), max(values), len(values), other, of, wanted)
    print(" | ".join(cell for cell in row.cells() if cell), flush=True)
    if file := os.environ.get(KEPT):
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(row)) + "\n")
    return row
