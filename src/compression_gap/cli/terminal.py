"""What people see in a terminal: tables. Numbers come with unit and interval."""

from __future__ import annotations

import itertools
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import counted
from ..nn.convergence import WORDS
from ..report.format import outcome, percent, points, signed, span
from ..results.records.cells import Cell, Outcome, Reference
from ..results.records.comparisons import PublishedContrast
from ..results.records.rounds import Sequential
from ..results.records.study import ErrorSummary, SimulatorFindings, SuccessSummary
from ..results.records.tokenizers import TokenizerTable
from ..statistics.intervals import Interval
from ..statistics.power import Design
from ..store.pace import time_left

if TYPE_CHECKING:
    from ..api.study import Status
    from ..rollouts.run import EpisodeRow

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


def status_lines(state: Status) -> list[str]:
    """How far a study is: a line, and one for each step that is running or has failed."""
    left = "" if state.done == state.steps else f"; {time_left(state.seconds_left)}"
    lines = [
        f"{state.study}: {state.done} of {counted(state.steps, 'step')} done, {len(state.failed)} failed{left}"
    ]
    for step in state.running:
        share = f"{100 * step.done / step.total:.0f} %, " if step.total else ""
        lines.append(f"  running: {step.step}: {share}{step.seconds:.0f} s")
    lines += [f"  failed: {failure['step']}: {failure['sentence']}" for failure in state.failed]
    return lines


def follow(look: Callable[[], Status], every: float) -> None:
    """Show a study's status again and again, in place on a terminal, until nothing is left or nothing runs."""
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            state = look()
            live.update(Text("\n".join(status_lines(state))), refresh=True)
            if not state.running:
                return
            time.sleep(every)


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


def published_table(contrasts: Sequence[PublishedContrast]) -> None:
    """The published contrasts, in points: the paper's claims, then the rest."""

    def span(c: PublishedContrast) -> str:
        return f"[{c.low:+.1f}, {c.high:+.1f}]"

    table = new_table("the paper's claims", "points", "95 % interval", "p (Holm)", "stands up to")
    for c in contrasts:
        if c.claim and c.p_holm is not None:
            bound = f"{c.max_seed_sd:.1f} points" if c.stands else "does not"
            table.add_row(c.label, f"{c.difference:+.1f}", span(c), _p(c.p_holm), bound)
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
        if not c.claim:
            table.add_row(c.label, f"{c.difference:+.1f}", span(c), _p(c.p))
    console.print(table)


def _p(p: float) -> str:
    """A p value; below what anyone needs to tell apart, an inequality."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def power_table(difference: float, rows: Sequence[Design]) -> None:
    """Power of a difference: seeds down, episodes across."""
    episodes = sorted({r.episodes for r in rows})
    table = new_table("seeds", *(f"{n} episodes" for n in episodes), title=f"power for {difference:g} points")
    for seeds in sorted({r.seeds for r in rows} - {1}):
        powers = {r.episodes: r.power for r in rows if r.seeds == seeds}
        table.add_row(str(seeds), *(percent(powers[n]) if n in powers else "" for n in episodes))
    console.print(table)
    console.print("Episodes are per cell and seed; at least 80 % is what one usually wants.", markup=False)
    wrong = [r.false_positives for r in rows if r.seeds == 1]
    if wrong:
        console.print(
            "One seed is left out: its test does not see that seeds differ, and finds a difference where there "
            f"is none in {100 * min(wrong):.0f} to {100 * max(wrong):.0f} % of studies, where 5 % are meant.",
            markup=False,
        )


def say_look(state: str) -> None:
    """One line after each look of a study that grows by seeds."""
    print(f"cgap: looked: {state}", file=sys.stderr)


def study_tables(summary: SuccessSummary | ErrorSummary) -> None:
    """What a study found: all configurations, the contrasts, what its measurement adds, and the headline."""
    if isinstance(summary.found, SimulatorFindings):
        _success_tables(summary)
    else:
        _error_tables(summary)
    if summary.sequential is not None:
        _looks_table(summary.sequential)
    for words in summary.version_words:
        console.print(words, markup=False)


def _looks_table(found: Sequential) -> None:
    """What was asked, with intervals that know of the looks."""
    table = new_table("question", "looks", "seeds", "ended")
    for q in found.looked:
        seeds = sorted(set(q.seeds.values()))
        table.add_row(
            q.label, f"{q.looks}", " to ".join(str(n) for n in (seeds[0], seeds[-1])[: len(seeds)]), q.ended
        )
    console.print(table)
    console.print(
        f"grown by seeds until '{found.question}' is answered: {found.state}; {found.measured} of {found.most} "
        "configurations × seeds are measured",
        markup=False,
    )


def _all_cells(
    cells: Sequence[Cell[Outcome]],
    references: Sequence[Reference[Outcome]],
    value: str,
    beside: str,
    episodes: int,
    fixed: Sequence[str],
) -> None:
    """The table of all configurations and references; then what was fitted once for all training seeds."""
    table = new_table("cell", value, beside, "seeds × episodes", "training")
    for cell in cells:
        shown = outcome(cell.outcome)
        if shown is None:
            table.add_row(cell.label, "failed" if cell.training.failures else "missing", "", "", "")
        else:
            table.add_row(cell.label, *shown, f"{len(cell.seeds)} × {episodes}", cell.training.ended)
    for ref in references:
        fitted = len(ref.fitted_seeds)
        runs = f"{fitted} × {episodes}" if fitted else f"{episodes}"
        table.add_row(ref.label, *(outcome(ref.outcome) or ("", "")), runs, "")
    console.print()
    console.print(table)
    for sentence in fixed:
        console.print(sentence, markup=False)


def _error_tables(summary: ErrorSummary) -> None:
    """The chunk errors and the contrasts of a study of recordings."""
    held = summary.found.held_out
    _all_cells(summary.cells, summary.references, "chunk error", "first steps", held.episodes, summary.fixed)
    console.print(
        f"mean squared error in standard deviations², with 95 % intervals; first steps: {held.execute} of "
        f"{summary.study.policy.horizon}",
        markup=False,
    )
    if summary.contrasts:
        table = new_table("contrast", "chunk error", "p", "p (Holm)")
        for c in summary.contrasts:
            table.add_row(c.label, signed(c.found), f"{c.found.p:.3g}", f"{c.p_holm:.3g}")
        console.print()
        console.print(table)
    console.print()
    for sentence in summary.headline:
        console.print(sentence, markup=False)
    console.print()


def _success_tables(summary: SuccessSummary) -> None:
    """The verdict, the grid and the contrasts of a study in a simulator."""
    found, episodes = summary.found, (summary.cells or summary.references)[0].outcome.episodes
    _all_cells(summary.cells, summary.references, "success", "95 % interval", episodes, summary.fixed)
    if found.selection:
        words = f"success of policies: {found.selection.mark}, the best evaluation of each training"
        console.print(words, markup=False)
    if summary.contrasts:
        table = new_table("contrast", "points", "95 % interval", "p", "p (Holm)")
        for c in summary.contrasts:
            numbers = (points(c.found.value), span(c.found), f"{c.found.p:.3g}", f"{c.p_holm:.3g}")
            table.add_row(c.label, *numbers)
        console.print()
        console.print(table)
    if found.swaps:
        table = new_table(
            "matched-head ablation", "A, Â", "A, requantised", "Ã, Â", "Ã, requantised", "g_code, points"
        )
        for swap in found.swaps:
            gain = f"{points(swap.g_code.value)} {span(swap.g_code)}"
            table.add_row(swap.label, *(percent(c.value) for c in swap.cells), gain)
        console.print()
        console.print(table)
    if summary.probes:
        table = new_table("encoder", "probe: mean R² of the true state", "95 % interval")
        for p in summary.probes:
            table.add_row(p.encoder, f"{p.mean.value:.2f}", f"[{p.mean.low:.2f}, {p.mean.high:.2f}]")
        console.print()
        console.print(table)
    console.print()
    for sentence in summary.headline[:HEADLINES]:
        console.print(sentence, markup=False)
        console.print()
    said = " ".join(summary.headline[:HEADLINES])
    for sentence in (r.sentence for r in found.refusals):
        if sentence[1:] not in said:
            console.print(sentence[0].upper() + sentence[1:], markup=False)
            console.print()
    more = len(summary.headline) - HEADLINES
    if more > 0:
        words = counted(more, "more action representation stands", "more action representations stand")
        console.print(f"{words} in the report.")


def episode_table(rows: Sequence[EpisodeRow]) -> None:
    """Success per task, and in all."""
    table = new_table("task", "success", "episodes", "mean length")
    for task in dict.fromkeys(r.task for r in rows):
        own = [r for r in rows if r.task == task]
        mean = sum(r.length for r in own) / len(own)
        table.add_row(task, f"{sum(r.success for r in own)}", f"{len(own)}", f"{mean:.0f}")
    console.print(table)


def tokenizer_tables(found: TokenizerTable) -> None:
    """One line for each code and prefix; then the diagnostics of the codes."""
    success = ("coded", "replay") if found.references else ()
    table = new_table("tokenizer", "bits", "used", "tokens", "distortion", f"≤ {found.sigma:g} σ", *success)
    for row in found.rows:
        h = row.health
        table.add_row(
            row.label,
            f"{row.nominal_bits:.0f}",
            f"{h.used_bits:.0f}" if h else "",
            f"{h.tokens_mean:.1f}" if h else f"{row.prefix}",
            f"{row.distortion:.2g}",
            percent(h.within_sigma) if h else "",
            *(_rate(r) for r in (row.expert_coded, row.replay) if r),
        )
    for name, r in found.references.items():
        table.add_row(name, *[""] * 5, *(["", _rate(r)] if name == "replay" else [_rate(r), ""]))
    console.print()
    console.print(table)
    table = new_table(
        "health", "order", "dead", "perplexity", "Σ bits", "Gauss", "breaks", "encode/s", "decode/s"
    )
    for row in found.rows:
        if h := row.health:
            end = h.convergence
            table.add_row(
                row.label + ("" if end is None or end == "converged" else f" ({WORDS[end]})"),
                "" if h.order_preservation is None else f"{h.order_preservation:.3f}",
                percent(h.dead_codes / h.codes),
                f"{h.mean_perplexity:.3g}",
                f"{h.position_bits:.0f}",
                f"{h.gaussian_reference_rate:.0f}",
                percent(h.decode_failures_corrupted),
                f"{h.encode_per_second:,.0f}",
                f"{h.decode_per_second:,.0f}",
            )
    console.print()
    console.print(table)
    print(
        "bits: capacity; used: held-out cost under a prior; order: rank correlation of chunk distances; Gauss: "
        "bits of a Gaussian source at this distortion; breaks: undecodable after one wrong token; replay: a diagnostic"
    )
    if any(row.tokenizer_seed is not None for row in found.rows):
        print("A row of a tokenizer with a network is one fit: its luck is in no interval.")


def _rate(r: Interval) -> str:
    return f"{percent(r.value)} {span(r)}"
