"""Policies: heads on the shared trunk, training, saving and loading."""

from importlib import import_module
from typing import Any

from .base import ActionHead, Emission, Target

__all__ = ["ActionHead", "Emission", "Policy", "SnappedPolicy", "Target", "coded_round_trip"]


_HOMES = {"Policy": "policy", "SnappedPolicy": "coded", "coded_round_trip": "coded"}


def __getattr__(name: str) -> Any:
    # ``base`` must stay importable without torch: simulator workers need ``Emission`` alone.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(name)
