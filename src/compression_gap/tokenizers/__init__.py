"""Action tokenizers: chunk ⇄ tokens, one file per paper."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .registry import load_tokenizer, make_tokenizer, tokenizer_entry, tokenizer_names

if TYPE_CHECKING:
    from .base import ActionTokenizer, Decoded, Tokens
    from .bins import Bins
    from .fast import FAST
    from .fsq import FSQ
    from .levels import FSQ_LEVELS
    from .oat import OAT
    from .quest import QueST
    from .rvq import ResidualVQ

# Loaded when asked for: the registry is read while a study is planned, which must not wait for torch.
_HOMES = {
    "FAST": "fast",
    "FSQ": "fsq",
    "FSQ_LEVELS": "levels",
    "OAT": "oat",
    "ActionTokenizer": "base",
    "Bins": "bins",
    "Decoded": "base",
    "QueST": "quest",
    "ResidualVQ": "rvq",
    "Tokens": "base",
}

__all__ = [
    "FAST",
    "FSQ",
    "FSQ_LEVELS",
    "OAT",
    "ActionTokenizer",
    "Bins",
    "Decoded",
    "QueST",
    "ResidualVQ",
    "Tokens",
    "load_tokenizer",
    "make_tokenizer",
    "tokenizer_entry",
    "tokenizer_names",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(name)
