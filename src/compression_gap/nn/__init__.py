"""Networks shared by heads and tokenizers: the trunk, its sizes, the average of weights, the training loop."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .sizes import SIZES, TrunkSize

if TYPE_CHECKING:
    from .ema import EMA
    from .training import Curve, Diverged, Interrupted, Schedule, train
    from .trunk import KVCache, Memory, SelfBlock, Trunk, initialise

# Loaded when asked for: sizes are read while a study is planned, which must not wait for torch.
_HOMES = {
    "EMA": "ema",
    "Curve": "training",
    "Diverged": "training",
    "Interrupted": "training",
    "KVCache": "trunk",
    "Memory": "trunk",
    "Schedule": "training",
    "SelfBlock": "trunk",
    "Trunk": "trunk",
    "initialise": "trunk",
    "train": "training",
}

__all__ = [
    "EMA",
    "SIZES",
    "Curve",
    "Diverged",
    "Interrupted",
    "KVCache",
    "Memory",
    "Schedule",
    "SelfBlock",
    "Trunk",
    "TrunkSize",
    "initialise",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
