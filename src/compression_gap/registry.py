"""Registries: records of facts by name, this package's own and those that other packages' entry points name.

A record says what planning needs to know (options, what is trained, what is checked) and where the class lies that
does the work. Nothing here imports torch, and a class is imported when it is made: a plan reads records alone.

An entry point of another package names such a record, as in pyproject.toml:

    [project.entry-points."compression_gap.tokenizers"]
    mine = "my_package.entries:MINE"   # MINE = TokenizerEntry("my_package.mine:Mine", trained=True)
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoints, entry_points
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .errors import UserError, unknown_name

Record = TypeVar("Record")


@dataclass(frozen=True)
class Option:
    """An option that the study file sets: what it may be (a type, as pydantic reads it), and its default.

    ``elided``: added when keys of artefacts were out already. At its default it is left out of specifications, so that
    they keep their keys.
    """

    kind: Any
    default: Any
    elided: bool = False


Options = Mapping[str, Option]


def merged(of: Iterable[Options]) -> dict[str, Option]:
    """The options of several records together. One that several have is one and the same."""
    found: dict[str, Option] = {}
    for options in of:
        for name, option in options.items():
            if found.setdefault(name, option) != option:
                raise UserError(
                    f"the option '{name}' is registered twice, and differently: rename one of them"
                )
    return found


def specified(options: Options, values: Any) -> dict[str, Any]:
    """What a specification says of these options, read from the attributes of ``values``."""
    given = {name: getattr(values, name) for name in options}
    return {n: v for n, v in given.items() if not (options[n].elided and v == options[n].default)}


def check_option(what: str, name: str, value: Any, known: Options) -> None:
    """Raise ``UserError`` for an option that is not known, or a value that it cannot take."""
    if name not in known:
        raise unknown_name(f"option of a {what}", name, known)
    adapter = TypeAdapter(known[name].kind, config=ConfigDict(strict=True, allow_inf_nan=False))
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        about = error.errors()[0]["msg"]
        raise UserError(
            f"the {what}'s option '{name}' is {str(value)[:40]!r}: {about[0].lower()}{about[1:]}"
        ) from error


def located(cls: str | Callable[..., Any]) -> Any:
    """A record's class: itself, or the one that "package.module:Class" names, imported now."""
    return pkgutil.resolve_name(cls) if isinstance(cls, str) else cls


@cache
def installed(group: str) -> EntryPoints:
    """The entry points of a group, of all packages here: to look at them takes milliseconds."""
    return entry_points(group=group)


class Registry(Mapping[str, Record], Generic[Record]):
    """Records by name. Names of this package come first, and no other package can take them."""

    def __init__(self, what: str, group: str, kind: type[Record], own: Mapping[str, Record]) -> None:
        self.what, self.group, self.kind, self.own = what, group, kind, dict(own)

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (e.name for e in installed(self.group) if e.name not in self.own)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self.own or any(name == known for known in self)

    def __getitem__(self, name: str) -> Record:
        """Raises ``UserError`` for a name that is not known, or whose package gives no record."""
        if name in self.own:
            return self.own[name]
        for entry in installed(self.group).select(name=name):
            try:
                found = entry.load()
            except Exception as error:  # whatever another package raises on import
                raise UserError(
                    f"the {self.what} '{name}' of {entry.value} cannot be loaded ({type(error).__name__}: {error}): "
                    "repair or remove the package that brings it"
                ) from error
            if not isinstance(found, self.kind):
                raise UserError(
                    f"{entry.value} is no {self.kind.__module__}.{self.kind.__qualname__}, as the {self.what} '{name}' must be"
                )
            return found
        raise unknown_name(self.what, name, self)
