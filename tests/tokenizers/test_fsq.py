import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import FSQ as Reference

from compression_gap.errors import UserError
from compression_gap.tokenizers import FSQ, FSQ_LEVELS
from compression_gap.tokenizers.fsq import Bottleneck


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
    assert torch.equal(fsq.code(torch.arange(fsq.sizes[0])), Reference(list(levels)).implicit_codebook)


def test_every_index_survives_the_way_through_its_code(levels):
    fsq = FSQ(levels)
    indices = torch.arange(fsq.sizes[0])
    codes = fsq.code(indices)
    assert torch.equal(fsq.index(codes), indices)
    assert len(codes.unique(dim=0)) == fsq.sizes[0]
    assert codes.abs().max() <= 1


def test_sizes_are_those_of_the_table(levels):
    assert FSQ_LEVELS[FSQ(levels).sizes[0]] == levels
    assert FSQ(levels).sizes[0] == math.prod(levels)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.data())
def test_index_and_code_round_trip_for_any_levels(levels, data):
    fsq = FSQ(levels)
    indices = torch.tensor(data.draw(st.lists(st.integers(0, fsq.sizes[0] - 1), min_size=1, max_size=20)))
    assert torch.equal(fsq.index(fsq.code(indices)), indices)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=5), st.floats(-50, 50))
def test_any_latent_has_an_index_of_the_codebook_and_codes_are_its_own(levels, value):
    fsq = FSQ(levels)
    codes = fsq(torch.full((len(levels),), value))
    index = fsq.index(codes)
    assert 0 <= index < fsq.sizes[0]
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


@pytest.mark.parametrize("bad", [(8, 1), (0,), ()])
def test_too_few_levels(bad):
    with pytest.raises(UserError, match=r"at least two levels|is no codebook"):
        FSQ(bad)


GROWING = ((8, 6, 5), (8, 5, 5, 5), (5,), (7, 5, 5, 5, 5))


def test_codebooks_of_each_position_equal_the_reference_bit_by_bit():
    """A position with fewer dimensions leaves the last ones at 0, whatever the latent holds there."""
    fsq = FSQ(GROWING)
    assert fsq.sizes == (240, 1000, 5, 4375)
    assert fsq.dimensions == 5
    z = 2 * torch.randn(4000, 4, 5, generator=torch.Generator().manual_seed(0))
    codes = fsq(z)
    indices = fsq.index(codes)
    for i, levels in enumerate(GROWING):
        own, ids = Reference(list(levels))(z[:, i : i + 1, : len(levels)])
        assert torch.equal(codes[:, i : i + 1, : len(levels)], own)
        assert (codes[:, i, len(levels) :] == 0).all()
        assert torch.equal(indices[:, i : i + 1], ids.long())
    assert (indices.amax(0) < torch.tensor(fsq.sizes)).all()
    assert torch.equal(fsq.code(indices), codes)


def test_every_index_of_each_position_survives():
    fsq = FSQ(GROWING)
    for i, size in enumerate(fsq.sizes):
        indices = torch.zeros(size, 4, dtype=torch.long)
        indices[:, i] = torch.arange(size)
        codes = fsq.code(indices)
        assert torch.equal(fsq.index(codes), indices)
        assert len(codes[:, i].unique(dim=0)) == size
        assert codes.abs().max() <= 1


def test_the_gradient_of_a_dimension_that_a_position_lacks_is_zero():
    fsq = FSQ(((5,), (5, 3)))
    z = torch.full((2, 2), 0.3, requires_grad=True)
    (gradient,) = torch.autograd.grad(fsq(z).sum(), z)
    assert gradient[0, 1] == 0
    assert (gradient.flatten()[[0, 2, 3]] > 0.1).all()


def test_half_precision_latents_are_bounded_and_rounded_in_float32():
    z = latents((8, 5)).bfloat16()
    assert torch.equal(FSQ((8, 5))(z), FSQ((8, 5))(z.float()))


@torch.no_grad()
def test_the_bottleneck_does_not_see_autocast():
    torch.manual_seed(0)
    bottleneck = Bottleneck(16, ((8, 5, 5),))
    states = torch.randn(500, 4, 16)
    codes = bottleneck.codes(states)
    assert len(codes.flatten(0, 1).unique(dim=0)) > 20
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.nn.functional.linear(states, bottleneck.to_latent.weight).dtype == torch.bfloat16
        assert torch.equal(bottleneck.codes(states), codes)
    latent = bottleneck.to_latent(torch.nn.functional.layer_norm(states, (16,)))
    assert torch.equal(codes, bottleneck.fsq(latent))
