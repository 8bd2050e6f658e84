import math

import numpy as np
import pytest
import torch
from torch import nn

from compression_gap.nn import KVCache
from compression_gap.nn.sizes import TrunkSize
from compression_gap.policies.autoregressive import AutoregressiveHead
from compression_gap.policies.base import Target
from compression_gap.tokenizers import Decoded

SMALL = TrunkSize(layers=2, width=32, heads=4)
SIZES = (12, 5, 9, 12)


class Sum(nn.Module):
    """A tokenizer that decodes ids to themselves; a module, so that it could be caught by ``train()``."""

    name, horizon, codebook_sizes = "sum", 4, SIZES

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = []

    def decode(self, tokens):
        self.seen.append(tokens)
        return Decoded(tokens.ids[..., None].astype(np.float32), tokens.ids[:, 0] % 2 == 0)


def head(sizes=SIZES, std=0.3, **options):
    torch.manual_seed(0)
    made = AutoregressiveHead(SMALL, codebook_sizes=sizes, tokenizer=Sum().eval(), **options)
    for p in made.parameters():
        if p.ndim == 2:
            nn.init.normal_(p, std=std)
    return made.eval()


def context(n=3, seed=1):
    return torch.randn(n, 5, 32, generator=torch.Generator().manual_seed(seed))


def tokens(n=3, seed=2):
    g = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randint(v, (n,), generator=g) for v in SIZES], 1)


@torch.no_grad()
def test_cached_steps_equal_teacher_forcing():
    made, ids = head(), tokens()
    forced = made.logits(context(), ids)
    memory, cache = made.trunk.fold(made.trunk.condition(context())), KVCache(SMALL, 3, 4, context())
    token = torch.full((3,), made.start)
    for i in range(4):
        step = made.out(made.trunk.step(made.embed(token) + made.position[i], memory, cache))
        torch.testing.assert_close(made._masked(step, slice(i, i + 1)), forced[:, i], rtol=1e-4, atol=1e-5)
        token = ids[:, i]


@torch.no_grad()
def test_logits_depend_on_earlier_tokens_alone():
    made, ids = head(), tokens()
    before = made.logits(context(), ids)
    for i in range(4):
        other = ids.clone()
        other[:, i] = (other[:, i] + 1) % SIZES[i]
        after = made.logits(context(), other)
        assert torch.equal(after[:, : i + 1], before[:, : i + 1])
        if i < 3:
            legal = torch.isfinite(before[:, i + 1])
            assert (after[:, i + 1] - before[:, i + 1])[legal].abs().max() > 1e-3


@torch.no_grad()
def test_greedy_tokens_are_the_argmax_of_teacher_forcing():
    """Each token is the most likely one after those before it, and top-k of one is the same."""
    made = head(temperature=0)
    emitted = made.sample(context(), [1, 2, 3])
    ids = torch.from_numpy(emitted.tokens)
    assert torch.equal(made.logits(context(), ids).argmax(-1), ids)
    one = head(top_k=1).sample(context(), [7, 8, 9])
    np.testing.assert_array_equal(one.tokens, emitted.tokens)


@torch.no_grad()
def test_samples_are_decoded_by_the_tokenizer():
    made = head()
    emitted = made.sample(context(6), list(range(6)))
    (seen,) = made._frozen.tokenizer.seen
    np.testing.assert_array_equal(seen.ids, emitted.tokens)
    assert seen.lengths.tolist() == [4] * 6
    np.testing.assert_array_equal(emitted.chunk[..., 0], emitted.tokens)
    assert emitted.ok.tolist() == (emitted.tokens[:, 0] % 2 == 0).tolist()


@pytest.mark.parametrize(
    ("temperature", "top_k"), [(1.0, None), (2.0, None), (0.5, 10), (1.0, 3), (1.0, 100)]
)
def test_frequencies_are_those_of_the_softmax(temperature, top_k):
    """The inverse distribution function on a uniform grid gives each token its share of the grid."""
    made = head(temperature=temperature, top_k=top_k)
    row, n = torch.tensor([1.0, -2.0, 0.5, 3.0, 0.0, 2.5, -1.0, 0.1, 1.5, -0.5, 2.0, 0.7]), 20_000
    uniform = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    chosen = made._choose(row.expand(n, -1), uniform.float())
    found = torch.bincount(chosen, minlength=12) / n
    kept = row.clone()
    if top_k == 3:
        kept[row < 2.0] = -math.inf
    elif top_k == 10:
        kept[[1, 6]] = -math.inf
    torch.testing.assert_close(found, (kept / temperature).softmax(-1), atol=2 / n, rtol=0)


def test_the_ends_of_the_uniform_choose_legal_tokens():
    made = head(top_k=None)
    row = torch.full((2, 12), -math.inf)
    row[:, [3, 8]] = torch.tensor([0.0, 1.0])
    assert made._choose(row, torch.tensor([0.0, 1 - 2**-24])).tolist() == [8, 3]


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 50.0, "top_k": None}, {}])
@torch.no_grad()
def test_each_position_keeps_to_its_codebook(options):
    made = head(**options)
    with torch.no_grad():
        made.out.bias[5:] += 3  # what position 1 may not choose would be likely
    ids = made.sample(context(300, seed=3), list(range(300))).tokens
    assert (ids.max(0) < np.array(SIZES)).all()
    p = made.logits(context(), tokens()).softmax(-1)
    for i, size in enumerate(SIZES):
        assert p[:, i, size:].sum() == 0
        torch.testing.assert_close(p[:, i, :size].sum(-1), torch.ones(3))
    if options.get("temperature") == 50.0:
        assert [len(np.unique(ids[:, i])) for i in range(4)] == list(SIZES)


@torch.no_grad()
def test_the_score_is_the_sum_of_bits():
    made, ids = head(), tokens()
    target = Target(torch.zeros(3, 4, 1), torch.ones(3, 4), ids)
    p = made.logits(context(), ids).double().softmax(-1)
    bits = [sum(-math.log2(p[b, i, ids[b, i]]) for i in range(4)) for b in range(3)]
    assert made.score(context(), target).tolist() == pytest.approx(bits, rel=1e-5)
    nats = [b * math.log(2) / 4 for b in bits]
    assert made.loss(context(), target, rng=torch.Generator()).tolist() == pytest.approx(nats, rel=1e-5)


@torch.no_grad()
def test_a_head_that_knows_nothing_costs_the_capacity():
    """Σ log2 V bits over the legal codes: 12 · 5 · 9 · 12 sequences."""
    made = head()
    nn.init.zeros_(made.out.weight)
    nn.init.zeros_(made.out.bias)
    target = Target(torch.zeros(3, 4, 1), torch.ones(3, 4), tokens())
    assert made.score(context(), target).tolist() == pytest.approx([math.log2(12 * 5 * 9 * 12)] * 3)


@torch.no_grad()
def test_a_row_is_the_same_alone_and_in_a_batch():
    made, seeds = head(), [4, 5, 2**62, 7, 8]
    whole = made.sample(context(5), seeds).tokens
    torch.manual_seed(99)
    for b in range(5):
        np.testing.assert_array_equal(
            made.sample(context(5)[b : b + 1], seeds[b : b + 1]).tokens[0], whole[b]
        )
    np.testing.assert_array_equal(made.sample(context(5).flip(0), seeds[::-1]).tokens[::-1], whole)
    assert not np.array_equal(made.sample(context(5), [1, 2, 3, 9, 10]).tokens, whole)


def test_the_tokenizer_is_no_part_of_the_head():
    """It neither trains nor follows into training mode, and its weights are not saved with the head."""
    made = head()
    tokenizer = made._frozen.tokenizer
    made.train()
    assert not tokenizer.training
    assert tokenizer not in list(made.modules())
    assert not any(p is tokenizer.weight for p in made.parameters())
    assert not any("tokenizer" in name for name in made.state_dict())


def test_gradients_of_the_loss_reach_the_context_and_not_the_masked_codes():
    made, given = head(), context().requires_grad_()
    target = Target(torch.zeros(3, 4, 1), torch.ones(3, 4), tokens())
    made.loss(given, target, rng=torch.Generator()).sum().backward()
    assert given.grad.abs().amax(-1).min() > 0
    narrow = head((5, 5, 5, 12))
    ids = tokens() % 5
    loss = narrow.logits(context(), ids)[:, :3].flatten(0, 1)
    nn.functional.cross_entropy(loss, ids[:, :3].flatten()).backward()
    assert narrow.out.weight.grad[5:].abs().max() == 0
    assert narrow.out.weight.grad[:5].abs().max() > 0
