"""Every command in the README and in docs/ runs, at the tiny preset's scale."""

import json
import re
import shlex
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from compression_gap.cli.main import main
from compression_gap.policies import Policy
from compression_gap.study.file import parse_study
from strange_server import Strange, heads_for_the_goal

ROOT = Path(__file__).parent.parent
LEDGER = "ledger: {steps: 4, batch_size: 8, prior_steps: 2, episodes_per_sigma: 3, sigma: 0.2}\n"
CHANNEL_BINDING = """\
cameras: {channel: observation/image}
image_size: 16
state: {key: observation/state}
execute: 4
"""
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """All fenced blocks of a language as (page, text)."""
    found = []
    for page in PAGES:
        for text in re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL):
            found.append((page.name, text))
    return found


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for _, text in blocks("sh") for line in text.splitlines()]
    # Of a calibration, minutes at its quickest, tests/study/test_calibrate.py runs the command; a server, which
    # only ends when it is told to, tests/cli/test_policy.py runs with its client.
    # LIBERO's, which need it and its data, tests/test_libero_study.py runs.
    elsewhere = (
        "cgap calibrate",
        "cgap serve",
        "cgap demos make libero",
        "cgap study plan --preset libero10",
        "cgap study run --preset libero10",
    )
    # A cluster's, tests/test_cluster.py runs; of GPUs, tests/api/test_devices.py tells what is chosen.
    apart = ("--engine ray", "s3://", "--devices")
    own = [
        line
        for line in lines
        if line.startswith("cgap ") and not line.startswith(elsewhere) and not any(a in line for a in apart)
    ]
    # The five commands of your-data.md follow upon each other: they have a test of their own.
    return [line for line in dict.fromkeys(own) if line not in five_commands()]


def five_commands() -> list[str]:
    """The first block of commands of the page on people's own data."""
    text = next(text for page, text in blocks("sh") if page == "your-data.md")
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_docs_show_commands_and_make_targets_that_exist():
    assert len(commands()) >= 5
    makefile = (ROOT / "Makefile").read_text()
    for _, text in blocks("sh"):
        for target in re.findall(r"^make ([\w-]+)", text, flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_every_study_file_in_the_docs_is_valid():
    studies = [(page, text) for page, text in blocks("yaml") if "factors:" in text]
    assert studies
    for page, text in studies:
        assert parse_study(text, page).name == yaml.safe_load(text)["name"]


def test_the_python_of_the_tokenizers_page_runs_as_written(tmp_path, monkeypatch):
    (text,) = (text for page, text in blocks("python") if page == "tokenizers.md")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(text, "tokenizers.md", "exec"), names)
    assert names["decoded"].chunk.shape == names["chunks"].shape
    assert f"{names['tokenizer'].capacity_bits:.1f}" == re.search(r"capacity_bits  # ([\d.]+)", text)[1]
    again = names["OAT"].load(tmp_path / "my-tokenizer").encode(names["chunks"])
    assert (again.ids == names["tokens"].ids).all()


def test_the_five_commands_on_your_own_data_run_in_order(record, tmp_path, monkeypatch, capsys):
    """As written, on a small LeRobotDataset v3.0 of two tasks, with a small training."""
    monkeypatch.chdir(tmp_path)
    recorded = record(tmp_path / "elsewhere", state_dim=None, sizes={"front": (100, 100)})
    assert main(["demos", "export", str(recorded), "my_robot_data", "--images"]) == 0
    assert len(five_commands()) == 5
    (text,) = (text for page, text in blocks("yaml") if page == "your-data.md")
    study = yaml.safe_load(text)
    study["factors"] |= {"seed": [0], "encoder": study["factors"]["encoder"][:1]}
    study["training"] = {"steps": 4, "batch_size": 8, "warmup": 1, "validations": 4}
    study |= {"tokenizer": {"steps": 4, "batch_size": 8}, "policy": {"sampling_steps": 2}}
    small = ["--steps", "4", "--batch-size", "8", "--prior-steps", "3", "--processes", "0"]
    for command in five_commands():
        words = shlex.split(command)[1:]
        if words[0] == "policy":
            (folder, *_) = (tmp_path / "store" / "policy").iterdir()
        else:
            folder = next(iter((tmp_path / "store").glob("demos/*")), None)
        words = [w.replace("KEY", folder.name) if folder else w for w in words]
        words += small if words[0] == "tokenizers" else []
        words += ["--processes", "0"] if words[:2] == ["study", "run"] else []
        assert main(words) == 0, command
        if words[:2] == ["demos", "import"]:
            (made,) = (tmp_path / "store").glob("demos/*")
            study["data"] = [d.replace("KEY", made.name) for d in study["data"]]
            Path("my-robot.yaml").write_text(yaml.safe_dump(study))
        said = capsys.readouterr().out
        if words[:2] == ["demos", "import"]:
            assert f"store/demos/{made.name}" in said
            assert "20 episodes" in said
    policy = Policy.from_pretrained("my-policy")
    assert policy.spec.cameras == ("front",)
    assert policy.spec.image_size == 96
    assert (tmp_path / "store" / "studies" / "my-robot" / "report.html").is_file()
    assert len(list((tmp_path / "store" / "tokenizer-tables").rglob("tokenizers.html"))) == 1


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One store for the commands on the presets: the tiny study is built once in it."""
    return tmp_path_factory.mktemp("docs") / "store"


def is_best(spec, file):
    """The first seed's Diffusion Policy with the oracle."""
    meta = json.loads((file.parent / "artifact.json").read_text())
    return spec["encoder"] == "oracle" and spec["head"] == "diffusion" and meta["spec"]["seed"] == 0


@pytest.mark.parametrize("command", commands())
def test_command_runs(command, finished, store, tmp_path, monkeypatch, capsys):
    """As written, but with the tiny preset for the demo's, and a small finished study for a user's file."""
    monkeypatch.chdir(tmp_path)
    stack = ExitStack()
    words = ["tiny" if w == "demo" else w for w in shlex.split(command)[1:]]
    if words[0] in ("ledger", "locate"):
        study = tmp_path / "bits.yaml"
        text = finished.file.read_text().replace("name: small", "name: bits")
        study.write_text(
            text.replace("demos: [6]", "demos: [15]") + LEDGER
        )  # bits take two held-out episodes
        words = [words[0], str(study), "--store", str(finished.store), "--processes", "0"]
    elif "--until" in words:  # its looks stay with its name: not the small study's
        study = tmp_path / "grown.yaml"
        text = finished.file.read_text().replace("name: small", "name: grown")
        study.write_text(text.replace("seed: [0, 1]", "seed: [0, 1, 2]"))
        words = [str(study) if w.endswith(".yaml") else w for w in words]
        words += ["--store", str(finished.store), "--processes", "0"]
    elif words[0] == "store" or "results/mine" in words:  # on a copy: these verbs change a store
        shutil.copytree(finished.store, tmp_path / "store")
        exported = [str(finished.file), "--out", "results/mine"]
        assert main(["store", "export", *exported]) == 0
        words = [str(finished.file) if w.endswith(".yaml") else w for w in words]
    elif any(w.endswith(".yaml") for w in words):
        words = [str(finished.file) if w.endswith(".yaml") else w for w in words]
        words += ["--store", str(finished.store)]
    elif words[0] == "compare":
        rows = "task,initial state,success\n" + "".join(f"t,{i},{i % 2}\n" for i in range(20))
        for i in (1, 2):
            name, _, path = words[i].partition("=")
            file = tmp_path / Path(path).with_name(f"{name}.csv")
            file.parent.mkdir(parents=True)
            file.write_text(rows)
            words[i] = f"{name}={file}"
    elif any(w.startswith("ws://") for w in words):
        (tmp_path / "mine.yaml").write_text(CHANNEL_BINDING)
        words[1] = stack.enter_context(Strange(lambda n, m: heads_for_the_goal(m))).url
        words[words.index("--binding") + 1], words[words.index("--suite") + 1] = "mine.yaml", "channel"
        if words[0] == "diagnose":
            words += ["--episodes", "3", "--tokenizer-steps", "3", "--processes", "0"]
    elif words[0] == "diagnose":
        assert (
            main(["study", "run", "--preset", "tiny", "--store", str(store)]) == 0
        )  # one that succeeds at times
        (policy,) = (
            f.parent for f in store.glob("policy/*/policy.json") if is_best(json.loads(f.read_text()), f)
        )
        demos = json.loads((policy / "artifact.json").read_text())["inputs"]["demos/0"]
        named = {"store/policy/KEY": policy, "store/demos/KEY": store / "demos" / demos}
        words = [str(named.get(w, w)) for w in words]
        words += ["--store", str(store), "--tokenizer-steps", "5"]
    elif words[0] == "rollout":
        words = [str(finished.policy) if w.endswith("policy/KEY") else w for w in words]
        words[words.index("--episodes") + 1] = "1"
    elif words[0] == "policy":
        words = [str(finished.policy) if w.endswith("policy/KEY") else w for w in words]
    elif words[0] == "tokenizers":
        small = {"steps": 4, "batch-size": 8, "demo-episodes": 8, "episodes": 2, "prior-steps": 3}
        for name, value in small.items():
            if f"--{name}" in words:
                words[words.index(f"--{name}") + 1] = str(value)
            else:
                words += [f"--{name}", str(value)]
        words += ["--store", str(store), "--processes", "0"]
    elif words[0] not in ("published", "power"):
        words += ["--store", str(store)]
    code = main(words)
    stack.close()
    assert capsys.readouterr().out.strip()
    # doctor may find the machine wanting, and then says so with exit code 2.
    assert code == 0 or words[0] == "doctor"
