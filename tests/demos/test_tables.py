"""Tables of a LeRobotDataset: what is read, and each thing that is refused with its sentence."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from compression_gap.demos import tables
from compression_gap.errors import UserError


def test_templates_are_filled_with_what_is_known():
    known = {"chunk_index": 3, "video_key": "front"}
    assert tables.fill("c-{chunk_index:03d}/{video_key}.mp4", known, Path("set")) == "c-003/front.mp4"
    assert tables.fill("{chunk_index}", known, Path("set")) == "3"


@pytest.mark.parametrize(
    "template", ["{other}", "{video_key!r}", "{chunk_index:>9}", "{video_key.__class__}", "{0}", "{", "{video_key:03d}"]
)  # fmt: skip
def test_templates_with_anything_else_are_refused(template):
    with pytest.raises(UserError, match=r"set/meta/info\.json has the path template"):
        tables.fill(template, {"chunk_index": 3, "video_key": "front"}, Path("set"))


def test_lines_of_json_end_at_newlines_alone(tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_text('{"task": "a\u2028b"}\n\n{"task": "c"}\r\n', encoding="utf-8")
    assert list(tables.read_jsonl(file)) == [{"task": "a\u2028b"}, {"task": "c"}]
    file.write_text('{"task": 1}\n{"task": \n')
    with pytest.raises(UserError, match="line 2"):
        list(tables.read_jsonl(file))


def written(folder, columns):
    file = folder / "t.parquet"
    parquet.write_table(pa.table(columns), file)
    return file


def test_columns_are_read_by_name(tmp_path):
    file = written(tmp_path, {"a": [1, 2], "b": [0.5, 1.5], "c": [True, False], "t": ["x", "y"]})
    assert tables.read_table(file, ["b"], ["c", "d", "t"]).column_names == ["b", "c"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"b": [1]}, "has no column a"),
        ({"a": [1, None]}, "has no value of a in row 1"),
    ],
)
def test_columns_that_are_not_whole_are_refused(tmp_path, columns, words):
    with pytest.raises(UserError, match=words):
        tables.read_table(written(tmp_path, columns), ["a"])


def test_numbers_are_numbers(tmp_path):
    file = tmp_path / "t.parquet"
    found = pa.table(
        {"i": [1, 2], "f": [0.5, 1.0], "t": ["1", "2"], "d": pa.array([7, 7]).dictionary_encode()}
    )
    np.testing.assert_array_equal(tables.numbers(found, "i", file), [1, 2])
    np.testing.assert_array_equal(tables.numbers(found, "f", file), [0.5, 1.0])
    np.testing.assert_array_equal(tables.numbers(found, "d", file), [7, 7])
    with pytest.raises(UserError, match="holds values of type string in t, not numbers"):
        tables.numbers(found, "t", file)


def test_flags_are_truth_values_or_nothing():
    found = pa.table({"b": [True, None], "i": [1, 0]})
    np.testing.assert_array_equal(tables.flags(found, "b"), [True, False])
    assert tables.flags(found, "i") is None
    assert tables.flags(found, "none") is None


def test_rows_of_lists_are_a_matrix():
    np.testing.assert_array_equal(tables.matrix(pa.array([[1.0, 2.0], [3.0, 4.0]]), "x"), [[1, 2], [3, 4]])
    np.testing.assert_array_equal(tables.matrix(pa.array([1, 2, 3]), "x"), [[1], [2], [3]])
    with pytest.raises(UserError):
        tables.matrix(pa.array([[1.0], [2.0, 3.0]]), "x")


def test_a_width_is_compared_before_it_is_read(tmp_path):
    with tables.opened_table(written(tmp_path, {"v": [[1.0] * 3, [2.0] * 3]})) as table:
        tables.check_width(table, "v", 3, "x")
        with pytest.raises(UserError, match=r"x has 3 numbers of v a row, meta/info\.json says 2"):
            tables.check_width(table, "v", 2, "x")
