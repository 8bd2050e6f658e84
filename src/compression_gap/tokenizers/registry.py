"""Tokenizers by name: one entry here, or an entry point of another package. Planning reads this: no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, unknown_name
from ..records import read_object

if TYPE_CHECKING:
    from .base import ActionTokenizer

GROUP = "compression_gap.tokenizers"  # entry points: name → subclass of ActionTokenizer


@dataclass(frozen=True)
class Entry:
    """A name: its class, the options it stands for, and which of a study's options it takes besides."""

    module: str
    cls: str
    takes: tuple[str, ...] = ()  # names of the study file's section ``tokenizer``
    options: dict[str, Any] = field(default_factory=dict)
    codebook: bool = False  # takes FSQ levels: the factor ``codebook``
    ordered_by: str = ""  # the option that counts its tokens, if every prefix of them decodes
    trained: bool = False  # has a network: the factor ``tokenizer_seed``, and steps


ENTRIES: dict[str, Entry] = {
    "bins": Entry("bins", "Bins", ("bins",)),
    "bins-quantile": Entry("bins", "Bins", ("bins",), {"edges": "quantile"}),
    "fast": Entry("fast", "FAST", ("vocabulary", "scale")),
    "rvq": Entry("rvq", "ResidualVQ", ("layers", "codes", "size"), ordered_by="layers", trained=True),
    "quest": Entry("quest", "QueST", ("tokens", "size"), codebook=True, trained=True),
    "oat": Entry(
        "oat",
        "OAT",
        ("tokens", "size", "nested_dropout", "dropout"),
        codebook=True,
        ordered_by="tokens",
        trained=True,
    ),
    "oat-unordered": Entry(
        "oat", "OAT", ("tokens", "size", "dropout"), {"nested_dropout": "none"}, codebook=True, trained=True
    ),
}


def tokenizer_names() -> tuple[str, ...]:
    """All names that are known."""
    return (*ENTRIES, *(e.name for e in entry_points(group=GROUP) if e.name not in ENTRIES))


def tokenizer_entry(name: str) -> Entry:
    """What a name stands for. One of another package takes no options and has a seed."""
    if name in ENTRIES:
        return ENTRIES[name]
    if name not in tokenizer_names():
        raise unknown_name("tokenizer", name, tokenizer_names())
    return Entry("", "", trained=True)


def _class(name: str) -> Any:
    entry = tokenizer_entry(name)
    if entry.module:
        return getattr(import_module(f".{entry.module}", __package__), entry.cls)
    return next(e for e in entry_points(group=GROUP) if e.name == name).load()


def make_tokenizer(name: str, **options: Any) -> ActionTokenizer:
    """An unfitted tokenizer by name; options beside those that the name stands for."""
    made: ActionTokenizer = _class(name)(**{**tokenizer_entry(name).options, **options})
    return made


def load_tokenizer(folder: Path | str) -> ActionTokenizer:
    """The fitted tokenizer in a folder. Runs no code from it."""
    folder = Path(folder)
    try:
        name = read_object(folder / "tokenizer.json")["name"]
        if not isinstance(name, str):
            raise ValueError("its name is no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no tokenizer (tokenizer.json): {error}") from error
    loaded: ActionTokenizer = _class(name).load(folder)
    return loaded
