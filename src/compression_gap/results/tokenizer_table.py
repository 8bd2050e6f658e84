"""The table of a comparison of tokenizers, as it was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import __version__
from ..artifacts.episodes import Episodes, Replay
from ..statistics import intervals
from ..store.store import Store
from ..study.tokenizer_table import TablePlan


def table(plan: TablePlan, store: Store) -> dict[str, Any]:
    """Everything that the table and the page show. JSON values; raises ``UserError`` while it is incomplete."""

    def rate(of: Episodes | Replay | None) -> dict[str, Any] | None:
        if of is None:
            return None
        rows = of.load(store)
        tasks, task = np.unique(rows["task"], return_inverse=True)
        success = rows["success"].astype(float)
        found = vars(intervals.rate_interval(success[None], task))
        return {
            **found,
            "episodes": len(success),
            "per_task": {str(t): float(success[task == i].mean()) for i, t in enumerate(tasks)},
        }

    rows = []
    for row in plan.rows:
        health = store.meta(row.health)
        tokens = row.prefix or health["prefixes"][-1]["tokens"]
        (of_prefix,) = (p for p in health["prefixes"] if p["tokens"] == tokens)
        whole = row.prefix is None
        rows.append(
            {
                "label": row.code.name if whole else f"{row.code.name}, first {row.prefix}",
                "tokenizer": row.code.tokenizer,
                "codebook": None if row.code.codebook is None else [list(p) for p in row.code.codebook],
                "tokenizer_seed": row.code.seed,
                "prefix": row.prefix,
                "nominal_bits": of_prefix["bits"],
                "distortion": of_prefix["distortion"],
                "expert_coded": rate(row.coded),
                "replay": rate(row.replay),
                "health": health if whole else None,
            }
        )
    first = store.meta(plan.rows[0].health)
    return {
        "version": __version__,
        "tasks": list(plan.tasks),
        "demos": [d.key for d in plan.demos],
        "horizon": plan.spec.horizon,
        "execute": plan.spec.execute,
        "sigma": plan.spec.sigma,
        "chunks": first["chunks"],
        "episodes": first["episodes"],
        "machine": first["machine"],
        "eigenvalues": first["covariance_eigenvalues"],
        "section": plan.spec.section.model_dump(mode="json"),
        "protocol": None if plan.protocol is None else plan.protocol.hash,
        "references": {name: rate(of) for name, of in plan.references.items()},
        "rows": rows,
    }
