"""Tokenizers: the facts of each, stated once. A new one is a file, and one entry here or in another package.

The study file's section ``tokenizer`` takes the options of all of them (``tokenizer_options``). No torch here:
planning reads this, and the class is imported when a tokenizer is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ..demos.source import check_files
from ..errors import UserError
from ..nn.sizes import AutoencoderSize
from ..records import read_object
from ..registry import Option, Options, Registry, located, merged

if TYPE_CHECKING:
    from .base import ActionTokenizer


@dataclass(frozen=True)
class TokenizerEntry:
    """What is known of a tokenizer before its class is imported: a subclass of ``ActionTokenizer``, or "module:Class"."""

    cls: str | Callable[..., Any]
    takes: Options = field(default_factory=dict)  # what the study file sets: keywords of the constructor
    options: Mapping[str, Any] = field(default_factory=dict)  # further keywords, for which the name stands
    codebook: bool = False  # takes FSQ levels: the factor ``codebook``
    ordered_by: str = ""  # the option that counts its tokens, if every prefix of them decodes
    trained: bool = False  # has a network: the factor ``tokenizer_seed``, and steps


LATENT = {
    "tokens": Option(Annotated[int, Field(ge=1)], 8),  # a chunk
    "size": Option(AutoencoderSize, "xs"),
}
# Of its transformers while it is fitted; published: 0.1.
DROPOUT = {"dropout": Option(Annotated[float, Field(ge=0, lt=1)], 0.0, elided=True)}
BINS = {"bins": Option(Annotated[int, Field(ge=2)], 256)}  # a dimension and step
HERE = __package__
TOKENIZERS: Registry[TokenizerEntry] = Registry(
    "tokenizer",
    "compression_gap.tokenizers",
    TokenizerEntry,
    {
        "bins": TokenizerEntry(f"{HERE}.bins:Bins", BINS),
        "bins-quantile": TokenizerEntry(f"{HERE}.bins:Bins", BINS, {"edges": "quantile"}),
        "fast": TokenizerEntry(
            f"{HERE}.fast:FAST",
            {
                "vocabulary": Option(Annotated[int, Field(ge=2)], 1024),
                "scale": Option(Annotated[float, Field(gt=0)], 10.0),  # coefficients are rounded to 1 / scale
            },
        ),
        "rvq": TokenizerEntry(
            f"{HERE}.rvq:ResidualVQ",
            {
                "layers": Option(Annotated[int, Field(ge=1)], 2),  # tokens a chunk
                "codes": Option(Annotated[int, Field(ge=2)], 16),  # a layer
                "size": LATENT["size"],
            },
            ordered_by="layers",
            trained=True,
        ),
        "quest": TokenizerEntry(f"{HERE}.quest:QueST", LATENT, codebook=True, trained=True),
        "oat": TokenizerEntry(
            f"{HERE}.oat:OAT",
            # The prefixes that are trained; powers of two as published.
            {**LATENT, "nested_dropout": Option(Literal["all", "powers-of-two"], "all"), **DROPOUT},
            codebook=True,
            ordered_by="tokens",
            trained=True,
        ),
        "oat-unordered": TokenizerEntry(
            f"{HERE}.oat:OAT", {**LATENT, **DROPOUT}, {"nested_dropout": "none"}, codebook=True, trained=True
        ),
    },
)


def tokenizer_options() -> dict[str, Option]:
    """The options of all tokenizers together."""
    return merged(entry.takes for entry in TOKENIZERS.values())


def tokenizer_names() -> tuple[str, ...]:
    """All names that are known."""
    return tuple(TOKENIZERS)


def tokenizer_entry(name: str) -> TokenizerEntry:
    """What a name stands for. Raises ``UserError`` for one that is not known."""
    return TOKENIZERS[name]


def make_tokenizer(name: str, **options: Any) -> ActionTokenizer:
    """An unfitted tokenizer by name; options beside those that the name stands for."""
    entry = TOKENIZERS[name]
    made: ActionTokenizer = located(entry.cls)(**{**entry.options, **options})
    return made


FILES = ("tokenizer.json", "tokenizer.safetensors")


def load_tokenizer(folder: Path | str) -> ActionTokenizer:
    """The fitted tokenizer in a folder. Runs no code from it."""
    folder = Path(folder)
    check_files(folder, FILES)
    try:
        name = read_object(folder / "tokenizer.json")["name"]
        if not isinstance(name, str):
            raise ValueError("its name is no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} holds no tokenizer (tokenizer.json): {error}") from error
    loaded: ActionTokenizer = located(TOKENIZERS[name].cls).load(folder)
    return loaded
