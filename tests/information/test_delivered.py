import numpy as np
import pytest
import torch
from torch import nn

from compression_gap.demos import Normaliser
from compression_gap.errors import UserError
from compression_gap.information.delivered import conditional_rates, kind_of, quadrature, token_rates
from compression_gap.policies.base import Target
from compression_gap.policies.diffusion import PREDICTIONS
from compression_gap.policies.policy import Policy, PolicyModule, PolicySpec
from compression_gap.tokenizers import Decoded, Tokens
from plain_state import oracle_folder

H, D, N = 4, 2, 1500
NORMALISER = Normaliser.fit(np.random.default_rng(0).normal(size=(500, D)))
HEADS = [*(("diffusion", p) for p in PREDICTIONS), ("flow", None)]
CONTINUOUS = pytest.mark.parametrize(("head", "prediction"), HEADS)


class Code:
    """Up to three tokens of five codes; of ``ragged`` sequences, any number of them."""

    name, horizon, action_dim, codebook_sizes = "code", H, D, (5, 5, 5)

    def __init__(self, ragged):
        self.ragged = ragged

    def decode(self, tokens):
        n = len(tokens.ids)
        return Decoded(np.zeros((n, H, D), np.float32), np.ones(n, bool))


def make(head="diffusion", prediction=None, tokenizer=None, seed=0):
    options = {} if prediction is None else {"prediction": prediction}
    spec = PolicySpec(
        sim="plane",
        encoder="oracle",
        head=head,
        size="xs",
        horizon=H,
        n_obs_steps=2,
        tasks=("reach", "push"),
        cameras=("front",),
        image_size=40,
        feature_dim=6,
        proprio_dim=5,
        action_dim=D,
        options=options,
    )
    torch.manual_seed(seed)
    return Policy(
        spec, PolicyModule(spec, NORMALISER, tokenizer, oracle_folder(3, spec.tasks)), NORMALISER, tokenizer
    )


def seen(policy, n, seed=1):
    """Features, proprioception and tasks of n decision points."""
    rng = np.random.default_rng(seed)
    shape = policy.encoder.features(policy.example()).shape[2:]
    features = rng.normal(size=(n, 2, *shape)).astype(np.float32)
    return features, rng.normal(size=(n, 2, 5)).astype(np.float32), rng.integers(0, 2, n)


VARIANCES = np.array([4.0, 2.0, 1.0, 0.5, 0.3, 0.1, 0.03, 0.003])
BASIS = np.linalg.qr(np.random.default_rng(3).normal(size=(H * D, H * D)))[0]


def gaussian_chunks(n=N):
    """Chunks of covariance BASIS · VARIANCES · BASISᵀ, exactly so over the sample."""
    white = np.random.default_rng(4).normal(size=(n, H * D))
    u, _, v = np.linalg.svd(white, full_matrices=False)
    return ((u @ v * np.sqrt(n * VARIANCES)) @ BASIS.T).reshape(n, H, D).astype(np.float32)


class Perfect(nn.Module):
    """The posterior mean of those chunks, in the head's own parametrisation, from x = keep·A + blur·ε."""

    def __init__(self, prediction, alphas, variances):
        super().__init__()
        self.prediction, self.alphas, self.variances = prediction, alphas, variances
        self.unused = nn.Parameter(torch.zeros(1))  # a head computes in the type of its parameters

    def memory(self, t, context):
        assert (t == t[0]).all()
        return t[0]

    def forward(self, noisy, t):
        if self.prediction is None:
            keep, blur = float(t) / 100, 1 - float(t) / 100
        else:
            alpha = float(self.alphas[t])
            keep, blur = alpha**0.5, (1 - alpha) ** 0.5
        x, basis = noisy.double().flatten(1), torch.from_numpy(BASIS)
        gain = torch.from_numpy(keep * self.variances / (keep**2 * self.variances + blur**2))
        clean = (x @ basis * gain) @ basis.T
        noise = (x - keep * clean) / blur
        found = {
            None: (clean - x) / blur,
            "epsilon": noise,
            "sample": clean,
            "v_prediction": keep * noise - blur * clean,
        }[self.prediction]
        return found.view_as(noisy).float()


def know(policy, variances):
    """Put the posterior mean in the network's place."""
    own = policy.module.head
    own.network = Perfect(getattr(own, "prediction", None), getattr(own, "alphas", None), variances)


@CONTINUOUS
def test_the_rate_of_gaussian_chunks_under_their_posterior_mean(head, prediction):
    """½ Σ log2(1 + λ/σ²), from where one direction is seen to the finest level of diffusion."""
    policy = make(head, prediction)
    know(policy, VARIANCES)
    sigmas = np.array([3.0, 1.0, 0.3, 0.1, 0.03])
    rates = conditional_rates(policy, *seen(policy, N), gaussian_chunks(), sigmas)
    expected = 0.5 * np.log2(1 + VARIANCES / sigmas[:, None] ** 2).sum(1)
    assert rates.shape == (N, 5)
    assert rates.dtype == np.float64
    np.testing.assert_allclose(rates.mean(0), expected, rtol=0.01)


@CONTINUOUS
def test_a_head_that_knows_nothing_pays_for_the_whole_chunk(head, prediction):
    """Â = 0 has the error |A|² at every level: |A|²γ/2 nats, row by row."""
    policy, chunks = make(head, prediction), gaussian_chunks(20)
    know(policy, np.zeros(H * D))
    sigmas = np.array([200.0, 1.0, 0.1, 0.0252])
    rates = conditional_rates(policy, *seen(policy, 20), chunks, sigmas)
    power = (chunks.astype(np.float64) ** 2).sum((1, 2))
    np.testing.assert_allclose(rates, power[:, None] / sigmas**2 / 2 / np.log(2), rtol=2e-3)


@CONTINUOUS
def test_the_head_s_own_network_is_asked_with_the_policy_s_context(head, prediction):
    """Rows one by one, from ``clean_errors`` with contexts of the adapter, and a quadrature of its own."""
    policy, chunks = make(head, prediction), gaussian_chunks(3)
    given = seen(policy, 3)
    found = conditional_rates(policy, *given, chunks, np.array([0.5]), seed=2)[:, 0]
    own = policy.module.head
    levels = own.snr_levels()
    rngs = [torch.Generator().manual_seed(200 + k) for k in range(100)]
    for b in range(3):
        with torch.no_grad():
            context = policy.module.adapter(*(torch.from_numpy(x[b : b + 1]) for x in given))
        chunk = torch.from_numpy(chunks[b : b + 1])
        missed = [own.clean_errors(context, chunk, k, rng=rng)[1] for k, rng in enumerate(rngs)]
        errors = [float(m.square().sum()) / 2 for m in missed]
        u = np.exp(np.linspace(np.log(float(levels[0])), np.log(4), 20_001))
        f = np.interp(u, levels.numpy(), levels.numpy() * errors)
        nats = (levels[0].item() * errors[0] + np.trapezoid(f, np.log(u))) / 2
        assert found[b] == pytest.approx(nats / np.log(2), rel=0.02)
    other = conditional_rates(policy, given[0] + 1, *given[1:], chunks, np.array([0.5]), seed=2)[:, 0]
    assert np.abs(other - found).min() > 1e-6


@pytest.mark.parametrize("head", ["diffusion", "flow"])
def test_rates_depend_on_the_seed_and_not_on_the_batch(head):
    policy, chunks, sigmas = make(head), gaussian_chunks(7), np.array([0.1, 1.0])
    given, told = seen(policy, 7), []
    whole = conditional_rates(policy, *given, chunks, sigmas)
    parts = conditional_rates(
        policy, *given, chunks, sigmas, batch=3, progress=lambda done, n: told.append((done, n))
    )
    np.testing.assert_allclose(parts, whole, rtol=1e-4)
    assert told == [(3, 7), (6, 7), (7, 7)]
    np.testing.assert_array_equal(conditional_rates(policy, *given, chunks, sigmas), whole)
    assert (conditional_rates(policy, *given, chunks, sigmas, seed=1) != whole).all()
    tensors = conditional_rates(policy, *map(torch.from_numpy, (*given, chunks)), sigmas)
    np.testing.assert_array_equal(tensors, whole)


@pytest.mark.parametrize("head", ["diffusion", "flow"])
def test_finer_than_the_finest_level_is_not_a_number(head):
    policy, chunks = make(head), gaussian_chunks(2)
    finest = float(policy.module.head.snr_levels()[-1]) ** -0.5
    rates = conditional_rates(policy, *seen(policy, 2), chunks, np.array([0.999 * finest, finest, 1.0]))
    assert np.isnan(rates[:, 0]).all()
    assert (rates[:, 1] > rates[:, 2]).all()
    assert (rates[:, 2] > 0).all()


@pytest.mark.parametrize("head", ["diffusion", "flow"])
def test_quadrature_for_any_variance(head):
    """∫₀^γ λ/(1 + uλ) du = ln(1 + γλ), without noise; and ∫ du of a constant error, which is γ."""
    levels = make(head).module.head.snr_levels().numpy()
    gammas = np.array([1e-8, levels[0], 0.01, 1.0, 100.0, levels[-1]])
    weights = quadrature(levels, gammas)
    np.testing.assert_allclose(weights.sum(1), gammas, rtol=1e-6)
    for variance in np.logspace(-5, 1, 25):
        found = weights @ (variance / (1 + levels * variance))
        np.testing.assert_allclose(found, np.log1p(gammas * variance), rtol=0.007)
    falling = levels[0] / levels  # as 1/u above the lowest level, constant below
    logs = levels[0] * (1 + np.log(gammas[1:] / levels[0]))
    np.testing.assert_allclose(weights[1:] @ falling, logs, rtol=1e-6)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("head", ["autoregressive", "hybrid"])
def test_token_rates_are_the_head_s_score(head, ragged):
    policy = make(head, tokenizer=Code(ragged))
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 4, 10) if ragged else np.full(10, 3)
    ids = np.pad(rng.integers(0, 5, (10, 3)), ((0, 0), (0, 2 * ragged)))  # padding beyond the longest
    given = seen(policy, 10)
    found = token_rates(policy, *given, Tokens(ids, lengths), batch=4)
    with torch.no_grad():
        context = policy.module.adapter(*map(torch.from_numpy, given))
        empty = torch.zeros(10, 0)
        target = Target(empty, empty, torch.from_numpy(ids[:, :3]), torch.from_numpy(lengths))
        expected = policy.module.head.score(context, target).numpy()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert (found > 0).all()


def test_a_head_that_knows_nothing_pays_log2_of_the_codebook_per_token():
    policy = make("autoregressive", tokenizer=Code(False))
    nn.init.zeros_(policy.module.head.out.weight)
    nn.init.zeros_(policy.module.head.out.bias)
    tokens = Tokens(np.zeros((2, 3), np.int64), np.full(2, 3))
    np.testing.assert_allclose(token_rates(policy, *seen(policy, 2), tokens), 3 * np.log2(5), rtol=1e-6)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        ("diffusion", "continuous"),
        ("flow", "continuous"),
        ("autoregressive", "tokens"),
        ("hybrid", "tokens"),
        ("regression", None),
    ],
)
def test_the_kinds_of_heads_and_what_the_others_answer(head, kind):
    policy = make(head, tokenizer=Code(False) if kind == "tokens" else None)
    assert kind_of(policy) == kind
    given, chunks = seen(policy, 2), gaussian_chunks(2)
    if kind != "continuous":
        with pytest.raises(UserError, match=f"the {head} head does not denoise"):
            conditional_rates(policy, *given, chunks, np.ones(1))
    if kind != "tokens":
        with pytest.raises(UserError, match=f"the {head} head scores no tokens"):
            token_rates(policy, *given, Tokens(np.zeros((2, 3), np.int64), np.full(2, 3)))


def test_mistakes_are_named():
    policy, chunks = make(), gaussian_chunks(3)
    given = seen(policy, 3)
    with pytest.raises(UserError, match="a resolution is above 0, but sigmas holds -1"):
        conditional_rates(policy, *given, chunks, np.array([1.0, -1.0]))
    with pytest.raises(UserError, match=r"chunks are \[3, 4, 2\], but chunks is \[3, 8\]"):
        conditional_rates(policy, *given, chunks.reshape(3, 8), np.ones(1))
    with pytest.raises(UserError, match="proprio has 2 rows for 3 chunks"):
        conditional_rates(policy, given[0], given[1][:2], given[2], chunks, np.ones(1))


def test_stacking_takes_what_a_network_misses_from_the_noisy_chunk_itself():
    """A network that always says 0: alone its error is the chunk's power at every level; stacked, at an SNR u,
    what the mean chunk and y/√u say together, λ / (1 + uλ) on average over chunks of variance λ."""
    policy, chunks = make("diffusion", "sample"), gaussian_chunks(120)
    for parameter in policy.module.head.network.out.parameters():
        parameter.zero_()
    given, held = seen(policy, 120), gaussian_chunks(119)
    sigmas = np.array([0.1, 0.3])
    alone = conditional_rates(policy, *given, chunks, sigmas).mean(0)
    validation = (*seen(policy, 119), held)
    stacked = conditional_rates(policy, *given, chunks, sigmas, validation=validation).mean(0)
    power = float((chunks.astype(np.float64) ** 2).sum((1, 2)).mean())
    n = chunks[0].size
    np.testing.assert_allclose(alone, power / sigmas**2 / 2 / np.log(2), rtol=1e-2)
    np.testing.assert_allclose(stacked, n / 2 * np.log2(1 + power / n / sigmas**2), rtol=6e-2)
