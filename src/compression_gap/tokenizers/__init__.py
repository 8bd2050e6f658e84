"""Action tokenizers: chunk ⇄ tokens, one file per paper."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..errors import UserError, unknown_name
from .base import ActionTokenizer, Decoded, Tokens
from .fsq import FSQ, FSQ_LEVELS
from .oat import OAT

GROUP = "compression_gap.tokenizers"  # entry points: name → class with ``load``
TOKENIZERS: dict[str, Any] = {OAT.name: OAT}


def _class(name: str) -> Any:
    if name in TOKENIZERS:
        return TOKENIZERS[name]
    others = {e.name: e for e in entry_points(group=GROUP)}
    if name not in others:
        raise unknown_name("tokenizer", name, (*TOKENIZERS, *others))
    return others[name].load()


def make_tokenizer(name: str, **options: Any) -> ActionTokenizer:
    """An unfitted tokenizer by name."""
    made: ActionTokenizer = _class(name)(**options)
    return made


def load_tokenizer(folder: Path) -> ActionTokenizer:
    """The fitted tokenizer in a folder. Runs no code from it."""
    try:
        name = json.loads((folder / "tokenizer.json").read_text())["name"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder} holds no tokenizer (tokenizer.json): {error}") from error
    loaded: ActionTokenizer = _class(name).load(folder)
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
