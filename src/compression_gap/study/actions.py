"""What a study file's names of actions, tokenizers and encoders stand for, and what is refused before it is planned."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from ..encoders.registry import check_encoder
from ..errors import UserError
from ..policies.registry import HEADS, action_parts
from ..tokenizers import tokenizer_entry
from ..tokenizers.code import Code, OwnSeed
from ..tokenizers.levels import Levels, prefix_lengths
from .file import Study, Tokenizer
from .yaml import of_key


def _check_swap(study: Study) -> None:
    if study.swap is None:
        return
    for i, head in enumerate(study.swap.head):
        with of_key("swap", "head", i):
            if action_parts(head)[1] is not None:
                known = ", ".join(name for name, entry in HEADS.items() if entry.continuous)
                raise UserError(f"'{head}' is no continuous head; known: {known}")
    for i, tokenizer in enumerate(study.swap.tokenizer):
        with of_key("swap", "tokenizer", i):
            tokenizer_entry(tokenizer)


def codes_of(tokenizer: str, codebooks: Sequence[Levels], seeds: Sequence[int] | OwnSeed) -> list[Code]:
    """The codes of one tokenizer: codebooks × seeds, where it has them; "training" is one level."""
    entry = tokenizer_entry(tokenizer)
    levels = codebooks if entry.codebook else (None,)
    of: Sequence[int | OwnSeed | None] = (seeds,) if seeds == "training" else seeds
    return [Code(tokenizer, *c) for c in itertools.product(levels, of if entry.trained else (None,))]


def check_code(code: Code, section: Tokenizer, horizon: int) -> None:
    """Refuse at once what fitting would refuse after hours of other steps."""
    tokens = code.tokens(section.tokens)
    stride = horizon / tokens
    if code.tokenizer == "quest" and (stride < 1 or not math.log2(stride).is_integer()):
        raise UserError(
            f"quest halves the horizon until its tokens remain; {horizon} steps do not become "
            f"{tokens} tokens so: take a power of two times as many steps as tokens"
        )


def shorter_prefixes(code: Code, section: Tokenizer) -> list[int]:
    """Lengths of the prefixes that are looked at beside the whole, of codes whose prefixes decode."""
    option = tokenizer_entry(code.tokenizer).ordered_by
    return prefix_lengths(code.tokens(getattr(section, option)))[:-1] if option else []


def study_codes(study: Study, tokenizer: str | None = None) -> list[Code]:
    """The codes of one tokenizer, or all that the study needs."""
    names = [] if tokenizer is None else [tokenizer]
    if tokenizer is None:
        names = [t for a in study.factors.action if (t := action_parts(a)[1])]
        names += study.swap.tokenizer if study.swap else ()
    factors = study.factors
    return [
        code
        for name in dict.fromkeys(names)
        for code in codes_of(name, factors.codebook, factors.tokenizer_seed)
    ]


def fitted_codes(study: Study) -> list[Code]:
    """What is fitted for all training seeds: a code that is fixed, or fitted without a seed, once."""
    return list(dict.fromkeys(c.fitted(seed) for c in study_codes(study) for seed in study.factors.seed))


def encoder_seed(study: Study, seed: int) -> int:
    """The seed with which an encoder is pretrained for this training seed."""
    own = study.factors.encoder_seed
    return seed if own == "training" else own


def check_actions(study: Study) -> None:
    """Refuse action representations and codes that cannot be, and a training's values for such."""
    for i, action in enumerate(study.factors.action):
        with of_key("factors", "action", i):
            action_parts(action)
    _check_swap(study)
    for name in ("steps", "lr"):
        values = getattr(study.training, name)
        for action in values if isinstance(values, dict) else ():
            with of_key("training", name, action):
                action_parts(action)
    for code in study_codes(study):
        with of_key("tokenizer", "tokens"):
            check_code(code, study.tokenizer, study.policy.horizon)


def check_encoders(study: Study, encoders: Sequence[str], **seen: Any) -> None:
    """Refuse encoders that are not known, or do not suit what is ``seen`` (``encoders.registry.check_encoder``)."""
    listed = study.factors.encoder
    for encoder in encoders:
        with of_key(*(("factors", "encoder", listed.index(encoder)) if encoder in listed else ("limits",))):
            check_encoder(encoder, crop=study.cameras.cropped(), **seen)
