"""Study files: what is accepted, and the sentence for what is not."""

import pytest
import yaml

from compression_gap.errors import UserError
from compression_gap.study.file import (
    SCALE,
    Cameras,
    Factors,
    Study,
    load_study,
    parse_study,
    presets,
)
from compression_gap.study.yaml import of_key

BASE = """\
name: a
suite: channel
factors:
  encoder: [retina-4]
  action: [oat]
"""


def refused(text, where="f.yaml"):
    with pytest.raises(UserError) as caught:
        parse_study(text, where)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_small_file_takes_the_defaults():
    study = parse_study(BASE, "f.yaml")
    assert study.factors.seed == (0, 1)
    assert study.factors.size == ("xs",)
    assert study.factors.codebook == (((8, 5, 5, 5),),)
    assert (study.policy.horizon, study.rollout.execute, study.training.lr) == (16, None, 1e-3)
    assert study.limits
    assert study.references


def test_the_resolved_study_reads_back_as_itself():
    study = load_study(None, "tiny")
    assert Study.model_validate_json(study.model_dump_json()) == study
    assert parse_study(yaml.safe_dump(study.model_dump(mode="json")), "again") == study


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BASE + "sut: 1\n", "f.yaml line 6: unknown key 'sut'; did you mean 'suite'?"),
        (
            BASE + "training:\n  lr: 1.0\n  batchsize: 3\n",
            "f.yaml line 8: unknown key 'training.batchsize'; did you mean 'batch_size'?",
        ),
        (
            BASE + "  encodr: [blind]\n",
            "f.yaml line 6: unknown key 'factors.encodr'; did you mean 'encoder'?",
        ),
        (
            BASE + "cameras:\n  zzz: 1\n",
            "f.yaml line 7: unknown key 'cameras.zzz'; known: names, image_size, rendering, crop, crop_share",
        ),
    ],
)
def test_an_unknown_key_is_named_with_file_line_path_and_the_nearest(text, sentence):
    assert refused(text) == sentence


@pytest.mark.parametrize(
    ("extra", "line", "path", "what"),
    [
        ("training:\n  steps: many\n", 7, "training.steps", "valid integer (it is 'many')"),
        ("training:\n  steps: 10.5\n", 7, "training.steps", "valid integer (it is 10.5)"),
        ("training:\n  steps: 0\n", 7, "training.steps", "greater than or equal to 1 (it is 0)"),
        ("training:\n  steps:\n", 7, "training.steps", "valid integer (it is None)"),
        ("training:\n  steps: {oat: x}\n", 7, "training.steps.oat", "valid integer (it is 'x')"),
        ("training:\n  lr: -1e-3\n", 7, "training.lr", "greater than 0 (it is -0.001)"),
        ("training:\n  lr: .nan\n", 7, "training.lr", "valid number (it is '.nan')"),
        ("training:\n  lr: 1e999\n", 7, "training.lr", "finite number"),
        ("training:\n  warmup: -1\n", 7, "training.warmup", "greater than or equal to 0 (it is -1)"),
        ("training:\n  validations: 3\n", 7, "training.validations", "greater than or equal to 4"),
        ("policy:\n  temperature: '1'\n", 7, "policy.temperature", "valid number (it is '1')"),
        ("policy: 3\n", 6, "policy", "valid dictionary|an object"),
        ("rollout: {execute: true}\n", 6, "rollout.execute", "valid integer (it is True)"),
        ("cameras:\n  rendering: fst\n", 7, "cameras.rendering", "'fast' or 'default' (it is 'fst')"),
        ("  seed: 3\n", 6, "factors.seed", "array (it is 3)"),
        ("  seed: [0, -1]\n", 6, "factors.seed.1", "greater than or equal to 0 (it is -1)"),
        ("  seed: []\n", 6, "factors.seed", "at least 1 item"),
        ("  demos: [2]\n", 6, "factors.demos.0", "greater than or equal to 3 (it is 2)"),
        (
            "  codebook: [[8, 1]]\n",
            6,
            "factors.codebook.0",
            "at least two levels in every dimension, not [8, 1]",
        ),
        (
            "  codebook: [8, 5]\n",
            6,
            "factors.codebook.0",
            "8 is no codebook; write FSQ levels as [8, 5, 5, 5]",
        ),
        ("  codebook: [fsq-100]\n", 6, "factors.codebook.0", "(did you mean 'fsq-1000'?)"),
        ("  codebook: [[[8, 5], fsq-7]]\n", 6, "factors.codebook.0", "unknown codebook 'fsq-7'"),
        ("  size:\n    - xs\n    - XL\n", 8, "factors.size.1", "'xs', 'S', 'M' or 'L' (it is 'XL')"),
        ("  seed: [0, 0]\n", 6, "factors.seed", "a level is listed twice"),
        ("  codebook: [fsq-1000, [8, 5, 5, 5]]\n", 6, "factors.codebook", "a level is listed twice"),
        ("swap: {head: [flow, flow]}\n", 6, "swap.head", "a level is listed twice"),
        ("  codebook: [[8, 5], [8, 5]]\n", 6, "factors.codebook", "a level is listed twice"),
    ],
)
def test_an_ill_typed_value_is_named_with_line_and_path(extra, line, path, what):
    sentence = refused(BASE + extra)
    assert sentence.startswith(f"f.yaml line {line}: '{path}': ")
    assert any(w in sentence for w in what.split("|")), sentence
    assert sentence.endswith("; correct this value")


def test_an_unknown_key_of_an_optional_section_is_named():
    assert refused(BASE + "swap:\n  tokenizr: [oat]\n") == (
        "f.yaml line 7: unknown key 'swap.tokenizr'; did you mean 'tokenizer'?"
    )


@pytest.mark.parametrize(
    ("right", "wrong", "sentence"),
    [
        ("action:", "acton:", "f.yaml line 5: unknown key 'factors.acton'; did you mean 'action'?"),
        ("encoder:", "encodr:", "f.yaml line 4: unknown key 'factors.encodr'; did you mean 'encoder'?"),
        ("factors:", "factrs:", "f.yaml line 3: unknown key 'factrs'; did you mean 'factors'?"),
        ("suite:", "siute:", "f.yaml line 2: unknown key 'siute'; did you mean 'suite'?"),
        ("name:", "nme:", "f.yaml line 1: unknown key 'nme'; did you mean 'name'?"),
    ],
)
def test_a_misspelt_key_that_is_required_is_named_and_not_called_missing(right, wrong, sentence):
    assert refused(BASE.replace(right, wrong)) == sentence


@pytest.mark.parametrize(
    ("line", "meant"),
    [("horizon: 3", "policy.horizon"), ("sigma: 1.0", "ledger.sigma"), ("training: {data: a}", "data")],
)
def test_a_key_in_another_section_is_told_its_own(line, meant):
    said = refused(f"{BASE}{line}\n")
    assert said.startswith("f.yaml line 6: unknown key '")
    assert said.endswith(f"'; did you mean '{meant}'?")


def test_values_in_errors_are_short():
    said = refused(BASE + f"training: {{steps: '{'x' * 100_000}'}}\n")
    assert len(said) < 250


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)), "line 11: not valid YAML: aliases that repeat"),
        ("training: " + "[" * 5000, "line 6: not valid YAML: more than 64 lists and maps"),
        ("training: {steps: " + "9" * 4301 + "}", "line 6: not valid YAML: '999999999999999999999999999999…' (4,301 characters)"),
        ("training: {steps: 99999999999999999999}", "line 6: not valid YAML: the whole number '99999999999999999999' is"),
    ],
)  # fmt: skip
def test_a_small_file_costs_little(text, said):
    assert refused(BASE + text).startswith(f"f.yaml {said}")


def test_where_a_study_was_written_is_no_part_of_it():
    a, b = parse_study(BASE, "a.yaml"), parse_study("# a line more\n" + BASE, "b.yaml")
    assert a == b
    assert hash(a) == hash(b)
    assert a.model_dump() == b.model_dump()
    for study, place in ((a, "a.yaml line 4"), (b, "b.yaml line 5"), (a.model_copy(), "a.yaml line 4")):
        with (
            pytest.raises(UserError, match=rf"^{place}: factors.encoder.0: no$"),
            study.placed(),
            of_key("factors", "encoder", 0),
        ):
            raise UserError("no")
    for sentence in ("policy of another kind", "unknown: 1", "suites: none"):
        with pytest.raises(UserError) as caught, a.placed():
            raise UserError(sentence)
        assert str(caught.value) == sentence


def test_codebooks_by_name_by_levels_and_by_position():
    study = parse_study(BASE + "  codebook: [fsq-240, [4, 4], [[2, 3], fsq-512]]\n", "f.yaml")
    assert study.factors.codebook == (((8, 6, 5),), ((4, 4),), ((2, 3), (8, 8, 8)))
    again = parse_study(yaml.safe_dump(study.model_dump(mode="json")), "g.yaml")
    assert again == study


def test_a_bad_name_is_refused():
    sentence = refused(BASE.replace("name: a", "name: ../up"))
    assert sentence.startswith("f.yaml line 1: 'name': string should match pattern")
    assert "it is '../up'" in sentence


def test_a_missing_key_is_named():
    assert refused(BASE.replace("suite: channel\n", "")) == (
        "f.yaml: what to learn from is missing: add 'suite' (tasks of a simulator) or 'data' (folders STORE/demos/KEY)"
    )
    assert refused(BASE.replace("  action: [oat]\n", "")) == (
        "f.yaml line 3: the key 'factors.action' is missing; add it"
    )


def test_a_study_learns_from_a_simulator_or_from_recordings():
    both = refused(BASE + "data: [store/demos/1]\n")
    assert both == "f.yaml: 'suite' and 'data' exclude each other: keep one of them"
    study = parse_study(BASE.replace("suite: channel", "data: [store/demos/1, '2']"), "f")
    assert (study.suite, study.data) == (None, ("store/demos/1", "2"))
    twice = refused(BASE.replace("suite: channel", "data: [a, a]"))
    assert twice.startswith("f.yaml line 2: 'data': a level is listed twice")


def test_a_preset_scales_the_training_of_a_study_of_recordings_and_nothing_of_its_data(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text(BASE.replace("suite: channel", "data: [a]") + "rollout: {execute: 3}\n")
    study, tiny = load_study(file, "tiny"), load_study(None, "tiny")
    assert (study.name, study.data) == ("a-tiny", ("a",))
    assert (study.training, study.tokenizer) == (tiny.training, tiny.tokenizer)
    assert (study.cameras, study.rollout.execute) == (Cameras(), 3)
    assert study.factors.demos == Factors.model_fields["demos"].default


def test_a_key_given_twice_is_an_error():
    assert refused(BASE + "suite: other\n") == (
        "f.yaml line 6: not valid YAML: the key 'suite' is given twice"
    )
    nested = BASE + "training:\n  lr: 1.0\n  lr: 2.0\n"
    assert refused(nested) == "f.yaml line 8: not valid YAML: the key 'lr' is given twice"


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 1e-3), ("2E+1", 20.0), (".5", 0.5), ("3", 3.0), ("1.", 1.0), ("+1e2", 100.0)]
)
def test_numbers_as_everyone_writes_them(text, value):
    assert parse_study(f"{BASE}training: {{lr: {text}}}\n", "f").training.lr == value


def test_a_word_that_looks_like_an_octal_or_base_60_number_is_no_other_number():
    assert "(it is 10.0)" in refused(BASE + "training: {steps: 010}\n")
    assert "(it is '1:30')" in refused(BASE + "training: {steps: 1:30}\n")
    assert parse_study(BASE.replace("name: a", "name: 2026-01-31"), "f").name == "2026-01-31"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        (BASE + "training: {lr: 1\n", "f.yaml line 7: not valid YAML: expected ',' or '}'"),
        (BASE + "training:\n\tlr: 1\n", "f.yaml line 7: not valid YAML: found character '\\t'"),
        (BASE + "--- \nname: b\n", "f.yaml line 6: not valid YAML: but found another document"),
        (BASE + "? [a, b]\n: 1\n", "f.yaml line 6: not valid YAML: a key must be a word"),
        (BASE + "x\0: 1\n", "f.yaml: not valid YAML: unacceptable character #x0000"),
        (BASE + "a: *nothing\n", "f.yaml line 6: not valid YAML: found undefined alias 'nothing'"),
        ("- a\n- b\n", "f.yaml: a study file is a mapping with the keys name, suite, data, factors,"),
        ("", "f.yaml: a study file is a mapping with the keys"),
        ("just words", "f.yaml: a study file is a mapping with the keys"),
    ],
)
def test_what_is_no_study_file_is_a_sentence(text, start):
    assert refused(text).startswith(start)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system",
        "!!python/object/new:builtins.dict {}",
    ],
)
def test_python_tags_run_nothing(value):
    assert "could not determine a constructor for the tag" in refused(f"{BASE}cameras: {value}\n")


def test_limits_bound_the_ladder():
    text = BASE.replace("[retina-4]", "[retina-2, oracle, retina-4]")
    assert parse_study(text, "f").encoders == ("blind", "retina-2", "retina-4", "oracle")
    without = parse_study(text + "limits: false\n", "f")
    assert without.encoders == ("retina-2", "retina-4", "oracle")
    assert parse_study(BASE + "limits: false\n", "f").encoders == ("retina-4",)


def test_training_per_action():
    study = parse_study(BASE + "training: {lr: {oat: 1e-4, diffusion: 2e-3}, steps: 7}\n", "f")
    assert study.training.for_action("oat")["lr"] == 1e-4
    assert study.training.for_action("diffusion")["lr"] == 2e-3
    assert study.training.for_action("oat")["steps"] == 7
    with pytest.raises(UserError, match=r"training\.lr has no entry for the action 'flow'; add one"):
        study.training.for_action("flow")


# Files and presets


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_a_study_of_its_own_name(name):
    assert load_study(None, name).name == name.replace("/", "-")  # a name is a folder of the store


def test_a_preset_in_a_folder_gives_a_file_its_scale_and_a_name_without_folders(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("name: a\nsuite: channel\nfactors: {encoder: [retina-4], action: [diffusion]}\n")
    study = load_study(file, "libero10/factorial-controlled")
    assert study.name == "a-libero10-factorial-controlled"
    assert study.training.batch_size == 256


def test_at_a_presets_scale_nothing_is_looked_at_while_it_grows(tmp_path):
    file = tmp_path / "a.yaml"
    text = "name: a\nsuite: channel\nuntil: {within: 5}\nfactors: {encoder: [retina-4], action: [diffusion], seed: [0, 1, 2]}\n"
    file.write_text(text)
    assert load_study(file, None).until.within == 5
    assert load_study(file, "tiny").until is None


@pytest.mark.parametrize("name", ["../presets/tiny", "libero10/../tiny", "libero10", "/etc/passwd"])
def test_no_preset_lies_outside_its_folder(name):
    with pytest.raises(UserError, match="unknown preset"):
        load_study(None, name)


def test_tiny_and_demo_ship():
    assert {"tiny", "demo"} <= set(presets())


def test_an_unknown_preset_is_answered_with_those_there_are():
    with pytest.raises(UserError) as caught:
        load_study(None, "tinny")
    assert str(caught.value).startswith(
        "unknown preset 'tinny' (did you mean 'tiny'?); known: calibration, calibration-quick, demo, "
    )


def test_neither_file_nor_preset():
    with pytest.raises(
        UserError, match="name a study file, or --preset with one of: calibration, calibration-quick, demo, "
    ):
        load_study(None, None)


def test_a_missing_file_and_one_that_is_no_text(tmp_path):
    with pytest.raises(UserError, match=r"cannot read the study file .*none\.yaml: .*name an existing YAML"):
        load_study(tmp_path / "none.yaml", None)
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match=r"cannot read the study file .*bad\.yaml"):
        load_study(tmp_path / "bad.yaml", None)
    with pytest.raises(UserError, match="cannot read the study file"):
        load_study(tmp_path, None)


def test_errors_name_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(BASE + "sut: 1\n")
    with pytest.raises(UserError, match=r"mine\.yaml line 6: unknown key 'sut'"):
        load_study(file, None)


def test_a_file_at_a_preset_s_scale(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        BASE
        + "  seed: [5, 6, 7]\n  demos: [10, 60, 300, 900]\n"
        + "training: {steps: 99999}\nrollout: {episodes_per_task: 500, execute: 2}\npolicy: {horizon: 32}\n"
    )
    study, tiny = load_study(file, "tiny"), load_study(None, "tiny")
    assert study.name == "a-tiny"
    assert study.factors.seed == (5, 6)
    assert study.factors.demos == (10, 60)  # no more than the preset's, each once
    assert study.factors.encoder == ("retina-4",)
    assert study.policy.horizon == 32  # the file's own
    for section in SCALE:
        assert getattr(study, section) == getattr(tiny, section)
