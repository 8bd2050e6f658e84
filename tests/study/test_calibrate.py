"""The calibration: its judgements by hand, and all of it once at the smallest scale."""

import json

import pytest

from compression_gap.artifacts import calibration as kinds
from compression_gap.cli.main import main
from compression_gap.information.estimate import Estimate
from compression_gap.information.known import distributions
from compression_gap.information.wide import Wide
from compression_gap.results import calibration as results
from compression_gap.statistics.coverage import settings
from compression_gap.study import calibration
from compression_gap.study.file import load_study

SMALL = {
    "training": {"steps": 5, "batch_size": 8, "warmup": 1, "validations": 4},
    "tokenizer": {"steps": 6, "batch_size": 8},
    "rollout": {"episodes_per_task": 4},
    "ledger": {"steps": 12, "batch_size": 16, "prior_steps": 3},
}


def test_a_verdict_is_judged_against_true_gains():
    assert kinds.leading({"encoder": 0.3, "code": 0.1}) == "encoder"
    assert kinds.leading({"encoder": 0.3, "code": 0.27}) is None
    assert kinds.leading({"encoder": 0.03}) is None
    assert kinds.leading({"encoder": -0.3, "code": -0.1}) is None


def test_accuracy_counts_right_wrong_unresolved_and_ties():
    rows = [("encoder", "encoder"), ("code", "encoder"), ("code", None), (None, "code"), (None, None)]
    found = kinds.accuracy(rows)
    assert (found.cells, found.right, found.wrong, found.unresolved) == (3, 1, 1, 1)
    assert (found.ties, found.named_in_ties) == (2, 1)
    assert found.accuracy == pytest.approx(1 / 3)
    assert kinds.accuracy([]).accuracy is None


def test_a_setting_in_short_counts_what_is_off_and_not_flagged():
    def estimate(value, low, high, converged):
        return Estimate(value, low, high, 9, 9, None, {}, None, None, 0.1, value, converged)

    own = [(4.4, 4.2, 4.6, True), (3.0, 2.9, 3.1, True), (3.0, 2.9, 4.9, True), (3.0, 2.9, 3.1, False)]
    rows = [
        {"wide": estimate(*e), "upgrade": estimate(0.4, low, 0.5, True)}
        for e, low in zip(own, (0.1, -0.1, -0.1, 0.2), strict=True)
    ]
    found = results._wide_row(Wide(61), 4.38, rows)
    assert found.mean == pytest.approx(3.35)
    assert found.within is False
    assert (found.covered, found.flagged, found.tight_and_wrong) == (0.5, 0.25, 1)
    assert found.upgrade_holds_zero == 0.5


def test_the_dials_bind_as_their_definition_says():
    rate = kinds.nested_rates((1, 2, 4))
    assert rate[None, None] == pytest.approx(1, abs=1e-6)
    # A code finer than what is seen costs nothing to speak of; a coarser one binds.
    assert rate[1, None] - rate[1, 4] == pytest.approx(0, abs=0.02)
    assert rate[4, 1] == pytest.approx(rate[None, 1], abs=0.01)
    assert rate[4, None] - rate[4, 1] > 0.5


def test_the_full_calibration_is_the_wider_one():
    quick, full = (calibration.plan_calibration(q) for q in (True, False))
    assert len(full.known) == len(distributions())
    assert (
        len(full.coverage)
        == sum(len(settings(q, False)) for q in calibration.QUANTITIES)
        > len(quick.coverage)
    )
    assert len(full.plan.cells) > len(quick.plan.cells)
    assert {r.key for r in full.wanted} <= set(full.steps)


def test_the_command_makes_the_page(tmp_path, monkeypatch, capsys):
    def tiny(file, preset):
        study = load_study(file, preset)
        parts = {n: getattr(study, n).model_copy(update=v) for n, v in SMALL.items()}
        factors = study.factors.model_copy(update={"demos": (40,), "encoder": ("oracle-1b",), "seed": (0,)})
        return study.model_copy(update={**parts, "factors": factors})

    monkeypatch.setattr(calibration, "load_study", tiny)
    monkeypatch.setattr(calibration, "distributions", lambda quick=False: distributions(True)[:1])
    monkeypatch.setattr(calibration, "SAMPLES", {True: (300, 4)})
    monkeypatch.setattr(calibration, "wide_settings", lambda quick: [(Wide(20, "white", 12), 2)])
    monkeypatch.setattr(
        calibration,
        "WIDE_DENOISING",
        {"steps": 4, "seeds": 2, "batch_size": 16, "width": 8, "neighbours": 64},
    )
    monkeypatch.setattr(calibration, "STUDIES", {True: (1, 5)})
    monkeypatch.setattr(calibration, "DIALS", (1, 3))
    words = ["calibrate", "--quick", "--store", str(tmp_path / "store"), "--processes", "0"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {b["quantity"] for b in found["bits"]} == {"demand", "supply", "kept", "gap"}
    demand = next(b for b in found["bits"] if b["quantity"] == "demand")
    assert 9 < demand["truth"] < 11
    assert found["verdict_accuracy"] is not None
    assert set(found["interval_coverage"]) == {"rate", "delta", "interaction", "log odds", "waterfall"}
    assert [a["seeds"] for a in found["simulated"]["by_seeds"]] == [1, 2, 3, 5]
    assert found["simulated"]["by_seeds"][0]["named_in_ties"] == 0
    assert found["known"][0]["truth"] == pytest.approx(2.0)
    (wide,) = found["wide"]
    assert wide["truth"] == pytest.approx(4.38)
    assert wide["draws"] == 2
    assert wide["flagged"] == 1
    oracle = next(s for s in found["success"] if s["label"] == "diffusion · oracle")
    assert oracle["truth"] == pytest.approx(1)
    page = (tmp_path / "store" / "calibration.md").read_text()
    assert "| demand |" in page
    assert (tmp_path / "store" / "calibration.svg").read_text().startswith("<svg")
    assert main(words) == 0
    assert "verdicts, simulated, 1 seed:" in capsys.readouterr().out
