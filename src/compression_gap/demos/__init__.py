"""Demonstrations: sets, chunk windows, splits, the normaliser and their sources."""

from .chunks import ChunkSet, Rows, decision_rows, frame_rows, make_chunks
from .demoset import SPLITS, DemoSet, DemoWriter, Episode
from .normaliser import Normaliser
from .windows import Windows, make_windows

__all__ = [
    "SPLITS",
    "ChunkSet",
    "DemoSet",
    "DemoWriter",
    "Episode",
    "Normaliser",
    "Rows",
    "Windows",
    "decision_rows",
    "frame_rows",
    "make_chunks",
    "make_windows",
]
