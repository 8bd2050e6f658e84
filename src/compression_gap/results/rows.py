"""The episodes of a study as one table: a row an episode, with the levels of the policy that played it."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from ..artifacts.episodes import Episodes, read_table
from ..store.store import Store
from ..study.plan import Plan
from ..tokenizers.code import Code

LEVELS = pa.schema(
    [
        ("played_by", pa.string()),  # policy, snapped, expert, expert-chunked, expert-coded
        ("encoder", pa.string()),
        ("action", pa.string()),
        ("size", pa.string()),
        ("demos", pa.int64()),
        ("tokenizer", pa.string()),
        ("codebook", pa.string()),  # FSQ levels, as 8x5x5x5; with a slash between those of each position
        ("tokenizer_seed", pa.int64()),
        ("task_enters", pa.string()),
        ("trained_on", pa.string()),
        ("executed", pa.string()),
        ("seed", pa.int64()),
        ("checkpoint", pa.int64()),  # the training step; null for the last one
    ]
)
Levels = dict[str, str | int | None]


def episode_rows(plan: Plan, store: Store) -> pa.Table:
    """All episodes of the cells and references that are measured; levels that an actor lacks are null.

    The columns are ``LEVELS``, then those of ``rollouts.run.EPISODE_SCHEMA``. Raises ``UserError`` for damage.
    """
    tables = []
    for levels, episodes in _played(plan):
        if store.has(episodes):
            rows = read_table(episodes, store)
            own = [pa.array([levels.get(f.name)] * len(rows), f.type) for f in LEVELS]
            tables.append(pa.table([*own, *rows.columns], names=[*LEVELS.names, *rows.column_names]))
    return pa.concat_tables(tables) if tables else LEVELS.empty_table()


def _played(plan: Plan) -> Iterator[tuple[Levels, Episodes]]:
    for cell in plan.cells:
        levels: Levels = {
            "encoder": cell.encoder,
            "action": cell.action,
            "size": cell.size,
            "demos": cell.demos,
            "task_enters": cell.task,
            "trained_on": cell.trained_on,
            "executed": cell.executed,
            "seed": cell.seed,
            **_code(cell.code, cell.seed),
        }
        for step, episodes in (*cell.checkpoints, (None, cell.evidence)):
            yield {**levels, "played_by": episodes.actor, "checkpoint": step}, episodes
    for reference in plan.references:
        for fitted, episodes in reference.runs.items():
            code = {} if reference.code is None else _code(reference.code, fitted or 0)
            yield {"played_by": reference.actor, "demos": reference.demos, **code}, episodes


def _code(code: Code | None, seed: int) -> Levels:
    if code is None:
        return {}
    return {
        "tokenizer": code.tokenizer,
        "codebook": None if code.codebook is None else "/".join("x".join(map(str, p)) for p in code.codebook),
        "tokenizer_seed": code.fitted(seed).seed_number,
    }
