"""Codes by themselves: what they cost the expert, as differences that a second implementation finds too."""

import json

import numpy as np
import pytest

from compression_gap.artifacts.episodes import Episodes
from compression_gap.cli import main as cli
from compression_gap.errors import UserError
from compression_gap.results.codes import code_costs, code_sentences
from compression_gap.results.evidence import MeasuredReference
from compression_gap.results.records.comparisons import CodeCost, Comparison
from compression_gap.statistics.intervals import Contrast
from compression_gap.study.cells import Reference
from compression_gap.study.file import parse_study
from compression_gap.tokenizers.code import Code

STUDY = """\
name: codes
suite: channel
cameras: {image_size: 16}
factors:
  encoder: []
  action: [bins, oat]
  codebook: [fsq-1000, [[8, 5], [8, 5]]]
  seed: [0, 1]
  demos: [6]
limits: false
tokenizer: {steps: 6, batch_size: 8}
rollout: {execute: 16, episodes_per_task: 6}
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The study's folder, and what its run says as JSON."""
    folder = tmp_path_factory.mktemp("codes")
    (folder / "codes.yaml").write_text(STUDY)
    arguments = [str(folder / "codes.yaml"), "--store", str(folder / "store")]
    assert cli.main(["study", "run", *arguments, "--processes", "0"]) == 0
    return folder, arguments


@pytest.fixture
def summary(found, capsys):
    """The summary."""
    assert cli.main(["report", *found[1], "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_each_code_stands_against_the_expert_as_it_is(found, summary, capsys):
    import pyarrow.parquet as parquet

    assert cli.main(["store", "export", *found[1], "--out", str(found[0] / "out")]) == 0
    rows = parquet.read_table(found[0] / "out" / "episodes.parquet").to_pylist()
    plain = np.mean([r["success"] for r in rows if r["played_by"] == "expert-chunked"])
    names = {"bins": ("bins", None), "oat 1000": ("oat", "8x5x5x5"), "oat 2 × 40": ("oat", "8x5/8x5")}
    assert len(summary["contrasts"]) == 3
    for c in summary["contrasts"]:
        own = [
            r["success"]
            for r in rows
            if r["played_by"] == "expert-coded" and (r["tokenizer"], r["codebook"]) == names[c["code"]]
        ]
        assert c["value"] == pytest.approx(np.mean(own) - plain)
    bits = [c["capacity_bits"] for c in summary["contrasts"]]
    assert bits == sorted(bits) == pytest.approx([2 * np.log2(40), 8 * np.log2(1000), 256])
    assert summary["cells"] == []
    assert [r["capacity_bits"] for r in summary["references"]][-2:] == [None, None]


def test_the_page_and_the_terminal_show_it(found, capsys):
    assert cli.main(["report", *found[1]]) == 0
    said = capsys.readouterr().out
    assert "oat 2 × 40 (11 bits) − expert-chunked" in said
    page = (found[0] / "store" / "studies" / "codes" / "report.html").read_text(encoding="utf-8")
    assert "Success against the bits of the code" in page
    assert "Success of the expert's chunks through each code, less that of its chunks as they are." in page
    assert "Training time and latency" not in page


def cost(name, bits, value, low, high, p):
    found = Contrast(value, low, high, p, "", 2, 100, False)
    return Comparison(
        kind="code_cost", label="", about=CodeCost(code=name, capacity_bits=bits), found=found, p_holm=p
    )


def test_a_sentence_names_what_is_lost_kept_and_open():
    costs = [
        cost("a", 4, -0.5, -0.6, -0.4, 1e-9),
        cost("b", 10, -0.04, -0.09, 0.01, 0.2),
        cost("c", 80, -0.01, -0.04, 0.02, 0.6),
    ]
    assert code_sentences("metaworld/8", costs) == [
        "On metaworld/8, of 3 codes by themselves these cost the expert success: a (4 bits) −50 [−60, −40]; these keep "
        "it within 5 points: c (80 bits) −1 [−4, 2]; these leave it open: b (10 bits) −4 [−9, 1]."
    ]
    assert code_sentences("metaworld/8", []) == []


def test_without_the_expert_as_it_is_nothing_is_compared():
    alone = MeasuredReference(
        Reference("expert-coded", Code("bins", None, None), 6, {None: Episodes.__new__(Episodes)}),
        (),
        np.ones((1, 4)),
    )
    assert code_costs([alone], np.zeros(4, int), None) == []


@pytest.mark.parametrize(
    "change", [("limits: false", "limits: false\nreferences: false"), ("suite: channel", "data: [x]")]
)
def test_no_encoder_and_nothing_else_to_measure_is_refused(change):
    with pytest.raises(UserError, match=r"'factors\.encoder' is empty: name an encoder; codes alone"):
        parse_study(STUDY.replace(*change), "codes.yaml")
