"""The calibration page: Markdown, with one figure beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes

from ..results.records.calibration import (
    BitsCheck,
    Calibration,
    CoverageRow,
    GrowingRow,
    Known,
)
from ..statistics.coverage import Runs, Setting
from .figures import style
from .format import bits


def write_calibration_page(found: Calibration, path: Path) -> None:
    """Write the page and ``calibration.svg`` beside it."""
    picture = path.with_suffix(".svg")
    picture.write_text(_standalone(estimated_against_true(found)))
    path.write_text(_text(found, picture.name))


def _standalone(svg: str) -> str:
    return svg.replace('width="100%"', 'width="680"', 1)


def estimated_against_true(found: Calibration) -> str:
    """Bits estimated against bits known: estimators alone, and the channel's quantities."""
    with rc_context({**style.STYLE, "axes.grid.axis": "both"}):
        figure, axes = style.subplots(1, 2, figsize=(7.6, 3.9))
        _scatter(
            axes[0],
            "estimators alone",
            [("I-MMSE", found.known, "estimate"), ("Gaussian probe", found.known, "probe")],
        )
        groups = {q: [b for b in found.bits if b.quantity == q] for q in ("demand", "supply", "kept", "gap")}
        _scatter(
            axes[1], "the channel, with fitted codes", [(q, rows, "estimate") for q, rows in groups.items()]
        )
        axes[0].set_ylabel("estimated, bits")
        figure.tight_layout()
        return style.svg(figure, "Estimated against true")


def _scatter(axes: Axes, title: str, series: Sequence[tuple[str, Sequence[Known | BitsCheck], str]]) -> None:
    truths = [r.truth for _, rows, _ in series for r in rows]
    top = 1.05 * max(truths)
    axes.plot([0, top], [0, top], color=style.GREY, lw=0.8, ls=(0, (4, 3)))
    for i, (name, rows, key) in enumerate(series):
        x, estimates = [r.truth for r in rows], [getattr(r, key) for r in rows]
        axes.errorbar(
            x, [e.value for e in estimates], yerr=style.bars(estimates), ls="", ms=5, capsize=2, elinewidth=0.9,
            color=style.PALETTE[i], marker=style.MARKERS[i % len(style.MARKERS)], label=name,
        )  # fmt: skip
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("true, bits")
    axes.legend(fontsize=8.5)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _cells(setting: Setting) -> str:
    """The cells of a simulated study: success, spread of its seeds in points, number of seeds."""
    cells = setting.cells or (Runs(setting.rate, setting.seed_sd, setting.seeds),)
    return ", ".join(f"{c.rate:g} ± {c.seed_sd:g} × {c.seeds}" for c in cells)


def _width(row: CoverageRow) -> str:
    width = row.found.width
    return f"{width / 100:.2f} log odds" if row.quantity == "log odds" else f"{width:.1f}"


def _growing(rows: Sequence[GrowingRow]) -> list[str]:
    """What studies cost that stop when they know, and how often they are right."""
    return [
        "## Studies that stop when they know",
        "Simulated studies that ask for the bottleneck of a policy of three stages (rate 45 %, 100 states, 2 tasks). Replacing "
        "one stage gains so many points, the others nothing. Each adds seeds in rounds, up to the most, until one stage "
        "is established above all others (`--until separated`). The fixed design of equal power has so many seeds that "
        "it names the right stage at 10 points as often; the cost is the mean number of seeds of a configuration beside it.",
        _table(
            ["most seeds, spread", "true gain", "right stage", "wrong stage", "seeds taken", "fixed design", "cost",
             "gains' intervals hold the truth"],
            [
                [f"{r.setting.seeds}, ± {r.setting.seed_sd:g} points", f"{r.gain:g} points", _percent(r.found.right),
                 _percent(r.found.wrong), f"{r.found.seeds:.1f}", f"{r.equal_seeds:.1f}", f"{100 * r.cost:.0f} %",
                 _percent(r.found.covered)]
                for r in rows
            ],
        ),
    ]  # fmt: skip


def _text(found: Calibration, picture: str) -> str:
    known, channel, simulated, trained = found.known, found.bits, found.simulated, found.trained
    wide = found.wide
    holds = [w.upgrade_holds_zero for w in wide if w.upgrade_holds_zero is not None]
    command = "cgap calibrate --quick" if found.quick else "cgap calibrate"
    parts = [
        "# Calibration",
        "Every instrument of this program, held to a truth that is known in closed form or by numerical integration. "
        f"Made by `{command}` (version {found.version}); [theory.md](theory.md) explains the quantities.",
        f"![Estimated against true bits]({picture})",
        "## In short",
        "\n".join(
            [
                f"- Estimators alone: {sum(k.within for k in known)} of {len(known)} within their limits "
                "(Gaussian: 3 % or 0.1 bit; others: 10 % or 0.3 bit); "
                f"{sum(k.covered for k in known)} of {len(known)} intervals hold the truth.",
                f"- Known information among many columns: the mean estimate is within 10 % or 0.3 bit in "
                f"{sum(w.within for w in wide)} of {len(wide)} settings; of {sum(w.draws for w in wide)} draws "
                f"{sum(w.tight_and_wrong for w in wide)} are off by more, called converged, and outside their interval; "
                f"a worthless upgrade's interval holds 0 in {_percent(min(holds))} to {_percent(max(holds))} of draws.",
                f"- The channel: {sum(b.within for b in channel)} of {len(channel)} quantities within 10 % or 0.3 bit; "
                f"{sum(b.covered for b in channel)} intervals hold the truth.",
                f"- Verdicts on simulated studies of 2, 3 and 5 seeds: {_percent(simulated.all.accuracy)} right where the true single-stage "
                f"gains differ by 5 points or more ({simulated.all.cells} studies; {simulated.all.wrong} name another stage, "
                f"{simulated.all.unresolved} say that the stages are not separated); "
                f"a stage is named in {simulated.all.named_in_ties} of {simulated.all.ties} true ties.",
                *(
                    f"  - With {v.seeds} seed{'' if v.seeds == 1 else 's'}: {v.right} of {v.cells} right, "
                    f"{v.wrong} wrong, {v.unresolved} not separated; {v.named_in_ties} of {v.ties} ties named."
                    for v in simulated.by_seeds
                ),
                f"- Verdicts with trained policies and fitted tokenizers: {trained.right} of {trained.cells} right, "
                f"{trained.wrong} wrong, {trained.unresolved} not separated; "
                f"{trained.named_in_ties} of {trained.ties} ties named.",
                *(
                    f"- 95 % intervals of the {q} cover the truth in {_percent(low)} to {_percent(high)} of simulated studies."
                    for q, (low, high) in found.interval_coverage.items()
                ),
            ]
        ),
        "## Estimators alone",
        "I(C; A_σ) of distributions whose information is known, in bits, from held-out samples. The Gaussian probe is "
        "the linear part of the estimate; where it misses, the network is what finds the rest.",
        _table(
            ["distribution", "true", "I-MMSE", "Gaussian probe", "within its limit", "interval holds it"],
            [
                [k.name, f"{k.truth:.2f}", bits(k.estimate), f"{k.probe.value:.2f}",
                 _yes(k.within), _yes(k.covered)]
                for k in known
            ],
        ),
        "## Known information among many columns",
        "Three numbers, or two that act through cos πC, lie among columns that say nothing, in features of a given width "
        "and spectrum; frames of an episode hang together. *Alone* the numbers are given as they are. *Lost*: what the "
        "width control says is lost. The *upgrade* from the features to the numbers is worth nothing: the last column "
        "is the share of draws whose interval says so. Estimates here are made with a twentieth of a ledger's steps.",
        _table(
            ["setting", "draws", "true", "mean estimate", "Gaussian probe", "lost", "within 10 % or 0.3 bit",
             "interval holds the truth", "flagged as not converged", "unflagged, off and outside", "upgrade", "its interval holds 0"],
            [
                [w.label, str(w.draws), f"{w.truth:.2f}",
                 f"{w.mean:.2f}" + ("" if w.spread is None else f" ± {w.spread:.2f}"), f"{w.probe:.2f}", f"{w.lost:.2f}",
                 _yes(w.within), _percent(w.covered), _percent(w.flagged), str(w.tight_and_wrong),
                 "–" if w.upgrade is None else f"{w.upgrade:+.2f}", _percent(w.upgrade_holds_zero)]
                for w in wide
            ],
        ),
        "## The channel",
        "Z is the goal in b bits a dimension (`oracle-1b`, …), the codes are OAT tokenizers fitted to the "
        "demonstrations, and the truth is integrated over the partition of goals that each makes.",
        _table(
            ["quantity", "encoder", "code", "true", "estimated", "within", "interval holds it"],
            [
                [b.quantity, b.encoder, b.code, f"{b.truth:.2f}", bits(b.estimate), _yes(b.within), _yes(b.covered)]
                for b in channel
            ],
        ),
        "## Trained policies",
        "Success against that of an ideal policy which draws from its posterior. A trained one falls short of it by "
        "what it has not learned.",
        _table(
            ["cell", "true of an ideal policy", "measured", "training"],
            [
                [s.label, _percent(s.truth),
                 "–" if s.rate is None else f"{_percent(s.rate.value)} [{100 * s.rate.low:.0f}, {100 * s.rate.high:.0f}]",
                 s.training]
                for s in found.success
            ],
        ),
        _table(
            ["cell", "true gain of the encoder", "of the code", "stage that leads", "verdict"],
            [
                [v.label, f"{100 * v.truth['encoder']:+.0f}", f"{100 * v.truth['code']:+.0f}" if "code" in v.truth else "–",
                 v.expected or "tie", v.stage or "not separated"]
                for v in found.verdicts
            ],
        ),
        "## Coverage of success intervals",
        "Simulated studies with the variance of tasks, of states (shared by all cells, and of each), of seeds and of "
        "seeds within tasks. Share of 95 % intervals that hold the truth, with its own Wilson interval.",
        _table(
            ["quantity", "cells: rate ± seed spread × seeds", "states", "tasks", "mean width, points", "coverage"],
            [
                [c.quantity, _cells(c.setting), str(c.setting.states), str(c.setting.tasks), _width(c),
                 f"{_percent(c.found.share)} [{100 * c.found.low:.1f}, {100 * c.found.high:.1f}]"]
                for c in found.coverage
            ],
        ),
        *_growing(found.growing),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"
