"""Mirrors: what they are shown of a study, and that nothing that they do reaches it."""

import json
import os
import shutil
import signal
from importlib.machinery import ModuleSpec

import pytest

from compression_gap.api.beside import beside
from compression_gap.api.mirrors import registry
from compression_gap.api.mirrors.registry import MirrorEntry
from compression_gap.api.options import Running
from compression_gap.api.progress import RunWatcher
from compression_gap.api.study import build_study, load_study, open_study
from compression_gap.artifacts.episodes import Episodes
from compression_gap.artifacts.policy import TrainedPolicy
from compression_gap.cli.main import main
from compression_gap.errors import UserError
from compression_gap.nn.training import Diverged

FAKES = ("Recording", "Raising", "Hanging", "Dying", "Asking")


@pytest.fixture
def fakes(plug_in):
    for name in FAKES:
        plug_in("mirrors", name.lower(), MirrorEntry(f"fake_mirrors:{name}"))


@pytest.fixture
def halved(finished, tmp_path):
    """The finished study in a store of its own without an expert, a policy, and the evidence of two policies."""

    def make(name):
        shutil.copytree(finished.store, tmp_path / name)
        opened = open_study(load_study(finished.file), tmp_path / name)
        shutil.rmtree(opened.folder)
        one, other = opened.plan.cells[:2]
        expert = next(iter(opened.plan.references[-1].runs.values()))
        for step in (one.policy, one.evidence, other.evidence, expert):
            shutil.rmtree(opened.store.path(step))
        return opened

    return make


def built(opened, *mirrors):
    """What ``study run --mirror`` builds, in this process."""
    return build_study(opened, Running(processes=0), followers=beside(opened, "", mirrors=mirrors))


def seen(opened, mirror):
    file = opened.folder / "mirrors" / mirror / "seen.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def runs(calls):
    """The runs by name: their configuration, their numbers by step, and whether they failed."""
    begun = {key: (name, config) for what, key, *(name, config) in (c for c in calls if c[0] == "begin")}
    out = {}
    for key, (name, config) in begun.items():
        logged = [(c[2], c[3]) for c in calls if c[0] == "log" and c[1] == key]
        out[name] = (config, logged, [c[2] for c in calls if c[0] == "end" and c[1] == key])
    return out


def content(store):
    """Every file of the artefacts, and their manifests without what tells of the clock."""
    out = {}
    for file in sorted(store.root.rglob("*")):
        name = file.relative_to(store.root)
        if file.is_file() and name.parts[0] not in ("studies", "claims"):
            out[str(name)] = file.read_bytes()
            if file.name == "artifact.json":
                out[str(name)] = {n: v for n, v in json.loads(out[str(name)]).items() if n != "meta"}
    return out


def test_a_study_is_the_same_with_mirrors_that_record_raise_hang_and_die(fakes, halved, capsys, monkeypatch):
    plain, mirrored = halved("plain"), halved("mirrored")
    assert not built(plain).failures
    capsys.readouterr()
    monkeypatch.setattr(registry, "PATIENCE", 30.0)
    outcome = built(mirrored, "recording", "raising,dying", "asking")
    assert (len(outcome.built), outcome.failures, outcome.stopped) == (4, {}, False)
    monkeypatch.setattr(registry, "PATIENCE", 0.3)
    shutil.rmtree(mirrored.store.path(mirrored.plan.cells[1].evidence))
    assert len(built(mirrored, "hanging").built) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("cgap: ")]
    log = mirrored.folder / "mirrors"
    assert sorted(line for line in lines if "is mirrored" not in line) == [
        f"cgap: the mirror 'asking' failed (EOFError: EOF when reading a line); the study goes on (see {log}/asking.log)",
        f"cgap: the mirror 'dying' has died; the study goes on (see {log}/dying.log)",
        "cgap: the mirror 'hanging' did not end within 0.3 s: part of the run may be missing there; the study goes on "
        f"(see {log}/hanging.log)",
        f"cgap: the mirror 'raising' failed (ValueError: no room at all); the study goes on (see {log}/raising.log)",
    ]
    assert "cgap: small is mirrored in recording" in lines
    assert "what is your key?" in (log / "asking.log").read_text()
    assert "fake_mirrors.py" in (log / "raising.log").read_text()
    assert content(mirrored.store) == content(plain.store)

    calls = seen(mirrored, "recording")
    assert calls[0][:2] == ["made", "small"]
    assert calls[0][2] != os.getpid()
    assert calls[-1] == ["close"]
    shown, (one, other) = runs(calls), mirrored.plan.cells[:2]
    expert = next(iter(mirrored.plan.references[-1].runs.values()))
    assert list(shown) == ["small", one.policy.label, other.policy.label, expert.label]
    _, study, ended = shown["small"]
    assert [(step, v["study/done"], v["study/failed"]) for step, v in study] == [
        (s, s, 0) for s in range(37, 42)
    ]
    assert study[-1][1]["study/seconds_left"] == 0 < study[0][1]["study/seconds_left"]
    assert ended == [False]
    config, logged, ended = shown[one.policy.label]
    assert (config["encoder"], config["training"]["steps"]) == (one.encoder, 6)
    assert config["artifact"] == f"policy/{one.policy.key}"
    curve = mirrored.store.meta(one.policy)["curve"]
    for i, (step, values) in enumerate(logged[:-1]):
        assert step == curve["step"][i]
        assert (values["loss/train"], values["loss/validation"]) == (
            curve["train"][i],
            curve["validation"][i],
        )
    first = logged[0][1]["speed/steps_per_second"]
    assert first == pytest.approx(curve["step"][0] / curve["seconds"][0])
    rows = one.evidence.load(mirrored.store)
    rate = pytest.approx(rows["success"].mean())
    assert logged[-1] == (6, {"success/all": rate, "success/reach": rate})
    assert len(logged) == len(curve["step"]) + 1
    assert ended == [False]
    assert [step for step, _ in shown[other.policy.label][1]] == [6]  # trained before: its evidence alone
    assert shown[expert.label][1][0][0] == 0


def test_a_training_that_diverged_is_a_run_that_failed(fakes, halved, capsys, monkeypatch):
    opened = halved("diverges")

    def diverges(self, job):
        raise Diverged("the training diverged")

    monkeypatch.setattr(TrainedPolicy, "build", diverges)
    assert built(opened, "recording").failures
    shown = runs(seen(opened, "recording"))
    config, logged, ended = shown[opened.plan.cells[0].policy.label]
    assert (config["failure"], logged, ended) == ("the training diverged", [], [True])
    assert shown["small"][1][-1][1]["study/failed"] == 1
    assert shown["small"][2] == [True]


def test_ctrl_c_ends_the_mirrors_too(fakes, halved, finished, capsys, monkeypatch):
    """One is told so, one hangs; the run ends with 130 all the same."""
    opened = halved("interrupted")
    monkeypatch.setattr(registry, "PATIENCE", 30.0)
    started = RunWatcher.started

    def pressed(self, step):
        started(self, step)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunWatcher, "started", pressed)
    where = [str(finished.file), "--store", str(opened.store.root), "--processes", "0"]
    assert main(["study", "run", *where, "--mirror", "recording"]) == 130
    said = capsys.readouterr().err
    assert said.endswith("cgap: stopped; the same command goes on where this one ended\n")
    assert seen(opened, "recording")[-1] == ["close"]
    monkeypatch.setattr(registry, "PATIENCE", 0.3)
    assert main(["study", "run", *where, "--mirror", "hanging"]) == 130
    assert "'hanging' did not end within 0.3 s" in capsys.readouterr().err


def test_what_a_policy_does_snapped_has_a_name_of_its_own(finished):
    """Both stand in the run of one training."""
    from compression_gap.api.mirrors.study import _measured

    opened = open_study(load_study(finished.file), finished.store)
    cell = opened.plan.cells[-1]
    tokenizer = cell.policy.tokenizer

    class Snapped(Episodes, kind="snapped-by-a-test", version=1):
        def load(self, store):
            return cell.evidence.load(store)

    step = Snapped(protocol=cell.evidence.protocol, actor="snapped", policy=cell.policy, tokenizer=tokenizer)
    assert set(_measured(step, opened.store)) == {
        f"success requantised by {tokenizer.code.words}/{n}" for n in ("all", "reach")
    }


def test_a_mirror_that_is_unknown_or_whose_package_is_absent_is_refused_at_once(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = ["study", "run", "--preset", "tiny", "--mirror"]
    assert main([*run, "tensorbord"]) == 2
    known = "known: tensorboard, trackio, wandb"
    assert (
        capsys.readouterr().err
        == f"cgap: unknown mirror 'tensorbord' (did you mean 'tensorboard'?); {known}\n"
    )
    found = {"wandb": None, "trackio": ModuleSpec("trackio", None)}
    monkeypatch.setattr(registry, "find_spec", found.get)
    assert main([*run, "trackio,wandb"]) == 2
    assert capsys.readouterr().err == (
        "cgap: the mirror 'wandb' needs wandb, which is not installed: pip install \"compression-gap[wandb]\"\n"
    )
    assert not (tmp_path / "store" / "studies").exists()
    assert registry.mirror_names(["trackio, trackio", "trackio"]) == ["trackio"]
    with pytest.raises(UserError, match="unknown mirror ''"):
        registry.mirror_names([""])
