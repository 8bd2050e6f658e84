"""The engine: killed anywhere and started again it ends with the same store; failures stay where they are."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml

from compression_gap.artifacts.demonstrations import Demonstrations
from compression_gap.artifacts.normaliser import FittedNormaliser
from compression_gap.cli import main as cli
from compression_gap.errors import UserError
from compression_gap.rollouts.pools import close_pools
from compression_gap.sims import SimulatorError
from compression_gap.store import engine, schedule
from compression_gap.store.engine import InProcess, missing_steps, run_plan
from compression_gap.store.outcome import failure_file
from compression_gap.store.store import Store
from compression_gap.study.file import parse_study
from compression_gap.study.plan import make_plan

MINI = {
    "name": "mini",
    "suite": "channel",
    "cameras": {"image_size": 8},
    "factors": {"encoder": ["retina-2"], "action": ["oat"], "seed": [0], "demos": [3]},
    "training": {"steps": 4, "batch_size": 4, "warmup": 1, "validations": 4},
    "tokenizer": {"steps": 4, "batch_size": 4},
    "policy": {"sampling_steps": 2},
    "rollout": {"execute": 16, "episodes_per_task": 3},
    "limits": False,
    "references": False,
}

# Runs a study, maybe to its own death. A file, because workers need a main module that they can import.
SCRIPT = '''
import json, os, random, signal, sys
from pathlib import Path

from compression_gap.rollouts import pools
from compression_gap.store import engine, store
from compression_gap.store.engine import run_plan
from compression_gap.store.workers import Workers
from compression_gap.store.store import Store
from compression_gap.study.plan import make_plan
from compression_gap.study.file import load_study

class Quiet:
    def started(self, step): pass
    def elsewhere(self, step): print("elsewhere", step.label, file=sys.stderr)
    def progress(self, step, done, total): pass
    def finished(self, step, seconds): pass
    def failed(self, step, record): print(record["sentence"], file=sys.stderr)

def run(root, commit_point, engine=engine.InProcess(), watcher=None):
    store.commit_point = commit_point
    plan = make_plan(load_study(Path(sys.argv[1]), None))
    outcome = run_plan(plan, Store(root), engine=engine, watcher=watcher or Quiet())
    assert not outcome.failures and not outcome.stopped, outcome
    print(json.dumps(outcome.built), file=sys.stderr)
    pools.close_pools()

def in_a_fork(root, commit_point):
    """Whether the run came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            run(root, commit_point)
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, status
    return not os.WIFSIGNALED(status)

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def every_point(root):
    """Die once at every commit point that the study has, one after the other."""
    died, log = [], Path(root).with_suffix(".log")
    log.touch()
    def commit_point(name):
        if name not in log.read_text().split():
            with log.open("a") as stream:
                stream.write(name + "\\n")
            die()
    while not in_a_fork(root, commit_point):
        pass
    return log.read_text().split()

def random_points(root, seed):
    rng, deaths = random.Random(seed), 0
    for _ in range(4):
        left = [rng.randint(2, 8)]
        def commit_point(name):
            left[0] -= 1
            if left[0] == 0:
                die()
        deaths += not in_a_fork(root, commit_point)
    assert in_a_fork(root, lambda name: None)
    return deaths

class Killer(Quiet):
    """Kills a worker when the n-th step begins, or the whole process group when the n-th step ends."""
    def __init__(self, worker_at, group_at):
        self.worker_at, self.group_at = worker_at, group_at
    def started(self, step):
        self.worker_at -= 1
        if self.worker_at == 0:
            import multiprocessing
            victim = random.Random(step.label).choice(multiprocessing.active_children())
            os.kill(victim.pid, signal.SIGKILL)
    def finished(self, step, seconds):
        self.group_at -= 1
        if self.group_at == 0:
            os.killpg(0, signal.SIGKILL)

if __name__ == "__main__":
    what, root = sys.argv[2], sys.argv[3]
    if what == "pool":
        run(root, lambda name: None, Workers(2), Killer(int(sys.argv[4]), int(sys.argv[5])))
        print("whole")
    else:
        import torch, diffusers, pyarrow.parquet
        torch.set_num_threads(1)
        from compression_gap import policies, rollouts, tokenizers
        from compression_gap.demos import experts
        print(json.dumps(every_point(root) if what == "every" else random_points(root, int(sys.argv[4]))))
'''


class Recorder:
    """A watcher that keeps what it is told."""

    def __init__(self):
        self.begun, self.done, self.sentences = [], [], []

    def started(self, step):
        self.begun.append(step)

    def progress(self, step, done, total):
        assert 0 <= done <= total

    def finished(self, step, seconds):
        self.done.append(step)

    def failed(self, step, record):
        self.sentences.append((step.kind, record["sentence"]))


def study_file(folder, **changes):
    """A study file with ``section__key=value`` changed from the mini study."""
    data = {k: dict(v) if isinstance(v, dict) else v for k, v in MINI.items()}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            data.setdefault(section, {})[key] = value
        else:
            data[section] = value
    file = folder / "mini.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def plan_of(folder, **changes):
    return make_plan(parse_study(study_file(folder, **changes).read_text(), "mini"))


def run_here(plan, store, **options):
    watcher = Recorder()
    outcome = run_plan(plan, store, engine=InProcess(), watcher=watcher, **options)
    close_pools()
    return outcome, watcher


def rows(plan, root):
    """Every evidence row of a study, sorted."""
    import pyarrow.parquet as parquet

    store = Store(root)
    tables = [parquet.read_table(store.open(c.evidence) / "episodes.parquet") for c in plan.cells]
    out = [tuple(row.values()) for table in tables for row in table.to_pylist()]
    return sorted(out)


def checksums(plan, root):
    """The checksums of every file of every artefact of a study."""
    store = Store(root)
    return {
        (s.label, name): file["sha256"]
        for s in plan.steps.values()
        for name, file in store.manifest(s)["files"].items()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The mini study, run in one go."""
    folder = tmp_path_factory.mktemp("undisturbed")
    plan = plan_of(folder)
    outcome, watcher = run_here(plan, Store(folder / "store"))
    return SimpleNamespace(
        plan=plan, root=folder / "store", file=folder / "mini.yaml", outcome=outcome, watcher=watcher
    )


def script(folder, *arguments, **options):
    file = folder / "runs_a_study.py"
    file.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(file), *map(str, arguments)],
        capture_output=True, text=True, env=environment, check=False, **options,
    )  # fmt: skip


def test_a_run_builds_every_step_once_in_order(undisturbed):
    assert undisturbed.outcome.failures == {}
    assert not undisturbed.outcome.stopped
    assert sorted(undisturbed.outcome.built) == sorted(undisturbed.plan.steps)
    assert [s.key for s in undisturbed.watcher.done] == undisturbed.outcome.built
    for i, step in enumerate(undisturbed.watcher.done):
        assert {n.key for n in step.inputs.values()} <= set(undisturbed.outcome.built[:i])
    assert missing_steps(undisturbed.plan, Store(undisturbed.root)) == []
    table = rows(undisturbed.plan, undisturbed.root)
    protocol = undisturbed.plan.protocol
    key = undisturbed.plan.cells[0].evidence.key
    assert [r[:5] for r in table] == [(key, protocol.hash, "reach", s, 0) for s in protocol.initial_states]


def test_a_second_run_builds_nothing(undisturbed):
    outcome, watcher = run_here(undisturbed.plan, Store(undisturbed.root))
    assert outcome.built == []
    assert watcher.begun == []


def test_only_what_a_result_needs_is_missing(undisturbed, tmp_path):
    """Without an intermediate artefact nothing is missing while what was made from it is there."""
    import shutil

    root = tmp_path / "store"
    shutil.copytree(undisturbed.root, root)
    shutil.rmtree(root / "tokens")
    assert missing_steps(undisturbed.plan, Store(root)) == []
    shutil.rmtree(root / "policy")
    assert [s.kind for s in missing_steps(undisturbed.plan, Store(root))] == ["tokens", "policy"]
    run_here(undisturbed.plan, Store(root))
    assert checksums(undisturbed.plan, root) == checksums(undisturbed.plan, undisturbed.root)


def test_killed_at_every_commit_point_it_ends_with_the_same_bytes(undisturbed, tmp_path):
    done = script(tmp_path, undisturbed.file, "every", tmp_path / "store")
    assert done.returncode == 0, done.stderr
    kinds = [s.kind for s in undisturbed.watcher.done]
    points = [f"{kind}:{at}" for kind in kinds for at in ("built", "before-rename", "after-rename")]
    assert json.loads(done.stdout) == points
    assert rows(undisturbed.plan, tmp_path / "store") == rows(undisturbed.plan, undisturbed.root)
    assert checksums(undisturbed.plan, tmp_path / "store") == checksums(undisturbed.plan, undisturbed.root)
    assert list((tmp_path / "store" / "tmp").iterdir()) == []  # what the dead left was swept


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_commit_points_it_ends_with_the_same_bytes(undisturbed, tmp_path, seed):
    done = script(tmp_path, undisturbed.file, "random", tmp_path / "store", seed)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) >= 2  # deaths
    assert checksums(undisturbed.plan, tmp_path / "store") == checksums(undisturbed.plan, undisturbed.root)


def test_processes_that_are_killed_lose_no_row_and_double_none(undisturbed, tmp_path):
    root = tmp_path / "store"
    whole = ("pool", root, 2, 3)  # a worker dies at the second step, everything after the third
    done = script(tmp_path, undisturbed.file, *whole, start_new_session=True)
    assert done.returncode == -9, done.stderr
    assert missing_steps(undisturbed.plan, Store(root))
    done = script(tmp_path, undisturbed.file, "pool", root, 3, 99, start_new_session=True)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
    assert rows(undisturbed.plan, root) == rows(undisturbed.plan, undisturbed.root)


def test_two_runs_at_once_share_the_work(undisturbed, tmp_path):
    """Each step is built by one of them, and both end with all of it."""
    (tmp_path / "runs_a_study.py").write_text(SCRIPT)
    root = tmp_path / "store"
    Store(root)
    command = [
        sys.executable,
        str(tmp_path / "runs_a_study.py"),
        str(undisturbed.file),
        "pool",
        str(root),
        "99",
        "99",
    ]
    both = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert checksums(undisturbed.plan, root) == checksums(undisturbed.plan, undisturbed.root)
    assert list((root / "claims").iterdir()) == []
    built = [
        key for _, log in said for line in log.splitlines() if line[0] == "[" for key in json.loads(line)
    ]
    assert sorted(built) == sorted(undisturbed.plan.steps), said


# Budget


class Clock:
    """Every look at it takes a second."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 1.0
        return self.now


def test_a_budget_stops_and_the_next_run_goes_on_to_the_same_policy(undisturbed, tmp_path, monkeypatch):
    clock = Clock()
    for module in (engine, schedule):
        monkeypatch.setattr(module, "time", clock)
    store, stops, checkpoints = Store(tmp_path), 0, set()
    while True:
        outcome, _ = run_here(undisturbed.plan, store, budget=6)
        if not outcome.stopped:
            break
        stops += 1
        checkpoints |= {json.loads(f.read_text())["step"] for f in tmp_path.glob("work/*/checkpoint.json")}
        assert stops < 40
    assert stops >= 3
    assert checkpoints & {1, 2, 3}  # stopped in the middle of a training
    assert checksums(undisturbed.plan, tmp_path) == checksums(undisturbed.plan, undisturbed.root)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_budget_that_is_spent_at_once_builds_nothing(undisturbed, tmp_path):
    outcome, watcher = run_here(undisturbed.plan, Store(tmp_path), budget=0)
    assert outcome.stopped
    assert watcher.begun == []


# Failures


DIVERGES = {
    "factors__action": ["oat", "diffusion"],
    "training__lr": {"oat": 1e38, "diffusion": 1e-3},
}


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A study one of whose two trainings diverges."""
    folder = tmp_path_factory.mktemp("diverged")
    plan = plan_of(folder, **DIVERGES)
    store = Store(folder / "store")
    outcome, watcher = run_here(plan, store)
    return SimpleNamespace(
        plan=plan, store=store, file=folder / "mini.yaml", outcome=outcome, watcher=watcher
    )


def test_a_diverged_training_ends_its_cell_and_no_other(diverged):
    oat, diffusion = diverged.plan.cells
    record = diverged.outcome.failures[oat.policy.key]
    assert record["kind"] == "diverged"
    assert record["step"] == "training oat 1000 · retina-2 · xs · seed 0"
    assert record["sentence"].startswith("the training diverged at step 2 of 4 (loss nan")
    assert record["sentence"].endswith("lower the learning rate")
    given_up = diverged.outcome.failures[oat.evidence.key]
    assert given_up == {**record, "because": oat.policy.key}
    assert set(diverged.outcome.failures) == {oat.policy.key, oat.evidence.key}
    assert json.loads(failure_file(diverged.store, oat.policy).read_text()) == record
    assert not failure_file(diverged.store, oat.evidence).exists()
    assert diverged.watcher.sentences == [("policy", record["sentence"])]
    assert diverged.store.has(diffusion.evidence)
    assert not diverged.store.has(oat.policy)


def test_a_diverged_training_is_tried_again_only_when_asked(diverged):
    outcome, watcher = run_here(diverged.plan, diverged.store)
    assert watcher.begun == []
    assert len(outcome.failures) == 2
    outcome, watcher = run_here(diverged.plan, diverged.store, retry=True)
    assert [s.kind for s in watcher.begun] == ["policy"]
    assert len(outcome.failures) == 2
    assert failure_file(diverged.store, diverged.plan.cells[0].policy).exists()


def test_a_retry_does_not_start_from_the_checkpoint_that_diverged(diverged):
    left = diverged.store.work(diverged.plan.cells[0].policy) / "left"
    left.write_text("x")
    run_here(diverged.plan, diverged.store, retry=True)
    assert not left.exists()


def test_the_report_and_the_status_show_a_diverged_cell(diverged, capsys):
    where = ["--store", str(diverged.store.root)]
    assert cli.main(["report", str(diverged.file), *where, "--videos", "0", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    by_action = {c["action"]: c for c in summary["cells"]}
    assert by_action["oat"]["rate"] is None
    assert by_action["oat"]["failures"][0]["seed"] == 0
    assert by_action["diffusion"]["failures"] == []
    assert by_action["diffusion"]["rate"]["value"] in (0.0, 1 / 3, 2 / 3, 1.0)
    page = (diverged.store.root / "studies" / "mini" / "report.html").read_text()
    assert "the training diverged at step 2 of 4" in page
    assert "<td>failed</td>" in page
    assert cli.main(["study", "status", str(diverged.file), *where]) == 0
    said = capsys.readouterr().out
    assert "mini: 8 of 10 steps done, 1 failed" in said
    assert "failed: training oat 1000 · retina-2 · xs · seed 0: the training diverged" in said


def refuse(self, job):
    raise UserError("the demonstrations are all of one colour: paint them")


def crash(self, job):
    raise ZeroDivisionError("by hand")


def test_a_builder_s_sentence_is_the_program_s_with_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FittedNormaliser, "build", refuse)
    where = ["--store", str(tmp_path / "store"), "--processes", "0"]
    assert cli.main(["study", "run", str(study_file(tmp_path)), *where]) == 2
    said = capsys.readouterr().err
    assert said.endswith("cgap: the demonstrations are all of one colour: paint them\n")
    assert "Traceback" not in said
    assert not list((tmp_path / "store").glob("failures/*"))  # mended, the next run tries it again
    monkeypatch.undo()
    plan = plan_of(tmp_path)
    assert run_here(plan, Store(tmp_path / "store"))[0].failures == {}


def test_a_crash_is_shown_with_its_traceback_and_exit_code_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(FittedNormaliser, "build", crash)
    where = ["--store", str(tmp_path / "store"), "--processes", "0"]
    assert cli.main(["study", "run", str(study_file(tmp_path)), *where]) == 1
    said = capsys.readouterr().err
    assert "cgap: failed: normaliser: ZeroDivisionError: by hand" in said
    assert said.count("Traceback (most recent call last)") == 1  # dependents do not repeat it
    assert "FAILED normaliser: ZeroDivisionError: by hand" in said


def test_damage_in_the_store_is_a_sentence_and_the_same_command_mends_it(undisturbed, tmp_path, capsys):
    import shutil

    root = tmp_path / "store"
    shutil.copytree(undisturbed.root, root)
    shutil.rmtree(root / "policy")
    shutil.rmtree(root / "episodes")
    features = next(root.glob("features/*/features.npy"))
    features.write_bytes(features.read_bytes()[:-1] + b"\x7f")
    command = ["study", "run", str(undisturbed.file), "--store", str(root), "--processes", "0", "--no-report"]
    assert cli.main(command) == 2
    assert "features.npy does not match its checksum" in capsys.readouterr().err
    assert cli.main(command) == 0
    close_pools()
    assert checksums(undisturbed.plan, root) == checksums(undisturbed.plan, undisturbed.root)


# What a failure leaves nothing to do for


def demos_of(count):
    """Demonstrations of as many tasks, and a normaliser of all of them."""
    demos = [Demonstrations(task=f"t{i}", versions={}) for i in range(count)]
    return demos, FittedNormaliser(demos=tuple(demos))


def failing(which, error):
    """A builder that fails at these tasks, and what it was asked for."""
    asked = []

    def build(self, job):
        asked.append(self.task)
        if self.task in which:
            raise error
        return {}

    return build, asked


def test_a_simulator_that_fails_every_time_is_not_tried_on(tmp_path, monkeypatch):
    steps, _ = demos_of(6)
    build, asked = failing({f"t{i}" for i in range(6)}, SimulatorError("the simulator 'x' failed: mend it"))
    monkeypatch.setattr(Demonstrations, "build", build)
    watcher = Recorder()
    outcome = engine.run_steps(steps, Store(tmp_path), engine=InProcess(), watcher=watcher)
    assert asked == ["t0", "t1"]
    assert watcher.sentences == [("demos", "the simulator 'x' failed: mend it")] * 2
    assert [f["kind"] for f in outcome.failures.values()] == ["simulator"] * 6
    assert sum("because" not in f for f in outcome.failures.values()) == 2


def test_a_simulator_that_works_elsewhere_is_tried_on(tmp_path, monkeypatch):
    steps, _ = demos_of(6)
    build, asked = failing({"t1", "t2", "t4"}, SimulatorError("failed"))
    monkeypatch.setattr(Demonstrations, "build", build)
    outcome = engine.run_steps(steps, Store(tmp_path), engine=InProcess(), watcher=Recorder())
    assert asked == [f"t{i}" for i in range(6)]
    assert len(outcome.failures) == 3


def test_demonstrations_that_no_result_can_use_any_more_are_not_made(tmp_path, monkeypatch):
    steps, last = demos_of(6)
    build, asked = failing({"t2"}, UserError("the expert failed: choose another task"))
    monkeypatch.setattr(Demonstrations, "build", build)
    goals = {last.key, steps[4].key}  # these are wanted for themselves
    outcome = engine.run_steps(
        [*steps, last], Store(tmp_path), engine=InProcess(), watcher=Recorder(), goals=goals
    )
    assert asked == ["t0", "t1", "t2", "t4"]
    first = outcome.failures[steps[2].key]
    assert "because" not in first
    left = {s.key for s in (steps[3], steps[5], last)}
    assert {k for k, f in outcome.failures.items() if "because" in f} == left
    assert {f["sentence"] for f in outcome.failures.values()} == {first["sentence"]}


def test_a_failed_simulator_is_a_sentence_with_exit_code_2(tmp_path, monkeypatch, capsys):
    from compression_gap.sims.channel import Channel

    def broken(self, *, images=True):
        raise KeyError("mujoco.gl_context")

    monkeypatch.setattr(Channel, "observe", broken)
    where = ["--store", str(tmp_path / "store"), "--processes", "0"]
    assert cli.main(["study", "run", str(study_file(tmp_path)), *where]) == 2
    said = capsys.readouterr().err
    assert "the simulator 'channel' failed at reach, initial state 0 (KeyError: 'mujoco.gl_context'" in said
    assert "Traceback" not in said
    log = (tmp_path / "store" / "studies" / "mini" / "run.log").read_text()
    assert log.count("Traceback (most recent call last)") == 2  # the error, and what it was told as
    assert not list((tmp_path / "store").glob("failures/*"))  # mended, the next run tries it again
