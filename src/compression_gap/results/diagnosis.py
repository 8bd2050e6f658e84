"""The diagnosis of one policy, read from its episodes: what its success is sensitive to, and what it does not need."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import __version__
from ..artifacts.episodes import Episodes
from ..artifacts.policy_episodes import PolicyEpisodes
from ..errors import UserError
from ..statistics.intervals import Interval, holm, rate_interval
from ..statistics.paired import paired_difference
from ..store.store import Store
from ..study.diagnosis import Condition, Curve, Diagnosis, Group
from .records.diagnosis import Changed, Diagnosed, Needed

SHARE = 0.9  # of the undisturbed success that "kept" means
# Whether more of the axis is a greater change, by group; codes, pixels and the like are milder the more there are.
RISING: dict[Curve, bool] = {
    "code": False,
    "white": True,
    "offset": True,
    "averaged": False,
    "blurred": True,
    "horizon": True,
}


def undisturbed_rows(made: Diagnosis[PolicyEpisodes], store: Store) -> dict[str, np.ndarray]:
    """The episodes of the policy as it is. Raises ``UserError`` if it succeeds in none: nothing follows from them then."""
    rows = made.undisturbed.load(store)
    if not rows["success"].any():
        raise UserError(
            f"{made.subject.identity.name} succeeds in none of {len(rows['success'])} episodes as it is, so no change can "
            "be told from it: see whether the binding, the camera and the actions are right (cgap rollout --out videos)"
        )
    return rows


def read_diagnosis(made: Diagnosis[PolicyEpisodes], store: Store) -> Diagnosed:
    """All that the page and the terminal show. Raises ``UserError`` where the policy never succeeds as it is."""
    protocol = made.undisturbed.protocol
    rows = undisturbed_rows(made, store)
    plain, tasks = rows["success"].astype(float), rows["task"]
    outcomes = [_success(store, c.measured) for c in made.conditions]
    strata = np.unique(tasks, return_inverse=True)[1]
    differences = [paired_difference(success, plain) for success in outcomes]
    adjusted = holm([d.p for d in differences])
    changes = [
        Changed(
            group=c.group,
            name=c.measured.words,
            size=size_of(c, store),
            rate=rate_interval(success[None], strata),
            difference=difference,
            p=p,
            per_task={
                str(t): paired_difference(success[tasks == t], plain[tasks == t])
                for t in dict.fromkeys(tasks)
            },
            lost=int((success < plain).sum()),
            gained=int((success > plain).sum()),
            expert=None if c.expert is None else float(_success(store, c.expert).mean()),
        )
        for c, success, difference, p in zip(made.conditions, outcomes, differences, adjusted, strict=True)
    ]
    points = [
        Point(c.group, "" if c.code is None else c.code.name, found.size, success)
        for c, found, success in zip(made.conditions, changes, outcomes, strict=True)
        if found.size is not None
    ]
    needed = _needed(points, plain, tasks, protocol.execute)
    undisturbed = rate_interval(plain[None], strata)
    return Diagnosed(
        version=__version__,
        policy=made.subject.identity.name,
        served=made.subject.where.folder is None,
        tasks=protocol.sim.tasks,
        suite=protocol.sim.sim,
        episodes=len(plain),
        execute=protocol.execute,
        horizon=made.subject.horizon,
        protocol=protocol.hash,
        own_chunks=made.own_chunks,
        undisturbed=undisturbed,
        per_task={str(t): _rate(plain[tasks == t]) for t in dict.fromkeys(tasks)},
        references={n: _rate(_success(store, of)) for n, of in made.references.items()},
        changes=changes,
        needed=needed,
        skipped=made.skipped,
        sentences=sentences(undisturbed, len(plain), changes, needed, protocol.execute),
    )


def _success(store: Store, of: Episodes | PolicyEpisodes) -> np.ndarray:
    return of.load(store)["success"].astype(float)


def _rate(success: np.ndarray) -> Interval:
    return rate_interval(success[None], np.zeros(len(success), int))


def size_of(condition: Condition[Any], store: Store) -> float | None:
    """On the group's axis; of a code, its bits a chunk."""
    if condition.measured.tokenizer is None:
        return condition.size
    fitted, prefix = condition.measured.tokenizer.load(store), condition.measured.prefix
    if prefix is None:
        return float(fitted.capacity_bits)
    return float(sum(log2(n) for n in fitted.codebook_sizes[:prefix]))


class Point(NamedTuple):
    """A change with a place on its group's axis, and its outcomes [states]; ``of``: the tokenizer, of codes."""

    group: Group
    of: str
    size: float
    success: np.ndarray


def _needed(points: Sequence[Point], plain: np.ndarray, tasks: np.ndarray, made: int) -> list[Needed]:
    """Where success falls below ``SHARE`` of the undisturbed one, on each axis with three points or more.

    ``made``: actions a decision that the policy is made for; fewer are no greater change.
    """
    out = []
    for group, rising in RISING.items():
        own = [p for p in points if p.group == group and (group != "horizon" or p.size > made)]
        for of in dict.fromkeys(p.of for p in own):
            curve = [p for p in own if p.of == of]
            if len(curve) > 2:
                success = np.stack([p.success for p in curve])
                value, low, high, bound = fall([p.size for p in curve], success, plain, tasks, rising=rising)
                out.append(
                    Needed(group=group, of=of, value=value, low=low, high=high, bound=bound, share=SHARE)
                )
    return out


def fall(
    sizes: Sequence[float], success: np.ndarray, plain: np.ndarray, tasks: np.ndarray, *, rising: bool
) -> tuple[float, float, float, Literal["", "all", "none"]]:
    """Where success falls below ``SHARE`` of the undisturbed one, with its 95 % interval and its bound (``Needed``).

    ``sizes`` [S] of the changes, above 0; ``success`` [S, states] under each, ``plain`` [states] without; ``tasks``
    [states]. ``rising``: a larger size is a greater change; else sizes (bits, pixels) enter by their inverse. The curve
    and its draws are those of σ* (``information.resolution.task_resolution``).
    """
    from ..information.resolution import task_resolution

    def turned(x: float) -> float:
        return x if rising else 1.0 / x

    at = sorted((turned(size), i) for i, size in enumerate(sizes))
    star = task_resolution(
        [x for x, _ in at], np.stack([success[i] for _, i in at]), plain, tasks, share=SHARE
    )
    low, high = sorted((turned(star.low), turned(star.high)))
    bound: Literal["", "all", "none"] = {"above": "all", "below": "none"}.get(star.bound, "")  # type: ignore[assignment]
    return turned(star.value), low, high, bound


WORDS: dict[Group, str] = {
    "code": "coarser codes of its chunks",
    "white": "noise on its actions",
    "offset": "a constant offset of its actions",
    "averaged": "coarser images",
    "blurred": "blurred images",
    "colour": "images without colour",
    "camera": "a black camera",
    "horizon": "another number of actions a decision",
    "state": "its own state at the mean",
    "prompt": "another prompt",
}
LARGE = 0.1  # a fall in rate that is called one
ALPHA = 0.05
WIDE = 4.0  # a place on an axis whose interval's ends differ by this factor is not told


def sentences(
    undisturbed: Interval, episodes: int, changes: Sequence[Changed], needed: Sequence[Needed], execute: int
) -> list[str]:
    """What the policy is sensitive to, what it does not need, how many bits it uses, and what to try next."""
    rate = undisturbed.points()
    out = [
        f"As it is, the policy succeeds in {rate.value:.0f} % [{rate.low:.0f}, {rate.high:.0f}] of {episodes} episodes."
    ]
    small = min(LARGE, (1 - SHARE) * undisturbed.value)
    hurt = [c for c in changes if c.p < ALPHA and c.difference.value < 0]
    sensitive = list(dict.fromkeys(c.group for c in sorted(hurt, key=lambda c: c.difference.value)))
    if sensitive:
        out.append(f"Its success falls with {listed([WORDS[g] for g in sensitive])}.")
    spared = [
        g
        for g in dict.fromkeys(c.group for c in changes)
        if all(c.difference.low > -small for c in changes if c.group == g)
    ]
    if spared:
        out.append(
            f"It loses less than {100 * small:.0f} points (95 %) with {listed([WORDS[g] for g in spared])}, "
            "as far as was tried."
        )
    told = [n for n in needed if n.group in sensitive or (not n.bound and n.high < WIDE * n.low)]
    out += [_need(n) for n in told]
    known = {*sensitive, *spared, *(n.group for n in told)}
    open_ = [g for g in dict.fromkeys(c.group for c in changes) if g not in known]
    if open_:
        out.append(
            f"These episodes cannot tell what {listed([WORDS[g] for g in open_])} cost it; more would."
        )
    return out + _next(hurt, needed, execute)


UNITS: dict[Group, tuple[str, str]] = {
    "code": ("at least", "bits a chunk"),
    "averaged": ("at least", "pixels across"),
    "white": ("up to", "standard deviations of noise on its actions"),
    "offset": ("up to", "standard deviations of offset"),
    "blurred": ("up to", "of the image's width of blur"),
    "horizon": ("up to", "actions a decision"),
}


def _short(value: float) -> str:
    """Two digits, and no powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def _need(found: Needed) -> str:
    least, unit = UNITS[found.group]
    of = f" ({found.of})" if found.of else ""
    kept = f"It keeps {100 * found.share:.0f} % of its success"
    if found.bound == "none":
        return (
            f"{kept} at none of the changes tried: the mildest, {_short(found.value)} {unit}{of}, costs more."
        )
    if found.bound == "all":
        return f"No fall below {100 * found.share:.0f} % of it was seen, to {_short(found.value)} {unit}{of}."
    return (
        f"{kept} with {least} {_short(found.value)} [{_short(found.low)}, {_short(found.high)}] {unit}{of}."
    )


def _next(hurt: Sequence[Changed], needed: Sequence[Needed], execute: int) -> list[str]:
    """What the sensitivities suggest to look at; they prove no gain."""
    codes = [n for n in needed if n.group == "code"]
    if codes and all(n.bound == "none" for n in codes) and any(c.group == "code" for c in hurt):
        return ["No code tried keeps its success: a tokenizer for it needs more bits than these."]
    if any(c.group == "horizon" and (c.size or 0) > execute for c in hurt):
        return ["Try fewer actions a decision before a larger encoder: it costs nothing to train."]
    return []


def listed(words: Sequence[str]) -> str:
    """Words joined by commas and "and"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
