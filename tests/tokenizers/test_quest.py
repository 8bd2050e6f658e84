import math

import numpy as np
import pytest
import torch

from compression_gap.errors import UserError
from compression_gap.nn import Interrupted
from compression_gap.tokenizers import QueST, Tokens, load_tokenizer
from compression_gap.tokenizers.levels import as_levels
from compression_gap.tokenizers.quest import CausalConv, QueSTNetwork

HORIZON, DIM = 16, 2


def structured(n, seed=0):
    """Chunks [n, 16, 2]: a level and a slope; a bump at a random time."""
    rng = np.random.default_rng(seed)
    level, slope = rng.normal(size=(2, n, 1))
    t, at = np.linspace(-1, 1, HORIZON), rng.uniform(-1, 1, (n, 1))
    return np.stack([1.5 * level + slope * t, 3 * np.exp(-8 * (t - at) ** 2)], -1).astype(np.float32)


def small(**options):
    return QueST(**{"tokens": 4, "levels": (8, 5, 5)} | options)


def network(horizon=HORIZON, tokens=4, levels=(8, 5, 5), seed=0):
    torch.manual_seed(seed)
    return QueSTNetwork(horizon, DIM, tokens, as_levels(levels), "xs").eval()


@pytest.fixture(scope="module")
def fitted():
    how = {"steps": 150, "batch_size": 24, "lr": 3e-3, "validation": (structured(100, seed=2), None)}
    tokenizer = small()
    assert tokenizer.fit(structured(1000), **how) is tokenizer
    return tokenizer


@pytest.fixture(scope="module")
def held_out():
    return structured(300, seed=1)


def test_a_fitted_tokenizer_reconstructs_new_chunks(fitted, held_out):
    tokens = fitted.encode(held_out)
    error = np.square(fitted.decode(tokens).chunk - held_out).mean()
    assert error < 0.55 * np.square(held_out - held_out.mean(0)).mean()
    assert (tokens.lengths == 4).all()
    assert all(len(np.unique(column)) > 5 for column in tokens.ids.T)
    assert fitted.codebook_sizes == (200,) * 4
    assert fitted.capacity_bits == pytest.approx(4 * math.log2(200))
    validation = structured(100, seed=2)
    found = np.square(
        (fitted.decode(fitted.encode(validation)).chunk - validation) / structured(1000).std((0, 1))
    )
    assert fitted.report["curve"]["validation"][-1] == pytest.approx(found.mean(), rel=1e-2)


@pytest.mark.parametrize(("horizon", "tokens"), [(16, 4), (16, 16), (16, 1), (12, 3), (24, 12), (32, 8)])
@torch.no_grad()
def test_a_token_depends_on_the_actions_up_to_its_own_last(horizon, tokens):
    """Token l on actions up to (l + 1)·stride − 1: on that one it does, on none after it to the last bit."""
    net = network(horizon, tokens, (1000, 1000))
    x = torch.randn(5, horizon, DIM, generator=torch.Generator().manual_seed(1))
    whole = net.bottleneck.to_latent(states(net, x))
    stride = horizon // tokens
    for token in range(tokens):
        last = (token + 1) * stride - 1
        later = x.clone()
        later[:, last + 1 :] = 100 * torch.randn_like(later[:, last + 1 :])
        found = net.bottleneck.to_latent(states(net, later))
        assert torch.equal(found[:, : token + 1], whole[:, : token + 1])
        assert torch.equal(net.ids(later)[:, : token + 1], net.ids(x)[:, : token + 1])
        own = x.clone()
        own[:, last] += 1
        assert (net.bottleneck.to_latent(states(net, own))[:, token] != whole[:, token]).any(-1).all()


def states(net, x):
    """What the bottleneck is given, normalised."""
    seen = []
    hook = net.bottleneck.norm.register_forward_hook(lambda module, inputs, out: seen.append(out))
    net.encode(x)
    hook.remove()
    return seen[0]


def test_later_tokens_look_back_at_all_earlier_actions():
    """Attention: the first action reaches the last token, which the convolutions alone (5 + 3·… steps) do not."""
    net = network(64, 16, (1000, 1000))
    x = torch.randn(3, 64, DIM)
    other = x.clone()
    other[:, 0] += 1
    assert torch.equal(net.convolutions(net.embed(x))[:, -1], net.convolutions(net.embed(other))[:, -1])
    assert (states(net, x)[:, -1] != states(net, other)[:, -1]).any(-1).all()


@torch.no_grad()
def test_a_causal_convolution_by_hand():
    """Stride 2, kernel 3, ones: step i sums x[2i − 1], x[2i] and x[2i + 1]."""
    conv = CausalConv(1, 3, 2)
    conv.conv.weight.fill_(1)
    conv.conv.bias.zero_()
    x = torch.tensor([1.0, 2, 3, 4, 5, 6])[None, :, None]
    expected = torch.nn.functional.gelu(torch.tensor([3.0, 9, 15]))
    torch.testing.assert_close(conv(x)[0, :, 0], expected)


def test_published_kernels_and_strides():
    """Horizon 32 and 8 tokens: kernels 5, 3, 3 with strides 2, 2, 1."""
    shapes = [(c.conv.kernel_size, c.conv.stride) for c in network(32, 8).convolutions]
    assert shapes == [((5,), (2,)), ((3,), (2,)), ((3,), (1,))]
    assert [c.conv.stride for c in network(16, 16).convolutions] == [(1,)]
    assert [c.conv.stride for c in network(16, 1).convolutions] == [(2,)] * 4 + [(1,)]


@torch.no_grad()
def test_the_decoder_is_causal_along_the_queries_and_sees_all_latents():
    net = network()
    codes = net.encode(torch.from_numpy(structured(3)))
    made = net.decode(codes)
    assert made.shape == (3, HORIZON, DIM)
    changed = codes.clone()
    changed[:, -1] = -changed[:, -1] + 0.25
    assert (net.decode(changed)[:, 0] != made[:, 0]).any(-1).all()
    net.queries[5] = torch.randn(64)
    again = net.decode(codes)
    torch.testing.assert_close(again[:, :5], made[:, :5], rtol=0, atol=1e-6)
    assert (again[:, 5:] - made[:, 5:]).abs().amax(-1).min() > 1e-5


@pytest.mark.parametrize(
    ("horizon", "tokens", "fit"),
    [(12, 8, "12, 6, 3"), (8, 16, "8, 4, 2, 1"), (24, 4, "24, 12, 6, 3"), (15, 5, "15")],
)
def test_a_horizon_that_does_not_come_out_even(horizon, tokens, fit):
    sentence = f"quest halves the horizon {horizon} until {tokens} tokens remain.*take tokens from {fit}, or"
    with pytest.raises(UserError, match=sentence):
        QueST(tokens=tokens).fit(np.zeros((3, horizon, 2)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": "XXL"}, "unknown tokenizer size 'XXL'; known: M, S, xs"),
        ({"tokens": 0}, "tokens is 0; a chunk needs at least one token"),
        ({"levels": [8, 1]}, "at least two levels"),
        ({"levels": [[8, 5], [8, 5]]}, "2 codebooks for 4 tokens"),
    ],
)
def test_options_that_cannot_be(options, sentence):
    with pytest.raises(UserError, match=sentence):
        small(**options)


def test_a_prefix_does_not_decode(fitted, held_out):
    assert not fitted.ordered
    tokens = fitted.encode(held_out[:3])
    with pytest.raises(UserError, match="prefixes do not decode"):
        fitted.decode(Tokens(tokens.ids[:, :2], np.full(3, 2)))


def test_codebooks_that_grow_along_the_sequence(held_out, tmp_path):
    tokenizer = small(levels=["fsq-240", [5, 5], "fsq-1000", [8, 8, 8, 6, 5]])
    tokenizer.fit(held_out, steps=40, batch_size=16, lr=3e-3, validation=(held_out[:20], None))
    sizes = (240, 25, 1000, 15360)
    assert tokenizer.codebook_sizes == sizes
    assert tokenizer.capacity_bits == pytest.approx(sum(math.log2(n) for n in sizes))
    ids = tokenizer.encode(held_out).ids
    assert (ids.min(0) >= 0).all()
    assert (ids.max(0) < sizes).all()
    assert ids.max(0)[3] > 1000
    with torch.no_grad():
        net = tokenizer.network
        codes = net.encode(net.units(torch.from_numpy(held_out)))
        assert torch.equal(
            net.bottleneck.fsq.index(codes),
            net.bottleneck.fsq.index(net.bottleneck.fsq.code(torch.from_numpy(ids))),
        )
    tokenizer.save(tmp_path)
    np.testing.assert_array_equal(load_tokenizer(tmp_path).encode(held_out).ids, ids)


def test_eval_mode_and_no_gradients_after_fit_and_after_load(fitted, tmp_path):
    fitted.save(tmp_path)
    for tokenizer in (fitted, load_tokenizer(tmp_path)):
        assert not any(m.training for m in tokenizer.network.modules())
        assert not any(p.requires_grad for p in tokenizer.network.parameters())


def test_an_interrupted_fit_goes_on_where_it_was(held_out, tmp_path):
    straight, resumed = small(), small()
    options = {"steps": 8, "batch_size": 16, "validation": (held_out[:20], None)}
    straight.fit(held_out, **options)
    answers = iter([False, False, True])
    with pytest.raises(Interrupted):
        resumed.fit(held_out, **options, work=tmp_path, should_stop=lambda: next(answers))
    resumed.fit(held_out, **options, work=tmp_path)
    assert resumed.report["curve"]["validation"] == straight.report["curve"]["validation"]
    for a, b in zip(straight.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_autocast_hardly_moves_a_token(fitted, held_out):
    tokens = fitted.encode(held_out)
    net = fitted.network
    x = net.units(torch.from_numpy(held_out))
    error = float((net.reconstruct(x, None)[0] - x).square().mean())
    with torch.autocast("cpu", torch.bfloat16):
        np.testing.assert_array_equal(fitted.encode(held_out).ids, tokens.ids)
        ids, made = net.ids(x), net.reconstruct(x, None)[0]
    assert made.dtype == torch.bfloat16
    assert (ids.numpy() == tokens.ids).mean() >= 0.99
    assert float((made.float() - x).square().mean()) == pytest.approx(error, rel=0.01)
