"""The command line: what every verb prints, its JSON, and the one sentence that an error is."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from compression_gap import extras
from compression_gap.api.progress import RunWatcher
from compression_gap.cli import main as cli
from compression_gap.errors import UserError
from compression_gap.rollouts import pools
from compression_gap.statistics.power import power


def spoken(capsys, *arguments, code=0):
    """What a verb prints as JSON."""
    assert cli.main([*map(str, arguments), "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def where(finished):
    """The arguments that name the finished study."""
    return [str(finished.file), "--store", str(finished.store)]


# Verbs that need no study


def test_published_interaction(capsys):
    contrasts = {c["name"]: c for c in spoken(capsys, "published")["contrasts"]}
    interaction = contrasts["interaction/M"]
    assert interaction["difference"] == pytest.approx(17.6, abs=0.05)
    assert interaction["high"] - interaction["difference"] == pytest.approx(8.6, abs=0.05)
    assert interaction["difference"] - interaction["low"] == pytest.approx(8.6, abs=0.05)


def test_published_as_a_table(capsys):
    assert cli.main(["published"]) == 0
    said = capsys.readouterr().out
    line = next(
        x for x in said.splitlines() if x.startswith("gain of SigLIP, Diffusion Policy − OAT-1000, M ")
    )
    assert "+17.6" in line
    assert "[+9.0, +26.2]" in line


def test_power_is_that_of_the_library(capsys):
    found = spoken(capsys, "power", 10, "--rate", 40, "--seed-sd", 3, "--pairing", 0.2)
    assert found["difference"] == 10
    for design in found["designs"]:
        known = power(10, 40, design["episodes"], design["seeds"], 3, 0.2)
        assert design["power"] == pytest.approx(known, abs=1e-12)
    assert len({(d["seeds"], d["episodes"]) for d in found["designs"]}) == len(found["designs"]) == 25


def test_power_as_a_table(capsys):
    assert cli.main(["power", "10"]) == 0
    said = capsys.readouterr().out
    assert "power for 10 points" in said
    assert f"{100 * power(10, 50, 500, 10, 4, 0.3):.0f} %" in said


def test_doctor_names_every_check(capsys, tmp_path, monkeypatch):
    from compression_gap.sims import opengl

    monkeypatch.setattr(opengl, "render_check", lambda: "a renderer")
    found = spoken(capsys, "doctor", "--store", tmp_path / "not" / "yet")
    names = [c["name"] for c in found["checks"]]
    extra = [f"extra {name}" for name in extras.names()]
    assert names == ["python", "packages", "torch", "cores", "memory", "disk", "rendering", "heads", *extra]
    assert all(set(c) == {"name", "ok", "found", "advice"} for c in found["checks"])
    by_name = {c["name"]: c for c in found["checks"]}
    assert by_name["python"]["found"] == sys.version.split()[0]
    assert by_name["rendering"]["found"].startswith("a renderer (mujoco ")
    heads = re.findall(r"([a-z-]+) \d+ / \d+ ms", by_name["heads"]["found"])
    assert sorted(heads) == ["diffusion", "flow", "oat", "oat-hybrid", "regression"]
    assert found["ok"] == all(c["ok"] for c in found["checks"])
    assert not (tmp_path / "not").exists()


def test_doctor_names_a_head_that_the_device_cannot_train(capsys, tmp_path, monkeypatch):
    from compression_gap.costs import benchmark
    from compression_gap.sims import opengl

    def broken(action):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(opengl, "render_check", lambda: "a renderer")
    monkeypatch.setattr(benchmark, "head_speed", broken)
    assert cli.main(["doctor", "--store", str(tmp_path)]) == 2
    assert "RuntimeError: no kernel image is available for execution on the device" in capsys.readouterr().out


def no_gl():
    raise UserError("MuJoCo cannot render here (libEGL.so.1 was not found): install OpenGL with 'apt'")


def test_doctor_says_how_to_mend_rendering(capsys, tmp_path, monkeypatch):
    from compression_gap.sims import opengl

    monkeypatch.setattr(opengl, "render_check", no_gl)
    assert cli.main(["doctor", "--store", str(tmp_path)]) == 2
    said = capsys.readouterr().out
    assert "FAIL  rendering: no frame could be rendered" in said
    assert "install OpenGL with 'apt'" in " ".join(said.split())


def test_a_study_that_cannot_render_says_so_before_it_builds(capsys, tmp_path, monkeypatch):
    from compression_gap.sims import opengl

    monkeypatch.setattr(opengl, "render_check", no_gl)
    assert cli.main(["study", "run", "--preset", "demo", "--store", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "cgap: MuJoCo cannot render here (libEGL.so.1 was not found): install OpenGL with 'apt'\n"
    )
    assert not (tmp_path / "demos").exists()


def test_demos_of_a_study_are_the_ones_that_demos_make_makes(finished, capsys):
    wanted = ["--episodes", 6, "--image-size", 16, "--processes", 0, "--store", finished.store]
    (made,) = spoken(capsys, "demos", "make", "channel", *wanted)["demos"]
    assert [p.name for p in (finished.store / "demos").iterdir()] == [made["key"]]
    assert (made["task"], made["episodes"], made["action_dim"]) == ("reach", 6, 2)
    assert made["frames"] == 6 * 16
    assert made["cameras"] == ["channel"]


# Studies


def test_plan_of_a_preset(capsys, tmp_path):
    found = spoken(capsys, "study", "plan", "--preset", "tiny", "--store", tmp_path / "s")
    assert found["study"] == "tiny"
    assert found["cells"] == 12
    assert found["references"] == ["expert-coded", "expert", "expert-chunked"]
    assert {k: v["steps"] for k, v in found["kinds"].items()} == {
        "demos": 1, "normaliser": 1, "encoder": 1, "tokenizer": 2, "tokens": 2, "features": 3, "probe": 3, "policy": 12,
        "episodes": 16,
    }  # fmt: skip
    assert all(v["missing"] == v["steps"] for v in found["kinds"].values())
    keys = {s["key"] for s in found["steps"]}
    assert len(keys) == 41
    assert all(set(s["inputs"].values()) <= keys for s in found["steps"])


def test_plan_and_status_of_a_finished_study(finished, where, capsys):
    found = spoken(capsys, "study", "plan", *where)
    assert sum(v["missing"] for v in found["kinds"].values()) == 0
    state = spoken(capsys, "study", "status", *where)
    assert (state["done"], state["steps"], state["missing"], state["failed"]) == (41, 41, [], [])
    assert len(state["policies"]) == 12
    assert str(finished.policy) in {p["folder"] for p in state["policies"]}
    assert cli.main(["study", "status", *where]) == 0
    assert capsys.readouterr().out == "small: 41 of 41 steps done, 0 failed\n"
    assert cli.main(["study", "plan", *where]) == 0
    said = capsys.readouterr().out
    assert "small: 12 cells" in said
    assert "tasks: reach; protocol " in said


def test_a_run_prints_its_summary_and_writes_report_log_and_summary(finished):
    folder = finished.store / "studies" / "small"
    assert json.loads((folder / "summary.json").read_text()) == finished.summary
    assert finished.summary["command"] == "cgap study run small.yaml"
    assert json.loads((folder / "study.json").read_text()) == finished.summary["study"]
    log = (folder / "run.log").read_text()
    assert "begins: training diffusion · blind · xs · seed 0" in log
    assert "41/41 " in log
    assert finished.log.count(" left\n") == 41
    assert "Compression Gap · small · channel" in finished.page


def test_the_experts_of_the_channel_succeed(finished):
    rates = {r["actor"]: r["rate"]["value"] for r in finished.summary["references"]}
    assert rates["expert"] == pytest.approx(1.0, abs=1e-12)
    assert rates["expert-chunked"] == pytest.approx(1.0, abs=1e-12)


def test_the_same_command_again_builds_nothing_and_says_the_same(finished, where, capsys):
    again = spoken(capsys, "study", "run", *where, "--processes", 0)
    assert again == finished.summary
    assert cli.main(["study", "run", *where, "--processes", "0"]) == 0
    said = capsys.readouterr()
    assert "0 steps built, the rest reused" in said.out
    assert "41 of 41 steps are there already" in said.err
    assert "diffusion · retina-4" in said.out


def test_a_report_goes_where_it_is_asked_to(finished, where, capsys, tmp_path):
    out = tmp_path / "new" / "page.html"
    summary = spoken(capsys, "report", *where, "--out", out, "--videos", 0)
    assert summary == finished.summary
    page = out.read_text()
    assert "<video" not in page
    assert finished.summary["headline"][0][:20] in page


def test_a_report_without_pyav_has_no_films_and_says_why(where, capsys, tmp_path, monkeypatch):
    from compression_gap.api import options

    monkeypatch.setattr(options, "find_spec", lambda name: None)
    out = tmp_path / "page.html"
    assert cli.main(["report", *where, "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert said == 'cgap: no videos: they need PyAV (pip install "compression-gap[metaworld]")\n'
    assert "<video" not in out.read_text()


def test_a_budget_that_is_spent_says_how_to_go_on(tmp_path, small_study_text, capsys):
    file = tmp_path / "small.yaml"
    file.write_text(small_study_text)
    where = ["--store", str(tmp_path / "s"), "--processes", "0", "--budget", "0s"]
    assert cli.main(["study", "run", str(file), *where]) == 0
    said = capsys.readouterr()
    assert said.out == "stopped with 41 steps to go; the same command goes on from here\n"
    assert said.err == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("9m", 540), ("2h", 7200), ("1.5m", 90), (None, None)]
)
def test_budgets(text, seconds):
    from compression_gap.api.options import Running

    assert Running(budget=text).seconds == seconds


# Rollouts


def test_a_trained_policy_is_rolled_out(finished, capsys):
    rows = spoken(capsys, "rollout", finished.policy, "--episodes", 3, "--execute", 16)["episodes"]
    assert [(r["actor"], r["task"], r["repeat"]) for r in rows] == [(finished.policy.name, "reach", 0)] * 3
    states = [r["initial_state"] for r in rows]
    assert states == list(range(states[0], states[0] + 3))
    assert states[0] == finished.summary["protocol"]["first_initial_state"]
    assert all(r["length"] == 16 and r["decisions"] == 1 for r in rows)
    # the same policy, the same initial states, another number of episodes: the study's own evidence
    import pyarrow.parquet as parquet

    evidence = [
        row
        for file in sorted(finished.store.glob("episodes/*/episodes.parquet"))
        for row in parquet.read_table(file).to_pylist()
    ]
    mine = [tuple(r["success"] for r in rows)]
    by_actor: dict = {}
    for row in evidence:
        by_actor.setdefault(row["actor"], []).append(row["success"])
    assert mine[0] in {tuple(v[:3]) for v in by_actor.values()}


def test_a_served_policy_is_rolled_out_as_from_its_folder(finished, capsys):
    from compression_gap.policies import Policy
    from compression_gap.serving import PolicyServer

    options = ("--episodes", 4, "--execute", 16)
    here = spoken(capsys, "rollout", finished.policy, *options)["episodes"]
    with PolicyServer(Policy.load(finished.policy)) as server:
        there = spoken(capsys, "rollout", server.url, *options)["episodes"]
        named = spoken(capsys, "rollout", server.url, "--suite", "channel", *options)["episodes"]
    assert {r.pop("actor") for r in there + named} == {server.url}
    assert [{k: v for k, v in r.items() if k != "actor"} for r in here] == there == named


def test_a_rollout_as_a_table_with_a_film(finished, capsys, tmp_path):
    films = tmp_path / "films"
    cli_code = cli.main(["rollout", str(finished.policy), "--episodes", "2", "--out", str(films)])
    assert cli_code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["task", "success", "episodes", "mean", "length"]
    assert lines[1].split()[0] == "reach"
    assert lines[1].split()[2:] == ["2", "16"]
    assert lines[2] == f"video: {films / 'reach.mp4'}"
    assert [f.name for f in films.iterdir()] == ["reach.mp4"]
    assert b"ftyp" in (films / "reach.mp4").read_bytes()[:12]


# Errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("study plan --preset tinny", "unknown preset 'tinny' (did you mean 'tiny'?); known: calibration, calibration-quick, demo, "),
        ("study plan", "name a study file, or --preset with one of: calibration, calibration-quick, demo, "),
        ("study run none.yaml", "cannot read the study file none.yaml: "),
        ("study run --preset tiny --budget soon", "--budget 'soon' is not a time; write it as 90s, 9m or 2h"),
        ("study run --preset tiny --budget -5s", "--budget '-5s' is not a time"),
        ("study run --preset tiny --processes -2", "--processes -2 is negative; give 0 (this process alone) or more"),
        ("study run --preset tiny --store file", "cannot write to file (File exists): choose another folder"),
        ("study status --preset tiny --store newer", "the store newer has format 2, this program reads format 1"),
        ("report --preset tiny --store s", "the study 'tiny' has no results yet; run it first: cgap study run"),
        ("demos make chanel", "unknown simulator 'chanel' (did you mean 'channel'?); known: channel, libero, metaworld"),
        ("demos make metaworld", "unknown suite 'metaworld'"),
        ("demos make channel --episodes 2", "2 episodes are too few: a three-way split needs at least 3 per task"),
        ("demos make channel --image-size 0", "--image-size 0 is too small; give 8 or more"),
        ("demos make channel --cameras front", "unknown channel camera 'front'; known: channel"),
        ("tokenizers chanel", "unknown simulator 'chanel' (did you mean 'channel'?)"),
        ("tokenizers channel reach", "there is no folder channel; name one suite, or folders STORE/demos/KEY"),
        ("tokenizers /nonexistent", "there is no folder /nonexistent; name one suite, or folders STORE/demos/KEY"),
        ("tokenizers store/demos/0123", "there is no folder store/demos/0123; name one suite, or folders"),
        ("tokenizers stor/demos", "there is no folder stor/demos; name one suite, or folders"),
        ("tokenizers file", "file is a file; name one suite, or folders STORE/demos/KEY"),
        ("ledger ./none", "there is no folder ./none; name one suite, or folders"),
        ("locate ~none/demos", "there is no folder ~none/demos; name one suite, or folders"),
        ("demos make /none", "unknown suite '/none'; known: channel, libero, metaworld"),
        ("demos export none out", "there is no folder none: name folders STORE/demos/KEY as 'cgap demos make'"),
        ("policy export none out", "none is neither a folder that is here nor a Hub id (owner/name)"),
        ("serve none", "none is neither a folder that is here nor a Hub id (owner/name)"),
        ("tokenizers .", ". holds no demonstrations: name a suite, or folders STORE/demos/KEY"),
        ("tokenizers channel --tokenizers fats", "unknown tokenizer 'fats' (did you mean 'fast'?); known: bins, "),
        ("tokenizers channel --codebooks fsq-7", "unknown codebook 'fsq-7'"),
        ("tokenizers channel --codebooks 8,1", "a codebook needs at least two levels in every dimension, not [8, 1]"),
        ("tokenizers channel --tokenizers quest --tokens 3", "quest halves the horizon until its tokens remain; 16"),
        ("tokenizers channel --sigma 0", "--sigma 0.0 is no resolution; give standard deviations above 0"),
        ("tokenizers channel --execute 17", "--execute 17 is longer than --horizon 16"),
        ("tokenizers channel --demo-episodes 2", "2 episodes are too few"),
        ("tokenizers channel --tokens 0", "--tokens 0 is too small; give 1 or more"),
        ("rollout nowhere", "nowhere holds no policy: there is no such folder; name a policy's, as in store/policy/KEY"),
        ("rollout .", ". holds no policy (policy.json): "),
        ("rollout", "no policy is named; give its folder, or ws://HOST:PORT where it is served"),
        (
            "diagnose --suite channel --changes horizon ws://127.0.0.1:9",
            "ws://127.0.0.1:9 was read as one of --changes: name the policy before the options",
        ),
        ("rollout one two", "2 policies are named; give one folder, or addresses ws://HOST:PORT of servers of one"),
        ("rollout nowhere --binding cgap", "nowhere is a folder, and --binding is for a served policy; leave it out"),
        ("rollout ws://127.0.0.1:9", "no policy answers at ws://127.0.0.1:9 ("),
        ("rollout ws://127.0.0.1:9 --binding openpi", "unknown binding 'openpi' (did you mean 'openpi-libero'?); known: "),
        ("rollout ws://127.0.0.1:9 --binding no.yaml", "the binding no.yaml cannot be read ("),
        ("rollout ws://127.0.0.1:9 --timeout 0", "--timeout 0.0 leaves no time to answer; give seconds above 0"),
        ("rollout nowhere --episodes 0", "--episodes 0 is too small; give 1 or more"),
        ("rollout nowhere --execute 0", "--execute 0 is too small; give 1 or more"),
        ("rollout nowhere --first-initial-state -1", "--first-initial-state -1 is too small; give 0 or more"),
        ("power 10 --rate 200", "rate must lie between 0 and 100, not 200"),
        ("power 10 --tasks 0", "tasks must be a whole number of at least 1, not 0"),
    ],
)  # fmt: skip
def test_an_error_is_one_sentence_with_exit_code_2(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "store.json").write_text('{"store_version": 2}')
    assert cli.main(arguments.split()) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"cgap: {sentence}")
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize(
    ("old", "new", "place", "sentence"),
    [
        ("suite: channel", "suite: metaworld/pusch", " line 2: suite", "unknown suite or task 'metaworld/pusch' (did you mean 'metaworld/push'?)"),
        ("suite: channel", "suite: chanel", " line 2: suite", "unknown simulator 'chanel' (did you mean 'channel'?)"),
        ("{image_size: 16}", "{names: [front]}", " line 3: cameras.names", "unknown channel camera 'front'; known: channel"),
        ("[retina-4]", "\n    - retina-4\n    - oracl", " line 7: factors.encoder.1", "unknown encoder 'oracl' (did you mean 'oracle'?)"),
        ("retina-4", "retina-64", " line 5: factors.encoder.0", "encoder 'retina-64' is finer than the images (16 px)"),
        ("[diffusion, oat]", "[oat, difusion]", " line 6: factors.action.1", "unknown action 'difusion' (did you mean 'diffusion'?)"),
        ("lr: 1e-3", "lr: {oat: 1e-3, difusion: 1e-4}", " line 9: training.lr.difusion", "unknown action 'difusion' (did you mean"),
        ("lr: 1e-3", "lr: {oat: 1e-3}", " line 9: training.lr", "has no entry for the action 'diffusion'; add one"),
        ("policy: {", "swap: {head: [flw]}\npolicy: {", " line 11: swap.head.0", "unknown action 'flw' (did you mean 'flow'?)"),
        ("policy: {", "swap: {tokenizer: [oatt]}\npolicy: {", " line 11: swap.tokenizer.0", "unknown tokenizer 'oatt' (did you mean 'oat'?)"),
        ("execute: 16", "execute: 17", " line 12: rollout.execute", "(17) is longer than policy.horizon (16)"),
        ("execute: 16", "protocol: fast", " line 12: rollout.protocol", "channel has one protocol, and no 'fast'"),
        ("steps: 6, batch_size: 8}\n", "tokens: 3}\n", " line 10: tokenizer.tokens", "quest halves the horizon"),
    ],
)  # fmt: skip
def test_a_name_in_a_study_file_that_is_not_known_is_reported_with_file_and_line(
    old, new, place, sentence, tmp_path, small_study_text, capsys
):
    file = tmp_path / "s.yaml"
    assert old in small_study_text
    text = small_study_text.replace(old, new, 1)
    file.write_text(text.replace("oat]", "quest]") if "quest" in sentence else text)
    assert cli.main(["study", "plan", str(file), "--store", str(tmp_path / "store")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"cgap: {file}{place}"), said
    assert said.removeprefix(f"cgap: {file}{place}").lstrip(": ").startswith(sentence), said
    assert not (tmp_path / "store").exists()


def test_recordings_that_are_not_there_are_reported_with_file_and_line(tmp_path, capsys):
    file = tmp_path / "s.yaml"
    file.write_text("name: a\nfactors: {encoder: [retina-4], action: [flow]}\ndata: [nowhere]\n")
    assert cli.main(["study", "plan", str(file), "--store", str(tmp_path / "store")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cgap: {file} line 3: data: there is no folder {tmp_path / 'store'}")


def test_a_page_in_a_place_that_cannot_be(finished, where, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    assert cli.main(["report", *where, "--videos", "0", "--out", str(tmp_path / "file" / "r.html")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cgap: cannot make the folder {tmp_path / 'file'} (")
    assert said.count("\n") == 1


def test_debug_shows_the_traceback(tmp_path):
    """As a program: one line without --debug, the traceback with it, exit codes 2 and 1."""
    command = [sys.executable, "-c", "from compression_gap.cli.main import main; raise SystemExit(main())"]
    arguments = ["study", "plan", "--preset", "tinny"]
    plain = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("cgap: unknown preset 'tinny'")
    assert plain.stderr.count("\n") == 1
    loud = subprocess.run(
        [*command, *arguments, "--debug"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert loud.returncode != 0
    assert loud.stderr.startswith("Traceback (most recent call last)")
    assert "UserError: unknown preset 'tinny'" in loud.stderr


def test_an_interrupt_says_how_to_go_on(capsys, monkeypatch):
    from compression_gap.results import published

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(published, "published_contrasts", interrupted)
    assert cli.main(["published"]) == 130
    assert capsys.readouterr().err == "cgap: stopped; the same command goes on where this one ended\n"


@pytest.mark.parametrize("verb", [["study", "run"], ["ledger"]], ids=" ".join)
def test_ctrl_c_ends_a_run_with_130_keeps_what_is_built_and_says_how_to_go_on(
    verb, tmp_path, small_study_text, capsys, monkeypatch
):
    """The worker is deaf to it and ends its step; what it built is there for the next run."""
    started = RunWatcher.started

    def pressed(self, step):
        started(self, step)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(RunWatcher, "started", pressed)
    file = tmp_path / "small.yaml"
    file.write_text(small_study_text)
    where = [str(file), "--store", str(tmp_path / "s")]
    assert cli.main([*verb, *where, "--processes", "1"]) == 130
    said = capsys.readouterr()
    assert said.out == ""
    last = said.err.splitlines()[-1]
    left = int(
        re.fullmatch(r"cgap: stopped with (\d+) steps to go; the same command goes on from here", last)[1]
    )
    if verb == ["study", "run"]:
        assert left == 40
        assert spoken(capsys, "study", "status", *where)["done"] == 1
    assert len(list((tmp_path / "s" / "demos").iterdir())) == 1


# Light verbs stay light


@pytest.mark.parametrize(
    "arguments", [["published"], ["power", "10"], ["study", "plan", "--preset", "tiny", "--store", "s"]]
)
def test_verbs_that_need_no_torch_import_none(arguments, tmp_path):
    code = (
        "import sys\n"
        "from compression_gap.cli.main import main\n"
        f"assert main({[*arguments, '--json']!r}) == 0\n"
        "heavy = {'torch', 'diffusers', 'mujoco', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def teardown_module():
    pools.close_pools()
