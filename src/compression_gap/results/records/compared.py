"""Policies compared, as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...statistics.intervals import Interval


@dataclass(frozen=True, kw_only=True)
class ComparedPolicy:
    """One policy over all of its own episodes."""

    name: str
    seeds: int
    episodes: int  # of each seed, at least
    rate: Interval
    per_task: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """First less second, as a fraction, on the episodes that both have; ``p`` two-sided, not corrected."""

    value: float
    low: float
    high: float
    p: float
    pairs: int
    method: str


@dataclass(frozen=True, kw_only=True)
class ComparedPair:
    """Two policies on the episodes that pair up.

    ``only_first``, ``only_second``: episodes that one of them alone has; ``seeds``: training seeds of each; ``holm``: p corrected over all pairs;
    ``further_episodes``, ``further_seeds``: about so many more would separate them with a chance of 80 %, if the
    difference is as measured; None where it is separated, or nothing in reach would.
    """

    first: str
    second: str
    pooled: Difference
    holm: float
    per_task: Mapping[str, Difference]
    only_first: int
    only_second: int
    seeds: tuple[int, int]
    seeds_known: bool
    further_episodes: int | None
    further_seeds: int | None
    sentence: str


@dataclass(frozen=True, kw_only=True)
class ComparedPolicies:
    """All policies, and all pairs of them; ``notes``: what has to be known of the pairing."""

    version: str
    policies: Sequence[ComparedPolicy]
    pairs: Sequence[ComparedPair]
    notes: Sequence[str]
