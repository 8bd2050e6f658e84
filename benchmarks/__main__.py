"""The whole benchmark: each part in a process of its own, one JSON, one table.

    python benchmarks [--quick] [--only policies tokenizers] [--out bench.json] [--page docs/benchmarks.md]

Numbers are medians over rounds with the least and the most; ratios are of one run. ``--quick`` takes about five minutes.
Nothing else should run beside it: the load at the start stands in the JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from rows import KEPT, Row

HERE = Path(__file__).parent
TABLE = re.compile(r"(<!-- bench -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = ("what", "here", "beside", "ratio", "wanted")


@dataclass(frozen=True)
class Part:
    """A script with its options, and a package that it takes."""

    title: str
    script: str
    options: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = ()  # None: not in the quick form
    needs: str = "numpy"


@dataclass
class Measured:
    """What one part found; ``left_out``: why it found nothing, or not all."""

    title: str
    seconds: float
    rows: list[Row] = field(default_factory=list)
    left_out: str = ""
    failed: bool = False


PARTS = {
    "rollouts": Part("Rollouts", "rollout_speed.py", (), ("--episodes", "1"), "metaworld"),
    "libero": Part("LIBERO", "libero_speed.py", (), None, "robosuite"),
    "remote": Part("Served policies", "remote_speed.py", (), ("--episodes", "0", "--decisions", "100"), "websockets"),
    "sharing": Part("Shared artefacts", "sharing.py", (), ()),
    "growth": Part("Growth", "growth.py", (), ("--quick",)),
    "features": Part("Features", "feature_speed.py", (), ("--frames", "4000", "--steps", "6", "--images", "16")),
    "tokenizers": Part("Tokenizers", "tokenizer_speed.py", (), ("--rounds", "2", "--steps", "5")),
    "policies": Part("Policies", "policy_speed.py", (), ("--repeats", "3", "--sizes", "M", "--heads", "autoregressive", "diffusion")),
    "import": Part("Import", "import_speed.py", (), ("--episodes", "10", "--rounds", "1"), "av"),
    "scale": Part("Large studies", "study_scale.py", (), ("--cells", "320", "--episodes", "50")),
    "engines": Part("Engines", "engine_speed.py", (), None, "ray"),
}  # fmt: skip


def measure(part: Part, quick: bool) -> Measured:
    """Run a part; its rows, also where it failed on the way."""
    options = part.quick if quick else part.options
    if options is None:
        return Measured(part.title, 0.0, [], "not in the quick form")
    if find_spec(part.needs) is None:
        return Measured(part.title, 0.0, [], f"needs {part.needs}, which is not installed")
    print(f"\n{part.title}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        kept, begun = Path(folder) / "rows", time.perf_counter()
        environment = {**os.environ, KEPT: str(kept), "OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "0"}
        ended = subprocess.run([sys.executable, str(HERE / part.script), *options], env=environment)
        rows = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    failed = ended.returncode != 0
    why = f"ended with exit code {ended.returncode}" if failed else ""
    return Measured(
        part.title, time.perf_counter() - begun, [Row(**json.loads(row)) for row in rows], why, failed
    )


def machine(quick: bool) -> dict[str, object]:
    """What it was measured on."""
    import torch

    from compression_gap import __version__

    names = [
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if "model name" in line
    ]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "version": __version__,
        "quick": quick,
    }  # fmt: skip


def table(parts: list[Measured], about: dict[str, object]) -> str:
    """All rows in Markdown, a table a part."""
    out = [
        f"Measured on {about['date']}: {about['processor']}, {about['cores']} cores, load {about['load']:.1f} at the start, "
        f"Python {about['python']}, torch {about['torch']}{'; the quick form' if about['quick'] else ''}."
    ]
    for part in parts:
        out.append(f"### {part.title}")
        if part.left_out:
            out.append(f"Left out: {part.left_out}.")
        if part.rows:
            lines = [HEAD, ("---", "--:", "--:", "--:", "--:"), *(row.cells() for row in part.rows)]
            out.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return "\n\n".join(out) + "\n"


def main() -> int:
    """Measure, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--page", type=Path, help="a page with a place for the table")
    asked = parser.parse_args()
    about, begun = machine(asked.quick), time.perf_counter()
    parts = [measure(PARTS[name], asked.quick) for name in asked.only]
    found = {"machine": about, "seconds": time.perf_counter() - begun}
    asked.out.write_text(json.dumps({**found, "parts": [asdict(p) for p in parts]}, indent=1) + "\n")
    if asked.page:
        text = asked.page.read_text(encoding="utf-8")
        asked.page.write_text(TABLE.sub(lambda m: m[1] + table(parts, about) + m[2], text), encoding="utf-8")
    print(f"\n{asked.out}, in {found['seconds']:.0f} s")
    return int(any(p.failed for p in parts))


if __name__ == "__main__":
    sys.exit(main())
