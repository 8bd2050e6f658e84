"""Parquet of others, read by a schema: columns of other types, and texts that would fill the memory, are refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

MOST_ROWS = 2**20
TEXT_BYTES = 2**27  # of a column of texts, written out: a file of KBs may name one long text a million times


def read_columns(file: Path, schema: pa.Schema, most: int = MOST_ROWS) -> pa.Table:
    """The columns of a schema, in its order. Raises ``ValueError``, one line, for a file that is not of it."""
    import pyarrow as pa
    from pyarrow import parquet

    texts = [f.name for f in schema if pa.types.is_string(f.type)]
    try:
        with parquet.ParquetFile(file) as opened:  # what it has, before it is told which texts stay coded
            _check(opened.schema_arrow, schema)
        with parquet.ParquetFile(file, read_dictionary=texts) as opened:
            if opened.metadata.num_rows > most:
                raise ValueError(f"it holds more than {most:,} rows")
            table = opened.read(columns=schema.names).select(schema.names)
            for name in texts:
                check_texts(table[name], name)
            return table.cast(schema)
    except (pa.ArrowException, OSError, KeyError, OverflowError, MemoryError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error


def _check(found: pa.Schema, schema: pa.Schema) -> None:
    for field in schema:
        if found.names.count(field.name) != 1:
            raise ValueError(f"it has no column {field.name} of its own")
        kind = plain(found.field(field.name).type)
        if kind != field.type:
            raise ValueError(f"its column {field.name} is of the type {str(kind)[:60]}, not {field.type}")


def plain(kind: Any) -> Any:
    """A column's type without dictionary coding."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def check_texts(column: Any, name: str) -> None:
    """Raise ``ValueError`` for texts, coded by a dictionary, that would be too long written out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    longest = 0
    for chunk in column.chunks:
        values = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        longest = max(longest, pc.max(pc.binary_length(values)).as_py() or 0)
    if longest * len(column) > TEXT_BYTES:
        raise ValueError(f"its column {name} holds texts of up to {longest:,} bytes in {len(column):,} rows")
