"""``--until separated`` from end to end: rounds are built, a run goes on, a study that was looked at stays one."""

import json

import pytest

import compression_gap as cg
from compression_gap.api.exported import export_study, opened_export
from compression_gap.api.results import Results
from compression_gap.api.rounds import asked_until
from compression_gap.api.study import load_study, open_study, status
from compression_gap.cli.main import main
from compression_gap.errors import UserError
from compression_gap.study.file import parse_study


@pytest.fixture(scope="module")
def grown(small_study_text, tmp_path_factory):
    """The small study with three seeds, asked until every gain is known within 60 points."""
    folder = tmp_path_factory.mktemp("grown")
    file = folder / "small.yaml"
    file.write_text(small_study_text.replace("seed: [0, 1]", "seed: [0, 1, 2]"))
    run = ["study", "run", str(file), "--store", str(folder / "store"), "--processes", "0"]
    assert main([*run, "--until", "separated", "--within", "60", "--no-report"]) == 0
    return file, folder / "store", run


def test_it_stops_at_the_first_look_where_that_is_enough(grown, capsys):
    """Policies that were not trained never succeed: all gains are 0, and known so within 60 points."""
    file, store, run = grown
    results = Results.load(load_study(file), store)
    told = results.summary.sequential
    assert told is not None  # as it was run, though the file does not say so
    assert (told.within, told.measured, told.most) == (60, 12, 18)
    assert {q.ended for q in told.looked} == {"settled"}
    assert {q.looks for q in told.looked} == {1}
    state = status(load_study(file), store)
    assert (state.missing, state.done) == ([], state.steps)
    assert main(run) == 0  # the plain command goes on as before: nothing is left
    assert "of 2 questions 2 settled" in capsys.readouterr().out


def test_a_narrower_width_goes_on_from_there(grown, tmp_path, capsys):
    _, store, run = grown
    assert main([*run, "--until", "separated", "--within", "0.5"]) == 0
    said = capsys.readouterr()
    assert "looked: of 2 questions 2 open, with every seed used" in said.err
    summary = json.loads((store / "studies" / "small" / "summary.json").read_text())
    assert (summary["sequential"]["within"], summary["sequential"]["measured"]) == (0.5, 16)
    file = grown[0]
    export_study(open_study(load_study(file), store), tmp_path)
    with opened_export(tmp_path) as opened:
        assert (
            Results(opened, "").summary.sequential == Results.load(load_study(file), store).summary.sequential
        )


@pytest.mark.parametrize(
    ("change", "options", "sentence"),
    [
        ({}, ["--within", "5"], "--within is a width at which --until separated stops: give both"),
        ({}, ["--until", "separated", "--within", "0"], "--within 0.0 is no width"),
        ({}, ["--until", "separated"], "the study has 2 seeds: to grow by seeds"),
        (
            {
                "seed: [0, 1]": "seed: [0, 1, 2]",
                "[diffusion, oat]": "[diffusion]",
                "name: small": "name: small\nlimits: false\nuntil: {question: interaction}",
            },
            [],
            "nothing in the study answers 'interaction': it takes two encoders under two action representations",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_built(
    small_study_text, tmp_path, capsys, change, options, sentence
):
    text = small_study_text
    for old, new in change.items():
        text = text.replace(old, new)
    (tmp_path / "s.yaml").write_text(text)
    arguments = [
        "study",
        "run",
        str(tmp_path / "s.yaml"),
        "--store",
        str(tmp_path / "store"),
        "--processes",
        "0",
    ]
    assert main([*arguments, *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not list((tmp_path / "store").glob("demos/*"))


def test_the_file_s_section_is_what_options_change(small_study_text):
    own = parse_study(small_study_text + "until: {question: upgrade, within: 4}\n", "small")
    assert asked_until(own, None, None) is own
    assert asked_until(own, "separated", None).until == own.until
    narrower = asked_until(own, "separated", 2.0).until
    assert (narrower.question, narrower.within) == ("upgrade", 2)
    plain = parse_study(small_study_text, "small")
    assert asked_until(plain, None, None).until is None
    assert asked_until(plain, "separated", None).until.question == "bottleneck"


def test_from_python_it_is_the_same(grown):
    file, store, _ = grown
    again = cg.run(cg.load_study(file), store, processes=0, until="separated", within=60)
    assert again.summary.sequential.within == 60
    with pytest.raises(UserError, match="give both"):
        cg.run(parse_study(file.read_text().replace("name: small", "name: other"), "other"), store, within=3)


def test_what_another_run_has_built_is_looked_at_too(small_study_text, tmp_path, monkeypatch):
    """A run that built nothing itself goes on to the next look."""
    from compression_gap.api import rounds
    from compression_gap.api.options import Running
    from compression_gap.store.outcome import Outcome

    file = tmp_path / "small.yaml"
    file.write_text(small_study_text.replace("seed: [0, 1]", "seed: [0, 1, 2]"))
    study, told = asked_until(load_study(file), "separated", 0.5), []

    def by_another(opened, running, **how):
        build_study(opened, running, **how)
        return Outcome()

    build_study = rounds.build_study
    monkeypatch.setattr(rounds, "build_study", by_another)
    opened = open_study(study, tmp_path / "store")
    outcome, left = rounds.run_study(opened, Running(processes=0), say=told.append)
    assert (outcome.built, left) == ([], 0)
    assert told == [
        "of 2 questions 2 open, with seeds to come",
        "of 2 questions 2 open, with every seed used",
    ]


def test_the_ledger_is_that_of_the_cells_that_were_looked_at(small_study_text, tmp_path):
    """Bits stand on the page though the later seeds were never trained."""
    text = small_study_text.replace("seed: [0, 1]", "seed: [0, 1, 2]").replace("demos: [6]", "demos: [15]")
    text += "ledger: {steps: 4, batch_size: 8, prior_steps: 2, episodes_per_sigma: 3, sigma: 0.2}\n"
    study = parse_study(text + "until: {within: 60}\n", "small")
    results = cg.run(study, tmp_path / "store", processes=0)
    assert results.summary.sequential.measured == 12
    assert results.summary.ledger is not None
    assert len(results.summary.ledger.encoders) == 3


def test_the_page_names_the_command_with_its_looks(tmp_path):
    from compression_gap.cli.study import RunOptions

    options = RunOptions(file=tmp_path / "my.yaml", until="separated", within=5.0)
    assert options.command == "cgap study run my.yaml --until separated --within 5"
    assert RunOptions(preset="tiny").command == "cgap study run --preset tiny"
