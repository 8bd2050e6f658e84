"""Action tokenizers: chunk ⇄ tokens, one file per paper."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown_name
from .base import ActionTokenizer, Decoded, Tokens
from .fsq import FSQ, FSQ_LEVELS
from .oat import OAT

TOKENIZERS: dict[str, Any] = {OAT.name: OAT}


def make_tokenizer(name: str, **options: Any) -> ActionTokenizer:
    """An unfitted tokenizer by name."""
    if name not in TOKENIZERS:
        raise unknown_name("tokenizer", name, TOKENIZERS)
    made: ActionTokenizer = TOKENIZERS[name](**options)
    return made


def load_tokenizer(folder: Path) -> ActionTokenizer:
    """The fitted tokenizer in a folder. Runs no code from it."""
    try:
        name = json.loads((folder / "tokenizer.json").read_text())["name"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no tokenizer (tokenizer.json): {error}") from error
    if name not in TOKENIZERS:
        raise unknown_name("tokenizer", name, TOKENIZERS)
    loaded: ActionTokenizer = TOKENIZERS[name].load(folder)
    return loaded


__all__ = [
    "FSQ",
    "FSQ_LEVELS",
    "OAT",
    "ActionTokenizer",
    "Decoded",
    "Tokens",
    "load_tokenizer",
    "make_tokenizer",
]
