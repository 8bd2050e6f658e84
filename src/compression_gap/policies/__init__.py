"""Policies: heads on the shared trunk, training, saving and loading."""

from typing import Any

from .base import ActionHead, Emission, Target

__all__ = ["ActionHead", "Emission", "Policy", "SnappedPolicy", "Target", "coded_round_trip"]


def __getattr__(name: str) -> Any:
    # ``base`` must stay importable without torch: simulator workers need ``Emission`` alone.
    if name in ("Policy", "SnappedPolicy", "coded_round_trip"):
        from . import policy

        return getattr(policy, name)
    raise AttributeError(name)
