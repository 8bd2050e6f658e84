"""Success of several checkpoints of a training: the final one counts, or, marked as optimistic, the peak."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from compression_gap.api.card import policy_card
from compression_gap.errors import UserError
from compression_gap.policies import Policy
from compression_gap.report.page import render_page
from compression_gap.results.evidence import groups
from compression_gap.results.records.json import as_json
from compression_gap.results.summary import summarise
from compression_gap.rollouts.pools import close_pools
from compression_gap.rollouts.run import EPISODE_SCHEMA
from compression_gap.statistics.intervals import peak_optimism
from compression_gap.store.engine import InProcess, run_plan
from compression_gap.store.store import Store
from compression_gap.study.file import load_study, parse_study
from compression_gap.study.plan import make_plan

FILE = """\
name: peaks
suite: channel
cameras: {image_size: 16}
factors: {encoder: [oracle], action: [regression], seed: [0, 1], demos: [10]}
training: {steps: 30, batch_size: 8, lr: 3e-3, warmup: 2, validations: 4}
rollout: {execute: 16, episodes_per_task: 4, ROLLOUT}
references: false
limits: false
"""


def shown(plan, store):
    """The summary as programs read it."""
    return as_json(summarise(plan, store))


class Quiet:
    def started(self, step):
        pass

    def progress(self, step, done, total):
        pass

    def finished(self, step, seconds):
        pass

    def failed(self, step, record):
        pass


def plan(rollout="checkpoints: 3, select: peak"):
    return make_plan(parse_study(FILE.replace("ROLLOUT", rollout), "test"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The study with three checkpoints, run."""
    store = Store(tmp_path_factory.mktemp("peaks") / "store")
    outcome = run_plan(plan(), store, engine=InProcess(), watcher=Quiet())
    close_pools()
    assert not outcome.failures, outcome.failures
    return store


def test_checkpoints_are_evenly_spaced_and_the_last_is_the_policy():
    whole = plan()
    assert [whole.steps[c.policy.key].recipe.spec["checkpoints"] for c in whole.cells] == [[10, 20]] * 2
    cell = whole.cells[0]
    assert [step for step, _ in cell.checkpoints] == [10, 20]
    assert [e.spec.get("checkpoint") for _, e in cell.checkpoints] == [10, 20]
    assert "checkpoint" not in cell.evidence.spec
    assert {e.key for _, e in cell.checkpoints} <= {r.key for r in whole.wanted}
    study = parse_study(FILE.replace("ROLLOUT", "checkpoints: 4"), "test")
    assert study.rollout.earlier(30) == [8, 15, 22]


def test_at_the_default_nothing_is_another_key():
    default = plan("checkpoints: 1, select: final")
    before = make_plan(parse_study(FILE.replace(", ROLLOUT", ""), "test"))
    assert list(default.steps) == list(before.steps)
    assert all("checkpoints" not in c.policy.spec and not c.checkpoints for c in before.cells)
    several = plan("checkpoints: 3, select: final")
    assert set(several.steps) == set(plan().steps)  # what counts is decided when results are read


def test_each_checkpoint_is_a_policy_of_its_own(trained):
    folder = trained.open(plan().cells[0].policy)
    final = Policy.load(folder)
    early = [Policy.load(folder / "checkpoints" / s) for s in ("10", "20")]
    weights = [p.module.head.trunk.blocks[0].up.weight for p in (*early, final)]
    assert not any((a == b).all() for a, b in ((weights[0], weights[1]), (weights[1], weights[2])))
    assert [p.spec for p in early] == [final.spec] * 2


def written(store, whole, rates):
    """Replace the episodes of the first seed by rows with these successes, for (checkpoint …, final)."""
    cell = whole.cells[0]
    recipes = [*(e for _, e in cell.checkpoints), cell.evidence]
    changed = {}
    for recipe, wins in zip(recipes, rates, strict=True):
        if wins is None:
            continue
        rows = [
            {
                "actor": recipe.key, "protocol": whole.protocol.hash, "task": task, "initial_state": state,
                "repeat": repeat, "success": i < wins, "length": 5, "decisions": 2, "decode_failures": 0,
            }
            for i, (task, state, repeat) in enumerate(whole.protocol.episodes())
        ]  # fmt: skip
        with store.create(recipe.recipe) as out:
            parquet.write_table(pa.Table.from_pylist(rows, schema=EPISODE_SCHEMA), out / "episodes.parquet")
        changed[recipe.key] = wins
    return cell


@pytest.mark.parametrize(
    ("rates", "peak", "chosen", "final"),
    [
        ((1, 4, 2), 1.0, 20, 0.5),
        ((3, 1, 0), 0.75, 10, 0.0),
        ((2, 2, 1), 0.5, 20, 0.25),  # of equals the latest
        ((3, 3, 3), 0.75, 30, 0.75),
        ((0, 1, 4), 1.0, 30, 1.0),
        ((0, None, 4), None, None, 1.0),  # no peak of some of the evaluations
        ((0, 4, None), None, None, None),
    ],
)
def test_the_peak_and_the_final_checkpoint(tmp_path, rates, peak, chosen, final):
    store, whole = Store(tmp_path / "store"), plan()
    written(store, whole, rates)
    (group,) = groups(whole, store)
    assert (None if group.rows is None else group.rows.mean()) == peak
    assert group.chosen == (() if chosen is None else (chosen,))
    if peak is not None:
        np.testing.assert_array_equal(group.by_step, [np.array(rates) / 4])
    (group,) = groups(plan("checkpoints: 3"), store)
    assert (None if group.rows is None else group.rows.mean()) == final
    assert group.chosen == (() if final is None else (30,))


def test_the_report_says_peak_and_by_how_much_luck_lifts_it(tmp_path):
    store, whole = Store(tmp_path / "store"), plan()
    written(store, whole, (1, 3, 2))
    summary = shown(whole, store)
    assert summary["selection"] == {"checkpoints": 3, "mark": "peak of 3 (optimistic)"}
    (cell,) = summary["cells"]
    assert cell["rate"]["value"] == 0.75
    expected = peak_optimism(4, 3, 0.5)
    assert cell["selection"] == {
        "select": "peak",
        "steps": [10, 20, 30],
        "rates": [[0.25, 0.75, 0.5]],
        "chosen": [20],
        "final": 0.5,
        "optimism": expected,
    }
    assert expected == pytest.approx(2.8203125 / 4 - 0.5)  # E[max of three of Binomial(4, ½)] / 4 − ½
    page = render_page(summarise(whole, store))
    assert page.count("peak of 3 (optimistic)") == 3  # the header, the cell, the footer
    assert "+21 points by luck; final 50 %" in page
    plain = shown(plan("checkpoints: 3"), store)
    assert plain["selection"] is None
    assert plain["cells"][0]["rate"]["value"] == 0.5
    assert plain["cells"][0]["selection"]["rates"] == [[0.25, 0.75, 0.5]]
    assert "optimistic" not in render_page(summarise(plan("checkpoints: 3"), store))


def test_the_peak_of_what_was_run_is_the_best_row(trained):
    summary = shown(plan(), trained)
    (cell,) = summary["cells"]
    rates = np.array(cell["selection"]["rates"])
    assert rates.shape == (2, 3)
    assert cell["per_seed"] == pytest.approx(rates.max(1))


def test_a_policy_s_card_is_about_its_final_weights(trained, tmp_path):
    """Episodes of earlier checkpoints are no evaluations of the policy, and a cell's peak is called one."""
    whole = plan()
    file = tmp_path / "peaks.yaml"
    file.write_text(FILE.replace("ROLLOUT", "checkpoints: 3, select: peak"))
    card = policy_card(trained.path(whole.cells[0].policy), load_study(file, None))
    assert len(card.evaluations) == 1
    (own,) = [r for r in [shown(plan("checkpoints: 3"), trained)["cells"][0]]]
    assert card.evaluations[0].overall.value == pytest.approx(own["selection"]["rates"][0][-1])
    assert [c.cell for c in card.cells] == ["regression · oracle, peak of 3 (optimistic)"]


def test_what_cannot_be_selected_is_a_sentence():
    with pytest.raises(
        UserError, match=r"'rollout'.*'select: peak' is the best of several evaluations: set 'check"
    ):
        plan("select: peak")
    with pytest.raises(UserError, match=r"rollout\.checkpoints \(31\) is more than training\.steps \(30\)"):
        plan("checkpoints: 31")


def test_snapped_policies_have_checkpoints_too():
    text = FILE.replace("ROLLOUT", "checkpoints: 2") + "swap: {head: [regression], tokenizer: [bins]}\n"
    whole = make_plan(parse_study(text, "test"))
    snapped = [c for c in whole.cells if c.executed == "snapped"]
    assert snapped
    for cell in snapped:
        ((step, early),) = cell.checkpoints
        assert (step, early.spec["actor"], early.spec["checkpoint"]) == (15, "snapped", 15)
        assert replace(cell, checkpoints=()).levels == cell.levels
