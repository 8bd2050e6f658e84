"""What sharing artefacts saves: a whole factorial beside its cells, each by itself, from the seconds that its steps took.

    python benchmarks/sharing.py [--preset tiny] [--store STORE]

Without a store the study is run first, in this process. A cell by itself builds all that its evidence rests on.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable

from rows import show

from compression_gap.api.options import Running
from compression_gap.api.study import build_study, load_study, open_study
from compression_gap.store.artifact import Artifact


def resting_on(steps: Iterable[Artifact]) -> dict[str, Artifact]:
    """The steps and all that they need, by key."""
    found: dict[str, Artifact] = {}
    ahead = list(steps)
    while ahead:
        step = ahead.pop()
        if step.key not in found:
            found[step.key] = step
            ahead += step.inputs.values()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--store", help="where the preset was run; by default it is run now")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        opened = open_study(load_study(preset=asked.preset), asked.store or scratch)
        build_study(opened, Running(processes=0))
        store = opened.store

        def seconds(steps: Iterable[Artifact]) -> float:
            return sum(float(store.meta(s)["build_seconds"]) for s in resting_on(steps).values())

        cells = opened.plan.cells
        shared = seconds(c.evidence for c in cells)
        alone = sum(seconds([c.evidence]) for c in cells)
    what = f"preset {asked.preset}, {len(cells)} cells that share their artefacts"
    show(what, "s", [shared], beside=alone, of="each cell by itself", wanted="≥ 2")


if __name__ == "__main__":
    main()
