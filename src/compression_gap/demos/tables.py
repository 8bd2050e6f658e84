"""The tables and lists of a LeRobotDataset: Parquet, JSON Lines and path templates, with errors in sentences."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .source import broken, parse_json, read_text


def fill(template: Any, known: dict[str, Any], root: Path) -> str:
    """Fill a path template of info.json: ``{name}`` and ``{name:03d}`` of what is known, and nothing else."""
    out = ""
    try:
        for text, name, spec, conversion in string.Formatter().parse(str(template)):
            out += text
            if name is None:
                continue
            if name not in known or conversion or not re.fullmatch(r"(0?[0-9]d)?", spec or ""):
                raise ValueError(f"'{{{name}}}' has no meaning there")
            out += format(known[name], spec or "")
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{root}/meta/info.json has the path template '{template}': {error}; correct it"
        ) from error
    return out


def number(row: Any, name: str, root: Path, default: float | None = None) -> float:
    """A number of a metadata row. Raises ``UserError`` if it is none."""
    value = row.get(name, default) if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{root}: meta gives {name} as {value!r}, not a number; correct it")
    return float(value)


def read_jsonl(file: Path) -> list[Any]:
    """The rows of a JSON Lines file. Raises ``UserError`` that names the line that is broken."""
    lines = read_text(file).splitlines()
    return [parse_json(line, f"{file}, line {i}") for i, line in enumerate(lines, 1) if line.strip()]


def read_table(file: Path, names: Sequence[str]) -> Any:
    """Some columns of a Parquet file. Raises ``UserError`` if it is damaged, or lacks a column or a value."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            missing = [n for n in names if n not in table.schema_arrow.names]
            if missing:
                raise UserError(f"{file} has no column {', '.join(missing)}; fetch the data set again")
            found = table.read(columns=list(names))
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing; the data set is incomplete, fetch it again") from error
    except (OSError, pa.ArrowException) as error:
        raise broken(file, error) from error
    if any(found.column(n).null_count for n in names):
        raise UserError(f"{file} has empty cells in {', '.join(names)}; fetch the data set again")
    return found


def matrix(column: Any, where: str) -> np.ndarray:
    """A column of numbers or of equally long (nested) lists → [n, d]."""
    import pyarrow as pa

    rows = len(column)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    while (
        pa.types.is_list(column.type)
        or pa.types.is_fixed_size_list(column.type)
        or pa.types.is_large_list(column.type)
    ):
        if column.null_count:
            raise UserError(f"{where} has empty rows; record them again")
        lengths = column.value_lengths() if not pa.types.is_fixed_size_list(column.type) else None
        if lengths is not None and len(lengths.unique()) > 1:
            raise UserError(f"{where} has rows of different lengths; record them again")
        column = column.flatten()
    if column.null_count:
        raise UserError(f"{where} has empty values; record them again")
    if (
        pa.types.is_boolean(column.type)
        or pa.types.is_integer(column.type)
        or pa.types.is_floating(column.type)
    ):
        return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(rows, -1)
    raise UserError(f"{where} holds no numbers ({column.type}); choose another field")
