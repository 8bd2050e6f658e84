import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

from compression_gap.report.page import render_page
from compression_gap.results.published import published, published_beside, published_contrasts
from compression_gap.results.records.cells import Cell, CodeLevels, Success, Trainings
from compression_gap.sims import EvaluationProtocol, SimSpec
from compression_gap.statistics.intervals import Interval
from compression_gap.study.file import parse_study


@pytest.fixture(scope="module")
def rows():
    return {row.name: row for row in published_contrasts()}


@pytest.mark.parametrize(
    ("name", "difference", "half"),
    [
        ("delta_enc/diffusion/M", 21.2, 6.0),
        ("delta_enc/oat-1000/M", 3.6, 6.2),
        ("delta_enc/oat-1920/M", 15.2, 6.1),
        ("delta_enc/oat-4375/M", 4.0, 6.1),
        ("interaction/M", 17.6, 8.6),
    ],
)
def test_the_known_numbers(rows, name, difference, half):
    row = rows[name]
    assert row.difference == pytest.approx(difference, abs=1e-9)
    assert round((row.high - row.low) / 2, 1) == half
    assert (row.high + row.low) / 2 == pytest.approx(row.difference)


def test_the_tables_agree_where_they_overlap():
    tables = published()
    size_m = {row["head"]: row for row in tables["factorial"] if row["size"] == "M"}
    for row in tables["encoder_gradient"][:2]:
        for head in ("diffusion", "oat-1000"):
            assert row[head] == size_m[head][row["encoder"]]
    for encoder in ("resnet18", "siglip"):
        assert tables["codebook"][0][encoder] == size_m["oat-1000"][encoder]
    assert all(np.prod(row["levels"]) == row["codes"] for row in tables["codebook"])
    assert tables["n"] == 500


def test_what_stands(rows):
    assert rows["delta_enc/diffusion/M"].stands
    assert rows["interaction/M"].stands
    assert not rows["delta_enc/oat-1000/M"].stands
    assert rows["delta_enc/oat-1000/M"].max_seed_sd == 0.0
    claims = [row for row in rows.values() if row.claim]
    assert [row.p_holm for row in claims] == pytest.approx(
        multipletests([row.p for row in claims], method="holm")[1]
    )
    for row in rows.values():
        if row.claim:
            assert row.stands == (row.p_holm < 0.05) == (row.max_seed_sd > 0)
        else:
            assert row.p_holm is row.stands is row.max_seed_sd is None
        assert 2.4 < row.peak_optimism < 2.9


def test_the_seed_spread_that_a_contrast_bears(rows):
    """The largest p of the list times its number is an upper bound; the unadjusted bound lies above."""
    row = rows["delta_enc/diffusion/M"]
    variance = (36.4 * 63.6 + 57.6 * 42.4) / 500
    single = np.sqrt(((21.2 / norm.ppf(0.975)) ** 2 - variance) / 2)
    claims = sum(r.claim for r in rows.values())
    strictest = np.sqrt(((21.2 / norm.isf(0.025 / claims)) ** 2 - variance) / 2)
    assert strictest - 1e-6 <= row.max_seed_sd < single


def test_the_papers_claims_are_twelve(rows):
    """Gains by head and size (4) and codebook (2), two interactions, the gradient's other steps by head (4)."""
    claims = {name for name, row in rows.items() if row.claim}
    assert len(claims) == 12
    assert {
        "interaction/M",
        "interaction/L",
        "delta_enc/oat-1920/M",
        "encoder/diffusion/siglip>siglip2",
    } < claims
    assert "codebook/oat-1000>oat-1920/resnet18" not in claims


def test_names_are_words(rows):
    assert rows["encoder/diffusion/resnet18>siglip2"].label == "SigLIP 2 − ResNet-18, Diffusion Policy M"
    assert rows["interaction/L"].label == "gain of SigLIP, Diffusion Policy − OAT-1000, L"
    assert rows["codebook/oat-1000>oat-1920/delta_enc"].label == "gain of SigLIP, OAT-1920 − OAT-1000, M"
    assert rows["codebook/oat-1000>oat-1920/siglip"].label == "OAT-1920 − OAT-1000, SigLIP M"
    assert len({row.label for row in rows.values()}) == len(rows)


def test_the_table_fits_eighty_columns_and_says_what_seed_spread_overturns_a_claim(rows, monkeypatch, capsys):
    from rich.console import Console

    from compression_gap.cli import terminal

    monkeypatch.setattr(terminal, "console", Console(width=80, highlight=False))
    terminal.published_table(list(rows.values()))
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    words = set(re.findall(r"[\w-]+", text))
    assert all(word in words for row in rows.values() for word in re.findall(r"[\w-]+", row.label))
    for name in ("interaction/M", "interaction/L", "delta_enc/oat-1000/L"):
        assert f"{rows[name].max_seed_sd:.1f} points" in text
    assert "exploratory" in text


def test_no_contrast_is_counted_twice(rows):
    seen = [(round(row.difference, 6), round(row.p, 12)) for row in rows.values()]
    assert len(set(seen)) == len(seen)


# Beside a study's own table

FACTORIAL = """\
name: again
suite: channel
published: EXPERIMENT
factors: {encoder: [siglip-so400m], action: [diffusion, oat], size: [M], seed: [0, 1, 2], codebook: [fsq-1000, fsq-4375]}
policy: {horizon: 32, attention: causal-as-published}
rollout: {execute: 16, episodes_per_task: 50, checkpoints: 6, select: peak}
training: {steps: 1000}
"""
PROTOCOL = EvaluationProtocol(
    sim=SimSpec(sim="channel", tasks=("reach",), cameras=("top",), image_size=16),
    episodes_per_task=50,
    execute=16,
    step_limit=32,
    versions={},
)
UNKNOWN = Trainings(
    failures=[], convergence=[], converged=None, parameters=None, flops=None, latency_seconds=None,
    train_seconds=None, curves=[], policies=[],
)  # fmt: skip


def own_cell(action, codes=None, *, encoder="siglip-so400m", size="M", value=0.5, **changes):
    levels = {None: None, 1000: [[8, 5, 5, 5]], 4375: [[7, 5, 5, 5, 5]]}[codes]
    rate = None if value is None else Interval(value, value - 0.1, value + 0.1, "by hand")
    made = Cell(
        label=f"{action} {codes}", encoder=encoder, action=action, size=size, task="embedding",
        code=CodeLevels(codebook=levels), trained_on="chunk", executed="chunk", seeds=[0, 1, 2],
        outcome=Success(demos=10, episodes=50, rate=rate, per_task=None), per_seed=None, decode_failures=None,
        selected=None, training=UNKNOWN,
    )  # fmt: skip
    return replace(made, **changes)


def beside(cells, experiment="factorial", protocol=PROTOCOL):
    study = parse_study(FACTORIAL.replace("EXPERIMENT", experiment), "test")
    return published_beside(study, protocol, cells)


def row(found, head, size, encoder):
    (one,) = (r for r in found.rows if (r.head, r.size, r.encoder) == (head, size, encoder))
    return one


def test_published_rates_stand_beside_with_wilsons_interval_and_the_studys_own():
    found = beside([own_cell("diffusion", value=0.6), own_cell("oat", 1000, value=0.4)])
    assert found.mark == "published (arXiv 2604.03191)"
    diffusion = row(found, "diffusion", "M", "siglip-so400m")
    assert diffusion.published.value == pytest.approx(0.576)
    # Wilson's score interval of 288 in 500, by hand
    z, n, p = norm.ppf(0.975), 500, 0.576
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert diffusion.published.low == pytest.approx((centre - half) / (1 + z * z / n))
    assert diffusion.published.high == pytest.approx((centre + half) / (1 + z * z / n))
    assert [o.rate.value for o in diffusion.own] == [0.6]
    assert [o.rate.value for o in row(found, "oat-1000", "M", "siglip-so400m").own] == [0.4]
    assert row(found, "diffusion", "L", "siglip-so400m").own == []
    assert row(found, "diffusion", "M", "resnet18").published.value == pytest.approx(0.364)
    assert len(found.rows) == 8


@pytest.mark.parametrize(
    "other",
    [
        own_cell("diffusion", trained_on="coded"),
        own_cell("diffusion", executed="snapped"),
        own_cell("diffusion", encoder="siglip-base"),
        own_cell("diffusion", size="S"),
        own_cell("oat", 4375),
        own_cell("diffusion", value=None),
        own_cell("flow"),
    ],
)
def test_other_cells_are_not_taken_for_published_ones(other):
    assert all(r.own == [] for r in beside([other]).rows)


def test_each_experiment_has_its_cells():
    cells = [own_cell("oat", 4375, value=0.3), own_cell("diffusion", encoder="dinov2-l", value=0.7)]
    codes = beside(cells, "codebook-size")
    assert [r.head for r in codes.rows] == ["oat-1000"] * 2 + ["oat-1920"] * 2 + ["oat-4375"] * 2
    assert row(codes, "oat-4375", "M", "siglip-so400m").own[0].rate.value == 0.3
    assert row(codes, "oat-4375", "M", "siglip-so400m").published.value == pytest.approx(0.586)
    gradient = beside(cells, "encoder-gradient")
    assert [r.encoder for r in gradient.rows[:4]] == [
        "resnet18", "siglip-so400m", "siglip2-so400m", "dinov2-l"
    ]  # fmt: skip
    assert row(gradient, "diffusion", "M", "dinov2-l").own[0].rate.value == 0.7
    assert row(gradient, "oat-1000", "M", "siglip2-so400m").published.value == pytest.approx(0.442)


def test_where_the_protocols_differ_is_named():
    settings = {d.what: d for d in beside([]).settings}
    assert settings["checkpoint"].same
    assert settings["chunk"].same
    assert settings["attention of the diffusion head"].same
    different = {
        "tasks": "channel", "training seeds": "3", "episodes of a cell": "50", "step limit": "32",
        "episodes begin": "channel", "target tokens": "eval", "task enters as": "embedding",
        "training": "1000 steps",
    }  # fmt: skip
    assert {what: d.own for what, d in settings.items() if not d.same} == different
    own = PROTOCOL.model_copy(update={"settings": {"name": "oat-as-published"}, "step_limit": 550})
    settings = {d.what: d for d in beside([], protocol=own).settings}
    assert settings["episodes begin"].same
    assert settings["step limit"].same
    assert {d.source for d in settings.values()} == {"paper", "earlier code snapshot"}


def test_a_study_of_no_published_experiment_has_no_such_table():
    study = parse_study(FACTORIAL.replace("published: EXPERIMENT\n", ""), "test")
    assert published_beside(study, PROTOCOL, []) is None


def test_the_report_has_both_side_by_side(finished):
    summary = finished.record
    assert summary.found.published is None
    assert "Beside the published table" not in render_page(summary)
    found = replace(summary.found, published=beside([own_cell("diffusion", value=0.6)]))
    text = render_page(replace(summary, found=found))
    words = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "diffusion M siglip-so400m 57.6 % [53, 62] 60 % [50, 70] 3 × 50" in words
    assert "oat-1000 L resnet18 48.0 % [44, 52] not run" in words
    assert "published (arXiv 2604.03191)" in words
    assert "The two are not pooled" in words
    assert "training seeds 1 paper 3" in words
