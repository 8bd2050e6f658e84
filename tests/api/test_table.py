"""Tables of results: what becomes of intervals, lists and gaps."""

import pytest

from compression_gap.api import table
from compression_gap.api.table import Table, flat
from compression_gap.errors import UserError

RECORDS = [
    {
        "label": "a",
        "seeds": [0, 1],
        "rate": {"value": 0.5, "low": 0.25, "high": 0.75},
        "parameters": {"total": 10, "head": 4},
        "curves": [{"seed": 0, "step": [1, 2]}],
        "code": "own",
    },
    {"label": "b", "seeds": [0], "rate": None, "parameters": None, "curves": [], "code": 3},
]


def test_an_interval_becomes_three_numbers():
    assert flat(RECORDS[0]) == {
        "label": "a",
        "seeds": [0, 1],
        "rate": 0.5,
        "rate_low": 0.25,
        "rate_high": 0.75,
        "parameters_total": 10,
        "parameters_head": 4,
        "code": "own",
    }


def test_rows_share_their_columns_and_a_column_its_type():
    rows = Table.of(RECORDS).to_pylist()
    assert rows[0] == {**flat(RECORDS[0]), "parameters": None}
    empty = dict.fromkeys(("rate", "rate_low", "rate_high", "parameters", "parameters_total"))
    assert rows[1] == {"label": "b", "seeds": [0], **empty, "parameters_head": None, "code": "3"}


def test_a_pandas_frame_holds_the_same():
    found = Table.of(RECORDS)
    frame = found.to_pandas()
    assert list(frame.columns) == found.columns
    assert len(frame) == len(found) == 2
    assert frame["rate"][0] == 0.5
    assert frame["rate"].isna().tolist() == [False, True]
    assert list(frame["seeds"][0]) == [0, 1]


def test_without_pandas_a_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"^pandas is not installed: run  pip install pandas, or take the rows"
    ):
        Table.of(RECORDS).to_pandas()


def test_a_table_says_what_it_holds():
    assert repr(Table.of([{"a": 1, "b": 2}])) == "<Table of 1 × 2: a, b>"
    assert Table.of([]).to_pylist() == []
