"""Records as JSON: the one place where results become dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import BaseModel

from ...sims import EvaluationProtocol

T = TypeVar("T")
Flat = Annotated[T, "flat"]  # a record whose fields stand among its owner's in JSON; nothing where it is None
IfThere = Annotated[T, "if there"]  # a field that JSON leaves out where it is None


@cache
def _marks(record: type) -> dict[str, str]:
    """The fields of a record, each with its mark above, or an empty one."""
    hints = get_type_hints(record, include_extras=True)
    return {name: getattr(hint, "__metadata__", ("",))[0] for name, hint in hints.items()}


def as_json(value: Any) -> Any:
    """A record, or lists and maps of records, as JSON values under the fields' names."""
    if isinstance(value, EvaluationProtocol):
        return {"hash": value.hash, **value.model_dump(mode="json")}
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: as_json(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(of) for of in value]
    if not is_dataclass(value) or isinstance(value, type):
        return str(value) if isinstance(value, Path) else value
    out: dict[str, Any] = {}
    for name, mark in _marks(type(value)).items():
        own = getattr(value, name)
        if mark and own is None:
            continue
        out |= as_json(own) if mark == "flat" else {name: as_json(own)}
    return out
