"""The model card: Markdown with YAML front matter that says what a policy is and what was measured of it.

Only what is known is stated. What the network is (encoder, head, size, parameters, FLOPs) are the policy's own
``PolicyFacts``; training, data and success come from the ``Card``, and where that is empty the text says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from .. import __version__
from ..encoders.registry import reads_state
from ..errors import counted
from ..nn.convergence import Convergence
from .spec import PolicySpec

LIBRARY = "compression-gap"


@dataclass(frozen=True)
class PolicyFacts:
    """What a policy says of itself."""

    spec: PolicySpec
    parameters: Mapping[str, int]  # ``Policy.parameter_counts``
    flops: int  # of one decision
    tokenizer: str | None  # in words
    text_encoder: str | None  # of its instructions, where the task enters as text


@dataclass(frozen=True)
class Rate:
    """A success rate with its 95 % interval, as fractions."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


@dataclass(frozen=True)
class Evaluation:
    """Success of this very policy under one evaluation protocol."""

    protocol: str  # the protocol's hash
    conditions: str  # the protocol in words
    tasks: Mapping[str, Rate]
    episodes: int  # per task
    overall: Rate  # the mean of the tasks'


@dataclass(frozen=True)
class CellRate:
    """Success of a study's cell: the same levels over several training seeds."""

    study: str
    protocol: str
    cell: str
    seeds: tuple[int, ...]
    rate: Rate


@dataclass(frozen=True)
class CellError:
    """Held-out chunk error of a study of recordings: a cell's, over several training seeds."""

    study: str
    cell: str
    seeds: tuple[int, ...]
    value: float  # standard deviations²
    low: float | None  # None: one held-out episode says nothing of the interval
    high: float | None
    episodes: int
    points: int


@dataclass(frozen=True)
class Card:
    """What is known of a policy beyond its own files. Empty and None: not known."""

    key: str | None = None  # of the artefact in its store
    training: Mapping[str, Any] = field(default_factory=dict)  # steps, batch_size, seed, ... as trained
    convergence: Convergence | None = None  # how its training ended: these are the weights of the last step
    demonstrations: tuple[str, ...] = ()  # one line per set
    evaluations: tuple[Evaluation, ...] = ()
    cells: tuple[CellRate, ...] = ()
    errors: tuple[CellError, ...] = ()


def write_card(facts: PolicyFacts, card: Card) -> str:
    """The model card of a policy, ending in a newline."""
    spec = facts.spec
    parts = [
        _front_matter(spec),
        f"# {_plain(spec.head)} policy on {_plain(spec.sim)}: {_list(spec.tasks)}",
        f"Observations in, chunks of {counted(spec.horizon, 'action')} out. Exported by `{LIBRARY}` {__version__}.",
        "## Success",
        *_success(card),
        *_errors(card),
        "## What it is",
        _table(("", ""), _what(facts)),
        "## Training",
        *_training(card),
        "## Use",
        *_use(spec),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(spec: PolicySpec) -> str:
    tags = ["robotics", LIBRARY, "imitation-learning", spec.sim, spec.encoder, spec.head]
    about = {
        "library_name": LIBRARY,
        "pipeline_tag": "robotics",
        "tags": list(dict.fromkeys(tags)),
    }
    text = yaml.safe_dump(about, sort_keys=False, allow_unicode=True)
    return f"---\n# license: (yours to choose, as in: license: mit)\n{text}---"


def _success(card: Card) -> Iterable[str]:
    if not card.evaluations:
        yield "No success rates of this policy are known: it was exported without evidence of its episodes."
    for e in card.evaluations:
        rows = [(_plain(task), str(rate), str(e.episodes)) for task, rate in e.tasks.items()]
        if len(rows) > 1:
            rows.append(("mean of the tasks", str(e.overall), str(e.episodes * len(e.tasks))))
        yield f"Under the evaluation protocol `{_plain(e.protocol)}`: {_plain(e.conditions)}."
        yield _table(("task", "success [95 % interval]", "episodes"), rows)
    if card.evaluations:
        yield (
            "The intervals (Wilson) are over episodes, for these weights. "
            "They do not hold the spread between training seeds."
        )
    for c in card.cells:
        seeds = ", ".join(map(str, c.seeds))
        held = (
            "seed variance in its interval" if len(c.seeds) > 1 else "so the variance of seeds is not known"
        )
        yield (
            f"In the study {_plain(c.study)} (protocol `{_plain(c.protocol)}`) this cell, {_plain(c.cell)}, "
            f"has {c.rate} over the training seed{'s' * (len(c.seeds) > 1)} {seeds}, {held}."
        )


def _errors(card: Card) -> Iterable[str]:
    for e in card.errors:
        seeds = ", ".join(map(str, e.seeds))
        span = "" if e.low is None else f" [{e.low:.3g}, {e.high:.3g}]"
        yield (
            f"In the study {_plain(e.study)} of recordings this cell, {_plain(e.cell)}, has a held-out chunk error of "
            f"{e.value:.3g}{span} standard deviations² over the training seed{'s' * (len(e.seeds) > 1)} {seeds} "
            f"({counted(e.points, 'decision point')} of {counted(e.episodes, 'episode')}). It says how near its chunks come to demonstrated "
            "ones, and is no success rate."
        )


def _what(facts: PolicyFacts) -> list[tuple[str, str]]:
    spec, counts = facts.spec, facts.parameters
    rows = [
        ("encoder", spec.encoder),
        ("head", spec.head),
        ("tokenizer", facts.tokenizer or "none"),
        ("size", spec.size),
        ("parameters", f"{counts['total']:,} ({counts['trunk']:,} of them in the trunk)"),
        ("FLOPs of a decision", f"{facts.flops:,}"),
        ("tasks", ", ".join(spec.tasks)),
        *([] if spec.task == "embedding" else [("task conditioning", _conditioning(facts))]),
        *([] if spec.crop is None else [("crop of its images", _crop(spec.crop))]),
        ("cameras", f"{', '.join(spec.cameras)} ({spec.image_size} × {spec.image_size} pixels)"),
        ("observation steps", str(spec.n_obs_steps)),
        ("proprioception", counted(spec.proprio_dim, "number")),
        ("action chunk", f"[{spec.horizon}, {spec.action_dim}]"),
    ]
    return [(name, _plain(value)) for name, value in rows]


def _crop(crop: Mapping[str, Any]) -> str:
    if crop["mode"] == "none":
        return "none"
    where = "the centre, in training and otherwise" if crop["mode"] == "all" else "at random in training"
    return f"{100 * crop['share']:.0f} % of the side, {where}"


def _conditioning(facts: PolicyFacts) -> str:
    known = facts.text_encoder
    return facts.spec.task if known is None else f"text: instructions embedded by {known}"


ENDS: dict[Convergence, str] = {
    "converged": "converged",
    "falling": "still falling at the last step, whose weights these are: more steps would lower it",
    "overfit": "overfit: it had risen above its minimum at the last step, whose weights these are",
    "unknown": "too few validations to say whether it had converged",
}


def _training(card: Card) -> Iterable[str]:
    rows = [(_plain(name.replace("_", " ")), _plain(str(v))) for name, v in card.training.items()]
    if card.convergence is not None:
        rows.append(("validation loss", ENDS[card.convergence]))
    if card.key is not None:
        rows.append(("artefact", f"`{_plain(card.key)}`"))
    yield _table(("", ""), rows) if rows else "Its training is not known: the folder held no record of it."
    if card.demonstrations:
        yield "Data:\n\n" + "\n".join(f"- {_plain(line)}" for line in card.demonstrations)
    else:
        yield "Its demonstrations are not known."


def _use(spec: PolicySpec) -> Iterable[str]:
    yield (
        "```python\nfrom compression_gap.policies import Policy\n\n"
        'policy = Policy.from_pretrained("FOLDER")  # or the Hub id, OWNER/NAME\n```'
    )
    yield "```sh\ncgap serve FOLDER\n```"
    yield (
        "The first gives `policy.act(observation, seeds)`; the second answers observations over a websocket "
        "(msgpack, as openpi's client speaks it). Loading runs no code from the folder."
    )
    if reads_state(spec.encoder):
        yield "This policy reads the simulator's true state: it is a reference, not for a robot."


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(names: tuple[str, ...]) -> str:
    few = [_plain(n) for n in names[:4]]
    return ", ".join(few) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _plain(text: str) -> str:
    """Text that Markdown shows as it is: names come from files that others may have written."""
    line = " ".join(text.split())
    for mark in "\\`*_|<>":
        line = line.replace(mark, "\\" + mark)
    return line.replace("](", "]\\(")
