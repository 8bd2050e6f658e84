"""FSQ's levels by name, or any list: one list for all positions, or one for each (codebooks that grow)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ..errors import UserError, unknown_name

# The paper's table (arXiv 2309.15505), and 1920 of the experiments reproduced here.
FSQ_LEVELS: dict[int, tuple[int, ...]] = {
    240: (8, 6, 5),
    512: (8, 8, 8),
    1000: (8, 5, 5, 5),
    1920: (8, 8, 6, 5),
    4375: (7, 5, 5, 5, 5),
    15360: (8, 8, 8, 6, 5),
    64000: (8, 8, 8, 5, 5, 5),
}
LARGEST = 2**20  # codes; a policy's output layer has a row for each
MOST_TOKENS = 2**12  # of a chunk

_HOW = "write FSQ levels as [8, 5, 5, 5], fsq-1000, or a list of such for the positions in turn"

Levels = tuple[tuple[int, ...], ...]  # one a position; a single one serves all


def as_levels(levels: str | Sequence[int] | Sequence[str | Sequence[int]]) -> Levels:
    """``fsq-1000``, [8, 5, 5, 5], or a list of such for the positions in turn → one tuple a position.

    One tuple alone serves all positions. Raises ``UserError`` for what is no codebook.
    """
    if isinstance(levels, str):
        return (_by_name(levels),)
    if not isinstance(levels, Sequence) or not levels:
        raise UserError(f"{levels!r} is no codebook; {_HOW}")
    if all(isinstance(n, int) for n in levels):
        return (_checked(levels),)  # type: ignore[arg-type]
    if all(isinstance(p, str | Sequence) for p in levels):
        return tuple(_by_name(p) if isinstance(p, str) else _checked(p) for p in levels)  # type: ignore[arg-type]
    raise UserError(f"{levels!r} is no codebook; {_HOW}")


def token_levels(tokens: int, levels: str | Sequence[int] | Sequence[str | Sequence[int]]) -> Levels:
    """``as_levels`` for a sequence of that many tokens."""
    if isinstance(tokens, bool) or not isinstance(tokens, int) or not 1 <= tokens <= MOST_TOKENS:
        raise UserError(
            f"tokens is {str(tokens)[:40]}; a chunk needs at least one token, and has at most {MOST_TOKENS}"
        )
    found = as_levels(levels)
    if len(found) not in (1, tokens):
        raise UserError(
            f"{len(found)} codebooks for {tokens} tokens; give one for all, or one for each token"
        )
    return found


def sizes_of(tokens: int, levels: Levels) -> tuple[int, ...]:
    """The number of codes at each of the positions: the product of its levels."""
    sizes = tuple(math.prod(p) for p in levels)
    return sizes if len(sizes) > 1 else sizes * tokens


def prefix_lengths(tokens: int) -> list[int]:
    """The prefixes that are looked at, and that OAT trains as published: powers of two, and the whole."""
    return [*(1 << i for i in range(tokens.bit_length()) if 1 << i < tokens), tokens]


def codebook_name(levels: Levels, among: Iterable[Levels | None] = ()) -> str:
    """A codebook in words: its number of codes; with one for each position, how often, or the first and the last.

    Its levels follow where others ``among`` which it is named have the same numbers.
    """
    sizes = [math.prod(p) for p in levels]
    many = f"{len(sizes)} × {sizes[0]}" if len(set(sizes)) == 1 else f"{sizes[0]}→{sizes[-1]}"
    name = str(sizes[0]) if len(sizes) == 1 else many
    if any(other and other != levels and codebook_name(other) == name for other in among):
        name += f" ({'/'.join('x'.join(map(str, p)) for p in levels)})"
    return name


def _by_name(name: str) -> tuple[int, ...]:
    names = {f"fsq-{size}": levels for size, levels in FSQ_LEVELS.items()}
    if name not in names:
        raise unknown_name("codebook", name, names)
    return names[name]


def _checked(levels: Sequence[int]) -> tuple[int, ...]:
    if not levels or not all(isinstance(n, int) for n in levels) or min(levels) < 2:
        raise UserError(f"a codebook needs at least two levels in every dimension, not {list(levels)}")
    if math.prod(levels) > LARGEST:
        raise UserError(f"a codebook of {math.prod(levels)} codes is too large; take at most {LARGEST}")
    return tuple(levels)
