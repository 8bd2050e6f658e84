"""Faults other than signals: a full disk, flipped bits, two runs at once, a clock that jumps, no shared memory, a hang."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from soaking import Row, Say, Study

from compression_gap.sims import DEMONSTRATION_STATES

POINTS = ("built", "before-rename", "after-rename")
FULL = "is full: free some space and run the same command again"


def moments(study: Study) -> list[str]:
    """All commit points of the study."""
    kinds = dict.fromkeys(k.partition("/")[0] for k in study.reference.seconds)
    return [f"{kind}:{point}" for kind in kinds for point in POINTS]


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size, in memory. Needs the right to mount: ``can_mount``."""
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def resize(folder: Path, kilobytes: int) -> None:
    """Give the file system another size."""
    subprocess.run(
        ["mount", "-o", f"remount,size={kilobytes}k", str(folder)], check=True, capture_output=True
    )


def can_mount() -> bool:
    """Whether this process may mount: it is root, in a mount namespace that is its own (``__main__``)."""
    return os.environ.get("SOAK_MOUNTS") == "1"


def full_at_each_commit(study: Study, say: Say) -> Row:
    """The disk is full from a commit point on, down to the last byte; then space is there again."""
    row, named, stopped = Row("disk full at each commit"), 0, 0
    left = moments(study)
    with disk(study.folder / "small", 200_000) as small:
        store, filler = small / "store", small / "filler"
        for moment in left:
            _forget(store, moment.partition(":")[0])
            once = study.folder / f"full-{moment}"
            fault = {"at": moment, "do": "fill", "filler": str(filler), "once": str(once)}
            ended = study.run(store, faults={"faults": [fault]})
            row.runs += 1
            row.injected += once.exists()
            if ended.code:
                stopped += 1
                named += _names_the_disk(ended.code, ended.err, say)
            filler.unlink(missing_ok=True)
            say(f"disk full at {moment}: exit code {ended.code}, then {filler.name} removed")
        _to_the_end(study, store, row, say)
    row.named = f"{named} of {stopped}"
    return row


def full_at_any_byte(study: Study, say: Say, step: int = 200) -> Row:
    """The disk grows by ``step`` kilobytes whenever the run has filled it."""
    row, named = Row("disk full at any write"), 0
    with disk(study.folder / "growing", 40) as small:
        store, size = small / "store", 40
        while True:
            ended = study.run(store)
            row.runs += 1
            if ended.code == 0:
                break
            row.injected += 1
            named += _names_the_disk(ended.code, ended.err, say)
            size += step
            resize(small, size)
            say(f"disk full at {size - step} kB: exit code {ended.code}")
        resize(small, size + 100_000)
        row.verdicts.append(study.judge(store))
    row.named = f"{named} of {row.injected}"
    return row


def _names_the_disk(code: int, said: str, say: Say) -> bool:
    good = code == 2 and FULL in said and "Traceback" not in said
    if not good:
        say(f"NOT NAMED: exit code {code}: {said[-1500:]}")
    return good


def _to_the_end(study: Study, store: Path, row: Row, say: Say, **options: object) -> None:
    ended = study.run(store, **options)
    row.runs += 1
    assert ended.code == 0, ended.err
    verdict = study.judge(store)
    if not verdict.sound:
        say(f"NOT SOUND: {row.fault}: {verdict}")
    row.verdicts.append(verdict)


def flipped_bits(study: Study, seed: int, say: Say) -> list[Row]:
    """One bit in every file of every artefact: all at once for ``store verify``; then one artefact after the other."""
    rng = random.Random(seed)
    whole, each = Row("a flipped bit in every file"), Row("a flipped bit, read by a run")
    store = study.store("flips")
    _to_the_end(study, store, Row(""), say)
    artefacts = sorted(f.parent for f in store.glob("*/*/artifact.json"))
    for folder in artefacts:
        for file in sorted(f for f in folder.rglob("*") if f.is_file()):
            kept = file.read_bytes()
            if not kept:
                continue
            flip(file, rng.randrange(8 * file.stat().st_size))
            whole.injected += 1
            found = study.command("store", "verify", store=store) if whole.injected % 5 == 1 else None
            name = f"damaged: {folder.parent.name} {folder.name}:"
            good = name in (found.out if found else _verified(store))
            say(f"{file.relative_to(store)}: {'named' if good else 'NOT NAMED'}")
            whole.named = f"{int(whole.named.split()[0]) + good if whole.injected > 1 else int(good)} of {whole.injected}"
            file.write_bytes(kept)
    whole.runs = 1
    named = 0
    for folder in artefacts:  # what is made from it is made anew, so that the run reads it
        file = rng.choice(sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size))
        flip(file, rng.randrange(8 * file.stat().st_size))
        each.injected += 1
        readers = _made_from(store, folder.name)
        for reader in readers:
            shutil.rmtree(reader)
        ended = (
            study.command("report", str(study.file), "--videos", "0", "--json", store=store)
            if not readers
            else study.run(store)
        )
        each.runs += 1
        good = ended.code == 2 and "is damaged" in ended.err and folder.name in ended.err
        named += good
        say(
            f"{file.relative_to(store)}, {len(readers)} made from it: {'refused' if good else 'NOT REFUSED'}: {ended.err.strip()[-200:]}"
        )
        while (ended := study.run(store)).code == 2 and "is damaged" in ended.err:
            each.runs += 1
        _to_the_end(study, store, each, say)
    each.named = f"{named} of {each.injected}"
    whole.verdicts = each.verdicts[-1:]
    return [whole, each]


def _verified(store: Path) -> str:
    """What ``cgap store verify`` says, without its start."""
    from compression_gap.api.stores import verify_store

    return "\n".join(f"damaged: {d.kind} {d.key}: {d.problem}" for d in verify_store(store)[1])


def flip(file: Path, bit: int) -> None:
    """Turn one bit of a file over."""
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def _made_from(store: Path, key: str) -> list[Path]:
    """The artefacts of which one of these keys is an input."""
    return [
        f.parent
        for f in store.glob("*/*/artifact.json")
        if f.parent.name != key and f'"{key}"' in f.read_text()
    ]


def _forget(store: Path, kind: str) -> None:
    """Remove the artefacts of a kind, and whatever is made from them."""
    gone = list(store.glob(f"{kind}/*"))
    while gone:
        folder = gone.pop()
        gone += _made_from(store, folder.name)
        shutil.rmtree(folder, ignore_errors=True)


def two_coordinators(study: Study, times: int, say: Say) -> list[Row]:
    """Two runs on one store, begun together; then again with one of them killed when it is half through."""
    rows = [Row("two coordinators on one store"), Row("two coordinators, one killed")]
    for kill, row in zip((False, True), rows, strict=True):
        for turn in range(times):
            store = study.store("two")
            first, second = study.begin(store), study.begin(store)
            if kill:
                half = len(study.reference.seconds) // 2
                while len(list(store.glob("*/*/artifact.json"))) < half and first.poll() is None:
                    time.sleep(0.01)
                os.kill(first.pid, signal.SIGKILL)
            ended = [study.end(p) for p in (first, second)]
            row.injected += 1
            row.runs += 2
            assert ended[1].code == 0, ended[1].err
            assert ended[0].code in ((-signal.SIGKILL, 0) if kill else (0,)), ended[0].err
            row.verdicts.append(study.judge(store))
            say(
                f"{row.fault}: {turn + 1}/{times}, exit codes {[e.code for e in ended]}: {row.verdicts[-1].sound}"
            )
    return rows


def jumping_clock(study: Study, say: Say) -> Row:
    """The wall clock jumps by hours at every look. (libfaketime breaks ``time.sleep`` of Python, so it cannot be used.)"""
    row, store = Row("a clock that jumps"), study.store("clock")
    row.injected = 1
    _to_the_end(study, store, row, say, faults={"clock": True})
    say(f"{row.fault}: {row.verdicts[-1].sound}")
    return row


def full_shared_memory(study: Study, say: Say) -> Row:
    """A /dev/shm without a free byte, for this run alone."""
    row, store = Row("a full /dev/shm"), study.store("shm")
    with disk(study.folder / "shm", 4) as full:
        filler = full / "filler"
        with suppress(OSError):
            filler.write_bytes(b"\0" * 8192)
        subprocess.run(["mount", "--bind", str(full), "/dev/shm"], check=True)
        try:
            row.injected = 1
            _to_the_end(study, store, row, say)
        finally:
            subprocess.run(["umount", "-l", "/dev/shm"], check=True)
    say(f"{row.fault}: {row.verdicts[-1].sound}")
    return row


def hangs(study: Study, times: int, say: Say) -> list[Row]:
    """A step of a simulator never returns: it is killed, and its episode runs again. The third time a sentence says so."""
    row, always, named = Row("a simulator that hangs"), Row("a simulator that always hangs at one state"), 0
    for turn in range(times):
        store = study.store("hang")
        once = study.folder / f"hang-{turn}"
        fault = {"at": "step", "do": "hang", "once": str(once), "after": 20 * turn}
        _to_the_end(study, store, row, say, faults={"faults": [fault]}, CGAP_SIMULATOR_SECONDS="5")
        row.injected += once.exists()
        say(f"{row.fault}: {turn + 1}/{times}: {row.verdicts[-1].sound}")
    for what, state, sentence in (
        ("episode", state_of(study), "did not answer within 2 s 3 times"),
        ("demonstration", DEMONSTRATION_STATES + 1, "for 2 s it had said nothing"),
    ):
        store, fault = study.store("hangs"), {"at": f"step from {state}", "do": "hang"}
        ended = study.run(store, faults={"faults": [fault]}, CGAP_SIMULATOR_SECONDS="2")
        always.runs += 1
        always.injected += 1
        named += ended.code == 2 and sentence in ended.err and "Traceback" not in ended.err
        say(f"{always.fault}, {what}: exit code {ended.code}: {ended.err.strip()[-300:]}")
        _to_the_end(study, store, always, say)
    always.named = f"{named} of {always.injected}"
    return [row, always]


def state_of(study: Study) -> int:
    """An initial state of the evaluation protocol."""
    return int(sorted(row[3] for row in study.reference.rows)[1])
