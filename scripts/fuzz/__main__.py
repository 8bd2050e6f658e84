"""``python -m fuzz``: every reader for its share of the seconds; a table of what was run and found.

    PYTHONPATH=scripts python -m fuzz --seconds 3600 [--targets hdf5 video] [--out FOLDER]

Each target is a process of its own, under atheris (coverage of this package guides the mutations) where it is
installed, else with random bytes of fixed seeds. Inputs that fail are kept in the folder ``--out``; one is run again
by ``--again TARGET FILE``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

LIMIT = 2048  # MB
SLOW = 120  # seconds until libFuzzer ends a process that the alarm could not
LONG = 512  # bytes of an input


def fuzz_one(name: str, seconds: float, out: Path, guided: bool) -> None:
    """Run one target in this process, and write its record to ``out``; atheris ends the process."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**32, 2**32))
    place = Path(tempfile.mkdtemp(prefix="cgap-fuzz-"))
    # The valid input is made by another process, which is not slowed down by being watched.
    subprocess.run([sys.executable, "-m", "fuzz", "--seed", name, str(place / f"valid-{name}")], check=True)
    with contextlib.ExitStack() as stack:
        if guided:  # of what is imported here
            import atheris

            stack.enter_context(
                atheris.instrument_imports(include=["compression_gap"], enable_loader_override=False)
            )
        from fuzz import targets
        from fuzz.guard import Guard, peak

        fuzzed = targets.Fuzzed(targets.TARGETS[name], place, Guard(place / "outside"))
        if sentence := fuzzed.run(b""):
            raise SystemExit(f"{name}: its valid input is refused: {sentence}")
    begun, runs, seen, last = time.monotonic(), 0, {}, 0.0

    def note() -> None:
        record = {
            "runs": runs,
            "taken": fuzzed.taken,
            "refused": fuzzed.refused,
            "peak": peak(),
            "found": list(seen),
        }
        (out / f"{name}.json").write_text(json.dumps({**record, "seconds": time.monotonic() - begun}))

    def one(data: bytes) -> None:
        nonlocal runs, last
        runs += 1
        try:
            (out / f"{name}.running").write_bytes(data)
            fuzzed.run(data)
        except BaseException as error:
            # The same fault is told once: further ones are sought in the time that is left.
            where = traceback.extract_tb(error.__traceback__)[-1]
            ours = [f for f in traceback.extract_tb(error.__traceback__) if "compression_gap" in f.filename]
            at = ours[-1] if ours else where
            fault = f"{type(error).__name__} at {Path(at.filename).name}:{at.lineno}"
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            if fault not in seen:
                seen[fault] = str(error)[:200]
                (out / f"{name}-{len(seen)}.bytes").write_bytes(data)
                (out / f"{name}-{len(seen)}.txt").write_text(
                    "".join(traceback.format_exception(error))[-6000:]
                )
            if isinstance(error, MemoryError) and peak() > LIMIT * 2**20:
                note()
                os._exit(3)
        if time.monotonic() - last > 2:
            last = time.monotonic()
            note()
        if time.monotonic() - begun > seconds:
            note()
            (out / f"{name}.running").unlink(missing_ok=True)
            os._exit(0)

    if guided:
        options = [
            f"-rss_limit_mb={LIMIT}",
            f"-timeout={SLOW}",
            f"-max_len={LONG}",
            "-len_control=0",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={out}/{name}-"], one)
        atheris.Fuzz()
    else:
        rng = random.Random(0)
        while True:
            one(rng.randbytes(rng.randint(1, LONG)))


def main() -> int:
    """Share the seconds among the targets, and tell what was found; 1 where something was."""
    parse = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parse.add_argument("--seconds", type=float, default=3600, help="of all targets together")
    parse.add_argument("--targets", nargs="*")
    parse.add_argument("--out", type=Path, default=Path("fuzz-out"))
    parse.add_argument("--seed", nargs=2, help=argparse.SUPPRESS)
    parse.add_argument("--one", help=argparse.SUPPRESS)
    parse.add_argument(
        "--unguided", action="store_true", help="random bytes, also where atheris is installed"
    )
    parse.add_argument("--again", nargs=2, metavar=("TARGET", "FILE"), help="run a kept input once more")
    options = parse.parse_args()
    if options.seed:
        from fuzz.targets import TARGETS

        Path(options.seed[1]).mkdir(parents=True)
        TARGETS[options.seed[0]].seed(Path(options.seed[1]))
        return 0
    if options.again:
        from fuzz.guard import Guard
        from fuzz.targets import TARGETS, Fuzzed

        place = Path(tempfile.mkdtemp(prefix="cgap-fuzz-"))
        made = Fuzzed(TARGETS[options.again[0]], place, Guard(place / "outside"))
        print(made.run(Path(options.again[1]).read_bytes()) or "it was taken")
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        import atheris  # noqa: F401

        guided = not options.unguided
    except ModuleNotFoundError:
        guided = False
    if options.one:
        fuzz_one(options.one, options.seconds, options.out, guided)
        return 0
    from fuzz.targets import TARGETS

    names = options.targets or list(TARGETS)
    found = 0
    print(
        f"{'target':14} {'runs':>8} {'taken':>7} {'refused':>8} {'edges':>6} {'peak MB':>8}  found",
        flush=True,
    )
    for name in names:
        found += run_target(name, options.seconds / len(names), options.out, options.unguided)
    return int(found > 0)


def run_target(name: str, seconds: float, out: Path, unguided: bool) -> int:
    """Run a target in a process of its own, and print its line; how many faults it has."""
    (out / f"{name}.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "fuzz", "--one", name, "--seconds", str(seconds), "--out", str(out)]
    with tempfile.TemporaryDirectory(prefix="cgap-fuzz-") as scratch, (out / f"{name}.log").open("wb") as log:
        hang = False
        try:
            code = subprocess.run(
                [*command, *(["--unguided"] if unguided else [])], stdout=log, stderr=log, timeout=seconds + 400,
                env={**os.environ, "TMPDIR": scratch},
            ).returncode  # fmt: skip
        except subprocess.TimeoutExpired:
            code, hang = -1, True
    said = (out / f"{name}.log").read_text(errors="replace")
    edges = re.findall(r"cov: (\d+)", said)
    record = {"runs": 0, "taken": 0, "refused": 0, "peak": 0, "found": []}
    if (out / f"{name}.json").exists():
        record = json.loads((out / f"{name}.json").read_text())
    faults = list(record["found"])
    if hang or code:
        faults.append(
            "a hang"
            if hang or "timeout" in said
            else "out of memory"
            if "out-of-memory" in said
            else f"ended with {code}"
        )
        if (out / f"{name}.running").exists():
            (out / f"{name}.running").rename(out / f"{name}-end.bytes")
    line = f"{name:14} {record['runs']:8} {record['taken']:7} {record['refused']:8} {edges[-1] if edges else '-':>6}"
    print(f"{line} {record['peak'] >> 20:8}  {'; '.join(faults) or 'nothing'}", flush=True)
    return len(faults)


if __name__ == "__main__":
    raise SystemExit(main())
