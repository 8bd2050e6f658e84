"""A table of results: records flattened to rows of numbers and words, over Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import pyarrow as pa

from ..errors import UserError


@dataclass(frozen=True, repr=False)
class Table:
    """Rows to loop over, an Arrow table, or a pandas frame."""

    arrow: pa.Table

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> Table:
        """Records of one kind as rows; what is None throughout keeps its column."""
        rows = [flat(r) for r in records]
        names = dict.fromkeys(name for row in rows for name in row)
        return cls(pa.table({name: _column([row.get(name) for row in rows]) for name in names}))

    @property
    def columns(self) -> list[str]:
        """Their names, in order."""
        return list(self.arrow.column_names)

    def __len__(self) -> int:
        return int(self.arrow.num_rows)

    def __repr__(self) -> str:
        return f"<Table of {len(self)} × {len(self.columns)}: {', '.join(self.columns)}>"

    def to_pylist(self) -> list[dict[str, Any]]:
        """One dictionary a row."""
        return list(self.arrow.to_pylist())

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``. Raises ``UserError`` where pandas is not installed."""
        if find_spec("pandas") is None:
            raise UserError(
                "pandas is not installed: run  pip install pandas, or take the rows of .to_pylist() or .arrow"
            )
        return self.arrow.to_pandas()


def flat(record: Mapping[str, Any]) -> dict[str, object]:
    """One row. An interval becomes NAME, NAME_low and NAME_high; lists of records have tables of their own."""
    out: dict[str, object] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            inner = flat(value).items()
            out |= {name if part == "value" else f"{name}_{part}": of for part, of in inner}
        elif not (isinstance(value, list) and (not value or isinstance(value[0], Mapping))):
            out[name] = value
    return out


def _column(values: list[Any]) -> pa.Array:
    """An Arrow array; words where a column mixes words and numbers."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if v is None else str(v) for v in values])
