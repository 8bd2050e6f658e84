"""Studies that grow by seeds: which cells the next look needs, and what is said of them; outcomes drawn, not trained."""

import json
from collections import Counter

import numpy as np
import pytest
from test_summary import make_study, put, rows_of, shown

from compression_gap.errors import UserError
from compression_gap.report.page import render_page
from compression_gap.results.rounds import as_if_measured, measurement, next_plan, sequential
from compression_gap.results.summary import summarise
from compression_gap.store.outcome import failure_file
from compression_gap.store.store import Store
from compression_gap.study.plan import make_plan

SEEDS = [3, 1, 4, 0, 5, 9]
RATES = {"blind": 0.1, "retina-4": 0.3, "oracle": 0.9}


def study(question="bottleneck", **changes):
    until = {"question": question, **{k: changes.pop(k) for k in ("within",) if k in changes}}
    return make_study(
        until=until, factors__seed=SEEDS, rollout={"execute": 16, "episodes_per_task": 30}, **changes
    )


def grown(tmp_path, of, rates, skip=()):
    """The study after all its looks, with rows drawn at these rates; and how many cells each round built."""
    plan, store, built = make_plan(of), Store(tmp_path), []
    while True:
        step = next_plan(plan, store)
        missing = [
            c for c in step.cells if not store.has(c.evidence) and (c.action, c.encoder, c.seed) not in skip
        ]
        if not missing:
            return plan, store, built
        for cell in missing:
            luck = np.random.default_rng([plan.cells.index(cell), 1])
            outcomes = luck.random(30) < rates(cell)
            put(store, cell.evidence, rows_of(plan, cell.evidence, outcomes))
        built.append(len(missing))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The encoder is worth 60 points under both heads, and the code nothing."""
    return grown(tmp_path_factory.mktemp("grown"), study(references=False), lambda c: RATES[c.encoder])


def test_the_first_look_takes_two_seeds_of_all_and_the_next_ones_what_is_open(found):
    plan, store, built = found
    assert built[0] == 12
    assert sum(built) < len(plan.cells) == 36
    there = {(c.action, c.encoder, c.seed) for c in plan.cells if store.has(c.evidence)}
    assert {seed for _, encoder, seed in there if encoder == "blind"} == {3, 1}  # no question is about it
    assert not [c for c in next_plan(plan, store).cells if not store.has(c.evidence)]


def test_the_summary_tells_the_looks_and_the_verdict_is_theirs(found):
    plan, store, built = found
    read = shown(plan, store)
    told = read["sequential"]
    assert (told["question"], told["within"], told["measured"], told["most"]) == (
        "bottleneck",
        None,
        sum(built),
        36,
    )
    assert [q["ended"] for q in told["looked"]] == ["settled", "settled"]
    assert told["state"] == "of 2 questions 2 settled"
    for verdict, asked in zip(read["verdicts"], told["looked"], strict=True):
        assert (verdict["kind"], verdict["stage"]) == ("binds", "encoder")
        assert "the gains' intervals know of it" in verdict["sentence"]
        gain = verdict["gains"][0]["contrast"]
        assert {k: asked["contrasts"][0][k] for k in ("value", "low", "high", "p")} == {
            k: gain[k] for k in ("value", "low", "high", "p")
        }
    # the question is not that of Δ_enc: these are as without looks
    assert {c["method"][:8] for c in read["contrasts"]} == {"seed var"}


def test_the_page_has_a_section_about_them(found):
    page = render_page(summarise(*found[:2]))
    assert "<h2>Looks</h2>" in page
    assert "of 2 questions 2 settled" in page
    assert "95 % interval, adjusted" in page


def test_asked_for_upgrades_each_difference_stops_for_itself(tmp_path):
    plan, store, _ = grown(tmp_path, study("upgrade", references=False), lambda c: RATES[c.encoder])
    read = shown(plan, store)
    assert len(read["sequential"]["looked"]) == 6
    assert {c["method"][:8] for c in read["contrasts"] if c["kind"] == "delta_enc"} == {"adjusted"}
    oracle = next(q for q in read["sequential"]["looked"] if q["label"] == "Δ_enc oracle − blind · diffusion")
    assert set(oracle["seeds"].values()) == {2}


def test_asked_for_interactions_four_cells_grow_together(tmp_path):
    def rate(c):
        return 0.5 if c.action == "oat" else RATES[c.encoder]

    plan, store, _ = grown(tmp_path, study("interaction", references=False), rate)
    read = shown(plan, store)
    wide = next(q for q in read["sequential"]["looked"] if "oracle − blind" in q["label"])
    assert wide["ended"] == "settled"
    assert len(wide["seeds"]) == 4
    assert wide["contrasts"][0]["value"] == pytest.approx(0.8, abs=0.25)


def test_within_settles_what_is_known_well_enough(tmp_path):
    same = study("upgrade", references=False, within=25)
    plan, store, built = grown(tmp_path, same, lambda c: 0.5)
    assert sum(built) < 36
    assert {q["ended"] for q in shown(plan, store)["sequential"]["looked"]} == {"settled"}


def test_a_training_that_failed_keeps_its_questions_open_and_nothing_goes_on_for_them(tmp_path):
    lost = {("diffusion", "oracle", 1)}
    plan, store, _ = grown(tmp_path, study(references=False), lambda c: RATES[c.encoder], skip=lost)
    looked = {q["label"]: q for q in shown(plan, store)["sequential"]["looked"]}
    assert looked["diffusion · retina-4"]["ended"] == "open"
    assert looked["diffusion · retina-4"]["looks"] == 0
    assert looked["oat · retina-4"]["ended"] == "settled"


def test_without_until_nothing_is_said(tmp_path):
    plan = make_plan(make_study())
    assert sequential(measurement(plan, Store(tmp_path))) is None


def test_what_a_study_could_be_asked_is_known_before_it_runs(tmp_path):
    def asked(of, question):
        return as_if_measured(measurement(make_plan(of), Store(tmp_path))).asked(question)

    assert [a.label for a in asked(make_study(), "bottleneck")] == ["diffusion · retina-4", "oat · retina-4"]
    assert len(asked(make_study(), "interaction")) == 3
    alone = make_study(limits=False, factors__action=["diffusion"])
    assert asked(alone, "bottleneck") == asked(alone, "upgrade") == asked(alone, "interaction") == []


def test_recordings_answer_upgrades_alone(tmp_path):
    from compression_gap.results.chunk_error import ChunkErrors

    with pytest.raises(UserError, match="recordings answer 'upgrade'"):
        ChunkErrors.asked(None, "bottleneck")


def test_what_only_later_seeds_need_is_not_built_for_the_first_look(tmp_path):
    """Policies, their tokenizers and coded experts, and what the ledger measures of them."""
    plan = make_plan(study(ledger={}))
    first = next_plan(plan, Store(tmp_path))
    kinds = Counter(s.kind for s in first.steps.values())
    assert len(first.cells) == kinds["policy"] == 12
    assert kinds["tokenizer"] == 2
    assert {len(r.runs) for r in first.references} == {1, 2}
    assert len(first.ledger.delivered) == len(first.cells)
    assert Counter(s.kind for s in plan.steps.values())["tokenizer"] == len(SEEDS)
    needed = {i.key for s in first.steps.values() for i in s.inputs.values()}
    assert needed <= set(first.steps)


def test_the_next_seed_takes_the_place_of_a_training_that_diverged(tmp_path):
    of = study(references=False)
    plan, store = make_plan(of), Store(tmp_path)
    lost = next(c for c in plan.cells if (c.action, c.encoder, c.seed) == ("diffusion", "oracle", 1))
    record = failure_file(store, lost.policy)
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"kind": "diverged", "sentence": "it diverged", "step": lost.policy.label}))
    plan, store, _ = grown(tmp_path, of, lambda c: RATES[c.encoder], skip={("diffusion", "oracle", 1)})
    told = shown(plan, store)["sequential"]
    assert told["state"] == "of 2 questions 2 settled"
    seeds = {
        c.seed
        for c in plan.cells
        if (c.action, c.encoder) == ("diffusion", "oracle") and store.has(c.evidence)
    }
    assert seeds == set(SEEDS[:1] + SEEDS[2 : 1 + told["looked"][0]["seeds"]["diffusion · oracle"]])


def test_an_oracle_that_bounds_nothing_is_put_out_by_the_looks(tmp_path):
    rates = {"blind": 0.1, "retina-4": 0.9, "oracle": 0.1}
    plan, store, _ = grown(tmp_path, study(references=False), lambda c: rates[c.encoder])
    read = shown(plan, store)
    assert read["sequential"]["state"] == "of 2 questions 1 settled, 1 open, with every seed used"
    assert {v["kind"] for v in read["verdicts"]} == {"not-separated"}
    assert all("the oracle policy" in v["sentence"] for v in read["verdicts"])


def test_a_file_with_fewer_seeds_has_no_looks(tmp_path):
    plan = make_plan(make_study(until={}, factors__seed=[0]))
    store = Store(tmp_path)
    for cell in plan.cells:
        put(store, cell.evidence, rows_of(plan, cell.evidence, "1010"))
    assert "sequential" not in shown(plan, store)
