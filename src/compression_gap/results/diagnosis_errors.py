"""The diagnosis of one policy on recordings: which changes move its chunks away from the recorded ones."""

from __future__ import annotations

import numpy as np

from .. import __version__
from ..artifacts.policy_errors import PolicyErrors
from ..errors import UserError, counted
from ..statistics.intervals import contrast, holm
from ..statistics.variance import ERRORS
from ..store.store import Store
from ..study.diagnosis import Diagnosis
from .diagnosis import ALPHA, WORDS, listed, size_of
from .records.diagnosis import ChangedError, DiagnosedErrors


def read_recorded(made: Diagnosis[PolicyErrors], store: Store) -> DiagnosedErrors:
    """All that the page and the terminal show. Raises ``UserError`` for fewer than two held-out episodes."""
    whole = made.undisturbed.load(store)
    if len(whole) < 2:
        raise UserError(
            "one held-out episode has no spread to judge by: name recordings of at least 20 episodes, of which two are held "
            "out"
        )
    strata = np.zeros(len(whole), int)
    found = []
    for c in made.conditions:
        errors = c.measured.load(store)
        d = contrast([errors[None], whole[None]], (1.0, -1.0), strata, outcomes=ERRORS)
        found.append((c, float(errors.mean()), d))
    adjusted = holm([d.p for *_, d in found])
    changes = [
        ChangedError(
            group=c.group,
            name=c.measured.words,
            size=size_of(c, store),
            error=error,
            value=d.value,
            low=d.low,
            high=d.high,
            p=p,
        )
        for (c, error, d), p in zip(found, adjusted, strict=True)
    ]
    return DiagnosedErrors(
        version=__version__,
        policy=made.subject.identity.name,
        served=made.subject.where.folder is None,
        tasks=made.tasks,
        recordings=[d.key for d in made.undisturbed.demos],
        episodes=len(whole),
        points=store.meta(made.undisturbed)["points"],
        horizon=made.subject.horizon,
        undisturbed=float(whole.mean()),
        changes=changes,
        skipped=made.skipped,
        sentences=_sentences(float(whole.mean()), len(whole), changes),
    )


def _sentences(own: float, episodes: int, changes: list[ChangedError]) -> list[str]:
    out = [
        f"On {counted(episodes, 'episode')} of the recordings' test split its chunks are {own:.3g} standard deviations² from "
        "the recorded ones."
    ]
    moved = sorted((c for c in changes if c.p < ALPHA and c.value > 0), key=lambda c: -c.value)
    if groups := list(dict.fromkeys(c.group for c in moved)):
        out.append(f"They move away with {listed([WORDS[g] for g in groups])}.")
    if still := [g for g in dict.fromkeys(c.group for c in changes) if g not in groups]:
        out.append(f"No change is told from none with {listed([WORDS[g] for g in still])}.")
    out.append(
        "Nothing was executed: a chunk error says whether the policy reacts to a change, not whether it would fail. Whether "
        "it was trained on these episodes is not known here."
    )
    return out
