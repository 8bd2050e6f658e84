"""Whether a network of others' record is that of its tensors, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn


def check_shapes(make: Callable[[], nn.Module], found: Mapping[str, Sequence[int]]) -> None:
    """Raise ``ValueError`` unless what ``make`` makes has tensors of these names and shapes.

    It is made without memory (torch's meta device): a record may claim layers of any size, its tensors lie in a file.
    """
    try:
        with torch.device("meta"):
            wanted = {name: tuple(tensor.shape) for name, tensor in make().state_dict().items()}
    except (NotImplementedError, RuntimeError) as error:
        if "meta" in str(error):  # another package's layers, which compute while they are made
            return
        raise
    if wanted != {name: tuple(shape) for name, shape in found.items()}:
        raise ValueError("its tensors are those of another network")


def shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    """The tensors of a safetensors file by their names: shapes alone, from its header.

    Raises ``OSError`` and ``SafetensorError``.
    """
    with safe_open(file, "pt") as held:
        return {name: tuple(held.get_slice(name).get_shape()) for name in held.keys()}  # noqa: SIM118
