"""The public API: a study run and read from Python gives what the command line prints."""

import subprocess
import sys

import pytest

import compression_gap as cg
from compression_gap.api.options import Running
from compression_gap.errors import UserError


@pytest.fixture
def results(finished):
    """The results of the finished study."""
    return cg.Results.load(cg.load_study(finished.file), finished.store)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys; import compression_gap as cg; "
        "heavy = {'torch', 'numpy', 'pydantic', 'pyarrow', 'tyro'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_is_there():
    assert set(cg.__all__) == {*cg.PUBLIC, "tokenizers"} <= set(dir(cg))
    for name in cg.__all__:
        assert getattr(cg, name).__doc__, name
    assert cg.tokenizers.OAT.__name__ == "OAT"
    with pytest.raises(AttributeError, match="'compression_gap' has no attribute 'nothing'"):
        _ = cg.nothing


def test_tables_hold_the_numbers_of_the_summary(results, finished):
    summary = finished.summary
    cells = results.cells.to_pylist()
    assert [c["label"] for c in cells] == [c["label"] for c in summary["cells"]]
    for row, cell in zip(cells, summary["cells"], strict=True):
        assert [row["rate"], row["rate_low"], row["rate_high"]] == [
            cell["rate"][k] for k in ("value", "low", "high")
        ]
        assert (row["seeds"], row["per_seed"], row["policies"]) == tuple(
            cell[k] for k in ("seeds", "per_seed", "policies")
        )
        assert row["parameters_total"] == cell["parameters"]["total"]
    references = {r["label"]: r["rate"] for r in results.references.to_pylist()}
    assert references == {r["label"]: r["rate"]["value"] for r in summary["references"]}
    assert [c["p_holm"] for c in results.contrasts.to_pylist()] == [c["p_holm"] for c in summary["contrasts"]]
    assert results.headline == summary["headline"]


def test_a_run_of_a_finished_study_gives_its_results(results, finished, capsys):
    again = cg.run(cg.load_study(finished.file), finished.store, processes=0)
    assert again.cells.to_pylist() == results.cells.to_pylist()
    assert capsys.readouterr().out == ""
    command = f"compression_gap.run(study, store={str(finished.store)!r})"
    assert again.to_json() == {**finished.summary, "command": command}


def test_the_report_is_the_command_line_s(results, finished, tmp_path):
    kept = (finished.store / "studies" / "small" / "summary.json").read_bytes()
    try:
        page = results.write_report(tmp_path / "new" / "page.html", videos=0)
        assert page == tmp_path / "new" / "page.html"
        assert finished.summary["headline"][0][:20] in page.read_text()
        assert "compression_gap.run(study" in page.read_text()
    finally:
        (finished.store / "studies" / "small" / "summary.json").write_bytes(kept)


def test_recordings_have_tables_too(recorded):
    results = cg.Results.load(cg.load_study(recorded.file), recorded.store)
    errors = [(c["error"], c["error_low"]) for c in results.cells.to_pylist()]
    assert errors == [(c["error"]["value"], c["error"]["low"]) for c in recorded.summary["cells"]]


def test_a_study_without_results_says_so(small_study_text, tmp_path):
    (tmp_path / "s.yaml").write_text(small_study_text)
    results = cg.Results.load(cg.load_study(tmp_path / "s.yaml"), tmp_path / "store")
    with pytest.raises(UserError, match="the study 'small' has no results yet; run it first"):
        _ = results.cells


def test_a_run_that_its_budget_ends_says_how_to_go_on(small_study_text, tmp_path):
    (tmp_path / "s.yaml").write_text(small_study_text)
    study = cg.load_study(tmp_path / "s.yaml")
    with pytest.raises(UserError, match="stopped with 41 steps to go; the same command goes on from here"):
        cg.run(study, tmp_path / "store", processes=0, budget="0s")
    with pytest.raises(UserError, match="--budget 'soon' is not a time"):
        cg.run(study, tmp_path / "other", budget="soon")
    assert not (tmp_path / "other" / "studies").exists()


def test_demonstrations_are_made_and_loaded(finished):
    (made,) = cg.make_demos("channel", 6, image_size=16, store=finished.store, running=Running(processes=0))
    demos = made.load()
    assert isinstance(demos, cg.DemoSet)
    assert (made.task, made.episodes, made.frames, made.action_dim) == ("reach", 6, 96, 2)
    assert demos.actions.shape == (96, 2)


def test_a_plan_and_a_status_from_python(finished):
    study = cg.load_study(finished.file)
    assert cg.describe_plan(study, finished.store).cells == 12
    state = cg.status(study, finished.store)
    assert (state.done, state.missing) == (41, [])


def test_a_preset_is_loaded_by_name():
    assert cg.load_study(preset="tiny").name == "tiny"
    with pytest.raises(UserError, match="unknown preset 'tinny'"):
        cg.load_study(preset="tinny")
