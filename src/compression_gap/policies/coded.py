"""Chunks through a code and back: a policy whose chunks are requantised at execution, and the expert's round trip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..demos import Normaliser
from ..sims import Observation
from ..tokenizers import ActionTokenizer, Tokens
from .base import Emission
from .policy import Policy, in_raw_units
from .registry import check_chunks


class SnappedPolicy:
    """A continuous policy that executes detokenize(tokenize(Â)): the matched-head ablation's other side. An actor.

    docs/theory.md. ``Emission.tokens`` are the ids of Â; ``ok`` is False where they do not decode.
    """

    asks = "observation"

    def __init__(self, policy: Policy, tokenizer: ActionTokenizer) -> None:
        """Raises ``UserError`` for a tokenizer of chunks of another shape."""
        check_chunks(tokenizer, policy.horizon, policy.spec.action_dim)
        self.policy, self.tokenizer = policy, tokenizer
        self.n_obs_steps, self.horizon = policy.n_obs_steps, policy.horizon
        self.needs_images = policy.needs_images

    def on_tasks(self, tasks: tuple[str, ...]) -> SnappedPolicy:
        """As ``Policy.on_tasks``."""
        self.policy.on_tasks(tasks)
        return self

    def act(self, asked: Observation, seeds: np.ndarray) -> Emission:
        """Chunks float32 [B, H, d] in raw action units, each of them one of the code."""
        emitted = self.policy.emit(asked, seeds)
        snapped = _through(self.tokenizer, self.tokenizer.encode(emitted.chunk))
        return in_raw_units(replace(snapped, ok=snapped.ok & emitted.ok), self.policy.normaliser)


def coded_round_trip(
    tokenizer: ActionTokenizer, normaliser: Normaliser, prefix: int | None = None
) -> Callable[[np.ndarray], Emission]:
    """Raw chunks [B, H, d] through the code and back: what expert-coded executes.

    ``prefix``: only the first so many tokens are kept, of a tokenizer whose prefixes decode.
    """

    def code(raw: np.ndarray) -> Emission:
        tokens = tokenizer.encode(normaliser.normalise(raw.astype(np.float32)))
        if prefix is not None:
            tokens = Tokens(tokens.ids[:, :prefix], np.minimum(tokens.lengths, prefix))
        return in_raw_units(_through(tokenizer, tokens), normaliser)

    return code


def _through(tokenizer: ActionTokenizer, tokens: Tokens) -> Emission:
    decoded = tokenizer.decode(tokens)
    return Emission(decoded.chunk, decoded.ok, tokens.ids, tokens.lengths)
