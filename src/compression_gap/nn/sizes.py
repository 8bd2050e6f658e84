"""Sizes of the trunk: layers, width, attention heads. M and L are as published."""

from typing import Literal, NamedTuple

Size = Literal["xs", "S", "M", "L"]


class TrunkSize(NamedTuple):
    """Depth and width of a transformer trunk."""

    layers: int
    width: int
    heads: int


SIZES: dict[str, TrunkSize] = {
    "xs": TrunkSize(2, 128, 4),
    "S": TrunkSize(3, 192, 6),
    "M": TrunkSize(4, 256, 4),
    "L": TrunkSize(6, 384, 6),
}
