"""Checks of what a recorded file claims: one for every number, one for every size, one for every library's error.

A file comes from others. Its numbers are checked by name before they are used; a size that it claims is compared
with a limit before memory or disk is taken for it; what its library raises becomes one sentence with the cause.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError

TEXT_BYTES = 2**26  # of a metadata file that is read as text: a million episodes in JSON Lines
TABLE_ROWS = 2**23  # of a table that is read whole
ROW_BYTES = 2**26  # of one row of a field: a frame of 4096 × 4096 has 50 MB
MOST = 2**53  # up to which a float is exact

# Not damage: what the operating system says of a file that may well be whole.
_SYSTEM = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EISDIR, errno.ESTALE}
_UNSUPPORTED = ("is encrypted", "not built", "codec not available", "not implemented")
_BUSY = ("unable to lock file", "already open for write", "already open for read-only")


def whole(value: Any, name: str, where: Path | str, *, least: int = 0, most: int = MOST) -> int:
    """A whole number from ``least`` to ``most``; stored as a float it counts. Raises ``UserError`` that names it."""
    number = _plain(value)
    if number is None or not math.isfinite(number) or number != int(number) or not least <= number <= most:
        bound = f" of at least {least}" if most == MOST else f" from {least} to {most}"
        raise UserError(f"{where} gives {name} as {shown(value)}, not a whole number{bound}; correct it")
    return int(number)


def real(value: Any, name: str, where: Path | str, *, positive: bool = False) -> float:
    """A finite number, above 0 if it must be ``positive``. Raises ``UserError`` that names it."""
    number = _plain(value)
    if number is None or not math.isfinite(number) or (positive and number <= 0):
        kind = "finite number above 0" if positive else "finite number"
        raise UserError(f"{where} gives {name} as {shown(value)}, not a {kind}; correct it")
    return float(number)


def _plain(value: Any) -> int | float | None:
    """An int or a float as it is (an int beyond floats as infinity), None for all else."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        float(value)
    except OverflowError:
        return math.inf
    return value if isinstance(value, (int, float)) else value.item()


def whole_array(
    values: np.ndarray,
    name: str,
    where: Path | str,
    *,
    least: int = 0,
    most: int = MOST,
    row: Callable[[int], str] = "row {}".format,
) -> np.ndarray:
    """Whole numbers [n] as int64, checked as ``whole`` does; ``row(i)`` names the one that is wrong."""
    if values.dtype.kind not in "iuf":
        kind = "text" if values.dtype.kind in "OUST" else f"values of type {values.dtype}"
        raise UserError(f"{where} holds {kind} in {name}, not whole numbers; correct that column")
    with np.errstate(invalid="ignore"):
        right = (values >= least) & (values <= most) & (values == np.floor(values))
    if not right.all():
        at = int(np.flatnonzero(~right)[0])
        whole(values[at].item(), f"{name} of {row(at)}", where, least=least, most=most)
    return values.astype(np.int64)


def shown(value: Any) -> str:
    """A value for a sentence: its type alone where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = ""
    return text if 0 < len(text) <= 60 else f"a long {type(value).__name__}"


def check_row_size(name: str, shape: Sequence[int], where: Path | str, item: int = 4) -> None:
    """Refuse a field of which one row would fill the memory."""
    if math.prod(shape) * item > ROW_BYTES:
        size = " × ".join(map(str, shape))
        raise UserError(
            f"{where}: one row of {name} has {size} values, more than {ROW_BYTES >> 20} MiB; choose other fields, or "
            "store smaller ones"
        )


def missing_parts(there: int, all_: int, size: int, name: str, where: Path | str) -> str | None:
    """What to say of a field of which only some parts were written; None if all were.

    Libraries read a missing part as zeros, and some leave out a part that is zero: a whole one of these is rare but
    in a field of one number (``size`` 1), for which a note is returned. Otherwise raises ``UserError``.
    """
    if there >= all_:
        return None
    what = f"{where}: {all_ - there} of {all_} chunks of {name} are not there"
    if size > 1:
        raise UserError(
            f"{what}, and would be read as zeros; fetch it again (if they are zeros, store them: in Zarr write_empty_chunks)"
        )
    return f"{what}, and are read as zeros"


def unreadable(where: Path | str, error: BaseException) -> UserError:
    """The sentence for what a library raised while it read ``where``: only what is damaged is called so."""
    text = short(error)
    if isinstance(error, MemoryError):
        return UserError(
            f"{where} claims more than the memory holds ({text}); leave that field out, or store it anew"
        )
    if isinstance(error, FileNotFoundError):
        return UserError(f"{where} is missing; the data set is incomplete, fetch it again")
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        return UserError(
            f"{where} cannot be read ({' '.join((error.strerror or text).split())[:160]}); make it readable and try again"
        )
    if any(words in str(error) for words in _BUSY):
        return UserError(
            f"{where} is open in another program, or was not closed by it ({text}); close it there, or run h5clear -s "
            "on the file"
        )
    if isinstance(error, NotImplementedError) or any(words in str(error) for words in _UNSUPPORTED):
        return UserError(
            f"{where} is stored in a way that is not read here ({text}); store it anew, plainly or with a common codec"
        )
    return UserError(f"{where} is damaged or incomplete ({text}); fetch it again")


@contextmanager
def library_errors(where: Path | str, *kinds: type[BaseException]) -> Iterator[None]:
    """Turn what a library raises (these ``kinds``) into one sentence about ``where``."""
    try:
        yield
    except UserError:
        raise
    except kinds as error:
        raise unreadable(where, error) from error


def short(error: BaseException) -> str:
    """The first line of an error's text, or its kind."""
    lines = str(error).strip().splitlines()
    return (lines[0][:160] if lines else "") or type(error).__name__
