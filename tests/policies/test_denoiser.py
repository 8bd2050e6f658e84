"""What diffusion and flow matching share, tried on both heads."""

import pytest
import torch

from compression_gap.errors import UserError
from compression_gap.nn.sizes import TrunkSize
from compression_gap.policies.base import Target
from compression_gap.policies.denoiser import Denoiser
from compression_gap.policies.diffusion import DiffusionHead
from compression_gap.policies.flow import FlowHead

SMALL = TrunkSize(layers=2, width=32, heads=4)
HORIZON, DIM, TOKENS = 6, 3, 5
LENGTHS = torch.tensor([6, 1, 3, 4])
VALID = torch.arange(HORIZON) < LENGTHS[:, None]


def strong(module, std=0.2):
    """Large weights, so that what leaks shows."""
    for p in module.parameters():
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=std)
    return module.eval()


def network(attention="full"):
    torch.manual_seed(0)
    return strong(Denoiser(SMALL, HORIZON, DIM, TOKENS, attention))


@pytest.fixture(params=["diffusion", "flow"])
def make(request):
    def made(**options):
        torch.manual_seed(0)
        shapes = {"horizon": HORIZON, "action_dim": DIM, "context_tokens": TOKENS}
        if request.param == "diffusion":
            return strong(DiffusionHead(SMALL, **shapes, clip=2.5, **options))
        return strong(FlowHead(SMALL, **shapes, **options))

    return made


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("attention", ["full", "causal-as-published"])
@torch.no_grad()
def test_memories_in_one_buffer_equal_those_made_anew(attention):
    made, context, x = network(attention), normal(3, TOKENS, 32), normal(3, HORIZON, DIM)
    times = torch.tensor([99.0, 40.5, 0.0])
    found = [made(x, memory) for memory in made.memories(times, context)]
    for t, prediction in zip(times, found, strict=True):
        torch.testing.assert_close(prediction, made(x, made.memory(t.expand(3), context)))
    assert (found[0] - found[2]).abs().max() > 1e-3


def test_an_unknown_attention():
    with pytest.raises(UserError, match=r"unknown attention 'causal'.*causal-as-published"):
        network("causal")


@torch.no_grad()
def test_a_row_is_the_same_alone_and_in_a_batch(make):
    made, context, seeds = make(), normal(4, TOKENS, 32), [11, 2**62, 13, 14]
    whole = made.sample(context, seeds).chunk
    torch.manual_seed(123)
    for b in range(4):
        alone = made.sample(context[b : b + 1], seeds[b : b + 1]).chunk[0]
        torch.testing.assert_close(alone, whole[b], rtol=1e-5, atol=1e-5)
    turned = made.sample(context.flip(0), seeds[::-1]).chunk.flip(0)
    torch.testing.assert_close(turned, whole, rtol=1e-5, atol=1e-5)
    assert (made.sample(context, [1, 2, 3, 4]).chunk - whole).abs().amax((1, 2)).min() > 0.01


@torch.no_grad()
def test_as_published_the_newest_observation_changes_no_first_action(make):
    made, context = make(attention="causal-as-published"), normal(1, TOKENS, 32)
    changed = context.clone()
    changed[:, 1:] = normal(1, TOKENS - 1, 32, seed=9)
    a, b = (made.sample(c, [3]).chunk[0] for c in (context, changed))
    torch.testing.assert_close(a[0], b[0], rtol=0, atol=1e-6)
    assert (a[1] - b[1]).abs().max() > 1e-3
    full = make()
    a, b = (full.sample(c, [3]).chunk[0] for c in (context, changed))
    assert (a[0] - b[0]).abs().max() > 1e-3


@torch.no_grad()
def test_targets_at_invalid_actions_do_not_count(make):
    """As published, an action sees earlier ones alone: what stands after the end reaches no loss."""
    made, context = make(attention="causal-as-published"), normal(4, TOKENS, 32)
    chunk, rng = normal(4, HORIZON, DIM), torch.Generator()
    other = torch.where(VALID[..., None], chunk, 7.0)
    losses = [
        made.loss(context, Target(chunk=c, valid=v), rng=rng.manual_seed(3))
        for c, v in ((chunk, VALID), (other, VALID), (other, VALID.float()), (other, torch.ones(4, HORIZON)))
    ]
    torch.testing.assert_close(losses[1], losses[0])
    assert torch.equal(losses[2], losses[1])
    assert (losses[3] - losses[0]).abs()[1:].min() > 0.1


@torch.no_grad()
def test_more_steps_ask_the_network_more_often(make, monkeypatch):
    for steps in (1, 4):
        made, calls = make(sampling_steps=steps), []
        forward = made.network.forward
        monkeypatch.setattr(made.network, "forward", lambda *a, f=forward, c=calls: c.append(1) or f(*a))
        made.sample(normal(2, TOKENS, 32), [1, 2])
        assert len(calls) == steps
