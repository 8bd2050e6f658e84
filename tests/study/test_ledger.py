"""The ledger of a small study, through the command, and its parts on numbers made by hand."""

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from compression_gap.cli.main import main
from compression_gap.cli.terminal_bits import ledger_tables
from compression_gap.demos import DemoSet, Normaliser
from compression_gap.errors import UserError
from compression_gap.results.hypothesis import hypothesis
from compression_gap.results.information import (
    _at,
    _beyond_supply,
    _binding,
    _fitted_seed,
    _law,
    _Rates,
    fitted_words,
    read_ledger,
)
from compression_gap.results.locate import of_ledger, of_study
from compression_gap.results.records.bits import NoiseTolerance, Resolution, SigmaStar, Tolerances
from compression_gap.results.records.comparisons import Bottleneck, Comparison, EncoderGain, Refusal
from compression_gap.results.records.json import as_json
from compression_gap.results.records.study import SimulatorFindings
from compression_gap.results.resolution import bounded, resolution_rows, resolution_words
from compression_gap.statistics.bottleneck import Gain, Verdict
from compression_gap.statistics.intervals import Contrast
from compression_gap.store.store import Store
from compression_gap.study.file import Ledger, parse_study
from compression_gap.study.ledger import SIGMAS, LedgerSteps, pair
from compression_gap.study.plan import make_plan
from compression_gap.study.resolution import GRID_OF_ONE
from compression_gap.tokenizers.code import Code, code_names

STUDY = """\
name: ledgered
suite: channel
cameras: {image_size: 16}
factors:
  encoder: [retina-4]
  action: [diffusion, regression, oat]
  seed: [0]
  demos: [90]
training: {steps: 6, batch_size: 8, lr: 1e-3, warmup: 2, validations: 4}
tokenizer: {steps: 6, batch_size: 8}
policy: {sampling_steps: 2}
rollout: {execute: 16, episodes_per_task: 4}
ledger: {steps: 24, batch_size: 16, prior_steps: 4, episodes_per_sigma: 12, delivered_chunks: 8}
"""
CODE = Code("oat", None, 0)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The ledger as ``--json`` printed it, the study's file and its store."""
    import io
    from contextlib import redirect_stdout

    folder = tmp_path_factory.mktemp("ledger")
    file, store, printed = folder / "study.yaml", folder / "store", io.StringIO()
    file.write_text(STUDY)
    with redirect_stdout(printed):
        assert main(["ledger", str(file), "--store", str(store), "--processes", "0", "--json"]) == 0
    return json.loads(printed.getvalue()), file, store


def as_record(found, file, store):
    """The ledger as a record."""
    return read_ledger(make_plan(parse_study(file.read_text(), "")).ledger, Store(store))


def test_every_quantity_is_there_with_its_interval(ran):
    found, *_ = ran
    assert [e["encoder"] for e in found["encoders"]] == ["blind", "retina-4", "oracle"]
    assert [(p["encoder"], p["code"]) for p in found["pairs"]] == [
        ("blind", "oat 1000"), ("retina-4", "oat 1000"), ("oracle", "oat 1000"),
    ]  # fmt: skip
    for e in (
        found["demand"],
        *(x["supply"] for x in found["encoders"]),
        *(p["gap"] for p in found["pairs"]),
    ):
        assert e["low"] <= e["value"] <= e["high"]
        assert set(e["by_share"]) == {"1", "2", "4"}
        assert (e["chunks"], e["episodes"]) == (9, 9)
    assert found["training_episodes"] == {"1": 72, "2": 36, "4": 18}


def test_what_passes_is_the_supply_less_the_gap(ran):
    found, *_ = ran
    supply = {e["encoder"]: e["supply"]["value"] for e in found["encoders"]}
    for p in found["pairs"]:
        assert p["passes"]["value"] == pytest.approx(supply[p["encoder"]] - p["gap"]["value"], abs=1e-9)
    blind = next(e for e in found["encoders"] if e["encoder"] == "blind")
    assert blind["visual_supply"]["value"] == 0
    for e in found["encoders"]:
        assert e["visual_supply"]["value"] == pytest.approx(e["supply"]["value"] - blind["supply"]["value"])


def test_the_resolution_is_measured_with_the_expert(ran):
    at = ran[0]["resolution"]
    assert at["measured"]
    noises = {n["noise"]: n for n in at["noises"]}
    assert list(noises) == ["white", "offset", "code oat 1000"]
    assert at["dimensions"] == []
    for noise in noises.values():
        assert noise["undisturbed"] == 1
        assert noise["low"] <= noise["value"] <= noise["high"]
        assert noise["rates"][0] >= noise["rates"][-1]
        assert list(noise["per_task"]) == ["reach"]
        assert "draws" not in noise
    assert 0.03 <= at["sigma"] <= 1
    # An offset moves the end point by all its steps; white noise averages out.
    assert noises["offset"]["value"] < noises["white"]["value"]


def test_the_terminal_shows_every_noise_with_its_interval(ran, capsys):
    found, *_ = ran
    record = as_record(*ran)
    assert json.loads(json.dumps(as_json(replace(record, file=found["file"])))) == found
    rows = resolution_rows(record.resolution)
    assert [r.noise for r in rows] == [
        "white noise",
        "offset, constant over a chunk",
        "noise like the error of oat 1000",
    ]
    assert rows[0].pooled == bounded(record.resolution.found.white)
    ledger_tables(record)
    printed = capsys.readouterr().out
    for row in rows:
        assert row.pooled in printed


def test_dimensions_are_disturbed_alone_on_demand():
    study = parse_study(
        STUDY.replace("prior_steps: 4", "prior_steps: 4, dimensions: true, disturbances: [white]"), "here"
    )
    disturbed = make_plan(study).ledger.disturbed
    assert list(disturbed.noises) == ["white"]
    assert list(disturbed.dimensions) == [0, 1]
    for d, of in disturbed.dimensions.items():
        assert tuple(of) == GRID_OF_ONE
        assert {(r.spec["disturbance"], r.spec["dimension"]) for r in of.values()} == {("white", d)}
    with pytest.raises(UserError, match="add 'white'"):
        parse_study(STUDY.replace("prior_steps: 4", "prior_steps: 4, disturbances: [offset]"), "here")


def test_noise_like_a_code_has_the_covariance_of_its_training_errors(ran):
    """Of the chunks that lie within their episode, from the artefacts directly."""
    _, file, store_folder = ran
    store, plan = Store(store_folder), make_plan(parse_study(file.read_text(), "here"))
    recipe = plan.ledger.disturbed.noises["code oat 1000"][0.5]
    step = plan.steps[recipe.key]
    demos = DemoSet.load(store.open(step.inputs["demos/0"]))
    normaliser = Normaliser.load(store.open(step.inputs["normaliser"]))
    coded = np.load(store.open(step.inputs["tokens"]) / "coded-train.npy")
    errors, row, horizon = [], 0, recipe.spec["horizon"]
    actions = (demos.actions - normaliser.mean) / normaliser.std
    for e in demos.split("train"):
        for t in range(e.length):
            if t + horizon <= e.length:
                errors.append(coded[row] - actions[e.start + t : e.start + t + horizon])
            row += 1
    flat = np.array(errors, np.float64).reshape(len(errors), -1)
    moment = flat.T @ flat / len(flat)
    disturb, n = step.make_actor(store).disturb, 4000
    zero = np.zeros((n, horizon, 2), np.float32)
    noise = (disturb(zero, np.arange(n)) / normaliser.std).reshape(n, -1)
    wanted = moment * 0.25 / np.diag(moment).mean()
    assert (noise**2).mean() == pytest.approx(0.25, rel=0.1)
    np.testing.assert_allclose(noise.T @ noise / n, wanted, atol=0.06 * wanted.max())


def test_policies_deliver_from_their_own_loss(ran):
    rows = {(d["action"], d["encoder"]): d for d in ran[0]["delivered"]}
    assert len(rows) == 9
    assert rows["regression", "oracle"]["bits"] is None
    for action in ("diffusion", "oat"):
        assert np.isfinite(rows[action, "oracle"]["bits"]["value"])


def test_a_policy_that_delivers_more_than_its_encoder_supplies_is_named(ran):
    found = ran[0]
    supply = {e["encoder"]: e["supply"]["high"] for e in found["encoders"]}
    named = [b["policy"] for b in found["beyond_supply"]]
    assert named == [
        d["policy"]
        for d in found["delivered"]
        if d["kind"] == "continuous" and d["bits"]["low"] > supply[d["encoder"]]
    ]
    assert {"diffusion · oracle", "oat 1000 · oracle"} <= {d["policy"] for d in found["delivered"]}
    encoders = [SimpleNamespace(encoder="oracle", supply=SimpleNamespace(low=1, high=2))]
    for kind, low, expected in (
        ("continuous", 2.1, ["p"]),
        ("continuous", 1.9, []),
        ("tokens", 2.1, []),
        (None, 2.1, []),
    ):
        bits = None if kind is None else SimpleNamespace(low=low, high=3)
        asked = SimpleNamespace(policy="p", encoder="oracle", kind=kind, bits=bits)
        assert [b.policy for b in _beyond_supply(encoders, [asked])] == expected


def test_a_policy_is_held_against_the_rates_of_its_own_chunks(ran):
    found, file, root = ran
    plan, store = make_plan(parse_study(file.read_text(), "")), Store(root)
    cell, recipe = next(d for d in plan.ledger.delivered if d[0].action == "diffusion")
    policy, rates = store.open(recipe), store.open(plan.ledger.rates[1])

    def array(folder, name):
        return np.load(folder / f"{name}.npy", allow_pickle=False)

    among = array(policy, "among")
    assert among.tolist() == [0, 1, 2, 3, 4, 5, 6, 8]  # 8 of 9 whole chunks, the first and the last
    sigma = found["resolution"]["sigma"]
    marginal = _at(array(rates, "bits")[list(plan.ledger.contexts).index("")], sigma)[among]
    row = next(d for d in found["delivered"] if (d["action"], d["encoder"]) == ("diffusion", cell.encoder))
    assert row["bits"]["chunks"] == 8
    assert row["bits"]["value"] == pytest.approx(float((marginal - _at(array(policy, "bits"), sigma)).mean()))


def test_the_report_and_the_verdict_use_the_same_ledger(ran, capsys):
    found, file, store = ran
    again = ["--store", str(store), "--processes", "0", "--json"]
    assert main(["study", "run", str(file), *again]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["ledger"]["demand"] == found["demand"]
    page = (store / "studies" / "ledgered" / "report.html").read_text()
    for row in resolution_rows(as_record(*ran).resolution):
        assert f"<td>{row.noise}</td><td>{row.pooled}</td>" in page
    assert "<h2>Bits</h2>" in page
    assert len(summary["ledger"]["hypothesis"]["upgrades"]) == 6  # two under each of three actions
    assert main(["locate", str(file), *again]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [b["encoder"] for b in said["bits"]] == ["retina-4"]
    assert len(said["success"]) == 3
    assert all(v["next"] for v in said["success"])
    assert said["success"][0]["costs"][0]["parameters"] > 1000
    for verb in ("locate", "ledger"):
        assert main([verb, str(file), *again[:-1]]) == 0
    assert "bits per action chunk" in capsys.readouterr().out


def test_demonstrations_alone_have_a_ledger_at_a_given_resolution(ran, capsys):
    _, _, store = ran
    (demos,) = (store / "demos").iterdir()
    words = ["ledger", str(demos), "--encoders", "oracle", "--tokenizers", "oat", "--sigma", "0.2"]
    assert (
        main(
            [
                *words,
                "--steps",
                "6",
                "--prior-steps",
                "4",
                "--tokenizer-steps",
                "6",
                "--processes",
                "0",
                "--json",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert found["resolution"] == {"sigma": 0.2, "measured": False, "assumed": False}
    assert found["delivered"] == []
    assert [c["code"] for c in found["codes"]] == ["oat 1000"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["ledger", "channel", "--encoders", "resnet18"], "trained with its policy"),
        (["ledger", "channel", "--encoders", "retina-x"], "whole number"),
        (["ledger", "nowhere", "else"], "there is no folder nowhere"),
        (["ledger", "channel", "--horizon", "0"], "too small"),
        (["ledger", "channel", "--prior-steps", "0"], "--prior-steps 0 is too small"),
        (
            ["ledger", "channel", "--sigma", "0.01"],
            "sigma 0.01 is out of range: rates are kept for 0.03 to 1",
        ),
        (["ledger", "channel", "--sigma", "inf"], "is no resolution"),
        (["locate", "channel", "--tokenizers", "wav"], "wav"),
        (["ledger", "metaworld/push", "--encoders", "oracle-2b"], "channel alone"),
    ],
)
def test_mistakes_are_one_sentence(words, sentence, tmp_path, capsys):
    assert main([*words, "--store", str(tmp_path / "store"), "--processes", "0"]) == 2
    assert sentence in capsys.readouterr().err


def test_a_resolution_that_is_no_number_is_refused(tmp_path, capsys):
    words = ["ledger", "channel", "--sigma", "-1", "--store", str(tmp_path / "s"), "--processes", "0"]
    assert main(words) == 2
    assert "sigma" in capsys.readouterr().err


def test_a_plan_without_the_section_measures_no_bits():
    plain = make_plan(parse_study(STUDY.split("ledger: {")[0], "here"))
    assert plain.ledger is None
    assert not {s.kind for s in plain.steps.values()} & {"rates", "delivered"}


def test_rates_between_resolutions_are_interpolated_in_the_logarithm():
    values = np.log(np.array(SIGMAS))[None]
    assert _at(values, 0.25)[0] == pytest.approx(np.log(0.25))
    assert _at(values, SIGMAS[-1])[0] == pytest.approx(np.log(SIGMAS[-1]))


def made(demand, see, kept, gap, oracle_gap, n=400, codes=(CODE,)):
    """Rates of one encoder and the oracle (which sees all), with the same noise in all."""
    rng = np.random.default_rng(0)
    noise = 0.3 * rng.standard_normal(n)
    names = {c: c.name for c in codes}
    bits = {"": demand + noise, "z": demand - see + noise, "oracle": 0 * noise}
    for c in codes:
        bits[names[c]] = demand - kept + noise
        bits[pair("z", c.name)] = demand - kept - gap + noise + 0.1 * rng.standard_normal(n)
        bits[pair("oracle", c.name)] = demand - kept - oracle_gap + noise + 0.1 * rng.standard_normal(n)
    steps = LedgerSteps(Ledger(sigma=0.1), ("z", "oracle"), names, {})
    return as_rates({1: bits}), steps


def as_rates(bits, lost=None):
    """Rates of these chunks, each an episode, from one network at a given σ."""
    means = {name: b.mean(keepdims=True) for name, b in bits[1].items()}
    contexts = {name: tuple(name.split(" | ")) for name in bits[1]}
    return _Rates(bits, bits[1], means, None, lost or {}, np.arange(len(bits[1][""])), contexts)


def test_what_is_lost_at_a_width_widens_towards_what_may_be_missing():
    rates, _ = made(demand=10, see=6, kept=2, gap=4, oracle_gap=8)
    wide = as_rates(rates.bits, lost={"z": 0.7})
    plain, widened = (r.difference("", "z") for r in (rates, wide))
    assert widened.value == plain.value
    assert (widened.low, widened.high) == pytest.approx((plain.low, plain.high + 0.7))
    # An upgrade from z may be worth that much less.
    plain, widened = (r.estimated(r.supply("oracle") - r.supply("z")) for r in (rates, wide))
    assert (widened.low, widened.high) == pytest.approx((plain.low - 0.7, plain.high))
    assert widened.missing == pytest.approx(-0.7)


def test_the_code_holds_the_bits_back_where_the_gap_leads():
    rates, steps = made(demand=10, see=6, kept=2, gap=4, oracle_gap=8)
    found = _binding(rates, steps, "z", CODE.name)
    # Through the code: z 6 − 4 = 2, oracle 10 − 8 = 2: the encoder gains nothing, continuous actions 4.
    assert found.stage == "code"
    assert found.gains["code"].value == pytest.approx(4, abs=0.05)
    assert found.gains["encoder"].value == pytest.approx(0, abs=0.05)
    (said,) = of_ledger(SimpleNamespace(binding=[found], episodes=400))
    assert "the code holds the bits back" in said.sentence


def test_the_encoder_holds_the_bits_back_where_a_better_one_passes_more():
    rates, steps = made(demand=10, see=3, kept=9, gap=0, oracle_gap=1)
    found = _binding(rates, steps, "z", CODE.name)
    assert found.stage == "encoder"
    assert found.relaxed_to == "oracle"
    assert found.gains["encoder"].value == pytest.approx(6, abs=0.05)


def test_an_oracle_that_supplies_less_than_features_gives_no_gain():
    """Through the code: z 6 − 0 = 6 bits, the oracle 10 − 8 = 2: what cannot be is no gain of −4."""
    rates, steps = made(demand=10, see=6, kept=9, gap=0, oracle_gap=8)
    binding = _binding(rates, steps, "z", CODE.name)
    assert binding.gains["encoder"].value == pytest.approx(-4, abs=0.05)
    (said,) = of_ledger(SimpleNamespace(binding=[binding], episodes=400))
    assert "no gain of the encoder is given" in said.sentence
    assert re.search(r"supply 4\.\d\d bits \[3\.\d\d, 4\.\d\d\] less than z, which cannot be", said.sentence)
    assert said.next.startswith("raise ledger.steps or record more demonstrations")
    other = replace(binding, relaxed_to="y")  # of another encoder it may well be
    assert "no gain" not in of_ledger(SimpleNamespace(binding=[other], episodes=400))[0].sentence


def test_with_a_tokenizer_a_seed_the_ledger_holds_the_first_and_policies_their_own():
    plan = make_plan(parse_study(STUDY.replace("seed: [0]", "seed: [3, 5]"), "here"))
    steps, ledger = plan.steps, plan.ledger

    def seed_behind(recipe):
        return steps[recipe.key].inputs["tokenizer"].spec["fitting"]["seed"]

    assert list(ledger.codes.values()) == ["oat 1000"]  # one row, as everywhere
    assert [c.seed for c in ledger.health] == [3, 5]
    assert [seed_behind(ledger.health[c]) for c in ledger.health] == [3, 5]
    (level,) = ledger.codes
    assert seed_behind(ledger.health_of(level)) == 3
    assert seed_behind(steps[ledger.rates[1].key].inputs["tokens/0"]) == 3
    of_tokens = [(c.seed, r) for c, r in ledger.delivered if c.action == "oat"]
    assert {seed: seed_behind(steps[r.key].inputs["tokens"]) for seed, r in of_tokens} == {3: 3, 5: 5}
    assert _fitted_seed(ledger) == 3
    assert fitted_words(3).startswith("Tokenizers and pretrained encoders are those of training seed 3")
    fixed = make_plan(parse_study(STUDY.replace("seed: [0]", "seed: [3, 5]\n  tokenizer_seed: [0]"), "here"))
    assert (_fitted_seed(fixed.ledger), fitted_words(None)) == (None, "")


def test_what_a_policy_delivers_is_measured_on_its_own_encoder_s_features():
    file = STUDY.replace("retina-4", "pose-20").replace("seed: [0]", "seed: [0, 1]")
    plan = make_plan(parse_study(file, "here"))
    for cell, recipe in plan.ledger.delivered:
        if cell.encoder == "pose-20":
            features = plan.steps[recipe.key].inputs["features/0"]
            encoder = plan.steps[features.key].inputs["encoder"]
            assert encoder.spec["pretraining"]["seed"] == cell.seed


def test_two_narrow_stages_in_series_are_named_together():
    rates, steps = made(demand=10, see=3, kept=3, gap=0, oracle_gap=7)
    bits = rates.bits[1]  # neither gains by itself, but for noise about 0
    bits[pair("z", CODE.name)] += float((bits[CODE.name] - bits[pair("z", CODE.name)]).mean())
    own = float((bits["z"] - bits[pair("z", CODE.name)]).mean())
    bits["oracle"] += float((bits["oracle"] - bits[pair("oracle", CODE.name)]).mean()) - own
    found = _binding(rates, steps, "z", CODE.name)
    assert (found.stage, found.jointly) == (None, True)
    assert found.joint.value == pytest.approx(7, abs=0.05)


def test_gains_that_add_up_are_not_joint():
    """Each is too noisy to be named, both together are not: that is no sign of two stages in series."""
    calls = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        code, see = 0.6 + rng.standard_normal((2, 12))
        bits = {"": 10 + 0 * code, "z": 10 - 5 + 0 * code, CODE.name: 10 - 4 + 0 * code}
        bits[pair("z", CODE.name)] = bits[CODE.name] - code
        bits["oracle"], bits[pair("oracle", CODE.name)] = bits["z"] - see, bits[CODE.name] - code
        steps = LedgerSteps(Ledger(sigma=0.1), ("z", "oracle"), {CODE: CODE.name}, {}, None)
        calls += _binding(as_rates({1: bits}), steps, "z", CODE.name).jointly
    assert calls <= 2


def test_a_verdict_in_bits_rests_on_the_widened_interval():
    rates, steps = made(demand=10, see=6, kept=2, gap=0.6, oracle_gap=4.6)
    assert _binding(rates, steps, "z", CODE.name).stage == "code"
    quarter, half = (
        {n: b - (more if n == pair("z", CODE.name) else 0) for n, b in rates.bits[1].items()}
        for more in (1.6, 0.7)
    )
    unsettled = as_rates({1: rates.bits[1], 2: half, 4: quarter})
    shown = unsettled.difference(CODE.name, pair("z", CODE.name))
    found = _binding(unsettled, steps, "z", CODE.name)
    assert found.gains["code"] == replace(shown, ceiling=None)
    assert shown.low < 0
    assert found.stage is None


def test_codes_of_one_name_have_contexts_of_their_own():
    tree = STUDY.replace("seed: [0]", "seed: [0]\n  tokenizer_seed: [0, 1]")
    plan = make_plan(parse_study(tree, "here"))
    assert list(plan.ledger.codes.values()) == ["oat 1000 seed 0", "oat 1000 seed 1"]
    parts = [plan.ledger.contexts[name] for name in plan.ledger.codes.values()]
    assert len({*parts}) == 2
    assert len(plan.ledger.contexts) == 2 + 2 + 2 * 4
    levels = [Code("oat", ((8, 5, 5, 5),), 0), Code("oat", ((10, 10, 10),), 0), Code("bins", None, None)]
    assert list(code_names(levels).values()) == [
        "oat 1000 (8x5x5x5)",
        "oat 1000 (10x10x10)",
        "bins",
    ]


@pytest.mark.parametrize(
    ("bound", "words"),
    [("", "success: 0.3 [0.2, 0.4]"), ("above", "at least 0.3 [0.2, …]"), ("below", "at most 0.3 […, 0.4]")],
)
def test_a_resolution_beyond_what_was_tried_is_a_bound(bound, words):
    at = SigmaStar(value=0.3, low=0.2, high=0.4, bound=bound, rates=[], undisturbed=1)
    white = NoiseTolerance(noise="white", pooled=at, per_task={})
    tolerances = Tolerances(episodes=9, noises=[white], dimensions=[])
    found = Resolution(measured=True, assumed=False, sigma=0.3, found=tolerances)
    assert resolution_words(found).endswith(words)
    assert resolution_words(replace(found, sigma=0.5)).endswith(f"{words}; bits are taken at 0.5")


def test_the_codebook_law_finds_where_nine_tenths_come_through():
    codes = tuple(Code("oat", ((k,),), 0) for k in (2, 4, 8))
    used = {c: b for c, b in zip(codes, (2.0, 4.0, 8.0), strict=True)}
    rates, steps = made(demand=10, see=6, kept=2, gap=0, oracle_gap=0, codes=codes)
    for code, gap in zip(codes, (4.0, 2.0, 0.0), strict=True):
        rates.bits[1][pair("z", code.name)] = rates.bits[1][code.name] - gap
    found = _law(rates, steps, used, "z")
    assert found.bound == ""
    assert found.bits == pytest.approx(4 * 2 ** ((2 - 0.6) / 2), rel=1e-2)
    assert found.low <= found.bits <= found.high


def bits_of(supply, passes=()):
    """As much of a ledger as the hypothesis reads: what encoders supply, and what of it passes the code ``oat``."""

    def value(of):
        return SimpleNamespace(value=of)

    return SimpleNamespace(
        encoders=[SimpleNamespace(encoder=e, supply=value(v)) for e, v in supply],
        pairs=[SimpleNamespace(encoder=e, code="oat", passes=value(v)) for e, v in passes],
    )


def gain_of(encoders, code, action, value, half):
    found = Contrast(value, value - half, value + half, 0.1, "by hand", 2, 4, False)
    about = EncoderGain(encoders=encoders, action=action, demos=10, code=code)
    return Comparison(kind="delta_enc", label="", about=about, found=found, p_holm=0.1)


def test_the_hypothesis_by_hand():
    ledger = bits_of((("blind", 0), ("z", 3), ("oracle", 5)), (("blind", 0), ("z", 2), ("oracle", 2)))

    def upgrade(low, high, code, value):
        return gain_of((low, high), code, str(code), value, 0.1)

    steps = [
        ("blind", "z", None, 0.3),
        ("z", "oracle", None, 0.2),
        ("blind", "z", "oat", 0.2),
        ("z", "oracle", "oat", 0),
    ]
    few = hypothesis(ledger, [upgrade(*s) for s in steps])
    assert few.correlation is None
    assert [u.bits for u in few.upgrades] == [3, 2, 2, 0]
    ends = upgrade("blind", "oracle", None, 0.9)  # the ladder's ends are no upgrade of their own
    # sizes repeat an upgrade's prediction, and add no upgrade
    again = hypothesis(ledger, [*(upgrade(*s) for s in [*steps, *steps, *steps]), ends])
    assert (again.encoder_upgrades, again.correlation) == (2, None)
    assert [u.observed.value for u in again.upgrades] == pytest.approx([0.3, 0.2, 0.2, 0.0])
    assert "3 averaged" in again.upgrades[0].label


def test_the_hypothesis_over_five_encoder_upgrades():
    names, rng = [f"e{i}" for i in range(7)], np.random.default_rng(0)
    outside = 0
    for _ in range(
        200
    ):  # bits and points that have nothing to do with each other, six upgrades under three heads
        supply = rng.standard_normal(7).cumsum()
        gained = rng.standard_normal(6)
        found = hypothesis(bits_of(zip(names, supply, strict=True)), [
            gain_of((names[i], names[i + 1]), None, head, gained[i], 0)
            for i in range(6) for head in ("diffusion", "flow", "regression")
        ])  # fmt: skip
        assert found.low <= found.correlation <= found.high
        outside += not found.low <= 0 <= found.high
    assert (found.encoder_upgrades, len(found.upgrades)) == (6, 18)
    assert outside <= 20


def test_advice_for_a_study_names_what_relaxing_costs():
    def cell(label):
        training = SimpleNamespace(parameters={"total": 10}, flops=5, train_seconds=36.0)
        return SimpleNamespace(label=label, training=training)

    def advice(*refusals, high=0.1, stages=("encoder", "code")):
        c = Contrast(high - 0.1, high - 0.2, high, 0.5, "by hand", 2, 4, False)
        gains = [Gain(stage, c, "") for stage in stages]
        verdict = Bottleneck(
            label="oat · e", encoder="e", action="oat", unconverged={},
            relaxed={"encoder": "oat · oracle", "code": "diffusion · e"},
            verdict=Verdict("not-separated", None, 0.5, gains, None, "…", 3, None),
        )  # fmt: skip
        found = SimulatorFindings(
            protocol=None, selection=None, trends=[], refusals=refusals, waterfalls=[], verdicts=[verdict],
            swaps=[], published=None,
        )  # fmt: skip
        (said,) = of_study(SimpleNamespace(cells=[cell("oat · e"), cell("diffusion · e")], found=found))
        return said

    said = advice()
    assert [c.what for c in said.costs] == ["as it is", "code replaced: diffusion · e"]
    assert said.costs[0].hours == pytest.approx(0.01)
    assert "factors.seed: 3 more" in said.next
    assert advice(high=-0.1, stages=("encoder",)).next.startswith("raise training.steps")
    refusal = Refusal(
        label="oat · e",
        reference="oracle policy",
        contrast=None,
        sentence="",
        next="train the oracle policy longer",
    )
    assert advice(refusal, high=-0.1, stages=("encoder",)).next == "train the oracle policy longer"
