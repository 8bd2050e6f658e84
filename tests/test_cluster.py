"""A study on a Ray cluster of two nodes, through the command line: the same bytes as by the local engine, whoever begins.

docs/cluster.md shows these commands. The cluster is started by its own command, twice on this machine.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ray = pytest.importorskip("ray")

from compression_gap.store.inventory import entries  # noqa: E402
from compression_gap.store.store import Store  # noqa: E402

# A cluster builds whatever it is sent, so it asks for a token: on every node, and of who sends.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
STUDY = {
    "name": "small",
    "suite": "channel",
    "cameras": {"image_size": 8},
    "factors": {"encoder": ["retina-2"], "action": ["diffusion", "oat"], "seed": [0, 1], "demos": [3]},
    "training": {"steps": 4, "batch_size": 4, "warmup": 1, "validations": 4},
    "tokenizer": {"steps": 4, "batch_size": 4},
    "policy": {"sampling_steps": 2},
    "rollout": {"execute": 16, "episodes_per_task": 3},
    "limits": False,
    "references": False,
}


def command(*words, **environment):
    """Run a command to its end; what it said."""
    own = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0", **TOKEN, **environment}
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, env=own, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def cgap(*words, **environment):
    return command(sys.executable, "-m", "compression_gap.cli.main", *words, **environment)


@pytest.fixture(scope="module")
def address():
    """Two nodes of a core each, started as one would on two machines."""
    script = Path(sys.executable).with_name("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # above those that Ray gives its workers
    node = ["--num-cpus", 1, "--disable-usage-stats"]
    command(script, "start", "--head", "--port", port, "--include-dashboard", "false", *node)
    try:
        command(script, "start", "--address", f"127.0.0.1:{port}", *node)
        yield f"127.0.0.1:{port}"
    finally:
        command(script, "stop", "--force")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    file = tmp_path_factory.mktemp("study") / "small.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    return file


@pytest.fixture(scope="module")
def local(study):
    """The study by the local engine, with a thread for each worker, as a node has."""
    cgap("study", "run", study, "--store", study.parent / "local", "--processes", os.cpu_count() or 1)
    return content(study.parent / "local")


def content(root):
    """The checksums of every file of a store's artefacts; films are made for the page alone."""
    store = Store(root)
    return {
        f"{e.kind}/{e.key}/{name}": about["sha256"]
        for e in entries(store)
        if e.kind != "film"
        for name, about in store.manifest(e)["files"].items()
    }


def test_a_study_on_two_nodes_ends_with_the_bytes_of_the_local_engine(address, study, local, tmp_path):
    said = cgap("study", "run", study, "--engine", "ray", "--address", address, "--store", tmp_path)
    assert "steps built" in said
    assert content(tmp_path) == local
    summary = json.loads((tmp_path / "studies" / "small" / "summary.json").read_text())
    own = json.loads((study.parent / "local" / "studies" / "small" / "summary.json").read_text())
    assert [c["rate"] for c in summary["cells"]] == [c["rate"] for c in own["cells"]]
    assert summary["contrasts"] == own["contrasts"]


@pytest.mark.parametrize("first", ["local", "ray"])
def test_what_one_engine_has_begun_the_other_one_finishes(address, study, local, tmp_path, first):
    other = {"local": [], "ray": ["--engine", "ray", "--address", address]}
    begun = yaml.safe_load(study.read_text())
    begun["factors"] |= {"action": ["diffusion"]}  # a part of the study
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(begun))
    second = "ray" if first == "local" else "local"
    cgap("study", "run", tmp_path / "part.yaml", "--store", tmp_path / "s", "--no-report", *other[first])
    there = content(tmp_path / "s")
    assert 0 < len(there) < len(local)
    said = cgap("study", "run", study, "--store", tmp_path / "s", *other[second])
    assert "are there already" in said
    assert content(tmp_path / "s") == local


def test_a_cluster_without_a_shared_folder_takes_a_url(address, study, local, tmp_path):
    cache = {"COMPRESSION_GAP_CACHE": str(tmp_path / "mine")}
    url = f"file://{tmp_path}/bucket"
    cgap("study", "run", study, "--engine", "ray", "--address", address, "--store", url, **cache)
    elsewhere = {"COMPRESSION_GAP_CACHE": str(tmp_path / "another machine")}
    assert ", 0 failed" in cgap("study", "status", study, "--store", url, **elsewhere)
    said = cgap("report", study, "--store", url, "--videos", "0", **elsewhere)
    assert "retina-2" in said
    for folder in (tmp_path / "another machine").iterdir():
        there = content(folder)
        assert there
        assert there.items() <= local.items()
