import numpy as np
import pytest
import torch
from torch import nn

from compression_gap.nn.sizes import TrunkSize
from compression_gap.policies.base import Target, over_valid
from compression_gap.policies.hybrid import HybridHead
from compression_gap.policies.registry import make_head
from compression_gap.study.file import parse_study
from compression_gap.tokenizers import Decoded

SMALL = TrunkSize(layers=2, width=32, heads=4)
HORIZON, DIM, SIZES = 4, 2, (5, 7, 3)


class Ramp:
    """The sum of the ids times 0, 1, 2, 3; an odd first token does not decode."""

    name, horizon, action_dim, ragged, codebook_sizes = "ramp", HORIZON, DIM, False, SIZES

    def decode(self, tokens):
        ramp = np.arange(HORIZON)[:, None] * np.ones(DIM)
        chunk = 0.1 * tokens.ids.sum(1)[:, None, None] * ramp
        return Decoded(chunk.astype(np.float32), tokens.ids[:, 0] % 2 == 0)


def head(strong=True, **options):
    torch.manual_seed(0)
    made = HybridHead(
        SMALL, horizon=HORIZON, action_dim=DIM, codebook_sizes=SIZES, tokenizer=Ramp(), **options
    )
    for p in made.parameters() if strong else ():
        if p.ndim == 2:
            nn.init.normal_(p, std=0.3)
    return made.eval()


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def target():
    g = torch.Generator().manual_seed(3)
    return Target(
        chunk=normal(3, HORIZON, DIM, seed=2),
        valid=torch.arange(HORIZON) < torch.tensor([[4], [1], [2]]),
        tokens=torch.stack([torch.randint(v, (3,), generator=g) for v in SIZES], 1),
        lengths=torch.full((3,), 3),
        coded=normal(3, HORIZON, DIM, seed=4),
    )


@torch.no_grad()
def test_the_emitted_chunk_is_the_decoded_one_and_an_offset():
    made, context, seeds = head(), normal(20, 5, 32), list(range(20))
    emitted, coded = made.sample(context, seeds), made.tokens.sample(context, seeds)
    offset = made.offset(coded.chunk, context)
    assert offset.abs().amax((1, 2)).min() > 0.01
    torch.testing.assert_close(emitted.chunk, coded.chunk + offset)
    np.testing.assert_array_equal(emitted.tokens, coded.tokens)
    assert emitted.ok.tolist() == (emitted.tokens[:, 0] % 2 == 0).tolist()
    assert 0 < emitted.ok.sum() < 20


@torch.no_grad()
def test_before_training_the_offset_is_nothing():
    made, context = head(strong=False), normal(4, 5, 32)
    emitted = made.sample(context, [1, 2, 3, 4])
    torch.testing.assert_close(emitted.chunk, made.tokens.sample(context, [1, 2, 3, 4]).chunk)


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
@torch.no_grad()
def test_the_loss_by_hand(weight):
    made, context, goal = head(offset_weight=weight), normal(3, 5, 32), target()
    offset = made.offset(goal.coded, context)
    error = (goal.chunk - goal.coded - offset).abs()
    absolute = torch.stack([error[b, :n].mean() for b, n in enumerate((4, 1, 2))])
    expected = made.tokens.loss(context, goal, rng=None) + weight * absolute
    torch.testing.assert_close(made.loss(context, goal, rng=None), expected)
    torch.testing.assert_close(made.score(context, goal), made.tokens.score(context, goal))


@pytest.mark.parametrize(("written", "weight"), [("", 1.0), ("policy: {offset_weight: 3.0}", 3.0)])
@torch.no_grad()
def test_the_weight_that_a_study_file_sets_reaches_the_loss(written, weight):
    study = parse_study(
        f"name: a\nsuite: channel\nfactors: {{encoder: [blind], action: [oat-hybrid]}}\n{written}", "a.yaml"
    )
    torch.manual_seed(0)
    made = make_head(
        "hybrid", SMALL, horizon=HORIZON, action_dim=DIM, context_tokens=5, clip=1.0, tokenizer=Ramp(),
        options=study.policy.of_head("hybrid"),
    )  # fmt: skip
    context, goal = normal(3, 5, 32), target()
    offset = made.offset(goal.coded, context)
    error = over_valid((goal.chunk - goal.coded - offset).abs().mean(-1), goal.valid)
    found = made.loss(context, goal, rng=None) - made.tokens.loss(context, goal, rng=None)
    torch.testing.assert_close(found, weight * error)


def test_the_two_parts_share_the_context_alone():
    made, context = head(), normal(3, 5, 32).requires_grad_()
    made.loss(context, target(), rng=None).sum().backward()
    both = context.grad.clone()
    gradients = {n: p.grad.clone() for n, p in made.named_parameters()}
    made.zero_grad()
    context.grad = None
    made.tokens.loss(context, target(), rng=None).sum().backward()
    for n, p in made.tokens.named_parameters():
        torch.testing.assert_close(p.grad, gradients[f"tokens.{n}"])
    assert (context.grad - both).abs().max() > 1e-3
    assert all(p.grad is None or not p.grad.any() for p in made.offset.parameters())


def test_the_offset_learns_what_the_code_leaves_over():
    """The code rounds; what it cuts off stands in the context."""
    made = head(strong=False)
    optimizer = torch.optim.Adam(made.parameters(), 3e-3)
    tokens = torch.zeros(64, 3, dtype=torch.int64)
    for step in range(200):
        rest = 0.5 * torch.rand(64, 1, 1, generator=torch.Generator().manual_seed(step)) - 0.25
        coded = normal(64, HORIZON, DIM, seed=step).round()
        context = torch.zeros(64, 1, 32)
        context[:, 0, 0] = 10 * rest[:, 0, 0]
        goal = Target(
            chunk=coded + rest,
            valid=torch.ones(64, HORIZON),
            tokens=tokens,
            lengths=torch.full((64,), 3),
            coded=coded,
        )
        loss = made.loss(context, goal, rng=None).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (made.offset(coded, context) - rest).abs().mean() < 0.3 * rest.abs().mean()


@torch.no_grad()
def test_a_row_is_the_same_alone_and_in_a_batch():
    made, context, seeds = head(), normal(4, 5, 32), [3, 2**62, 5, 6]
    whole = made.sample(context, seeds)
    for b in range(4):
        one = made.sample(context[b : b + 1], seeds[b : b + 1])
        np.testing.assert_array_equal(one.tokens[0], whole.tokens[b])
        torch.testing.assert_close(one.chunk[0], whole.chunk[b], rtol=1e-5, atol=1e-5)
