"""The autoregressive head on sequences of different lengths, some of which do not decode."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from compression_gap.nn.sizes import TrunkSize
from compression_gap.policies.autoregressive import AutoregressiveHead
from compression_gap.policies.base import Target
from compression_gap.tokenizers import FAST, ActionTokenizer, Decoded, Tokens

SMALL = TrunkSize(layers=2, width=32, heads=4)
WORDS = np.array([1, 1, 2, 3, 2])  # how many symbols each token stands for
SYMBOLS = 6  # of a chunk


class Words(ActionTokenizer):
    """Token t stands for ``WORDS[t]`` symbols; a sequence decodes if it has six, to their running sum."""

    name, ragged = "words", True
    codebook_sizes = (len(WORDS),) * SYMBOLS

    def __init__(self):
        ActionTokenizer.__init__(self)
        self.fitted, self.asked = True, 0

    def symbols(self, tokens):
        return [WORDS[ids[:n]].sum() for ids, n in zip(tokens.ids, tokens.lengths, strict=True)]

    def decode(self, tokens):
        found = np.array(self.symbols(tokens))
        return Decoded(np.repeat(found[:, None, None], 4, 1).astype(np.float32), found == SYMBOLS)

    def allowed(self, prefix):
        self.asked += 1
        left = SYMBOLS - WORDS[list(prefix)].sum()
        return np.append(left >= WORDS, left == 0)

    def _nothing(self, *given):
        raise NotImplementedError

    _fit = _encode = _decode = _arrays = _restore = _nothing


class SizedWords(Words):
    """Says how large its tokens are, so that nobody needs to ask for each prefix."""

    token_sizes, sequence_size = WORDS, SYMBOLS


def head(tokenizer=None, std=0.3, **options):
    torch.manual_seed(0)
    tokenizer = tokenizer or Words()
    made = AutoregressiveHead(
        SMALL, codebook_sizes=tokenizer.codebook_sizes, tokenizer=tokenizer, **{"top_k": None, **options}
    )
    for p in made.parameters():
        if p.ndim == 2:
            nn.init.normal_(p, std=std)
    return made.eval()


def context(n, seed=1):
    return torch.randn(n, 5, 32, generator=torch.Generator().manual_seed(seed))


IDS = torch.tensor([[3, 3, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [2, 4, 0, 1, 0, 0], [0, 1, 0, 1, 0, 1]])
LENGTHS = torch.tensor([2, 0, 4, 6])


def target(ids=IDS):
    return Target(chunk=torch.zeros(4, 4, 1), valid=torch.ones(4, 4), tokens=ids, lengths=LENGTHS)


@torch.no_grad()
def test_the_loss_is_the_sum_by_hand_over_a_rows_own_tokens_and_its_end():
    made = head()
    p = made.logits(context(4), IDS).double().softmax(-1)
    assert p.shape == (4, 7, 6)
    nats = []
    for b, n in enumerate(LENGTHS.tolist()):
        wanted = [*IDS[b, :n].tolist(), made.end]
        nats.append(sum(-math.log(p[b, i, t]) for i, t in enumerate(wanted)))
    per_token = [total / (n + 1) for total, n in zip(nats, LENGTHS.tolist(), strict=True)]
    assert made.loss(context(4), target(), rng=None).tolist() == pytest.approx(per_token, rel=1e-5)
    bits = [n / math.log(2) for n in nats]
    assert made.score(context(4), target()).tolist() == pytest.approx(bits, rel=1e-5)


def test_padding_costs_nothing():
    """Neither its ids nor its width change the loss, and no gradient comes from it."""
    made = head()
    loss = made.loss(context(4), target(), rng=None)
    padding = torch.arange(6) >= LENGTHS[:, None]
    assert torch.equal(made.loss(context(4), target(IDS.masked_fill(padding, 4)), rng=None), loss)
    some = slice(0, 3)
    short = Target(
        chunk=torch.zeros(3, 4, 1), valid=torch.ones(3, 4), tokens=IDS[some, :4], lengths=LENGTHS[some]
    )
    torch.testing.assert_close(made.loss(context(4)[some], short, rng=None), loss[some])
    (gradient,) = torch.autograd.grad(loss[0], made.position)  # two tokens and the end: three positions
    assert gradient[:3].abs().amax(-1).min() > 0
    assert gradient[3:].abs().max() == 0


@torch.no_grad()
def test_after_the_longest_sequence_the_end_is_certain():
    p = head().logits(context(4), IDS).softmax(-1)
    assert torch.equal(p[:, 6], torch.eye(6)[5].expand(4, -1))


@torch.no_grad()
def test_a_head_that_knows_nothing_costs_each_token_the_log_of_all_codes_and_the_end():
    made = head()
    nn.init.zeros_(made.out.weight)
    nn.init.zeros_(made.out.bias)
    expected = [3 * math.log2(6), math.log2(6), 5 * math.log2(6), 6 * math.log2(6)]
    assert made.score(context(4), target()).tolist() == pytest.approx(expected)


@torch.no_grad()
def test_greedy_tokens_are_the_argmax_of_teacher_forcing():
    """With cached keys and values, up to the end."""
    made = head(temperature=0, constrained=False)
    made.out.bias[made.end] += 1
    drawn = made.draw(context(40), list(range(40)))
    assert len(set(drawn.lengths.tolist())) > 1
    best = made.logits(context(40), torch.from_numpy(drawn.ids)).argmax(-1)
    for b, n in enumerate(drawn.lengths):
        assert best[b, : n + 1].tolist() == [*drawn.ids[b, :n].tolist(), made.end]
        assert not drawn.ids[b, n:].any()


@pytest.mark.parametrize("tokenizer", [Words, SizedWords])
@pytest.mark.parametrize("temperature", [0, 1.0, 30.0])
def test_constrained_samples_always_decode(tokenizer, temperature):
    made = head(tokenizer(), std=0.6, temperature=temperature)
    emitted = made.sample(context(200), list(range(200)))
    assert emitted.ok.all()
    assert emitted.chunk.eq(SYMBOLS).all()
    assert emitted.lengths.min() >= 2
    if temperature:
        assert len(np.unique(emitted.lengths)) > 2


def test_both_ways_to_say_what_may_follow_give_the_same_tokens():
    by_prefix, by_size = (head(t()).draw(context(50), list(range(50))) for t in (Words, SizedWords))
    np.testing.assert_array_equal(by_prefix.ids, by_size.ids)
    np.testing.assert_array_equal(by_prefix.lengths, by_size.lengths)


def test_a_row_that_has_ended_is_not_asked_about():
    tokenizer = Words()
    drawn = head(tokenizer).draw(context(20), list(range(20)))
    assert tokenizer.asked == sum(min(n + 1, SYMBOLS) for n in drawn.lengths)


def test_unconstrained_samples_are_reported_as_they_are():
    tokenizer = Words()
    made = head(tokenizer, constrained=False)
    emitted = made.sample(context(200), list(range(200)))
    symbols = np.array(tokenizer.symbols(Tokens(emitted.tokens, emitted.lengths)))
    assert emitted.ok.tolist() == (symbols == SYMBOLS).tolist()
    assert 0 < emitted.ok.sum() < 200
    np.testing.assert_array_equal(emitted.chunk[:, 0, 0], symbols)
    assert tokenizer.asked == 0


def test_lengths_of_a_head_that_knows_nothing_are_geometric():
    """The end has one share of six at each position, whatever came before."""
    made = head(constrained=False)
    with torch.no_grad():
        made.out.weight.zero_()
        made.out.bias.zero_()
    n = 4000
    lengths = made.draw(context(1).expand(n, -1, -1), list(range(n))).lengths
    for k in range(SYMBOLS):
        expected = (5 / 6) ** k / 6
        assert (lengths == k).mean() == pytest.approx(expected, abs=4 * math.sqrt(expected / n))


@pytest.mark.parametrize("constrained", [True, False])
def test_a_row_is_the_same_alone_and_in_a_batch(constrained):
    made, seeds = head(SizedWords(), constrained=constrained), [4, 5, 2**62, 7, 8, 9]
    whole = made.draw(context(6), seeds)
    assert len(set(whole.lengths.tolist())) > 1
    torch.manual_seed(99)
    for b, n in enumerate(whole.lengths):
        one = made.draw(context(6)[b : b + 1], seeds[b : b + 1])
        assert one.lengths.tolist() == [n]
        assert one.ids.shape == (1, n)
        np.testing.assert_array_equal(one.ids[0], whole.ids[b, :n])
    assert whole.ids.shape[1] == whole.lengths.max()


def test_sampling_stops_when_all_rows_have_ended(monkeypatch):
    made, calls = head(), []
    step = made.trunk.step
    monkeypatch.setattr(made.trunk, "step", lambda *a: calls.append(1) or step(*a))
    drawn = made.draw(context(3), [1, 2, 3])
    assert len(calls) == drawn.lengths.max() + 1
    with torch.no_grad():
        made.out.bias[made.end] += 100
    made.constrained = False
    emitted = made.draw(context(3), [1, 2, 3])
    assert emitted.ids.shape == (3, 0)
    assert emitted.lengths.tolist() == [0, 0, 0]


def test_fast():
    """With the tokenizer itself: random weights decode when constrained, and fail when not."""
    rng = np.random.default_rng(0)
    chunks = np.cumsum(0.3 * rng.normal(size=(200, 8, 2)), 1).astype(np.float32)
    fast = FAST(vocabulary=150).fit(chunks)
    made = head(fast, std=0.1)
    assert made.sample(context(30), list(range(30))).ok.all()
    made.constrained = False
    free = made.sample(context(30), list(range(30)))
    assert not free.ok.all()
    tokens = fast.encode(chunks[:4])
    given = Target(
        chunk=torch.from_numpy(chunks[:4]),
        valid=torch.ones(4, 8),
        tokens=torch.from_numpy(tokens.ids),
        lengths=torch.from_numpy(tokens.lengths),
    )
    assert torch.isfinite(made.loss(context(4), given, rng=None)).all()
    assert copy.deepcopy(made)._frozen.tokenizer is fast


class Even(ActionTokenizer):
    """Two tokens, of which the second must be even after an even one: no ragged code, but not free either."""

    name, codebook_sizes = "even", (4, 6)
    __init__ = Words.__init__

    def allowed(self, prefix):
        return np.ones(4, bool) if not prefix else (np.arange(6) + prefix[0]) % 2 == 0

    _fit = _encode = _decode = _arrays = _restore = Words._nothing


def test_a_code_of_one_length_may_be_constrained_too():
    drawn = head(Even(), temperature=20.0).draw(context(100), list(range(100)))
    assert (drawn.ids.sum(1) % 2 == 0).all()
    assert set(drawn.ids[:, 1]) == set(range(6))
    free = head(Even(), temperature=20.0, constrained=False).draw(context(100), list(range(100)))
    assert 20 < (free.ids.sum(1) % 2).sum() < 80
