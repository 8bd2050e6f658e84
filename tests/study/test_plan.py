"""The plan: every artefact once, and keys that change when what they depend on changes, and only then."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from compression_gap.errors import UserError
from compression_gap.policies.registry import action_parts
from compression_gap.store.artifact import KINDS
from compression_gap.study.file import load_study, parse_study
from compression_gap.study.plan import make_plan

BASE = {
    "name": "base",
    "suite": "channel",
    "cameras": {"image_size": 16},
    "factors": {"encoder": ["retina-4"], "action": ["diffusion", "oat"], "seed": [0, 1], "demos": [60]},
    "training": {"steps": 100},
    "rollout": {"execute": 8, "episodes_per_task": 10},
}


def study(**changes):
    """The base study with ``section__key=value`` changed."""
    import yaml

    data = {k: dict(v) if isinstance(v, dict) else v for k, v in BASE.items()}
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            data.setdefault(section, {})[key] = value
        else:
            data[section] = value
    return parse_study(yaml.safe_dump(data), "test")


# Kinds of other graphs than the base study's: tables of tokenizers, ledgers, the calibration, text.
ELSEWHERE = {
    "acted",
    "growing",
    "policy-episodes",
    "policy-errors",
    "policy-film",
    "wide",
    "frames",
    "encoder",
    "text",
    "error",
    "health",
    "replay",
    "rates",
    "delivered",
    "known",
    "verdicts",
    "coverage",
    "film",
}


def plan(**changes):
    return make_plan(study(**changes))


def kinds(steps):
    return dict(Counter(s.kind for s in steps.values()))


def added(before, after):
    """How many steps of each kind are in ``after`` and not in ``before``."""
    return dict(Counter(s.kind for k, s in after.steps.items() if k not in before.steps))


def test_tiny_holds_every_artefact_once():
    tiny = make_plan(load_study(None, "tiny"))
    # blind, retina-4, oracle × diffusion, oat × two seeds, each with its tokenizer; expert, expert-chunked, expert-coded
    assert kinds(tiny.steps) == {
        "demos": 1,
        "normaliser": 1,
        "tokenizer": 2,
        "tokens": 2,
        "encoder": 1,  # the scales of the oracle's state
        "features": 3,
        "probe": 3,
        "policy": 12,
        "episodes": 16,
    }
    assert len(tiny.cells) == 12
    assert [r.actor for r in tiny.references] == ["expert-coded", "expert", "expert-chunked"]
    assert len({c.policy.key for c in tiny.cells}) == 12
    assert len({c.evidence.key for c in tiny.cells}) == 12


def test_steps_stand_after_what_they_need():
    steps = plan().steps
    order = {key: i for i, key in enumerate(steps)}
    for key, step in steps.items():
        assert key == step.key
        assert {r: i.key for r, i in step.inputs.items()} == dict(step.recipe.inputs)
        assert all(order[i.key] < order[key] for i in step.inputs.values())


def test_cells_share_demos_tokenizer_and_features():
    whole = plan()
    policies = [whole.steps[c.policy.key] for c in whole.cells]
    assert len({s.inputs["demos/0"].key for s in policies}) == 1
    assert len({s.inputs["tokenizer"].key for s in policies if "tokenizer" in s.inputs}) == 2  # one a seed
    for cell, step in zip(whole.cells, policies, strict=True):
        assert ("tokenizer" in step.inputs) == (cell.action == "oat")
        assert step.inputs["features/0"].spec == {"encoder": cell.encoder}


def test_a_trained_encoder_has_no_cached_features():
    whole = plan(factors__encoder=["resnet18"], limits=False, cameras__image_size=64)
    assert kinds(whole.steps).get("features") is None
    assert all("features/0" not in whole.steps[c.policy.key].inputs for c in whole.cells)


def test_a_suite_of_tasks_shares_demonstrations_with_each_single_task():
    two = plan(suite="metaworld/push,hammer")
    one = plan(suite="metaworld/push")
    assert kinds(two.steps)["demos"] == 2
    assert kinds(two.steps)["features"] == 6
    shared = {k for k, s in one.steps.items() if s.kind in ("demos", "features")} & set(two.steps)
    # All but the oracle's features: they have a block for each task of the study.
    assert sorted(one.steps[k].recipe.spec.get("encoder", "") for k in shared) == ["", "blind", "retina-4"]
    assert {k for k, s in one.steps.items() if s.kind == "policy"}.isdisjoint(two.steps)


# Keys change when, and only when, what they depend on changes


@pytest.mark.parametrize(
    ("change", "new"),
    [
        ({"factors__seed": [0, 1, 2]}, {"tokenizer": 1, "tokens": 1, "policy": 6, "episodes": 7}),
        ({"factors__encoder": ["retina-4", "retina-8"]}, {"features": 1, "probe": 1, "policy": 4, "episodes": 4}),
        ({"factors__size": ["xs", "S"]}, {"policy": 12, "episodes": 12}),
        (
            {"factors__codebook": [[8, 5, 5, 5], [8, 8]]},
            {"tokenizer": 2, "tokens": 2, "policy": 6, "episodes": 8},
        ),
        ({"factors__tokenizer_seed": [0]}, {"policy": 3, "episodes": 3}),  # of seed 1, with the tokenizer of seed 0
        ({"factors__tokenizer_seed": [0, 1]}, {"policy": 6, "episodes": 6}),  # seed 0 with 1, and 1 with 0
        ({"factors__tokenizer_seed": "training"}, {}),
        ({"factors__encoder_seed": 3}, {}),  # nothing is pretrained
        ({"rollout__execute": 4}, {"episodes": 16}),
        ({"rollout__episodes_per_task": 11}, {"episodes": 16}),
        ({"rollout__states": "tuning"}, {"episodes": 16}),
        ({"rollout__repeats": 2}, {"episodes": 16}),
        ({"training__steps": 101}, {"policy": 12, "episodes": 12}),
        ({"training__steps": {"diffusion": 100, "oat": 200}}, {"policy": 6, "episodes": 6}),
        ({"training__lr": 2e-3}, {"policy": 12, "episodes": 12}),
        ({"policy__temperature": 0.5}, {"policy": 6, "episodes": 6}),
        ({"policy__sampling_steps": 5}, {"policy": 6, "episodes": 6}),
        ({"tokenizer__steps": 7}, {"tokenizer": 2, "tokens": 2, "policy": 6, "episodes": 8}),
        (
            {"cameras__image_size": 32},
            {
                "demos": 1, "normaliser": 1, "encoder": 1, "tokenizer": 2, "tokens": 2, "features": 3, "probe": 3, "policy": 12,
                "episodes": 16,
            },
        ),
        ({"factors__seed": [1, 0]}, {}),
        ({"name": "other"}, {}),
        ({"factors__seed": [0]}, {}),
        ({"references": False}, {}),
        ({"limits": False}, {}),
        ({"training__lr": {"diffusion": 1e-3, "oat": 1e-3}}, {}),
    ],
    ids=lambda v: str(v),
)  # fmt: skip
def test_a_change_adds_what_depends_on_it_and_nothing_else(change, new):
    assert added(plan(), plan(**change)) == new


def test_more_demonstrations_are_another_branch():
    new = added(plan(), plan(factors__demos=[60, 30]))
    assert new == {
        "demos": 1,
        "normaliser": 1,
        "tokenizer": 2,
        "tokens": 2,
        "encoder": 1,
        "features": 3,
        "policy": 12,
        "episodes": 14,  # the plain experts need none
    }


@pytest.mark.parametrize(
    "kind", sorted({k for k, of in KINDS.items() if of.__module__.startswith("compression_gap.")} - ELSEWHERE)
)
def test_a_builder_s_version_changes_its_keys_and_those_downstream(monkeypatch, kind):
    before = plan()
    monkeypatch.setattr(KINDS[kind], "version", 99)
    after = plan()
    new = added(before, after)
    assert new[kind] == kinds(after.steps)[kind]
    changed = {k for k in after.steps if k not in before.steps}
    for key, step in after.steps.items():
        below = any(i.key in changed for i in step.inputs.values())
        assert (key in changed) == (below or step.kind == kind)


def test_the_plan_is_the_same_every_time():
    assert list(plan().steps) == list(plan().steps)


def test_a_program_of_another_simulator_version_makes_other_demonstrations(monkeypatch):
    from dataclasses import replace

    from compression_gap.sims.channel import Channel

    before = plan()
    info = Channel.describe(before.protocol.sim)
    newer = staticmethod(lambda spec: replace(info, versions={"channel": "2"}))
    monkeypatch.setattr(Channel, "describe", newer)
    assert set(plan().steps).isdisjoint(before.steps)


# The protocol


def test_the_protocol_is_what_the_study_says():
    protocol = plan(rollout__repeats=3).protocol
    assert (protocol.execute, protocol.episodes_per_task, protocol.repeats) == (8, 10, 3)
    assert protocol.step_limit == 16  # the channel's own
    assert plan(rollout__step_limit=9).protocol.step_limit == 9
    assert len(protocol.episodes()) == 30
    assert protocol.hash != plan().protocol.hash


def test_evaluation_states_and_tuning_states_do_not_meet():
    evaluation, tuning = plan().protocol, plan(rollout__states="tuning").protocol
    assert set(evaluation.initial_states).isdisjoint(tuning.initial_states)


# Errors


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"suite": "chanel"}, r"unknown simulator 'chanel' \(did you mean 'channel'\?\); known: channel"),
        ({"suite": "channel/fly"}, r"unknown suite or task 'channel/fly'.*; known: channel/reach"),
        ({"suite": "metaworld/pusch"}, r"unknown suite or task 'metaworld/pusch' \(did you mean 'metaworld/push"),
        ({"factors__encoder": ["oracel"]}, r"unknown encoder 'oracel' \(did you mean 'oracle'\?\); known: blind"),
        ({"factors__encoder": ["retina-x"]}, "encoder 'retina-x' needs a whole number of pixels, as in retina-16"),
        ({"factors__encoder": ["retina-0"]}, "encoder 'retina-0' needs a whole number of pixels"),
        ({"factors__encoder": ["retina-17"]}, r"encoder 'retina-17' is finer than the images \(16 px\)"),
        ({"factors__action": ["difusion"]}, r"unknown action 'difusion' \(did you mean 'diffusion'\?\); known: "),
        ({"rollout__execute": 17}, r"rollout\.execute \(17\) is longer than policy\.horizon \(16\)"),
        ({"cameras__names": ["corner9"]}, "unknown channel camera 'corner9'; known: channel"),
        ({"training__lr": {"oat": 1e-3}}, r"training\.lr has no entry for the action 'diffusion'; add one"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_a_sentence(change, sentence):
    with pytest.raises(UserError, match=sentence):
        plan(**change)


def test_planning_imports_no_torch():
    code = (
        "import sys\n"
        "from compression_gap.study.plan import make_plan\n"
        "from compression_gap.study.file import load_study\n"
        "print(len(make_plan(load_study(None, 'tiny')).steps))\n"
        "heavy = {'torch', 'mujoco', 'metaworld', 'matplotlib', 'diffusers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "41\n"


# Action representations, codes and the matched-head ablation


def test_every_action_representation_of_the_field_is_a_word():
    parts = {
        a: action_parts(a) for a in ("flow", "bins", "bins-quantile", "fast", "rvq", "quest", "oat-unordered")
    }
    assert parts["flow"] == ("flow", None)
    assert all(parts[a] == ("autoregressive", a) for a in parts if a != "flow")
    assert action_parts("oat-hybrid") == ("hybrid", "oat")
    assert action_parts("rvq-hybrid") == ("hybrid", "rvq")
    with pytest.raises(
        UserError, match=r"unknown action 'fats' \(did you mean 'fast'\?\); known: .*oat-hybrid"
    ):
        action_parts("fats")


def test_a_code_has_the_factors_that_apply_to_it():
    whole = plan(
        factors__action=["bins", "fast", "rvq", "quest"],
        factors__codebook=[[8, 5, 5, 5], [8, 8]],
        factors__tokenizer_seed=[0, 1],
        factors__seed=[0],
        factors__encoder=["blind"],
        limits=False,
    )
    codes = [c.code for c in whole.cells]
    count = {t: sum(c.tokenizer == t for c in codes) for t in ("bins", "fast", "rvq", "quest")}
    assert count == {"bins": 1, "fast": 1, "rvq": 2, "quest": 4}  # no codebook, no seed; seeds; both
    assert kinds(whole.steps)["tokenizer"] == 8
    assert all((c.codebook is None) == (c.tokenizer != "quest") for c in codes)
    assert all((c.seed is None) == (c.tokenizer in ("bins", "fast")) for c in codes)
    fast = next(s for s in whole.steps.values() if s.label == "tokenizer fast")
    assert fast.recipe.spec["fitting"] == {}
    assert fast.recipe.spec["options"] == {"vocabulary": 1024, "scale": 10.0}


def test_each_training_seed_has_a_tokenizer_of_its_own():
    whole = plan(factors__seed=[4, 7])
    for cell in (c for c in whole.cells if c.action == "oat"):
        step = whole.steps[cell.policy.key]
        assert step.inputs["tokenizer"].spec["fitting"]["seed"] == cell.seed
        assert step.inputs["tokens"].inputs["tokenizer"] == step.inputs["tokenizer"]
    (coded,) = [r for r in whole.references if r.actor == "expert-coded"]
    fitted = {
        s: whole.steps[run.key].inputs["tokenizer"].spec["fitting"]["seed"] for s, run in coded.runs.items()
    }
    assert fitted == {4: 4, 7: 7}
    assert len({c.levels for c in whole.cells}) == len(whole.cells) / 2  # seeds are replicates, not rows
    labels = {s.label for s in whole.steps.values() if s.kind == "tokenizer"}
    assert labels == {"tokenizer oat 1000, seed 4", "tokenizer oat 1000, seed 7"}


def test_a_fixed_tokenizer_serves_all_training_seeds():
    whole = plan(factors__seed=[4, 7], factors__tokenizer_seed=[0])
    assert kinds(whole.steps)["tokenizer"] == 1
    (coded,) = [r for r in whole.references if r.actor == "expert-coded"]
    assert list(coded.runs) == [0]


@pytest.mark.parametrize("action", ["fast", "bins", "bins-quantile"])
def test_what_is_fitted_without_a_seed_is_fitted_once(action):
    whole = plan(factors__action=[action], factors__seed=[0, 1, 2])
    assert kinds(whole.steps)["tokenizer"] == kinds(whole.steps)["tokens"] == 1
    (coded,) = [r for r in whole.references if r.actor == "expert-coded"]
    assert list(coded.runs) == [None]
    assert set(whole.steps) == set(
        plan(factors__action=[action], factors__seed=[0, 1, 2], factors__tokenizer_seed=[0]).steps
    )


def test_each_training_seed_has_a_pretrained_encoder_of_its_own():
    def seeds(whole):
        """The seed of the pretraining behind each cell, by training seed."""
        steps = [(c.seed, whole.steps[c.policy.key]) for c in whole.cells if c.encoder == "pose-20"]
        return {seed: step.inputs["encoder"].spec["pretraining"]["seed"] for seed, step in steps}

    base = {"factors__encoder": ["pose-20"], "factors__seed": [0, 5]}
    own, fixed = plan(**base), plan(**base, factors__encoder_seed=0)
    assert (seeds(own), seeds(fixed)) == ({0: 0, 5: 5}, {0: 0, 5: 0})
    assert kinds(own.steps)["encoder"] == 3  # and the scales of the oracle's state
    assert kinds(own.steps)["frames"] == kinds(fixed.steps)["frames"] == 2  # data: the same for all
    for cell in (c for c in own.cells if c.encoder == "pose-20"):
        inputs = own.steps[cell.policy.key].inputs
        assert inputs["features/0"].inputs["encoder"] == inputs["encoder"]
    assert kinds(own.steps)["probe"] == 3  # of the first seed's


def test_presets_of_the_published_protocol_keep_one_tokenizer():
    for name in ("factorial", "encoder-gradient", "codebook-size"):
        assert load_study(None, f"libero10/{name}-as-published").factors.tokenizer_seed == (0,)
        assert load_study(None, f"libero10/{name}-controlled").factors.tokenizer_seed == "training"


def test_an_option_of_one_tokenizer_changes_no_other():
    both = {"factors__action": ["bins", "fast"]}
    new = added(plan(**both), plan(**both, tokenizer__bins=64))
    assert new == {"tokenizer": 1, "tokens": 1, "policy": 6, "episodes": 7}


def test_the_controlled_swap_trains_two_policies_and_executes_four():
    before = plan(factors__action=["diffusion"])
    swapped = plan(factors__action=["diffusion"], swap={"head": ["diffusion"], "tokenizer": ["fast"]})
    assert added(before, swapped) == {
        "tokenizer": 1,
        "tokens": 1,
        "policy": 6,
        "episodes": 19,
    }  # 6 × 3, coded
    cells = [c for c in swapped.cells if (c.encoder, c.seed) == ("retina-4", 0)]
    assert [(c.trained_on, c.executed) for c in cells] == [
        ("chunk", "chunk"), ("chunk", "snapped"), ("coded", "chunk"), ("coded", "snapped"),
    ]  # fmt: skip
    plain, snapped, coded, both = cells
    assert plain.policy == snapped.policy != coded.policy == both.policy
    spec, other = plain.policy.spec, coded.policy.spec
    assert {k: v for k, v in spec.items() if k != "target"} == {
        k: v for k, v in other.items() if k != "target"
    }
    assert (spec["target"], other["target"]) == ("chunk", "coded")
    assert "tokenizer" not in swapped.steps[coded.policy.key].inputs
    assert "tokenizer" in swapped.steps[both.evidence.key].inputs
    assert both.representation == "diffusion with the code of fast"
    assert not plain.swapped


def test_the_swap_s_head_joins_the_actions():
    whole = plan(factors__action=["oat"], swap={"head": ["flow"], "tokenizer": ["oat"]})
    assert {c.action for c in whole.cells} == {"oat", "flow"}
    assert kinds(whole.steps)["tokenizer"] == 2  # one a seed, shared with the token policy


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"swap": {"head": ["oat"], "tokenizer": ["oat"]}}, "swap.head.0: 'oat' is no continuous head; known: diffusion"),
        ({"swap": {"head": ["flow"], "tokenizer": ["oats"]}}, "unknown tokenizer 'oats'"),
        ({"factors__action": ["quest"], "tokenizer__tokens": 3}, "quest halves the horizon until its tokens remain"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_at_once(change, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        plan(**change)


def test_a_codebook_for_each_position_says_how_many_tokens_there_are():
    made = plan(factors__action=["oat"], factors__codebook=[[[8, 5], [8, 5]], "fsq-1000"])
    options = {s.options["tokens"]: s.options["levels"] for s in made.steps.values() if s.kind == "tokenizer"}
    assert options == {2: [[8, 5], [8, 5]], 8: [[8, 5, 5, 5]]}
    assert {c.code.name for c in made.cells if c.code} == {"oat 2 × 40", "oat 1000"}


# How the task enters


def test_the_task_as_a_factor_adds_policies_and_one_table(text_checkpoint):
    before = plan()
    both = plan(
        factors__task=["embedding", "index", "text"], policy__text_encoder=f"folder:{text_checkpoint[0]}"
    )
    assert added(before, both) == {"text": 1, "policy": 24, "episodes": 24}
    assert set(before.steps) <= set(both.steps)  # keys of older policies hold
    by_task = {c.task: both.steps[c.policy.key] for c in both.cells}
    assert "task" not in by_task["embedding"].recipe.spec
    assert [s.recipe.spec["task"] for t, s in by_task.items() if t != "embedding"] == ["index", "text"]
    assert "text" not in by_task["index"].inputs
    table = by_task["text"].inputs["text"]
    assert table.spec["instructions"] == ["reach"]
    assert table.spec["pin"]["encoder"] == f"folder:{text_checkpoint[0]}"
    assert "task as text" in by_task["text"].label


def test_the_simulator_s_words_are_the_instructions(text_checkpoint, monkeypatch):
    from dataclasses import replace

    from compression_gap.sims.channel import Channel

    info = Channel.describe(plan().protocol.sim)
    told = staticmethod(lambda spec: replace(info, instructions={"reach": "reach the red block"}))
    monkeypatch.setattr(Channel, "describe", told)
    whole = plan(factors__task=["text"], policy__text_encoder=f"folder:{text_checkpoint[0]}")
    (text,) = [s.recipe for s in whole.steps.values() if s.kind == "text"]
    assert text.spec["instructions"] == ["reach the red block"]


def test_a_text_encoder_is_looked_for_only_where_it_is_needed():
    assert added(plan(), plan(policy__text_encoder="folder:/no/such")) == {}
    with pytest.raises(
        UserError, match=r"policy\.text_encoder: encoder 'folder:/no/such': /no/such holds no config"
    ):
        plan(factors__task=["text"], policy__text_encoder="folder:/no/such")
    with pytest.raises(UserError, match=r"'factors\.task\.0'.*'embedding', 'index' or 'text'"):
        plan(factors__task=["words"])


# As published: dropout of the tokenizer


def test_the_tokenizer_s_published_mode_is_one_of_policies_with_its_tokens():
    actions = {"factors__action": ["diffusion", "oat", "fast", "oat-hybrid"]}
    dropped = plan(**actions, tokenizer__dropout=0.1)
    new = added(plan(**actions), dropped)
    assert new == {"tokenizer": 2, "tokens": 2, "policy": 12, "episodes": 14}
    published = plan(**actions, tokenizer__dropout=0.1, tokenizer__mode="train-as-published")
    assert added(dropped, published) == {"policy": 6, "episodes": 6}
    modes = {
        c.action: published.steps[c.policy.key].recipe.spec.get("tokenizer_mode") for c in published.cells
    }
    assert modes == {"diffusion": None, "oat": "train-as-published", "fast": None, "oat-hybrid": None}


def test_the_offset_s_weight_is_one_of_hybrid_policies_and_left_out_at_its_default():
    actions = {"factors__action": ["diffusion", "oat", "oat-hybrid"]}
    weighed = plan(**actions, policy__offset_weight=3.0)
    assert added(plan(**actions), weighed) == {"policy": 6, "episodes": 6}
    weights = {
        c.action: weighed.steps[c.policy.key].recipe.spec["options"].get("offset_weight")
        for c in weighed.cells
    }
    assert weights == {"diffusion": None, "oat": None, "oat-hybrid": 3.0}
    assert plan(**actions, policy__offset_weight=1.0).steps.keys() == plan(**actions).steps.keys()


def test_without_dropout_the_published_mode_is_refused():
    with pytest.raises(
        UserError, match=r"'tokenizer'.*there is none: set 'dropout' \(0\.1 in the published code\)"
    ):
        plan(tokenizer__mode="train-as-published")


# Crops


def test_a_crop_changes_what_sees_another_image_and_nothing_else():
    base = {"factors__encoder": ["retina-4", "resnet18"], "cameras__image_size": 64}
    before = plan(**base)
    whole = plan(**base, cameras__crop="none")
    assert added(before, whole) == {"policy": 4, "episodes": 4}  # those of resnet18
    published = plan(**base, cameras__crop_share=0.59375)
    assert added(before, published) == {"policy": 4, "episodes": 4}
    same = plan(**base, cameras__crop="all")
    assert added(before, same) == {"features": 1, "probe": 1, "policy": 8, "episodes": 8}
    crops = {c.encoder: same.steps[c.policy.key].recipe.spec.get("crop") for c in same.cells}
    one = {"mode": "all", "share": 0.9}
    assert crops == {"blind": None, "retina-4": one, "resnet18": one, "oracle": None}
    assert added(before, plan(**base, cameras__crop="resnet-only", cameras__crop_share=0.9)) == {}
    with pytest.raises(UserError, match=r"'retina-60' is finer than the images \(58 px after cropping\)"):
        plan(factors__encoder=["retina-60"], cameras__image_size=64, cameras__crop="all")
