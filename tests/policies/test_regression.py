import pytest
import torch

from compression_gap.nn.sizes import TrunkSize
from compression_gap.policies.base import Target
from compression_gap.policies.regression import RegressionHead

SMALL = TrunkSize(layers=1, width=32, heads=4)
HORIZON, DIM = 4, 2


def head():
    torch.manual_seed(0)
    return RegressionHead(SMALL, horizon=HORIZON, action_dim=DIM)


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fit(made, batch, steps, lr=3e-3):
    optimizer = torch.optim.Adam(made.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        context, chunk = batch(step)
        loss = made.loss(context, Target(chunk=chunk, valid=torch.ones(chunk.shape[:2])), rng=None).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def test_it_learns_a_linear_map_of_the_context():
    made, weight = head(), 0.5 * normal(2, HORIZON * DIM, seed=5)

    def batch(seed):
        z = normal(64, 2, seed=seed)
        context = torch.zeros(64, 2, 32)
        context[:, 0, :2] = z
        return context, (z @ weight).view(64, HORIZON, DIM)

    fit(made, batch, 300)
    context, chunk = batch(10_000)
    error = made.sample(context, [0] * 64).chunk - chunk
    assert error.square().mean() < 0.1 * chunk.square().mean()


def test_its_optimum_is_the_median_and_not_the_mean():
    """Three of five chunks are 0, two are 1: the median is 0, the mean 0.4."""
    made, context = head(), torch.zeros(50, 1, 32)
    chunk = (torch.arange(50) % 5 < 2).float()[:, None, None].expand(-1, HORIZON, DIM)
    fit(made, lambda step: (context, chunk), 150)
    torch.testing.assert_close(
        made.sample(context[:1], [0]).chunk, torch.zeros(1, HORIZON, DIM), atol=0.05, rtol=0
    )


@torch.no_grad()
def test_the_loss_is_the_mean_absolute_error_of_valid_actions():
    made, context, chunk = head(), normal(3, 2, 32), normal(3, HORIZON, DIM, seed=2)
    lengths = torch.tensor([4, 1, 2])
    valid = torch.arange(HORIZON) < lengths[:, None]
    loss = made.loss(context, Target(chunk=chunk, valid=valid), rng=None)
    error = (made(context) - chunk).abs()
    expected = [error[b, :n].mean().item() for b, n in enumerate(lengths)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-5)


@torch.no_grad()
def test_a_row_depends_on_its_context_alone():
    made, context = head(), normal(3, 2, 32)
    whole = made.sample(context, [1, 2, 3]).chunk
    assert torch.equal(made.sample(context, [4, 5, 6]).chunk, whole)
    for b in range(3):
        alone = made.sample(context[b : b + 1], [1]).chunk[0]
        torch.testing.assert_close(alone, whole[b], rtol=1e-5, atol=1e-6)
    assert (whole[0] - whole[1]).abs().max() > 1e-4
