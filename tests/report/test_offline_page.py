"""The page of a study of recordings: whole, self-contained, with the summary's numbers, and without success."""

import csv
import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from test_page import HOSTILE, NOT_TRAINED, Page, failing, marked

from compression_gap.nn.convergence import in_words
from compression_gap.report.format import count, error, signed
from compression_gap.report.page import render_page
from compression_gap.results.chunk_error import NOTHING


@pytest.fixture(scope="module")
def summary(recorded):
    return recorded.summary


@pytest.fixture(scope="module")
def record(recorded):
    return recorded.record


@pytest.fixture(scope="module")
def text(record):
    return render_page(record)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_numbers_are_written_with_their_interval():
    assert error(SimpleNamespace(value=0.1234, low=0.1, high=1.0)) == "0.123 [0.1, 1]"
    assert error(SimpleNamespace(value=0.1234, low=None, high=None)) == "0.123"
    assert signed(SimpleNamespace(value=-0.02, low=-0.1, high=0.5)) == "−0.02 [−0.1, +0.5]"


def words(e):
    """An error of the summary's JSON, in words."""
    return error(SimpleNamespace(**e))


def test_the_page_is_whole_and_takes_nothing_from_outside(page, text):
    assert page.problems == []
    assert page.open == []
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    links = [v for _, name, v in page.attributes if name in ("src", "href", "xlink:href")]
    assert all(v.startswith(("data:", "#")) for v in links)
    assert text.count("<svg") == 2  # errors, learning curves


def test_every_cell_and_reference_is_there_with_the_summary_s_numbers(summary, page):
    for cell in summary["cells"]:
        row = page.row(cell["label"])
        assert row[1:4] == [words(cell["error"]), words(cell["executed_error"]), "2 × 2"]
        assert row[4] == count(cell["parameters"]["total"])
        assert (in_words(cell["convergence"]) in row[8]) == (not cell["converged"])
    for reference in summary["references"]:
        assert page.row(reference["label"])[1] == words(reference["error"])
    for contrast in summary["contrasts"]:
        assert page.row(contrast["label"])[1] == signed(SimpleNamespace(**contrast))


def test_the_figure_names_encoders_heads_and_predictors(page):
    written = page.of("text")
    for name in ("blind", "retina-4", "oracle", "regression", "oat", "the mean action"):
        assert name in written
    assert "held-out chunk error, standard deviations²" in written


def test_the_page_says_what_an_error_is_not(summary, page):
    said = " ".join(t for _, t in page.texts)
    assert said.index(summary["headline"][0]) < said.index("Lower is better")
    assert "no success rate" in said
    assert "Compare encoders along one line" in said
    assert "% of episodes" not in said


def test_tables_can_be_saved_with_full_precision(summary, text):
    tables = json.loads(re.search(r'<script type="application/json" id="csv">(.*?)</script>', text, re.S)[1])
    cells = list(csv.DictReader(io.StringIO(tables["cells"])))
    assert [float(c["value"]) for c in cells] == [c["error"]["value"] for c in summary["cells"]]
    assert [float(c["rmse_2"]) for c in cells] == [c["rmse"][2] for c in summary["cells"]]
    contrasts = list(csv.DictReader(io.StringIO(tables["contrasts"])))
    assert [float(c["p_holm"]) for c in contrasts] == [c["p_holm"] for c in summary["contrasts"]]


def test_hostile_names_are_escaped_everywhere(record, summary):
    cells = marked(record.cells)
    bad = replace(
        record,
        study=record.study.model_copy(update={"name": HOSTILE}),
        command=HOSTILE,
        headline=[HOSTILE],
        tasks=[HOSTILE],
        machine={HOSTILE: HOSTILE},
        cells=[failing(cells[0], 0, HOSTILE), *cells[1:]],
        references=marked(record.references),
        contrasts=marked(record.contrasts),
        tokenizers=marked(record.tokenizers),
        found=replace(record.found, recordings=replace(record.found.recordings, cameras=[HOSTILE])),
    )
    text = render_page(bad)
    found = Page(text)
    assert found.problems == []
    assert text.count("<script") == render_page(record).count("<script")
    assert "<b a=" not in text
    assert found.row(f"{HOSTILE} {summary['cells'][0]['label']}")


def test_a_failed_cell_and_missing_intervals_are_shown(record):
    cell, sentence = (
        record.cells[0],
        "the training diverged at step 40 of 100 (loss nan): lower the learning rate",
    )
    bare = replace(
        cell, outcome=NOTHING, per_seed=None, seeds=[], training=replace(cell.training, **NOT_TRAINED)
    )

    def open_ended(cell):
        none = replace(cell.outcome.error, low=None, high=None)
        return replace(cell, outcome=replace(cell.outcome, error=none))

    cells = [failing(bare, 1, sentence), *map(open_ended, record.cells[1:])]
    page = Page(render_page(replace(record, cells=cells, contrasts=[])))
    assert page.row(cell.label)[1] == "failed"
    assert f"{cell.label}, seed 1: {sentence}" in " ".join(t for _, t in page.texts)
    assert page.row(cells[1].label)[1] == error(cells[1].outcome.error)
    assert "[" not in page.row(cells[1].label)[1]
