"""Rounds on rows whose answer is plain, against the tests they are made of, and by simulation."""

import numpy as np
import pytest

from compression_gap.statistics.bottleneck import locate_in_rounds
from compression_gap.statistics.coverage import Setting
from compression_gap.statistics.growing import grow
from compression_gap.statistics.intervals import contrast
from compression_gap.statistics.rounds import in_rounds, pairs
from compression_gap.statistics.sequential import look_seeds, looks_of_seeds

MOST, STATES = 8, 60
TASKS = np.arange(STATES) % 2


def cells(*rates, seed=0, seeds=MOST):
    """Outcomes of seeds that do not differ, at these rates."""
    rng = np.random.default_rng(seed)
    return [(rng.random((seeds, STATES)) < rate).astype(float) for rate in rates]


def test_each_look_adds_a_quarter_at_most_once_there_are_eight():
    assert look_seeds(2) == (2,)
    assert look_seeds(5) == (2, 3, 4, 5)
    assert look_seeds(24) == (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24)
    assert look_seeds(9)[-2:] == (8, 9)


def test_all_pairs_and_their_signs():
    assert pairs(3) == [(-1.0, 1.0, 0.0), (-1.0, 0.0, 1.0), (0.0, -1.0, 1.0)]


def test_a_large_difference_is_settled_at_the_first_look():
    found = in_rounds(cells(0.05, 0.95), pairs(2), TASKS, MOST)
    assert (found.looks, found.seeds, found.best) == (1, (2, 2), 1)
    assert found.settled
    assert not found.growing
    assert found.judged[0].sign == 1


def test_with_one_look_interval_and_p_are_the_contrast_s():
    rows = cells(0.3, 0.6, seeds=2)
    judged = in_rounds(rows, pairs(2), TASKS, MOST).judged[0].found
    plain = contrast(rows, [-1, 1], TASKS)
    assert (judged.value, judged.seeds, judged.states) == (plain.value, 2, STATES)
    assert [judged.low, judged.high] == pytest.approx([plain.low, plain.high], abs=1e-6)
    assert judged.p == pytest.approx(plain.p, abs=1e-6)


def test_a_contrast_crosses_where_its_interval_at_the_look_s_level_leaves_out_0():
    for seed in range(6):
        rows = cells(0.4, 0.55, seed=seed)
        found = in_rounds(rows, pairs(2), TASKS, MOST)
        crossed = [
            count
            for count, made in looks_of_seeds(MOST)
            if contrast([r[:count] for r in rows], [-1, 1], TASKS, made.level()).low > 0
        ]
        assert (found.judged[0].sign == 1) == bool(crossed)
        assert found.seeds[0] == (crossed[0] if crossed else MOST)


def test_a_cell_below_another_gets_no_more_seeds_and_the_rest_goes_on():
    low, one, two = cells(0.02, 0.6, 0.6)
    found = in_rounds([low, one, two], pairs(3), TASKS, MOST)
    assert 0 in found.out
    assert found.seeds == (2, MOST, MOST)
    assert found.best is None
    assert not found.settled


def test_the_next_look_says_whose_seeds_it_needs():
    low, one, two = cells(0.02, 0.6, 0.6)
    found = in_rounds([low[:2], one[:2], two[:2]], pairs(3), TASKS, MOST)
    assert (found.growing, found.next_seeds, found.looks) == ((1, 2), 3, 1)
    # rows beyond what was looked at change nothing
    more = in_rounds([low, one[:2], two[:2]], pairs(3), TASKS, MOST)
    assert (more.growing, more.seeds) == (found.growing, found.seeds)
    none = in_rounds([low[:1], one, two], pairs(3), TASKS, MOST)
    assert (none.looks, none.next_seeds, none.judged) == (0, 2, (None, None, None))


def test_an_interval_that_is_narrow_enough_is_settled():
    rows = cells(0.5, 0.5)
    wide = in_rounds(rows, pairs(2), TASKS, MOST)
    narrow = in_rounds(rows, pairs(2), TASKS, MOST, within=0.2)
    assert wide.seeds == (MOST, MOST)
    assert narrow.seeds[0] < MOST
    assert narrow.settled
    assert narrow.best is None
    assert narrow.judged[0].found.high - narrow.judged[0].found.low <= 0.4


def test_an_interaction_is_one_contrast_of_four_cells():
    rows = cells(0.95, 0.05, 0.5, 0.5)
    found = in_rounds(rows, [(1.0, -1.0, -1.0, 1.0)], TASKS, MOST)
    assert found.judged[0].sign == 1
    assert found.settled
    assert found.out == frozenset()  # no cell is above another by it


def test_the_verdict_is_that_of_the_looks():
    low, encoder, code = cells(0.2, 0.8, 0.22)
    words = {"encoder": (encoder, "replacing the encoder"), "code": (code, "replacing the code")}
    rounds = in_rounds([low, encoder, code], pairs(3), TASKS, MOST)
    verdict = locate_in_rounds(low, words, None, TASKS, rounds)
    assert (verdict.kind, verdict.stage) == ("binds", "encoder")
    assert "the bottleneck is the encoder" in verdict.sentence
    assert f"Looked at {rounds.looks} time" in verdict.sentence
    assert [g.contrast.method[:8] for g in verdict.gains] == ["adjusted", "adjusted"]
    none = in_rounds([low[:3], low[:3], code[:3]], pairs(3), TASKS, 3)
    tie = locate_in_rounds(
        low[:3], {"encoder": (low[:3], "one"), "code": (code[:3], "two")}, None, TASKS, none
    )
    assert (tie.kind, tie.stage) == ("not-separated", None)
    assert "further" not in tie.sentence


def test_simulated_studies_are_cheaper_and_seldom_wrong():
    """The full figures are the calibration's; here 40 studies must lie where these say, within their luck."""
    setting = Setting(8, 40, seed_sd=3.0, rate=40.0)
    large = grow(setting, 45.0, 40)
    assert large.right > 0.9
    assert large.wrong == 0
    assert large.seeds < 4
    assert sorted(large.fixed) == list(range(2, 9))
    assert large.fixed[8] == 1
    assert large.equal_seeds() <= 8
    none = grow(setting, 0.0, 40, fixed_designs=False)
    assert (none.right, none.fixed) == (0, {})
    assert none.wrong <= 0.1
    assert none.covered > 0.85
    assert grow(setting, 0.0, 5, fixed_designs=False) == grow(setting, 0.0, 5, fixed_designs=False)


def test_an_interval_ends_where_differences_do():
    found = in_rounds([np.zeros((2, 8)), np.ones((2, 8))], pairs(2), np.zeros(8, int), MOST).judged[0].found
    assert found.value == 1
    assert 0 < found.low < found.high == 1
    nothing = in_rounds([np.zeros((2, 8))] * 2, pairs(2), np.zeros(8, int), MOST)
    assert nothing.out == frozenset()
