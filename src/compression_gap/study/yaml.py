"""Reading YAML against a model: an error is one sentence that names file, line, path and the nearest name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import UserError
from ..records import parse_yaml

Model = TypeVar("Model", bound=BaseModel)

PATH = re.compile(r"[a-z_]+(\.\w+)*(?=: )|[a-z_]+(\.\w+)+(?= )")


@contextmanager
def of_key(*path: str | int) -> Iterator[None]:
    """Begin errors with the path of the key in the file whose value they are about."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{'.'.join(map(str, path))}: {error}") from error


def parse_model(text: str, where: str, model: type[Model]) -> tuple[Model, Written]:
    """The model in a YAML text, and where its keys were written; ``where`` names the text in errors."""
    try:
        data, tree = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise UserError(f"{where}{line}: not valid YAML: {problem}") from error
    if not isinstance(data, dict):
        raise UserError(f"{where}: a study file is a mapping with the keys {', '.join(model.model_fields)}")
    try:
        # Strict in JSON mode: lists become tuples, and nothing else is coerced.
        return model.model_validate_json(json.dumps(data)), Written(where, tree)
    except ValidationError as error:
        raise UserError(_sentence(error.errors(), where, tree, model)) from error
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error


class Written:
    """Where a model was written: the name of its file, and its tree of nodes. No part of what the model is."""

    def __init__(self, where: str = "", tree: yaml.Node | None = None) -> None:
        self.where, self.tree = where, tree

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written)

    def __hash__(self) -> int:
        return 0

    def place_of(self, sentence: str, model: type[BaseModel]) -> str | None:
        """File and line of the key whose path a sentence begins with (``of_key``); None if it begins with none."""
        path = PATH.match(sentence)
        if path is None or path[0].partition(".")[0] not in model.model_fields or not self.where:
            return None
        line = self._line(path[0].split("."))
        return self.where + (f" line {line}" if line else "")

    def _line(self, path: Sequence[str]) -> int | None:
        """The line of a key by its path, or of the nearest that the file has; None where it has not even the first."""
        node, found = self.tree, None
        for part in path:
            node, line = _child(node, int(part) if part.isdecimal() else part)
            if node is None:
                break
            found = line
        return found


def _locate(error: Any, tree: yaml.Node | None) -> tuple[list[str], int]:
    """The path in the file and its line. Union branches add type names; keep what the file contains."""
    path, line, node = [], 1, tree
    for part in error["loc"]:
        child, mark = _child(node, part)
        if child is None and error["type"] != "missing":
            continue
        path.append(str(part))
        if child is not None:
            node, line = child, mark
    return path, line


def _sentence(errors: Sequence[Any], where: str, tree: yaml.Node | None, model: type[BaseModel]) -> str:
    # A key that is not known comes first: where it is misspelt, the one that was meant is missing.
    unknown = [e for e in errors if e["type"] == "extra_forbidden"]
    # Of the branches of a union, the one that got furthest into the value is the one that was meant.
    begin = _locate((unknown or errors)[0], tree)[0]
    same = [e for e in errors if _locate(e, tree)[0][: len(begin)] == begin]
    error = max(same, key=lambda e: len(_locate(e, tree)[0]))
    path, line = _locate(error, tree)
    name = ".".join(path)
    if error["type"] == "extra_forbidden":
        path = path or [str(error["loc"][-1])]  # a key that YAML reads as another value than text: null, 1e3
        name = ".".join(path)
        known = _fields(model, path[:-1])
        near = get_close_matches(path[-1], known, n=1) or _elsewhere(model, path[-1])
        hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
        return f"{where} line {line}: unknown key '{name}'; {hint}"
    if error["type"] == "missing":
        return f"{where} line {line}: the key '{name}' is missing; add it"
    message = error["msg"].removeprefix("Value error, ")
    if not path:  # of the file as a whole
        return f"{where}: {message}"
    given = error.get("input")
    shown = "" if isinstance(given, dict | list) else f" (it is {_short(given)})"
    return f"{where} line {line}: '{name}': {message[0].lower()}{message[1:]}{shown}; correct this value"


def _short(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 80 else words[:79] + "…"


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node | None, int]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None, 1


def _elsewhere(model: type[BaseModel], key: str) -> list[str]:
    """Where a key belongs that stands in another section than its own."""
    if key in model.model_fields:
        return [key]
    return [f"{section}.{key}" for section in model.model_fields if key in _fields(model, [section])]


def _fields(model: Any, path: list[str]) -> list[str]:
    """The keys of the section at a path; none of a value that is no section."""
    for part in path:
        kind = model.model_fields[part].annotation
        model = next((m for m in get_args(kind) if hasattr(m, "model_fields")), kind)  # ``Swap | None``
    return list(getattr(model, "model_fields", {}))
