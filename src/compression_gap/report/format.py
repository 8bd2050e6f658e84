"""Numbers as people read them: on the page, in figures and in the terminal. Minus signs are true ones."""

from __future__ import annotations

from typing import Protocol

from ..results.records.cells import ChunkError, ErrorSpan, Success


class Spanned(Protocol):
    """A value with its interval."""

    @property
    def value(self) -> float:
        """The value."""

    @property
    def low(self) -> float:
        """The lower end."""

    @property
    def high(self) -> float:
        """The upper end."""


def minus(text: str) -> str:
    """Hyphens before numbers as minus signs."""
    return text.replace("-", "−")


def points(value: float) -> str:
    """A difference in points, signed."""
    return minus(f"{100 * value:+.0f}")


def percent(value: float) -> str:
    """A rate in percent."""
    return f"{100 * value:.0f} %"


def span(of: Spanned) -> str:
    """An interval in points."""
    return minus(f"[{100 * of.low:.0f}, {100 * of.high:.0f}]")


def bits(of: Spanned) -> str:
    """Bits, or R², with their interval."""
    return minus(f"{of.value:.2f} [{of.low:.2f}, {of.high:.2f}]")


def error(of: ErrorSpan) -> str:
    """An error with its interval, where there is one."""
    return f"{of.value:.3g}" + ("" if of.low is None else f" [{of.low:.3g}, {of.high:.3g}]")


def outcome(of: Success | ChunkError) -> tuple[str, str] | None:
    """Success and its interval, or the errors of a whole chunk and of its executed steps; None without evidence."""
    if isinstance(of, Success):
        return None if of.rate is None else (percent(of.rate.value), span(of.rate))
    if of.error is None or of.executed_error is None:
        return None
    return error(of.error), error(of.executed_error)


def signed(of: Spanned) -> str:
    """A difference of errors with its interval."""
    return minus(f"{of.value:+.3g} [{of.low:+.3g}, {of.high:+.3g}]")


def count(value: float) -> str:
    """A large number in words of three digits: 1.2 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"
