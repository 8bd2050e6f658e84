"""The benchmark's rows and table; its numbers are measured by ``make bench`` alone."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks"


def module(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"bench_{name.strip('_')}", FOLDER / f"{name}.py")
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, made)
    spec.loader.exec_module(made)
    return made


@pytest.fixture
def rows(monkeypatch):
    return module("rows", monkeypatch)


@pytest.fixture
def main(monkeypatch):
    return module("__main__", monkeypatch)


def test_more_is_better_but_for_times_and_memory(rows, capsys):
    rate = rows.show("rollout", "episodes/min", [20, 10, 30], beside=[10, 4, 5], of="the usual loop")
    assert (rate.here, rate.least, rate.most, rate.rounds, rate.beside) == (20, 10, 30, 3, 5)
    assert rate.ratio == 4
    assert (
        capsys.readouterr().out
        == "rollout | 20 episodes/min [10, 30] | 5 episodes/min, the usual loop | 4.00\n"
    )
    assert rows.show("step", "ms", [40.0], beside=20.0, of="a limit").ratio == 0.5
    assert rows.show("alone", "ms", [40.0], wanted="≤ 50").cells() == ["alone", "40 ms", "", "", "≤ 50"]
    assert [rows.number(v) for v in (0.123456, 12.345, 1234.5)] == ["0.123", "12.3", "1,234"]


def test_each_part_runs_a_script_that_is_there(main):
    for part in main.PARTS.values():
        assert (FOLDER / part.script).is_file()
        assert 'if __name__ == "__main__":' in (FOLDER / part.script).read_text()


def test_what_a_part_found_is_kept_where_it_fails_later(main, monkeypatch, tmp_path):
    (tmp_path / "part.py").write_text("from rows import show\nshow('one', 's', [2.0])\nraise SystemExit(3)\n")
    (tmp_path / "rows.py").write_text((FOLDER / "rows.py").read_text())
    monkeypatch.setattr(main, "HERE", tmp_path)
    found = main.measure(main.Part("Part", "part.py"), quick=False)
    assert [(r.what, r.here) for r in found.rows] == [("one", 2.0)]
    assert found.left_out == "ended with exit code 3"
    assert (
        main.measure(main.Part("Part", "part.py", quick=None), quick=True).left_out == "not in the quick form"
    )
    absent = main.Part("Part", "part.py", needs="no_such_package")
    assert "no_such_package, which is not installed" in main.measure(absent, quick=False).left_out


def test_the_page_is_what_its_json_says(main):
    file, page = (
        ROOT / "docs" / "benchmarks.json",
        (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"),
    )
    told = json.loads(file.read_text(encoding="utf-8"))
    parts = [main.Measured(**{**p, "rows": [main.Row(**row) for row in p["rows"]]}) for p in told["parts"]]
    assert main.TABLE.search(page)[0] == f"<!-- bench -->\n{main.table(parts, told['machine'])}<!-- end -->"
    assert sum(len(p.rows) for p in parts) > 30
