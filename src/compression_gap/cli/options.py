"""What the verbs share: options that stand in several of them, and printing for programs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..api.options import PolicyOptions, Running

if TYPE_CHECKING:
    from ..api.study import OpenStudy
    from ..study.file import Study

Runs = Annotated[Running, tyro.conf.arg(name="")]
Served = Annotated[PolicyOptions, tyro.conf.arg(name="")]
StudyFile = Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="STUDY.yaml")]


@dataclass(frozen=True, kw_only=True)
class OneStore:
    """Options of a verb that looks at a store."""

    store: Path = Path("store")
    """folder of all artefacts."""
    json: bool = False
    """print the result as JSON."""


@dataclass(frozen=True)
class OneStudy:
    """Options of a verb that takes one study."""

    file: StudyFile = None
    """the study file."""
    preset: str | None = None
    """a study that ships with the program; beside a file: its scale."""
    store: str = "store"
    """folder of all artefacts, or a URL such as s3://bucket/folder."""
    json: bool = False
    """print the result as JSON."""

    def load(self) -> Study:
        """The study that is named."""
        from ..study.file import load_study

        return load_study(self.file, self.preset)

    def open(self) -> OpenStudy:
        """The study that is named, planned, with its store."""
        from ..api.study import open_study

        return open_study(self.load(), self.store)

    @property
    def command(self) -> str:
        """What runs the study and makes its report."""
        file = [self.file.name] if self.file else []
        return " ".join(["cgap study run", *file, *(["--preset", self.preset] if self.preset else [])])


def print_json(value: Any) -> None:
    """For programs, also of records: sorted, indented; a NaN is no JSON and raises ValueError."""
    from ..results.records.json import as_json

    json.dump(as_json(value), sys.stdout, indent=1, sort_keys=True, allow_nan=False)
    print()
