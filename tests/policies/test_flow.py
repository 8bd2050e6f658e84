import pytest
import scipy.stats
import torch

from compression_gap.nn.sizes import TrunkSize
from compression_gap.policies.base import Target
from compression_gap.policies.flow import FlowHead, training_times

SMALL = TrunkSize(layers=2, width=32, heads=4)
HORIZON, DIM, TOKENS = 6, 3, 5
LENGTHS = torch.tensor([6, 1, 3, 4])
VALID = torch.arange(HORIZON) < LENGTHS[:, None]


def head(**options):
    torch.manual_seed(0)
    return FlowHead(SMALL, **{"horizon": HORIZON, "action_dim": DIM, "context_tokens": TOKENS, **options})


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_training_times_are_those_of_pi_0():
    """(s − τ) / s is from Beta(1.5, 1); most of the mass is at τ = 0, which is noise."""
    tau = training_times(torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    assert tau.min() >= 0
    assert tau.max() <= 0.999
    share = ((0.999 - tau) / 0.999).double().numpy()
    assert scipy.stats.kstest(share, scipy.stats.beta(1.5, 1).cdf).pvalue > 0.01
    assert scipy.stats.kstest(1 - share, scipy.stats.beta(1.5, 1).cdf).pvalue < 1e-6
    assert float(tau.mean()) == pytest.approx(0.999 * (1 - 1.5 / 2.5), abs=0.01)


@torch.no_grad()
def test_the_loss_by_hand():
    made, context, chunk = head(), normal(4, TOKENS, 32), normal(4, HORIZON, DIM, seed=2)
    rng = torch.Generator().manual_seed(8)
    loss = made.loss(context, Target(chunk=chunk, valid=VALID), rng=rng)
    rng.manual_seed(8)
    noise = torch.randn(4, HORIZON, DIM, generator=rng)
    tau = training_times(torch.rand(4, generator=rng))
    for b, n in enumerate(LENGTHS):
        noisy = tau[b] * chunk[b] + (1 - tau[b]) * noise[b]
        memory = made.network.memory(100 * tau[b : b + 1], context[b : b + 1])
        error = made.network(noisy[None], memory)[0] - (chunk[b] - noise[b])
        assert loss[b].item() == pytest.approx(error[:n].square().mean().item(), rel=1e-4)


def field(made, monkeypatch, velocity):
    """Put a known velocity field v(x, τ) in the network's place."""
    monkeypatch.setattr(made.network, "memories", lambda times, context: iter(times / 100))
    monkeypatch.setattr(made.network, "forward", velocity)


@pytest.mark.parametrize("steps", [1, 3, 10])
@torch.no_grad()
def test_euler_is_exact_on_straight_lines(steps, monkeypatch):
    """v = (A − x) / (1 − τ) carries any noise to A; a constant velocity moves it by as much."""
    made, chunk = head(sampling_steps=steps), normal(2, HORIZON, DIM)
    field(made, monkeypatch, lambda x, tau: (chunk - x) / (1 - tau))
    found = made.sample(normal(2, TOKENS, 32), [1, 2]).chunk
    torch.testing.assert_close(found, chunk, rtol=1e-4, atol=1e-5)
    field(made, monkeypatch, lambda x, tau: torch.full_like(x, 0.75))
    moved = made.sample(normal(2, TOKENS, 32), [1, 2]).chunk
    noise, _ = made.network.noise([1, 2], torch.device("cpu"))
    torch.testing.assert_close(moved, noise + 0.75)


@torch.no_grad()
def test_steps_go_from_noise_on_in_equal_parts(monkeypatch):
    made, times = head(sampling_steps=4), []
    field(made, monkeypatch, lambda x, tau: times.append(float(tau)) or x)
    made.sample(normal(1, TOKENS, 32), [1])
    assert times == pytest.approx([0, 0.25, 0.5, 0.75])


def test_noise_is_carried_to_the_two_points_that_were_seen():
    """A chunk is −1 or 1, and nothing says which: samples are near either, half of them each."""
    made = head(horizon=1, action_dim=1, context_tokens=1)
    optimizer, rng = torch.optim.Adam(made.parameters(), 3e-3), torch.Generator().manual_seed(0)
    context = torch.zeros(256, 1, 32)
    for _ in range(250):
        sign = 2.0 * torch.randint(2, (256, 1, 1), generator=rng) - 1
        loss = made.loss(context, Target(chunk=sign, valid=torch.ones(256, 1)), rng=rng).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = made.sample(context, list(range(256))).chunk[:, 0, 0]
    assert ((x.abs() - 1).abs() < 0.25).float().mean() > 0.85
    assert 0.35 < (x > 0).float().mean() < 0.65


@torch.no_grad()
def test_the_loss_bit_by_bit():
    """The same draws in the same order, and the same roundings: stored policies are trained with them."""
    made, context, chunk = head(), normal(4, TOKENS, 32), normal(4, HORIZON, DIM, seed=2)
    loss = made.loss(context, Target(chunk=chunk, valid=VALID), rng=torch.Generator().manual_seed(8))
    rng = torch.Generator().manual_seed(8)
    noise = torch.randn(chunk.shape, generator=rng)
    tau = training_times(torch.rand(4, generator=rng))
    noisy = tau[:, None, None] * chunk + (1 - tau[:, None, None]) * noise
    velocity = made.network(noisy, made.network.memory(100 * tau, context))
    error = (velocity - (chunk - noise)).square().mean(-1)
    assert torch.equal(loss, (error * VALID).sum(1) / VALID.sum(1))


def test_snr_levels_lie_within_the_training_times():
    """All but 1.5 % of the times at the noisy end and 0.1 % at the fine one."""
    levels = head().snr_levels()
    steps = levels.log().diff()
    assert levels.dtype == torch.float64
    assert steps.min() > 0
    assert steps.max() < 0.2
    tau = levels.sqrt() / (1 + levels.sqrt())
    drawn = training_times(torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    assert (drawn < tau[0]).float().mean() < 0.02
    assert 5e-4 < (drawn > tau[-1]).float().mean() < 2e-3


@pytest.mark.parametrize("level", [0, 40, 99])
@torch.no_grad()
def test_the_clean_error_is_that_of_one_euler_step_to_the_end(level):
    made, context, chunk = head(), normal(4, TOKENS, 32), normal(4, HORIZON, DIM, seed=2)
    noises, missed = made.clean_errors(context, chunk, level, rng=torch.Generator().manual_seed(8))
    found = missed.square().sum((2, 3)).mean(0)
    tau = float(torch.logspace(-2, 2, 100, dtype=torch.float64)[level])  # √u
    tau = tau / (1 + tau)
    rng = torch.Generator().manual_seed(8)
    for b in range(4):
        noise, each = torch.randn(HORIZON, DIM, generator=rng), []
        assert torch.equal(noises[b], noise)
        for signed in (noise, -noise):
            noisy = tau * chunk[b] + (1 - tau) * signed
            memory = made.network.memory(torch.tensor([100 * tau]), context[b : b + 1])
            clean = noisy.double() + (1 - tau) * made.network(noisy[None], memory)[0].double()
            each.append(float((clean - chunk[b]).square().sum()))
        assert found[b].item() == pytest.approx(sum(each) / 2, rel=2e-3)
