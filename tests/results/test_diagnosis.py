"""The diagnosis against known truths: policies on the channel whose vision and code are limited by known amounts."""

import itertools

import numpy as np
import pytest

from compression_gap.results.diagnosis import SHARE, fall, sentences
from compression_gap.results.records.diagnosis import Changed, Needed
from compression_gap.sims.channel import EPSILON
from compression_gap.statistics.intervals import Interval
from compression_gap.statistics.paired import PairedDifference
from compression_gap.study.diagnosis import BINS

PIXELS = np.array([1, 2, 4, 8, 16, 32, 64])
LEVELS = np.geomspace(2, 256, 200)  # on which the true curve is looked up


def middle(goal, levels):
    """The middle of each value's cell, of so many cells over [−1, 1]."""
    return (np.clip(np.floor((goal + 1) * levels / 2), 0, levels - 1) + 0.5) * 2 / levels - 1


def solves(ends, goal):
    return (np.abs(ends - goal).max(1) <= EPSILON).astype(float)


def true_success(own, through):
    """Of a dithered code of ``own`` levels whose end points go through ``through`` levels, in two dimensions.

    The errors are uniform on ±1/own and ±1/through: P(|e₁ + e₂| ≤ ε), squared.
    """
    a, b = max(1 / own, 1 / through), min(1 / own, 1 / through)
    x = np.linspace(-b, b, 2001)
    inside = (np.minimum(EPSILON - x, a) - np.maximum(-EPSILON - x, -a)).clip(0) / (2 * a)
    return float(inside.mean()) ** 2


def true_bits(own):
    """The bits of two numbers at which success is the share of that without a further code."""
    rates = np.array([true_success(own, n) for n in LEVELS])
    return 2 * np.log2(LEVELS[rates >= SHARE * true_success(own, 1e9)][0])


def test_codes_that_are_known_are_found():
    """Policies that emit end points in a known number of levels, each with a dither of its own: bits within × 1.5."""
    right = []
    for own, seed in itertools.product((6, 8, 10, 16, 64), range(5)):
        rng = np.random.default_rng([own, seed])
        goal, dither = rng.uniform(-1, 1, (200, 2)), rng.uniform(-1, 1, (200, 2)) / own
        ends = middle(goal + dither, own) - dither
        through = np.stack([solves(middle(ends, n), goal) for n in BINS])
        bits = 2 * np.log2(np.array(BINS))
        found = fall(bits, through, solves(ends, goal), np.zeros(200, int), rising=False)
        right.append(true_bits(own) / 1.5 <= found[0] <= true_bits(own) * 1.5)
    assert np.mean(right) >= 0.95


def test_resolutions_that_are_known_are_found():
    """Policies that see the goal in a known number of pixels: within one rung of the ladder.

    With its cell known, the goal is met with probability min(1, ε · pixels)²: a policy that sees 16 or more loses
    with fewer than 10, one that sees 8 with fewer than 8.
    """
    right = []
    for own, seed in itertools.product((8, 16, 64), range(7)):
        goal = np.random.default_rng([own, seed]).uniform(-1, 1, (200, 2))
        seen = np.stack([solves(middle(goal, min(p, own)), goal) for p in PIXELS])
        found = fall(PIXELS.astype(float), seen, seen[-1], np.zeros(200, int), rising=False)
        true = 8 if own == 8 else 10
        right.append(true / 2 <= found[0] <= 2 * true)
    assert np.mean(right) >= 0.95


def changed(group, size, value, p=0.001, low=None):
    d = PairedDifference(
        value=value, low=value - 0.05 if low is None else low, high=value + 0.05, p=p, pairs=100, only_first=0,
        only_second=0, method="",
    )  # fmt: skip
    rate = Interval(0.7 + value, 0.6, 0.8, "")
    return Changed(
        group=group, name=group, size=size, rate=rate, difference=d, p=p, per_task={}, lost=0, gained=0
    )


def need(of, bound):
    return Needed(group="code", of=of, value=50, low=40, high=60, bound=bound, share=SHARE)


def test_fewer_actions_a_decision_are_advised_only_where_more_of_them_hurt():
    whole = Interval(0.7, 0.6, 0.8, "")
    fewer = sentences(whole, 100, [changed("horizon", 1, -0.5), changed("horizon", 16, 0.0, 1.0)], [], 8)
    more = sentences(whole, 100, [changed("horizon", 1, 0.0, 1.0), changed("horizon", 16, -0.5)], [], 8)
    assert not any("Try fewer actions" in s for s in fewer)
    assert any("Try fewer actions" in s for s in more)


def test_no_code_keeps_its_success_only_where_none_does():
    whole, hurt = Interval(0.7, 0.6, 0.8, ""), [changed("code", 32, -0.5)]
    some = sentences(whole, 100, hurt, [need("bins", ""), need("oat", "none")], 8)
    none = sentences(whole, 100, hurt, [need("bins", "none"), need("oat", "none")], 8)
    assert not any("No code tried" in s for s in some)
    assert any("No code tried" in s for s in none)


def test_a_weak_policy_is_not_said_to_do_without_what_may_be_all_of_its_success():
    said = sentences(
        Interval(0.05, 0.02, 0.1, ""), 200, [changed("camera", None, -0.05, 0.08, low=-0.09)], [], 8
    )
    assert not any("It loses less than" in s for s in said)
    assert any("cannot tell" in s for s in said)


def test_what_never_falls_and_what_falls_at_once_are_bounds():
    plain, tasks = np.ones(100), np.array(["t"] * 100)
    kept = np.ones((4, 100))
    value, _, _, bound = fall([1.0, 2, 4, 8], kept, plain, tasks, rising=False)
    assert (value, bound) == (1.0, "all")
    value, _, _, bound = fall([1.0, 2, 4, 8], 0 * kept, plain, tasks, rising=True)
    assert (value, bound) == (1.0, "none")
    value, _, _, bound = fall([1.0, 2, 4, 8], 0 * kept, plain, tasks, rising=False)
    assert (value, bound) == (8.0, "none")


@pytest.mark.parametrize("rising", [True, False])
def test_an_interval_holds_its_value(rising):
    rng = np.random.default_rng(0)
    sizes = [1.0, 2, 4, 8, 16]
    chance = np.array([0.9, 0.85, 0.6, 0.2, 0.0])
    success = (rng.random(150) < (chance if rising else chance[::-1])[:, None]).astype(float)
    value, low, high, bound = fall(
        sizes, success, (rng.random(150) < 0.9).astype(float), np.zeros(150, int), rising=rising
    )
    assert low <= value <= high
    assert not bound
    assert (1 < value < 8) if rising else (2 < value < 16)
