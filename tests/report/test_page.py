"""The report: whole, self-contained, and with the summary's numbers."""

import copy
import csv
import importlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from compression_gap.errors import UserError
from compression_gap.nn.convergence import in_words
from compression_gap.report import figures
from compression_gap.report.format import count, percent, points, span
from compression_gap.report.page import render_page, write_page
from compression_gap.results.records.cells import Failure
from compression_gap.results.records.study import Video
from compression_gap.statistics.intervals import Span

VOID = {"meta", "link", "br", "img", "input", "hr", "source"}


class Page(HTMLParser):
    """Checks that tags are balanced; keeps attributes, table cells, and texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.texts, self.rows, self.problems = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append((tag, self.getpos()))

    def handle_data(self, data):
        if self.open:
            self.texts.append((self.open[-1], data))
        if {"td", "th"} & set(self.open) and self.rows:
            self.rows[-1][-1] += data

    def of(self, tag):
        return [text.strip() for t, text in self.texts if t == tag]

    def row(self, label):
        return next([c.strip() for c in row] for row in self.rows if row and row[0].strip() == label)


@pytest.fixture(scope="module")
def summary(finished):
    return finished.summary


@pytest.fixture(scope="module")
def record(finished):
    return finished.record


@pytest.fixture(scope="module")
def text(record):
    return render_page(record)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (points, 0.176, "+18"),
        (points, -0.25, "−25"),
        (percent, 0.526, "53 %"),
        (percent, 1.0, "100 %"),
        (span, Span(value=0, low=-0.3, high=0.504), "[−30, 50]"),
        (count, 999, "999"),
        (count, 1234, "1.23 k"),
        (count, 4.2e6, "4.2 M"),
        (count, 3e9, "3 G"),
        (count, 2.5e12, "2.5 T"),
    ],
)
def test_numbers_are_written_as_people_read_them(function, value, text):
    assert function(value) == text


def test_the_html_is_well_formed(page):
    assert page.problems == []
    assert page.open == []


def test_ids_occur_once(page):
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_references_within_figures_meet_their_target(page):
    ids = {value for _, name, value in page.attributes if name == "id"}
    used = {v[1:] for _, name, v in page.attributes if name in ("href", "xlink:href") and v.startswith("#")}
    used |= {m for _, _, v in page.attributes for m in re.findall(r"url\(#([^)]+)\)", v)}
    assert used
    assert used <= ids


def test_nothing_is_loaded_from_elsewhere(text, page):
    sources = {"src", "href", "xlink:href", "action", "poster", "data", "srcset"}
    for tag, name, value in page.attributes:
        if name in sources:
            assert value.startswith(("data:", "#")), (tag, name, value)
    styles = "".join(page.of("style")) + "".join(v for _, n, v in page.attributes if n == "style")
    assert "@import" not in styles
    assert not re.search(r"url\((?!['\"]?(#|data:))", styles)
    scripts = "".join(page.of("script"))
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|importScripts|import)\s*\(", scripts)
    assert not re.search(r"""["'](https?:)?//(?!www\.w3\.org/)""", scripts)
    assert "<iframe" not in text
    assert "<object" not in text


def test_figures_are_inline_with_text_that_can_be_selected(summary, page):
    written = page.of("text") + page.of("tspan")
    assert "success, % of episodes" in written
    for encoder in ("blind", "retina-4", "oracle"):
        assert encoder in written
    for reference in summary["references"]:
        assert any(reference["label"] in text.split("; ") for text in written)
    for action in ("diffusion", "oat"):
        assert action in written
    assert not any("$" in label or "math" in label for label in written)
    drawn = sum(tag == "svg" and name == "viewbox" for tag, name, _ in page.attributes)
    assert drawn == 4 + len(summary["waterfalls"])  # success, gains, probe, learning curves


def test_every_cell_is_there_with_the_summary_s_numbers(summary, page):
    assert len(summary["cells"]) == 6
    for cell in summary["cells"]:
        row = page.row(cell["label"])
        rate = cell["rate"]
        assert row[1] == f"{100 * rate['value']:.0f} %"
        assert row[2] == f"[{100 * rate['low']:.0f}, {100 * rate['high']:.0f}]"
        assert row[3] == "2 × 6"
        assert row[4] == count(cell["parameters"]["total"])
        assert row[5] == count(cell["flops"])
        assert (in_words(cell["convergence"]) in row[8]) == (not cell["converged"])


def test_verdicts_name_the_trainings_that_had_not_converged(summary, page):
    ends = {c["label"]: in_words(c["convergence"]) for c in summary["cells"] if not c["converged"]}
    for v in summary["verdicts"]:
        on = [v["label"], *v["relaxed"].values()]
        assert v["unconverged"] == {label: ends[label] for label in on if label in ends}
    said = " ".join(t for _, t in page.texts)
    assert ends
    for label, words in ends.items():
        if any(label in v["unconverged"] for v in summary["verdicts"]):
            assert f"{label} ({words})" in said


def test_every_reference_is_there(summary, page):
    assert {r["actor"] for r in summary["references"]} == {"expert", "expert-chunked", "expert-coded"}
    for reference in summary["references"]:
        assert page.row(reference["label"])[1] == f"{100 * reference['rate']['value']:.0f} %"


def test_every_probe_is_there(summary, page):
    assert [p["encoder"] for p in summary["probes"]] == ["blind", "retina-4", "oracle"]
    blind, retina, oracle = (p["mean"]["value"] for p in summary["probes"])
    assert blind == 0
    assert 0 < retina < oracle
    assert oracle == pytest.approx(1, abs=1e-6)  # the state itself
    for p in summary["probes"]:
        m = p["mean"]
        wanted = f"{m['value']:.2f} [{m['low']:.2f}, {m['high']:.2f}]".replace("-", "−")
        assert any(row[:2] == [p["encoder"], wanted] for row in page.rows)


def test_every_contrast_is_there_with_the_summary_s_numbers(summary, page):
    assert len(summary["contrasts"]) == 9
    for c in summary["contrasts"]:
        row = page.row(c["label"])
        assert row[1] == points(c["value"])
        assert row[2] == span(SimpleNamespace(**c))
        assert float(row[3]) == pytest.approx(c["p"], rel=0.06)
        assert float(row[4]) == pytest.approx(c["p_holm"], rel=0.06)
        assert bool(row[5]) == (c["kind"] == "interaction")


def test_the_headline_protocol_and_command_are_there(summary, page, text):
    said = " ".join(t for _, t in page.texts)
    for sentence in summary["headline"]:
        assert sentence in said
    assert summary["protocol"]["hash"] in page.of("code")
    assert "cgap study run small.yaml" in page.of("code")
    assert f"compression-gap {summary['version']}" in text


def test_tables_can_be_saved_with_full_precision(summary, text):
    block = re.search(r'<script type="application/json" id="csv">(.*?)</script>', text, re.S)
    tables = json.loads(block[1])
    cells = list(csv.DictReader(io.StringIO(tables["cells"])))
    assert [c["cell"] for c in cells] == [c["label"] for c in summary["cells"]]
    assert [float(c["value"]) for c in cells] == [c["rate"]["value"] for c in summary["cells"]]
    contrasts = list(csv.DictReader(io.StringIO(tables["contrasts"])))
    assert [float(c["p_holm"]) for c in contrasts] == [c["p_holm"] for c in summary["contrasts"]]


def test_the_page_is_the_same_every_time(record, text):
    assert render_page(copy.deepcopy(record)) == text


HOSTILE = "</script><script>alert(1)</script><b a=\"x\" onload='y'> & {{ 7*7 }} $x_{^$"


def marked(rows, **changes):
    """Rows whose labels begin with what must be escaped."""
    return [replace(row, label=f"{HOSTILE} {row.label}", **changes) for row in rows]


def failing(cell, seed, sentence):
    """A cell with a training that failed."""
    failures = [Failure(seed=seed, record=json.dumps({"sentence": sentence}))]
    return replace(cell, training=replace(cell.training, failures=failures))


def test_hostile_names_are_escaped_everywhere(record, summary):
    cells = [replace(c, encoder=f"{HOSTILE} {c.encoder}") for c in marked(record.cells)]
    bad = replace(
        record,
        study=record.study.model_copy(update={"name": HOSTILE, "suite": HOSTILE}),
        command=HOSTILE,
        headline=[HOSTILE],
        tasks=[HOSTILE],
        machine={HOSTILE: HOSTILE},
        cells=[failing(cells[0], 0, HOSTILE), *cells[1:]],
        references=marked(record.references),
        contrasts=marked(record.contrasts),
        tokenizers=marked(record.tokenizers),
        found=replace(
            record.found,
            **{part: marked(getattr(record.found, part)) for part in ("trends", "waterfalls", "verdicts")},
        ),
    )
    text = render_page(bad)
    page = Page(text)
    assert page.problems == []
    assert text.count("<script") == render_page(record).count("<script")
    assert "<b a=" not in text
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "49" not in [t for _, t in page.texts]  # the template is not read twice
    assert HOSTILE in page.of("title")[0]
    assert page.row(f"{HOSTILE} {summary['cells'][0]['label']}")
    assert HOSTILE in "".join(t for tag, t in page.texts if tag == "text")


NOT_TRAINED = {
    "parameters": None, "flops": None, "latency_seconds": None, "train_seconds": None, "converged": None, "curves": [],
}  # fmt: skip


def test_a_failed_cell_is_shown_with_its_sentence(record):
    cell = record.cells[2]
    sentence = "the training diverged at step 40 of 100 (loss nan): lower the learning rate"
    bare = replace(
        cell,
        per_seed=None,
        outcome=replace(cell.outcome, rate=None, per_task=None),
        training=replace(cell.training, **NOT_TRAINED),
    )

    def page_with(cell):
        return Page(render_page(replace(record, cells=[*record.cells[:2], cell, *record.cells[3:]])))

    page = page_with(failing(bare, 1, sentence))
    assert page.row(cell.label)[1] == "failed"
    said = " ".join(t for _, t in page.texts)
    assert f"{cell.label}, seed 1: {sentence}" in said
    assert page_with(bare).row(cell.label)[1] == "not run"


def test_a_figure_is_a_file_and_its_registration(record, text, tmp_path, monkeypatch):
    """One more figure of a module outside: it stands on the page with its caption, and nothing else changes."""
    (tmp_path / "my_figure.py").write_text(
        "def draw(summary):\n    return f'<svg viewBox=\"0 0 1 1\"><text>{len(summary.cells)} cells</text></svg>'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("my_figure")
    monkeypatch.setitem(figures.SIMULATOR, "mine", figures.Figure(module.draw, "What <i>I</i> drew."))
    more = render_page(record)
    assert "6 cells" in Page(more).of("text")
    assert "What &lt;i&gt;I&lt;/i&gt; drew." in more
    start, end = (
        more.index("<h2>Further figures</h2>"),
        more.index("<h2>Rollout videos</h2>")
        if "<h2>Rollout videos</h2>" in more
        else more.index("<h2>Setup</h2>"),
    )
    assert "".join((more[:start] + more[end:]).split()) == "".join(text.split())
    monkeypatch.setitem(figures.SIMULATOR, "mine", figures.Figure(lambda summary: "", "Nothing to draw."))
    assert "Further figures" not in render_page(record)


def test_films_are_in_the_page(finished, record, tmp_path):
    page = Page(finished.page)
    videos = [v for tag, name, v in page.attributes if (tag, name) == ("video", "src")]
    assert videos
    assert all(v.startswith("data:video/mp4;base64,") for v in videos)
    film = tmp_path / "film.mp4"
    film.write_bytes(b"moving")
    text = render_page(record, [Video(label="<i>me</i>", task="reach", success=False, path=film)])
    assert 'src="data:video/mp4;base64,bW92aW5n"' in text
    assert "&lt;i&gt;me&lt;/i&gt;: reach, failure" in text


def test_a_page_that_cannot_be_written_is_a_sentence_and_the_old_one_stays(record, tmp_path, monkeypatch):
    import errno
    from pathlib import Path

    path = tmp_path / "report.html"
    write_page(record, [], path)
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="is full: free some space and run the same command again"):
        write_page(record, [], path)
    assert path.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]
