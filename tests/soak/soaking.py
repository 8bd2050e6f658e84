"""A small study, run by the command line in its own processes, and what is compared after a fault.

The undisturbed run is the reference. After every fault the study is run to its end, and then the rows of episodes, the
bytes of all artefacts and the final table must be those of the reference.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

Say = Callable[[str], None]
HERE = Path(__file__).parent
SOURCE = HERE.parent.parent / "src"
PATIENCE = 600.0  # seconds until a run that does not end counts as hung
MEASURED = {"seconds", "latency_seconds", "train_seconds", "policies"}  # of a table: times, and folders

STUDY = """\
name: soak
suite: channel
cameras: {image_size: 8}
factors: {encoder: [retina-2], action: [oat, regression], seed: [0], demos: [4]}
training: {steps: 30, batch_size: 8, lr: 2e-3, warmup: 2, validations: 4}
tokenizer: {steps: 20, batch_size: 8}
policy: {sampling_steps: 2}
rollout: {execute: 4, episodes_per_task: 12}
limits: false
"""
SHORT = """\
name: soak
suite: channel
cameras: {image_size: 8}
factors: {encoder: [retina-2], action: [oat], seed: [0], demos: [3]}
training: {steps: 8, batch_size: 4, warmup: 1, validations: 4}
tokenizer: {steps: 4, batch_size: 4}
policy: {sampling_steps: 2}
rollout: {execute: 4, episodes_per_task: 4}
limits: false
references: false
"""
METAWORLD = """\
name: soak-metaworld
suite: {sim: metaworld, tasks: [reach-v3]}
cameras: {image_size: 32}
factors: {encoder: [retina-2], action: [oat], seed: [0], demos: [4]}
training: {steps: 30, batch_size: 8, warmup: 2, validations: 2}
tokenizer: {steps: 20, batch_size: 8}
policy: {sampling_steps: 2}
rollout: {execute: 8, episodes_per_task: 4}
limits: false
references: false
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Verdict:
    """What differs from the reference after a fault, once the study has been run to its end."""

    lost: int
    doubled: int
    changed: tuple[str, ...]  # files whose bytes differ, are missing or are too many
    table_equal: bool
    left: tuple[str, ...]  # scratch, claims, checkpoints and processes that stayed behind

    @property
    def sound(self) -> bool:
        """Whether nothing does."""
        return not (self.lost or self.doubled or self.changed or self.left) and self.table_equal


@dataclass
class Row:
    """A fault, and what came of it."""

    fault: str
    injected: int = 0
    runs: int = 0
    verdicts: list[Verdict] = field(default_factory=list)
    named: str = "—"  # whether damage was named: "8 of 8"
    note: str = ""

    @property
    def sound(self) -> bool:
        """Whether every study ended as the reference did."""
        named, _, of = self.named.partition(" of ")
        return all(v.sound for v in self.verdicts) and (not of or named == of)

    def cells(self) -> list[str]:
        """Of a table: see ``COLUMNS``."""
        lost, doubled = (sum(getattr(v, n) for v in self.verdicts) for n in ("lost", "doubled"))
        equal = sum(v.table_equal and not v.changed for v in self.verdicts)
        numbers = [self.injected, self.runs, lost, doubled]
        return [self.fault, *map(str, numbers), f"{equal} of {len(self.verdicts)}", self.named]


COLUMNS = ("fault", "injected", "runs", "rows lost", "rows doubled", "table and bytes equal", "damage named")


@dataclass
class Study:
    """A study file, a folder for its stores, and the processes of its runs."""

    folder: Path
    text: str = STUDY
    processes: int = 2
    faults: dict[str, Any] = field(default_factory=dict)  # of every disturbed run
    inside: bool = False  # other verbs than a run are called in this process, which spares their start
    number: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "soak.yaml"
        self.file.write_text(self.text)
        self.marker = f"SOAK_RUN={uuid.uuid4().hex}"

    def store(self, name: str) -> Path:
        """A new folder for a store."""
        self.number += 1
        return self.folder / f"{name}-{self.number}"

    def environment(self, faults: dict[str, Any]) -> dict[str, str]:
        """Of a run: the hooks first on the path, and a mark by which its processes are found."""
        name, _, value = self.marker.partition("=")
        path = [str(HERE / "hooks"), *filter(None, [os.environ.get("PYTHONPATH")]), str(SOURCE)]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "SOAK_FAULTS": json.dumps(faults),
            name: value,
        }

    def start(
        self,
        *words: str,
        store: Path,
        faults: dict[str, Any] | None = None,
        calm: bool = False,
        **changes: str,
    ) -> subprocess.Popen[str]:
        """``cgap`` with these words, on a store, in a process group of its own; ``calm``: undisturbed."""
        program = "from compression_gap.cli.main import main; raise SystemExit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", program, *words, "--store", str(store)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder, start_new_session=True,
            env=self.environment({} if calm else self.faults | (faults or {})) | changes,
        )  # fmt: skip

    def begin(self, store: Path, **options: Any) -> subprocess.Popen[str]:
        """Start a run of the study."""
        words = ("study", "run", str(self.file), "--processes", str(self.processes), "--no-report")
        return self.start(*words, store=store, **options)

    def end(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for the end. Raises ``AssertionError``, with all its processes gone, if there is none."""
        try:
            out, err = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill_all()
            out, err = process.communicate()
            raise AssertionError(f"the run hung; it had said:\n{err}") from None
        return Ended(process.returncode, out, err)

    def run(self, store: Path, **options: Any) -> Ended:
        """Run the study, until it ends of itself."""
        return self.end(self.begin(store, **options))

    def command(self, *words: str, store: Path) -> Ended:
        """Another verb, undisturbed."""
        if not self.inside:
            return self.end(self.start(*words, store=store, calm=True))
        from compression_gap.cli.main import main

        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main([*words, "--store", str(store)])
        return Ended(code, out.getvalue(), err.getvalue())

    def own_processes(self) -> dict[int, str]:
        """The processes of all its runs, by what they are: coordinator, worker, fork server, simulator, other."""
        found: dict[int, tuple[int, str]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.marker.encode() not in (folder / "environ").read_bytes().split(b"\0"):
                    continue
                status = (folder / "stat").read_text().rpartition(")")[2].split()
                if status[0] != "Z":
                    command = (folder / "cmdline").read_bytes().decode()
                    found[int(folder.name)] = (int(status[1]), command)
            except (OSError, ValueError):
                continue  # it has just ended
        return {pid: _role(pid, found) for pid in found}

    def kill_all(self) -> None:
        """End every process of every run of this study, and no other."""
        for pid in self.own_processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @cached_property
    def reference(self) -> Reference:
        """What the undisturbed run gives."""
        store = self.folder / "reference"
        ended = self.run(store, calm=True)
        assert ended.code == 0, ended.err
        return Reference(rows_of(store), bytes_of(store), self.table(store), seconds_of(store))

    def table(self, store: Path) -> Any:
        """The final table: all that a report says, but for what was measured with a clock."""
        ended = self.command("report", str(self.file), "--videos", "0", "--json", store=store)
        assert ended.code == 0, ended.err
        return without(json.loads(ended.out), MEASURED)

    def judge(self, store: Path) -> Verdict:
        """Compare a store whose study was run to its end with the reference."""
        want = self.reference
        rows, found = rows_of(store), bytes_of(store)
        lost = sum((want.rows - rows).values())
        doubled = sum(n - 1 for n in keys_of(rows).values())
        changed = {n for n in want.files | found if want.files.get(n) != found.get(n)}
        same = not changed and self.table(store) == want.table
        return Verdict(lost, doubled, tuple(sorted(changed)), same, self.left(store))

    def left(self, store: Path) -> tuple[str, ...]:
        """What a finished run has left: it should be nothing."""
        from compression_gap.store.claims import under_way
        from compression_gap.store.store import Store

        scraps = [str(f.relative_to(store)) for n in ("tmp", "work") for f in store.glob(f"{n}/*")]
        scraps += [
            f"claim on {u.kind} {u.key}" for u in under_way(Store(store))
        ]  # those of the dead are free
        until = time.monotonic() + 10.0  # processes whose parent was killed take a moment
        while (alive := self.own_processes()) and time.monotonic() < until:
            time.sleep(0.05)
        return (*scraps, *(f"process {pid}, a {role}" for pid, role in alive.items()))


@dataclass(frozen=True)
class Reference:
    """The rows of all episodes, the checksums of all files, and the final table."""

    rows: Counter[tuple[Any, ...]]
    files: dict[str, str]
    table: Any
    seconds: dict[str, float]  # that each artefact's build took, by "kind/key"


def _role(pid: int, found: dict[int, tuple[int, str]]) -> str:
    parent, command = found[pid]
    if "multiprocessing.spawn" in command:
        return "worker"
    if "multiprocessing.forkserver" in command:
        above = found.get(parent, (0, ""))[1]
        return "simulator" if "multiprocessing.forkserver" in above else "fork server"
    if "multiprocessing.resource_tracker" in command:
        return "tracker"
    return "coordinator"


def rows_of(store: Path) -> Counter[tuple[Any, ...]]:
    """Every row of every episodes artefact."""
    import pyarrow.parquet as parquet

    rows: Counter[tuple[Any, ...]] = Counter()
    for file in sorted(store.glob("episodes/*/episodes.parquet")):
        with parquet.ParquetFile(file) as opened:
            rows.update(tuple(row.values()) for row in opened.read().to_pylist())
    return rows


def keys_of(rows: Counter[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    """How often each (actor, protocol, task, initial state, repeat) is there."""
    keys: Counter[tuple[Any, ...]] = Counter()
    for row, times in rows.items():
        keys[row[:5]] += times
    return keys


def bytes_of(store: Path) -> dict[str, str]:
    """The SHA-256 of every file of every artefact; manifests hold times, and are verified by the store."""
    own = {"studies", "tmp", "claims", "work", "damaged", "failures", "records", "film", "store.json"}
    return {
        str(f.relative_to(store)): hashlib.sha256(f.read_bytes()).hexdigest()
        for f in sorted(store.rglob("*"))
        if f.is_file() and f.relative_to(store).parts[0] not in own and f.name != "artifact.json"
    }


def seconds_of(store: Path) -> dict[str, float]:
    """What the manifests say of how long each artefact took, by "kind/key", in the order of their commits."""
    files = sorted(store.glob("*/*/artifact.json"), key=lambda f: f.stat().st_mtime_ns)
    found = {f.parent: json.loads(f.read_text()) for f in files}
    return {
        str(folder.relative_to(store)): float(about["meta"]["build_seconds"])
        for folder, about in found.items()
        if about["kind"] != "film"
    }


def without(value: Any, names: set[str]) -> Any:
    """JSON without these names."""
    if isinstance(value, dict):
        return {k: without(v, names) for k, v in value.items() if k not in names}
    return [without(v, names) for v in value] if isinstance(value, list) else value
