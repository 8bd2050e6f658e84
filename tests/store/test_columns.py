"""Parquet of others, read by a schema."""

import pyarrow as pa
import pytest
from pyarrow import parquet

from compression_gap.store import columns
from compression_gap.store.columns import read_columns

SCHEMA = pa.schema([("task", pa.string()), ("n", pa.int64())])


def written(folder, **named):
    parquet.write_table(pa.table(named), folder / "t.parquet")
    return folder / "t.parquet"


def test_the_columns_of_the_schema_are_read(tmp_path):
    file = written(tmp_path, n=[1, 2], other=[[1], []], task=["a", "b"])
    found = read_columns(file, SCHEMA)
    assert found.schema == SCHEMA
    assert found.to_pylist() == [{"task": "a", "n": 1}, {"task": "b", "n": 2}]
    with pytest.raises(ValueError, match="more than 1 rows"):
        read_columns(file, SCHEMA, 1)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"n": [1]}, "no column task of its own"),
        ({"n": [1.0], "task": ["a"]}, "its column n is of the type double, not int64"),
        ({"n": [[1]], "task": ["a"]}, "its column n is of the type list"),
    ],
)
def test_other_tables_are_refused(named, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        read_columns(written(tmp_path, **named), SCHEMA)


def test_one_long_text_in_many_rows_is_refused(tmp_path, monkeypatch):
    file = written(tmp_path, n=[0] * 1000, task=["x" * 10_000] * 1000)
    assert file.stat().st_size < 10_000
    monkeypatch.setattr(columns, "TEXT_BYTES", 2**20)
    with pytest.raises(ValueError, match="its column task holds texts of up to 10,000 bytes in 1,000 rows"):
        read_columns(file, SCHEMA)
