"""I-MMSE on small problems whose information is known, and its parts by hand."""

import dataclasses

import numpy as np
import pytest

from compression_gap.information.denoising import Denoising
from compression_gap.information.gaussian import Part
from compression_gap.information.immse import conditional_rates, integrated, stacked
from compression_gap.information.known import discrete, gaussian, nonlinear

SMALL = Denoising(steps=300, seeds=1, reduction_steps=300, batch_size=256, width=96, neighbours=1024)

TINY = Denoising(steps=20, seeds=2, reduction_steps=10, width=32, layers=1, batch_size=64, neighbours=256)


def rates_of(known, n, how, extra=None):
    a, c = known.draw(n, np.random.default_rng(0))
    cuts = {
        "train": slice(0, n * 8 // 10),
        "validation": slice(n * 8 // 10, n * 9 // 10),
        "test": slice(n * 9 // 10, n),
    }
    parts = {"c": Part({s: c[r] for s, r in cuts.items()})}
    contexts = {"": (), "c": ("c",)}
    if extra is not None:
        parts["extra"] = Part({s: extra[r] for s, r in cuts.items()}, wide=True)
        contexts["both"] = ("c", "extra")
    chunks = {s: a[r] for s, r in cuts.items()}
    return conditional_rates(
        chunks, parts, contexts, np.arange(n * 8 // 10), [known.sigma, 2 * known.sigma], how
    )[0]


def supply(rates):
    return (rates[""].bits - rates["c"].bits)[:, 0]


def test_a_gaussian_is_found_within_a_tenth_of_a_bit():
    known = gaussian(4, 3.0)
    rates = rates_of(known, 10_000, SMALL)
    values = supply(rates)
    assert values.mean() == pytest.approx(3.0, abs=max(0.1, 2.5 * values.std() / np.sqrt(len(values))))


def test_the_network_finds_what_the_linear_part_cannot():
    known = nonlinear(dimensions=1)
    rates = rates_of(known, 4_000, SMALL)
    probe = (rates[""].linear - rates["c"].linear)[:, 0].mean()
    assert abs(probe - known.bits) > 0.5
    assert supply(rates).mean() == pytest.approx(known.bits, abs=0.3)


def test_without_training_the_linear_part_stands_alone():
    rates = rates_of(gaussian(2, 1.0), 1_000, Denoising(steps=0))
    for r in rates.values():
        assert (r.bits == r.linear).all()


def test_a_finer_resolution_never_needs_fewer_bits_on_average():
    rates = rates_of(gaussian(2, 2.0), 1_000, TINY)
    for r in rates.values():
        fine, coarse = r.bits.mean(0)
        assert fine > coarse > 0


def test_chunks_that_repeat_themselves_are_known_without_training():
    """Sixteen names that the context spells out: a network takes thousands of steps to learn them."""
    known = discrete()
    untrained = Denoising(steps=1, seeds=1, reduction_steps=1, width=8, layers=1)
    rates = rates_of(known, 4_000, untrained)
    probe = (rates[""].linear - rates["c"].linear)[:, 0].mean()
    assert abs(probe - known.bits) > 1
    assert supply(rates).mean() == pytest.approx(known.bits, abs=0.4)
    alone = supply(rates_of(known, 4_000, dataclasses.replace(untrained, neighbours=1))).mean()
    assert abs(alone - known.bits) > 1


def test_a_context_that_says_nothing_more_loses_nothing():
    """Stacking: what the network overfits in noise does not make the rate worse than without it."""
    known, rng = nonlinear(dimensions=1), np.random.default_rng(1)
    rates = rates_of(known, 3_000, SMALL, extra=rng.standard_normal((3_000, 40)))
    more = rates["c"].bits[:, 0].mean() - rates["both"].bits[:, 0].mean()
    assert abs(more) < 0.15


def test_parts_may_have_any_name():
    rng, name = np.random.default_rng(0), "hub:owner/name@v1.0"
    chunks = {s: rng.standard_normal((100, 2)) for s in ("train", "validation", "test")}
    parts = {name: Part({s: c[:, :1] for s, c in chunks.items()})}
    contexts = {"": (), "seen": (name,)}
    how = TINY
    found, _ = conditional_rates(chunks, parts, contexts, np.arange(100), [0.5], how)
    assert found["seen"].bits.mean() < found[""].bits.mean()


def test_the_same_seed_gives_the_same_bits():
    known, how = gaussian(2, 1.0), TINY
    one, two = (rates_of(known, 500, how)["c"].bits for _ in range(2))
    assert (one == two).all()


def test_stacking_weights_by_hand():
    # Independent errors of variance 1 and 4: weights 0.8 and 0.2.
    np.testing.assert_allclose(stacked(np.diag([1.0, 4.0])), [0.8, 0.2], atol=1e-5)
    # An error that is twice another's has no share.
    np.testing.assert_allclose(stacked(np.array([[1.0, 2.0], [2.0, 4.0]])), [1.0, 0.0], atol=1e-5)
    # Errors that cancel.
    np.testing.assert_allclose(stacked(np.array([[1.0, -1.0], [-1.0, 1.0]])), [0.5, 0.5], atol=1e-5)


def test_the_integral_of_a_constant_gain_is_its_range():
    gains, reach = np.full((1, 10), 2.0), (-3.0, 2.0)
    sigmas = np.exp(-np.array([2.0, 0.5, -3.0, -5.0]) / 2)
    found = integrated(gains, reach, sigmas)[0] * np.log(2)
    # One unit of ln u below the reach; left of it the integral falls with u.
    np.testing.assert_allclose(found, [2 * 6, 2 * 4.5, 2 * 1, 2 * np.exp(-2)], rtol=1e-12)
