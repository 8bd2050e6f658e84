"""Studies of recordings: the plan, what is refused, the summary, and the verbs."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from compression_gap.cli.main import main
from compression_gap.demos import DemoSet
from compression_gap.errors import UserError
from compression_gap.results.chunk_error import CAUTION
from compression_gap.results.records.json import as_json
from compression_gap.results.summary import summarise
from compression_gap.statistics import intervals as statistics
from compression_gap.statistics.variance import ERRORS
from compression_gap.store.store import Store
from compression_gap.study.file import load_study, parse_study
from compression_gap.study.offline import make_offline_plan
from compression_gap.study.plan import make_plan


def study(*data, **changes):
    tree = {"name": "own", "data": [str(d) for d in data]}
    tree["factors"] = {"encoder": ["retina-4"], "action": ["diffusion", "oat"], "seed": [0, 1]}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            tree.setdefault(section, {})[key] = value
        else:
            tree[section] = value
    return parse_study(yaml.safe_dump(tree), "own.yaml")


def kinds(plan):
    return dict(Counter(s.kind for s in plan.steps.values()))


# The plan


def test_recordings_with_the_true_state_have_both_limits_and_probes(record, tmp_path):
    folder = record(tmp_path / "store")
    plan = make_offline_plan(study(folder), Store(tmp_path / "store"))
    assert plan.encoders == ("blind", "retina-4", "oracle")
    # three encoders × two heads × two seeds; the mean, the last action and each seed's code err, too
    assert kinds(plan) == {
        "normaliser": 1, "encoder": 1, "tokenizer": 2, "tokens": 2, "features": 3, "probe": 3, "policy": 12, "error": 16,
    }  # fmt: skip
    assert plan.tasks == ("pick the cube", "open the drawer")
    order = {key: i for i, key in enumerate(plan.steps)}
    for key, step in plan.steps.items():
        assert all(i.kind == "demos" or order[i.key] < order[key] for i in step.inputs.values())
    specs = [plan.steps[c.policy.key].recipe.spec for c in plan.cells]
    assert {s["sim"] for s in specs} == {"recordings"}
    assert all(s["tasks"] == list(plan.tasks) for s in specs)
    assert len({r.key for r in plan.wanted}) == 12 + 16 + 3


def test_recordings_without_the_true_state_have_no_oracle_and_no_probes(record, tmp_path):
    plan = make_offline_plan(study(record(tmp_path, state_dim=None)), Store(tmp_path))
    assert plan.encoders == ("blind", "retina-4")
    assert plan.probes == {}
    assert make_offline_plan(study(*plan.study.data, limits=False), Store(tmp_path)).encoders == ("retina-4",)


def test_a_set_may_be_named_by_its_key(record, tmp_path, monkeypatch):
    folder = record(tmp_path / "store")
    store = Store(tmp_path / "store")
    by_folder = make_offline_plan(study(folder), store)
    by_key = make_offline_plan(study(folder.name), store)
    monkeypatch.chdir(tmp_path)
    relative = make_offline_plan(study(f"store/demos/{folder.name}"), Store(Path("store")))
    assert by_folder.steps.keys() == by_key.steps.keys() == relative.steps.keys()


def test_several_sets_are_joined(record, tmp_path):
    one, two = record(tmp_path, tasks=["a", "b"]), record(tmp_path, seed=1, tasks=["b", "c"], state_dim=None)
    plan = make_offline_plan(study(one, two), Store(tmp_path))
    assert plan.tasks == ("a", "b", "c")
    assert plan.recordings.state_dim is None
    assert plan.recordings.episodes == {"train": 32, "validation": 4, "test": 4}
    assert kinds(plan)["features"] == 4  # blind and retina-4, of two sets


def test_a_simulator_s_demonstrations_give_the_simulator_s_artefacts(record, tmp_path):
    """The same sets, the same training: the policies of both studies are one."""
    base = {"cameras": {"image_size": 16}, "factors__demos": [6], "training": {"steps": 5, "warmup": 1}}
    simulated = make_plan(parse_study(yaml.safe_dump(
        {"name": "s", "suite": "channel", "cameras": base["cameras"], "training": base["training"],
         "factors": {"encoder": ["retina-4"], "action": ["diffusion", "oat"], "seed": [0, 1], "demos": [6]}}
    ), "s"))  # fmt: skip
    (recipe,) = simulated.demos[6]
    folder = record(tmp_path, tasks=["reach"], sizes={"top": (16, 16)}, spec=recipe.spec)
    # the helper makes version 1 of a set; the key must be the simulator's
    shutil.move(folder, folder.parent / recipe.key)
    file = folder.parent / recipe.key / "artifact.json"
    file.write_text(
        json.dumps({**json.loads(file.read_text()), "version": recipe.version, "key": recipe.key})
    )
    plan = make_offline_plan(study(recipe.key, training=base["training"]), Store(tmp_path))
    assert {c.policy.key for c in plan.cells} == {c.policy.key for c in simulated.cells}
    assert plan.recordings.sim == "channel"


# What is refused: one sentence, with the words that help


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"swap": {}}, ["swap", "success", "leave it out"]),
        ({"cameras": {"image_size": 32}}, ["cameras", "cgap demos import --cameras and --image-size"]),
        ({"factors__demos": [10]}, ["factors.demos", "recordings are taken whole"]),
        ({"rollout__episodes_per_task": 3}, ["rollout.episodes_per_task", "leave it out"]),
        ({"rollout__execute": 17}, ["rollout.execute (17)", "policy.horizon (16)"]),
        ({"factors__encoder": ["retina-32"]}, ["finer than the images (16 px)", "larger --image-size"]),
        ({"factors__encoder": ["retina"]}, ["unknown encoder 'retina'"]),
        ({"factors__encoder": ["oracle-3b"]}, ["oracle-3b", "for the channel alone"]),
        ({"factors__action": ["difusion"]}, ["unknown action 'difusion'", "diffusion"]),
    ],
)  # fmt: skip
def test_keys_that_do_not_suit_recordings(record, tmp_path, changes, words):
    folder = record(tmp_path)
    with pytest.raises(UserError) as caught:
        make_offline_plan(study(folder, **changes), Store(tmp_path))
    for word in words:
        assert word in str(caught.value)


def test_pose_needs_a_simulator(record, tmp_path):
    folder = record(tmp_path)
    with pytest.raises(UserError, match="pretrained in the simulator"):
        make_offline_plan(study(folder, factors__encoder=["pose-300"]), Store(tmp_path))


def refused(root, *folders, **changes):
    with pytest.raises(UserError) as caught:
        make_offline_plan(study(*folders, **changes), Store(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_sets_that_are_not_there(record, tmp_path):
    folder = record(tmp_path / "store")
    assert f"there is no folder {tmp_path}/nowhere: name folders STORE/demos/KEY" in refused(
        tmp_path / "store", tmp_path / "nowhere"
    )
    assert f"{tmp_path}/store/demos/0123" in refused(tmp_path / "store", "0123")
    (tmp_path / "empty").mkdir()
    assert "holds no demonstrations" in refused(tmp_path / "store", tmp_path / "empty")
    (folder / "actions.npy").write_bytes(b"no array")
    assert "actions.npy is no .npy file of numbers" in refused(tmp_path / "store", folder)


def test_sets_of_another_store(record, tmp_path):
    mine, other = record(tmp_path / "mine"), record(tmp_path / "other", seed=1)
    sentence = refused(tmp_path / "mine", other)
    assert f"lies in the store {tmp_path}/other, and the study runs in the store {tmp_path}/mine" in sentence
    assert f"give --store {tmp_path}/other" in sentence
    assert "several stores" in refused(tmp_path / "mine", mine, other)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"action_dim": 2}, "differ in numbers of an action (2 and 3)"),
        ({"proprio_dim": 7}, "differ in numbers of the robot's own state (7 and 4)"),
        ({"state_dim": 6}, "differ in numbers of the true state (6 and 5)"),
        ({"sizes": {"front": (16, 16)}}, "differ in cameras (front 16 px and front 16 px, wrist 16 px)"),
        ({"sizes": {"wrist": (16, 16), "front": (16, 16)}}, "differ in cameras"),
        ({"sizes": {"front": (8, 8), "wrist": (8, 8)}}, "differ in cameras (front 8 px"),
        ({"fps": 50.0}, "have 50 and 10 frames a second, so that a chunk lasts longer in one: study them apart"),
        ({"sizes": {}}, "holds no camera images"),
        ({"sizes": {"front": (16, 16), "wrist": (8, 8)}}, "not square and of one size"),
        ({"sizes": {"front": (16, 24)}}, "(front 16 × 24) are not square and of one size: import it again with "
         "--image-size"),
    ],
)  # fmt: skip
def test_sets_that_do_not_fit(record, tmp_path, change, words):
    one, two = record(tmp_path), record(tmp_path, seed=1, **change)
    assert words in refused(tmp_path, one, two)


def test_two_sets_of_one_source_would_train_on_what_they_hold_out(record, tmp_path):
    one = record(tmp_path)
    spec = json.loads((one / "artifact.json").read_text())["spec"]
    two = record(tmp_path, seed=1, spec={**spec, "import": {**spec["import"], "image_size": 16}})
    assert "train on what the other holds out" in refused(tmp_path, one, two)
    assert "train on what the other holds out" in refused(tmp_path, one, f"{one}/")


def test_an_oracle_without_the_true_state(record, tmp_path):
    folder = record(tmp_path, state_dim=None)
    sentence = refused(tmp_path, folder, factors__encoder=["retina-4", "oracle"])
    assert "oracle reads the true state" in sentence
    assert "--true-state" in sentence


def test_a_plan_imports_no_torch(recorded):
    import subprocess
    import sys

    code = (
        "import sys; from compression_gap.api.study import describe_plan, load_study; "
        f"describe_plan(load_study({str(recorded.file)!r}), {str(recorded.store)!r}); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The summary


def test_every_cell_has_the_mean_of_its_held_out_episodes(recorded):
    plan = make_offline_plan(load_study(recorded.file, None), Store(recorded.store))
    store, summary = Store(recorded.store), recorded.summary
    assert [c["label"] for c in summary["cells"]] == [
        f"{action} · {encoder}"
        for encoder in ("blind", "retina-4", "oracle")
        for action in ("regression", "oat")
    ]
    std = np.std(_training_actions(recorded.demos), axis=0)
    for cell in summary["cells"]:
        own = [c for c in plan.cells if (c.encoder, c.action) == (cell["encoder"], cell["action"])]
        errors = [c.evidence.load(store) for c in own]
        rows = np.stack([e.whole for e in errors])
        assert cell["per_seed"] == pytest.approx(rows.mean(1).tolist())  # one held-out episode a task
        assert cell["error"]["value"] == pytest.approx(rows.mean())
        assert cell["error"]["low"] < cell["error"]["value"] < cell["error"]["high"]
        assert cell["executed_error"]["value"] == pytest.approx(np.mean([e.executed for e in errors]))
        # the root mean square errors of all dimensions are the error, in raw units
        assert np.mean((np.array(cell["rmse"]) / std) ** 2) == pytest.approx(cell["error"]["value"], rel=1e-4)
        assert [t["task"] for t in cell["per_task"]] == summary["tasks"]
        assert cell["per_task"][0]["low"] is None  # one episode has no spread
        assert (cell["converged"], len(cell["curves"])) == (cell["converged"], 2)
        assert all(Path(p).is_dir() for p in cell["policies"])


def _training_actions(folder):
    demos = DemoSet.load(folder)
    return np.concatenate([demos.actions[e.start : e.start + e.length] for e in demos.split("train")])


def test_contrasts_are_between_encoders_of_one_head(recorded):
    plan = make_offline_plan(load_study(recorded.file, None), Store(recorded.store))
    store, summary = Store(recorded.store), recorded.summary
    found = {(c["under"], *c["encoders"]): c for c in summary["contrasts"]}
    pairs = [("blind", "retina-4"), ("retina-4", "oracle"), ("blind", "oracle")]
    assert set(found) == {(a, *p) for a in ("regression", "oat") for p in pairs}
    rows = {
        e: np.stack([c.evidence.load(store).whole for c in plan.cells if (c.encoder, c.action) == (e, "oat")])
        for e in plan.encoders
    }
    expected = statistics.contrast(
        [rows["oracle"], rows["blind"]], [1, -1], np.array([0, 1]), outcomes=ERRORS
    )
    row = found["oat", "blind", "oracle"]
    for name in ("value", "low", "high", "p"):
        assert row[name] == pytest.approx(getattr(expected, name))
    assert [c["p_holm"] for c in summary["contrasts"]] == pytest.approx(
        statistics.holm([c["p"] for c in summary["contrasts"]])
    )


def test_the_headline_does_not_claim_success(recorded):
    summary = recorded.summary
    assert summary["headline"][0] == CAUTION
    assert "no success rate" in CAUTION
    assert "not decided by it" in CAUTION
    assert len(summary["headline"]) == 3  # and retina-4 against blind, under both heads
    assert "Under oat, seeing with retina-4" in summary["headline"][2]
    assert not {"verdicts", "waterfalls", "protocol"} & summary.keys()


def test_references_probes_tokenizers_and_bits_are_there(recorded):
    summary = recorded.summary
    assert [r["predictor"] for r in summary["references"]] == ["mean", "last", "coded"]
    assert summary["references"][0]["error"]["value"] == pytest.approx(1, abs=0.8)
    assert [p["encoder"] for p in summary["probes"]] == ["blind", "retina-4", "oracle"]
    probes = {p["encoder"]: p["mean"]["value"] for p in summary["probes"]}
    assert probes["oracle"] > 0.99, probes
    assert probes["oracle"] > probes["retina-4"] > probes["blind"] - 1e-9
    assert [t["label"] for t in summary["tokenizers"]] == [
        "tokenizer oat 1000, seed 0",
        "tokenizer oat 1000, seed 1",
    ]
    assert [r["fitted_seeds"] for r in summary["references"]] == [[], [], [0, 1]]
    assert summary["ledger"] is None
    assert summary["recordings"]["episodes"] == {"train": 16, "validation": 2, "test": 2}


def test_one_held_out_episode_has_no_interval_and_no_contrast(record, tmp_path, recorded):
    """Of two tasks' errors one episode is kept: nothing is said of what it cannot tell."""
    plan = make_offline_plan(load_study(recorded.file, None), Store(recorded.store))
    store = _Shortened(recorded.store)
    summary = as_json(summarise(plan, store))
    assert summary["contrasts"] == []
    assert summary["headline"] == [CAUTION]
    assert all(c["error"]["low"] is None for c in summary["cells"])
    assert "one held-out episode" in summary["cells"][0]["error"]["method"]


class _Shortened(Store):
    """A store whose errors are of the first held-out episode alone."""

    def open(self, recipe):
        folder = super().open(recipe)
        if recipe.kind != "error":
            return folder
        short = self.root / "short" / recipe.key
        if not short.exists():
            shutil.copytree(folder, short)
            for name, axis in (("sums", 1), ("counts", 1), ("episode", 0), ("task", 0)):
                array = np.load(short / f"{name}.npy")
                np.save(short / f"{name}.npy", array.take([0], axis))
        return short


def test_nothing_measured_yet_is_a_sentence(record, tmp_path):
    plan = make_offline_plan(study(record(tmp_path)), Store(tmp_path))
    with pytest.raises(UserError, match="'own' has no results yet; run it first: cgap study run"):
        summarise(plan, Store(tmp_path))


# The verbs


def spoken(capsys, *words, code=0):
    assert main([*map(str, words)]) == code
    return capsys.readouterr()


@pytest.fixture
def where(recorded):
    return [recorded.file, "--store", recorded.store]


def test_plan_status_and_report(recorded, where, capsys, tmp_path):
    plan = json.loads(spoken(capsys, "study", "plan", *where, "--json").out)
    assert plan["protocol"] is None
    assert plan["references"] == ["mean", "last", "coded"]
    assert plan["cells"] == 12
    assert not any(row["missing"] for row in plan["kinds"].values())
    assert "nothing is rolled out" in spoken(capsys, "study", "plan", *where).out
    status = json.loads(spoken(capsys, "study", "status", *where, "--json").out)
    assert status["done"] == status["steps"]
    assert all(Path(p["folder"]).is_dir() for p in status["policies"])
    page = tmp_path / "page.html"
    said = spoken(capsys, "report", *where, "--out", page).out
    assert "chunk error" in said
    assert "no success rate" in said
    assert "oat · retina-4" in said
    assert page.is_file()
    again = json.loads(spoken(capsys, "study", "run", *where, "--processes", "0", "--json").out)
    assert again == recorded.summary


def test_a_budget_stops_and_the_same_command_goes_on(record, tmp_path, capsys):
    folder = record(tmp_path / "store", tasks=["one"], episodes=3, state_dim=None)
    file = tmp_path / "own.yaml"
    file.write_text(
        f"name: own\ndata: ['{folder}']\nlimits: false\nfactors: {{encoder: [retina-4], action: [regression], "
        "seed: [0]}\ntraining: {steps: 4, batch_size: 4, warmup: 1, validations: 4}\n"
    )
    words = ["study", "run", file, "--store", tmp_path / "store", "--processes", "0"]
    assert "steps to go; the same command goes on from here" in spoken(capsys, *words, "--budget", "0s").out
    said = spoken(capsys, *words)
    assert "regression · retina-4" in said.out
    assert "training regression · retina-4" in said.err


def test_bits_of_recordings(where, recorded, tmp_path, capsys):
    """The ledger of a study of recordings: in its summary, by cgap locate, and by cgap ledger."""
    refused = spoken(capsys, "locate", *where, "--processes", "0", code=2).err
    assert "add a section 'ledger'" in refused
    tree = {**yaml.safe_load(recorded.file.read_text()), "name": "bits", "limits": False}
    tree["factors"] |= {"action": ["oat"], "seed": [0]}
    tree["ledger"] = {"steps": 4, "batch_size": 8, "prior_steps": 2, "delivered_chunks": 20}
    file = tmp_path / "bits.yaml"
    file.write_text(yaml.safe_dump(tree))
    words = [file, *where[1:], "--processes", "0", "--json"]
    summary = json.loads(spoken(capsys, "study", "run", *words).out)
    resolution = summary["ledger"]["resolution"]
    assert (resolution["sigma"], resolution["assumed"]) == (0.1, True)  # nothing to measure it in
    assert [(d["encoder"], d["action"]) for d in summary["ledger"]["delivered"]] == [("retina-4", "oat")]
    page = (recorded.store / "studies" / "bits" / "report.html").read_text()
    assert "an assumption: there is no simulator to measure it in" in page
    found = json.loads(spoken(capsys, "locate", *words).out)
    assert found["success"] == []
    assert [b["encoder"] for b in found["bits"]] == ["retina-4"]
    assert json.loads(spoken(capsys, "ledger", *words).out)["demand"] == summary["ledger"]["demand"]


def test_the_card_of_a_policy_claims_no_success(recorded, where, tmp_path, capsys):
    cell = recorded.summary["cells"][2]
    made = spoken(capsys, "policy", "export", cell["policies"][0], tmp_path / "out", "--study", recorded.file)
    assert "no success rates of this policy are known" in made.out
    card = (tmp_path / "out" / "README.md").read_text()
    assert "No success rates of this policy are known" in card
    low, high = (f"{cell['error'][n]:.3g}" for n in ("low", "high"))
    assert (
        f"held-out chunk error of {cell['error']['value']:.3g} [{low}, {high}] standard deviations²" in card
    )
    assert "is no success rate" in card
    assert " % [" not in card
    assert "recordings" in card
    said = spoken(capsys, "rollout", cell["policies"][0], code=2).err
    assert "trained on recordings, which no simulator repeats" in said
    assert "cgap serve" in said


def test_a_served_policy_of_recordings_answers_as_it_acts(recorded):
    from compression_gap.policies import Policy
    from compression_gap.serving.session import Session
    from compression_gap.serving.wire import pack

    policy = Policy.load(recorded.summary["cells"][2]["policies"][0])
    demos = DemoSet.load(recorded.demos)
    session = Session(policy, task=None)
    asked = {
        "images": {c: a[:2] for c, a in demos.images.items()},
        "proprio": demos.proprio[:2],
        "prompt": demos.tasks[0],
        "seed": 3,
    }
    answer = session.answer(pack(asked))
    expected = policy.act(policy_observation(demos), np.array([3]))
    np.testing.assert_array_equal(answer["actions"], expected.chunk[0])


def policy_observation(demos):
    from compression_gap.sims import Observation

    return Observation(
        images={c: a[:2][None] for c, a in demos.images.items()},
        proprio=demos.proprio[:2][None],
        task=np.zeros(1, np.int64),
        state=None,
    )
