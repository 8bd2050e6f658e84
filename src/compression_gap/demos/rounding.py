"""What rounding alone explains: the one rule by which actions, the robot's state and features count as constant.

A column of numbers is constant if its range, greatest − least, is at most ``ULPS`` units in the last place (Goldberg
1991) of the format that it was stored in, at the column's greatest magnitude. So 90 against 90 ± 1 unit of float32 is
constant, and a column that moves by 1e-7 around 0 is not. The format is float32, in which demonstrations are kept; it
is float16 where every value is a float16 number. Whole numbers tell nothing of a format, and below float16's normal
numbers its places no longer follow the magnitude: both are float32's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ULPS = 4  # one rounding flickers by 1 or 2; a few operations in a row by some more
HALF = np.finfo(np.float16)
NEARLY = 1e-4  # of its magnitude: a column that moves less is shown to the user, whatever it counts as


def rounding(magnitude: np.ndarray) -> np.ndarray:
    """How far apart two values of this magnitude may lie in float32 and be one: float64, elementwise."""
    return ULPS * np.spacing(np.abs(magnitude).astype(np.float32)).astype(np.float64)


def is_constant(values: np.ndarray) -> np.ndarray:
    """Which columns of finite values [N, ...] (N ≥ 1) are constant up to rounding: bool [...]."""
    least, greatest = (edge.astype(np.float32) for edge in (values.min(0), values.max(0)))
    size = np.maximum(np.abs(least), np.abs(greatest))
    width = greatest.astype(np.float64) - least
    constant: np.ndarray = width <= rounding(size)
    in_range = (size >= HALF.smallest_normal) & (size <= HALF.max)
    coarse = ULPS * np.spacing(np.where(in_range, size, 1).astype(np.float16)).astype(np.float64)
    for at in zip(*np.nonzero(in_range & (width <= coarse) & ~constant), strict=True):
        column = values[(slice(None), *at)]
        constant[at] = _is_half(column) and not np.array_equal(column, np.rint(column))
    return constant


def _is_half(column: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return np.array_equal(column, column.astype(np.float16))


def spread(values: np.ndarray) -> np.ndarray:
    """By what to divide columns of values [N, ...], so that what moves has standard deviation 1: float64 [...].

    The standard deviation; of a constant column 1, or its range where rounding alone is wider than that.
    """
    width = values.max(0).astype(np.float64) - values.min(0)
    return np.where(is_constant(values), np.maximum(1.0, width), values.std(0, dtype=np.float64))


def notes(values: np.ndarray, names: Sequence[str]) -> list[str]:
    """A sentence for each column of values [N, p] that hardly moves: within rounding, or ``NEARLY`` not at all."""
    least, greatest = (edge.astype(np.float64) for edge in (values.min(0), values.max(0)))
    half, constant = (greatest - least) / 2, is_constant(values)
    near = (half > 0) & (constant | (2 * half <= NEARLY * np.maximum(-least, greatest)))
    found = []
    for i in np.flatnonzero(near).tolist():
        around = f"{names[i]} stays within {half[i]:.2g} of {least[i] + half[i]:.6g}"
        if constant[i]:
            found.append(f"{around}, which is rounding: it counts as constant")
        else:
            found.append(
                f"{around} and counts as moving: if that is noise, round the field before the import"
            )
    return found
