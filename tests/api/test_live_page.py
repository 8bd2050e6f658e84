"""The report while a study runs: what is missing, what runs, what failed; written seldom, and at the end for good."""

import re
import shutil

import pytest

from compression_gap.api import live_page
from compression_gap.api.live_page import LivePage, progress_of
from compression_gap.api.study import load_study, open_study, status_of
from compression_gap.cli import main as cli
from compression_gap.store.claims import claim

REFRESH = '<meta http-equiv="refresh" content="10">'


@pytest.fixture
def halved(finished, tmp_path):
    """The finished study without the evidence of a policy and without another policy."""
    shutil.copytree(finished.store, tmp_path / "store")
    opened = open_study(load_study(finished.file), tmp_path / "store")
    one, other = opened.plan.cells[0], opened.plan.cells[2]
    for step in (one.evidence, other.policy, other.evidence):
        shutil.rmtree(opened.store.path(step))
    (opened.folder / "report.html").unlink()
    return opened


def words(text):
    return " ".join(re.sub(r"<[^>]*>", " ", text.partition("<body>")[2]).split())


def test_a_page_says_what_runs_what_is_missing_and_what_failed(halved):
    one, other = halved.plan.cells[0], halved.plan.cells[2]
    page = LivePage(halved, "cgap study run small.yaml", halved.folder / "report.html")
    page.failed(other.policy, {"sentence": "it <crashed>"})
    with claim(halved.store, one.evidence) as mine:
        mine.noted = -1e9
        mine.note(3, 6)
        page.show(status_of(halved))
    text = page.path.read_text()
    assert REFRESH in text
    said = words(text)
    assert "running 38 of 41 steps done , 1 failed; about" in said
    assert "2 of 6 configurations are still to be measured" in said
    assert f"{one.evidence.label}, 50 %" in said
    assert f"failed {other.policy.label}: it &lt;crashed&gt;" in said
    assert "diffusion · blind 2 of 2 1 of 2 seed 0: evaluation, 50 %" in said
    assert "oat · blind 1 of 2 1 of 2 seed 0: training failed" in said
    assert "diffusion · retina-4 2 of 2 2 of 2" in said
    assert "All configurations" in said  # the report of what there is
    assert "This page again: cgap study run small.yaml" in said


def test_it_is_written_when_something_has_changed_and_not_too_often(halved, monkeypatch):
    clock, written = iter(range(1000)), []
    monkeypatch.setattr(live_page.time, "monotonic", lambda: next(clock))
    page = LivePage(halved, "", halved.folder / "report.html")
    monkeypatch.setattr(page, "write", lambda state, refresh=None: written.append(refresh))
    state = status_of(halved)
    page.show(state)
    assert (written, page.due) == ([10], 20)  # it took a second: not again for twenty
    halved.store.keep_record(halved.store.manifest(halved.plan.cells[1].evidence))
    with claim(halved.store, halved.plan.cells[0].evidence):
        changed = status_of(halved)
    page.show(changed)
    assert written == [10]
    page.due = 0
    page.show(state)
    assert written == [10]  # nothing has changed
    page.show(changed)
    assert written == [10, 10]
    page.due = 1e9
    page.idle()  # does not even look
    page.close()
    assert written == [10, 10, None]


def test_before_anything_is_measured_there_is_progress_alone(tmp_path, small_study_text):
    file = tmp_path / "small.yaml"
    file.write_text(small_study_text)
    opened = open_study(load_study(file), tmp_path / "store")
    page = LivePage(opened, "", opened.folder / "report.html")
    page.show(status_of(opened))
    assert REFRESH in page.path.read_text()
    said = words(page.path.read_text())
    assert "Nothing has been measured yet. running 0 of 41 steps done ;" in said
    assert "oat · oracle 0 of 2 0 of 2" in said


def test_a_diverged_training_stands_in_the_cell_s_line(halved):
    state = status_of(halved)
    failure = {halved.plan.cells[2].policy.label: "the training diverged"}
    progress = progress_of(halved, state, failure, refresh=None)
    by = {c.label: c for c in progress.cells}
    assert (by["oat · blind"].now, by["oat · blind"].missing) == (["seed 0: training failed"], True)
    assert not by["oat · oracle"].missing
    assert progress.failed == [f"{halved.plan.cells[2].policy.label}: the training diverged"]


def where(halved, finished):
    return [str(finished.file), "--store", str(halved.store.root)]


def test_a_run_with_a_page_leaves_one_that_does_not_refresh(halved, finished, capsys):
    """Stopped by its budget: with what is missing. Done: the report, as without a page."""
    run = ["study", "run", *where(halved, finished), "--processes", "0", "--page"]
    path = halved.folder / "report.html"
    assert cli.main([*run, "--budget", "0s"]) == 0
    said = capsys.readouterr()
    assert said.out == "stopped with 3 steps to go; the same command goes on from here\n"
    assert f"cgap: page: {path}, written anew while the study runs" in said.err
    assert "http-equiv" not in path.read_text()
    assert "stopped 38 of 41 steps done ; the same command goes on from here." in words(path.read_text())
    assert cli.main(run) == 0
    assert f"report: {path}" in capsys.readouterr().out
    assert "http-equiv" not in path.read_text()
    assert "steps done" not in path.read_text()
    assert "This page again: cgap study run small.yaml" in words(path.read_text())


@pytest.mark.parametrize("watch", [[], ["--watch"]])
def test_status_writes_the_page_too(watch, halved, finished, capsys):
    assert cli.main(["study", "status", *where(halved, finished), "--page", *watch]) == 0
    path = halved.folder / "report.html"
    assert capsys.readouterr().out.splitlines()[0] == f"page: {path}"
    assert "http-equiv" not in path.read_text()
    assert "stopped 38 of 41 steps done" in words(path.read_text())


def test_a_report_that_is_complete_stays_as_it_is(finished, tmp_path):
    """It has videos; one with progress in it, or none, is written anew."""
    opened = open_study(load_study(finished.file), finished.store)
    page = LivePage(opened, "", tmp_path / "report.html")
    state = status_of(opened)
    page.path.write_text("complete")
    page.show(state)
    page.close()
    assert page.path.read_text() == "complete"
    page.path.write_text(live_page.PROGRESS)
    page.close()
    assert "steps done" not in page.path.read_text()
    assert "All configurations" in page.path.read_text()
    page.path.unlink()
    page.write(state)
    assert page.path.is_file()


def test_a_page_with_progress_says_so_to_the_next(halved):
    page = LivePage(halved, "", halved.folder / "report.html")
    page.write(status_of(halved))
    assert live_page.PROGRESS in page.path.read_text()
