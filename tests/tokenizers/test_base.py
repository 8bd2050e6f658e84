"""What every tokenizer promises, asked of every name in the registry."""

import json

import numpy as np
import pytest
import torch

from compression_gap.errors import UserError
from compression_gap.nn import Interrupted
from compression_gap.tokenizers import OAT, ActionTokenizer, Tokens, load_tokenizer, make_tokenizer
from compression_gap.tokenizers.registry import TOKENIZERS

HORIZON, DIM = 8, 3
SMALL = {
    "bins": {"bins": 32},
    "bins-quantile": {"bins": 32},
    "fast": {"vocabulary": 300},
    "rvq": {"layers": 3, "codes": 16},
    "quest": {"tokens": 4, "levels": [8, 5]},
    "oat": {"tokens": 4, "levels": [8, 5]},
    "oat-unordered": {"tokens": 4, "levels": [[5, 5], [8, 5], "fsq-240", [8, 8]]},
}
every = pytest.mark.parametrize("name", TOKENIZERS.own)
QUICK = {"steps": 3, "batch_size": 16}


def some_chunks(n, dim=DIM, seed=0, horizon=HORIZON):
    """A level and a slope in every dimension, each dimension in a unit of its own."""
    level, slope = np.random.default_rng(seed).normal(size=(2, n, 1, dim))
    t = np.linspace(-1, 1, horizon)[None, :, None]
    return ((1.5 * level + slope * t) * np.geomspace(0.5, 2, dim)).astype(np.float32)


@pytest.fixture(scope="module")
def all_fitted():
    """Every tokenizer, fitted once."""
    how = {"steps": 90, "batch_size": 16, "lr": 3e-3, "validation": (some_chunks(20, seed=2), None)}
    return {name: make_tokenizer(name, **SMALL[name]).fit(some_chunks(300), **how) for name in TOKENIZERS.own}


@pytest.fixture(params=TOKENIZERS.own)
def tokenizer(request, all_fitted):
    return all_fitted[request.param]


def test_every_name_is_tried_here():
    assert set(SMALL) == set(TOKENIZERS.own)


def test_new_chunks_come_back_better_than_as_the_mean(tokenizer):
    chunks = some_chunks(100, seed=1)
    error = np.square(tokenizer.decode(tokenizer.encode(chunks)).chunk - chunks).mean()
    assert error < 0.7 * np.square(chunks - some_chunks(300).mean((0, 1))).mean()


def test_numpy_and_torch_and_float64_give_the_same_tokens(tokenizer):
    chunks = some_chunks(20, seed=1)
    tokens = tokenizer.encode(chunks)
    for other in (
        torch.from_numpy(chunks),
        chunks.astype(np.float64),
        np.asfortranarray(chunks),
        chunks.tolist(),
    ):
        again = tokenizer.encode(other)
        np.testing.assert_array_equal(again.ids, tokens.ids)
        np.testing.assert_array_equal(again.lengths, tokens.lengths)


def test_tokens_are_ids_of_the_codebooks(tokenizer):
    tokens = tokenizer.encode(some_chunks(50, seed=1))
    sizes = np.array(tokenizer.codebook_sizes)
    assert tokens.ids.dtype == tokens.lengths.dtype == np.int64
    assert (tokens.ids >= 0).all()
    assert (tokens.ids < sizes[: tokens.ids.shape[1]]).all()
    if not tokenizer.ragged:
        assert (tokens.lengths == len(sizes)).all()
        assert tokenizer.capacity_bits == pytest.approx(np.log2(sizes).sum())
        assert [len(tokenizer.allowed([0] * i)) for i in range(len(sizes))] == list(sizes)
        with pytest.raises(UserError, match=f"has {len(sizes)} tokens; the prefix has {len(sizes)}"):
            tokenizer.allowed([0] * len(sizes))


@every
@pytest.mark.parametrize("dim", [7, 14, 32])
def test_a_constant_dimension_decodes_exactly_constant(name, dim):
    """0.1 is no float32: what comes back is what float32 makes of it, in every dimension count of a robot."""
    chunks, new = some_chunks(40, dim), some_chunks(10, dim, seed=1)
    chunks[..., 4] = new[..., 4] = 0.1
    fitted = make_tokenizer(name, **SMALL[name]).fit(chunks, **QUICK)
    decoded = fitted.decode(fitted.encode(new))
    assert (decoded.chunk[..., 4] == np.float32(0.1)).all()
    assert decoded.chunk.shape == (10, HORIZON, dim)
    assert decoded.ok.all()
    low, high = chunks.min((0, 1)), chunks.max((0, 1))
    assert ((decoded.chunk >= low) & (decoded.chunk <= high)).all()


@every
def test_one_single_chunk_is_learned_by_heart(name):
    chunk = some_chunks(1, seed=3)
    fitted = make_tokenizer(name, **SMALL[name]).fit(chunk, steps=60, batch_size=4, lr=3e-3)
    error = np.square(fitted.decode(fitted.encode(chunk)).chunk - chunk).mean((0, 1))
    assert (error < 0.05 * chunk.var((0, 1))).all()


def test_actions_outside_the_range_are_clipped_and_counted(tokenizer):
    low, high = some_chunks(300).min((0, 1)), some_chunks(300).max((0, 1))
    assert np.array_equal(tokenizer.low, low)
    assert np.array_equal(tokenizer.high, high)
    outside = some_chunks(5, seed=1).clip(low, high)
    before = tokenizer.encode(outside)
    outside[1, 2, 0], outside[1, 3, 2], outside[4, 0, 1] = high[0] + 5, low[2] - 1, high[1] + 0.01
    found, inside = tokenizer.encode(outside), tokenizer.encode(outside.clip(low, high))
    np.testing.assert_array_equal(found.ids, inside.ids)
    edge = high[0]
    if tokenizer.options.get("edges") == "quantile":  # the range's own edges lie outside its bins, and count
        edge = np.percentile(some_chunks(300)[..., 0], 99)
        calm = outside.copy()
        calm[[1, 1, 4], [2, 3, 0], [0, 2, 1]] = 0
        inside = tokenizer.encode(calm)
    np.testing.assert_array_equal(found.clipped - inside.clipped, [0, 2, 0, 0, 1])
    assert found.clipped[0] == before.clipped[0]
    outside[1, 2, 0] = edge * (1 + 1e-6)  # float32 arithmetic on the way, not an action outside
    assert (tokenizer.encode(outside).clipped - inside.clipped)[1] == 1


@every
def test_the_range_is_that_of_the_actions_that_count(name):
    chunks = some_chunks(20)
    valid = np.ones((20, HORIZON), bool)
    valid[3, 5:] = False
    padded = chunks.copy()
    padded[3, 5:] = 99
    fitted = make_tokenizer(name, **SMALL[name]).fit(padded, valid, **QUICK)
    np.testing.assert_array_equal(fitted.high, chunks[valid].max(0))
    assert fitted.encode(padded).clipped[3] >= 3 * DIM


def test_no_chunks_give_no_tokens(tokenizer):
    tokens = tokenizer.encode(np.zeros((0, HORIZON, DIM), np.float32))
    assert len(tokens.ids) == len(tokens.lengths) == len(tokens.clipped) == 0
    assert tokenizer.decode(tokens).chunk.shape == (0, HORIZON, DIM)
    assert tokenizer.decode(tokens).ok.shape == (0,)


@pytest.mark.parametrize("padding", [-1, 10**6])
def test_padding_may_hold_anything(tokenizer, padding):
    tokens = tokenizer.encode(some_chunks(6, seed=1))
    lengths = tokens.lengths if not tokenizer.ordered else np.array([0, 1, 2, 3, 1, 2])
    width = max(tokens.ids.shape[1], lengths.max() + 2)  # columns that no row uses
    ids = np.full((6, width), padding)
    ids[:, : tokens.ids.shape[1]] = tokens.ids
    ids[np.arange(width) >= lengths[:, None]] = padding
    plain, padded = (tokenizer.decode(Tokens(i, lengths)) for i in (tokens.ids, ids))
    np.testing.assert_array_equal(plain.chunk, padded.chunk)
    np.testing.assert_array_equal(plain.ok, padded.ok)


def test_which_tokens_are_ordered_and_which_ragged(all_fitted):
    assert {name for name, t in all_fitted.items() if t.ordered} == {"rvq", "oat"}
    assert {name for name, t in all_fitted.items() if t.ragged} == {"fast"}


def test_prefixes_decode_where_the_tokens_are_ordered(tokenizer):
    chunks = some_chunks(100, seed=1)
    tokens = tokenizer.encode(chunks)
    full = len(tokenizer.codebook_sizes)
    if tokenizer.ordered:
        halves = [Tokens(tokens.ids[:, :k], np.full(100, k)) for k in (0, full // 2, full)]
        errors = [np.square(tokenizer.decode(half).chunk - chunks).mean() for half in halves]
        assert errors[0] > 1.3 * errors[1]
        assert errors[1] > errors[2]
    elif not tokenizer.ragged:
        with pytest.raises(
            UserError, match=f"a chunk is {full} tokens.*got {full - 1}: prefixes do not decode"
        ):
            tokenizer.decode(Tokens(tokens.ids[:, :-1], np.full(100, full - 1)))


def all_zero(tokenizer, rows=2, extra=0):
    length = len(tokenizer.codebook_sizes) + extra
    return np.zeros((rows, length), int), np.full(rows, length)


def with_id(tokenizer, value):
    ids, lengths = all_zero(tokenizer)
    ids[1, -1] = value
    return Tokens(ids, lengths)


MISTAKES = {
    "horizon": (
        lambda t: t.encode(np.zeros((3, 9, DIM))),
        r"shape \(3, 9, 3\).*\[N, 8, 3\].*of that horizon",
    ),
    "dimensions": (
        lambda t: t.encode(np.zeros((3, 8, 4))),
        r"shape \(3, 8, 4\).*fitted on chunks \[N, 8, 3\]",
    ),
    "one chunk": (lambda t: t.encode(np.zeros((8, DIM))), r"shape \(8, 3\); a tokenizer takes \[N, H, d\]"),
    "nan": (lambda t: t.encode(np.full((3, 8, DIM), np.nan)), "3 of 3 chunks hold NaN or infinite"),
    "infinity": (lambda t: t.encode(np.full((2, 8, DIM), np.inf)), "2 of 2 chunks hold NaN or infinite"),
    "id": (
        lambda t: t.decode(with_id(t, max(t.codebook_sizes))),
        "outside the codebook 0 … .* of another one",
    ),
    "id of its position": (lambda t: t.decode(with_id(t, t.codebook_sizes[-1])), "outside the codebook"),
    "id below 0": (lambda t: t.decode(with_id(t, -1)), "outside the codebook"),
    "float ids": (
        lambda t: t.decode(Tokens(np.full((1, 2), 0.5), np.array([2]))),
        "whole numbers, not float64",
    ),
    "too long": (lambda t: t.decode(Tokens(*all_zero(t, extra=1))), r"\d+ tokens a chunk.* at most \d+"),
    "longer than ids": (
        lambda t: t.decode(Tokens(np.zeros((1, 1), int), np.array([2]))),
        "2 tokens a chunk.*another tokenizer",
    ),
    "lengths below 0": (lambda t: t.decode(Tokens(np.zeros((1, 1), int), np.array([-1]))), "none below 0"),
    "lengths": (lambda t: t.decode(Tokens(np.zeros((2, 1), int), np.array([1]))), r"\(2, 1\), \(1,\)"),
    "ids of one row": (
        lambda t: t.decode(Tokens(np.zeros(4, int), np.array([4]))),
        "ids .B, L. and B lengths",
    ),
}


@pytest.mark.parametrize(("act", "sentence"), MISTAKES.values(), ids=list(MISTAKES))
def test_mistakes_are_told_in_a_sentence(tokenizer, act, sentence):
    with pytest.raises(UserError, match=sentence):
        act(tokenizer)


BAD_FITS = {
    "nothing": (lambda t: t.fit(np.zeros((0, 8, 2))), "no chunks to fit a tokenizer on"),
    "shape": (lambda t: t.fit(np.zeros((8, 2))), r"shape \(8, 2\); a tokenizer takes"),
    "no dimension": (lambda t: t.fit(np.zeros((3, 8, 0))), r"shape \(3, 8, 0\); a tokenizer takes"),
    "infinity": (lambda t: t.fit(np.where(np.eye(8)[:, :, None], np.inf, 0)[:3]), "3 of 3 chunks hold NaN"),
    "valid": (lambda t: t.fit(np.zeros((3, 8, 2)), np.ones((3, 7))), r"valid has shape \(3, 7\) for chunks"),
    "none valid": (lambda t: t.fit(np.zeros((3, 8, 2)), np.zeros((3, 8))), "marks actions, the first always"),
    "validation": (
        lambda t: t.fit(np.zeros((3, 8, 2)), validation=(np.zeros((3, 8, 1)), None)),
        r"validation chunks have shape \(3, 8, 1\), the training chunks \(3, 8, 2\)",
    ),
    "encode": (lambda t: t.encode(np.zeros((3, 8, 2))), r"has not been fitted; call fit\(chunks\) first"),
    "decode": (lambda t: t.decode(Tokens(np.zeros((1, 4), int), np.array([4]))), "has not been fitted"),
    "allowed": (lambda t: t.allowed([]), "has not been fitted"),
    "save": (lambda t: t.save(None), "has not been fitted"),
}


@every
@pytest.mark.parametrize(("act", "sentence"), BAD_FITS.values(), ids=list(BAD_FITS))
def test_what_cannot_be_fitted_and_use_before_the_fit(name, act, sentence):
    unfitted = make_tokenizer(name, **SMALL[name])
    with pytest.raises(UserError, match=sentence):
        act(unfitted)
    assert not unfitted.fitted


def test_save_and_load(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a")
    loaded = load_tokenizer(tmp_path / "a")
    assert type(loaded) is type(tokenizer)
    chunks = some_chunks(30, seed=1)
    chunks[3] *= 9
    tokens, again = tokenizer.encode(chunks), loaded.encode(chunks)
    for a, b in zip(vars(tokens).values(), vars(again).values(), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(loaded.decode(tokens).chunk, tokenizer.decode(tokens).chunk)
    assert loaded.codebook_sizes == tokenizer.codebook_sizes
    assert loaded.capacity_bits == tokenizer.capacity_bits
    assert loaded.report == tokenizer.report
    assert loaded.ordered == tokenizer.ordered
    loaded.save(tmp_path / "b")
    for name in ("tokenizer.json", "tokenizer.safetensors"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_the_folder_of_another_tokenizer(all_fitted, tokenizer, tmp_path):
    other = all_fitted["bins" if tokenizer.name != "bins" else "oat"]
    other.save(tmp_path)
    with pytest.raises(UserError, match=f"holds the tokenizer '{other.name}', not '{tokenizer.name}'"):
        type(tokenizer).load(tmp_path)
    assert load_tokenizer(tmp_path).name == other.name


def edit(folder, **changes):
    """Change entries of tokenizer.json; None takes one out."""
    about = json.loads((folder / "tokenizer.json").read_text()) | changes
    (folder / "tokenizer.json").write_text(json.dumps({n: v for n, v in about.items() if v is not None}))


def cut(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


BREAKS = {
    "no folder": lambda f: [p.unlink() for p in f.iterdir()],
    "no tensors": lambda f: (f / "tokenizer.safetensors").unlink(),
    "half the tensors": lambda f: cut(f / "tokenizer.safetensors", 0.5),
    "empty tensors": lambda f: cut(f / "tokenizer.safetensors", 0),
    "half the json": lambda f: cut(f / "tokenizer.json", 0.5),
    "binary json": lambda f: (f / "tokenizer.json").write_bytes(b"\xff\xfe\x00"),
    "a list": lambda f: (f / "tokenizer.json").write_text("[1, 2]"),
    "no name": lambda f: edit(f, name=None),
    "no horizon": lambda f: edit(f, horizon=None),
    "no options": lambda f: edit(f, options=None),
    "options of another": lambda f: edit(f, options={"wings": 2}),
    "code": lambda f: torch.save({"range/low": torch.zeros(3)}, f / "tokenizer.safetensors"),
}


@pytest.mark.parametrize("damage", BREAKS.values(), ids=list(BREAKS))
def test_a_damaged_folder_is_told_in_a_sentence(tokenizer, damage, tmp_path):
    tokenizer.save(tmp_path)
    damage(tmp_path)
    for load in (load_tokenizer, type(tokenizer).load):
        with pytest.raises(UserError, match=f"{tmp_path} holds no .*tokenizer"):
            load(tmp_path)


def test_a_missing_array_is_told_in_a_sentence(tokenizer, tmp_path):
    from safetensors.numpy import load_file, save_file

    tokenizer.save(tmp_path)
    arrays = load_file(tmp_path / "tokenizer.safetensors")
    for left_out in ("range/high", next(n for n in sorted(arrays) if n.startswith("learned/"))):
        save_file({n: a for n, a in arrays.items() if n != left_out}, tmp_path / "tokenizer.safetensors")
        with pytest.raises(
            UserError, match=f"{tmp_path} holds no {tokenizer.name} tokenizer that can be read"
        ):
            load_tokenizer(tmp_path)


def test_a_fit_that_was_interrupted_leaves_no_half_fitted_tokenizer():
    tokenizer = OAT(tokens=2, levels=[5, 5]).fit(some_chunks(10), **QUICK)
    with pytest.raises(Interrupted):
        tokenizer.fit(some_chunks(10, dim=5), **QUICK, should_stop=lambda: True)
    with pytest.raises(UserError, match="has not been fitted"):
        tokenizer.encode(some_chunks(1, dim=5))


class Short(ActionTokenizer):
    """A ragged code of nothing."""

    name = "short"
    ragged = True
    codebook_sizes = (7, 7, 7)

    def _fit(self, chunks, validation, how):
        return {"mean_length": 1.5}

    def _encode(self, chunks):
        return np.zeros((len(chunks), 3), int), np.ones(len(chunks), int)

    def _decode(self, ids, lengths):
        return np.zeros((len(ids), self.horizon, self.action_dim)), np.ones(len(ids), bool)

    def _arrays(self):
        return {}

    def _restore(self, arrays):
        pass


def test_the_capacity_of_a_ragged_code_counts_its_end():
    """(1.5 tokens + the end) · log2(7 codes + the end) = 2.5 · 3."""
    fitted = Short().fit(some_chunks(2))
    assert fitted.capacity_bits == pytest.approx(7.5)
    assert fitted.allowed([0]).tolist() == [True] * 8
