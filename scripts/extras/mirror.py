"""Run a part of the core's study with a mirror, and read back with the mirror's own package what it wrote.

The learning curve of one policy is compared with the policy's record, number by number.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

STUDY = "scripts/extras/small.yaml"
NUMBERS = ("loss/train", "loss/validation")
Curve = dict[str, list[tuple[int, float]]]  # by number: step and value


def tensorboard(folder: Path, label: str) -> Curve:
    """TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = (f for f in folder.iterdir() if f.name.startswith(label.replace(" · ", "-").replace(" ", "-")))
    events = EventAccumulator(str(run))
    events.Reload()
    assert "configuration/text_summary" in events.Tags()["tensors"]
    return {n: [(e.step, e.value) for e in events.Scalars(n)] for n in events.Tags()["scalars"]}


def trackio(folder: Path, label: str) -> Curve:
    """trackio's own reader."""
    os.environ["TRACKIO_DIR"] = str(folder)
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = (r for r in SQLiteStorage.get_runs("small") if r.startswith(label))
    found: Curve = {}
    for row in SQLiteStorage.get_logs("small", run):
        for name in set(row) - {"step", "timestamp"}:
            found.setdefault(name, []).append((row["step"], row[name]))
    return found


def wandb(folder: Path, label: str) -> Curve:
    """The records of an offline run, in W&B's own schema."""
    from wandb.proto.wandb_internal_pb2 import Record

    for file in folder.glob("wandb/offline-run-*/*.wandb"):
        found: Curve = {}
        name = ""
        for text in records(file.read_bytes()):
            record = Record.FromString(text)
            if record.WhichOneof("record_type") == "run":
                name = record.run.display_name
            elif record.WhichOneof("record_type") == "history":
                values = {
                    i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in record.history.item
                }
                for number in values.keys() & {*NUMBERS, "success/all"}:
                    found.setdefault(number, []).append((values["step"], values[number]))
        if name == label:
            return found
    raise AssertionError(f"no offline run '{label}' in {folder}")


def records(data: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, after a header of 7 bytes."""
    at, part = 7, b""
    while at < len(data):
        left = -at % 32768
        if 0 < left < 7:
            at += left
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or its last part
            yield part
            part = b""


def main() -> None:
    """Mirror, read back, compare."""
    name, finished = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as work:
        store = Path(work) / "store"
        shutil.copytree(finished, store)
        policy = next(iter(sorted((store / "policy").iterdir())))
        evidence = [
            f.parent
            for f in store.glob("episodes/*/artifact.json")
            if policy.name in f.read_text().split('"')
        ]
        for folder in (policy, *evidence):
            shutil.rmtree(folder)
        run = ["cgap", "study", "run", STUDY, "--store", str(store), "--processes", "0", "--no-report"]
        env = {n: v for n, v in os.environ.items() if n != "WANDB_API_KEY"}
        done = subprocess.run([*run, "--mirror", name], env=env, capture_output=True, text=True, check=True)
        print(done.stderr)
        assert "the study goes on" not in done.stderr, done.stderr
        meta = json.loads((policy / "artifact.json").read_text())["meta"]
        (log,) = store.glob("studies/*/run.log")
        label = next(
            line.partition("begins: ")[2]
            for line in log.read_text().splitlines()
            if "begins: training" in line
        )
        found = {"tensorboard": tensorboard, "trackio": trackio, "wandb": wandb}[name](
            log.parent / "mirrors" / name, label
        )
        for number in NUMBERS:
            told = list(zip(meta["curve"]["step"], meta["curve"][number.split("/")[1]], strict=True))
            assert [s for s, _ in found[number]] == [s for s, _ in told], (number, found, told)
            assert all(
                abs(a - b) <= 1e-6 * max(1, abs(b))
                for (_, a), (_, b) in zip(found[number], told, strict=True)
            )
        assert len(found["success/all"]) == len(evidence) > 0


main()
