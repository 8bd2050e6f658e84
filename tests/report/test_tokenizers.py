"""The page of the tokenizers: whole, self-contained, and with the table's numbers."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from test_page import Page

from compression_gap.api.demos import demos_of
from compression_gap.report.tokenizers import write_tokenizer_page
from compression_gap.results.records.json import as_json
from compression_gap.results.tokenizer_table import read_table
from compression_gap.store.store import Store
from compression_gap.study.file import Cameras, Tokenizer
from compression_gap.study.tokenizer_table import TableSpec, plan_table


@pytest.fixture(scope="module")
def record(compared):
    """The table as a record: of the same plan as the command's."""
    store = Store(compared[0])
    steps = demos_of("channel", 12, Cameras())
    spec = TableSpec(
        ("bins", "fast", "oat"),
        seeds=(0, 1),
        section=Tokenizer(steps=6, batch_size=8),
        prior_steps=4,
        episodes=3,
    )
    found = read_table(plan_table(spec, steps), store, "channel")
    assert as_json(found) == compared[1]
    return found


@pytest.fixture(scope="module")
def drawn(record, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "tokenizers.html"
    write_tokenizer_page(record, path)
    return path.read_text(encoding="utf-8")


def test_the_page_is_whole_and_takes_nothing_from_outside(drawn):
    page = Page(drawn)
    assert page.problems == []
    assert page.open == []
    links = [v for _, name, v in page.attributes if name in ("src", "href") and not v.startswith("#")]
    assert all(v.startswith("data:") for v in links)
    assert drawn.count("<svg") == 2


def test_every_row_stands_in_the_table_with_its_numbers(drawn, compared):
    page = Page(drawn)
    for r in compared[1]["rows"]:
        cells = page.row(r["label"] + (f" · seed {r['tokenizer_seed']}" if r["tokenizer_seed"] else ""))
        assert cells[1] == f"{r['nominal_bits']:.0f}"
        assert cells[4] == f"{r['distortion']:.2g}"
        assert cells[8].startswith(f"{100 * r['expert_coded']['value']:.0f} %")
        assert cells[9].startswith(f"{100 * r['replay']['value']:.0f} %")


def test_the_figures_name_every_code_and_the_guide(drawn):
    labels = Page(drawn).of("text")
    for name in ("bins", "fast", "oat 1000", "expert-chunked", "replay"):
        assert name in labels
    assert any("guide, no bound" in label for label in labels)


def test_replay_is_marked_as_a_diagnostic(drawn):
    assert "<b>diagnostic</b>" in drawn


def test_the_data_can_be_saved(drawn, compared):
    text = json.loads(re.search(r'<script type="application/json" id="csv">(.*?)</script>', drawn, re.S)[1])
    rows = list(csv.DictReader(io.StringIO(text["tokenizers"])))
    whole = [r for r in compared[1]["rows"] if r["health"]]
    assert [r["tokenizer"] for r in rows] == [r["label"] for r in whole]
    assert [float(r["used_bits"]) for r in rows] == [r["health"]["used_bits"] for r in whole]
    assert [float(r["replay"]) for r in rows] == [r["replay"]["value"] for r in whole]


def test_without_a_simulator_there_is_no_success(record, tmp_path):
    rows = [replace(row, expert_coded=None, replay=None) for row in record.rows]
    write_tokenizer_page(replace(record, references={}, protocol=None, rows=rows), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<svg") == 1
    assert "expert-coded" not in text
    assert Page(text).problems == []


def test_names_are_escaped(record, tmp_path):
    def renamed(of):
        return replace(of, per_task={"<b>task</b>": 0.5})

    rows = [
        replace(row, expert_coded=renamed(row.expert_coded), replay=renamed(row.replay))
        for row in record.rows
    ]
    write_tokenizer_page(replace(record, tasks=["<b>task</b>"], rows=rows), tmp_path / "page.html")
    assert "<b>task" not in (tmp_path / "page.html").read_text()
