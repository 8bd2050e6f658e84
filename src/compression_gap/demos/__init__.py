"""Demonstrations: sets, chunk windows, splits, the normaliser and their sources."""

from .demoset import SPLITS, DemoSet, DemoWriter, Episode
from .normaliser import Normaliser
from .windows import Windows, make_windows

__all__ = ["SPLITS", "DemoSet", "DemoWriter", "Episode", "Normaliser", "Windows", "make_windows"]
