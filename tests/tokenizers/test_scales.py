"""Thresholds follow the data: no unit is preferred, rounding is no information, rare actions are not lost."""

import math

import numpy as np
import pytest

from compression_gap.errors import UserError
from compression_gap.tokenizers import FAST, Bins, make_tokenizer
from compression_gap.tokenizers.registry import TOKENIZERS

HORIZON, DIM = 8, 3
SMALL = {
    "bins": {"bins": 32},
    "bins-quantile": {"bins": 32},
    "fast": {"vocabulary": 300},
    "rvq": {"layers": 2, "codes": 8},
    "quest": {"tokens": 4, "levels": [8, 5]},
    "oat": {"tokens": 4, "levels": [8, 5]},
    "oat-unordered": {"tokens": 4, "levels": [8, 5]},
}
every = pytest.mark.parametrize("name", TOKENIZERS.own)
HOW = {"steps": 15, "batch_size": 16, "lr": 3e-3}


def some_chunks(n, seed=0):
    """A level and a slope in every dimension [n, 8, 3]."""
    level, slope = np.random.default_rng(seed).normal(size=(2, n, 1, DIM))
    return (1.5 * level + slope * np.linspace(-1, 1, HORIZON)[None, :, None]).astype(np.float32)


def fit(name, chunks, **how):
    return make_tokenizer(name, **SMALL[name]).fit(chunks, **HOW | how)


@pytest.fixture(scope="module")
def at_scale_1():
    """Every tokenizer of the same chunks, its tokens and its reconstruction."""
    found = {}
    for name in TOKENIZERS.own:
        tokenizer = fit(name, some_chunks(200))
        tokens = tokenizer.encode(some_chunks(60, seed=1))
        found[name] = tokens, tokenizer.decode(tokens).chunk
    return found


@every
@pytest.mark.parametrize("scale", [2.0**-80, 2.0**-23, 2.0**13])
def test_chunks_in_a_unit_of_a_power_of_two_have_the_same_tokens(name, scale, at_scale_1):
    """Such a unit rounds nothing: everything is equal to the last bit."""
    scale, (tokens, chunk) = np.float32(scale), at_scale_1[name]
    tokenizer = fit(name, some_chunks(200) * scale)
    found = tokenizer.encode(some_chunks(60, seed=1) * scale)
    for a, b in zip(vars(found).values(), vars(tokens).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(tokenizer.decode(found).chunk, chunk * scale)


@every
@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1e4])
def test_chunks_in_any_unit_are_reconstructed_as_well(name, scale, at_scale_1):
    """Float32 rounds such units: an action on the edge between two codes falls to either side, and training magnifies.

    Equality to the last bit is asked above.
    """
    tokens, chunk = at_scale_1[name]
    scaled = (some_chunks(60, seed=1) * scale).astype(np.float32)
    tokenizer = fit(name, (some_chunks(200) * scale).astype(np.float32))
    found = tokenizer.encode(scaled)
    np.testing.assert_array_equal(found.lengths, tokens.lengths)
    assert (found.ids == tokens.ids).mean() > (0.8 if TOKENIZERS.own[name].trained else 0.97)
    error, expected = (
        np.square(c - some_chunks(60, seed=1)).mean() for c in (tokenizer.decode(found).chunk / scale, chunk)
    )
    assert error == pytest.approx(expected, rel=0.05)
    assert error < 1.2 * np.square(some_chunks(60, seed=1)).mean()  # not ten times the signal


@every
@pytest.mark.parametrize("value", [90.0, 3e-6, -2e9])
def test_a_dimension_of_rounding_noise_costs_nothing(name, value):
    """The same tokens as if it were exactly constant, and reconstructions of one value."""
    exact, noisy = some_chunks(60), some_chunks(60)
    exact[..., 1] = value
    ulp = np.spacing(np.float32(abs(value)))
    flicker = np.float32(value) + ulp * np.random.default_rng(0).integers(-1, 2, (60, HORIZON))
    noisy[..., 1] = flicker
    assert np.ptp(noisy[..., 1]) > 0
    a, b = fit(name, exact, steps=3), fit(name, noisy, steps=3)
    np.testing.assert_array_equal(a.encode(exact).ids, b.encode(noisy).ids)
    np.testing.assert_array_equal(b.encode(noisy).clipped, a.encode(exact).clipped)
    decoded = b.decode(b.encode(noisy)).chunk[..., 1]
    assert len(np.unique(decoded)) == 1
    assert abs(decoded[0, 0] - np.float32(value)) <= ulp
    moved = noisy[:1].copy()
    moved[0, 3, 1] += 1000 * ulp  # truly
    assert b.encode(moved).clipped[0] - b.encode(noisy[:1]).clipped[0] == 1


# A gripper that closes in two chunks of 400, with a little noise while it is open


def rare_gripper(noise):
    rng = np.random.default_rng(0)
    chunks = 1 + noise * rng.normal(size=(400, 16, 1))
    chunks[[50, 300]] = -1
    return np.concatenate([rng.normal(size=(400, 16, 1)).cumsum(1) / 4, chunks], -1).astype(np.float32)


@pytest.mark.parametrize("noise", [0, 1e-5, 1e-3, 0.02, 0.1])
def test_fast_codes_a_rare_gripper(noise):
    chunks = rare_gripper(noise)
    tokenizer = FAST().fit(chunks)
    decoded = tokenizer.decode(tokenizer.encode(chunks))
    assert decoded.ok.all()
    error = np.linalg.norm(decoded.chunk - chunks, axis=1)[:, 1]
    assert error.max() <= 0.5 * math.sqrt(16) / 10 * tokenizer._half[1] + 1e-5
    assert decoded.chunk[[50, 300], :, 1] == pytest.approx(-1, abs=0.15)


@pytest.mark.parametrize("noise", [0, 1e-5, 1e-3])
def test_quantile_bins_code_a_rare_gripper(noise):
    chunks = rare_gripper(noise)
    tokenizer = Bins(edges="quantile").fit(chunks)
    tokens = tokenizer.encode(chunks)
    width = np.ptp(chunks[..., 1]) / 256
    assert np.abs(tokenizer.decode(tokens).chunk - chunks)[..., 1].max() <= width / 2 + 1e-6


def test_what_the_outermost_bins_take_is_counted():
    """With more noise the percentiles are kept, and every action at −1, decoded as open, counts."""
    chunks = rare_gripper(0.05)
    tokenizer = Bins(edges="quantile").fit(chunks)
    tokens = tokenizer.encode(chunks)
    low, high = np.percentile(chunks.reshape(-1, 2).astype(float), (1, 99), axis=0)
    assert tokenizer.decode(tokens).chunk[50, :, 1].min() > 0.8
    np.testing.assert_array_equal(tokens.clipped, ((chunks < low) | (chunks > high)).sum((1, 2)))
    assert tokens.clipped[[50, 300]].min() >= 16
    assert Bins().fit(chunks).encode(chunks).clipped.sum() == 0


# Chunks that hardly are any


def _kinds():
    x, rng = some_chunks(40), np.random.default_rng(0)
    t = np.float32(1)
    with_constant, with_noise, with_outlier, padded = x.copy(), x.copy(), x.copy(), x.copy()
    with_constant[..., 1] = 0.1
    with_noise[..., 1] = 1e6 + rng.normal(size=(40, HORIZON)) * 1e-3
    with_outlier[7, 3] = 1e6
    padded[:, 5:] = padded[:, 4:5]
    return {
        "all zero": 0 * x,
        "all one value": 0 * x + t / 3,
        "each dimension constant": np.broadcast_to(np.float32([0, 90, -1e-9]), x.shape),
        "one chunk": x[:1],
        "two chunks, one of them twice": x[[0, 0, 1]],
        "one chunk many times": np.repeat(x[:1], 40, 0),
        "one dimension constant": with_constant,
        "one dimension of rounding": with_noise,
        "two values": np.sign(x),
        "0 and 1": (x > 0).astype(np.float32),
        "0 and 1e-7": np.where(x > 0, np.float32(1e-7), 0),
        "whole numbers": np.rint(3 * x),
        "large whole numbers": np.rint(3 * x) + 30000,
        "float16": x.astype(np.float16).astype(np.float32),
        "tiny": x * np.float32(1e-30),
        "huge": x * np.float32(1e30),
        "units 1e20 apart": x * np.float32([1e-10, 1, 1e10]),
        "far from 0": x + 1000,
        "very far from 0": 1e6 + x,
        "moves once": np.where(np.arange(40)[:, None, None] == 7, t, 0) + 0 * x,
        "one outlier": with_outlier,
        "heavy tails": rng.standard_cauchy(x.shape),
        "steps": np.where(np.arange(HORIZON)[:, None] < 4, x[:, :1], x[:, -1:]),
        "held at the end": padded,
        "alternating": x * (-1.0) ** np.arange(HORIZON)[:, None],
    }


KINDS = _kinds()


def test_there_are_25_kinds():
    assert len(KINDS) == 25


@every
@pytest.mark.parametrize("kind", KINDS)
def test_degenerate_chunks_come_back_within_what_is_promised(name, kind):
    chunks = np.asarray(KINDS[kind], np.float32)
    tokenizer = fit(name, chunks, steps=2, batch_size=4)
    tokens = tokenizer.encode(chunks)
    decoded = tokenizer.decode(tokens)
    low, high = chunks.min((0, 1)), chunks.max((0, 1))
    assert decoded.ok.all()
    assert np.isfinite(decoded.chunk).all()
    assert ((decoded.chunk >= low) & (decoded.chunk <= high)).all()
    exact, rounding = chunks.astype(np.float64), 4.0 * np.spacing(np.maximum(np.abs(low), np.abs(high)))
    error = np.abs(decoded.chunk - exact)
    if name == "bins":
        assert tokens.clipped.sum() == 0
        assert (error <= (high.astype(float) - low) / 64 + rounding).all()
    elif name == "bins-quantile":
        inside = (exact >= tokenizer._start) & (exact <= tokenizer._start + 32 * tokenizer._width)
        assert (error <= tokenizer._width / 2 + rounding)[inside].all()
        beyond = np.maximum(tokenizer._start - exact, exact - tokenizer._start - 32 * tokenizer._width)
        assert tokens.clipped.sum() == (beyond > np.maximum(32e-5 * tokenizer._width, rounding)).sum()
    elif name == "fast":
        assert tokens.clipped.sum() == 0
        bound = 0.5 * math.sqrt(HORIZON) / 10 * tokenizer._half + math.sqrt(HORIZON) * rounding
        assert (np.linalg.norm(decoded.chunk - exact, axis=1) <= bound).all()
    else:
        assert tokens.clipped.sum() == 0
        np.testing.assert_array_equal(tokenizer.encode(chunks).ids, tokens.ids)


@every
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39])
def test_what_is_no_number_of_float32_is_refused(name, bad):
    chunks = some_chunks(5).astype(np.float64)
    chunks[2, 3, 1] = bad
    with pytest.raises(UserError, match="1 of 5 chunks hold NaN or infinite actions"):
        fit(name, chunks)
    assert DIM == 3
