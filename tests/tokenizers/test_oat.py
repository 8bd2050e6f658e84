import math

import numpy as np
import pytest
import torch

from compression_gap.errors import UserError
from compression_gap.nn import Interrupted
from compression_gap.tokenizers import OAT, Tokens, autoencoder, load_tokenizer
from compression_gap.tokenizers.levels import as_levels
from compression_gap.tokenizers.oat import OATNetwork

HORIZON, DIM = 8, 2


def structured(n, seed=0):
    """Chunks [n, 8, 2] made of two numbers: a level that is large, and a slope that is smaller."""
    level, slope = np.random.default_rng(seed).normal(size=(2, n, 1))
    t = np.linspace(-1, 1, HORIZON)
    return np.stack([1.5 * level + 0 * t, slope * t], -1).astype(np.float32)


def small(**options):
    return OAT(**{"tokens": 4, "levels": (8, 5, 5)} | options)


@pytest.fixture(scope="module")
def fitted():
    how = {"steps": 200, "batch_size": 24, "lr": 3e-3, "validation": (structured(200, seed=2), None)}
    tokenizer = small()
    assert tokenizer.fit(structured(1000), **how) is tokenizer
    return tokenizer


@pytest.fixture(scope="module")
def held_out():
    return structured(400, seed=1)


def distortion(tokenizer, chunks, length=None):
    tokens = tokenizer.encode(chunks)
    lengths = tokens.lengths if length is None else np.full(len(chunks), length)
    return float(np.square(tokenizer.decode(Tokens(tokens.ids, lengths)).chunk - chunks).mean())


def test_a_fitted_tokenizer_reconstructs_new_chunks(fitted, held_out):
    mean = float(np.square(held_out - structured(1000).mean(0)).mean())
    assert distortion(fitted, held_out) < 0.25 * mean
    assert fitted.report["curve"]["step"][-1] == 200
    validation = structured(200, seed=2)
    error = fitted.decode(fitted.encode(validation)).chunk - validation
    in_units = np.square(error / structured(1000).std((0, 1))).mean()
    assert fitted.report["curve"]["validation"][-1] == pytest.approx(in_units, rel=1e-2)  # decoding clips


def test_every_prefix_decodes_and_longer_ones_better(fitted, held_out):
    """No token at all is about as good as the mean."""
    errors = [distortion(fitted, held_out, k) for k in (0, 1, 2, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[3] < errors[1] < 0.5 * errors[0]
    assert np.isfinite(distortion(fitted, held_out, 3))


def test_tokens_after_the_length_do_not_count(fitted, held_out):
    tokens = fitted.encode(held_out[:6])
    lengths = np.array([0, 1, 2, 3, 4, 2])
    scrambled = np.where(np.arange(4) < lengths[:, None], tokens.ids, 7)
    a, b = (fitted.decode(Tokens(ids, lengths)).chunk for ids in (tokens.ids, scrambled))
    np.testing.assert_array_equal(a, b)
    short = fitted.decode(Tokens(tokens.ids[:, :2], np.full(6, 2))).chunk
    np.testing.assert_array_equal(short, fitted.decode(Tokens(tokens.ids, np.full(6, 2))).chunk)


def test_nested_dropout_trains_all_prefixes_or_those_of_the_paper_or_none():
    def trained(tokens, nested_dropout):
        return OATNetwork(8, 2, tokens, ((5, 5),), "xs", nested_dropout).keep

    assert trained(4, "none") == [4]
    assert trained(4, "all") == [1, 2, 3, 4]
    assert trained(8, "powers-of-two") == [1, 2, 4, 8]
    assert trained(6, "powers-of-two") == [1, 2, 4, 6]
    with pytest.raises(UserError, match="unknown nested dropout 'some'"):
        OAT(nested_dropout="some")


def test_tokens_are_deterministic_and_use_the_codebook(fitted, held_out):
    first, again = fitted.encode(held_out), fitted.encode(held_out)
    np.testing.assert_array_equal(first.ids, again.ids)
    assert first.ids.dtype == np.int64
    assert (first.lengths == 4).all()
    assert first.ids.min() >= 0
    assert first.ids.max() < 200
    assert all(len(np.unique(first.ids[:, i])) > 3 for i in range(4))
    decoded = fitted.decode(first)
    assert decoded.ok.all()
    np.testing.assert_array_equal(decoded.chunk, fitted.decode(again).chunk)


def test_a_chunk_does_not_depend_on_its_batch(fitted, held_out):
    """Sums may be ordered otherwise in another batch, so a latent on an edge may fall to either side."""
    whole = fitted.encode(held_out).ids[:40]
    alone = np.concatenate([fitted.encode(c[None]).ids for c in held_out[:40]])
    assert (whole == alone).mean() > 0.98


def test_eval_mode_and_no_gradients_after_fit_and_after_load(fitted, tmp_path):
    fitted.save(tmp_path)
    for tokenizer in (fitted, load_tokenizer(tmp_path)):
        assert not any(m.training for m in tokenizer.network.modules())
        assert not any(p.requires_grad for p in tokenizer.network.parameters())


def test_a_fit_is_repeatable_and_depends_on_its_seed(held_out):
    def weights(seed):
        tokenizer = small()
        torch.manual_seed(np.random.default_rng(None).integers(1 << 30))  # must not matter
        tokenizer.fit(held_out, seed=seed, steps=4, batch_size=16)
        return torch.cat([p.flatten() for p in tokenizer.network.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_an_interrupted_fit_goes_on_where_it_was(held_out, tmp_path):
    straight, resumed = small(), small()
    options = {"steps": 8, "batch_size": 16, "validation": (held_out[:50], None)}
    straight.fit(held_out, **options)
    answers = iter([False, False, True])
    with pytest.raises(Interrupted):
        resumed.fit(held_out, **options, work=tmp_path, should_stop=lambda: next(answers))
    with pytest.raises(UserError, match="has not been fitted"):
        resumed.encode(held_out)
    resumed.fit(held_out, **options, work=tmp_path)
    assert resumed.report["curve"]["validation"] == straight.report["curve"]["validation"]
    for a, b in zip(straight.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)


class Silent(OATNetwork):
    """Decodes everything to zeros: its loss is the mean square of what counts."""

    def decode(self, codes, keep):
        return torch.zeros(len(codes), self.horizon, DIM)


def losses_of(monkeypatch, chunks, valid, validation=None):
    """The training and the validation loss that ``fit`` makes for these chunks."""
    seen = {}

    def train(module, loss, rows, validation_rows, schedule, *, validation_loss, **_):
        seen.update(loss=loss, validation=validation_loss, rows=(rows, validation_rows), module=module)
        raise Interrupted

    monkeypatch.setattr(autoencoder, "train", train)
    with pytest.raises(Interrupted):
        small().fit(chunks, valid, validation=validation)
    return seen


def test_the_loss_counts_valid_actions_alone(monkeypatch):
    chunks = structured(6)
    lengths = np.array([8, 1, 3, 5, 7, 2])
    valid = np.arange(HORIZON) < lengths[:, None]
    units = (chunks - chunks[valid].mean(0)) / chunks[valid].std(0)
    expected = [np.square(c[:n]).mean() for c, n in zip(units, lengths, strict=True)]
    for padding in (0.0, 50.0):
        padded = np.where(valid[..., None], chunks, padding).astype(np.float32)
        loss = losses_of(monkeypatch, padded, valid)["loss"]
        silent = Silent(HORIZON, DIM, 4, ((8, 5, 5),), "xs", "all")
        found = loss(silent, torch.arange(6), torch.Generator().manual_seed(0))
        np.testing.assert_allclose(found.detach(), expected, rtol=1e-5)


def test_the_loss_of_a_network_by_hand(monkeypatch):
    """Validation keeps all tokens; training draws prefixes of 1 to 4 tokens from the step's generator."""
    seen = losses_of(monkeypatch, structured(64), None, (structured(32, seed=2), None))
    assert seen["rows"] == (64, 32)
    network = seen["module"].eval()
    with torch.no_grad():
        x = network.units(torch.from_numpy(structured(32, seed=2)))
        keep = torch.full((32,), 4)
        expected = (network.decode(network.encode(x), keep) - x).square().mean((1, 2))
        found = seen["validation"](network, torch.arange(32), torch.Generator())
        torch.testing.assert_close(found, expected)
        x = network.units(torch.from_numpy(structured(64)))
        assert x.mean((0, 1)).abs().max() < 1e-6
        torch.testing.assert_close(x.std((0, 1), correction=0), torch.ones(DIM))
        found = seen["loss"](network, torch.arange(64), torch.Generator().manual_seed(5))
        drawn = torch.randint(4, (64,), generator=torch.Generator().manual_seed(5))
        keep = 1 + drawn
        expected = (network.decode(network.encode(x), keep) - x).square().mean((1, 2))
        torch.testing.assert_close(found, expected)
    assert set(keep.tolist()) == {1, 2, 3, 4}


def encoder_states(network, chunks):
    """The encoder's last states of actions (nothing reads them after the first layer) and of registers."""
    kept = []
    hooks = [m.register_forward_hook(lambda module, inputs, out: kept.append(out)) for m in network.encoder]
    network.encode(chunks)
    for hook in hooks:
        hook.remove()
    assert [k.shape[1] for k in kept] == [HORIZON + 4, 4]
    return kept[0][:, :HORIZON], kept[1]


@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_attention_goes_from_actions_to_registers_and_along_them(training):
    torch.manual_seed(0)
    network = OATNetwork(HORIZON, DIM, 4, ((8, 5, 5),), "xs", "all").train(training)
    chunks = torch.from_numpy(structured(3))
    actions, registers = encoder_states(network, chunks)
    network.registers[2] = torch.randn(64)
    actions2, registers2 = encoder_states(network, chunks)
    torch.testing.assert_close(actions2, actions, rtol=0, atol=1e-6)
    torch.testing.assert_close(registers2[:, :2], registers[:, :2], rtol=0, atol=1e-6)
    assert (registers2[:, 2:] - registers[:, 2:]).abs().amax(-1).min() > 1e-3
    other = chunks.clone()
    other[:, -1] += 1  # the last action reaches the first action and the first register
    actions3, registers3 = encoder_states(network, other)
    assert (actions3[:, 0] - actions2[:, 0]).abs().amax(-1).min() > 1e-4
    assert (registers3[:, 0] - registers2[:, 0]).abs().amax(-1).min() > 1e-4


def test_published_capacity():
    """Eight tokens of 1,000 codes: 79.7 bits a chunk."""
    published = OAT()
    assert published.codebook_sizes == (1000,) * 8
    assert published.capacity_bits == pytest.approx(8 * math.log2(1000))
    assert small(tokens=3, levels=(8, 8)).capacity_bits == pytest.approx(18)


def test_published_size_m():
    """Width 256, 2 encoder and 4 decoder layers; per layer 12 w² and 16 w² of matrices."""
    network = OATNetwork(32, 7, 8, ((8, 5, 5, 5),), "M", "all")
    matrices = sum(
        p.numel()
        for n, p in network.named_parameters()
        if n.startswith(("encoder", "decoder")) and p.ndim == 2
    )
    assert matrices == 2 * 12 * 256**2 + 4 * 16 * 256**2
    assert all(m.p == 0 for m in network.modules() if isinstance(m, torch.nn.Dropout))


def test_codebooks_that_grow_along_the_sequence(held_out, tmp_path):
    """Ids lie within each position's own codebook and use it; they survive the way through their codes."""
    tokenizer = small(levels=[[2, 2], [8, 6, 5], "fsq-1000", [7, 5, 5, 5, 5]])
    tokenizer.fit(held_out, steps=60, batch_size=16, lr=3e-3, validation=(held_out[:20], None))
    sizes = (4, 240, 1000, 4375)
    assert tokenizer.codebook_sizes == sizes
    assert tokenizer.capacity_bits == pytest.approx(sum(math.log2(n) for n in sizes))
    assert [len(tokenizer.allowed([0] * i)) for i in range(4)] == list(sizes)
    tokens = tokenizer.encode(held_out)
    assert (tokens.ids.min(0) >= 0).all()
    assert (tokens.ids.max(0) < sizes).all()
    assert tokens.ids[:, 1:].max(0).min() > 40
    with torch.no_grad():
        network = tokenizer.network
        codes = network.encode(network.units(torch.from_numpy(held_out[:50])))
        assert torch.equal(network.bottleneck.fsq.code(torch.from_numpy(tokens.ids[:50])), codes)
        by_hand = network.units.back(network.decode(codes, torch.full((50,), 4))).numpy()
    low, high = held_out.min((0, 1)), held_out.max((0, 1))
    decoded = tokenizer.decode(Tokens(tokens.ids[:50], tokens.lengths[:50])).chunk
    np.testing.assert_allclose(decoded, by_hand.clip(low, high), atol=1e-5)
    assert distortion(tokenizer, held_out, 4) < distortion(tokenizer, held_out, 1) < held_out.var()
    with pytest.raises(UserError, match="outside the codebook"):
        tokenizer.decode(Tokens(np.array([[4, 0, 0, 0]]), np.array([4])))
    tokenizer.save(tmp_path)
    np.testing.assert_array_equal(load_tokenizer(tmp_path).encode(held_out).ids, tokens.ids)


def test_the_same_codebook_at_each_position_is_one_for_all():
    torch.manual_seed(0)
    one = OATNetwork(HORIZON, DIM, 4, as_levels([8, 5, 5]), "xs", "all")
    torch.manual_seed(0)
    four = OATNetwork(HORIZON, DIM, 4, as_levels([[8, 5, 5]] * 4), "xs", "all")
    x = torch.from_numpy(structured(9))
    assert torch.equal(one.ids(x), four.ids(x))


def test_tokens_do_not_depend_on_the_callers_autocast(fitted, held_out):
    tokens = fitted.encode(held_out)
    chunk = fitted.decode(tokens).chunk
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(fitted.encode(held_out).ids, tokens.ids)
        np.testing.assert_array_equal(fitted.decode(tokens).chunk, chunk)


@torch.no_grad()
def test_training_under_autocast_quantises_as_float32_does(fitted, held_out):
    """Attention in half precision moves few latents across an edge, and the distortion hardly."""
    network = fitted.network
    x = network.units(torch.from_numpy(held_out))
    keep = torch.full((len(x),), 4)

    def look():
        ids = network.ids(x)
        return ids, float((network.chunks(ids, keep).float() - x).square().mean())

    ids, error = look()
    with torch.autocast("cpu", torch.bfloat16):
        half_ids, half_error = look()
    assert (half_ids == ids).float().mean() >= 0.99
    assert half_error != error
    assert half_error == pytest.approx(error, rel=0.01)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": "XXL"}, "unknown tokenizer size 'XXL'; known: M, S, xs"),
        ({"tokens": 0}, "tokens is 0; a chunk needs at least one token"),
        ({"levels": [8, 1]}, "at least two levels"),
        ({"levels": [[8, 5], [8, 5]]}, "2 codebooks for 4 tokens"),
        ({"levels": "fsq-7"}, "unknown codebook 'fsq-7'"),
    ],
)
def test_options_that_cannot_be(options, sentence):
    with pytest.raises(UserError, match=sentence):
        small(**options)


def test_the_tensors_of_another_size(fitted, tmp_path):
    fitted.save(tmp_path)
    about = tmp_path / "tokenizer.json"
    about.write_text(about.read_text().replace('"tokens": 4', '"tokens": 2'))
    with pytest.raises(UserError, match=r"can be read: its tensors are those of another network$"):
        OAT.load(tmp_path)


# Dropout, and what the published code does with it


@pytest.fixture(scope="module")
def dropped():
    return small(dropout=0.1).fit(structured(500), steps=150, batch_size=24, lr=3e-3)


def test_without_dropout_nothing_is_written_of_it(fitted):
    assert "dropout" not in fitted.options  # tokenizers of before this option have the same files
    assert small(dropout=0.0).options == fitted.options
    assert not any(m.dropout for m in fitted.network.modules() if hasattr(m, "dropout"))


def test_dropout_is_on_in_fitting_alone(dropped, held_out, tmp_path):
    how = {"steps": 5, "batch_size": 8}
    plain = small().fit(structured(100), **how).network.state_dict()
    other = small(dropout=0.1).fit(structured(100), **how).network.state_dict()
    assert any(not torch.equal(plain[n], other[n]) for n in plain)
    first, again = dropped.encode(held_out), dropped.encode(held_out)
    np.testing.assert_array_equal(first.ids, again.ids)
    dropped.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.options["dropout"] == 0.1
    np.testing.assert_array_equal(loaded.encode(held_out).ids, first.ids)
    assert distortion(dropped, held_out) < 0.6 * float(np.square(held_out - structured(500).mean(0)).mean())


def test_in_training_mode_some_tokens_flip_and_in_eval_mode_none(dropped, held_out):
    """The published tokenizer's: a share of the target tokens is another at every look."""
    chunks, own = torch.from_numpy(held_out), dropped.encode(held_out).ids

    def look(seed):
        torch.manual_seed(seed)
        return dropped.ids_in_training(chunks).numpy()

    flipped = (look(0) != own).mean()
    assert 0.02 < flipped < 0.7
    np.testing.assert_array_equal(look(0), look(0))
    assert 0.02 < (look(0) != look(1)).mean() < 0.7
    assert not dropped.network.training
    np.testing.assert_array_equal(dropped.encode(held_out).ids, own)


def test_without_dropout_training_mode_is_eval_mode(fitted, held_out):
    far = np.concatenate([held_out, 100 * held_out])  # clipped to the range of fitting, as ``encode`` does
    np.testing.assert_array_equal(
        fitted.ids_in_training(torch.from_numpy(far)).numpy(), fitted.encode(far).ids
    )


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(dropout):
    with pytest.raises(UserError, match=r"a dropout of .* is no share: give 0 or more, and less than 1"):
        small(dropout=dropout)
