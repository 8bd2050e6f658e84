"""The comparison of tokenizers, read from its artefacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import __version__
from ..artifacts.episodes import Episodes, Replay
from ..information.entropy import Position
from ..information.health import Prefix
from ..statistics.intervals import rate_interval
from ..store.store import Store
from ..study.tokenizer_table import TablePlan
from .records.tokenizers import Health, RolledOut, TokenizerRow, TokenizerTable


def read_table(plan: TablePlan, store: Store, suite: str | None = None) -> TokenizerTable:
    """Everything that the table and the page show; raises ``UserError`` while it is incomplete."""
    rows, measured = [], [_health(store.meta(row.health)) for row in plan.rows]
    for row, health in zip(plan.rows, measured, strict=True):
        tokens = row.prefix or health.prefixes[-1].tokens
        (of_prefix,) = (p for p in health.prefixes if p.tokens == tokens)
        whole = row.prefix is None
        rows.append(
            TokenizerRow(
                label=row.code.name if whole else f"{row.code.name}, first {row.prefix}",
                tokenizer=row.code.tokenizer,
                codebook=row.code.codebook,
                tokenizer_seed=row.code.seed,
                prefix=row.prefix,
                nominal_bits=of_prefix.bits,
                distortion=of_prefix.distortion,
                expert_coded=None if row.coded is None else _rolled_out(store, row.coded),
                replay=None if row.replay is None else _rolled_out(store, row.replay),
                health=health if whole else None,
            )
        )
    return TokenizerTable(
        version=__version__,
        suite=suite,
        tasks=plan.tasks,
        demos=[d.key for d in plan.demos],
        horizon=plan.spec.horizon,
        execute=plan.spec.execute,
        sigma=plan.spec.sigma,
        chunks=measured[0].chunks,
        episodes=measured[0].episodes,
        machine=measured[0].machine,
        eigenvalues=measured[0].covariance_eigenvalues,
        section=plan.spec.section,
        protocol=None if plan.protocol is None else plan.protocol.hash,
        references={name: _rolled_out(store, of) for name, of in plan.references.items()},
        rows=rows,
    )


def _health(meta: Mapping[str, Any]) -> Health:
    lists = {
        "positions": [Position(**p) for p in meta["positions"]],
        "prefixes": [Prefix(**p) for p in meta["prefixes"]],
    }
    return Health(**{**meta, **lists})


def _rolled_out(store: Store, of: Episodes | Replay) -> RolledOut:
    rows = of.load(store)
    tasks, task = np.unique(rows["task"], return_inverse=True)
    success = rows["success"].astype(float)
    return RolledOut(
        **vars(rate_interval(success[None], task)),
        episodes=len(success),
        per_task={str(t): float(success[task == i].mean()) for i, t in enumerate(tasks)},
    )
