"""The matched-head ablation, and which cells are compared with which: outcomes by hand, as in ``test_results``."""

import numpy as np
import pytest
from test_summary import close, make_study, put, rows_of, shown

from compression_gap.statistics import intervals as statistics
from compression_gap.store.store import Store
from compression_gap.study.plan import make_plan

# (trained on, executed) → success of four initial states for seeds 0 and 1, at the encoder under test.
SWAP = {
    ("chunk", "chunk"): ["1111", "1110"],  # 7/8
    ("chunk", "snapped"): ["1110", "1100"],  # 5/8
    ("coded", "chunk"): ["1110", "1110"],  # 6/8
    ("coded", "snapped"): ["1000", "0100"],  # 2/8
}


def measured_swap(tmp_path, outcomes=lambda cell: SWAP[cell.trained_on, cell.executed][cell.seed], **changes):
    swap = {"head": ["diffusion"], "tokenizer": ["oat"]}
    plan = make_plan(make_study(factors__action=["diffusion"], references=False, swap=swap, **changes))
    store = Store(tmp_path)
    for cell in plan.cells:
        put(store, cell.evidence, rows_of(plan, cell.evidence, outcomes(cell)))
    return plan, shown(plan, store)


@pytest.fixture(scope="module")
def swapped(tmp_path_factory):
    return measured_swap(tmp_path_factory.mktemp("swap"))[1]


def test_the_table_crosses_training_with_execution(swapped):
    assert [s["encoder"] for s in swapped["swaps"]] == ["blind", "retina-4", "oracle"]
    table = swapped["swaps"][1]
    assert table["label"] == "diffusion with the code of oat · retina-4"
    found = {(c["trained_on"], c["executed"]): c["value"] for c in table["cells"]}
    assert found == {at: close(sum(r.count("1") for r in rows) / 8) for at, rows in SWAP.items()}
    assert list(found) == list(SWAP)  # row by row


def test_g_code_is_the_free_head_minus_the_head_with_the_code(swapped):
    table = swapped["swaps"][1]
    assert table["g_code"]["value"] == close(7 / 8 - 2 / 8)
    assert table["training"]["value"] == close(7 / 8 - 6 / 8)
    assert table["execution"]["value"] == close(7 / 8 - 5 / 8)
    rows = [np.array([[int(x) for x in seed] for seed in SWAP[at]], float) for at in SWAP]
    expected = statistics.contrast([rows[0], rows[3]], [1, -1], np.zeros(4, int))
    assert (table["g_code"]["low"], table["g_code"]["high"]) == (close(expected.low), close(expected.high))


def test_the_verdict_relaxes_the_code_with_the_head_held(swapped):
    (verdict,) = [v for v in swapped["verdicts"] if v["action"] == "diffusion with the code of oat"]
    code = next(g for g in verdict["gains"] if g["stage"] == "code")
    assert code["contrast"]["value"] == close(5 / 8)
    assert "head, loss and sampler as they are" in code["what"]
    assert [v["action"] for v in swapped["verdicts"]] == ["diffusion", "diffusion with the code of oat"]


def test_mixed_cells_stand_in_the_grid_and_in_the_swap_alone(swapped):
    mixed = {"diffusion requantised by the code of oat", "diffusion trained on the code of oat"}
    assert mixed < {c["action"] for c in swapped["cells"]}
    for part in ("contrasts", "waterfalls", "verdicts"):
        assert swapped[part]
        assert not any(m in row["label"] for row in swapped[part] for m in mixed)


def test_the_interaction_compares_the_head_with_itself_under_the_code(tmp_path):
    """The encoder is worth 4/8 to the free head and 1/8 to the head with the code."""
    success = {
        ("blind", "chunk"): ["1000", "1000"],
        ("retina-4", "chunk"): ["1110", "1110"],
        ("oracle", "chunk"): ["1110", "1110"],
        ("blind", "snapped"): ["1000", "1000"],
        ("retina-4", "snapped"): ["1000", "1100"],
        ("oracle", "snapped"): ["1000", "1100"],
    }
    _, summary = measured_swap(tmp_path, lambda c: success[c.encoder, c.executed][c.seed])
    rows = [
        c for c in summary["contrasts"] if c["kind"] == "interaction" and "(retina-4 − blind)" in c["label"]
    ]
    assert [r["label"] for r in rows] == [
        "Δ_enc(retina-4 − blind): diffusion − diffusion with the code of oat"
    ]
    assert rows[0]["value"] == close(4 / 8 - 1 / 8)


def test_tokenizer_seeds_are_the_replicates_where_there_are_several(tmp_path):
    """Three fitted tokenizers, two training seeds: each tokenizer seed is the mean of its training seeds."""
    by_seed = {0: ["1111", "1111"], 1: ["1100", "1000"], 2: ["0000", "1000"]}

    def outcomes(cell):
        free = (cell.trained_on, cell.executed) == ("chunk", "chunk")
        return "1111" if free else by_seed[cell.code.seed][cell.seed]

    _, summary = measured_swap(tmp_path, outcomes, factors__tokenizer_seed=[0, 1, 2])
    table = summary["swaps"][0]
    assert table["tokenizer_seeds"] == 3
    assert len(summary["swaps"]) == 3  # one an encoder, not one a tokenizer seed
    means = np.array([[1, 1, 1, 1], [1, 0.5, 0, 0], [0.5, 0, 0, 0]])
    expected = statistics.contrast([np.ones((2, 4)), means], [1, -1], np.zeros(4, int))
    assert table["g_code"]["value"] == close(1 - (8 + 3 + 1) / 24)
    assert table["g_code"]["low"] == close(expected.low)


def test_each_training_seed_brings_its_own_tokenizer_to_the_swap(swapped, tmp_path):
    table = swapped["swaps"][0]
    assert (table["tokenizer_seeds"], table["tokenizer_is_trained"]) == (2, True)
    plan, summary = measured_swap(tmp_path, factors__tokenizer_seed=[0])
    assert summary["swaps"][0]["tokenizer_seeds"] == 1
    assert len({s.key for s in plan.steps.values() if s.kind == "tokenizer"}) == 1
    assert summary["swaps"][0]["g_code"] == swapped["swaps"][0]["g_code"]  # the same runs, differently fitted


def test_a_table_without_all_four_cells_is_not_shown(tmp_path):
    swap = {"head": ["diffusion"], "tokenizer": ["oat"]}
    plan, store = make_plan(make_study(factors__action=["diffusion"], swap=swap)), Store(tmp_path)
    for cell in plan.cells:
        if cell.trained_on == "chunk":
            put(store, cell.evidence, rows_of(plan, cell.evidence, "1100"))
    assert shown(plan, store)["swaps"] == []


def test_interactions_are_against_the_first_continuous_head(tmp_path):
    plan = make_plan(make_study(factors__action=["oat", "flow", "fast", "regression"], references=False))
    store = Store(tmp_path)
    for cell in plan.cells:
        put(store, cell.evidence, rows_of(plan, cell.evidence, "1100"))
    labels = [c["label"] for c in shown(plan, store)["contrasts"] if c["kind"] == "interaction"]
    pairs = {label.split(": ")[1] for label in labels}
    assert pairs == {"flow − oat", "flow − fast", "flow − regression"}


def test_a_hybrid_does_not_fall_through_its_code(tmp_path):
    plan = make_plan(make_study(factors__action=["oat", "oat-hybrid"]))
    store = Store(tmp_path)
    runs = [run for reference in plan.references for run in reference.runs.values()]
    for recipe in (*(c.evidence for c in plan.cells), *runs):
        put(store, recipe, rows_of(plan, recipe, "1100"))
    falls = {w["action"]: [v["name"] for v in w["levels"]] for w in shown(plan, store)["waterfalls"]}
    assert "expert-coded" in falls["oat"]
    assert "expert-coded" not in falls["oat-hybrid"]
    assert "expert-chunked" in falls["oat-hybrid"]
