"""Tables in the terminal of what is measured in bits: the ledger, where the bottleneck is, the calibration."""

from __future__ import annotations

from ..errors import counted
from ..information.estimate import Estimate
from ..report.format import bits
from ..results.records.bits import Ledger, Located
from ..results.records.calibration import Calibration
from .terminal import console, new_table


def _bits(of: Estimate | None) -> str:
    """Bits with their interval, and a mark where they have not converged."""
    return "" if of is None else bits(of) + (" *" if of.converged is False else "")


UNSETTLED = (
    "delivers more bits than its encoder was found to supply: it denoises better than the ledger's own network, so "
    "that demand and that supply have not settled. Raise ledger.steps (or --steps)."
)


def ledger_tables(found: Ledger) -> None:
    """Bits per action chunk: encoders, codes, pairs, policies."""
    from ..results.information import fitted_words
    from ..results.resolution import resolution_rows, resolution_words

    at = found.resolution
    console.print(
        f"bits per action chunk at resolution {at.sigma:.3g} standard deviations ({resolution_words(at)}); "
        f"{counted(found.chunks, 'held-out chunk')} of {counted(found.episodes, 'episode')}",
        markup=False,
    )
    if words := fitted_words(found.fitted_seed):
        console.print(words, markup=False)
    if rows := resolution_rows(at):
        table = new_table("σ*, in standard deviations", "all tasks", *rows[0].tasks)
        for row in rows:
            table.add_row(row.noise, row.pooled, *(row.tasks.get(t, "") for t in rows[0].tasks))
        console.print(table)
    console.print(
        f"demand of the task, I(A; A_σ): {_bits(found.demand)}; Gaussian {_two(found.demand.probe)}",
        markup=False,
    )
    lost = found.width_control.lost
    table = new_table("encoder", "supply I(Z; A_σ)", "visual supply", "lost at width", "Gaussian probe")
    for e in found.encoders:
        v, own = e.visual_supply, lost.get(e.encoder)
        table.add_row(e.encoder, _bits(e.supply), _bits(v), _two(own), _two(v.probe))
    console.print(table)
    if prefix := found.prefix:
        supplies = [f"{e.encoder} {_bits(e.supply)}" for e in prefix.encoders]
        console.print(
            f"of the {prefix.steps} steps that are executed: demand {_bits(prefix.demand)}; supply "
            + ", ".join(supplies),
            markup=False,
        )
    if found.codes:
        table = new_table("code", "capacity", "used", "kept I(T; A_σ)", "distortion")
        for c in found.codes:
            used = f"{c.used_bits:.1f}" + ("" if c.prior_converged else " *")
            table.add_row(c.code, f"{c.capacity_bits:.1f}", used, _bits(c.kept), f"{c.distortion:.4f}")
        console.print(table)
        table = new_table("encoder", "code", "gap I(Z; A_σ|T)", "passes", "held back by")
        binding = {(b.encoder, b.code): b for b in found.binding}
        for p in found.pairs:
            b = binding.get((p.encoder, p.code))
            words = "" if b is None else b.stage or ("both" if b.jointly else "not separated")
            table.add_row(p.encoder, p.code, _bits(p.gap), _bits(p.passes), words)
        console.print(table)
    if found.delivered:
        table = new_table("policy", "seeds", "delivered", "bits of")
        for d in found.delivered:
            of = {"continuous": "the chunk", "tokens": "the tokens"}.get(d.kind or "", "")
            table.add_row(d.policy, str(d.seeds), _bits(d.bits) if d.bits else "no likelihood", of)
        console.print(table)
    for beyond in found.beyond_supply:
        console.print(f"{beyond.policy} {UNSETTLED}", markup=False)
    console.print(
        "* not converged: more episodes would still move it, or much is lost at this width", markup=False
    )


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def locate_list(found: Located) -> None:
    """Verdicts in words, with costs and what to run next."""
    for v in found.success:
        console.print(f"{v.label}: {v.sentence}", markup=False)
        for name, ended in v.unconverged.items():
            console.print(f"  training not converged: {name}: {ended}", markup=False)
        for c in v.costs:
            hours = "" if c.hours is None else f", {c.hours:.2f} h of training"
            size = "" if not c.parameters else f": {c.parameters / 1e6:.1f} M parameters"
            flops = "" if not c.flops else f", {c.flops / 1e9:.2f} GFLOPs a decision"
            console.print(f"  {c.what}{size}{flops}{hours}", markup=False)
        console.print(f"  next: {v.next}", markup=False)
    for b in found.bits:
        console.print(b.sentence, markup=False)
        console.print(f"  next: {b.next}", markup=False)


def calibration_tables(found: Calibration) -> None:
    """The calibration in short."""
    table = new_table("distribution", "true", "I-MMSE", "Gaussian probe")
    for k in found.known:
        table.add_row(k.name, f"{k.truth:.2f}", _bits(k.estimate), f"{k.probe.value:.2f}")
    console.print(table)
    table = new_table("known among many columns", "true", "mean", "flagged", "worthless upgrade holds 0")
    for w in found.wide:
        holds = w.upgrade_holds_zero
        table.add_row(
            w.label, f"{w.truth:.2f}", f"{w.mean:.2f}", f"{100 * w.flagged:.0f} %",
            "" if holds is None else f"{100 * holds:.0f} %",
        )  # fmt: skip
    console.print(table)
    table = new_table("channel", "encoder", "code", "true", "estimated")
    for b in found.bits:
        table.add_row(b.quantity, b.encoder, b.code, f"{b.truth:.2f}", _bits(b.estimate))
    console.print(table)
    named = [(f"simulated, {a.seeds} seed{'' if a.seeds == 1 else 's'}", a) for a in found.simulated.by_seeds]
    for name, a in [*named, ("trained", found.trained)]:
        console.print(
            f"verdicts, {name}: {a.right} of {a.cells} right, {a.wrong} wrong, {a.unresolved} not "
            f"separated; {a.named_in_ties} of {a.ties} ties named",
            markup=False,
        )
    for quantity, (low, high) in found.interval_coverage.items():
        console.print(
            f"95 % intervals of the {quantity} cover in {100 * low:.1f} to {100 * high:.1f} %", markup=False
        )
