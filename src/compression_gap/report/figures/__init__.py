"""The figures of a study's page: one file each, and its registration here.

A figure draws a summary as SVG, or an empty text where there is nothing to draw. The page's own sections place the
first ones by name; one with a caption stands among the further figures, and needs no other place than this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ...results.records.study import ErrorSummary, SuccessSummary
from . import by_encoder, ledger
from .by_code import success_by_code
from .curves import curves
from .gains import gains
from .probe import success_by_probe

S = TypeVar("S", SuccessSummary, ErrorSummary)


@dataclass(frozen=True)
class Figure(Generic[S]):
    """How a figure is drawn; with a ``caption`` it stands among the further figures."""

    draw: Callable[[S], str]
    caption: str = ""


SIMULATOR: dict[str, Figure[SuccessSummary]] = {
    "main": Figure(by_encoder.success),
    "gains": Figure(gains),
    "quality": Figure(success_by_probe),
    "bits": Figure(ledger.of_summary),
    "upgrades": Figure(ledger.predicted),
    "curves": Figure(curves),
    "codes": Figure(success_by_code),
}
RECORDINGS: dict[str, Figure[ErrorSummary]] = {
    "main": Figure(by_encoder.chunk_error),
    "bits": Figure(ledger.of_summary),
    "curves": Figure(curves),
}
