import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE

from compression_gap.errors import UserError
from compression_gap.tokenizers import FAST, OAT, Bins, Tokens, load_tokenizer, make_tokenizer
from compression_gap.tokenizers.fast import LEADING, MOST_INTEGERS, IntegerBPE

HORIZON, DIM = 16, 3


def smooth(n, horizon=HORIZON, dim=DIM, seed=0):
    """Chunks of a few slow cosines, each dimension in its own unit."""
    rng = np.random.default_rng(seed)
    amplitude = rng.normal(size=(n, 1, dim, 4)) / (1 + np.arange(4))
    phase = rng.uniform(0, 2 * np.pi, (n, 1, dim, 4))
    t = np.arange(horizon)[:, None, None] / horizon
    waves = (amplitude * np.cos(np.pi * t * np.arange(4) + phase)).sum(-1)
    return (waves * 10.0 ** (np.arange(dim) % 3)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return FAST(vocabulary=400).fit(smooth(300))


# The byte-pair encoding by itself.


def expand(bpe, ids):
    """What tokens stand for, one by one."""
    return [int(x) for i in ids for x in bpe.integers[bpe.starts[i] : bpe.starts[i] + bpe.sizes[i]]]


@settings(max_examples=150, deadline=None)
@given(
    least=st.sampled_from([-(10**12), -200, 0, 0xD700, 0xD800 - 5, 0xFFFF, 0x10FFF0, 10**12]),
    spread=st.integers(0, 60),
    length=st.integers(1, 40),
    more=st.integers(1, 60),
    runs=st.booleans(),
    seed=st.integers(0, 2**31),
)
@example(least=0xD700, spread=60, length=8, more=20, runs=True, seed=0)
def test_lossless_on_any_integers(least, spread, length, more, runs, seed):
    """Also on sequences never seen, on negative integers, and on those that as characters are surrogates."""
    rng = np.random.default_rng(seed)
    train, unseen = least + rng.integers(0, spread + 1, (2, 12, length))
    if runs:
        train[:, length // 3 :], unseen[::2, length // 2 :] = least, least
    train[0, 0], train[-1, -1] = least, least + spread
    bpe = IntegerBPE.fit(train, spread + 1 + more)
    assert bpe.alphabet <= len(bpe.sizes) <= spread + 1 + more
    for sequences in (train, unseen.clip(train.min(), train.max())):
        ids, lengths = bpe.encode(sequences)
        decoded, found = bpe.decode(ids, lengths, length)
        np.testing.assert_array_equal(decoded, sequences)
        assert (found == length).all()
        assert [expand(bpe, row[:n]) for row, n in zip(ids, lengths, strict=True)] == sequences.tolist()
        assert (ids[np.arange(ids.shape[1]) >= lengths[:, None]] == 0).all()


def merged(sequence, merges, made):
    """Byte-pair encoding as defined: the first merge that applies, everywhere from the left, and again."""
    ids = list(sequence)
    while True:
        pairs = set(pairwise(ids))
        rank = next((k for k, pair in enumerate(merges) if pair in pairs), None)
        if rank is None:
            return ids
        out, i = [], 0
        while i < len(ids):
            hit = tuple(ids[i : i + 2]) == merges[rank]
            out.append(made[rank] if hit else ids[i])
            i += 1 + hit
        ids = out


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), alphabet=st.integers(1, 4), more=st.integers(1, 40))
def test_tokens_are_those_of_the_definition(seed, alphabet, more):
    """Few integers, so that runs overlap and several merges make one token; and the same from plain Rust."""
    rng = np.random.default_rng(seed)
    sequences = rng.integers(0, alphabet, (30, 24)) * (rng.random((30, 24)) < 0.6)
    sequences[0, 0] = alphabet - 1
    bpe = IntegerBPE.fit(sequences, sequences.max() + 1 + more)
    texts = {tuple(expand(bpe, [i])): i for i in range(len(bpe.sizes))}
    merges = [tuple(pair) for pair in bpe.merges.tolist()]
    made = [texts[tuple(expand(bpe, pair))] for pair in merges]
    ids, lengths = bpe.encode(sequences)
    found = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]
    if len(set(made)) == len(made):
        assert found == [merged(s, merges, made) for s in sequences.tolist()]
    string = {i: "".join(chr(0x100 + x) for x in t) for t, i in texts.items()}
    plain = Tokenizer(BPE({s: i for i, s in string.items()}, [(string[a], string[b]) for a, b in merges]))
    assert found == [plain.encode("".join(chr(0x100 + x) for x in s)).ids for s in sequences.tolist()]


def test_two_merges_that_make_one_token():
    """aaa is (aa)a and a(aa): after that the order of merges is not that of tokens, and Rust does the rest."""
    integers, sizes = np.array([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]), np.array([1, 1, 2, 3, 4])
    merges = np.array([[0, 0], [2, 0], [0, 2], [3, 1]])
    bpe = IntegerBPE(0, integers, sizes, merges)
    assert bpe._leading == 2
    ids, lengths = bpe.encode(np.array([[0, 0, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]]))
    assert [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)] == [[4], [2, 1, 0], [1, 1, 1, 1]]


def test_fitting_twice_gives_the_same():
    sequences = np.random.default_rng(0).integers(-3, 4, (200, 30)) ** 3
    a, b = IntegerBPE.fit(sequences, 120), IntegerBPE.fit(sequences, 120)
    np.testing.assert_array_equal(a.merges, b.merges)
    np.testing.assert_array_equal(a.integers, b.integers)
    assert len(a.merges) > LEADING


def test_a_pair_that_occurs_once_is_no_token():
    bpe = IntegerBPE.fit(np.array([[0, 1, 2, 3]]), 100)
    assert bpe.sizes.tolist() == [1, 1, 1, 1]
    assert bpe.encode(np.array([[3, 2, 1, 0]]))[0].tolist() == [[3, 2, 1, 0]]


def test_integers_outside_the_alphabet():
    bpe = IntegerBPE.fit(np.array([[5, 6, 7]]), 10)
    for outside in (4, 8, -1, 2**40):
        with pytest.raises(ValueError, match="integers outside 5 … 7"):
            bpe.encode(np.array([[5, outside]]))
    with pytest.raises(ValueError, match="3 integers; at most 2"):
        IntegerBPE.fit(np.array([[5, 7]]), 2)
    with pytest.raises(ValueError, match=f"at most {MOST_INTEGERS}"):
        IntegerBPE.fit(np.array([[0, MOST_INTEGERS]]), 10**6)


# The tokenizer.


def test_coefficients_and_their_order_by_hand():
    """Percentiles ±1 of both dimensions; a constant c is √H·c at frequency 0, then the other dimension's."""
    chunks = np.stack([np.tile([[1, -1]], (4, 1)), np.tile([[-1, 1]], (4, 1))]).astype(np.float32)
    tokenizer = FAST(vocabulary=100, scale=10).fit(chunks)
    q = tokenizer._quantised(chunks)
    assert q.tolist() == [[20, -20, 0, 0, 0, 0, 0, 0], [-20, 20, 0, 0, 0, 0, 0, 0]]
    wave = np.cos(np.pi * (np.arange(4) + 0.5) / 4)  # the DCT's own frequency 1, of norm √2
    chunk = np.stack([wave, 0 * wave], -1)[None].astype(np.float32)
    assert tokenizer._quantised(chunk).tolist() == [[0, 0, round(10 * math.sqrt(2)), 0, 0, 0, 0, 0]]
    assert tokenizer.bpe.least == -20
    assert tokenizer.bpe.alphabet == 41  # also the 38 integers between that never occur
    decoded = tokenizer.decode(tokenizer.encode(chunks))
    np.testing.assert_allclose(decoded.chunk, chunks, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    horizon=st.sampled_from([1, 2, 8, 16]),
    dim=st.sampled_from([1, 7, 14, 32]),
    scale=st.sampled_from([2.0, 10.0, 25.0]),
    seed=st.integers(0, 2**31),
)
def test_the_error_is_bounded(horizon, dim, scale, seed):
    """Per dimension ‖x̂ − x‖₂ ≤ ½ √H / scale, in units of half the percentiles' distance."""
    chunks = smooth(20, horizon, dim, seed)
    tokenizer = FAST(vocabulary=4000, scale=scale).fit(chunks)
    tokens = tokenizer.encode(chunks)
    assert (tokens.clipped == 0).all()
    decoded = tokenizer.decode(tokens)
    assert decoded.ok.all()
    error = np.linalg.norm((decoded.chunk - chunks) / tokenizer._half, axis=1)
    slack = horizon * np.spacing(np.abs(chunks).max((0, 1))) / tokenizer._half
    assert (error <= 0.5 * math.sqrt(horizon) / scale + slack).all()


def test_the_error_is_that_of_rounding(fitted):
    """Coefficients that are spread over many integers: mean square 1 / (12 scale²) in each."""
    rough = np.random.default_rng(0).normal(size=(400, HORIZON, DIM)).astype(np.float32)
    tokenizer = FAST(vocabulary=1024).fit(rough)
    x = (tokenizer.decode(tokenizer.encode(rough)).chunk - rough) / tokenizer._half
    inside = (tokenizer.decode(tokenizer.encode(rough)).chunk > tokenizer.low) & (rough < tokenizer.high)
    assert np.square(x[inside]).mean() == pytest.approx(1 / 1200, rel=0.05)


def test_the_tokens_are_the_coefficients(fitted):
    chunks = smooth(50, seed=1)
    tokens = fitted.encode(chunks)
    q = fitted._quantised(np.clip(chunks, fitted.low, fitted.high))
    q = q.clip(fitted.bpe.least, fitted.bpe.least + fitted.bpe.alphabet - 1)
    rows = [expand(fitted.bpe, row[:n]) for row, n in zip(tokens.ids, tokens.lengths, strict=True)]
    assert rows == q.tolist()
    assert (
        fitted.token_sizes[tokens.ids[0, : tokens.lengths[0]]].sum() == fitted.sequence_size == HORIZON * DIM
    )


def test_a_larger_vocabulary_and_a_smaller_scale_make_shorter_sequences():
    chunks = smooth(300)
    lengths = [
        FAST(vocabulary=v, scale=s).fit(chunks).report["mean_length"]
        for v, s in ((250, 10), (600, 10), (600, 3))
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[2] < 0.6 * lengths[0] < 0.3 * HORIZON * DIM


def test_report_and_capacity(fitted):
    lengths = fitted.encode(smooth(300)).lengths
    report = fitted.report
    assert report["mean_length"] == pytest.approx(lengths.mean())
    assert report["p95_length"] == pytest.approx(np.percentile(lengths, 95))
    assert report["vocabulary"] == 400
    assert fitted.codebook_sizes == (400,) * (HORIZON * DIM)
    assert fitted.capacity_bits == pytest.approx((lengths.mean() + 1) * math.log2(401))
    assert len(fitted.token_sizes) == 400
    assert (fitted.token_sizes == 1).sum() == report["alphabet"]


def test_tokens_do_not_depend_on_the_batch(fitted):
    chunks = smooth(700, seed=3)  # more than are encoded at a time
    together = fitted.encode(chunks)
    for i in (0, 511, 512, 699):
        alone = fitted.encode(chunks[i : i + 1])
        n = together.lengths[i]
        assert alone.lengths.tolist() == [n]
        np.testing.assert_array_equal(alone.ids[0], together.ids[i, :n])
    everything = fitted.decode(together).chunk
    np.testing.assert_allclose(everything[699], fitted.decode(alone).chunk[0], atol=1e-6)


@pytest.mark.parametrize("dim", [1, 7, 14, 32])
def test_robots_of_any_dimension(dim):
    chunks = smooth(40, 8, dim)
    tokenizer = FAST().fit(torch.from_numpy(chunks))
    tokens = tokenizer.encode(torch.from_numpy(chunks))
    np.testing.assert_array_equal(tokens.ids, tokenizer.encode(chunks).ids)
    decoded = tokenizer.decode(tokens)
    assert decoded.chunk.shape == (40, 8, dim)
    assert decoded.ok.all()


def test_one_chunk_and_none():
    chunk = smooth(1)
    tokenizer = FAST().fit(chunk)
    assert tokenizer.decode(tokenizer.encode(chunk)).ok.tolist() == [True]
    empty = tokenizer.encode(chunk[:0])
    assert empty.ids.shape == (0, 0)
    assert tokenizer.decode(empty).chunk.shape == (0, HORIZON, DIM)


def test_a_constant_dimension_is_exact():
    chunks = smooth(60)
    chunks[..., 1] = 0.1
    tokenizer = FAST().fit(chunks)
    decoded = tokenizer.decode(tokenizer.encode(chunks))
    assert (decoded.chunk[..., 1] == np.float32(0.1)).all()
    everything = FAST().fit(0 * chunks + np.float32(0.3))
    assert everything.report["alphabet"] == 1
    assert (everything.decode(everything.encode(chunks)).chunk == np.float32(0.3)).all()


def test_a_gripper_that_closes_once_is_not_lost():
    chunks = np.zeros((300, 8, 1), np.float32)
    chunks[7, 4:] = 1
    tokenizer = FAST().fit(chunks)
    decoded = tokenizer.decode(tokenizer.encode(chunks)).chunk
    assert np.linalg.norm(decoded - chunks, axis=1).max() <= 0.5 * math.sqrt(8) / 10 / 2 + 1e-6


def test_what_stands_after_the_episode_does_not_widen_the_range():
    chunks, valid = smooth(50), np.ones((50, HORIZON), bool)
    valid[:, 9:] = False
    padded = np.where(valid[..., None], chunks, np.float32(1e6))
    tokenizer = FAST().fit(padded, valid)
    assert tokenizer.report["alphabet"] < 500
    np.testing.assert_array_equal(tokenizer.high, chunks[:, :9].max((0, 1)))
    tokens = tokenizer.encode(padded)
    assert tokens.clipped.tolist() == [7 * DIM] * 50
    decoded = tokenizer.decode(tokens)
    assert decoded.ok.all()


def test_actions_outside_the_range_are_clipped_and_counted(fitted):
    chunks = 5 * smooth(100, seed=1)
    tokens = fitted.encode(chunks)
    outside = (chunks < fitted.low) | (chunks > fitted.high)
    coefficients = fitted.clipped_coefficients(chunks)
    np.testing.assert_array_equal(tokens.clipped, outside.sum((1, 2)) + coefficients)
    assert coefficients.sum() > 0
    decoded = fitted.decode(tokens)
    assert decoded.ok.all()
    assert ((decoded.chunk >= fitted.low) & (decoded.chunk <= fitted.high)).all()


def test_a_coefficient_outside_the_alphabet_is_clipped_and_counted():
    """Fitted on one step, up and down; at rest in the same range, frequency 0 is larger than any seen."""
    up = np.repeat([0, 1], 4).astype(np.float32)
    chunks = np.stack([up, 1 - up])[..., None]
    tokenizer = FAST(vocabulary=100).fit(chunks)
    assert tokenizer.encode(chunks).clipped.sum() == 0
    greatest = tokenizer.bpe.least + tokenizer.bpe.alphabet - 1
    assert greatest == 26
    rest = np.ones((1, 8, 1), np.float32)
    assert tokenizer._quantised(rest).tolist() == [[round(10 * math.sqrt(8)), *[0] * 7]]  # 28
    tokens = tokenizer.encode(rest)
    assert tokens.clipped.tolist() == tokenizer.clipped_coefficients(rest).tolist() == [1]
    assert expand(tokenizer.bpe, tokens.ids[0, : tokens.lengths[0]]) == [26, *[0] * 7]
    decoded = tokenizer.decode(tokens)
    assert decoded.ok.tolist() == [True]
    np.testing.assert_allclose(decoded.chunk, (1 + 26 / 10 / math.sqrt(8)) / 2, rtol=1e-6)


# Sequences that a policy makes.


def test_a_constrained_random_walk_always_decodes(fitted):
    rng = np.random.default_rng(0)
    end = len(fitted.token_sizes)
    for _ in range(20):
        prefix: list[int] = []
        while (token := rng.choice(np.flatnonzero(fitted.allowed(prefix)))) != end:
            prefix.append(int(token))
        ids = np.array([prefix])
        assert fitted.decode(Tokens(ids, np.array([len(prefix)]))).ok.tolist() == [True]


def test_allowed_by_hand(fitted):
    sizes, size = fitted.token_sizes, fitted.sequence_size
    start = fitted.allowed([])
    assert len(start) == len(sizes) + 1
    np.testing.assert_array_equal(start[:-1], sizes <= size)
    assert not start[-1]
    one_left = fitted.allowed([0] * (size - 1))
    np.testing.assert_array_equal(one_left[:-1], sizes == 1)
    assert not one_left[-1]
    none_left = fitted.allowed([0] * size)
    assert none_left[-1]
    assert not none_left[:-1].any()
    with pytest.raises(UserError, match=f"1 integers more than the {size}"):
        fitted.allowed([0] * (size + 1))
    with pytest.raises(UserError, match="outside the codebook 0 … 399"):
        fitted.allowed([400])


def test_corrupted_tokens_are_reported(fitted):
    tokens = fitted.encode(smooth(200, seed=4))
    rng = np.random.default_rng(0)
    ids = tokens.ids.copy()
    at = rng.integers(0, tokens.lengths)
    ids[np.arange(200), at] = rng.integers(0, 400, 200)
    used = np.arange(ids.shape[1]) < tokens.lengths[:, None]
    total = (fitted.token_sizes[ids] * used).sum(1)
    decoded = fitted.decode(Tokens(ids, tokens.lengths))
    np.testing.assert_array_equal(decoded.ok, total == fitted.sequence_size)
    assert 0 < decoded.ok.sum() < 200
    assert np.isfinite(decoded.chunk).all()


def test_the_best_guess(fitted):
    """Too short: the missing coefficients are 0. Too long: the surplus is dropped. One row spoils no other."""
    chunks = smooth(3, seed=5)
    tokens = fitted.encode(chunks)
    whole = fitted.decode(tokens).chunk
    n = tokens.lengths[1]
    cut = fitted.decode(Tokens(tokens.ids, tokens.lengths - np.array([0, 1, 0])))
    assert cut.ok.tolist() == [True, False, True]
    np.testing.assert_array_equal(cut.chunk[[0, 2]], whole[[0, 2]])
    coefficients = expand(fitted.bpe, tokens.ids[1, : n - 1])
    padded = coefficients + [0] * (fitted.sequence_size - len(coefficients))
    ids, lengths = fitted.bpe.encode(np.array([padded]))
    np.testing.assert_array_equal(cut.chunk[1], fitted.decode(Tokens(ids, lengths)).chunk[0])
    ids = np.concatenate([tokens.ids, np.zeros((3, 2), np.int64)], 1)
    ids[1, n : n + 2] = int(fitted.token_sizes.argmax())
    long = fitted.decode(Tokens(ids, tokens.lengths + np.array([0, 2, 0])))
    assert long.ok.tolist() == [True, False, True]
    np.testing.assert_array_equal(long.chunk, whole)
    nothing = fitted.decode(Tokens(tokens.ids, np.array([0, 0, 0])))
    assert not nothing.ok.any()
    centre = np.broadcast_to(fitted._centre, chunks.shape)
    np.testing.assert_allclose(nothing.chunk, centre, rtol=1e-6)


def test_any_tokens_decode_to_something_in_the_range(fitted):
    rng = np.random.default_rng(1)
    ids, lengths = rng.integers(0, 400, (64, HORIZON * DIM)), rng.integers(0, HORIZON * DIM + 1, 64)
    decoded = fitted.decode(Tokens(ids, lengths))
    assert ((decoded.chunk >= fitted.low) & (decoded.chunk <= fitted.high)).all()


def test_tokens_that_it_cannot_have_made(fitted):
    for ids, lengths, message in (
        ([[400]], [1], "outside the codebook 0 … 399"),
        ([[-1]], [1], "outside the codebook 0 … 399"),
        ([[0] * 49], [49], "49 tokens a chunk; this fast tokenizer has at most 48"),
    ):
        with pytest.raises(UserError, match=message):
            fitted.decode(Tokens(np.array(ids), np.array(lengths)))


# Options, and what goes wrong.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vocabulary": 1}, "vocabulary is 1;"),
        ({"vocabulary": 10.5}, "vocabulary is 10.5;"),
        ({"vocabulary": True}, "vocabulary is True;"),
        ({"scale": 0}, "scale is 0;"),
        ({"scale": -1.0}, "scale is -1.0;"),
        ({"scale": math.inf}, "scale is inf;"),
        ({"scale": math.nan}, "scale is nan;"),
        ({"scale": "10"}, "scale is '10';"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        FAST(**options)


def test_a_vocabulary_that_does_not_hold_the_coefficients():
    alphabet = FAST().fit(smooth(50)).report["alphabet"]
    for vocabulary in (2, alphabet):
        with pytest.raises(
            UserError, match=rf"take {alphabet} values.*raise vocabulary above {alphabet}, or lower"
        ):
            FAST(vocabulary=vocabulary).fit(smooth(50))
    FAST(vocabulary=alphabet + 1).fit(smooth(50))
    with pytest.raises(UserError, match=r"more than the .* can tell apart: lower scale"):
        FAST(vocabulary=10**9, scale=1e6).fit(smooth(50))


def test_chunks_that_are_none(fitted):
    bad = smooth(3)
    bad[1, 2, 0] = np.nan
    with pytest.raises(UserError, match="1 of 3 chunks hold NaN"):
        FAST().fit(bad)
    with pytest.raises(UserError, match="1 of 3 chunks hold NaN"):
        fitted.encode(bad)
    with pytest.raises(UserError, match=r"chunks have shape \(2, 8, 3\)"):
        fitted.encode(smooth(2, 8))
    with pytest.raises(UserError, match="has not been fitted"):
        FAST().encode(bad)
    with pytest.raises(UserError, match="has not been fitted"):
        FAST().codebook_sizes  # noqa: B018


def test_saved_and_loaded_it_gives_the_same(fitted, tmp_path):
    fitted.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert isinstance(loaded, FAST)
    chunks = smooth(100, seed=6)
    tokens = fitted.encode(chunks)
    again = loaded.encode(chunks)
    np.testing.assert_array_equal(again.ids, tokens.ids)
    np.testing.assert_array_equal(again.lengths, tokens.lengths)
    np.testing.assert_array_equal(loaded.decode(tokens).chunk, fitted.decode(tokens).chunk)
    assert loaded.capacity_bits == fitted.capacity_bits
    np.testing.assert_array_equal(loaded.allowed([3]), fitted.allowed([3]))


def test_a_folder_of_another_tokenizer(tmp_path):
    Bins().fit(smooth(3)).save(tmp_path)
    with pytest.raises(UserError, match="holds the tokenizer 'bins', not 'fast'"):
        FAST.load(tmp_path)
    with pytest.raises(UserError, match="not 'oat'"):
        OAT.load(tmp_path)
    with pytest.raises(UserError, match="holds no fast tokenizer"):
        FAST.load(tmp_path / "nothing")


@pytest.mark.parametrize("spoilt", ["integers", "sizes", "merges", "least", "centre"])
def test_a_spoilt_file(fitted, tmp_path, spoilt):
    fitted.save(tmp_path)
    path = tmp_path / "tokenizer.safetensors"
    arrays = load_file(path)
    arrays[f"learned/{spoilt}"] = {
        "integers": arrays["learned/integers"] + 70000,
        "sizes": arrays["learned/sizes"][:-1],
        "merges": arrays["learned/merges"][:, ::-1].copy(),
        "least": np.array([10**6]),
        "centre": np.zeros(DIM + 1),
    }[spoilt]
    save_file(arrays, path)
    with pytest.raises(UserError, match="holds no fast tokenizer that can be read"):
        FAST.load(tmp_path)


def test_the_file_is_plain(fitted, tmp_path):
    fitted.save(tmp_path)
    about = json.loads((tmp_path / "tokenizer.json").read_text())
    assert about["name"] == "fast"
    assert about["options"] == {"vocabulary": 400, "scale": 10.0}
    assert make_tokenizer("fast", vocabulary=400).options == about["options"]
