"""LIBERO from the command line: the presets are planned, a study runs from nothing, official files are taken in."""

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("libero", reason="LIBERO is not installed: pip install 'compression-gap[libero]'")

from compression_gap.cli.main import main
from compression_gap.encoders import checkpoints, sources
from compression_gap.encoders.pin import AbsentPin
from compression_gap.errors import UserError
from compression_gap.results.published import OWN_ENCODERS, experiment_cells
from compression_gap.rollouts.pools import close_pools
from compression_gap.sims import SimSpec, make_sim
from compression_gap.sims.libero_tasks import full_name
from compression_gap.study.file import load_study, parse_study, presets
from compression_gap.study.plan import make_plan

PAPER = [p for p in presets() if p.startswith("libero10/")]
STUDY = """\
name: libero
suite: libero/libero_object-0
factors: {encoder: [retina-8], action: [regression], seed: [0], demos: [3]}
cameras: {names: [agentview], image_size: 32, rendering: fast}
training: {steps: 6, batch_size: 8, warmup: 2, validations: 4}
rollout: {episodes_per_task: 1, execute: 16, step_limit: 48}
references: false
limits: false
"""


def test_the_paper_s_experiments_ship_in_two_forms():
    names = {f"libero10/{e}-{f}" for e in ("factorial", "encoder-gradient", "codebook-size")
             for f in ("as-published", "controlled")}  # fmt: skip
    assert set(PAPER) == names


@pytest.mark.parametrize("preset", PAPER)
def test_a_preset_can_be_planned(preset, monkeypatch):
    """But for the encoders' checkpoints, whose commits only the hub knows."""
    monkeypatch.setattr(checkpoints, "resolve", AbsentPin)
    study = load_study(None, preset)
    plan = make_plan(study)
    published = preset.endswith("as-published")
    sizes = {"factorial": 2 * 2 * 2, "encoder-gradient": 4 * 2, "codebook-size": 2 * 3}
    (cells,) = (n for name, n in sizes.items() if name in preset)
    if published:
        assert len(plan.cells) == cells
        assert (study.rollout.select, plan.protocol.step_limit, study.policy.attention) == (
            "peak", 550, "causal-as-published",
        )  # fmt: skip
    else:
        assert len({c.seed for c in plan.cells}) == 3
        assert {c.encoder for c in plan.cells} > {"blind", "oracle"}
        assert any(c.swapped for c in plan.cells)
        assert (plan.protocol.step_limit, plan.protocol.settings["name"]) == (520, "libero-fixed")
    assert (len(plan.tasks), len(plan.protocol.episodes()), plan.protocol.execute) == (10, 500, 16)
    assert all(r.origin == "official" for r in plan.demos[50])


@pytest.fixture
def offline(monkeypatch):
    """The hub cannot be reached, and its cache is empty."""

    def nowhere(name, repo, revision):
        raise sources._unreachable(name, f"{repo} is not in the cache", OSError("no network"))

    monkeypatch.setattr(sources, "_hub_commit", nowhere)


def costs_in_the_docs():
    """The table of docs/libero.md: preset → its other cells."""
    page = (Path(__file__).parent.parent / "docs" / "libero.md").read_text()
    rows = [
        [c.strip() for c in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| `")
    ]
    return {
        row[0].strip("`"): row[1:] for row in rows if row[0].strip("`").endswith(("published", "controlled"))
    }


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("preset", PAPER)
def test_what_a_preset_costs_is_planned_without_a_network_and_stands_in_the_docs(preset, tmp_path, capsys):
    assert main(["study", "plan", "--preset", preset, "--store", str(tmp_path), "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    found = plan["estimate"]
    assert found["unknown"] == []
    assert "siglip-so400m" in {e["encoder"] for e in found["encoders"] if e["absent"]}
    assert found["frames"]["assumed"]
    t, rollouts = found["training"], found["rollouts"]
    assert costs_in_the_docs()[preset.removeprefix("libero10/")] == [
        str(t["trainings"]), f"{t['flops']:.1e}", f"{t['gpu']['hours']:.0f}", f"{rollouts['episodes']:,}",
        f"{rollouts['core_hours']:.0f}", f"{sum(found['disk'].values()) / 1e9:.0f} GB",
    ]  # fmt: skip
    # The same frozen features, heads and sizes for all of them: M has 4.3 to 7 M parameters, L 14 to 17 M.
    frozen = [p for p in found["policies"] if p["encoder"] == "siglip-so400m"]
    assert {p["size"] for p in frozen} == ({"M", "L"} if "factorial" in preset else {"M"})
    for p in frozen:
        assert (
            (4.3e6 if p["size"] == "M" else 14e6)
            < p["parameters"]["total"]
            < (7e6 if p["size"] == "M" else 17e6)
        )


@pytest.mark.parametrize("preset", [p for p in PAPER if p.endswith("as-published")])
def test_every_value_that_was_published_says_how_it_is_known(preset):
    text = (resources.files("compression_gap.presets") / f"{preset}.yaml").read_text()
    own = ("name:", "suite:", "published:", "references:", "limits:")
    for line in text.splitlines():
        value = re.match(r"\s*[a-z_]+: \S", line)
        if value and not line.startswith("#") and not line.startswith(own):
            assert re.search(r"# .*(paper|snapshot|assumed|published OAT|derivatives of OAT)", line), line


@pytest.mark.parametrize("preset", PAPER)
def test_a_preset_names_the_published_table_that_belongs_to_it(preset):
    study = load_study(None, preset)
    assert study.published
    assert preset.startswith(f"libero10/{study.published}-")
    encoders = {e for _, _, e in experiment_cells(study.published)}
    assert {OWN_ENCODERS[e] for e in encoders} == set(study.factors.encoder)
    assert {s for _, s, _ in experiment_cells(study.published)} == set(study.factors.size)


def test_what_has_no_expert_is_said_before_anything_runs():
    ten = STUDY.replace("libero_object-0", "libero_10")
    with pytest.raises(UserError, match=r"no scripted expert for libero_10-2, .*'demonstrations: official'"):
        make_plan(parse_study(ten, "test"))
    official = ten.replace("references: false", "demonstrations: official")
    with pytest.raises(UserError, match=r"no reference actor: set 'references: false'"):
        make_plan(parse_study(official, "test"))
    bits = ten.replace("references: false", "references: false\ndemonstrations: official\nledger: {}")
    with pytest.raises(
        UserError, match=r"to measure σ\* with: give ledger.sigma, as in 0.1, or leave the ledger out"
    ):
        make_plan(parse_study(bits, "test"))


def test_no_more_experts_are_disturbed_than_there_are_initial_states():
    plan = make_plan(parse_study(STUDY + "ledger: {}\n", "test"))
    assert plan.ledger.disturbed.protocol.episodes_per_task == 50


def test_a_study_runs_from_nothing_to_an_episode_with_images(tmp_path, capsys):
    (tmp_path / "study.yaml").write_text(STUDY)
    words = [
        "study",
        "run",
        str(tmp_path / "study.yaml"),
        "--store",
        str(tmp_path / "store"),
        "--processes",
        "0",
    ]
    code = main([*words, "--no-report"])
    close_pools()
    assert code == 0, capsys.readouterr().err
    import pyarrow.parquet as parquet

    (file,) = (tmp_path / "store" / "episodes").rglob("episodes.parquet")
    (row,) = parquet.read_table(file).to_pylist()
    assert (row["task"], row["length"], row["decisions"]) == ("libero_object-0", 48, 3)
    (demos,) = (tmp_path / "store" / "demos").iterdir()
    frames = np.load(demos / "images-agentview.npy", mmap_mode="r", allow_pickle=False)
    assert frames.shape[1:] == (32, 32, 3)
    assert frames.std() > 10  # something is seen


def test_official_files_become_the_demonstrations_of_a_study(tmp_path, capsys):
    import h5py

    task = "libero_object-0"
    sim = make_sim(SimSpec(sim="libero", tasks=(task,), cameras=("agentview",), image_size=32))
    with h5py.File(tmp_path / f"{full_name(task)}_demo.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["bddl_file_name"] = f"{full_name(task)}.bddl"
        for i in range(3):
            sim.reset(task, i)
            moves = np.random.default_rng(i).uniform(-0.2, 0.2, (5, 7))
            states = []
            for action in moves:
                states.append(sim.environment.flat())
                sim.step(action)
            demo = data.create_group(f"demo_{i}")
            demo["actions"], demo["states"] = moves, np.array(states)
    sim.close()
    store = ["--store", str(tmp_path / "store")]
    make = [
        "demos",
        "make",
        f"libero/{task}",
        "--episodes",
        "3",
        "--cameras",
        "agentview",
        "--image-size",
        "32",
    ]
    study = STUDY.replace("rendering: fast", "rendering: default").replace(
        "references", "demonstrations: official\nreferences"
    )
    (tmp_path / "study.yaml").write_text(study)
    run = ["study", "run", str(tmp_path / "study.yaml"), *store, "--processes", "0", "--no-report"]
    assert main(run) == 2
    assert "cgap demos make libero/libero_object-0 --episodes 3 --official FOLDER" in capsys.readouterr().err
    assert main([*make, "--official", str(tmp_path / "store"), *store]) == 2
    assert "holds no file pick_up_the_alphabet_soup" in capsys.readouterr().err
    assert main([*make, "--official", str(tmp_path), *store, "--processes", "0", "--json"]) == 0
    said = capsys.readouterr()
    (made,) = json.loads(said.out)["demos"]
    assert (made["episodes"], made["frames"]) == (3, 15)
    assert "the replay of demo_0, demo_1, demo_2 fails; kept" in said.err
    plan = make_plan(parse_study(study, "test"))
    assert [r.key for r in plan.demos[3]] == [made["key"]]
