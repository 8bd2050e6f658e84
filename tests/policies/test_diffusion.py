import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from compression_gap.errors import UserError
from compression_gap.nn.sizes import TrunkSize
from compression_gap.policies.base import Target
from compression_gap.policies.diffusion import PREDICTIONS, SAMPLERS, DDIMStep, DiffusionHead, make_scheduler

SMALL = TrunkSize(layers=2, width=32, heads=4)
HORIZON, DIM, TOKENS, CLIP = 6, 3, 5, 2.5
BETAS = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "epsilon"}


def head(seed=0, std=0.2, **options):
    torch.manual_seed(seed)
    made = DiffusionHead(SMALL, horizon=HORIZON, action_dim=DIM, context_tokens=TOKENS, clip=CLIP, **options)
    for p in made.parameters():  # large weights, so that what leaks shows
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=std)
    return made.eval()


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(made, context, seeds, scheduler, steps, **options):
    """The plain loop: the whole memory is conditioned anew at each step, without anything kept."""
    x = torch.stack([torch.randn(HORIZON, DIM, generator=torch.Generator().manual_seed(s)) for s in seeds])
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        noise = made.network(x, made.network.memory(t.expand(len(x)), context))
        x = scheduler.step(noise, t, x, **options).prev_sample
    return x


@pytest.mark.parametrize("attention", ["full", "causal-as-published"])
@torch.no_grad()
def test_ddim_equals_a_plain_loop(attention):
    made, context, seeds = head(attention=attention), normal(3, TOKENS, 32), [5, 6, 2**62]
    scheduler = DDIMScheduler(**BETAS, clip_sample=True, clip_sample_range=CLIP)
    expected = by_hand(made, context, seeds, scheduler, 10)
    emitted = made.sample(context, seeds)
    torch.testing.assert_close(emitted.chunk, expected, rtol=1e-4, atol=1e-5)
    assert emitted.ok.tolist() == [True] * 3
    assert emitted.chunk.abs().max() <= CLIP + 1e-6


@pytest.mark.parametrize("steps", [1, 7, 10, 100])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_steps_are_those_of_diffusers(prediction, steps):
    """Each step from its own x and prediction, in float64, with values that are clipped and others."""
    scheduler = make_scheduler("ddim", CLIP, prediction)
    made = DDIMStep.all(scheduler, steps, prediction)
    assert [step.t for step in made] == scheduler.timesteps.tolist()
    for i, step in enumerate(made):
        x, p = 2 * normal(2, HORIZON, DIM, seed=i).double(), normal(2, HORIZON, DIM, seed=i + 1000).double()
        expected = scheduler.step(p, step.t, x).prev_sample
        torch.testing.assert_close(step(x, p, CLIP), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@torch.no_grad()
def test_the_trailing_start_does_not_shrink(prediction):
    """Chunks N(1.2, 0.3²) and their exact denoiser E[A | x]: from time 99 the mean is 1.2, from time 90 it is not."""

    def mean_of(sampler):
        scheduler, x = make_scheduler(sampler, CLIP, prediction), normal(40_000, 1, 1)
        for step in DDIMStep.all(scheduler, 10, prediction):
            alpha = float(scheduler.alphas_cumprod[step.t])
            a, s = alpha**0.5, (1 - alpha) ** 0.5
            clean = 1.2 + 0.09 * a / (alpha * 0.09 + 1 - alpha) * (x - a * 1.2)
            noise = (x - a * clean) / s
            x = step(x, clean if prediction == "sample" else a * noise - s * clean, CLIP)
        return float(x.mean())

    assert mean_of("ddim-trailing") == pytest.approx(1.2, abs=0.006)
    assert mean_of("ddim") == pytest.approx(1.157, abs=0.008)


@pytest.mark.parametrize("steps", [1, 10, 100])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_trailing_steps_are_those_of_diffusers(prediction, steps):
    scheduler = make_scheduler("ddim-trailing", CLIP, prediction)
    made = DDIMStep.all(scheduler, steps, prediction)
    assert [step.t for step in made] == list(range(99, -1, -100 // steps)) == scheduler.timesteps.tolist()
    for i, step in enumerate(made[steps == 100 and 1 :]):
        x, p = 2 * normal(2, HORIZON, DIM, seed=i).double(), normal(2, HORIZON, DIM, seed=i + 1000).double()
        torch.testing.assert_close(
            step(x, p, CLIP), scheduler.step(p, step.t, x).prev_sample, rtol=2e-5, atol=2e-6
        )


def test_the_trailing_start_is_refused_for_the_noise():
    with pytest.raises(UserError, match="set 'prediction' to sample or v_prediction"):
        head(sampler="ddim-trailing")


@torch.no_grad()
def test_ddpm_equals_a_plain_loop():
    made, context = head(sampler="ddpm", sampling_steps=20), normal(1, TOKENS, 32)
    scheduler = DDPMScheduler(**BETAS, clip_sample=True, clip_sample_range=CLIP)
    generator = torch.Generator().manual_seed(7)
    torch.randn(HORIZON, DIM, generator=generator)  # the start; the steps' noise follows it
    expected = by_hand(made, context, [7], scheduler, 20, generator=generator)
    torch.testing.assert_close(made.sample(context, [7]).chunk, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
@torch.no_grad()
def test_a_row_is_the_same_alone_and_in_a_batch(sampler):
    prediction = "sample" if sampler == "ddim-trailing" else "epsilon"
    made, seeds = head(sampler=sampler, prediction=prediction), [11, 12, 13, 14]
    context = normal(4, TOKENS, 32)
    whole = made.sample(context, seeds).chunk
    torch.manual_seed(123)
    for b in (0, 3):
        alone = made.sample(context[b : b + 1], seeds[b : b + 1]).chunk[0]
        torch.testing.assert_close(alone, whole[b], rtol=1e-5, atol=1e-5)
    turned = made.sample(context.flip(0), seeds[::-1]).chunk.flip(0)
    torch.testing.assert_close(turned, whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_samples_differ_by_seed_and_by_context():
    made, context = head(), normal(1, TOKENS, 32).expand(2, -1, -1)
    a, b = made.sample(context, [1, 2]).chunk
    assert (a - b).abs().max() > 0.01
    c, d = made.sample(context, [1, 1]).chunk
    assert torch.equal(c, d)
    other = made.sample(context + 1, [1, 1]).chunk[0]
    assert (other - c).abs().max() > 1e-3


@pytest.mark.parametrize("sampler", [s for s in SAMPLERS if s != "ddim-trailing"])  # refused for the noise
@torch.no_grad()
def test_the_right_noise_is_denoised_to_the_chunk(sampler, monkeypatch):
    """A head that knows the noise of one chunk: (x − √ᾱ·chunk) / √(1 − ᾱ); samples must be that chunk."""
    made = head(sampler=sampler, sampling_steps=25)
    chunk, at = normal(1, HORIZON, DIM).clamp(-2, 2), []
    scheduler = make_scheduler(sampler, CLIP)
    scheduler.set_timesteps(25)
    times = iter(scheduler.timesteps)

    def denoise(noisy, memory):
        t = next(times)
        at.append(int(t))
        alpha = made.alphas[t]
        return (noisy - alpha.sqrt() * chunk) / (1 - alpha).sqrt()

    monkeypatch.setattr(made.network, "forward", denoise)
    torch.testing.assert_close(made.sample(normal(1, TOKENS, 32), [0]).chunk, chunk, atol=0.02, rtol=0)
    assert len(at) == 25
    assert at == sorted(at, reverse=True)


def reach(attention):
    """Gradient of each action's predicted noise with respect to each context token: [H, N]."""
    made = head(attention=attention)
    context = normal(1, TOKENS, 32).requires_grad_()
    memory = made.network.memory(torch.tensor([50]), context)
    noise = made.network(normal(1, HORIZON, DIM, seed=2), memory)
    rows = [torch.autograd.grad(noise[0, i].sum(), context, retain_graph=True)[0] for i in range(HORIZON)]
    return torch.stack([g[0].abs().amax(-1) for g in rows])


def test_as_published_the_first_action_sees_the_first_observation_token_alone():
    """Action i sees the time and context tokens 0 … i, so the newest observation is hidden from action 0."""
    gradient = reach("causal-as-published")
    expected = torch.ones(HORIZON, TOKENS).tril().bool()
    assert torch.equal(gradient != 0, expected)
    assert gradient[expected].min() > 1e-6


def test_with_full_attention_every_action_sees_every_token():
    assert reach("full").min() > 1e-6


def target(valid, chunk=None):
    chunk = normal(len(valid), HORIZON, DIM, seed=4) if chunk is None else chunk
    return Target(chunk=chunk, valid=valid)


LENGTHS = torch.tensor([6, 1, 3, 4])
VALID = (torch.arange(HORIZON) < LENGTHS[:, None]).float()


def test_the_loss_of_a_silent_head_is_the_noise_at_valid_actions():
    made = head()
    torch.nn.init.zeros_(made.network.out.weight)
    torch.nn.init.zeros_(made.network.out.bias)
    loss = made.loss(normal(4, TOKENS, 32), target(VALID), rng=torch.Generator().manual_seed(8))
    noise = torch.randn(4, HORIZON, DIM, generator=torch.Generator().manual_seed(8))
    expected = torch.stack([n[:length].square().mean() for n, length in zip(noise, LENGTHS, strict=True)])
    torch.testing.assert_close(loss.detach(), expected)


@torch.no_grad()
def test_the_loss_by_hand_with_the_noise_of_diffusers():
    """√ᾱ·chunk + √(1 − ᾱ)·ε as ``add_noise`` makes it, one time per sample."""
    made, context, goal = head(), normal(4, TOKENS, 32), target(VALID)
    rng = torch.Generator().manual_seed(8)
    loss = made.loss(context, goal, rng=rng)
    rng.manual_seed(8)
    noise = torch.randn(4, HORIZON, DIM, generator=rng)
    t = torch.randint(100, (4,), generator=rng)
    noisy = DDPMScheduler(**BETAS).add_noise(goal.chunk, noise, t)
    for b in range(4):
        memory = made.network.memory(t[b : b + 1], context[b : b + 1])
        error = (made.network(noisy[b : b + 1], memory)[0] - noise[b]).square()
        assert loss[b].item() == pytest.approx(error[: LENGTHS[b]].mean().item(), rel=1e-4)


def test_errors_at_invalid_actions_give_no_gradient():
    """With causal attention the last actions reach the loss through their own errors alone."""
    made = head(attention="causal-as-published")
    loss = made.loss(normal(4, TOKENS, 32), target(VALID), rng=torch.Generator().manual_seed(8))
    only_first = loss[1]
    (gradient,) = torch.autograd.grad(only_first, made.network.position)
    assert gradient[0].abs().max() > 0
    assert gradient[1:].abs().max() == 0


def test_unknown_options():
    with pytest.raises(UserError, match=r"unknown sampler 'dimm' .did you mean 'ddim'"):
        head(sampler="dimm")
    with pytest.raises(UserError, match="unknown prediction 'velocity'"):
        head(prediction="velocity")


def test_times_have_different_tokens():
    tokens = head().network.time_tokens(torch.arange(100))[:, 0]
    distance = torch.cdist(tokens, tokens) + 1e3 * torch.eye(100)
    assert distance.min() > 1e-3


def test_the_schedule_is_the_squared_cosine():
    alphas = head().alphas
    f = torch.cos((torch.arange(101) / 100 + 0.008) / 1.008 * torch.pi / 2) ** 2
    torch.testing.assert_close(alphas[:90], (f / f[0])[1:91], rtol=1e-3, atol=1e-5)
    assert "alphas" not in head().state_dict()


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_what_the_network_is_asked_for(prediction):
    """A silent head's loss is the mean square of the target; the velocity is the one of diffusers."""
    made, goal = head(prediction=prediction), target(VALID)
    torch.nn.init.zeros_(made.network.out.weight)
    torch.nn.init.zeros_(made.network.out.bias)
    rng = torch.Generator().manual_seed(8)
    loss = made.loss(normal(4, TOKENS, 32), goal, rng=rng)
    rng.manual_seed(8)
    noise = torch.randn(4, HORIZON, DIM, generator=rng)
    t = torch.randint(100, (4,), generator=rng)
    velocity = DDPMScheduler(**BETAS).get_velocity(goal.chunk, noise, t)
    wanted = {"epsilon": noise, "sample": goal.chunk, "v_prediction": velocity}[prediction]
    expected = torch.stack([w[:length].square().mean() for w, length in zip(wanted, LENGTHS, strict=True)])
    torch.testing.assert_close(loss.detach(), expected)


@pytest.mark.parametrize("prediction", ["sample", "v_prediction"])
@pytest.mark.parametrize("sampler", SAMPLERS)
@torch.no_grad()
def test_the_right_prediction_is_denoised_to_the_chunk(sampler, prediction, monkeypatch):
    """The clean chunk itself, or (√ᾱ·x − chunk) / √(1 − ᾱ), which is the velocity at x."""
    made = head(sampler=sampler, prediction=prediction, sampling_steps=25)
    chunk, scheduler = normal(1, HORIZON, DIM).clamp(-2, 2), make_scheduler(sampler, CLIP)
    scheduler.set_timesteps(25)
    times = iter(scheduler.timesteps)

    def denoise(noisy, memory):
        alpha = made.alphas[next(times)]
        return chunk if prediction == "sample" else (alpha.sqrt() * noisy - chunk) / (1 - alpha).sqrt()

    monkeypatch.setattr(made.network, "forward", denoise)
    torch.testing.assert_close(made.sample(normal(1, TOKENS, 32), [0]).chunk, chunk, atol=0.02, rtol=0)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@torch.no_grad()
def test_the_loss_bit_by_bit(prediction):
    """The same draws in the same order, and the same roundings: stored policies are trained with them."""
    made, context, goal = head(prediction=prediction), normal(4, TOKENS, 32), target(VALID)
    loss = made.loss(context, goal, rng=torch.Generator().manual_seed(8))
    rng = torch.Generator().manual_seed(8)
    noise = torch.randn(goal.chunk.shape, generator=rng)
    t = torch.randint(100, (4,), generator=rng)
    alpha = made.alphas[t][:, None, None]
    a, s = alpha.sqrt(), (1 - alpha).sqrt()
    wanted = {"epsilon": noise, "sample": goal.chunk, "v_prediction": a * noise - s * goal.chunk}[prediction]
    predicted = made.network(a * goal.chunk + s * noise, made.network.memory(t, context))
    error = (predicted - wanted).square().mean(-1)
    assert torch.equal(loss, (error * VALID).sum(1) / VALID.sum(1))


def test_snr_levels_are_those_of_the_training_times():
    made = head()
    levels, alphas = made.snr_levels(), DDPMScheduler(**BETAS).alphas_cumprod.double()
    assert levels.dtype == torch.float64
    assert (levels.diff() > 0).all()
    torch.testing.assert_close(levels.flip(0), alphas / (1 - alphas))
    assert torch.equal(made.to(torch.bfloat16).snr_levels(), levels)


@pytest.mark.parametrize("level", [0, 30, 99])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@torch.no_grad()
def test_the_clean_error_is_that_of_the_clean_chunk_of_diffusers(prediction, level):
    made, context, chunk = head(prediction=prediction), normal(4, TOKENS, 32), normal(4, HORIZON, DIM, seed=2)
    noises, found = made.clean_errors(context, chunk, level, rng=torch.Generator().manual_seed(8))
    scheduler = DDPMScheduler(**{**BETAS, "prediction_type": prediction}, clip_sample=False)
    rng, t, expected = torch.Generator().manual_seed(8), torch.tensor([99 - level]), []
    for b in range(4):
        noise, each = torch.randn(HORIZON, DIM, generator=rng), []
        assert torch.equal(noises[b], noise)
        for signed in (noise[None], -noise[None]):
            noisy = scheduler.add_noise(chunk[b : b + 1], signed, t)
            predicted = made.network(noisy, made.network.memory(t, context[b : b + 1]))
            step = scheduler.step(predicted.double(), int(t), noisy.double())
            each.append(step.pred_original_sample[0] - chunk[b])
        expected.append(torch.stack(each))
    wanted = torch.stack(expected, 1)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))
