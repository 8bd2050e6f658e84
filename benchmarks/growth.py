"""How time grows with demonstrations, horizon, tasks and cells: the exponent of a power law, by least squares.

    OMP_NUM_THREADS=1 python benchmarks/growth.py [--quick]

Demonstrations are collected in the channel and encoded by ``retina-8``; over the horizon a Diffusion Policy of size S is
trained and asked; tasks and cells are planned.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import yaml
from rows import show

from compression_gap.nn import SIZES
from compression_gap.policies.base import Target
from compression_gap.policies.registry import make_head
from compression_gap.sims.metaworld import TASKS
from compression_gap.store.engine import InProcess, run_steps
from compression_gap.store.outcome import Watchers
from compression_gap.store.store import Store
from compression_gap.study.file import parse_study
from compression_gap.study.plan import Plan, make_plan


def exponent(
    what: str, sizes: Sequence[int], seconds: Callable[[int], float], rounds: int, wanted: str
) -> None:
    """Time each size in turns, and fit; each round is a fit."""
    seconds(sizes[0])  # what is made once
    found = []
    for _ in range(rounds):
        taken = [seconds(size) for size in sizes]
        found.append(float(np.polyfit(np.log(sizes), np.log(taken), 1)[0]))
    show(f"{what}, {sizes[0]:,} to {sizes[-1]:,}", "exponent", found, wanted=wanted)


def plan(**changes: object) -> Plan:
    """The plan of a study, with these factors."""
    factors = {"encoder": ["retina-8"], "action": ["diffusion"], "demos": [10], **changes}
    suite = str(factors.pop("suite", "channel"))
    study = {
        "name": "grows",
        "suite": suite,
        "cameras": {"image_size": 16},
        "factors": factors,
        "limits": False,
        "references": False,
    }
    return make_plan(parse_study(yaml.safe_dump(study), "grows"))  # fmt: skip


def demonstrations(count: int) -> float:
    """Seconds of collecting and encoding them."""
    made = plan(demos=[count])
    wanted = [s for s in made.steps.values() if s.kind in ("demos", "normaliser", "frames", "features")]
    with tempfile.TemporaryDirectory() as scratch:
        begun = time.perf_counter()
        outcome = run_steps(wanted, Store(scratch), engine=InProcess(), watcher=Watchers())
        assert not outcome.failures, outcome.failures
        return time.perf_counter() - begun


def horizon(steps: int) -> float:
    """Seconds of one training step and one decision of a Diffusion Policy."""
    torch.manual_seed(0)
    head = make_head(
        "diffusion", SIZES["S"], horizon=steps, action_dim=7, context_tokens=6, clip=3.0, tokenizer=None, options={}
    )  # fmt: skip
    context = torch.randn(32, 6, SIZES["S"].width)
    target = Target(
        chunk=torch.randn(32, steps, 7), valid=torch.ones(32, steps, dtype=torch.bool), tokens=None, lengths=None
    )  # fmt: skip
    begun = time.perf_counter()
    head.loss(context, target, rng=torch.Generator().manual_seed(0)).mean().backward()
    with torch.no_grad():
        head.sample(context[:1], [0])
    return time.perf_counter() - begun


def tasks(count: int) -> float:
    """Seconds of planning a study of so many tasks."""
    names = ",".join(sorted(TASKS)[:count])
    begun = time.perf_counter()
    plan(suite=f"metaworld/{names}")
    return time.perf_counter() - begun


def cells(count: int) -> float:
    """Seconds of planning so many cells."""
    begun = time.perf_counter()
    assert len(plan(seed=list(range(count))).cells) == count
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rounds = 2 if quick else 5
    exponent(
        "demonstrations, collected and encoded",
        [25, 50, 100] if quick else [50, 100, 200, 400],
        demonstrations,
        rounds,
        "≤ 1",
    )
    exponent("horizon of a policy's training step and decision", [8, 16, 32, 64], horizon, rounds, "≤ 1")
    exponent("tasks, planned", [5, 10, 20, 40], tasks, rounds, "≤ 1")
    exponent("cells, planned", [100, 200, 400] if quick else [250, 500, 1000, 2000], cells, rounds, "≤ 1")  # fmt: skip


if __name__ == "__main__":
    main()
