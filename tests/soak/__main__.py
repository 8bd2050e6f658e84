"""The long form: ``python tests/soak`` injects all faults and prints a table. ``make soak`` runs it; see docs/faults.md.

``--kills N`` processes are killed in all; ``--only WORD`` takes the faults whose name holds the word; ``--out FOLDER`` keeps
soak.json and soak.md there, and a later call goes on from them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import soak_faults
import soak_kills
from soaking import COLUMNS, METAWORLD, Row, Say, Study, Verdict

HERE = Path(__file__).parent
SLOW = {"slow": 0.01, "checkpoint": 0.2}  # so that episodes and checkpoints are there to be hit

# A fault of another engine (a lost Ray node) is one more entry: a name, and a function of a study that returns rows.
Fault = Callable[[Study, argparse.Namespace, Say], list[Row]]
FAULTS: dict[str, Fault] = {
    "kills": lambda s, o, say: soak_kills.kills(s, o.kills, o.seed, say),
    "signals": lambda s, o, say: soak_kills.signals(s, o.times, o.seed, say),
    "disk-commit": lambda s, o, say: [soak_faults.full_at_each_commit(s, say)],
    "disk-any": lambda s, o, say: [soak_faults.full_at_any_byte(s, say)],
    "bits": lambda s, o, say: soak_faults.flipped_bits(s, o.seed, say),
    "two": lambda s, o, say: soak_faults.two_coordinators(s, o.times, say),
    "clock": lambda s, o, say: [soak_faults.jumping_clock(s, say)],
    "shm": lambda s, o, say: [soak_faults.full_shared_memory(s, say)],
    "hang": lambda s, o, say: soak_faults.hangs(s, o.times, say),
    "metaworld": lambda s, o, say: _in_metaworld(s, o, say),
    "mutants": lambda s, o, say: _mutants(o, say),
}
MOUNTS = ("disk-commit", "disk-any", "shm")


def _in_metaworld(study: Study, options: argparse.Namespace, say: Say) -> list[Row]:
    """Kills in a study of Meta-World."""
    if importlib.util.find_spec("metaworld") is None:
        return []
    other = Study(study.folder / "metaworld", METAWORLD, faults={"checkpoint": 0.2})
    rows = soak_kills.kills(other, max(3, options.kills // 10), options.seed, say)
    for row in rows:
        row.fault += ", Meta-World"
    return rows


def _mutants(options: argparse.Namespace, say: Say) -> list[Row]:
    """Damaged data sets: imported, or refused with one sentence."""
    command = [sys.executable, "-m", "pytest", "-q", str(HERE.parent / "demos" / "test_mutations.py")]
    done = subprocess.run(
        command,
        env={**os.environ, "MUTANTS": str(options.mutants)},
        capture_output=True,
        text=True,
        check=False,
    )
    say(done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr)
    row = Row(f"{options.mutants} mutants of each kind of data set", injected=options.mutants, runs=1)
    row.named = f"{int(done.returncode == 0)} of 1"
    return [row]


def main() -> int:
    """Run the faults, print the table; the exit code says whether all is sound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=120)
    parser.add_argument("--times", type=int, default=5, help="how often each signal, hang and pair of runs")
    parser.add_argument("--mutants", type=int, default=int(os.environ.get("MUTANTS", "3000")))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(FAULTS), choices=list(FAULTS), metavar="FAULT")
    parser.add_argument(
        "--out", type=Path, help="folder of soak.json and soak.md; what is there is not done again"
    )
    options = parser.parse_args()
    own_mounts(options)
    done = _read(options.out)
    begun = time.monotonic()

    def say(message: str) -> None:
        print(f"{(time.monotonic() - begun) / 60:5.1f} min  {message}", file=sys.stderr, flush=True)

    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    study = Study(folder, faults=SLOW)
    try:
        for name in [n for n in options.only if n not in done]:
            if name in MOUNTS and not soak_faults.can_mount():
                say(f"{name}: left out, it needs the right to mount a file system (root, or user namespaces)")
                continue
            say(f"{name}: begins")
            done[name] = FAULTS[name](study, options, say)
            _write(options.out, done)
    finally:
        study.kill_all()
        shutil.rmtree(folder, ignore_errors=True)
    rows = [row for part in done.values() for row in part]
    print(markdown(rows))
    return int(not all(row.sound for row in rows))


def own_mounts(options: argparse.Namespace) -> None:
    """Go on in a mount namespace of one's own, so that no mount outlives this program, if that can be had."""
    if soak_faults.can_mount() or not set(options.only) & set(MOUNTS) or shutil.which("unshare") is None:
        return
    unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode == 0:
        os.environ["SOAK_MOUNTS"] = "1"
        os.execvp("unshare", [*unshare, sys.executable, *sys.argv])


def markdown(rows: list[Row]) -> str:
    """The table, with date and machine."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    notes = [f"{row.fault}: {row.note}" for row in rows if row.note]
    where = f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return "\n".join([*lines, "", f"{time.strftime('%Y-%m-%d')}, {where}", *dict.fromkeys(notes)])


def _read(out: Path | None) -> dict[str, list[Row]]:
    file = out / "soak.json" if out else None
    if file is None or not file.exists():
        return {}
    found: dict[str, list[Row]] = {}
    for name, rows in json.loads(file.read_text()).items():
        found[name] = [Row(**{**r, "verdicts": [Verdict(**v) for v in r["verdicts"]]}) for r in rows]
    return found


def _write(out: Path | None, done: dict[str, list[Row]]) -> None:
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "soak.json").write_text(
            json.dumps({n: [asdict(r) for r in rows] for n, rows in done.items()}, indent=1)
        )
        (out / "soak.md").write_text(markdown([r for rows in done.values() for r in rows]) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
