"""Policies compared on the episodes that they share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np

from .. import __version__
from ..errors import UserError, counted
from ..statistics.bottleneck import locate
from ..statistics.intervals import contrast, holm, rate_interval
from ..statistics.paired import further_pairs, paired_difference, sign_flip_p
from .outcomes.record import Episode, PolicyOutcomes
from .records.compared import ComparedPair, ComparedPolicies, ComparedPolicy, Difference


def compare_policies(policies: Sequence[PolicyOutcomes]) -> ComparedPolicies:
    """Every pair of policies. Raises ``UserError`` for fewer than two, and for two that share no episode."""
    names = [p.name for p in policies]
    if len(policies) < 2:
        raise UserError("one policy has nothing to be compared with; name two or more files")
    if double := sorted({n for n in names if names.count(n) > 1}):
        raise UserError(f"two policies are called {double[0]}; name them apart, as in NAME=FILE")
    if len({p.protocol for p in policies if p.protocol is not None}) > 1:
        raise UserError(
            "the policies were evaluated under different protocols (their hashes differ): rates of different "
            "protocols cannot be compared; roll them out alike"
        )
    rates = [_policy(p) for p in policies]
    shared = [_shared(a, b) for a, b in combinations(policies, 2)]
    pooled = [_difference(s.first, s.second, _strata(s.episodes)) for s in shared]
    pairs = [
        _pair(s, d, p, len(shared))
        for s, d, p in zip(shared, pooled, holm([d.p for d in pooled]), strict=True)
    ]
    return ComparedPolicies(version=__version__, policies=rates, pairs=pairs, notes=_notes(policies, pairs))


def _episodes(policy: PolicyOutcomes) -> list[Episode]:
    """Those that every training seed has, in order."""
    shared = set.intersection(*(set(of) for of in policy.seeds.values()))
    return sorted(shared)


def _outcomes(policy: PolicyOutcomes, episodes: Sequence[Episode]) -> np.ndarray:
    """[seeds, episodes]."""
    return np.array([[of[e] for e in episodes] for of in policy.seeds.values()])


def _strata(episodes: Sequence[Episode]) -> np.ndarray:
    return np.unique([e.task for e in episodes], return_inverse=True)[1]


def _policy(policy: PolicyOutcomes) -> ComparedPolicy:
    episodes = _episodes(policy)
    if not episodes:
        raise UserError(
            f"the training seeds of {policy.name} share no episode: each must be run on the same states"
        )
    values, tasks = _outcomes(policy, episodes), np.array([e.task for e in episodes])
    return ComparedPolicy(
        name=policy.name,
        seeds=len(values),
        episodes=len(episodes),
        rate=rate_interval(values, _strata(episodes)),
        per_task={
            str(t): rate_interval(values[:, tasks == t], np.zeros((tasks == t).sum(), int))
            for t in dict.fromkeys(tasks)
        },
    )


class _Shared(NamedTuple):
    """Two policies' outcomes [seeds, episodes] on the episodes that both have, and how many each has besides."""

    names: tuple[str, str]
    episodes: list[Episode]
    first: np.ndarray
    second: np.ndarray
    besides: tuple[int, int]


def _shared(a: PolicyOutcomes, b: PolicyOutcomes) -> _Shared:
    own, other = _episodes(a), _episodes(b)
    both = sorted({*own} & {*other})
    if not both:
        raise UserError(
            f"{a.name} and {b.name} share no episode: {a.name} has {_example(own)}, {b.name} {_example(other)}; run both "
            "on the same tasks and initial states"
        )
    besides = (len(own) - len(both), len(other) - len(both))
    return _Shared((a.name, b.name), both, _outcomes(a, both), _outcomes(b, both), besides)


def _pair(of: _Shared, pooled: Difference, corrected: float, pairs: int) -> ComparedPair:
    """The pair, its p ``corrected`` over so many ``pairs``."""
    tasks = np.array([e.task for e in of.episodes])
    seeds = (len(of.first), len(of.second))
    further = _further(of.first, of.second, pooled, _strata(of.episodes))
    return ComparedPair(
        first=of.names[0],
        second=of.names[1],
        pooled=pooled,
        holm=corrected,
        per_task={
            str(t): _difference(
                of.first[:, tasks == t], of.second[:, tasks == t], np.zeros((tasks == t).sum(), int)
            )
            for t in dict.fromkeys(tasks)
        },
        only_first=of.besides[0],
        only_second=of.besides[1],
        seeds=seeds,
        seeds_known=min(seeds) > 1,
        further_episodes=further.episodes,
        further_seeds=further.seeds,
        sentence=_sentence(of.names, pooled, corrected if pairs > 1 else None, seeds, further),
    )


def _example(episodes: Sequence[Episode]) -> str:
    return f"{episodes[0].task} from initial state {episodes[0].state} on"


def _difference(first: np.ndarray, second: np.ndarray, strata: np.ndarray) -> Difference:
    """One run of each, and as many episodes of every task: exact over episodes. Else training seeds are a level.

    A rate is the mean over tasks: where tasks differ in their episodes, episodes do not count alike, and the exact test is
    the one of that mean.
    """
    if len(first) == len(second) == 1 and len(set(np.bincount(strata))) == 1:
        found = paired_difference(first[0], second[0])
        return Difference(
            value=found.value,
            low=found.low,
            high=found.high,
            p=found.p,
            pairs=found.pairs,
            method=found.method,
        )
    over = contrast([first, second], (1.0, -1.0), strata)
    p, method = over.p, over.method
    if len(first) == len(second) == 1 and np.isin([first, second], (0, 1)).all():
        flips = sign_flip_p(first[0], second[0], strata)
        if flips is not None:
            p, method = flips, f"{over.method}, p of the exact sign-flip test"
    return Difference(
        value=over.value, low=over.low, high=over.high, p=p, pairs=first.shape[1], method=method
    )


class _Further(NamedTuple):
    """Episodes, and seeds, that would separate two policies; None where they are separated, or none would."""

    episodes: int | None = None
    seeds: int | None = None


def _further(first: np.ndarray, second: np.ndarray, pooled: Difference, strata: np.ndarray) -> _Further:
    if pooled.p < 0.05 or pooled.value == 0:
        return _Further()
    if len(first) == len(second) == 1:
        return _Further(further_pairs(first[0], second[0]))
    if len(first) == 1 or len(second) == 1:
        return _Further()
    better, worse = (first, second) if pooled.value > 0 else (second, first)
    advice = locate(worse, {"policy": (better, "the other")}, None, strata)
    return _Further(advice.further_episodes, advice.further_seeds)


def _sentence(
    names: tuple[str, str], found: Difference, holm: float | None, seeds: tuple[int, int], further: _Further
) -> str:
    """``holm``: the corrected p, where there are several pairs."""
    size = abs(round(100 * found.value))
    low, high = (round(100 * x) + 0 for x in (found.low, found.high))
    if found.value < 0:
        low, high = -high, -low
    p = f"{'exact ' if 'exact' in found.method else ''}p {found.p:.2g}"
    p += "" if holm is None else f", {holm:.2g} after Holm"
    runs = "" if seeds == (1, 1) else f", {seeds[0]} and {seeds[1]} training seeds"
    if "scores" in found.method:
        said = f"scores {counted(size, 'point')} {'higher' if found.value >= 0 else 'lower'} than"
    else:
        said = f"succeeds {counted(size, 'point')} {'more' if found.value >= 0 else 'less'} often than"
    interval = f"95 % CI {low} to {high}".replace("-", "−")
    text = (
        f"{names[0]} {said} {names[1]} ({interval}; {p}) on {counted(found.pairs, 'shared episode')}{runs}."
    )
    if (found.p if holm is None else holm) < 0.05:
        known = min(seeds) > 1
        return text + ("" if known else " This is about these two trainings: seed variance is unknown.")
    more = [f"{further.episodes} more episodes"] if further.episodes else []
    more += [f"{counted(further.seeds, 'more training seed')} each"] if further.seeds else []
    if not more:
        return f"{text} They are not separated."
    return f"{text} They are not separated; about {' or '.join(more)} would separate one pair, if the difference is as measured."


def _notes(policies: Sequence[PolicyOutcomes], pairs: Sequence[ComparedPair]) -> list[str]:
    out = []
    if ordered := [p.name for p in policies if p.numbering == "by order"]:
        out.append(
            f"The episodes of {', '.join(ordered)} are paired by their order: the file does not number initial states. "
            "If they did not start alike, the intervals are too narrow or too wide."
        )
    for pair in pairs:
        if pair.only_first or pair.only_second:
            out.append(
                f"Of {pair.first}, {counted(pair.only_first, 'episode')} and of {pair.second} {pair.only_second} do not "
                "pair up: they count in the rates, not in the difference."
            )
    if any(not p.seeds_known for p in pairs):
        out.append(
            "Where a policy has one training seed, seed variance is unknown: the difference is one of these trainings, "
            "not of the methods."
        )
    return out
