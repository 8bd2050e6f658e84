"""A study that travels: the folder gives the report of its store, and a store that takes it builds what is missing."""

import shutil
from collections import Counter

import numpy as np
import pyarrow.parquet as parquet
import pytest

import compression_gap as cg
from compression_gap.api.exported import export_study, import_study, opened_export
from compression_gap.api.results import Results
from compression_gap.api.study import load_study, open_study
from compression_gap.cli import main as cli
from compression_gap.errors import UserError
from compression_gap.store.engine import missing_steps


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The finished study's folder."""
    folder = tmp_path_factory.mktemp("exported") / "small"
    export_study(open_study(load_study(finished.file), finished.store), folder)
    return folder


def told(results):
    """The results without what names a place."""
    out = results.to_json()
    for cell in out["cells"]:
        del cell["policies"]
    return out


def test_the_folder_gives_the_report_of_the_store(finished, exported):
    whole = Results(open_study(load_study(finished.file), finished.store), "same")
    with opened_export(exported) as opened:
        found = Results(opened, "same")
        assert told(found) == told(whole)
        assert all(c["policies"] == [] for c in found.to_json()["cells"])


def test_rows_are_those_of_the_cells(finished, exported):
    rows = parquet.read_table(exported / "episodes.parquet").to_pylist()
    cells = finished.summary["cells"]
    policies = [r for r in rows if r["played_by"] == "policy"]
    for cell in cells:
        own = [r for r in policies if (r["encoder"], r["tokenizer"]) == (cell["encoder"], cell["tokenizer"])]
        assert np.mean([r["success"] for r in own]) == pytest.approx(cell["rate"]["value"])
        assert sorted({r["seed"] for r in own}) == cell["seeds"]
        assert {r["tokenizer_seed"] for r in own} == (set(cell["seeds"]) if own[0]["tokenizer"] else {None})
    count = Counter(r["played_by"] for r in rows)
    assert count == {"policy": 12 * 6, "expert": 6, "expert-chunked": 6, "expert-coded": 12}
    assert cg.Results.load(cg.load_study(finished.file), finished.store).episodes.to_pylist() == rows


def test_a_store_that_takes_it_builds_what_is_missing_alone(finished, exported, tmp_path):
    import_study(exported, tmp_path)
    study = load_study(exported / "study.yaml")
    opened = open_study(study, tmp_path)
    assert missing_steps(opened.plan, opened.store) == []
    lost = opened.plan.cells[0]
    shutil.rmtree(opened.store.path(lost.evidence))
    kinds = Counter(s.kind for s in missing_steps(opened.plan, opened.store))
    assert (kinds["episodes"], kinds["policy"]) == (1, 1)  # the record of a policy plays no episodes
    again = cg.run(study, tmp_path, processes=0)
    whole = cg.Results.load(cg.load_study(finished.file), finished.store)
    assert again.episodes.to_pylist() == whole.episodes.to_pylist()


def test_equal_stores_give_equal_files(exported, tmp_path):
    import_study(exported, tmp_path / "store")
    export_study(open_study(load_study(exported / "study.yaml"), tmp_path / "store"), tmp_path / "again")
    for name in ("study.yaml", "episodes.parquet", "artefacts.zip"):
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes(), name


def test_a_study_half_done_travels_too(finished, exported, tmp_path):
    import_study(exported, tmp_path / "store")
    opened = open_study(load_study(exported / "study.yaml"), tmp_path / "store")
    shutil.rmtree(opened.store.path(opened.plan.cells[0].evidence))
    made = export_study(opened, tmp_path / "half")
    assert made.episodes == 13 * 6 + 4 * 6 - 6 - 6
    import_study(tmp_path / "half", tmp_path / "third")
    third = open_study(load_study(tmp_path / "half" / "study.yaml"), tmp_path / "third")
    assert {s.kind for s in missing_steps(third.plan, third.store)} >= {"episodes", "policy"}


def test_another_version_is_said(exported, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(exported, folder)
    text = (folder / "study.yaml").read_text()
    (folder / "study.yaml").write_text(
        text.replace("steps: 6", "steps: 7").replace("per_task: 6", "per_task: 7")
    )
    with pytest.raises(UserError, match="other versions of this program"), opened_export(folder):
        pass


def test_the_verbs(finished, exported, tmp_path, capsys):
    where = [str(finished.file), "--store", str(finished.store)]
    assert cli.main(["store", "export", *where, "--out", str(tmp_path / "ex")]) == 0
    assert "96 episodes, " in capsys.readouterr().out
    assert cli.main(["report", str(tmp_path / "ex")]) == 0
    assert f"report: {tmp_path / 'ex' / 'report.html'}" in capsys.readouterr().out
    assert cli.main(["store", "import", str(tmp_path / "ex"), "--store", str(tmp_path / "s")]) == 0
    assert (
        f"cgap study run {tmp_path / 'ex' / 'study.yaml'} --store {tmp_path / 's'}" in capsys.readouterr().out
    )


def test_a_folder_that_is_no_export_is_said(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is no exported study: it has no study.yaml and artefacts.zip" in capsys.readouterr().err
