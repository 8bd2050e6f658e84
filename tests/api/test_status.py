"""How far a study is: what runs, what failed, and the time that is left, from what was measured."""

import shutil

import pytest

from compression_gap.api.study import Status, StepUnderWay, load_study, open_study, status
from compression_gap.cli import main as cli
from compression_gap.cli.terminal import follow, status_lines
from compression_gap.store.claims import claim
from compression_gap.store.pace import Pace, time_left


@pytest.fixture
def halved(finished, tmp_path):
    """The finished study without the episodes of two policies, and its plan."""
    shutil.copytree(finished.store, tmp_path / "store")
    opened = open_study(load_study(finished.file), tmp_path / "store")
    for cell in opened.plan.cells[:2]:
        shutil.rmtree(opened.store.path(cell.evidence))
    return opened


def test_what_runs_is_seen_by_whoever_looks(halved):
    first, second = (c.evidence for c in halved.plan.cells[:2])
    with claim(halved.store, first) as mine:
        mine.noted = -1e9
        mine.note(3, 6)
        state = status(halved.study, halved.store.root)
    assert (state.steps - state.done, state.missing) == (2, [first.label, second.label])
    (running,) = state.running
    assert (running.step, running.done, running.total) == (first.label, 3, 6)
    assert 0 <= running.seconds < 100
    pace = Pace.measured(halved.plan.steps.values(), halved.store)
    assert state.seconds_left == pytest.approx(0.5 * pace.seconds(first) + pace.seconds(second))
    assert status(halved.study, halved.store.root).running == []


def test_a_clock_that_was_put_back_makes_no_time_negative(halved, monkeypatch):
    with claim(halved.store, halved.plan.cells[0].evidence) as mine:
        mine.since += 7200.0
        mine._write(0, 0)
        (running,) = status(halved.study, halved.store.root).running
    assert running.seconds == 0.0


def test_the_pace_of_a_kind_is_that_of_its_own_steps(halved):
    episodes, policy = halved.plan.cells[0].evidence, halved.plan.cells[0].policy
    pace = Pace()
    assert pace.seconds(policy) == policy.cost
    pace.note(episodes, 3 * episodes.cost)
    assert pace.seconds(episodes) == pytest.approx(3 * episodes.cost)
    assert pace.seconds(policy) == pytest.approx(3 * policy.cost)  # the best that is known
    pace.note(policy, policy.cost / 2)
    assert pace.seconds(policy) == pytest.approx(policy.cost / 2)
    assert pace.seconds(episodes) == pytest.approx(3 * episodes.cost)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "about 0 s left"), (89, "about 89 s left"), (90, "about 2 min left"), (5400, "about 1.5 h left")],
)
def test_time_left_in_words(seconds, words):
    assert time_left(seconds) == words


def state_of(done, running):
    failed = [{"step": "training b", "sentence": "it diverged"}]
    return Status("mine", 9, done, running, 130.0, ["x"] * (9 - done), failed, [])


def test_a_line_for_each_step_that_runs_or_failed():
    running = [StepUnderWay("training a", 30, 120, 12.3), StepUnderWay("tokenizer", 0, 0, 4.0)]
    assert status_lines(state_of(5, running)) == [
        "mine: 5 of 9 steps done, 1 failed; about 2 min left",
        "  running: training a: 25 %, 12 s",
        "  running: tokenizer: 4 s",
        "  failed: training b: it diverged",
    ]
    assert status_lines(state_of(9, []))[0] == "mine: 9 of 9 steps done, 1 failed"


def test_watching_ends_with_the_run(capsys):
    states = iter([state_of(5, [StepUnderWay("training a", 1, 2, 3.0)]), state_of(9, [])])
    follow(lambda: next(states), 0.0)
    assert "mine: 9 of 9 steps done, 1 failed" in capsys.readouterr().out
    assert next(states, None) is None


def test_the_verb_watches_a_study_that_is_done(finished, capsys):
    assert cli.main(["study", "status", str(finished.file), "--store", str(finished.store), "--watch"]) == 0
    assert "small: 41 of 41 steps done, 0 failed" in capsys.readouterr().out
