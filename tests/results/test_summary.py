"""From hand-made episode rows to the summary: every number is worked out by hand beside the test."""

import copy
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import yaml

from compression_gap.cli import main as cli
from compression_gap.errors import UserError
from compression_gap.results.evidence import groups, read_rows, strata, success_matrix
from compression_gap.results.locate import of_study
from compression_gap.results.records.bits import Located
from compression_gap.results.records.json import as_json
from compression_gap.results.summary import fixed_fits, summarise
from compression_gap.rollouts.run import EPISODE_SCHEMA
from compression_gap.statistics import intervals as statistics
from compression_gap.store.store import Store
from compression_gap.study.file import parse_study
from compression_gap.study.plan import make_plan

STUDY = {
    "name": "hand",
    "suite": "channel",
    "cameras": {"image_size": 16},
    "factors": {"encoder": ["retina-4"], "action": ["diffusion", "oat"], "seed": [0, 1], "demos": [10]},
    "rollout": {"execute": 16, "episodes_per_task": 4},
}

# Success of the four initial states, for seeds 0 and 1.
OUTCOMES = {
    ("diffusion", "blind"): ["1000", "0000"],  # 1/8
    ("diffusion", "retina-4"): ["1100", "1000"],  # 3/8
    ("diffusion", "oracle"): ["1111", "1110"],  # 7/8
    ("oat", "blind"): ["0000", "0100"],  # 1/8
    ("oat", "retina-4"): ["1000", "0100"],  # 2/8
    ("oat", "oracle"): ["1010", "0001"],  # 3/8
}
REFERENCES = {"expert": "1111", "expert-chunked": "1101", "expert-coded": "1001"}  # 1, 3/4, 1/2


def make_study(**changes):
    data = copy.deepcopy(STUDY)
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            data[section][key] = value
        else:
            data[section] = value
    return parse_study(yaml.safe_dump(data), "hand")


def row(plan, recipe, task, state, repeat, success, **changes):
    made = {
        "actor": recipe.key,
        "protocol": plan.protocol.hash,
        "task": task,
        "initial_state": state,
        "repeat": repeat,
        "success": bool(int(success)),
        "length": 16,
        "decisions": 2,
        "decode_failures": 0,
    }
    return {**made, **changes}


def rows_of(plan, recipe, outcomes):
    return [
        row(plan, recipe, *episode, success)
        for episode, success in zip(plan.protocol.episodes(), outcomes, strict=True)
    ]


def shown(plan, store):
    """The summary as programs read it."""
    return as_json(summarise(plan, store))


def put(store, recipe, rows):
    with store.create(recipe.recipe) as folder:
        parquet.write_table(pa.Table.from_pylist(rows, schema=EPISODE_SCHEMA), folder / "episodes.parquet")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A study whose episodes are those above."""
    plan, store = make_plan(make_study()), Store(tmp_path_factory.mktemp("measured"))
    for cell in plan.cells:
        outcomes = OUTCOMES[cell.action, cell.encoder][cell.seed]
        put(store, cell.evidence, rows_of(plan, cell.evidence, outcomes))
    for reference in plan.references:
        for run in reference.runs.values():
            put(store, run, rows_of(plan, run, REFERENCES[reference.actor]))
    return plan, store


@pytest.fixture(scope="module")
def summary(measured):
    return shown(*measured)


def close(value):
    return pytest.approx(value, abs=1e-12)


# Rows


@pytest.fixture
def one_cell(tmp_path):
    plan, store = make_plan(make_study()), Store(tmp_path / "store")
    cell = plan.cells[0]
    return plan, store, cell.evidence, rows_of(plan, cell.evidence, "1010")


def test_rows_become_success_in_the_protocol_s_order(one_cell):
    plan, store, recipe, rows = one_cell
    put(store, recipe, rows[::-1])
    assert success_matrix(plan, read_rows(plan, store, recipe)).tolist() == [1, 0, 1, 0]


def test_an_episode_that_is_there_twice_is_refused(one_cell):
    plan, store, recipe, rows = one_cell
    put(store, recipe, [*rows, rows[2]])
    state = plan.protocol.first_initial_state + 2
    with pytest.raises(UserError) as caught:
        groups(plan, store)
    assert str(caught.value).startswith(f"two rows for reach, initial state {state}, repeat 0: ")


def test_rows_of_another_protocol_are_refused(one_cell):
    plan, store, recipe, rows = one_cell
    rows[1]["protocol"] = "0123456789"
    put(store, recipe, rows)
    with pytest.raises(UserError) as caught:
        groups(plan, store)
    assert f"episodes {recipe.key} were measured under another protocol than {plan.protocol.hash}" in str(
        caught.value
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda rows: rows[:-1],
        lambda rows: rows[1:],
        lambda rows: [*rows, {**rows[0], "initial_state": 5}],
        lambda rows: [*rows[:-1], {**rows[-1], "task": "fly"}],
        lambda rows: [*rows, {**rows[0], "repeat": 1}],
    ],
    ids=["last missing", "first missing", "a state too many", "another task", "a repeat too many"],
)
def test_rows_that_are_not_the_protocol_s_are_refused(one_cell, spoil):
    plan, store, recipe, rows = one_cell
    put(store, recipe, spoil(rows))
    with pytest.raises(UserError, match="the episode rows are not those of the protocol; run the study"):
        groups(plan, store)


def test_no_rows_at_all_are_refused(one_cell):
    plan, store, recipe, _ = one_cell
    put(store, recipe, [])
    with pytest.raises(UserError, match="episode"):
        groups(plan, store)


def test_repeats_are_averaged_within_their_state(tmp_path):
    plan, store = make_plan(make_study(rollout__repeats=2)), Store(tmp_path)
    recipe = plan.cells[0].evidence
    put(store, recipe, rows_of(plan, recipe, "11" + "10" + "01" + "00"))
    assert success_matrix(plan, read_rows(plan, store, recipe)).tolist() == [1, 0.5, 0.5, 0]


def test_states_belong_to_their_tasks(tmp_path):
    plan, store = make_plan(make_study(suite="metaworld/push,hammer")), Store(tmp_path)
    assert strata(plan).tolist() == [0] * 4 + [1] * 4
    for cell in plan.cells[:2]:
        put(store, cell.evidence, rows_of(plan, cell.evidence, ["11110000", "11000010"][cell.seed]))
    cell = shown(plan, store)["cells"][0]
    assert cell["rate"]["value"] == close((8 - 2 + 1) / 16)
    assert [(t["task"], t["value"]) for t in cell["per_task"]] == [
        ("push-v3", close(6 / 8)),
        ("hammer-v3", close(1 / 8)),
    ]
    assert cell["per_seed"] == [close(4 / 8), close(3 / 8)]


def test_undecodable_emissions_are_a_share_of_decisions(one_cell):
    plan, store, recipe, rows = one_cell
    rows[0]["decode_failures"], rows[3]["decode_failures"] = 2, 1
    put(store, recipe, rows)
    assert groups(plan, store)[0].decode_failures == close(3 / 8)


# The summary


def test_rates_are_the_shares_of_successes(summary):
    assert len(summary["cells"]) == len(OUTCOMES)
    for cell in summary["cells"]:
        outcomes = OUTCOMES[cell["action"], cell["encoder"]]
        assert cell["label"] == f"{cell['action']} · {cell['encoder']}"
        assert cell["rate"]["value"] == close(sum(o.count("1") for o in outcomes) / 8)
        assert cell["per_seed"] == [close(o.count("1") / 4) for o in outcomes]
        assert 0 <= cell["rate"]["low"] <= cell["rate"]["value"] <= cell["rate"]["high"] <= 1
        assert (cell["seeds"], cell["episodes"], cell["failures"]) == ([0, 1], 4, [])


def test_references_have_wilson_intervals(summary):
    by_actor = {r["actor"]: r["rate"] for r in summary["references"]}
    assert {a: r["value"] for a, r in by_actor.items()} == {
        "expert": 1,
        "expert-chunked": 0.75,
        "expert-coded": 0.5,
    }
    z2 = 1.959963984540054**2  # Wilson, 4 of 4: low = n / (n + z²)
    assert by_actor["expert"]["low"] == pytest.approx(4 / (4 + z2), rel=1e-9)
    assert by_actor["expert"]["high"] == 1


def test_the_reference_of_a_code_has_a_run_for_each_fitted_tokenizer(tmp_path):
    """One tokenizer brings the expert to 4 of 4, the other to 1 of 4: the interval holds their spread."""
    plan, store = make_plan(make_study()), Store(tmp_path)
    (reference,) = [r for r in plan.references if r.actor == "expert-coded"]
    assert list(reference.runs) == [0, 1]
    for run, outcomes in zip(reference.runs.values(), ("1111", "1000"), strict=True):
        put(store, run, rows_of(plan, run, outcomes))
    (found,) = shown(plan, store)["references"]
    expected = statistics.rate_interval([[1, 1, 1, 1], [1, 0, 0, 0]], [0] * 4)
    assert (found["fitted_seeds"], found["rate"]["value"]) == ([0, 1], close(5 / 8))
    assert (found["rate"]["low"], found["rate"]["high"]) == (close(expected.low), close(expected.high))
    one = statistics.rate_interval([[1, 1, 1, 1]], [0] * 4)
    assert found["rate"]["high"] - found["rate"]["low"] > one.high - one.low


def test_what_is_fitted_once_is_said(measured, summary, capsys):
    from compression_gap.cli.terminal import study_tables
    from compression_gap.report.page import render_page

    assert summary["fixed"] == []
    one = make_study(factors__tokenizer_seed=[3])
    said = fixed_fits(one)
    assert said == ["One fitted tokenizer for all training seeds: its luck is in no interval."]
    record = replace(summarise(*measured), fixed=said)
    assert f"fitted once</span> {said[0]}" in render_page(record)
    capsys.readouterr()
    study_tables(record)
    assert said[0] in " ".join(capsys.readouterr().out.split())
    rows = make_study(factors__tokenizer_seed=[0, 1])
    assert fixed_fits(rows)[0].startswith("One fitted tokenizer in each row")
    assert fixed_fits(make_study(factors__tokenizer_seed=[3], factors__action=["diffusion", "fast"])) == []
    pose = make_study(factors__encoder=["pose-300"], factors__encoder_seed=2)
    assert fixed_fits(pose) == [
        "One pretrained encoder of each name for all training seeds (seed 2): its luck is in no interval."
    ]


def test_contrasts_are_differences_of_rates(summary):
    values = {c["label"]: c["value"] for c in summary["contrasts"]}
    expected = {
        "Δ_enc retina-4 − blind · diffusion": 2 / 8,
        "Δ_enc oracle − retina-4 · diffusion": 4 / 8,
        "Δ_enc oracle − blind · diffusion": 6 / 8,
        "Δ_enc retina-4 − blind · oat": 1 / 8,
        "Δ_enc oracle − retina-4 · oat": 1 / 8,
        "Δ_enc oracle − blind · oat": 2 / 8,
        "Δ_enc(retina-4 − blind): diffusion − oat": 1 / 8,
        "Δ_enc(oracle − retina-4): diffusion − oat": 3 / 8,
        "Δ_enc(oracle − blind): diffusion − oat": 4 / 8,
    }
    assert values == {k: close(v) for k, v in expected.items()}
    for c in summary["contrasts"]:
        assert c["low"] <= c["value"] <= c["high"]
        assert (c["seeds"], c["states"]) == (2, 4)


def test_holm_is_over_all_contrasts(summary):
    rows = sorted(summary["contrasts"], key=lambda c: c["p"])
    m, worst = len(rows), 0.0
    for i, c in enumerate(rows):
        worst = max(worst, min(1.0, (m - i) * c["p"]))
        assert c["p_holm"] == pytest.approx(worst, abs=1e-12)


def test_interactions_carry_log_odds(summary):
    kinds = [c["kind"] for c in summary["contrasts"]]
    assert kinds == ["delta_enc"] * 6 + ["interaction"] * 3
    for c in summary["contrasts"][6:]:
        assert c["log_odds"]["low"] <= c["log_odds"]["value"] <= c["log_odds"]["high"]
        assert np.sign(c["log_odds"]["value"]) == np.sign(c["value"])


def test_waterfalls_go_from_the_expert_to_the_blind_policy(summary):
    falls = {w["label"]: w for w in summary["waterfalls"]}
    assert set(falls) == {"diffusion · retina-4", "oat · retina-4"}
    levels = {name: [(v["name"], v["value"]) for v in w["levels"]] for name, w in falls.items()}
    experts = [("expert", 1.0), ("expert-chunked", 0.75), ("expert-coded", 0.5)]
    assert levels["oat · retina-4"] == [
        *experts,
        ("oracle policy", close(3 / 8)),
        ("retina-4 policy", close(2 / 8)),
        ("blind policy", close(1 / 8)),
    ]
    assert levels["diffusion · retina-4"] == [
        *experts[:2],  # continuous actions pass through no code
        ("oracle policy", close(7 / 8)),
        ("retina-4 policy", close(3 / 8)),
        ("blind policy", close(1 / 8)),
    ]
    steps = [(s["names"], s["to"], s["value"]) for s in falls["oat · retina-4"]["steps"]]
    assert steps == [
        ("horizon", "expert-chunked", close(-1 / 4)),
        ("code", "expert-coded", close(-1 / 4)),
        ("policy", "oracle policy", close(-1 / 8)),
        ("encoder", "retina-4 policy", close(-1 / 8)),
        ("vision", "blind policy", close(-1 / 8)),
    ]
    # two seeds of each policy: known, also in the step from the expert's one run
    assert not any(s["seed_variance_unknown"] for w in falls.values() for s in w["steps"])
    assert [s["seeds"] for s in falls["oat · retina-4"]["steps"]] == [
        1,
        2,
        2,
        2,
        2,
    ]  # a code fitted for each training seed
    gain = falls["diffusion · retina-4"]["steps"][1]
    assert (gain["names"], gain["value"]) == ("policy", close(1 / 8))  # a later level may lie higher
    for w in falls.values():
        ends = w["levels"][0]["value"] + sum(s["value"] for s in w["steps"])
        assert ends == close(w["levels"][-1]["value"])
        assert [s["to"] for s in w["steps"]] == [b["name"] for _, b in pairwise(w["levels"])]


def test_verdicts_relax_what_the_grid_allows(summary):
    gains = {
        v["label"]: {g["stage"]: g["contrast"]["value"] for g in v["gains"]} for v in summary["verdicts"]
    }
    assert gains == {
        "diffusion · retina-4": {"encoder": close(4 / 8)},
        "oat · retina-4": {"encoder": close(1 / 8), "code": close(1 / 8)},
    }
    oat = summary["verdicts"][1]
    assert oat["joint"]["value"] == close(7 / 8 - 2 / 8)
    assert len(summary["headline"]) == 2
    assert all("retina-4" in sentence for sentence in summary["headline"])


# The oracle fails where retina-4 succeeds, at every one of 12 states and both seeds, under diffusion alone.
BELOW = {("diffusion", "oracle"): "0" * 12, ("diffusion", "retina-4"): "1" * 12}


@pytest.fixture(scope="module")
def below(tmp_path_factory):
    plan = make_plan(make_study(rollout__episodes_per_task=12))
    store = Store(tmp_path_factory.mktemp("below"))
    for cell in plan.cells:
        outcomes = BELOW.get((cell.action, cell.encoder), "101010101010")
        put(store, cell.evidence, rows_of(plan, cell.evidence, outcomes))
    for reference in plan.references:
        for run in reference.runs.values():
            put(store, run, rows_of(plan, run, "1" * 12))
    return summarise(plan, store)


def test_an_oracle_below_the_cell_that_it_should_bound_gives_no_waterfall_and_no_gain(below):
    below = as_json(below)
    (refused,) = below["refusals"]
    assert (refused["label"], refused["reference"]) == ("diffusion · retina-4", "oracle policy")
    assert refused["contrast"]["value"] == close(-1)
    c = refused["contrast"]
    assert refused["sentence"] == (
        "no waterfall and no gain of the encoder is drawn for diffusion · retina-4 (100 %): the oracle policy (0 %) lies "
        f"100 points [{-100 * c['high']:.0f}, {-100 * c['low']:.0f}] below it and bounds nothing; train the oracle policy "
        "longer (training.steps) and judge again."
    )
    assert [w["label"] for w in below["waterfalls"]] == ["oat · retina-4"]
    verdicts = {v["label"]: v for v in below["verdicts"]}
    assert verdicts["diffusion · retina-4"]["gains"] == []
    assert verdicts["diffusion · retina-4"]["sentence"] == refused["sentence"]
    assert verdicts["diffusion · retina-4"]["stage"] is None
    # under oat the oracle is level with the cell: nothing is refused
    assert [g["stage"] for g in verdicts["oat · retina-4"]["gains"]] == ["encoder", "code"]
    assert "waterfall" not in verdicts["oat · retina-4"]["sentence"]


def test_the_refusal_stands_on_the_page_in_the_terminal_and_in_locate(below, capsys):
    from compression_gap.cli.terminal import study_tables
    from compression_gap.cli.terminal_bits import locate_list
    from compression_gap.report.page import render_page

    (refused,) = below.found.refusals
    sentence = refused.sentence[1:]
    page = " ".join(render_page(below).split())
    assert f"not drawn</span> N{sentence}" in page
    capsys.readouterr()
    study_tables(below)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(sentence) == 1
    found = of_study(below)
    assert {f.label: f.next for f in found}["diffusion · retina-4"] == refused.next
    locate_list(Located(success=found, bits=[]))
    assert sentence in " ".join(capsys.readouterr().out.split())


def test_another_stage_s_gain_is_given_beside_a_refused_oracle(tmp_path):
    """Under oat the oracle is refused; replacing the code still gains, and the sentence says both."""
    plan, store = make_plan(make_study(rollout__episodes_per_task=12, references=False)), Store(tmp_path)
    of = {
        ("oat", "oracle"): "0" * 12,
        ("oat", "retina-4"): "1" * 8 + "0" * 4,
        ("diffusion", "retina-4"): "1" * 12,
    }
    for cell in plan.cells:
        put(store, cell.evidence, rows_of(plan, cell.evidence, of.get((cell.action, cell.encoder), "1" * 12)))
    verdict = shown(plan, store)["verdicts"][1]
    assert [g["stage"] for g in verdict["gains"]] == ["code"]
    assert verdict["joint"] is None
    assert verdict["gains"][0]["contrast"]["value"] == close(4 / 12)
    assert "No waterfall and no gain of the encoder is drawn for oat · retina-4" in verdict["sentence"]


def test_an_expert_below_a_policy_gives_no_waterfall_but_the_gain(tmp_path):
    plan, store = make_plan(make_study(rollout__episodes_per_task=12)), Store(tmp_path)
    for cell in plan.cells:
        put(store, cell.evidence, rows_of(plan, cell.evidence, "1" * 12))
    for reference in plan.references:
        for run in reference.runs.values():
            put(store, run, rows_of(plan, run, ("1" if reference.code is None else "0") * 12))
    found = shown(plan, store)
    assert [(r["label"], r["reference"]) for r in found["refusals"]] == [("oat · retina-4", "expert-coded")]
    assert "fit it longer (tokenizer.steps)" in found["refusals"][0]["sentence"]
    assert [w["label"] for w in found["waterfalls"]] == ["diffusion · retina-4"]
    assert [g["stage"] for g in found["verdicts"][1]["gains"]] == ["encoder", "code"]


def test_the_trend_along_the_ladder_is_page_s(summary):
    assert [(t["label"], t["encoders"]) for t in summary["trends"]] == [
        ("diffusion", ["blind", "retina-4", "oracle"]),
        ("oat", ["blind", "retina-4", "oracle"]),
    ]


def test_the_summary_is_json_and_the_same_every_time(measured):
    first = json.dumps(shown(*measured), sort_keys=True, allow_nan=False)
    assert json.dumps(shown(*measured), sort_keys=True, allow_nan=False) == first


def test_labels_tell_all_rows_apart(tmp_path):
    """Two codebooks, two sizes, two numbers of demonstrations: no two rows may bear one name."""
    study = make_study(
        factors__codebook=[[8, 5, 5, 5], [8, 8]],
        factors__size=["xs", "S"],
        factors__demos=[10, 20],
        factors__tokenizer_seed=[0, 1],
        factors__seed=[0],
    )
    plan, store = make_plan(study), Store(tmp_path)
    for cell in plan.cells:
        put(store, cell.evidence, rows_of(plan, cell.evidence, OUTCOMES[cell.action, cell.encoder][0]))
    for reference in plan.references:
        for run in reference.runs.values():
            put(store, run, rows_of(plan, run, REFERENCES[reference.actor]))
    whole = shown(plan, store)
    for part in ("cells", "references", "contrasts", "trends", "waterfalls", "verdicts"):
        labels = [row["label"] for row in whole[part]]
        assert len(labels) > 1
        assert sorted({x for x in labels if labels.count(x) > 1}) == [], part
    falls = {w["label"]: [v["name"] for v in w["levels"]] for w in whole["waterfalls"]}
    coded = [names.count("expert-coded") for names in falls.values()]
    assert set(coded) == {0, 1}  # each through its own code


def test_a_study_that_is_half_done_says_what_is_missing(measured, tmp_path):
    plan, _ = measured
    half = Store(tmp_path / "half")
    for cell in plan.cells:
        if cell.encoder != "oracle" and cell.seed == 0:
            outcomes = OUTCOMES[cell.action, cell.encoder][0]
            put(half, cell.evidence, rows_of(plan, cell.evidence, outcomes))
    found = shown(plan, half)
    rates = {c["label"]: c["rate"] and c["rate"]["value"] for c in found["cells"]}
    assert rates["oat · oracle"] is None
    assert rates["diffusion · retina-4"] == close(2 / 4)
    assert {c["label"] for c in found["contrasts"] if c["kind"] == "delta_enc"} == {
        "Δ_enc retina-4 − blind · diffusion",
        "Δ_enc retina-4 − blind · oat",
    }
    assert all(c["seed_variance_unknown"] for c in found["contrasts"])


def test_no_results_are_a_sentence_with_exit_code_2(tmp_path, capsys):
    plan = make_plan(make_study())
    with pytest.raises(UserError, match="the study 'hand' has no results yet; run it first: cgap study run"):
        shown(plan, Store(tmp_path / "empty"))
    file = tmp_path / "hand.yaml"
    file.write_text(yaml.safe_dump(STUDY))
    assert cli.main(["report", str(file), "--store", str(tmp_path / "empty")]) == 2
    assert capsys.readouterr().err == (
        "cgap: the study 'hand' has no results yet; run it first: cgap study run\n"
    )
