"""A study that grows by seeds until its question is answered: each round builds what the next look needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from ..errors import UserError, counted
from ..results.rounds import as_if_measured, measurement, narrowed, state
from ..statistics.sequential import LEAST_SEEDS
from ..store.engine import missing_steps
from ..store.outcome import Outcome
from ..study.file import Study, Until
from .build import own_failures
from .follower import Follower
from .options import Running
from .study import OpenStudy, build_study, keep_study

NEEDS = {
    "bottleneck": "add oracle to factors.encoder, a continuous head beside the tokens, or a larger size",
    "upgrade": "it takes two encoders",
    "interaction": "it takes two encoders under two action representations",
}


def asked_until(study: Study, until: Literal["separated"] | None, within: float | None) -> Study:
    """The study as these options ask for it: to grow by seeds, as its section ``until`` says, or for the bottleneck."""
    if until is None and within is None:
        return study
    if until is None and study.until is None:
        raise UserError("--within is a width at which --until separated stops: give both")
    if within is not None and not 0 < within < float("inf"):
        raise UserError(f"--within {within} is no width; give percentage points above 0")
    section = study.until or Until()
    return study.model_copy(
        update={"until": section if within is None else section.model_copy(update={"within": within})}
    )


def run_study(
    opened: OpenStudy,
    running: Running,
    *,
    retry: bool = False,
    followers: Sequence[Follower] = (),
    say: Callable[[str], None] = lambda state: None,
) -> tuple[Outcome, int]:
    """Build what is missing of a study, in rounds where it grows by seeds; how that went, and how many steps are left.

    ``say`` is told what each look says.
    """
    if opened.study.until is None:
        outcome = build_study(opened, running, retry=retry, followers=followers)
        return outcome, len(missing_steps(opened.plan, opened.store))
    return _build_in_rounds(opened, running, say, retry=retry, followers=followers)


def _build_in_rounds(
    opened: OpenStudy,
    running: Running,
    say: Callable[[str], None],
    *,
    retry: bool,
    followers: Sequence[Follower],
) -> tuple[Outcome, int]:
    """Build what the question of a study needs, look by look; how that went, and how many steps are left.

    The budget is that of all rounds. Goes on from the rows that are there, since looks hang on them alone.
    """
    _check_question(opened)
    deadline = None if running.seconds is None else time.monotonic() + running.seconds
    keep_study(opened)
    whole, before, ended = Outcome(), set[str](), False
    while True:
        of = measurement(opened.plan, opened.store)
        if before and not whole.stopped:
            say(state(of))
        look = replace(opened, plan=narrowed(opened.plan, of))
        missing = {s.key for s in missing_steps(look.plan, opened.store)}
        # what another run on the store has built is not in this one's outcome, but no longer missing either
        if ended or not missing or missing == before:
            return whole, len(missing)
        before = missing
        if deadline is not None:
            running = replace(running, budget=f"{max(deadline - time.monotonic(), 0):.0f}s")
        outcome = build_study(look, running, retry=retry, followers=followers)
        whole.built += outcome.built
        whole.failures |= outcome.failures
        whole.stopped, whole.interrupted = outcome.stopped, outcome.interrupted
        ended = outcome.stopped or any(f["kind"] != "diverged" for f in own_failures(outcome))
        retry = False


def _check_question(opened: OpenStudy) -> None:
    """Refuse, before anything is built, a study that cannot be looked at in rounds or that does not hold its question."""
    until, seeds = opened.study.until, opened.study.factors.seed
    assert until is not None
    if len(seeds) < LEAST_SEEDS:
        raise UserError(
            f"the study has {counted(len(seeds), 'seed')}: to grow by seeds until its question is answered it needs "
            f"{LEAST_SEEDS} or more in factors.seed, which holds the most; the first look takes {LEAST_SEEDS - 1}"
        )
    if not as_if_measured(measurement(opened.plan, opened.store)).asked(until.question):
        raise UserError(
            f"until.question: nothing in the study answers '{until.question}': {NEEDS[until.question]}"
        )
