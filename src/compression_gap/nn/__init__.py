"""Networks shared by heads and tokenizers: the trunk, its sizes, the average of weights, the training loop."""

from .ema import EMA
from .sizes import SIZES, TrunkSize
from .training import Curve, Diverged, Interrupted, Schedule, train
from .trunk import KVCache, Memory, SelfBlock, Trunk, initialise

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
