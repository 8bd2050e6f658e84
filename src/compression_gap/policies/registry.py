"""Heads by name: one entry here, or an entry point of another package.

The study file's switches that a head has, beside what all take:

    autoregressive   temperature, top_k, constrained
    diffusion        attention, sampler, sampling_steps, prediction
    flow             attention, sampling_steps
    hybrid           temperature, top_k, constrained, offset_weight
    regression       none

A switch of another head is left out; one that no head has is refused. Heads of other packages get all.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from ..errors import UserError, unknown_name
from ..nn import TrunkSize
from ..tokenizers import ActionTokenizer
from .options import check_options

# Entry points: name → callable(size, *, horizon, action_dim, context_tokens, clip, tokenizer, **options).
GROUP = "compression_gap.heads"


class Entry(NamedTuple):
    """Where a head is, which shapes and options it takes, and whether it needs a tokenizer."""

    module: str
    cls: str
    shapes: tuple[str, ...]
    options: tuple[str, ...]
    tokens: bool = False


CHUNK = ("horizon", "action_dim")
TOKENS = ("temperature", "top_k", "constrained")
DENOISER = ("attention", "sampling_steps")
OWN = {
    "autoregressive": Entry("autoregressive", "AutoregressiveHead", (), TOKENS, tokens=True),
    "diffusion": Entry(
        "diffusion",
        "DiffusionHead",
        (*CHUNK, "context_tokens", "clip"),
        (*DENOISER, "sampler", "prediction"),
    ),
    "flow": Entry("flow", "FlowHead", (*CHUNK, "context_tokens"), DENOISER),
    "hybrid": Entry("hybrid", "HybridHead", CHUNK, (*TOKENS, "offset_weight"), tokens=True),
    "regression": Entry("regression", "RegressionHead", CHUNK, ()),
}


def check_sampler(sampler: str, prediction: str) -> None:
    """Raise ``UserError`` for a start from which this prediction cannot be sampled (``policies.diffusion``)."""
    if sampler == "ddim-trailing" and prediction == "epsilon":
        raise UserError(
            "the sampler 'ddim-trailing' begins where the noise tells nothing of the chunk: set 'prediction' to sample or "
            "v_prediction, or take the sampler ddim"
        )


def names() -> tuple[str, ...]:
    """All names that are known."""
    return (*OWN, *(e.name for e in entry_points(group=GROUP)))


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

    Raises ``UserError`` for a name or an option that is not known, and for a token head without a fitted
    tokenizer, or with one of other chunks.
    """
    shapes: dict[str, Any] = {
        "horizon": horizon, "action_dim": action_dim, "context_tokens": context_tokens, "clip": clip
    }  # fmt: skip
    if name in OWN:
        head = OWN[name]
        check_options(options)
        given = {s: shapes[s] for s in head.shapes} | {o: options[o] for o in head.options if o in options}
        if head.tokens:
            if tokenizer is None:
                raise UserError(f"the {name} head needs a fitted tokenizer; fit one and hand it over")
            check_chunks(tokenizer, horizon, action_dim)
            given |= {"codebook_sizes": tokenizer.codebook_sizes, "tokenizer": tokenizer}
        return getattr(import_module(f".{head.module}", __package__), head.cls)(size, **given)
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load()(size, **shapes, tokenizer=tokenizer, **options)
    raise unknown_name("head", name, names())
