"""What people see in a terminal: tables. Numbers come with unit and interval."""

from __future__ import annotations

import itertools
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from ..errors import counted
from ..nn.convergence import WORDS, end_of_fit, in_words

PIPED = 10_000  # columns where nobody looks: lines are for programs, which break none


class _Screen(Console):
    """Standard output: as wide as the terminal, or without bounds where it is piped."""

    @property  # type: ignore[misc]
    def size(self) -> ConsoleDimensions:
        """Columns and lines."""
        own = super().size
        return own if self.is_terminal else ConsoleDimensions(PIPED, own.height)


console = _Screen(highlight=False)
HEADLINES = 3  # verdicts that are printed; the report has them all


def _interval(low: float, high: float, scale: float = 100) -> str:
    return f"[{scale * low:.0f}, {scale * high:.0f}]"


class WordTable(Table):
    """A table whose lines break between words alone. Columns that find no room go on below, beside the first."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = [[str(c) for c in (column.header, *column.cells)] for column in self.columns]
        least = [max((len(w) for c in column for w in c.split()), default=0) for column in cells]
        if self.title:
            yield Text(str(self.title), "italic")
        shown, rest = [0], list(range(1, len(cells)))
        while shown:
            while rest and _width(least[i] for i in (*shown, rest[0])) <= options.max_width:
                shown.append(rest.pop(0))
            if shown == [0] and rest:
                shown.append(rest.pop(0))  # wider than the terminal, whatever is done
            yield from self._part(shown, cells, least, options.max_width)
            shown = [0] if rest else []

    def _part(self, shown: list[int], cells: list[list[str]], least: list[int], room: int) -> Iterator[Text]:
        """The lines of some columns: the widest column gives way first, down to its longest word."""
        widths = {i: max(map(len, cells[i])) for i in shown}
        while _width(widths.values()) > room and (wide := [i for i in shown if widths[i] > least[i]]):
            widths[max(wide, key=widths.__getitem__)] -= 1
        for number, row in enumerate(zip(*(cells[i] for i in shown), strict=True)):
            broken = [
                textwrap.wrap(cell, max(1, widths[i]), break_long_words=False, break_on_hyphens=False)
                for i, cell in zip(shown, row, strict=True)
            ]
            for line in itertools.zip_longest(*broken, fillvalue=""):
                aligned = (
                    cell.ljust(widths[i]) if self.columns[i].justify == "left" else cell.rjust(widths[i])
                    for i, cell in zip(shown, line, strict=True)
                )
                yield Text((" " * GAP).join(aligned).rstrip(), "" if number else "bold")


GAP = 2  # spaces between two columns


def _width(widths: Iterable[int]) -> int:
    """Of columns side by side."""
    every = list(widths)
    return sum(every) + GAP * (len(every) - 1)


def new_table(*columns: str, title: str | None = None) -> Table:
    """A table of words on the left and numbers on the right."""
    table = WordTable(title=title)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def failures_list(failures: Sequence[dict[str, str]]) -> None:
    """Failed steps, one line each; crashes with the last line of their traceback."""
    for failure in failures:
        print(f"cgap: failed: {failure['step']}: {failure['sentence']}", file=sys.stderr)
        if failure["kind"] == "crash" and failure["traceback"]:
            print(failure["traceback"], file=sys.stderr)


def doctor_table(checks: Sequence[Any]) -> None:
    """One line per check."""
    for check in checks:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
        if check.advice:
            print(f"      {check.advice}")


def published_table(contrasts: Sequence[dict[str, Any]]) -> None:
    """The published contrasts, in points: the paper's claims, then the rest."""

    def span(c: dict[str, Any]) -> str:
        return f"[{c['low']:+.1f}, {c['high']:+.1f}]"

    claims = [c for c in contrasts if c["claim"]]
    table = new_table("the paper's claims", "points", "95 % interval", "p (Holm)", "stands up to")
    for c in claims:
        bound = f"{c['max_seed_sd']:.1f} points" if c["stands"] else "does not"
        table.add_row(c["label"], f"{c['difference']:+.1f}", span(c), _p(c["p_holm"]), bound)
    console.print(table)
    console.print(
        "Binomial error alone: 500 rollouts and one training run per cell, peak of six evaluations. Seed "
        "variance is unknown: a claim falls if one run's success spreads over seeds by the standard "
        "deviation in the last column.",
        markup=False,
    )
    console.print()
    table = new_table("exploratory: no claim of the paper", "points", "95 % interval", "p, unadjusted")
    for c in contrasts:
        if not c["claim"]:
            table.add_row(c["label"], f"{c['difference']:+.1f}", span(c), _p(c["p"]))
    console.print(table)


def _p(p: float) -> str:
    """A p value; below what anyone needs to tell apart, an inequality."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def power_table(difference: float, rows: Sequence[dict[str, Any]]) -> None:
    """Power of a difference: seeds down, episodes across."""
    episodes = sorted({r["episodes"] for r in rows})
    table = new_table("seeds", *(f"{n} episodes" for n in episodes), title=f"power for {difference:g} points")
    for seeds in sorted({r["seeds"] for r in rows} - {1}):
        powers = {r["episodes"]: r["power"] for r in rows if r["seeds"] == seeds}
        table.add_row(str(seeds), *(f"{100 * powers[n]:.0f} %" if n in powers else "" for n in episodes))
    console.print(table)
    console.print("Episodes are per cell and seed; at least 80 % is what one usually wants.", markup=False)
    wrong = [r["false_positives"] for r in rows if r["seeds"] == 1]
    if wrong:
        console.print(
            "One seed is left out: its test does not see that seeds differ, and finds a difference where there "
            f"is none in {100 * min(wrong):.0f} to {100 * max(wrong):.0f} % of studies, where 5 % are meant.",
            markup=False,
        )


def study_tables(summary: dict[str, Any]) -> None:
    """What a study found: in a simulator, or on recordings."""
    if "recordings" in summary:
        offline_tables(summary)
    else:
        summary_tables(summary)
    for words in summary["version_words"]:
        console.print(words, markup=False)


def _runs(reference: dict[str, Any], episodes: int) -> str:
    """Fitted tokenizers × episodes of a reference; episodes alone where nothing random is fitted."""
    fitted = len(reference["fitted_seeds"])
    return f"{fitted} × {episodes}" if fitted else f"{episodes}"


def _fixed(summary: dict[str, Any]) -> None:
    """What was fitted once for all training seeds."""
    for sentence in summary["fixed"]:
        console.print(sentence, markup=False)


def offline_tables(summary: dict[str, Any]) -> None:
    """The chunk errors and the contrasts of a study of recordings."""

    def error(e: dict[str, Any]) -> str:
        return f"{e['value']:.3g}" + ("" if e["low"] is None else f" [{e['low']:.3g}, {e['high']:.3g}]")

    table = new_table("cell", "chunk error", "first steps", "seeds × episodes", "training")
    episodes = summary["held_out"]["episodes"]
    for cell in summary["cells"]:
        if cell["error"] is None:
            table.add_row(cell["label"], "failed" if cell["failures"] else "missing", "", "", "")
            continue
        seeds, ended = f"{len(cell['seeds'])} × {episodes}", in_words(cell["convergence"])
        table.add_row(cell["label"], error(cell["error"]), error(cell["executed_error"]), seeds, ended)
    for ref in summary["references"]:
        runs = _runs(ref, episodes)
        table.add_row(ref["label"], error(ref["error"]), error(ref["executed_error"]), runs, "")
    console.print()
    console.print(table)
    _fixed(summary)
    steps = summary["held_out"]["execute"]
    console.print(
        f"mean squared error in standard deviations², with 95 % intervals; first steps: {steps} of "
        f"{summary['study']['policy']['horizon']}",
        markup=False,
    )
    if summary["contrasts"]:
        table = new_table("contrast", "chunk error", "p", "p (Holm)")
        for c in summary["contrasts"]:
            span = f"{c['value']:+.3g} [{c['low']:+.3g}, {c['high']:+.3g}]"
            table.add_row(c["label"], span, f"{c['p']:.3g}", f"{c['p_holm']:.3g}")
        console.print()
        console.print(table)
    console.print()
    for sentence in summary["headline"]:
        console.print(sentence, markup=False)
    console.print()


def summary_tables(summary: dict[str, Any]) -> None:
    """The verdict, the grid and the contrasts of a study."""
    console.print()
    table = new_table("cell", "success", "95 % interval", "seeds × episodes", "training")
    for cell in summary["cells"]:
        if cell["rate"] is None:
            table.add_row(cell["label"], "failed" if cell["failures"] else "missing", "", "", "")
            continue
        r = cell["rate"]
        table.add_row(
            cell["label"],
            f"{100 * r['value']:.0f} %",
            _interval(r["low"], r["high"]),
            f"{len(cell['seeds'])} × {cell['episodes']}",
            in_words(cell["convergence"]),
        )
    for ref in summary["references"]:
        r = ref["rate"]
        table.add_row(
            ref["label"],
            f"{100 * r['value']:.0f} %",
            _interval(r["low"], r["high"]),
            _runs(ref, ref["episodes"]),
            "",
        )
    console.print(table)
    _fixed(summary)
    if summary["selection"]:
        console.print(
            f"success of policies: {summary['selection']['mark']}, the best evaluation of each training",
            markup=False,
        )
    if summary["contrasts"]:
        table = new_table("contrast", "points", "95 % interval", "p", "p (Holm)")
        for c in summary["contrasts"]:
            table.add_row(
                c["label"],
                f"{100 * c['value']:+.0f}",
                _interval(c["low"], c["high"]),
                f"{c['p']:.3g}",
                f"{c['p_holm']:.3g}",
            )
        console.print()
        console.print(table)
    if summary["swaps"]:
        table = new_table("controlled swap", "A, Â", "A, snapped", "Ã, Â", "Ã, snapped", "g_code, points")
        for swap in summary["swaps"]:
            gain = swap["g_code"]
            table.add_row(
                swap["label"],
                *(f"{100 * c['value']:.0f} %" for c in swap["cells"]),
                f"{100 * gain['value']:+.0f} {_interval(gain['low'], gain['high'])}",
            )
        console.print()
        console.print(table)
    if summary["probes"]:
        table = new_table("encoder", "probe: mean R² of the true state", "95 % interval")
        for p in summary["probes"]:
            m = p["mean"]
            table.add_row(p["encoder"], f"{m['value']:.2f}", f"[{m['low']:.2f}, {m['high']:.2f}]")
        console.print()
        console.print(table)
    console.print()
    for sentence in summary["headline"][:HEADLINES]:
        console.print(sentence, markup=False)
        console.print()
    said = " ".join(summary["headline"][:HEADLINES])
    for sentence in (r["sentence"] for r in summary["refusals"]):
        if sentence[1:] not in said:
            console.print(sentence[0].upper() + sentence[1:], markup=False)
            console.print()
    more = len(summary["headline"]) - HEADLINES
    if more > 0:
        console.print(
            f"{counted(more, 'more action representation stands', 'more action representations stand')} in the report."
        )


def episode_table(rows: Sequence[dict[str, Any]]) -> None:
    """Success per task, and in all."""
    table = new_table("task", "success", "episodes", "mean length")
    for task in dict.fromkeys(r["task"] for r in rows):
        own = [r for r in rows if r["task"] == task]
        mean = sum(r["length"] for r in own) / len(own)
        table.add_row(task, f"{sum(r['success'] for r in own)}", f"{len(own)}", f"{mean:.0f}")
    console.print(table)


def tokenizer_tables(found: dict[str, Any]) -> None:
    """One line for each code and prefix; then the health of the codes."""
    success = ("coded", "replay") if found["references"] else ()
    table = new_table(
        "tokenizer", "bits", "used", "tokens", "distortion", f"≤ {found['sigma']:g} σ", *success
    )
    for row in found["rows"]:
        h = row["health"]
        tokens = f"{h['tokens_mean']:.1f}" if h else f"{row['prefix']}"
        used = f"{h['used_bits']:.0f}" if h else ""
        within = f"{100 * h['within_sigma']:.0f} %" if h else ""
        rates = [_rate(r) for r in (row["expert_coded"], row["replay"]) if r]
        bits, distortion = f"{row['nominal_bits']:.0f}", f"{row['distortion']:.2g}"
        table.add_row(row["label"], bits, used, tokens, distortion, within, *rates)
    for name, r in found["references"].items():
        table.add_row(name, *[""] * 5, *(["", _rate(r)] if name == "replay" else [_rate(r), ""]))
    console.print()
    console.print(table)
    table = new_table(
        "health", "order", "dead", "perplexity", "Σ bits", "Gauss", "breaks", "encode/s", "decode/s"
    )
    for row in found["rows"]:
        if h := row["health"]:
            end = end_of_fit(h["fitting"])
            name = row["label"] + ("" if end is None or end == "converged" else f" ({WORDS[end]})")
            table.add_row(
                name, "" if h["order_preservation"] is None else f"{h['order_preservation']:.3f}", f"{100 * h['dead_codes'] / h['codes']:.0f} %",
                f"{h['mean_perplexity']:.3g}", f"{h['position_bits']:.0f}", f"{h['gaussian_reference_rate']:.0f}",
                f"{100 * h['decode_failures_corrupted']:.0f} %",
                f"{h['encode_per_second']:,.0f}", f"{h['decode_per_second']:,.0f}",
            )  # fmt: skip
    console.print()
    console.print(table)
    print(
        "bits: capacity; used: held-out cost under a prior; order: rank correlation of chunk distances; Gauss: "
        "bits of a Gaussian source at this distortion; breaks: undecodable after one wrong token; replay: a diagnostic"
    )
    if any(row["tokenizer_seed"] is not None for row in found["rows"]):
        print("A row of a tokenizer with a network is one fit: its luck is in no interval.")


def _rate(r: dict[str, Any]) -> str:
    return f"{100 * r['value']:.0f} % {_interval(r['low'], r['high'])}"
