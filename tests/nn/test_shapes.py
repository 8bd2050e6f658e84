"""A record's network is compared with its tensors before memory is taken."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compression_gap.nn.shapes import check_shapes, shapes_in


def test_shapes_are_those_of_the_file(tmp_path):
    save_file(nn.Linear(3, 2).state_dict(), tmp_path / "a.safetensors")
    found = shapes_in(tmp_path / "a.safetensors")
    assert found == {"weight": (2, 3), "bias": (2,)}
    check_shapes(lambda: nn.Linear(3, 2), found)
    for other in (
        lambda: nn.Linear(3, 4),
        lambda: nn.Linear(3, 2, bias=False),
        lambda: nn.Linear(2**30, 2**30),
    ):
        with pytest.raises(ValueError, match="tensors are those of another network"):
            check_shapes(other, found)


def test_a_module_that_computes_while_it_is_made_is_not_looked_at():
    class Computes(nn.Module):
        def __init__(self):
            super().__init__()
            self.number = torch.ones(1).item()

    check_shapes(Computes, {})
