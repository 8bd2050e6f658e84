"""The matched-head tokenizer ablation: one head with its code switched on in training, in execution, or in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..statistics import intervals as statistics
from ..study.cells import Executed, TrainedOn
from .comparisons import CellMeasurement, find_measured
from .evidence import SuccessGroup
from .measurement import code_words, conditioning_words
from .records.comparisons import Swap, SwapCell


def swaps(of: CellMeasurement, found: Sequence[SuccessGroup]) -> list[Swap]:
    """The matched-head ablation's 2 × 2 tables: trained on {A, Ã} × executed {Â, snapped} (docs/theory.md).

    One table a head, encoder, size, number of demonstrations, tokenizer and codebook. Training seeds are the
    replicates, each with its own fitted tokenizer. With fixed tokenizer seeds, several are the replicates, each averaged
    over its training seeds; with one, the spread between fitted tokenizers is unknown, which the table says.
    """
    tables: dict[tuple[Any, ...], dict[tuple[TrainedOn, Executed], list[SuccessGroup]]] = {}
    for g in found:
        if g.cell.swapped and g.cell.code is not None and g.rows is not None:
            c, code = g.cell, g.cell.code
            at = (c.encoder, c.action, c.size, c.demos, c.task, code.tokenizer, code.codebook)
            tables.setdefault(at, {}).setdefault((c.trained_on, c.executed), []).append(g)
    factors, out = of.study.factors, []
    for cells in tables.values():
        one = next(iter(cells.values()))[0].cell
        plain = find_measured(found, replace(one, code=None, trained_on="chunk", executed="chunk"))
        if plain is None or len(cells) < 3:
            continue
        whole = cells["coded", "snapped"]
        head = whole[0].cell
        assert head.code is not None
        rows = {k: _replicates(groups) for k, groups in cells.items()} | {("chunk", "chunk"): plain.evidence}

        def against(
            trained_on: TrainedOn,
            executed: Executed,
            rows: Mapping[tuple[TrainedOn, Executed], np.ndarray] = rows,
        ) -> statistics.Contrast:
            pair = [rows["chunk", "chunk"], rows[trained_on, executed]]
            return statistics.contrast(pair, [1, -1], of.strata)

        words = [head.encoder, *([head.size] if len(factors.size) > 1 else [])]
        words += [w for w in code_words(head.code, of.study) if "seed" not in w]
        words += conditioning_words(head.task, of.study) + [f"{head.demos} demos"] * (len(factors.demos) > 1)
        places: list[tuple[TrainedOn, Executed]] = [
            ("chunk", "chunk"), ("chunk", "snapped"), ("coded", "chunk"), ("coded", "snapped"),
        ]  # fmt: skip
        out.append(
            Swap(
                label=" · ".join([head.representation, *words]),
                encoder=head.encoder,
                action=head.action,
                tokenizer=head.code.tokenizer,
                codebook=head.code.codebook,
                cells=[
                    SwapCell(
                        **vars(statistics.rate_interval(rows[at], of.strata)),
                        trained_on=at[0],
                        executed=at[1],
                    )
                    for at in places
                ],
                g_code=against("coded", "snapped"),
                training=against("coded", "chunk"),
                execution=against("chunk", "snapped"),
                tokenizer_seeds=len(whole[0].seeds) if head.code.seed == "training" else len(whole),
                tokenizer_is_trained=head.code.seed is not None,
            )
        )
    return out


def _replicates(groups: Sequence[SuccessGroup]) -> np.ndarray:
    """Rows [replicates, states] of cells that differ in the tokenizer's seed alone."""
    if len(groups) == 1:
        return groups[0].evidence
    return np.stack([g.evidence.mean(0) for g in groups])
