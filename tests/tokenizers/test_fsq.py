import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import FSQ as Reference

from compression_gap.tokenizers import FSQ, FSQ_LEVELS


@pytest.fixture(params=FSQ_LEVELS.values(), ids=str)
def levels(request):
    return request.param


def latents(levels, n=4000, scale=2.0):
    """Latents that reach from the centre to far outside."""
    return scale * torch.randn(n, 3, len(levels), generator=torch.Generator().manual_seed(0))


def test_bound_codes_and_indices_equal_the_reference_bit_by_bit(levels):
    fsq, reference = FSQ(levels), Reference(list(levels))
    z = latents(levels)
    codes, indices = reference(z)
    assert torch.equal(fsq(z), codes)
    assert torch.equal(fsq.index(fsq(z)), indices.long())
    assert torch.equal(fsq.bound(z).round() / fsq.scale, reference.bound(z).detach())
    half = (torch.tensor(levels) - 1) * (1 + 1e-3) / 2
    offset = torch.where(torch.tensor(levels) % 2 == 0, 0.5, 0.0)
    assert torch.equal(fsq.bound(z), (z + (offset / half).atanh()).tanh() * half - offset)


def test_the_codebook_equals_the_reference_bit_by_bit(levels):
    fsq = FSQ(levels)
    assert torch.equal(fsq.code(torch.arange(fsq.size)), Reference(list(levels)).implicit_codebook)


def test_every_index_survives_the_way_through_its_code(levels):
    fsq = FSQ(levels)
    indices = torch.arange(fsq.size)
    codes = fsq.code(indices)
    assert torch.equal(fsq.index(codes), indices)
    assert len(codes.unique(dim=0)) == fsq.size
    assert codes.abs().max() <= 1


def test_sizes_are_those_of_the_table(levels):
    assert FSQ_LEVELS[FSQ(levels).size] == levels
    assert FSQ(levels).size == math.prod(levels)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.data())
def test_index_and_code_round_trip_for_any_levels(levels, data):
    fsq = FSQ(levels)
    indices = torch.tensor(data.draw(st.lists(st.integers(0, fsq.size - 1), min_size=1, max_size=20)))
    assert torch.equal(fsq.index(fsq.code(indices)), indices)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.floats(-50, 50))
def test_any_latent_has_an_index_of_the_codebook_and_codes_are_its_own(levels, value):
    fsq = FSQ(levels)
    codes = fsq(torch.full((len(levels),), value))
    index = fsq.index(codes)
    assert 0 <= index < fsq.size
    assert torch.equal(fsq.code(index), codes)


def test_all_levels_are_reached_in_order():
    """A latent that grows passes through all levels of a dimension, and one step at a time."""
    fsq = FSQ((8, 5))
    digits = fsq.index(fsq(torch.linspace(-8, 8, 20001)[:, None].expand(-1, 2)))
    for found, n in ((digits % 8, 8), (digits // 8, 5)):
        assert found.unique_consecutive().tolist() == list(range(n))


def test_known_codes():
    """[5, 3]: zero is the middle digit of both; the first dimension counts lowest."""
    fsq = FSQ((5, 3))
    zero = fsq(torch.zeros(2))
    assert zero.tolist() == [0, 0]
    assert fsq.index(zero) == 2 + 1 * 5
    assert fsq.code(torch.tensor(0)).tolist() == [-1, -1]
    assert fsq.code(torch.tensor(1)).tolist() == [-0.5, -1]
    assert fsq.code(torch.tensor(5)).tolist() == [-1, 0]
    assert FSQ((8,))(torch.zeros(1)).tolist() == [0]
    assert FSQ((8,)).code(torch.tensor([0, 7]))[:, 0].tolist() == [-1, 0.75]


def test_the_gradient_is_that_of_the_bound(levels):
    """Rounding passes it through: d code / dz = (1 − tanh²(z + shift))·half / (L // 2)."""
    fsq = FSQ(levels)
    z = latents(levels, 50).requires_grad_()
    weights = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    (through,) = torch.autograd.grad((fsq(z) * weights).sum(), z)
    (smooth,) = torch.autograd.grad((fsq.bound(z) / fsq.scale * weights).sum(), z)
    assert torch.equal(through, smooth)
    by_hand = (1 - (z + fsq.shift).tanh() ** 2) * fsq.half_width / fsq.scale * weights
    torch.testing.assert_close(through, by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("bad", [(), (8, 1), (0,)])
def test_too_few_levels(bad):
    with pytest.raises(ValueError, match="at least two levels"):
        FSQ(bad)
