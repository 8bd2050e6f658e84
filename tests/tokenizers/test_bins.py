import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compression_gap.errors import UserError
from compression_gap.tokenizers import Bins, Tokens, load_tokenizer, make_tokenizer
from compression_gap.tokenizers.bins import percentile_range


def walks(n, horizon=8, dim=3, seed=0):
    """Random walks [n, horizon, dim], each dimension in its own unit."""
    steps = np.random.default_rng(seed).normal(size=(n, horizon, dim))
    return (steps.cumsum(1) * 10.0 ** (np.arange(dim) % 3)).astype(np.float32)


def line(*values):
    """One action dimension: chunks [1, H, 1]."""
    return np.array(values, np.float32).reshape(1, -1, 1)


def test_four_bins_by_hand():
    """Edges 0, 1, 2, 3, 4; an edge belongs to the bin above it, the greatest action to the last bin."""
    tokenizer = Bins(bins=4).fit(line(0, 0.5, 1, 1.9, 2, 4))
    tokens = tokenizer.encode(line(0, 0.5, 1, 1.9, 2, 4))
    assert tokens.ids.tolist() == [[0, 0, 1, 1, 2, 3]]
    assert tokens.lengths.tolist() == [6]
    assert tokenizer.decode(tokens).chunk.ravel().tolist() == [0.5, 0.5, 1.5, 1.5, 2.5, 3.5]


def test_tokens_go_by_step_and_then_by_dimension():
    chunks = np.array([[[0, 10], [1, 20]]], np.float32)  # step 0: least in both; step 1: greatest
    assert Bins(bins=2).fit(chunks).encode(chunks).ids.tolist() == [[0, 0, 1, 1]]
    chunks = np.array([[[0, 20], [1, 10]]], np.float32)
    assert Bins(bins=2).fit(chunks).encode(chunks).ids.tolist() == [[0, 1, 1, 0]]


@settings(max_examples=50, deadline=None)
@given(
    bins=st.integers(2, 300),
    seed=st.integers(0, 2**31),
    dim=st.sampled_from([1, 7, 14, 32]),
    spread=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_the_error_is_at_most_half_a_bin(bins, seed, dim, spread):
    chunks = walks(5, 4, dim, seed) * np.float32(spread)
    tokenizer = Bins(bins=bins).fit(chunks)
    half = (chunks.max((0, 1)) - chunks.min((0, 1))) / bins / 2
    rounding = np.spacing(np.abs(chunks).max((0, 1)))  # of float32
    error = np.abs(tokenizer.decode(tokenizer.encode(chunks)).chunk - chunks)
    assert (error <= half + rounding).all()


def test_the_bound_is_reached_and_the_code_is_used():
    chunks = np.linspace(-1, 1, 4001, dtype=np.float32).reshape(1, -1, 1)
    tokenizer = Bins().fit(chunks)
    tokens = tokenizer.encode(chunks)
    error = np.abs(tokenizer.decode(tokens).chunk - chunks).max()
    assert error == pytest.approx(1 / 256, rel=1e-5)
    assert np.unique(tokens.ids).tolist() == list(range(256))
    assert tokenizer.capacity_bits == 4001 * 8
    # Uniform actions, uniform error: mean square w² / 12.
    square = np.square(tokenizer.decode(tokens).chunk - chunks).mean()
    assert square == pytest.approx((2 / 256) ** 2 / 12, rel=0.02)


@pytest.mark.parametrize("edges", ["uniform", "quantile"])
def test_decoding_and_encoding_again_gives_the_same_tokens(edges):
    tokenizer = Bins(bins=16, edges=edges).fit(walks(50))
    tokens = tokenizer.encode(walks(20, seed=1))
    again = tokenizer.encode(tokenizer.decode(tokens).chunk)
    np.testing.assert_array_equal(again.ids, tokens.ids)
    assert again.clipped.sum() == 0


def test_quantile_edges_are_the_first_and_the_last_per_cent():
    chunks = np.arange(101, dtype=np.float32).reshape(101, 1, 1)  # percentile p is p
    tokenizer = Bins(bins=98, edges="quantile").fit(chunks)  # 1 … 99: bins of width 1
    tokens = tokenizer.encode(chunks)
    assert tokens.ids[[0, 1, 2, 50, 98, 99, 100], 0].tolist() == [0, 0, 1, 49, 97, 97, 97]
    assert np.flatnonzero(tokens.clipped).tolist() == [0, 100]  # what the outermost bins take from outside
    assert tokenizer.encode(chunks * np.float32(10)).clipped.sum() == 1 + 101 - 10  # 0, and 100, 110, …
    decoded = tokenizer.decode(tokens).chunk.ravel()
    assert decoded[[0, 1, 50, 100]].tolist() == [1.5, 1.5, 50.5, 98.5]


def test_quantile_bins_are_narrower_but_lose_the_outermost_actions():
    chunks = np.random.default_rng(0).standard_t(2, size=(2000, 8, 1)).astype(np.float32)
    inside = np.abs(chunks) < np.percentile(np.abs(chunks), 97)
    errors = {}
    for edges in ("uniform", "quantile"):
        tokenizer = Bins(bins=64, edges=edges).fit(chunks)
        error = np.square(tokenizer.decode(tokenizer.encode(chunks)).chunk - chunks)
        errors[edges] = error[inside].mean(), error[~inside].mean()
    assert errors["quantile"][0] < errors["uniform"][0] / 10
    assert errors["quantile"][1] > errors["uniform"][1] * 10


def test_percentile_range():
    actions = np.zeros((1001, 4), np.float32)
    actions[:, 0] = np.arange(1001)
    actions[0, 1] = 5  # a gripper that moves once
    actions[:, 2] = 0.1  # constant
    actions[:, 3] = 1000 + 1e-4 * (np.arange(1001) % 2)  # one float32 step of noise …
    actions[7, 3] = -500  # … and one real movement
    low, high = percentile_range(actions)
    assert low.tolist() == [10, 0, np.float32(0.1), -500]
    assert high.tolist() == [990, 5, np.float32(0.1), actions[:, 3].max()]


@pytest.mark.parametrize("edges", ["uniform", "quantile"])
def test_a_constant_dimension_is_exact(edges):
    chunks = walks(30, dim=3)
    chunks[..., 1] = 0.1
    tokenizer = Bins(edges=edges).fit(chunks)
    decoded = tokenizer.decode(tokenizer.encode(chunks)).chunk
    assert (decoded[..., 1] == np.float32(0.1)).all()
    anything = Tokens(np.full((1, 24), 255), np.array([24]))
    assert (tokenizer.decode(anything).chunk[..., 1] == np.float32(0.1)).all()


@pytest.mark.parametrize("edges", ["uniform", "quantile"])
def test_a_gripper_that_closes_once_is_not_lost(edges):
    chunks = np.zeros((300, 8, 1), np.float32)
    chunks[7, 4:] = 1
    tokenizer = Bins(edges=edges).fit(chunks)
    assert np.abs(tokenizer.decode(tokenizer.encode(chunks)).chunk - chunks).max() <= 1 / 512 + 1e-7


def test_actions_outside_the_range_are_clipped_and_counted():
    tokenizer = Bins(bins=4).fit(line(0, 4))
    tokens = tokenizer.encode(np.array([[[-1], [9]], [[1], [5]], [[0], [4]]], np.float32))
    assert tokens.ids.tolist() == [[0, 3], [1, 3], [0, 3]]
    assert tokens.clipped.tolist() == [2, 1, 0]


def test_what_stands_after_the_episode_is_not_learned_from():
    chunks = np.array([[[0], [2]], [[1], [100]]], np.float32)
    tokenizer = Bins(bins=2).fit(chunks, np.array([[True, True], [True, False]]))
    assert tokenizer.high.tolist() == [2]
    assert tokenizer.encode(chunks).ids.tolist() == [[0, 1], [1, 1]]


def test_one_chunk_none_and_torch():
    chunk = walks(1)
    tokenizer = Bins().fit(torch.from_numpy(chunk))
    ids = tokenizer.encode(chunk).ids
    np.testing.assert_array_equal(tokenizer.encode(torch.from_numpy(chunk)).ids, ids)
    empty = tokenizer.encode(chunk[:0])
    assert empty.ids.shape == (0, 24)
    assert tokenizer.decode(empty).chunk.shape == (0, 8, 3)


def test_all_ids_are_allowed_at_each_position():
    tokenizer = Bins(bins=5).fit(walks(4))
    assert tokenizer.allowed([]).tolist() == [True] * 5
    assert tokenizer.codebook_sizes == (5,) * 24
    assert tokenizer.capacity_bits == pytest.approx(24 * math.log2(5))
    with pytest.raises(UserError, match="24 tokens; the prefix has 24"):
        tokenizer.allowed([0] * 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 1}, "bins is 1;.*from 2 on"),
        ({"bins": 2.5}, "bins is 2.5;"),
        ({"bins": True}, "bins is True;"),
        ({"bins": "many"}, "bins is 'many';"),
        ({"edges": "quantil"}, "unknown edges 'quantil' .did you mean 'quantile'"),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        Bins(**options)


@pytest.mark.parametrize("edges", ["uniform", "quantile"])
def test_saved_and_loaded_it_gives_the_same(edges, tmp_path):
    tokenizer = Bins(bins=100, edges=edges).fit(walks(40))
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.options == tokenizer.options
    tokens = loaded.encode(walks(9, seed=2))
    np.testing.assert_array_equal(tokens.ids, tokenizer.encode(walks(9, seed=2)).ids)
    np.testing.assert_array_equal(loaded.decode(tokens).chunk, tokenizer.decode(tokens).chunk)


def test_a_file_of_other_dimensions_is_refused(tmp_path):
    Bins().fit(walks(4)).save(tmp_path)
    about = tmp_path / "tokenizer.json"
    about.write_text(about.read_text().replace('"action_dim": 3', '"action_dim": 2'))
    with pytest.raises(UserError, match=r"no bins tokenizer that can be read: .*for 2 dimensions"):
        Bins.load(tmp_path)


def test_the_names():
    assert make_tokenizer("bins", bins=9).options == {"bins": 9, "edges": "uniform"}
    assert make_tokenizer("bins-quantile").options == {"bins": 256, "edges": "quantile"}


def test_tokens_that_it_cannot_have_made():
    tokenizer = Bins(bins=8).fit(walks(4, 2, 1))
    for ids, lengths, message in (
        ([[8, 0]], [2], "outside the codebook 0 … 7"),
        ([[0, -1]], [2], "outside the codebook 0 … 7"),
        ([[0, 0]], [1], "prefixes do not decode"),
        ([[0, 0, 0]], [3], "3 tokens a chunk"),
    ):
        with pytest.raises(UserError, match=message):
            tokenizer.decode(Tokens(np.array(ids), np.array(lengths)))
    with pytest.raises(UserError, match="has not been fitted"):
        Bins().encode(walks(1))
