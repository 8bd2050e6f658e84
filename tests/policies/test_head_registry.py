"""Action representations are named after their heads and tokenizers; the study file's options are the heads' own."""

import pytest

from compression_gap.errors import UserError
from compression_gap.policies.registry import HEADS, HeadEntry, action_name, action_parts, head_options
from compression_gap.registry import Option, check_option, merged
from compression_gap.study.file import Policy, Tokenizer
from compression_gap.tokenizers.registry import TOKENIZERS, tokenizer_options


def test_every_head_and_tokenizer_has_one_name_as_an_action():
    named = {action_name(head, None) for head, entry in HEADS.items() if entry.continuous}
    named |= {action_name(h, t) for h, entry in HEADS.items() if not entry.continuous for t in TOKENIZERS}
    assert len(named) == 3 + 2 * len(TOKENIZERS)
    for action in named:
        assert action_name(*action_parts(action)) == action


@pytest.mark.parametrize(
    "action", ["hybrid", "autoregressive", "oat-autoregressive", "oat-diffusion", "oat-", "-hybrid"]
)
def test_what_is_no_action_is_refused(action):
    with pytest.raises(UserError, match=f"unknown action '{action}'"):
        action_parts(action)


def test_a_token_head_of_another_package_goes_by_the_tokenizer_s_name_and_its_own(plug_in):
    plug_in("heads", "twice", HeadEntry("elsewhere:Twice", "both"))
    plug_in("heads", "alone", HeadEntry("elsewhere:Alone"))
    assert action_parts("oat-unordered-twice") == ("twice", "oat-unordered")
    assert action_parts("alone") == ("alone", None)
    with pytest.raises(UserError, match=r"known: alone, .*bins-twice"):
        action_parts("twice")


@pytest.mark.parametrize(("section", "options"), [(Policy, head_options()), (Tokenizer, tokenizer_options())])
def test_the_study_file_s_sections_are_the_registries_options(section, options):
    fields = section.model_fields
    assert {n: fields[n].default for n in options} == {n: o.default for n, o in options.items()}
    others = {"horizon", "n_obs_steps", "stride", "text_encoder", "mode", "steps", "batch_size", "lr"}
    assert not {*fields} - {*options} - others


def test_an_option_added_later_is_left_out_of_recipes_at_its_default():
    assert Policy().of_head("hybrid") == {"temperature": 1.0, "top_k": 10, "constrained": True}
    assert Policy(offset_weight=2.0).of_head("hybrid")["offset_weight"] == 2.0
    assert Policy(offset_weight=2.0).of_head("autoregressive").keys() == {
        "temperature",
        "top_k",
        "constrained",
    }
    assert Policy().of_head("regression") == {}


def test_options_that_contradict_each_other_are_refused():
    one, other = Option(int, 1), Option(int, 2)
    assert merged([{"depth": one}, {"depth": one, "width": other}]) == {"depth": one, "width": other}
    with pytest.raises(UserError, match="the option 'depth' is registered twice, and differently"):
        merged([{"depth": one}, {"depth": other}])


def test_an_option_s_value_is_of_its_type():
    known = {"depth": Option(int, 1)}
    check_option("head", "depth", 2, known)
    with pytest.raises(UserError, match=r"unknown option of a head 'deep' \(did you mean 'depth'\?\)"):
        check_option("head", "deep", 2, known)
    with pytest.raises(UserError, match="the head's option 'depth' is '2': input should be a valid integer"):
        check_option("head", "depth", "2", known)
