"""Heads by name: one entry here, or an entry point of another package."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from ..errors import UserError, unknown_name
from ..nn import TrunkSize
from ..tokenizers import ActionTokenizer

# Entry points: name → callable(size, *, horizon, action_dim, context_tokens, clip, tokenizer, **options).
GROUP = "compression_gap.heads"
OWN = ("autoregressive", "diffusion")


def names() -> tuple[str, ...]:
    """All names that are known."""
    return (*OWN, *(e.name for e in entry_points(group=GROUP)))


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

    Raises ``UserError`` for a name that is not known, and for a token head without a fitted tokenizer.
    """
    shapes: dict[str, Any] = {
        "horizon": horizon, "action_dim": action_dim, "context_tokens": context_tokens, "clip": clip
    }  # fmt: skip
    if name == "diffusion":
        from .diffusion import DiffusionHead

        return DiffusionHead(size, **shapes, **options)
    if name == "autoregressive":
        from .autoregressive import AutoregressiveHead

        if tokenizer is None:
            raise UserError("the autoregressive head needs a fitted tokenizer; fit one and hand it over")
        # Its self-attention is causal by nature.
        own = {k: v for k, v in options.items() if k != "attention"}
        return AutoregressiveHead(size, codebook_sizes=tokenizer.codebook_sizes, tokenizer=tokenizer, **own)
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            return entry.load()(size, **shapes, tokenizer=tokenizer, **options)
    raise unknown_name("head", name, names())
