"""Which stage is the bottleneck: replace one at a time by its upper bound, and say no more than the evidence holds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from compression_gap.errors import counted
from compression_gap.statistics.intervals import Contrast, components, contrast, resample_rates
from compression_gap.statistics.power import TARGET, chance
from compression_gap.statistics.rounds import Rounds

STAGES = ("encoder", "code", "policy")
LEAD = 0.95  # share of the resamples in which a stage must lead to be called binding
SMALL = 0.05  # a single gain up to this size (in rate) can count as near 0
MOST_FURTHER_SEEDS = 50
MOST_FURTHER_EPISODES = 1000
DRAWS = 4000

Kind = Literal["binds", "jointly-bound", "not-separated"]


@dataclass(frozen=True, kw_only=True)
class VerdictCounts:
    """How many verdicts were right where one stage leads, and how many named one where none does."""

    cells: int
    right: int
    wrong: int
    unresolved: int
    accuracy: float | None
    ties: int
    named_in_ties: int


@dataclass(frozen=True)
class Gain:
    """What success gains when one stage is replaced by its upper bound; ``what`` says by which."""

    stage: str
    contrast: Contrast
    what: str


@dataclass(frozen=True)
class Verdict:
    """The answer. ``share`` is the share of resamples in which the best stage leads with a gain above 0."""

    kind: Kind
    stage: str | None
    share: float
    gains: list[Gain]
    joint: Contrast | None
    sentence: str
    further_seeds: int | None
    further_episodes: int | None = None


def locate(
    cell: ArrayLike,
    relaxed: Mapping[str, tuple[ArrayLike, str]],
    joint: ArrayLike | None,
    strata: ArrayLike,
    *,
    seed: int = 0,
    advise: bool = True,
) -> Verdict:
    """The bottleneck of the policy under test, ``cell``.

    ``relaxed`` maps a stage to the outcomes with its upper bound in its place and to words for which; ``joint`` has both
    encoder and code replaced. A stage is the bottleneck when it leads in at least 95 % of the resamples, its own gain's
    interval is above 0 and so is that of its lead over every other stage. Where a cell has one seed none is named.
    ``advise``: where none is named, say how many further seeds or episodes would name one.
    """
    if not relaxed:
        raise ValueError("no stage was replaced by an upper bound")
    stages = list(relaxed)
    arrays = [np.asarray(relaxed[stage][0], dtype=np.float64) for stage in stages]
    base = np.asarray(cell, dtype=np.float64)
    gains = [
        Gain(stage, contrast([array, base], [1, -1], strata), relaxed[stage][1])
        for stage, array in zip(stages, arrays, strict=True)
    ]
    both = None if joint is None else np.asarray(joint, dtype=np.float64)
    joint_gain = None if both is None else contrast([both, base], [1, -1], strata)

    rates = resample_rates([base, *arrays], strata, DRAWS, np.random.default_rng(seed))
    drawn = rates[:, 1:] - rates[:, :1]
    shares = []
    for i in range(len(stages)):
        rival = np.maximum(np.delete(drawn, i, axis=1).max(axis=1, initial=0.0), 0.0)
        shares.append(float((drawn[:, i] > rival + 1e-12).mean()))
    best = max(range(len(stages)), key=lambda i: (gains[i].contrast.value, shares[i]))
    others = [i for i in range(len(stages)) if i != best]
    leads = [contrast([arrays[best], arrays[i]], [1, -1], strata) for i in others]

    kind: Kind = "not-separated"
    # with one seed a lead may be that seed's luck, and nothing says how large such luck is
    known = all(len(array) > 1 for array in (base, *arrays))
    if (
        known
        and shares[best] >= LEAD
        and gains[best].contrast.low > 0
        and all(lead.low > 0 for lead in leads)
    ):
        kind = "binds"
    elif known and both is not None and joint_gain is not None and len(both) > 1 and len(stages) > 1:
        near_zero = all(
            gain.contrast.low <= 0 <= gain.contrast.high and abs(gain.contrast.value) <= SMALL
            for gain in gains
        )
        above = all(contrast([both, array], [1, -1], strata).low > 0 for array in arrays)
        if near_zero and above and joint_gain.low > 0:
            kind = "jointly-bound"

    further = episodes = None
    if kind == "not-separated" and advise:
        differences = [[arrays[best], base], *([arrays[best], arrays[i]] for i in others)]
        further, episodes = _further(differences, strata)
    cells = [base, *arrays, *([] if both is None else [both])]
    sentence = _sentence(kind, best, gains, joint_gain, cells)
    if kind == "not-separated" and advise and known and not _worse(gains):
        sentence += _advice(further, episodes)
    stage = stages[best] if kind == "binds" else None
    return Verdict(kind, stage, shares[best], gains, joint_gain, sentence, further, episodes)


def locate_in_rounds(
    cell: ArrayLike,
    relaxed: Mapping[str, tuple[ArrayLike, str]],
    joint: ArrayLike | None,
    strata: ArrayLike,
    rounds: Rounds,
) -> Verdict:
    """The bottleneck of a policy whose study grows by seeds.

    ``rounds``: of all ``pairs`` of ``cell`` and of what stands for its stages, in this order. A stage is the bottleneck
    when it is the one cell that was not established below another one. Gains know of the looks. That encoder and code are
    the bottleneck together is said when no look is left.
    """
    arrays = [np.asarray(rows, dtype=np.float64) for rows in (cell, *(rows for rows, _ in relaxed.values()))]
    looked = [rows[:seeds] for rows, seeds in zip(arrays, rounds.seeds, strict=True)]
    stages = {s: (looked[1 + i], words) for i, (s, (_, words)) in enumerate(relaxed.items())}
    plain = locate(looked[0], stages, joint, strata, advise=False)
    with_cell = rounds.judged[: len(relaxed)]  # the first of all pairs
    gains = [
        replace(gain, contrast=gain.contrast if judged is None else judged.found)
        for gain, judged in zip(plain.gains, with_cell, strict=True)
    ]
    kind: Kind = "not-separated"
    if rounds.best:
        kind = "binds"
    elif plain.kind == "jointly-bound" and not rounds.growing:
        kind = "jointly-bound"
    best = rounds.best - 1 if rounds.best else int(np.argmax([gain.contrast.value for gain in gains]))
    used = [rows for rows in (*looked, joint) if rows is not None]
    sentence = _sentence(kind, best, gains, plain.joint, [np.asarray(rows) for rows in used])
    sentence += f" Looked at {counted(rounds.looks, 'time')}; the gains' intervals know of it."
    stage = list(relaxed)[best] if kind == "binds" else None
    return replace(plain, kind=kind, stage=stage, gains=gains, sentence=sentence)


def _further(differences: Sequence[Sequence[np.ndarray]], strata: ArrayLike) -> tuple[int | None, int | None]:
    """The least further seeds per cell, and further episodes per seed in tens, with which all differences are found.

    The chance that every one of them is found is to be 80 % (``power.chance``; taken as independent, which is too
    low rather than too high), if the differences are as measured and each cell's seeds spread by the median of their
    posterior. None with one seed in a cell (nothing is known of their spread), for a difference that is not above 0,
    and where 50 seeds or 1,000 episodes would not do.
    """
    found = [components(pair, [1, -1], strata) for pair in differences]
    if any(parts.unknown or parts.value <= 0 for parts in found):
        return None, None
    states = float(differences[0][0].shape[1])

    def together(seeds: int, episodes: int) -> float:
        shrink = states / (states + episodes)
        chances = [
            chance(
                parts.value,
                [part.posterior.median for part in parts.parts],
                [part.noise * shrink for part in parts.parts],
                [part.seeds + seeds for part in parts.parts],
                [part.scale for part in parts.parts],
                max(parts.states - parts.residual, 0.0) * shrink,
                parts.state_df + episodes,
            )
            for parts in found
        ]
        return float(np.prod(chances))

    def least(reached: Callable[[int], bool], most: int) -> int | None:
        if not reached(most):
            return None
        low, high = 0, most  # more never lowers the chance
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if reached(middle) else (middle, high)
        return high

    seeds = least(lambda k: together(k, 0) >= TARGET, MOST_FURTHER_SEEDS)
    tens = least(lambda k: together(0, 10 * k) >= TARGET, MOST_FURTHER_EPISODES // 10)
    return seeds, None if tens is None else 10 * tens


def _points(x: float) -> str:
    """A fraction as whole percentage points, without a minus before 0."""
    return f"{round(100 * x) + 0:d}".replace("-", "−")


def _measured(what: str, found: Contrast, unit: str = "") -> str:
    if round(100 * found.value) >= 0:
        verb, value, low, high = "raises", found.value, found.low, found.high
    else:
        verb, value, low, high = "lowers", -found.value, -found.high, -found.low
    interval = f"95 % CI {_points(low)} to {_points(high)}" if unit else f"{_points(low)} to {_points(high)}"
    said = f"{_points(value)}{'' if not unit else unit if _points(value) == '1' else unit + 's'}"
    return f"{what} {verb} {'success' if unit else 'it'} by {said} ({interval})"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _sentence(
    kind: Kind,
    best: int,
    gains: Sequence[Gain],
    joint: Contrast | None,
    cells: Sequence[np.ndarray],
) -> str:
    order = [best, *(i for i in range(len(gains)) if i != best)]
    measured = [
        _measured(gains[i].what, gains[i].contrast, " percentage point" if position == 0 else "")
        for position, i in enumerate(order)
    ]
    if joint is not None and (kind != "binds"):
        measured.append(_measured("encoder and code together", joint))
    found = "; ".join(measured)
    seeds = sorted({len(array) for array in cells})
    worse = seeds[0] > 1 and _worse(gains)
    if kind == "binds":
        text = f"the bottleneck is the {gains[best].stage}: {found}."
    elif kind == "jointly-bound":
        text = f"the bottleneck is {_list([f'the {gain.stage}' for gain in gains])} together: {found}."
    elif worse:
        text = f"an upper bound in the place of {_list([f'the {gain.stage}' for gain in gains])} does not help: {found}."
    elif seeds[0] == 1:
        text = f"not separated: seed variance is unknown: {found}."
    elif len(gains) == 1:
        text = f"a limit at the {gains[0].stage} is not separated from none: {found}."
    else:
        text = f"the stages are not separated: {found}."
    missing = [stage for stage in STAGES if stage not in {gain.stage for gain in gains}]
    if missing:
        verb = "was" if len(missing) == 1 else "were"
        text += f" {_list([f'the {stage}' for stage in missing]).capitalize()} {verb} not tested."
    number = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    text += f" {number} seed{'' if seeds[-1] == 1 else 's'} x {cells[0].shape[1]} episodes per cell; "
    text += "two seeds or more would tell." if seeds[0] == 1 else "seed variance is included."
    if kind == "not-separated" and worse:
        text += " What was to be a limit did worse, so it is none here: train to convergence and judge again."
    return text


def _worse(gains: Sequence[Gain]) -> bool:
    """Whether every upper bound did worse than what it stands for."""
    return all(gain.contrast.high < 0 for gain in gains)


def _advice(further: int | None, episodes: int | None) -> str:
    """What would separate the stages."""
    more = [] if further is None else [f"{further} further seed{'' if further == 1 else 's'} per cell"]
    more += [] if episodes is None else [f"{episodes} further episodes per seed"]
    if more:
        return (
            f" About {' or '.join(more)} would separate them with a chance of {100 * TARGET:.0f} %,"
            " if gains and seed spreads are as measured."
        )
    return (
        f" Neither {MOST_FURTHER_SEEDS} further seeds nor {MOST_FURTHER_EPISODES} further episodes"
        f" would separate them with a chance of {100 * TARGET:.0f} %."
    )
