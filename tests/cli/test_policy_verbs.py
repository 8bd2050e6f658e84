"""Policies out of the store: what the card says is what the store holds, and a server that runs as the docs say."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

from compression_gap import sims
from compression_gap.api import policies as api
from compression_gap.api.card import policy_card
from compression_gap.cli.main import main
from compression_gap.errors import UserError
from compression_gap.nn.convergence import convergence
from compression_gap.policies import Policy
from compression_gap.rollouts.run import decision_seed
from compression_gap.serving import PolicyServer
from compression_gap.sims import Observation, SimSpec, make_sim
from compression_gap.sims.episode import Drive, EpisodeRunner, Outcome
from compression_gap.statistics.intervals import rate_interval
from compression_gap.study.file import load_study

ROOT = Path(__file__).parents[2]


@pytest.fixture
def exported(finished, tmp_path, capsys):
    """The folder of an exported policy, and what the command printed."""
    out = tmp_path / "my-policy"
    assert main(["policy", "export", str(finished.policy), str(out), "--json"]) == 0
    return out, json.loads(capsys.readouterr().out)


def policy_of(finished, **levels):
    """The folder of the first policy with these levels."""
    cells = finished.summary["cells"]
    return next(Path(c["policies"][0]) for c in cells if all(c[k] == v for k, v in levels.items()))


def own_rows(finished):
    """The evidence rows of the policy, from the store's files alone."""
    for manifest in finished.store.glob("episodes/*/artifact.json"):
        about = json.loads(manifest.read_text())
        if about["inputs"].get("policy") == finished.policy.name and about["spec"]["actor"] == "policy":
            return parquet.read_table(manifest.parent / "episodes.parquet").to_pylist()
    raise AssertionError("no evidence")


def test_the_card_holds_the_policys_own_success(finished, exported):
    folder, printed = exported
    rows = own_rows(finished)
    success = np.array([[r["success"] for r in rows]], float)
    expected = rate_interval(success, np.zeros(success.shape[1], int))
    (evaluation,) = printed["card"]["evaluations"]
    assert evaluation["protocol"] == rows[0]["protocol"] == finished.summary["protocol"]["hash"]
    assert evaluation["episodes"] == len(rows) == 6
    own = {"value": expected.value, "low": expected.low, "high": expected.high}
    assert evaluation["tasks"] == {"reach": pytest.approx(own, abs=1e-12)}
    assert evaluation["overall"] == pytest.approx(own, abs=1e-12)
    shown = f"{100 * expected.value:.0f} % [{100 * expected.low:.0f}, {100 * expected.high:.0f}]"
    assert f"| reach | {shown} | 6 |" in (folder / "README.md").read_text()


def test_the_card_holds_the_cell_of_the_study(finished, exported):
    (cell,) = (c for c in finished.summary["cells"] if str(finished.policy) in c["policies"])
    (printed,) = exported[1]["card"]["cells"]
    assert printed["study"] == "small"
    assert printed["cell"] == cell["label"]
    assert printed["seeds"] == cell["seeds"] == [0, 1]
    assert printed["protocol"] == finished.summary["protocol"]["hash"]
    assert printed["rate"] == {k: cell["rate"][k] for k in ("value", "low", "high")}
    # the policy's own rate is one of its seeds'
    own = exported[1]["card"]["evaluations"][0]["overall"]["value"]
    assert own in cell["per_seed"]


def test_a_cell_that_executes_the_policy_through_a_code_is_not_its_own(finished, tmp_path):
    """The controlled swap's snapped cells hold the same policies; their success is another."""
    store, summary = tmp_path / "store", finished.summary
    shutil.copytree(finished.store, store)
    (cell,) = (c for c in summary["cells"] if str(finished.policy) in c["policies"])
    summary["cells"].append({**cell, "executed": "snapped", "label": "snapped"})
    (store / "studies" / "small" / "summary.json").write_text(json.dumps(summary))
    assert [c.cell for c in policy_card(store / "policy" / finished.policy.name).cells] == [cell["label"]]


def test_the_card_holds_the_training_and_the_data(finished, exported):
    card, about = exported[1]["card"], json.loads((finished.policy / "artifact.json").read_text())
    assert card["key"] == finished.policy.name
    assert (card["training"]["steps"], card["training"]["batch_size"], card["training"]["lr"]) == (6, 8, 1e-3)
    assert card["training"]["seed"] == about["spec"]["seed"]
    assert card["training"]["decision_points"] == about["meta"]["decision_points"]
    assert card["convergence"] == convergence(about["meta"]["curve"]["validation"])
    (demos,) = (key for role, key in about["inputs"].items() if role.startswith("demos/"))
    assert card["demonstrations"] == [
        f"reach: 6 demonstrations (4 of them for training), 96 frames, demos {demos}"
    ]


def test_an_exported_policy_is_the_one_of_the_store(finished, exported):
    folder, printed = exported
    assert printed["folder"] == str(folder)
    assert sorted(printed["files"]) == sorted(f.name for f in folder.iterdir())
    a, b = Policy.load(finished.policy), Policy.from_pretrained(folder)
    seeds = np.array([5])
    assert a.act(a.example(), seeds).chunk.tobytes() == b.act(b.example(), seeds).chunk.tobytes()


def test_an_export_in_words(finished, exported, tmp_path, capsys):
    out, folder = tmp_path / "again", exported[0]
    where = ["--study", str(finished.file)]
    assert main(["policy", "export", str(finished.policy), str(out), *where]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{out}: README.md, checksums.json, normaliser.json, policy.json")
    assert re.fullmatch(r"reach: \d+ % \[\d+, \d+\] of 6 episodes", second)
    # the study that is named, summarised anew, says what its summary says
    assert (out / "README.md").read_text() == (folder / "README.md").read_text()
    # an exported policy has left its store: nothing is known of it, and nothing is made up
    assert main(["policy", "export", str(out), str(tmp_path / "third")]) == 0
    said = capsys.readouterr().out
    assert "no success rates of this policy are known here; the card says so" in said
    card = (tmp_path / "third" / "README.md").read_text()
    assert "No success rates of this policy are known" in card
    assert "%" not in card


def test_tuning_states_are_not_reported(finished, monkeypatch):
    assert policy_card(finished.policy).evaluations
    monkeypatch.setattr(sims, "EVALUATION_STATES", 3_000_000)  # so that this study's are below
    card = policy_card(finished.policy)
    assert (card.evaluations, card.cells) == ((), ())


def test_a_damaged_policy_is_not_exported(finished, tmp_path, capsys):
    store = tmp_path / "store"
    shutil.copytree(finished.store, store)
    folder = store / "policy" / finished.policy.name
    (folder / "normaliser.json").write_text((folder / "normaliser.json").read_text().replace("0", "1", 1))
    assert main(["policy", "export", str(folder), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(
        f"cgap: policy {folder.name} is damaged (normaliser.json does not match its checksum)"
    )
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text", ["[" * 5000, "[]", '{"cells": 3}', '{"cells": [{}]}', '{"recordings": 1, "cells": [[]]}']
)
@pytest.mark.parametrize("pattern", ["studies/small/summary.json", "demos/*/demos.json"])
def test_a_record_beside_the_policy_that_cannot_be_read_is_named(finished, tmp_path, pattern, text):
    store = shutil.copytree(finished.store, tmp_path / "store")
    (file,) = store.glob(pattern)
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        policy_card(store / "policy" / finished.policy.name)
    assert "\n" not in str(caught.value)
    assert str(file.parent) in str(caught.value)
    assert "be read" in str(caught.value)


def test_a_folder_that_is_there_is_refused_before_the_policy_is_read(finished, tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("x")
    monkeypatch.setattr(api, "policy_card", None)
    with pytest.raises(UserError, match="is there already and not empty; name a new folder"):
        api.export_policy(finished.policy, tmp_path)


def test_a_policy_that_cannot_act_is_not_served(finished, monkeypatch):
    from compression_gap.cli.policy import ServeOptions, serve

    monkeypatch.setattr(Policy, "act", lambda self, asked, seeds: 1 / 0)
    with pytest.raises(
        UserError, match=r"cannot act \(ZeroDivisionError: division by zero\); train or export it"
    ):
        serve(ServeOptions(str(finished.policy), port=0))


def test_a_study_that_does_not_hold_the_policy(finished, tmp_path, small_study_text):
    other = tmp_path / "other.yaml"
    other.write_text(
        small_study_text.replace("seed: [0, 1]", "seed: [0]").replace("name: small", "name: other")
    )
    cells = finished.summary["cells"]
    theirs = next(Path(p) for c in cells for p in c["policies"] if p != str(finished.policy))
    seeds = {
        p: json.loads((p / "artifact.json").read_text())["spec"]["seed"] for p in (finished.policy, theirs)
    }
    stranger = max(seeds, key=seeds.get)
    assert seeds[stranger] == 1
    with pytest.raises(UserError, match=f"the study 'other' has no policy {stranger.name}"):
        policy_card(stranger, load_study(other, None))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("policy export nowhere out", "nowhere is neither a folder that is here nor a Hub id (owner/name); "),
        ("policy export . out", ". holds no policy (policy.json): "),
        ("policy export . out --preset tiny", "{here} is in no store, so no study knows it; name STORE/policy/KEY"),
        ("policy export {policy} full", "full is there already and not empty; name a new folder"),
        ("policy export {episodes} out", "{episodes} is no policy of its store; name STORE/policy/KEY"),
        ("serve nowhere", "nowhere is neither a folder that is here nor a Hub id (owner/name); "),
        ("serve {policy} --task dance", "unknown task of this policy 'dance'; known: reach"),
        ("serve {policy} --port -1", "--port -1 is no port; give 0 (any that is free) to 65535"),
        ("serve {policy} --max-message-mb 0", "--max-message-mb 0.0 leaves no room for a message; give 1 or more"),
        ("serve {policy} --revision main", "{policy} is a folder; a revision (main) belongs to a Hub id"),
    ],
)  # fmt: skip
def test_an_error_is_one_sentence_with_exit_code_2(
    arguments, sentence, finished, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    episodes = sorted(finished.store.glob("episodes/*"))[0]
    names = {"policy": finished.policy, "here": tmp_path.resolve(), "episodes": episodes}
    assert main(shlex.split(arguments.format(**names))) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"cgap: {sentence.format(**names)}")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not (tmp_path / "out").exists()


def test_a_host_that_others_reach_is_warned_of(finished, capsys, monkeypatch):
    from compression_gap.serving import server

    monkeypatch.setattr(server, "serve_forever", lambda server, ready: ready())
    assert main(["serve", str(finished.policy), "--host", "0.0.0.0"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(
        "cgap: warning: 0.0.0.0 can be reached from other machines, and this server knows"
    )
    assert "diffusion · " in said.out
    assert "(reach) at ws://0.0.0.0:8000" in said.out
    assert main(["serve", str(finished.policy)]) == 0
    assert "warning" not in capsys.readouterr().err


# As the docs say


def docs(language):
    return re.findall(
        rf"```{language}\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), flags=re.DOTALL
    )


def test_the_python_of_the_page_runs_as_written(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,) = docs("python")
    names: dict = {}
    exec(compile(text, "serving.md", "exec"), names)
    assert names["policy"].spec == Policy.load(exported[0]).spec
    assert (tmp_path / "a-copy" / "README.md").is_file()


def chunks_of_an_episode(policy, execute):
    """The chunks of the example's episode, by the runner of the evaluations: no server, no client."""
    spec = policy.spec
    sim = make_sim(SimSpec(sim=spec.sim, tasks=spec.tasks, cameras=spec.cameras, image_size=spec.image_size))
    drive = Drive("observation", execute, sim.info.step_limit, spec.n_obs_steps, images=policy.needs_images)
    runner, chunks = EpisodeRunner(sim, drive), []
    asked = runner.start(spec.tasks[0], 2_000_000)
    while not isinstance(asked, Outcome):
        assert isinstance(asked, Observation)
        seed = decision_seed(spec.tasks[0], 0, 0, len(chunks))
        chunks.append(policy.act(asked, np.array([seed])).chunk[0])
        asked = runner.execute(chunks[-1])
    return chunks


def the_examples_episode(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from client import episode

    return episode


@pytest.mark.parametrize("levels", [{"encoder": "oracle"}, {"encoder": "blind"}, {"action": "oat"}])
def test_the_example_gets_the_chunks_of_every_kind_of_policy(finished, monkeypatch, levels):
    folder = policy_of(finished, **levels)
    with PolicyServer(Policy.load(folder)) as server:
        (answer,) = the_examples_episode(monkeypatch)(server.url, execute=16)
    (expected,) = chunks_of_an_episode(Policy.load(folder), 16)
    assert answer["actions"].tobytes() == expected.tobytes()


def test_the_commands_of_the_page_serve_an_episode_and_stop_when_told(finished, tmp_path, monkeypatch):
    """The server is a program of its own, at a port that is free; the client's chunks are the policy's own."""
    lines = [line for text in docs("sh") for line in text.splitlines()]
    (serve,) = (shlex.split(line) for line in lines if line.startswith("cgap serve"))
    (client,) = (shlex.split(line) for line in lines if line.startswith("python "))
    assert serve[2:] == ["store/policy/KEY", "--port", "8000"]
    assert client == ["python", "examples/client.py", "ws://127.0.0.1:8000"]
    folder = policy_of(finished, encoder="retina-4", action="diffusion")
    program = "from compression_gap.cli.main import main; raise SystemExit(main())"
    serving = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(folder), "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        about = json.loads(serving.stdout.readline())
        assert (about["encoder"], about["needs_images"]) == ("retina-4", True)
        episode = the_examples_episode(monkeypatch)
        for execute in (8, 5):
            answers = episode(about["url"], execute=execute)
            expected = chunks_of_an_episode(Policy.load(folder), execute)
            assert [a["actions"].tobytes() for a in answers] == [c.tobytes() for c in expected]
        shown = subprocess.run(
            [sys.executable, str(ROOT / client[1]), about["url"]], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        assert shown[0].startswith("step 0: actions (16, 2), seed ")
        assert shown[1].startswith("step 8: actions (16, 2), seed ")
        assert shown[2] in ("success", "no success")
        serving.send_signal(signal.SIGINT)
        _, said = serving.communicate(timeout=60)
    finally:
        serving.kill()
    assert serving.returncode == 0
    assert said == "cgap: stopped\n"
