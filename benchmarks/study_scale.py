"""Planning, status and report of a large study, and the list of a large store: rows are made up, all else is real.

    python benchmarks/study_scale.py [--cells 10000] [--episodes 500] [--folder FOLDER]

A study on the channel of so many cells has its policies' records and its episodes written without a simulator. Each
verb is then run as a program.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import yaml
from rows import show

from compression_gap.artifacts.episodes import FILE
from compression_gap.rollouts.run import EPISODE_SCHEMA
from compression_gap.store.store import Recipe, Store
from compression_gap.study.file import parse_study
from compression_gap.study.plan import Plan, make_plan

ENCODERS = [f"retina-{size}" for size in range(2, 12)]
CODEBOOKS = ["fsq-240", "fsq-512", "fsq-1000", "fsq-1920", "fsq-4375"]


def study(cells: int, episodes: int) -> str:
    """A study file: 10 encoders, 8 action representations, 2 sizes, and as many seeds as the cells need."""
    each = len(ENCODERS) * (3 + len(CODEBOOKS)) * 2
    return yaml.safe_dump(
        {
            "name": "large",
            "suite": "channel",
            "cameras": {"image_size": 16},
            "factors": {
                "encoder": ENCODERS,
                "action": ["diffusion", "flow", "regression", "oat"],
                "codebook": CODEBOOKS,
                "size": ["xs", "S"],
                "seed": list(range(math.ceil(cells / each))),
                "demos": [10],
            },
            "rollout": {"episodes_per_task": episodes, "execute": 8},
            "limits": False,
            "references": False,
        }
    )


def meta() -> dict[str, Any]:
    """A training's record."""
    steps = list(range(200, 2001, 200))
    losses = [1 / s for s in steps]
    return {
        "curve": {"step": steps, "train": losses, "validation": losses, "seconds": [s / 20 for s in steps]},
        "train_seconds": 100.0, "steps_per_second": 20.0, "decision_points": 1000, "build_seconds": 101.0,
        "parameters": {"total": 700_000}, "flops": 10**9,
        "latency_seconds": 0.01, "machine": {},
    }  # fmt: skip


def fill(plan: Plan, store: Store) -> int:
    """Write what a run would have left of policies and episodes; how many rows."""
    rng, rows = np.random.default_rng(0), 0
    for at, cell in enumerate(plan.cells):
        recipe = cell.policy.recipe
        about = {"kind": recipe.kind, "key": recipe.key, "version": recipe.version, "spec": recipe.spec}
        store.keep_record({**about, "inputs": dict(recipe.inputs), "files": {}, "meta": meta()})
        asked = cell.evidence.protocol.episodes()
        n = len(asked)
        rate = 0.2 + 0.6 * ENCODERS.index(cell.encoder) / len(ENCODERS) + 0.1 * rng.standard_normal()
        columns = {
            "actor": [cell.evidence.key] * n, "protocol": [cell.evidence.protocol.hash] * n,
            "task": [e[0] for e in asked], "initial_state": [e[1] for e in asked],
            "repeat": [e[2] if len(e) > 2 else 0 for e in asked], "success": rng.random(n) < rate,
            "length": rng.integers(1, 9, n), "decisions": np.ones(n, int), "decode_failures": np.zeros(n, int),
        }  # fmt: skip
        own: Recipe = cell.evidence.recipe
        with store.create(own, {"protocol": cell.evidence.protocol.hash, "build_seconds": 60.0}) as folder:
            parquet.write_table(pa.table(columns, schema=EPISODE_SCHEMA), folder / FILE)
        rows += n
        if at % 500 == 0:
            print(f"{at} of {len(plan.cells)} cells are written", file=sys.stderr, flush=True)
    return rows


def timed(what: str, wanted: str, *words: str) -> None:
    """Seconds of a verb, run as a program."""
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "compression_gap.cli.main", *words], check=True, stdout=subprocess.DEVNULL
    )
    show(what, "s", [time.perf_counter() - begun], wanted=wanted)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument(
        "--folder", type=Path, help="keep the store here; what is there already is not written again"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        file, store = folder / "large.yaml", str(folder / "store")
        file.write_text(study(asked.cells, asked.episodes))
        plan = make_plan(parse_study(file.read_text(), "large"))
        if not (folder / "store").exists():
            fill(plan, Store(store))
        where = ("--store", store)
        size = f"{len(plan.cells):,} cells"
        full = asked.cells >= 10_000  # the size that the limits are given for
        timed(f"study plan, {size}", "≤ 10 s" * full, "study", "plan", str(file), *where)
        timed(f"study status, {size}", "≤ 5 s" * full, "study", "status", str(file), *where)
        timed(f"store list, {size}", "", "store", "list", *where)
        rows = f"{len(plan.cells) * asked.episodes:,} rows"
        timed(f"report, {size}, {rows}", "≤ 60 s" * full, "report", str(file), *where, "--videos", "0")
        peak = (
            resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        )  # of the largest, which is the report
        show(f"memory of that report, {size}", "GB", [peak / 1e9], wanted="≤ 4 GB" * full)


if __name__ == "__main__":
    main()
