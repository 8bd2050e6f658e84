"""SIGKILL, SIGTERM and SIGINT at random moments that a seed draws, in every phase of a study."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from soaking import PATIENCE, Row, Say, Study

EARLY, EARLY_SECONDS = 0.1, 4.0  # the share of kills that wait for no build, and how early these come
NEXT = 6  # a kill comes during a build of a kind that is among so many that come next
A_STUDY = 14  # kills at most in one study
ROLES = {
    "coordinator": ("coordinator",),
    "worker": ("worker",),
    "simulator": ("simulator", "simulator", "simulator", "fork server"),
}


def kills(study: Study, times: int, seed: int, say: Say) -> list[Row]:
    """Kill ``times`` processes in all, several in each study: a row a kind of process."""
    rng = random.Random(seed)
    rows = {role: Row(f"SIGKILL of a {role}") for role in ROLES}
    phases: Counter[str] = Counter()
    done, left, begun = 0, _victims(rng, times), time.monotonic()
    while left:
        store, given, here = study.store("kills"), set[str](), 0
        while True:
            run = study.begin(store)
            while left and here < A_STUDY:
                role = left[0]
                phase = _strike(study, store, run, role, signal.SIGKILL, rng)
                if phase is None:
                    break  # the run came to its end first
                left.pop(0)
                done, here = done + 1, here + 1
                rows[role].injected += 1
                given.add(role)
                phases[phase] += 1
                per_kill = (time.monotonic() - begun) / done
                say(
                    f"{done}/{times} killed: a {role}, at {phase}; about {per_kill * (times - done) / 60:.0f} min left"
                )
                if role == "coordinator":
                    break
            how = study.end(run)
            for role in given:
                rows[role].runs += 1
            if how.code != -signal.SIGKILL:
                break
        _judge(study, store, how.code, how.err, [rows[role] for role in given], say)
    first = next(iter(rows.values()))
    first.note = "builds under way at a kill, of any process: " + ", ".join(
        f"{n} × {p}" for p, n in phases.most_common()
    )
    return list(rows.values())


def _victims(rng: random.Random, times: int) -> list[str]:
    """Who is killed, one after the other. In one run at most two workers and two simulators: the third ends a step."""
    out: list[str] = []
    while len(out) < times:
        block = ["worker"] * rng.randint(0, 2) + ["simulator"] * rng.randint(0, 2)
        rng.shuffle(block)
        out += [*block, "coordinator"]
    return out[:times]


def _strike(
    study: Study, store: Path, run: subprocess.Popen[str], role: str, number: int, rng: random.Random
) -> str | None:
    """Send a signal to a process of that role at a random moment: the builds under way then; None if the run ended."""
    wanted = rng.choice(ROLES[role])
    if role == "simulator" or rng.random() >= EARLY:
        if not _wait_for_a_build(study, store, run, rng, simulated=role == "simulator"):
            return None
    else:
        time.sleep(rng.uniform(0.0, EARLY_SECONDS))
    while run.poll() is None:
        found = [pid for pid, is_a in study.own_processes().items() if is_a == wanted]
        if found:
            phase = " and ".join(_under_way(store)) or "no build"
            try:
                os.kill(rng.choice(sorted(found)), number)
            except ProcessLookupError:
                continue
            return phase
        time.sleep(0.005)
    return None


def _wait_for_a_build(
    study: Study, store: Path, run: subprocess.Popen[str], rng: random.Random, *, simulated: bool
) -> bool:
    """Wait for a random moment of a random build that is still to come; False if the run ended."""
    while run.poll() is None:
        spent = study.reference.seconds
        left = [k for k in spent if not (store / k / "artifact.json").exists()]
        left = [k for k in left if k.startswith("episodes")] if simulated else left
        if not left:
            run.wait(PATIENCE)
            return False
        kinds = sorted({k.partition("/")[0] for k in left[:NEXT]})
        kind = rng.choice(kinds)
        target = next(k for k in left if k.startswith(kind))
        claim, until = store / "claims" / target.replace("/", "-"), rng.uniform(0.0, spent[target])
        while run.poll() is None and not (store / target / "artifact.json").exists():
            if claim.exists():
                time.sleep(until)  # the moment
                return True
            time.sleep(0.002)
    return False


def _under_way(store: Path) -> list[str]:
    """The kinds of artefacts that are claimed; of a training, whether it has a checkpoint."""
    kinds = set()
    for claim in store.glob("claims/*"):
        checkpoint = (store / "work" / claim.name / "checkpoint.json").exists()
        kinds.add(claim.name.rpartition("-")[0] + (" after a checkpoint" if checkpoint else ""))
    return sorted(kinds)


def _judge(study: Study, store: Path, code: int, said: str, rows: list[Row], say: Say) -> None:
    """The verdict counts for each of these faults."""
    if code != 0:
        raise AssertionError(f"the run ended with exit code {code}:\n{said}")
    verdict = study.judge(store)
    for row in rows:
        row.verdicts.append(verdict)
    if not verdict.sound:
        say(f"NOT SOUND: {verdict}")


SIGNALS = (
    ("SIGTERM to the coordinator", "coordinator", signal.SIGTERM, -signal.SIGTERM),
    ("SIGTERM to a worker", "worker", signal.SIGTERM, 0),
    ("SIGINT (Ctrl-C) to the group", "group", signal.SIGINT, 130),
)


def signals(study: Study, times: int, seed: int, say: Say) -> list[Row]:
    """Each signal so often, at random moments; the exit codes are those that are expected."""
    rng, rows = random.Random(seed), []
    for name, role, number, code in SIGNALS:
        row = Row(name)
        rows.append(row)
        while row.injected < times:
            store = study.store("signals")
            while True:
                run, sent = study.begin(store), False
                if row.injected < times:
                    sent = _send(study, store, run, role, number, rng)
                    row.injected += sent
                how = study.end(run)
                row.runs += 1
                say(f"{name}: {row.injected}/{times}, exit code {how.code}")
                assert how.code in ((code, 0) if sent else (0,)), f"exit code {how.code}: {how.err}"
                if how.code == 0:
                    break
            _judge(study, store, how.code, how.err, [row], say)
    return rows


def _send(
    study: Study, store: Path, run: subprocess.Popen[str], role: str, number: int, rng: random.Random
) -> bool:
    if role != "group":
        return _strike(study, store, run, role, number, rng) is not None
    if not _wait_for_a_build(study, store, run, rng, simulated=False) or run.poll() is not None:
        return False
    os.killpg(run.pid, number)
    return True
