"""What a plan says that a study would cost: numbers that can be checked by hand, and a machine without a network."""

import json
from dataclasses import replace

import pytest

from compression_gap.api.study import describe_plan, load_study
from compression_gap.cli.main import main
from compression_gap.costs.benchmark import FILE, measure_steps, read_measured
from compression_gap.costs.estimate import GPU, estimate, planned_policies
from compression_gap.costs.records import Frames
from compression_gap.encoders import sources
from compression_gap.errors import UserError
from compression_gap.store.store import Store
from compression_gap.study.file import parse_study
from compression_gap.study.plan import make_plan

STUDY = """\
name: costs
suite: channel
cameras: {image_size: 16}
factors: {encoder: [ENCODER], action: [diffusion, oat], seed: [0, 1], demos: [20]}
training: {steps: 100, batch_size: 8}
tokenizer: {steps: 5, batch_size: 8}
rollout: {execute: 8, episodes_per_task: 10, checkpoints: 2}
"""


def planned(encoder="retina-4", sketch=False):
    return make_plan(parse_study(STUDY.replace("ENCODER", encoder), "test"), sketch=sketch)


def costs(plan, tmp_path, measured=None):
    return estimate(plan, Store(tmp_path / "store"), set(plan.steps), measured)


def test_numbers_that_can_be_counted(tmp_path):
    plan = planned()
    found, limit = costs(plan, tmp_path), plan.protocol.step_limit
    frames = 20 * limit / 2  # assumed: half the step limit each
    assert found.frames == Frames(count=frames, assumed=True)
    # One camera of 16 × 16 pixels, 2 actions, 2 numbers of the robot and 2 of the state.
    action, proprio, state = 2, plan_proprio(plan), 2
    assert found.disk["demonstrations"] == frames * (16 * 16 * 3 + 4 * (action + proprio + state))
    # float16 of blind (1) and retina-4 (48), float32 of the oracle (2)
    assert found.disk["features"] == frames * (2 * 1 + 2 * 48 + 4 * 2)
    assert found.device_memory == frames * 2 * 48
    assert found.disk["tokens"] == 2 * frames * 16 * action * 4  # each seed has its tokenizer
    weights = sum(p.trainings * p.parameters["total"] for p in found.policies)
    assert found.disk["policies"] == 4 * 2 * weights  # the last weights and one checkpoint before
    training = found.training
    assert training.trainings == 12
    assert training.steps == 1200
    assert training.flops == sum(p.trainings * 100 * p.step_flops for p in found.policies)
    assert training.measured is None
    # twelve policies × two evaluations, expert, expert-chunked, and expert-coded of two tokenizers
    assert found.rollouts.episodes == 10 * (12 * 2 + 4)
    assert found.unknown == []


def plan_proprio(plan):
    from compression_gap.sims import sim_info

    return sim_info(plan.protocol.sim).proprio_dim


def test_hours_of_a_gpu_are_an_assumption_that_is_said(tmp_path):
    gpu = costs(planned(), tmp_path).training.gpu
    # Steps this small are bound by their kernels' starts: xs has two layers.
    assert gpu.hours == pytest.approx(1200 * (GPU.step_seconds + 2 * GPU.layer_seconds) / 3600)
    assert "assumed, not measured: 40 TFLOP/s" in gpu.assumption
    assert GPU.training_step(80 * 10**12, 2) == 2.0


def test_only_what_is_missing_takes_hours(tmp_path):
    plan = planned()
    none = estimate(plan, Store(tmp_path / "store"), set(), None)
    assert none.training.gpu.hours == none.rollouts.core_hours == 0
    assert none.disk == costs(plan, tmp_path).disk


def test_frames_are_those_of_the_demonstrations_that_are_there(finished):
    found = describe_plan(load_study(finished.file), finished.store).estimate
    assert found.frames.assumed is False
    assert found.training.trainings == 0
    rows = {(p.encoder, p.action): p for p in found.policies}
    for cell in finished.summary["cells"]:
        action = "oat 1000" if cell["action"] == "oat" else cell["action"]
        row = rows[cell["encoder"], action]
        assert row.parameters == cell["parameters"]
        assert row.decision_flops == cell["flops"]


def test_measured_steps_become_hours_and_are_kept(tmp_path):
    plan, store = planned(), Store(tmp_path / "store")
    assert read_measured(store) is None
    said = []
    policies = planned_policies(plan)
    found = measure_steps(policies, store, lambda done, total, label: said.append((done, total, label)))
    # Frozen encoders share one measurement for each head.
    assert [s[:2] for s in said] == [(0, 2), (1, 2)]
    assert {p.measure_key for p in policies} == set(found.steps)
    assert all(s.seconds > 0 for s in found.steps.values())
    assert read_measured(store) == found
    again = measure_steps(policies, store, lambda *now: pytest.fail("measured twice"))
    assert again == found
    half = {key: replace(step, seconds=0.5) for key, step in found.steps.items()}
    found = replace(found, steps=half)
    here = costs(plan, tmp_path, found).training.measured
    assert here.hours == pytest.approx(1200 * 0.5 / 3600)
    assert here.unmeasured == 0
    del half[policies[0].measure_key]
    here = costs(plan, tmp_path, found).training.measured
    assert (here.hours, here.unmeasured) == (pytest.approx(600 * 0.5 / 3600), 6)


def test_a_trained_encoder_can_be_measured(tmp_path):
    text = STUDY.replace("ENCODER", "resnet18").replace("image_size: 16", "image_size: 40")
    plan = make_plan(parse_study(text + "limits: false\n", "test"))
    found = measure_steps(planned_policies(plan)[:1], Store(tmp_path / "store"))
    assert [s.label for s in found.steps.values()] == ["diffusion · resnet18 · xs"]


def test_a_damaged_file_of_measurements_is_a_sentence(tmp_path):
    store = Store(tmp_path / "store")
    for text in ("{", "[]", '{"machine": 1}', '{"machine": {"steps": {}}}'):
        (store.root / FILE).write_text(text)
        with pytest.raises(UserError, match=r"measured-steps\.json is damaged .*remove it and measure again"):
            read_measured(store)


@pytest.fixture
def offline(monkeypatch):
    """The hub cannot be reached, and nothing is in the cache."""

    def nowhere(name, repo, revision):
        raise sources._unreachable(name, f"{repo} is not in the cache", OSError("no network"))

    monkeypatch.setattr(sources, "_hub_commit", nowhere)


@pytest.mark.usefixtures("offline")
def test_a_plan_shows_encoders_that_are_not_here_and_a_run_refuses_them(tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("ENCODER", "siglip-so400m, hub:someone/thing"))
    store = ["--store", str(tmp_path / "store")]
    assert main(["study", "plan", str(file), *store, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["estimate"]
    encoders = {e["encoder"]: e for e in found["encoders"]}
    assert encoders["siglip-so400m"]["feature_dim"] == 1152
    assert "the hub cannot be reached (no network)" in encoders["siglip-so400m"]["absent"]
    assert encoders["hub:someone/thing"]["image_flops"] is None
    assert encoders["blind"]["absent"] is None
    assert found["unknown"] == ["diffusion with hub:someone/thing", "oat 1000 with hub:someone/thing"]
    assert found["training"]["unknown"] == 4
    assert main(["study", "plan", str(file), *store]) == 0
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    assert "not on this machine yet: siglip-so400m, hub:someone/thing (" in words
    assert "without 4 trainings of unknown cost" in words
    assert main(["study", "run", str(file), *store]) == 2
    error = capsys.readouterr().err
    assert "encoder 'siglip-so400m': google/siglip-so400m-patch14-224 is not in the cache" in error
    assert not list((tmp_path / "store").glob("encoder/*"))


@pytest.mark.usefixtures("offline")
def test_a_sketch_does_not_take_another_error_for_a_missing_network():
    with pytest.raises(UserError, match="'siglip-tiny'"):
        planned("siglip-tiny", sketch=True)
    with pytest.raises(UserError, match="holds no config"):
        planned("folder:/nowhere", sketch=True)


@pytest.mark.usefixtures("offline")
def test_a_text_tower_that_is_not_here_is_named():
    text = STUDY.replace("ENCODER", "retina-4").replace("demos: [20]", "demos: [20], task: [text]")
    plan = make_plan(parse_study(text, "test"), sketch=True)
    assert list(plan.absent) == ["siglip-base"]
    assert {p.shape.text_dim for p in planned_policies(plan)} == {768}
    with pytest.raises(UserError, match="the hub cannot be reached"):
        make_plan(parse_study(text, "test"))


def test_the_plan_measures_when_it_is_asked_to_and_remembers(tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("ENCODER", "retina-4"))
    plan = ["study", "plan", str(file), "--store", str(tmp_path / "store"), "--json"]
    assert main([*plan, "--measure"]) == 0
    said = capsys.readouterr()
    assert "measuring a training step, 2 of 2: oat 1000" in said.err
    first = json.loads(said.out)["estimate"]
    assert first["training"]["measured"]["unmeasured"] == 0
    seconds = sum(p["trainings"] * p["steps"] * p["step_seconds"] for p in first["policies"])
    assert first["training"]["measured"]["hours"] == pytest.approx(seconds / 3600)
    assert main(plan) == 0
    assert json.loads(capsys.readouterr().out)["estimate"] == first


def test_the_plan_in_words(tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("ENCODER", "retina-4"))
    assert main(["study", "plan", str(file), "--store", str(tmp_path / "store")]) == 0
    words = " ".join(capsys.readouterr().out.split())
    for part in ("12 cells", "FLOPs a decision", "disk:", "not measured; --measure", "assumed, not measured"):
        assert part in words
