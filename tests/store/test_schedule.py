"""What is given out, in which order, and what is not after a failure: without any engine."""

import pytest

from compression_gap.store import schedule as module
from compression_gap.store.artifact import Needs
from compression_gap.store.outcome import Outcome
from compression_gap.store.schedule import Schedule
from compression_gap.store.store import Store
from plain_steps import Piece, Quiet


@pytest.fixture
def scheduled(tmp_path):
    def make(*steps, goals=None):
        outcome, watcher = Outcome(), Quiet()
        goals = {s.key for s in steps} if goals is None else {g.key for g in goals}
        return Schedule(steps, Store(tmp_path), watcher, outcome, goals)

    return make


def drain(schedule, fits=lambda needs: True):
    out = []
    while step := schedule.take(fits):
        out.append(step)
    return out


def test_steps_are_given_out_in_the_plans_order_once_their_inputs_are_there(scheduled):
    a, b = Piece(number=0), Piece(number=1)
    both, last = Piece(number=2, of=(a, b)), Piece(number=3)
    s = scheduled(a, b, both, last)
    assert drain(s) == [a, b, last]
    assert s.finished(b, True) == []
    assert drain(s) == []
    assert s.finished(a, True) == [both]
    assert drain(s) == [both]
    s.finished(both, False)
    s.finished(last, True)
    assert not s.go_on()
    assert s.outcome.built == [b.key, a.key, last.key]  # another run has built 'both'


def test_only_what_fits_is_given_out(scheduled):
    small, large = Piece(number=0, gpus=0.25), Piece(number=1, gpus=1.0)
    s = scheduled(large, small)
    assert drain(s, lambda needs: needs.gpus <= 0.5) == [small]
    assert drain(s) == [large]
    assert large.needs == Needs(1.0, 1.0)


def test_a_diamond_whose_input_is_named_twice_waits_for_it_once(scheduled):
    a = Piece(number=0)
    s = scheduled(a, both := Piece(number=1, of=(a, a)))
    s.take()
    assert s.finished(a, True) == [both]


def test_what_another_run_builds_is_looked_at_again_and_said_once(scheduled, monkeypatch):
    monkeypatch.setattr(module, "AGAIN", 0.0)
    s = scheduled(a := Piece(number=0))
    for _ in range(3):
        assert s.take() is a
        s.elsewhere(a)
    assert s.watcher.others == ["piece 0"]
    assert s.go_on()


def test_a_failure_takes_out_what_waits_for_it_and_what_was_for_that_alone(scheduled):
    bad, alone, common = Piece(number=0), Piece(number=1), Piece(number=2)
    both, good = Piece(number=3, of=(bad, alone, common)), Piece(number=4, of=(common,))
    behind = Piece(number=5, of=(both,))
    s = scheduled(bad, alone, common, both, good, behind, goals=[good, behind])
    assert s.take() is bad
    s.failed(bad, {"kind": "crash", "sentence": "no", "traceback": ""})
    assert drain(s) == [common]
    assert s.finished(common, True) == [good]
    assert {k for k, f in s.outcome.failures.items() if "because" in f} == {both.key, behind.key, alone.key}
    assert drain(s) == [good]
    s.finished(good, True)
    assert not s.go_on()
    assert not s.outcome.stopped


def test_failures_of_before_are_not_tried(scheduled):
    a = Piece(number=0)
    outcome = Outcome(failures={a.key: {"kind": "diverged", "sentence": "it diverged", "traceback": ""}})
    made = scheduled(a, b := Piece(number=1, of=(a,)), c := Piece(number=2))
    s = Schedule([a, b, c], made.store, Quiet(), outcome, {a.key, b.key, c.key})
    assert drain(s) == [c]
    assert outcome.failures[b.key]["because"] == a.key


def test_a_step_whose_worker_dies_three_times_is_a_failure_that_says_so(scheduled):
    a = Piece(number=0)
    s = scheduled(a, b := Piece(number=1, of=(a,)))
    for _ in range(3):
        assert s.take() is a
        s.died(a, "(exit code -9)")
    sentence = "the worker of 'piece 0' died three times (exit code -9)"
    assert s.watcher.sentences == [sentence]
    assert s.outcome.failures[b.key]["sentence"] == sentence
    assert not s.go_on()


def test_a_spent_budget_gives_out_nothing_and_says_that_something_is_left(scheduled):
    a = Piece(number=0)
    s = scheduled(a, Piece(number=1))
    assert s.take() is a
    s.deadline = 0.0
    assert s.take() is None
    assert s.go_on()  # one is under way
    s.interrupted(a)
    assert not s.go_on()
    assert s.outcome.stopped


def test_a_budget_that_ends_with_the_last_step_has_not_stopped_anything(scheduled):
    s = scheduled(a := Piece(number=0))
    s.take()
    s.stop()
    s.finished(a, True)
    assert not s.go_on()
    assert not s.outcome.stopped


def test_steps_that_can_never_become_ready_are_a_bug_that_is_named(scheduled):
    a, b = Piece(number=0), Piece(number=1)
    s = scheduled(a, b)
    s.take(), s.take()
    s.running.clear()
    with pytest.raises(RuntimeError, match="never become ready"):
        s.go_on()
