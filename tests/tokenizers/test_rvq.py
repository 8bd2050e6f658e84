import json

import numpy as np
import pytest
import torch
from loguru import logger  # the library's
from vector_quantize_pytorch.vector_quantize_pytorch import Codebook

from compression_gap.errors import UserError
from compression_gap.nn import Interrupted
from compression_gap.tokenizers import ResidualVQ, Tokens, autoencoder, load_tokenizer, rvq

HORIZON, DIM = 8, 2


def structured(n, seed=0):
    """Chunks [n, 8, 2]: a level and a slope in each dimension."""
    level, slope = np.random.default_rng(seed).normal(size=(2, n, 1, DIM))
    t = np.linspace(-1, 1, HORIZON)[:, None]
    return (1.5 * level + slope * t).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    how = {"steps": 300, "batch_size": 64, "lr": 3e-3, "validation": (structured(200, seed=2), None)}
    tokenizer = ResidualVQ(layers=3, codes=16)
    assert tokenizer.fit(structured(2000), **how) is tokenizer
    return tokenizer


@pytest.fixture(scope="module")
def held_out():
    return structured(400, seed=1)


def distortion(tokenizer, chunks, length=None):
    tokens = tokenizer.encode(chunks)
    lengths = tokens.lengths if length is None else np.full(len(chunks), length)
    return float(np.square(tokenizer.decode(Tokens(tokens.ids, lengths)).chunk - chunks).mean())


def latents(tokenizer, chunks):
    """In sub-batches, as in encoding: another size of batch may round otherwise."""
    network = tokenizer.network
    with torch.no_grad():
        parts = torch.from_numpy(chunks).split(autoencoder.BATCH)
        return torch.cat([network.latent(network.units(part)) for part in parts])


def test_each_layer_refines_the_ones_before(fitted, held_out):
    errors = [distortion(fitted, held_out, k) / held_out.var() for k in range(4)]
    assert errors[0] > 0.8
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]
    assert errors[3] < 0.8 * errors[2]
    ids = fitted.encode(held_out).ids
    assert all(len(np.unique(column)) == 16 for column in ids.T)
    validation = structured(200, seed=2)
    in_units = np.square(
        (fitted.decode(fitted.encode(validation)).chunk - validation) / structured(2000).std((0, 1))
    ).mean()
    assert fitted.report["curve"]["validation"][-1] == pytest.approx(in_units, rel=2e-2)  # decoding clips


def test_ids_are_those_of_a_plain_search_for_the_nearest_residual(fitted, held_out):
    """Layer by layer in float64, by the squares of differences: the same ids, every one."""
    residual = latents(fitted, held_out).double()
    for layer, book in enumerate(fitted.network.codebooks.double()):
        squares = (residual[:, None] - book).square().sum(-1)
        nearest = squares.argmin(1)
        np.testing.assert_array_equal(fitted.encode(held_out).ids[:, layer], nearest)
        residual = residual - book[nearest]


def test_ids_are_those_of_the_library_in_eval_mode(fitted, held_out):
    quantizer = fitted.network.quantizer
    assert not quantizer.training
    _, ids, _ = quantizer(latents(fitted, held_out))
    np.testing.assert_array_equal(fitted.encode(held_out).ids, ids)


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_a_prefix_decodes_to_the_sum_of_its_codes(fitted, held_out, length):
    tokens = fitted.encode(held_out[:40])
    lengths = np.full(40, length)
    network = fitted.network
    with torch.no_grad():
        codes = network.quantizer.get_codes_from_indices(torch.from_numpy(tokens.ids))  # [layers, B, w]
        x = network.decoder(codes[:length].sum(0)).view(40, HORIZON, DIM)
        expected = network.units.back(x).numpy().clip(fitted.low, fitted.high)
    whole = fitted.decode(Tokens(tokens.ids, lengths)).chunk
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(fitted.decode(Tokens(tokens.ids[:, :length], lengths)).chunk, whole)
    if length == 3:
        with torch.no_grad():
            x = network.units(torch.from_numpy(held_out[:40]))
            made = network.units.back(network.reconstruct(x, None)[0]).numpy()
        np.testing.assert_allclose(whole, made.clip(fitted.low, fitted.high), rtol=0, atol=1e-5)


def test_rows_may_have_prefixes_of_different_lengths(fitted, held_out):
    ids = fitted.encode(held_out[:4]).ids
    mixed = fitted.decode(Tokens(ids, np.array([0, 1, 2, 3]))).chunk
    for row in range(4):
        alone = fitted.decode(Tokens(ids, np.full(4, row))).chunk
        np.testing.assert_array_equal(mixed[row], alone[row])


def test_encoding_changes_no_codebook(fitted, held_out):
    before = {n: t.clone() for n, t in fitted.network.state_dict().items()}
    fitted.encode(held_out)
    after = fitted.network.state_dict()
    assert all(torch.equal(t, after[n]) for n, t in before.items())
    assert not any(m.training for m in fitted.network.modules())
    assert not any(p.requires_grad for p in fitted.network.parameters())


def test_the_averaged_encoder_fits_the_codebooks(monkeypatch, held_out):
    """The average keeps the newest codebooks beside averaged weights: as good as the module that was trained."""
    seen, train = {}, autoencoder.train
    monkeypatch.setattr(autoencoder, "train", lambda m, *a, **k: seen.update(raw=m) or train(m, *a, **k))
    tokenizer = ResidualVQ(layers=3, codes=16)
    tokenizer.fit(structured(2000), steps=200, batch_size=64, lr=3e-3, validation=(held_out[:20], None))
    average, raw = tokenizer.network, seen["raw"].eval()
    assert any(not torch.equal(a, b) for a, b in zip(average.parameters(), raw.parameters(), strict=True))
    assert torch.equal(average.codebooks, raw.codebooks)
    mine = distortion(tokenizer, held_out)
    tokenizer._network = raw
    assert mine < 1.1 * distortion(tokenizer, held_out)


@pytest.fixture
def replaced(monkeypatch):
    """How many dead codes were replaced, call by call."""
    counts, replace = [], Codebook.replace

    def counting(self, batch_samples, batch_mask, seq_mask=None):
        counts.append(int(batch_mask.sum()))
        replace(self, batch_samples, batch_mask, seq_mask)

    monkeypatch.setattr(Codebook, "replace", counting)
    return counts


def test_a_stopped_and_resumed_fit_ends_with_the_same_bytes(replaced, held_out, tmp_path):
    """Across k-means (before the stop) and replacements of dead codes (before and after it)."""
    chunks = held_out[:40]
    options = {"steps": 30, "batch_size": 8, "validation": (held_out[:50], None)}
    straight, resumed = (ResidualVQ(layers=2, codes=32) for _ in range(2))
    straight.fit(chunks, **options)
    calls = len(replaced)
    assert calls > 1
    torch.manual_seed(99)  # must not matter
    answers = iter([False] * 20 + [True])
    with pytest.raises(Interrupted):
        resumed.fit(chunks, **options, work=tmp_path, should_stop=lambda: next(answers))
    before = len(replaced) - calls
    assert 0 < before < calls
    torch.manual_seed(98)
    resumed.fit(chunks, **options, work=tmp_path)
    assert replaced[:calls] == replaced[calls:]
    for tokenizer, name in ((straight, "a"), (resumed, "b")):
        tokenizer.report["curve"]["seconds"] = []
        tokenizer.save(tmp_path / name)
    for name in ("tokenizer.safetensors", "tokenizer.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_fit_is_repeatable_and_depends_on_its_seed(held_out):
    def books(seed):
        return ResidualVQ().fit(held_out, seed=seed, steps=3, batch_size=16).network.codebooks

    assert torch.equal(books(0), books(0))
    assert not torch.equal(books(0), books(1))


def begun(layers, codes, n, batch_size=32):
    """A network that was started on n chunks, and their latents."""
    torch.manual_seed(0)
    network = rvq.RVQNetwork(HORIZON, DIM, layers, codes, "xs")
    x = torch.from_numpy(structured(n))
    network.start(x, batch_size)
    return network, network.latent(x).detach()


def test_codebooks_start_from_k_means():
    """Each code is the mean of the latents nearest to it, nearly; picks are counted for one batch."""
    network, z = begun(1, 8, 500)
    book = network.codebooks[0]
    near = torch.cdist(z, book).argmin(1)
    means = torch.stack([z[near == i].mean(0) for i in range(8)])
    assert (means - book).norm() < 0.25 * (book - book.mean(0)).norm()
    random = z[torch.randperm(500)[:8]]
    error, worse = (float(torch.cdist(z, b).amin(1).square().mean()) for b in (book, random))
    assert error < 0.8 * worse
    state = network.quantizer.layers[0]._codebook
    assert float(state.cluster_size.sum()) == pytest.approx(32)
    assert state.threshold_ema_dead_code == pytest.approx(0.1 * 32 / 8)
    torch.testing.assert_close(
        state.embed_avg / state.cluster_size[..., None], state.embed, rtol=1e-3, atol=1e-5
    )


def test_k_means_of_more_chunks_than_are_needed(monkeypatch):
    monkeypatch.setattr(rvq, "START", 100)
    network, z = begun(1, 8, 500)
    near = torch.cdist(z, network.codebooks[0]).argmin(1)
    assert len(near.unique()) == 8


def test_a_dead_code_is_replaced_by_a_residual(replaced):
    """A code far away is picked by nothing; its count decays until it is put where a latent is."""
    network, z = begun(1, 8, 64)
    x = torch.from_numpy(structured(64))
    state = network.quantizer.layers[0]._codebook
    state.embed[0, 3], state.embed_avg[0, 3], state.cluster_size[0, 3] = 1e3, 1e3 * 4, 4
    network.train()
    for step in range(40):
        torch.manual_seed(step)
        network.reconstruct(x, torch.Generator())
        if replaced:
            break
    assert replaced == [1]
    assert 9 <= step <= 12  # 4 · 0.8ⁿ falls below 0.1 · 32 / 8 = 0.4
    assert float(torch.cdist(state.embed[0, 3][None], z).min()) < 1e-5
    assert float(state.cluster_size[0, 3]) == pytest.approx(4)


def test_the_loss_of_a_network_by_hand():
    """Training adds, for each layer, a quarter of the mean square of what its code leaves; validation does not."""
    network, _ = begun(2, 8, 64)
    x = torch.from_numpy(structured(64))
    network.eval()
    residual, expected = network.latent(x), 0.0
    q = torch.zeros_like(residual)
    for book in network.codebooks:
        code = book[torch.cdist(residual, book).argmin(1)]
        expected = expected + (residual - code).square().mean()
        residual, q = residual - code, q + code
    made, further = network.reconstruct(x, None)
    assert further == 0
    torch.testing.assert_close(made, network.decode(q), rtol=0, atol=1e-5)
    network.train()
    made, further = network.reconstruct(x, torch.Generator())
    torch.testing.assert_close(further, 0.25 * expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(made, network.decode(q), rtol=0, atol=1e-5)


def test_the_gradient_goes_straight_through_every_layer():
    """As in the published code: each layer passes the gradient on, and the sum of two layers does so twice."""
    network, z = begun(2, 8, 64)
    z = z.clone().requires_grad_()
    q, _, _ = network.train().quantize(z)
    weights = torch.randn(q.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((q * weights).sum(), z)
    torch.testing.assert_close(gradient, 2 * weights)


@pytest.mark.parametrize("n", [1, 3])
def test_fewer_chunks_than_codes(n):
    warnings = []
    handler = logger.add(warnings.append)
    chunks = structured(n, seed=5)
    tokenizer = ResidualVQ(layers=2, codes=16).fit(chunks, steps=80, batch_size=8, lr=3e-3)
    assert distortion(tokenizer, chunks) < 0.05 * chunks.var()
    assert torch.isfinite(tokenizer.network.codebooks).all()
    assert len(np.unique(tokenizer.encode(chunks).ids, axis=0)) == n
    logger.remove(handler)
    assert warnings == []  # the library warns where k-means has fewer vectors than codes


def test_many_layers_and_codes(held_out, tmp_path):
    """8 · 1,024 codes, more than chunks, and not all of them dead at a batch of 32."""
    tokenizer = ResidualVQ(layers=8, codes=1024).fit(
        held_out, steps=12, batch_size=32, validation=(held_out[:20], None)
    )
    assert tokenizer.capacity_bits == 80
    assert tokenizer.codebook_sizes == (1024,) * 8
    ids = tokenizer.encode(held_out).ids
    assert ids.shape == (400, 8)
    assert 500 < ids.max() < 1024
    assert len(np.unique(ids[:, 0])) > 100
    assert distortion(tokenizer, held_out, 8) < distortion(tokenizer, held_out, 0)
    tokenizer.save(tmp_path)
    np.testing.assert_array_equal(load_tokenizer(tmp_path).encode(held_out).ids, ids)
    assert json.loads((tmp_path / "tokenizer.json").read_text())["options"] == {
        "layers": 8,
        "codes": 1024,
        "size": "xs",
    }


def test_published_capacity():
    """VQ-BeT: two layers of 16 codes, 8 bits a chunk."""
    assert ResidualVQ().codebook_sizes == (16, 16)
    assert ResidualVQ().capacity_bits == 8
    assert ResidualVQ.ordered


@torch.no_grad()
def test_autocast_hardly_moves_a_token(fitted, held_out):
    ids = fitted.encode(held_out).ids
    network = fitted.network
    x = network.units(torch.from_numpy(held_out))
    z = network.latent(x)
    error = float((network.reconstruct(x, None)[0] - x).square().mean())
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(fitted.encode(held_out).ids, ids)
        assert torch.equal(network.quantize(z)[1], torch.from_numpy(ids))
        half_ids, half = network.ids(x), network.reconstruct(x, None)[0]
    assert (half_ids.numpy() == ids).mean() >= 0.97  # the latent itself is rounded to 8 bits here
    assert float((half.float() - x).square().mean()) == pytest.approx(error, rel=0.01)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"layers": 0}, "layers is 0; it is a whole number from 1 on"),
        ({"layers": True}, "layers is True"),
        ({"codes": 1}, "codes is 1; it is a whole number from 2 on"),
        ({"codes": 16.0}, "codes is 16.0"),
        ({"codes": 2**20 + 1}, "up to 1048576"),
        ({"size": "XXL"}, "unknown tokenizer size 'XXL'; known: M, S, xs"),
    ],
)
def test_options_that_cannot_be(options, sentence):
    with pytest.raises(UserError, match=sentence):
        ResidualVQ(**options)


def test_padded_actions_do_not_count_in_the_loss(monkeypatch):
    """After an episode's end the reconstruction may be anything."""
    seen = {}

    def train(module, loss, rows, validation_rows, schedule, *, validation_loss, **_):
        seen.update(module=module, loss=validation_loss)
        raise Interrupted

    monkeypatch.setattr(autoencoder, "train", train)
    chunks, valid = structured(6), np.arange(HORIZON) < np.array([8, 1, 3, 5, 7, 2])[:, None]
    with pytest.raises(Interrupted):
        ResidualVQ(codes=4).fit(chunks, valid)
    network = seen["module"].eval()
    with torch.no_grad():
        found = seen["loss"](network, torch.arange(6), torch.Generator())
        x = network.units(torch.from_numpy(chunks))
        squares = (network.reconstruct(x, None)[0] - x).square().mean(-1).numpy()
    np.testing.assert_allclose(found, [s[v].mean() for s, v in zip(squares, valid, strict=True)], rtol=1e-5)
