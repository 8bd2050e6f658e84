"""Sizes of networks, by name. No torch: plans and their costs read them."""

from typing import Literal, NamedTuple

Size = Literal["xs", "S", "M", "L"]
AutoencoderSize = Literal["xs", "S", "M"]


class TrunkSize(NamedTuple):
    """Depth and width of a transformer trunk."""

    layers: int
    width: int
    heads: int


# M and L are as published.
SIZES: dict[str, TrunkSize] = {
    "xs": TrunkSize(2, 128, 4),
    "S": TrunkSize(3, 192, 6),
    "M": TrunkSize(4, 256, 4),
    "L": TrunkSize(6, 384, 6),
}

# Of tokenizers with a network: width, encoder layers, decoder layers, heads; M is OAT's published size.
AUTOENCODER_SIZES: dict[str, tuple[int, int, int, int]] = {
    "xs": (64, 2, 2, 4),
    "S": (128, 2, 3, 4),
    "M": (256, 2, 4, 4),
}
