"""Choices that are read from bytes, so that a fuzzer's input and a random one drive the same mutations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")


class Draw:
    """Bytes as choices; zeros when they end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        """How many bytes are left."""
        return max(0, len(self._data) - self._at)

    def below(self, n: int) -> int:
        """A number from 0 to n − 1."""
        size = max(1, (max(n - 1, 1).bit_length() + 7) // 8)
        return int.from_bytes(self.take(size).ljust(size, b"\0"), "big") % max(n, 1)

    def one(self, of: Sequence[Value]) -> Value:
        """One of several; ``ValueError`` of none."""
        if not of:
            raise ValueError("there is nothing to choose from")
        return of[self.below(len(of))]

    def chance(self, of: int) -> bool:
        """True once in ``of`` times; False when the bytes have ended."""
        return self.below(of) == of - 1

    def take(self, n: int) -> bytes:
        """The next n bytes, fewer at the end."""
        part = self._data[self._at : self._at + n]
        self._at += n
        return part

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(self.left)
