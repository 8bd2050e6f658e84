"""The page of a study of recordings: whole, self-contained, with the summary's numbers, and without success."""

import copy
import csv
import io
import json
import re

import pytest
from test_page import HOSTILE, Page

from compression_gap.nn.convergence import in_words
from compression_gap.report.offline import error_words, render_offline_page, signed
from compression_gap.report.page import count


@pytest.fixture(scope="module")
def summary(recorded):
    return recorded.summary


@pytest.fixture(scope="module")
def text(summary):
    return render_offline_page(summary)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_numbers_are_written_with_their_interval():
    assert error_words({"value": 0.1234, "low": 0.1, "high": 1.0}) == "0.123 [0.1, 1]"
    assert error_words({"value": 0.1234, "low": None, "high": None}) == "0.123"
    assert signed({"value": -0.02, "low": -0.1, "high": 0.5}) == "−0.02 [−0.1, +0.5]"


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
        assert row[1:4] == [error_words(cell["error"]), error_words(cell["executed_error"]), "2 × 2"]
        assert row[4] == count(cell["parameters"]["total"])
        assert (in_words(cell["convergence"]) in row[8]) == (not cell["converged"])
    for reference in summary["references"]:
        assert page.row(reference["label"])[1] == error_words(reference["error"])
    for contrast in summary["contrasts"]:
        assert page.row(contrast["label"])[1] == signed(contrast)


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


def test_hostile_names_are_escaped_everywhere(summary):
    bad = copy.deepcopy(summary)
    bad["study"]["name"] = bad["command"] = HOSTILE
    bad["headline"] = bad["tasks"] = [HOSTILE]
    bad["machine"] = {HOSTILE: HOSTILE}
    bad["recordings"]["cameras"] = [HOSTILE]
    for part in ("cells", "references", "contrasts", "tokenizers"):
        for row in bad[part]:
            row["label"] = f"{HOSTILE} {row['label']}"
    bad["cells"][0]["failures"] = [{"seed": 0, "record": json.dumps({"sentence": HOSTILE})}]
    text = render_offline_page(bad)
    found = Page(text)
    assert found.problems == []
    assert text.count("<script") == render_offline_page(summary).count("<script")
    assert "<b a=" not in text
    assert found.row(f"{HOSTILE} {summary['cells'][0]['label']}")


def test_a_failed_cell_and_missing_intervals_are_shown(summary):
    one = copy.deepcopy(summary)
    cell = one["cells"][0]
    sentence = "the training diverged at step 40 of 100 (loss nan): lower the learning rate"
    cell |= {"error": None, "executed_error": None, "rmse": None, "per_task": None, "curves": []}
    cell |= {"parameters": None, "converged": None, "per_seed": None, "seeds": []}
    cell["failures"] = [{"seed": 1, "record": json.dumps({"sentence": sentence})}]
    for other in one["cells"][1:]:
        other["error"] |= {"low": None, "high": None}
    one["contrasts"] = []
    page = Page(render_offline_page(one))
    assert page.row(cell["label"])[1] == "failed"
    assert f"{cell['label']}, seed 1: {sentence}" in " ".join(t for _, t in page.texts)
    assert page.row(one["cells"][1]["label"])[1] == error_words(one["cells"][1]["error"])
