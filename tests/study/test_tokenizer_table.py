"""The comparison of tokenizers: its graph, and its numbers against the artefacts that they come from."""

import json

import numpy as np
import pytest

from compression_gap.artifacts.demonstrations import found_demos, open_demos
from compression_gap.demos import DemoSet, Normaliser, make_windows
from compression_gap.errors import UserError
from compression_gap.results.tokenizer_table import read_table
from compression_gap.store.engine import missing_steps
from compression_gap.store.store import Store
from compression_gap.study.file import Tokenizer, parse_study
from compression_gap.study.plan import make_plan
from compression_gap.study.tokenizer_table import TableSpec, plan_table
from compression_gap.tokenizers import load_tokenizer


def sets(store):
    folders = sorted((store / "demos").iterdir())
    return open_demos(folders)[1]


def by_label(found, seed=None):
    return {r["label"]: r for r in found["rows"] if r["tokenizer_seed"] in (None, seed)}


def held_out(store):
    """Normalised held-out chunks and their mask, worked out anew."""
    (folder,) = (store / "demos").iterdir()
    demos = DemoSet.load(folder)
    train = np.concatenate([demos.actions[e.start : e.start + e.length] for e in demos.split("train")])
    windows = make_windows([demos], demos.tasks, 16, 1, "test")
    return Normaliser.fit(train).normalise(demos.actions)[windows.actions], windows.valid


def test_rows_are_codes_seeds_and_prefixes(compared):
    _, found = compared
    assert [(r["label"], r["tokenizer_seed"], r["prefix"]) for r in found["rows"]] == [
        ("bins", None, None),
        ("fast", None, None),
        *((label, seed, prefix) for seed in (0, 1) for label, prefix in (
            ("oat 1000, first 1", 1), ("oat 1000, first 2", 2), ("oat 1000, first 4", 4), ("oat 1000", None),
        )),
    ]  # fmt: skip
    assert all((r["health"] is None) == (r["prefix"] is not None) for r in found["rows"])


def test_nominal_bits(compared):
    rows = by_label(compared[1], 1)
    per_token = np.log2(1000)
    assert rows["bins"]["nominal_bits"] == 2 * 16 * 8
    assert [rows[f"oat 1000, first {k}"]["nominal_bits"] for k in (1, 2, 4)] == [
        pytest.approx(k * per_token) for k in (1, 2, 4)
    ]
    assert rows["oat 1000"]["nominal_bits"] == pytest.approx(8 * per_token)


def test_distortion_is_that_of_the_saved_tokenizers(compared):
    store, found = compared
    chunks, valid = held_out(store)
    assert found["chunks"] == len(chunks)
    checked = 0
    for folder in (store / "tokenizer").iterdir():
        tokenizer = load_tokenizer(folder)
        seed = json.loads((folder / "artifact.json").read_text())["spec"]["fitting"].get("seed")
        error = (tokenizer.decode(tokenizer.encode(chunks)).chunk - chunks)[valid] ** 2
        label = "oat 1000" if tokenizer.name == "oat" else tokenizer.name
        row = next(r for r in found["rows"] if (r["label"], r["tokenizer_seed"]) == (label, seed))
        assert row["distortion"] == pytest.approx(error.mean(), rel=1e-4)
        assert row["health"]["distortion_low"] <= row["distortion"] <= row["health"]["distortion_high"]
        checked += 1
    assert checked == 4


def test_capacity_holds_what_is_used(compared):
    """A barely trained prior costs more than the best one, and never less than the counts' share of nothing."""
    for row in compared[1]["rows"]:
        if row["health"] and row["label"] != "fast":
            assert 0 <= row["health"]["position_bits"] <= row["health"]["capacity_bits"] + 1e-9
            assert row["health"]["used_bits"] > 0


def test_rollouts_are_counted_with_intervals(compared):
    _, found = compared
    assert found["references"]["expert-chunked"]["value"] == 1
    assert found["references"]["expert-chunked"]["episodes"] == 3
    replay = found["references"]["replay"]
    assert replay["value"] == 1
    assert replay["episodes"] == found["episodes"]  # the held-out demonstrations
    for row in found["rows"]:
        for kind in ("expert_coded", "replay"):
            r = row[kind]
            assert r["low"] <= r["value"] <= r["high"]
            assert set(r["per_task"]) == {"reach"}


def test_folders_of_demonstrations_give_the_same_graph(compared):
    store, _ = compared
    spec = TableSpec(
        ("bins", "fast", "oat"),
        seeds=(0, 1),
        section=Tokenizer(steps=6, batch_size=8),
        prior_steps=4,
        episodes=3,
    )
    plan = plan_table(spec, sets(store))
    assert missing_steps(plan, Store(store)) == []
    assert read_table(plan, Store(store)).rows[0].label == "bins"


def test_without_rollouts_nothing_is_simulated(compared):
    plan = plan_table(TableSpec(("bins",), episodes=0), sets(compared[0]))
    assert {s.kind for s in plan.steps.values()} == {"normaliser", "tokenizer", "tokens", "health"}
    assert plan.references == {}


def test_demonstrations_without_a_simulator_have_no_success_columns(compared):
    from compression_gap.store.store import Recipe

    (own,) = sets(compared[0])
    recorded = found_demos(Recipe("demos", {"source": "somewhere"}, {}, own.version))
    plan = plan_table(TableSpec(("bins",)), [recorded])
    assert plan.protocol is None
    assert [(r.coded, r.replay) for r in plan.rows] == [(None, None)]


def test_a_study_shares_its_tokenizers(compared):
    """The same demonstrations, horizon and section: one artefact."""
    store, _ = compared
    spec = TableSpec(("oat",), section=Tokenizer(steps=6, batch_size=8), episodes=0)
    tokenizer = next(s for s in plan_table(spec, sets(store)).steps.values() if s.kind == "tokenizer")
    study = make_plan(
        parse_study(
            "name: a\nsuite: channel\nfactors: {encoder: [blind], action: [oat], demos: [12]}\n"
            "tokenizer: {steps: 6, batch_size: 8}\n",
            "a",
        )
    )
    assert tokenizer.key in study.steps


def test_other_folders_are_refused(compared, tmp_path):
    store, _ = compared
    with pytest.raises(UserError, match="holds no demonstrations: name a suite, or folders STORE/demos/KEY"):
        open_demos([tmp_path])
    (tokenizer, *_) = (store / "tokenizer").iterdir()
    with pytest.raises(UserError, match="is a tokenizer, not demonstrations"):
        open_demos([tokenizer])
    (demos,) = (store / "demos").iterdir()
    copy = tmp_path / "other" / "demos" / demos.name
    copy.mkdir(parents=True)
    (copy / "artifact.json").write_text((demos / "artifact.json").read_text())
    with pytest.raises(UserError, match="lie in several stores"):
        open_demos([demos, copy])


def test_more_is_executed_than_a_chunk_has(compared):
    with pytest.raises(UserError, match="--execute 9 is longer than --horizon 8"):
        plan_table(TableSpec(("bins",), horizon=8, execute=9), sets(compared[0]))
