"""What others wrote: bounded in size, depth and numbers; whatever is wrong is a ``ValueError`` or a YAML error."""

import json
import os

import numpy as np
import pytest
import yaml

from compression_gap import records
from compression_gap.records import numbers, parse_json, parse_yaml, read_array, read_json, read_object, whole


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 5000 + "]" * 5000, "its lists and maps are nested too deeply"),
        ("[" * 5000, "its lists and maps are nested too deeply"),
        ('{"a":' * 5000, "its lists and maps are nested too deeply"),
        ("9" * 4301, "4300 digits"),
        ("{", "line 1 column 2"),
        (b"\xff\xfe", "'utf-8' codec"),
    ],
    ids=["deep", "open brackets", "open maps", "digits", "half", "no text"],
)
def test_json_that_cannot_be_read_is_a_value_error_of_one_line(text, said, tmp_path):
    with pytest.raises(ValueError, match=said) as caught:
        parse_json(text)
    assert "\n" not in str(caught.value)
    (tmp_path / "a.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=said):
        read_json(tmp_path / "a.json")


def test_json_has_a_largest_size(monkeypatch, tmp_path):
    monkeypatch.setattr(records, "LARGEST", 20)
    (tmp_path / "a.json").write_text("[" + " " * 18 + "]")
    assert read_json(tmp_path / "a.json") == []
    (tmp_path / "a.json").write_text("[" + " " * 10_000 + "]")
    with pytest.raises(ValueError, match="21 bytes are more than the 20 that a record may have"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(("text", "kind"), [("[1]", "a list"), ("3", "a number"), ("null", "null"), ("true", "true or false"), ('"a"', "text")])  # fmt: skip
def test_an_object_is_one(text, kind, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=f"it holds {kind}, not an object"):
        read_object(tmp_path / "a.json")


@pytest.mark.parametrize(
    "value", [None, "1", [True], ["1"], [float("nan")], [float("inf")], [10**400], [[1]], {}]
)
def test_numbers_are_a_list_of_finite_ones(value):
    assert numbers({"a": [1, 2.5, -3e38]}, "a") == [1, 2.5, -3e38]
    with pytest.raises(ValueError, match="'a' is missing, or no list of finite numbers"):
        numbers({"a": value}, "a")


@pytest.mark.parametrize("value", [None, True, 1.0, "1", 0, 6, 10**400])
def test_a_whole_number_lies_in_its_range(value):
    assert [whole({"a": n}, "a", 1, 5) for n in (1, 5)] == [1, 5]
    with pytest.raises(ValueError, match="'a' is missing, or no whole number from 1 to 5"):
        whole({"a": value}, "a", 1, 5)


NESTED = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)
)
STAIRS = "".join(f"d{i}: &d{i} {'[' * 40}{f'*d{i - 1}' if i else '1'}{']' * 40}\n" for i in range(50))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (NESTED, 6, "aliases that repeat too much: write the values out"),  # 9⁶ words and more
        (STAIRS, 2, "aliases that repeat too much"),
        ("a: &a [*a]", 1, "an alias that stands within|an alias within what it repeats"),
        ("[" * 5000, 1, "more than 64 lists and maps within each other"),
        ("a: " + "{a: " * 5000, 1, "more than 64 lists and maps within each other"),
        ("- " * 5000, 1, "more than 64 lists and maps within each other"),
        ("\na: " + "9" * 4301, 2, r"'9{30}…' \(4,301 characters\) is no value of tag:yaml.org,2002:int"),
        ("a: 9223372036854775808", 1, "the whole number '9223372036854775808' is too large"),
        ("a: !!bool x", 1, "'x' is no value of tag:yaml.org,2002:bool"),
        ("a: !!int ''", 1, "'' is no value of tag:yaml.org,2002:int"),
        ("a: !!timestamp x", 1, "'x' is no value of tag:yaml.org,2002:timestamp"),
        ("a: !!python/name:os.system", 1, "could not determine a constructor"),
    ],
)
def test_yaml_of_small_text_and_large_meaning_is_refused_with_its_line(text, line, said):
    with pytest.raises(yaml.YAMLError, match=said) as caught:
        parse_yaml(text)
    assert caught.value.problem_mark.line + 1 == line


def test_yaml_has_a_largest_size():
    with pytest.raises(yaml.YAMLError, match="1,048,577 characters are more than the 1,048,576"):
        parse_yaml("x" * (2**20 + 1))


def test_aliases_within_bounds_are_read():
    value, tree = parse_yaml("a: &a {x: 1e-3, n: 010}\nb: [*a, *a]\nc: {<<: *a, y: 9223372036854775807}\n")
    one = {"x": 1e-3, "n": 10.0}
    assert value == {"a": one, "b": [one, one], "c": {**one, "y": 2**63 - 1}}
    assert json.loads(json.dumps(value)) == value
    assert [key.start_mark.line for key, _ in tree.value] == [0, 1, 2]
    assert parse_yaml("") == (None, None)


def test_json_has_a_depth_and_a_number_of_values(monkeypatch):
    assert parse_json("[" * 256 + "]" * 256) is not None
    with pytest.raises(ValueError, match="nested too deeply"):
        parse_json("[" * 257 + "]" * 257)
    monkeypatch.setattr(records, "MOST_VALUES", 4)
    assert parse_json("[1,2,3]") == [1, 2, 3]
    with pytest.raises(ValueError, match="more than 4 values"):
        parse_json("[1,2,3,[]]")


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ValueError, match="it is no file"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK", b"\x93NUMPY\x01\x00\x06\x00{'a':\n"])
def test_a_broken_array_is_a_value_error(content, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3), allow_pickle=False)
    assert read_array(tmp_path / "a.npy", mapped=True).tolist() == [0, 1, 2]
    (tmp_path / "b.npy").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - of NumPy's or of ours
        read_array(tmp_path / "b.npy")
