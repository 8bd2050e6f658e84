"""Heads: the facts of each, stated once. A new head is a file, and one entry here or in another package.

The study file's section ``policy`` takes the options of all heads (``head_options``); each head's recipes hold its own. What
an action representation is called follows from its head's targets (``action_parts``). No torch here: planning reads
this, and the class is imported when a head is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..errors import UserError, unknown_name
from ..nn import TrunkSize
from ..registry import Option, Options, Registry, check_option, located, merged
from ..tokenizers.registry import TOKENIZERS

if TYPE_CHECKING:
    from ..tokenizers import ActionTokenizer

Attention = Literal["full", "causal-as-published"]
Prediction = Literal["epsilon", "sample", "v_prediction"]
Sampler = Literal["ddim", "ddim-trailing", "ddpm", "dpm-solver++"]


@dataclass(frozen=True)
class HeadEntry:
    """What is known of a head before its class is imported: that class, or "package.module:Class".

    It is made with the trunk's size and what it asks for.
    The constructor's keywords are its options, with these defaults, and those that it wants of ``horizon``, ``action_dim``,
    ``context_tokens``, ``clip``, ``tokenizer`` and its ``codebook_sizes``.

    ``targets``: what it learns from (``Target``): the "chunk" alone, a continuous head; "tokens"; or "both" tokens and
    the chunk. ``check`` refuses options that do not go together, with ``UserError``.
    """

    cls: str | Callable[..., Any]
    targets: Literal["chunk", "tokens", "both"] = "chunk"
    options: Options = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], None] = lambda options: None

    @property
    def continuous(self) -> bool:
        """Whether it needs no tokenizer."""
        return self.targets == "chunk"


def check_sampler(options: Mapping[str, Any]) -> None:
    """Refuse a sampler that starts where this prediction tells nothing (``policies.diffusion``)."""
    if (options.get("sampler"), options.get("prediction", "epsilon")) == ("ddim-trailing", "epsilon"):
        raise UserError(
            "the sampler 'ddim-trailing' begins where the noise tells nothing of the chunk: set 'prediction' to sample or "
            "v_prediction, or take the sampler ddim"
        )


SAMPLED = {
    "temperature": Option(Annotated[float, Field(ge=0)], 1.0),  # of tokens; 0 is greedy
    "top_k": Option(Annotated[int, Field(ge=1)] | None, 10),
    "constrained": Option(bool, True),  # sample only tokens that can still decode (fast)
}
DENOISED = {
    "attention": Option(Attention, "full"),
    "sampling_steps": Option(Annotated[int, Field(ge=1, le=100)], 10),
}
HERE = __package__
HEADS: Registry[HeadEntry] = Registry(
    "head",
    "compression_gap.heads",
    HeadEntry,
    {
        "autoregressive": HeadEntry(f"{HERE}.autoregressive:AutoregressiveHead", "tokens", SAMPLED),
        "diffusion": HeadEntry(
            f"{HERE}.diffusion:DiffusionHead",
            options={
                **DENOISED,
                "prediction": Option(Prediction, "epsilon"),
                "sampler": Option(Sampler, "ddim"),
            },
            check=check_sampler,
        ),
        "flow": HeadEntry(f"{HERE}.flow:FlowHead", options=DENOISED),
        "hybrid": HeadEntry(
            f"{HERE}.hybrid:HybridHead",
            "both",
            # of the offset's error beside the cross-entropy
            {**SAMPLED, "offset_weight": Option(Annotated[float, Field(gt=0)], 1.0, elided=True)},
        ),
        "regression": HeadEntry(f"{HERE}.regression:RegressionHead"),
    },
)
PLAIN = "autoregressive"  # the token head whose action representations go by the tokenizer's name alone


def head_options() -> dict[str, Option]:
    """The options of all heads together."""
    return merged(head.options for head in HEADS.values())


def action_parts(action: str) -> tuple[str, str | None]:
    """The head of an action representation, and its tokenizer if its targets are tokens.

    A continuous head goes by its name, the autoregressive one by its tokenizer's (``oat``), every other head of tokens
    by its tokenizer's and its own (``oat-hybrid``). Raises ``UserError`` for a name that is not known.
    """
    if action in HEADS.own and HEADS.own[action].continuous:
        return action, None
    if action in TOKENIZERS:
        return PLAIN, action
    if action in HEADS and HEADS[action].continuous:
        return action, None
    tokenizer, _, head = action.rpartition("-")
    if tokenizer in TOKENIZERS and head in HEADS and head != PLAIN and not HEADS[head].continuous:
        return head, tokenizer
    heads = {name: head.continuous for name, head in HEADS.items()}
    continuous = [name for name, alone in heads.items() if alone]
    behind = [name for name, alone in heads.items() if not alone and name != PLAIN]
    known = (*continuous, *TOKENIZERS, *(f"{t}-{name}" for name in behind for t in TOKENIZERS))
    raise unknown_name("action", action, known)


def action_name(head: str, tokenizer: str | None) -> str:
    """The action representation of a head and its tokenizer: what ``action_parts`` takes apart."""
    return head if tokenizer is None else tokenizer if head == PLAIN else f"{tokenizer}-{head}"


def check_chunks(tokenizer: ActionTokenizer, horizon: int, action_dim: int) -> None:
    """Raise ``UserError`` unless the tokenizer was fitted on chunks [N, horizon, action_dim]."""
    if (tokenizer.horizon, tokenizer.action_dim) != (horizon, action_dim):
        raise UserError(
            f"the policy emits chunks [{horizon}, {action_dim}]; this {tokenizer.name} tokenizer was fitted on "
            f"[{tokenizer.horizon}, {tokenizer.action_dim}]: fit one on the policy's chunks"
        )


def make_head(
    name: str,
    size: TrunkSize,
    *,
    horizon: int,
    action_dim: int,
    context_tokens: int,
    clip: float,
    tokenizer: ActionTokenizer | None,
    options: Mapping[str, Any],
) -> Any:
    """The head of that name. ``clip``: the range of normalised training actions, one number for all.

    Options of other heads are left out. Raises ``UserError`` for a name or an option that is not known, and for a token
    head without a fitted tokenizer, or with one of other chunks.
    """
    head, known = HEADS[name], head_options()
    for option, value in options.items():
        check_option("head", option, value, known)
    own = {n: options[n] for n in head.options if n in options}
    head.check(own)
    if not head.continuous:
        if tokenizer is None:
            raise UserError(f"the {name} head needs a fitted tokenizer; fit one and hand it over")
        check_chunks(tokenizer, horizon, action_dim)
    made = located(head.cls)
    given = {
        "horizon": horizon, "action_dim": action_dim, "context_tokens": context_tokens, "clip": clip,
        "tokenizer": tokenizer, "codebook_sizes": tokenizer and tokenizer.codebook_sizes,
    }  # fmt: skip
    asked = inspect.signature(made).parameters
    return made(size, **{n: v for n, v in given.items() if n in asked}, **own)
