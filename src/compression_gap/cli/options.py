"""What the verbs of the command line share: types of arguments, and printing for programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro

StorePath = Annotated[Path, tyro.conf.arg(help="folder of all artefacts")]
Json = Annotated[bool, tyro.conf.arg(help="print the result as JSON")]
StudyFile = Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="STUDY.yaml")]
Preset = Annotated[
    str | None, tyro.conf.arg(help="a study that ships with the program; beside a file: its scale")
]


def print_json(value: Any) -> None:
    """For programs, also of records: sorted, indented; a NaN is no JSON and raises ValueError."""
    from ..results.records.json import as_json

    json.dump(as_json(value), sys.stdout, indent=1, sort_keys=True, allow_nan=False)
    print()
