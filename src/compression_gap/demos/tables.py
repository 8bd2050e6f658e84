"""The tables and lists of a LeRobotDataset: Parquet, JSON Lines and path templates, with errors in sentences."""

from __future__ import annotations

import io
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .checks import TABLE_ROWS, library_errors, shown
from .source import parse_json, read_text

LONGEST_PATH = 1024  # characters of a path, and of its template


def fill(template: str, known: Mapping[str, object], root: Path) -> str:
    """Fill a path template of info.json: ``{name}`` and ``{name:03d}`` of what is known, and nothing else."""
    out = ""
    try:
        if len(template) > LONGEST_PATH:
            raise ValueError(f"it has more than {LONGEST_PATH} characters")
        for text, name, spec, conversion in string.Formatter().parse(template):
            out += text
            if name is None:
                continue
            if name not in known or conversion or not re.fullmatch(r"(0?[0-9]d)?", spec or ""):
                raise ValueError(f"'{{{name}}}' has no meaning there")
            out += format(known[name], spec or "")
            if len(out) > LONGEST_PATH:
                raise ValueError(f"it makes a path of more than {LONGEST_PATH} characters")
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(
            f"{root}/meta/info.json has the path template {shown(template)}: {error}; correct it"
        ) from error
    return out


def read_jsonl(file: Path) -> Iterator[Any]:
    """The rows of a JSON Lines file, one after the other. Raises ``UserError`` that names the line that is broken.

    A line ends at "\\n" alone: a text may hold other characters that Python counts as line ends.
    """
    for number, line in enumerate(io.StringIO(read_text(file), newline="\n"), 1):
        if line.strip(" \t\r\n"):
            yield parse_json(line, f"{file}, line {number}")


def arrow_errors(where: Path | str) -> AbstractContextManager[None]:
    """Turn what pyarrow raises for a file into a sentence."""
    import pyarrow as pa

    return library_errors(
        where, OSError, pa.ArrowException, ValueError, TypeError, MemoryError, OverflowError
    )


def read_table(file: Path, names: Sequence[str], optional: Sequence[str] = ()) -> Any:
    """Some columns of a Parquet file, and of the ``optional`` those that it has once.

    Raises ``UserError`` if it is damaged, or lacks one of ``names`` or a value of it.
    """
    with arrow_errors(file), opened_table(file) as table:
        missing = [n for n in names if n not in table.schema_arrow.names]
        if missing:
            raise UserError(
                f"{file} has no column {', '.join(missing)}, which a LeRobotDataset of this version has; add it, or "
                "fetch the data set again"
            )
        if table.metadata.num_rows > TABLE_ROWS:
            raise UserError(
                f"{file} claims {table.metadata.num_rows} rows, more than a table may have ({TABLE_ROWS}); correct it"
            )
        _check_flat(table, names, file)
        own = [n for n in table.schema_arrow.names if _is_flat(table, n)]
        found = table.read(columns=[*names, *(n for n in optional if own.count(n) == 1)])
        for name in names:
            column = found[name]
            if column.null_count:
                at = column.is_null().to_pylist().index(True)
                raise UserError(
                    f"{file} has no value of {name} in row {at}; fill it, or fetch the data set again"
                )
    return found


def _is_flat(table: Any, name: str) -> bool:
    """Whether a column holds a number or a truth value a row. Of others, a few bytes may be GBs once they are read."""
    import pyarrow as pa

    kind = table.schema_arrow.field(table.schema_arrow.get_field_index(name)).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_primitive(kind) or pa.types.is_null(kind))


def _check_flat(table: Any, names: Sequence[str], file: Path) -> None:
    """Refuse columns of anything but single numbers, before they are read."""
    for name in names:
        if table.schema_arrow.names.count(name) != 1:
            raise UserError(f"{file} has several columns {name}; remove all but one")
        if not _is_flat(table, name):
            kind = table.schema_arrow.field(name).type
            raise UserError(
                f"{file} holds values of type {str(kind)[:60]} in {name}, not numbers; correct that column"
            )


def opened_table(file: Path, name: str = "") -> Any:
    """A Parquet file of which the columns can be read.

    Bytes and texts of the column ``name`` stay coded by a dictionary, so that what a file holds once is in memory once.
    """
    from pyarrow import parquet

    opened = parquet.ParquetFile(file)
    columns = map(opened.schema.column, range(len(opened.schema))) if name else ()
    coded = [c.path for c in columns if c.path.split(".")[0] == name and c.physical_type == "BYTE_ARRAY"]
    if not coded:
        return opened
    opened.close()
    return parquet.ParquetFile(file, read_dictionary=coded)


def plain(column: Any) -> Any:
    """A column without dictionary coding, which pandas writes for categories."""
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def numbers(table: Any, name: str, file: Path) -> np.ndarray:
    """A column [n] of numbers, floats or integers as they are stored. Raises ``UserError`` for other types."""
    import pyarrow as pa

    with arrow_errors(file):
        column = plain(table[name])
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise UserError(
            f"{file} holds values of type {column.type} in {name}, not numbers; correct that column"
        )
    with arrow_errors(file):
        return np.asarray(column.to_numpy())


def flags(table: Any, name: str) -> np.ndarray | None:
    """A column [n] of truth values, where the table has it and it is of such; a missing value is false."""
    import pyarrow as pa

    if name not in table.column_names or not pa.types.is_boolean(table[name].type):
        return None
    return np.asarray(table[name].fill_null(False).to_numpy())


def check_width(table: Any, name: str, width: int, where: str) -> None:
    """Compare the count of values that a Parquet file claims for a field with its shape, before it is read."""
    about = table.metadata
    rows, values = about.num_rows, 0
    for group in range(about.num_row_groups):
        part = about.row_group(group)
        for at in range(part.num_columns):
            column = part.column(at)
            if column.path_in_schema == name or column.path_in_schema.startswith(f"{name}."):
                values += column.num_values
    if values > rows * width:
        raise wrong_width(where, name, f"{values / max(rows, 1):g}", width)


def check_images(table: Any, name: str, where: str) -> None:
    """Refuse a column of images that is none: bytes, or a struct of bytes and a path."""
    import pyarrow as pa

    def is_bytes(kind: Any) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind))

    kind = table.schema_arrow.field(name).type
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        right = set(names) <= {"bytes", "path"} and all(
            is_bytes(kind.field(n).type) for n in names if n == "bytes"
        )
    else:
        right = is_bytes(kind)
    if not right:
        raise UserError(
            f"{where} holds values of type {str(kind)[:60]} in {name}, not images; correct that column"
        )


def wrong_width(where: str, name: str, found: object, said: int) -> UserError:
    """The error for rows of another length than info.json says."""
    return UserError(
        f"{where} has {found} numbers of {name} a row, meta/info.json says {said}; correct its shape"
    )


def matrix(column: Any, where: str) -> np.ndarray:
    """A column of numbers or of equally long (nested) lists → [n, d]."""
    with arrow_errors(where):
        return _matrix(column, where)


def _matrix(column: Any, where: str) -> np.ndarray:
    import pyarrow as pa

    rows = len(column)
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    column = plain(column)
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
    if column.null_count or not len(column):
        raise UserError(f"{where} has empty values; record them again")
    if (
        pa.types.is_boolean(column.type)
        or pa.types.is_integer(column.type)
        or pa.types.is_floating(column.type)
    ):
        return np.asarray(column.to_numpy(zero_copy_only=False)).reshape(rows, -1)
    raise UserError(f"{where} holds no numbers ({column.type}); choose another field")
