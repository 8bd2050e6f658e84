"""JSON and YAML that others may have written: read within bounds, and refused in words.

A record's size, depth and numbers are bounded, so that a small file costs little: neither aliases within aliases,
nor thousands of open brackets, nor a number of thousands of digits end in anything but a ``ValueError``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, ClassVar

import yaml

if TYPE_CHECKING:
    import numpy as np

LARGEST = (
    2**27
)  # bytes of a JSON record: the demonstrations of the largest sets list their episodes in tens of MB
MOST_VALUES = 2**23  # of a JSON record: each takes up to a hundred bytes of memory
DEEPEST_JSON = (
    256  # lists and maps within each other, of a JSON record: what reads it may call itself as often
)
LARGEST_YAML = 2**20  # characters of a YAML file, also with its aliases written out
FINITE = 3.4e38  # of float32: what is computed with
TOO_DEEP = "its lists and maps are nested too deeply"
DEEPEST = 64  # lists and maps within each other, of a YAML file
WHOLE = 2**63  # whole numbers of a YAML file lie below it, in magnitude


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ``ValueError``, one line, for anything else."""
    if len(text) > LARGEST:
        raise ValueError(f"{len(text):,} bytes are more than the {LARGEST:,} that a record may have")
    text = text if isinstance(text, str) else text.decode()
    if sum(map(text.count, "[{,")) > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES:,} values")
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    _check_depth(found)
    return found


def _check_depth(value: Any) -> None:
    """Raise ``ValueError`` for a value that would be too deep for a function that calls itself at each level."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST_JSON + 1):
        if not level:
            return
        inner = (v for of in level for v in (of.values() if isinstance(of, dict) else of))
        level = [v for v in inner if isinstance(v, dict | list)]
    raise ValueError(TOO_DEEP)


def read_json(file: Path) -> Any:
    """The value in a JSON file. Raises ``OSError`` if it cannot be read, ``ValueError`` if it is no such file."""
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise ValueError("it is no file")
    with file.open("rb") as stream:
        return parse_json(stream.read(LARGEST + 1))


def read_object(file: Path) -> dict[str, Any]:
    """``read_json`` of a file that holds one JSON object; ``ValueError`` for another value."""
    found = read_json(file)
    if not isinstance(found, dict):
        raise ValueError(f"it holds {_kind(found)}, not an object")
    return found


def read_array(file: Path, *, mapped: bool = False) -> np.ndarray:
    """The array of an .npy file, read-only from the disk if it is ``mapped``. Never unpickles.

    Raises ``OSError`` if it cannot be read, ``ValueError`` if it is no such file.
    """
    import numpy as np

    try:
        return np.asarray(np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False))
    except (
        ValueError,
        EOFError,
        SyntaxError,
        TypeError,
        OverflowError,
        MemoryError,
        RecursionError,
        TokenError,
    ) as error:
        # NumPy's own words advise to unpickle it
        raise ValueError(f"{file.name} is no .npy file of numbers") from error


def numbers(record: Mapping[str, Any], name: str) -> list[float]:
    """A field that is a list of finite numbers. Raises ``ValueError`` that names it for anything else."""
    value = record.get(name)
    if not isinstance(value, list) or not all(type(n) in (int, float) and abs(n) < FINITE for n in value):
        raise ValueError(f"'{name}' is missing, or no list of finite numbers")
    return value


def whole(record: Mapping[str, Any], name: str, least: int, most: int) -> int:
    """A field that is a whole number in a range. Raises ``ValueError`` that names it for anything else."""
    value = record.get(name)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"'{name}' is missing, or no whole number from {least} to {most}")
    return value


def _kind(value: Any) -> str:
    known: dict[type, str] = {list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return known.get(type(value), "a number")


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML text, and its tree of nodes, which know their lines.

    Raises ``yaml.YAMLError``, whose ``problem_mark`` says where (if it is known), for what is no YAML that is read.
    """
    if len(text) > LARGEST_YAML:
        raise yaml.YAMLError(
            f"{len(text):,} characters are more than the {LARGEST_YAML:,} that a file may have"
        )
    loader = YamlLoader(text)
    try:
        tree = loader.get_single_node()
        return (None if tree is None else loader.construct_document(tree)), tree
    finally:
        loader.dispose()


class YamlLoader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, 010 is no octal one, and a key given twice is an error."""

    # Octal and base-60 numbers, and dates, would be read from words that only look like them.
    yaml_implicit_resolvers: ClassVar[dict] = {  # type: ignore[misc]
        first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in ("int", "float", "timestamp")]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        # Of the nodes that are whole: size in characters and height, aliases written out.
        self.whole: dict[int, tuple[int, int]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node. Refuses what is too deep, and what its aliases would make too large."""
        mark, alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        self.depth += 1
        if self.depth > DEEPEST:
            raise _problem(f"more than {DEEPEST} lists and maps within each other", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if node is None or (alias and id(node) in self.whole):
            return node
        if alias:
            raise _problem("an alias within what it repeats", mark)
        inside = [self.whole[id(n)] for n in _children(node)]
        size = 1 + _length(node) + sum(size for size, _ in inside)
        height = 1 + max((height for _, height in inside), default=0)
        if size > LARGEST_YAML or height > DEEPEST:
            raise _problem("aliases that repeat too much: write the values out", mark)
        self.whole[id(node)] = size, height
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A node's value; what its tag does not fit is a YAML error."""
        try:
            made = super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
            raise _problem(f"{_short(node)} is no value of {node.tag}", node.start_mark) from error
        if isinstance(made, int) and not -WHOLE < made < WHOLE:
            raise _problem(f"the whole number {_short(node)} is too large", node.start_mark)
        return made

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """A map; a key that is no word, or is given twice, is a YAML error."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _problem("a key must be a word", key.start_mark)
            if key.value in seen:
                raise _problem(f"the key {_short(key)} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789")
)
YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$"),
    list("-+0123456789."),
)


def _problem(what: str, mark: yaml.Mark) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, what, mark)


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [n for pair in node.value for n in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _length(node: yaml.Node) -> int:
    return len(node.value) if isinstance(node, yaml.ScalarNode) else 0


def _short(node: yaml.Node) -> str:
    """A node in a few words."""
    if not isinstance(node, yaml.ScalarNode):
        return "a list" if isinstance(node, yaml.SequenceNode) else "a map"
    words = " ".join(node.value.split())
    return f"'{words}'" if len(words) <= 40 else f"'{words[:30]}…' ({len(words):,} characters)"
