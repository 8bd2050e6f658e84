"""What lies after a row's length is padding: any value there is ignored, and lengths are checked."""

import numpy as np
import pytest
import torch

from compression_gap.errors import UserError
from compression_gap.tokenizers import OAT, Tokens


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    made = OAT(4, tokens=4, size="xs")
    made._network = made._build(2).eval().requires_grad_(False)
    return made


@pytest.mark.parametrize("padding", [-1, 1000, 7])
def test_padding_may_hold_anything(tokenizer, padding):
    lengths = np.array([2, 3])
    plain = tokenizer.decode(Tokens(np.array([[5, 6, 0, 0], [1, 2, 3, 0]]), lengths)).chunk
    padded = tokenizer.decode(Tokens(np.array([[5, 6, padding, padding], [1, 2, 3, padding]]), lengths)).chunk
    np.testing.assert_array_equal(plain, padded)


@pytest.mark.parametrize("lengths", [[-1, 2], [2], [[2, 2]]])
def test_lengths_that_cannot_be(tokenizer, lengths):
    with pytest.raises(UserError, match="2 rows of tokens need 2 lengths"):
        tokenizer.decode(Tokens(np.array([[5, 6], [1, 2]]), np.array(lengths)))
