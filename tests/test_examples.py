"""The examples: a script, and a notebook whose cells run in order. They go on from a study that has run."""

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import compression_gap as cg

POLICY = """
from strange_server import heads_for_the_goal

def load():
    return lambda observation: heads_for_the_goal(observation)["actions"]
"""
EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def here(finished, tmp_path, monkeypatch):
    """A folder with a study file and its store, as a user of the examples has it."""
    shutil.copy(finished.file, tmp_path / "my.yaml")
    shutil.copytree(finished.store, tmp_path / "store")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_cell(source, names):
    """Run a notebook's cell: the value of its last line, if that is an expression."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_the_notebook_runs_from_top_to_bottom(here, finished, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    notebook = json.loads((EXAMPLES / "study.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in cells)
    names: dict = {}
    shown = [run_cell("".join(c["source"]), names) for c in cells]
    summary = finished.summary
    assert shown[0] == summary["headline"]
    assert list(shown[1]["rate"]) == [c["rate"]["value"] for c in summary["cells"]]
    assert list(shown[2]["p_holm"]) == [c["p_holm"] for c in summary["contrasts"]]
    assert shown[4] == (1, 16, 2)
    assert list(shown[5] > 0) == [True, True]
    assert shown[6] == Path("store/studies/small/report.html")


def test_the_script_prints_what_the_study_found(here, finished, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from study import main

    results = main("my.yaml")
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(results.headline)] == finished.summary["headline"]
    cell = finished.summary["cells"][0]
    low, high = (f"{100 * cell['rate'][end]:.0f}" for end in ("low", "high"))
    assert f"{cell['label']}: {100 * cell['rate']['value']:.0f} % [{low}, {high}]" in lines
    assert lines[-1] == "report: store/studies/small/report.html"
    assert re.fullmatch(r"a chunk of \w+: 16 steps of 2 dimensions", lines[-2])


def test_the_study_file_of_the_examples_is_one(tmp_path):
    assert cg.describe_plan(cg.load_study(EXAMPLES / "my.yaml"), tmp_path / "store").cells == 12


def test_the_python_of_the_readme_runs_as_written(here, finished):
    (text,) = re.findall(r"```python\n(.*?)```", (EXAMPLES.parent / "README.md").read_text(), flags=re.DOTALL)
    names: dict = {}
    exec(compile(text, "README.md", "exec"), names)
    assert list(names["cells"]["label"]) == [c["label"] for c in finished.summary["cells"]]


def test_any_function_is_served_and_rolled_out(tmp_path, monkeypatch, capsys):
    from compression_gap.cli.main import main

    (tmp_path / "my_policy.py").write_text(POLICY)
    (tmp_path / "mine.yaml").write_text(
        "{cameras: {channel: observation/image}, image_size: 16, state: {key: observation/state}, execute: 4}"
    )
    program = [sys.executable, str(EXAMPLES / "serve_any_policy.py"), "my_policy:load", "--port", "0"]
    path = f"{tmp_path}:{Path(__file__).parent}"
    monkeypatch.setenv("PYTHONPATH", path)
    serving = subprocess.Popen(program, stdout=subprocess.PIPE, text=True)
    try:
        address = serving.stdout.readline().split()[-1]
        assert address.startswith("ws://127.0.0.1:")
        command = ["rollout", address, "--suite", "channel", "--episodes", "3", "--json"]
        assert main([*command, "--binding", str(tmp_path / "mine.yaml")]) == 0
    finally:
        serving.kill()
        serving.communicate()
    rows = json.loads(capsys.readouterr().out)["episodes"]
    assert [r["success"] for r in rows] == [True] * 3
    source = (EXAMPLES / "serve_any_policy.py").read_text()
    assert "compression_gap" not in source
    assert len(source.splitlines()) <= 60
