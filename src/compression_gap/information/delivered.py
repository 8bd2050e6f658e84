"""What a trained policy's own loss says of its expert's chunk, in bits: its conditional rate, or its tokens' cost.

A denoising head (``policies/base.py``) has for y = √u·A + ε an error E‖A − Â(y, u, Z)‖² at each of its noise
levels, and with it, as in docs/theory.md (Guo, Shamai and Verdú 2005):

    R(A_σ|Z) = ½ ∫₀^γ E‖A − Â(y, u, Z)‖² du / ln 2,   γ = 1/σ².

It is at least I(A;A_σ|Z), and meets it if the network is the posterior mean. What a head was trained for shows:
one that predicts the clean chunk has an error that hardly falls at high SNR, where y alone says more; one that
predicts the noise loses some tenths of a bit at low SNR. That is no fault of what it sees. So at each level the
network's estimate is stacked with y/√u and with the mean chunk, by weights fit on validation chunks. An autoregressive head has Σ −log2 p of the tokens. The bits that a policy delivers are the
marginal rate minus this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from scipy.interpolate import CubicHermiteSpline
from torch import Tensor

from ..errors import UserError
from ..policies.base import DenoisingHead, Target
from ..policies.policy import Policy
from ..tokenizers import Tokens
from .immse import stacked

Array = np.ndarray | Tensor


def kind_of(policy: Policy) -> Literal["continuous", "tokens", None]:
    """Which of the two rates the policy's head has: ``conditional_rates`` or ``token_rates``.

    Diffusion and flow: continuous. Autoregressive and hybrid: tokens; a hybrid's offset has no likelihood, its
    tokens have. Regression: None, for a median without a spread is no distribution.
    """
    if isinstance(policy.module.head, DenoisingHead):
        return "continuous"
    return "tokens" if callable(getattr(policy.module.head, "score", None)) else None


def conditional_rates(
    policy: Policy,
    features: Array,
    proprio: Array,
    task: Array,
    chunks: Array,
    sigmas: np.ndarray,
    *,
    validation: Sequence[Array] | None = None,
    seed: int = 0,
    batch: int = 256,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """R(A_σ|Z) of each chunk in bits: float64 [N, S], NaN where σ is finer than the head's finest level.

    ``features`` [N, T, C, ...] as the encoder caches them, ``proprio`` [N, T, p], ``task`` [N] over the policy's
    own tasks, ``chunks`` [N, H, d] in standardised units, of which every action counts; ``sigmas`` [S] in any
    order. One noise and its negative per level and chunk: single rows are noisy, and can be anything above 0;
    their mean is what counts. They depend on ``seed`` and a chunk's place, not on ``batch``. ``validation``: features, proprio, task and chunks by which the network's
    estimate is stacked with those that ask no network; without them it stands alone. ``progress`` is
    called with chunks done and all. Raises ``UserError`` for a head that does not denoise, σ ≤ 0, and arrays
    of other shapes.
    """
    head, sigmas = policy.module.head, np.asarray(sigmas, np.float64)
    if kind_of(policy) != "continuous":
        raise UserError(
            f"the {policy.spec.head} head does not denoise, so it has no rate at a resolution: hand over a "
            "diffusion or a flow policy"
        )
    if not (sigmas > 0).all():
        raise UserError(f"a resolution is above 0, but sigmas holds {sigmas.min():g}: leave it out")
    shape = (len(chunks), policy.horizon, policy.spec.action_dim)
    if tuple(chunks.shape) != shape:
        raise UserError(
            f"the policy's chunks are {list(shape)}, but chunks is {list(chunks.shape)}: cut them so"
        )
    levels = head.snr_levels()
    weights = np.tile([1.0, 0.0, 0.0], (len(levels), 1))
    if validation is not None:
        grams = np.zeros((len(levels), 3, 3))
        for _, k, members in _members(policy, *validation, seed=seed + 1, batch=batch):
            flat = members.flatten(1).double()
            grams[k] += (flat @ flat.T).cpu().numpy()
        weights = np.stack([stacked(g) for g in grams])
    errors = np.empty((len(chunks), len(levels)))
    for rows, k, members in _members(policy, features, proprio, task, chunks, seed=seed, batch=batch):
        mixed = torch.tensordot(torch.from_numpy(weights[k]).to(members), members, 1)
        errors[rows, k] = mixed.square().sum((2, 3)).mean(0).double().cpu().numpy()
        if k == len(levels) - 1:
            progress(min(rows.stop, len(chunks)), len(chunks))
    rates: np.ndarray = errors @ quadrature(levels.numpy(), 1 / sigmas**2).T / (2 * math.log(2))
    return rates


def token_rates(
    policy: Policy, features: Array, proprio: Array, task: Array, tokens: Tokens, *, batch: int = 256
) -> np.ndarray:
    """Bits [N], float64, that each chunk's tokens cost under the policy: Σ −log2 p, the end included.

    ``features``, ``proprio`` and ``task`` as in ``conditional_rates``; ``tokens`` of the policy's own tokenizer.
    Of a hybrid head its tokens alone. Raises ``UserError`` for a head without tokens, and for arrays of other
    lengths.
    """
    if kind_of(policy) != "tokens":
        raise UserError(
            f"the {policy.spec.head} head scores no tokens: hand over an autoregressive or a hybrid policy"
        )
    n, parts = len(tokens.ids), [np.empty(0)]
    ids = tokens.ids[:, : int(tokens.lengths.max(initial=0))]  # padding may go beyond what the head has seen
    for rows, context in _contexts(policy, features, proprio, task, n, batch):
        empty = context.new_zeros(len(context), 0)
        given = (_on(array[rows], policy.device) for array in (ids, tokens.lengths))
        score = policy.module.head.score(context, Target(empty, empty, *given))
        parts.append(score.double().cpu().numpy())
    return np.concatenate(parts)


@torch.no_grad()
def _members(
    policy: Policy, features: Array, proprio: Array, task: Array, chunks: Array, *, seed: int, batch: int
) -> Iterator[tuple[slice, int, Tensor]]:
    """Rows, level, and the errors of the network, of y/√u and of the mean chunk at ±ε [3, 2, B, H, d]."""
    head, levels = policy.module.head, policy.module.head.snr_levels()
    # One generator per level, carried from batch to batch.
    rngs = [torch.Generator(policy.device).manual_seed(seed * len(levels) + k) for k in range(len(levels))]
    for rows, context in _contexts(policy, features, proprio, task, len(chunks), batch):
        chunk = _on(chunks[rows], policy.device).float()
        for k, rng in enumerate(rngs):
            noise, missed = head.clean_errors(context, chunk, k, rng=rng)
            given = noise / float(levels[k]) ** 0.5
            yield rows, k, torch.stack([missed, torch.stack([given, -given]), -chunk.expand(2, *chunk.shape)])


@torch.no_grad()
def _contexts(
    policy: Policy, features: Array, proprio: Array, task: Array, n: int, batch: int
) -> Iterator[tuple[slice, Tensor]]:
    """Rows and their context [B, N, w], batch by batch."""
    for name, array in (("features", features), ("proprio", proprio), ("task", task)):
        if len(array) != n:
            raise UserError(f"{name} has {len(array)} rows for {n} chunks: hand over one of each per chunk")
    dtype = next(policy.module.head.parameters()).dtype
    for start in range(0, n, batch):
        rows = slice(start, start + batch)
        seen = (_on(array[rows], policy.device) for array in (features, proprio, task))
        yield rows, policy.module.adapter(*seen).to(dtype)


def _on(array: Array, device: torch.device) -> Tensor:
    # A copy: memory maps that cannot be written make no tensors.
    return (array if isinstance(array, Tensor) else torch.from_numpy(np.array(array))).to(device)


def quadrature(levels: np.ndarray, gammas: np.ndarray) -> np.ndarray:
    """Weights [S, K] with which errors at SNRs ``levels`` [K] add up to ∫₀^γ error du, for each γ [S].

    Below the lowest level the error is constant. Above it u·error is a cubic Hermite spline in u, which is exact
    for a constant error and for one that falls as 1/u, however far apart the levels are (diffusion's lowest two:
    a factor of 1000). The integral runs over ln u. Rows beyond the finest level are NaN. For Gaussian chunks of
    any variance it is right to 0.6 % at diffusion's levels, most of it at the finest one, and 0.01 % at flow's.
    """
    # Linear in the errors, so that noise in them adds no bias: what each level's error of 1 would give.
    worth = np.diag(levels)
    spline = CubicHermiteSpline(levels, worth, np.gradient(worth, levels, axis=0))
    nodes, shares = np.polynomial.legendre.leggauss(8)
    weights = np.full((len(gammas), len(levels)), np.nan)
    for row, gamma in zip(weights, gammas, strict=True):
        if gamma > levels[-1] * (1 + 1e-9):  # σ = 1/√u of the finest level is in
            continue
        edges = np.log(np.append(levels[levels < gamma], gamma))
        half, middle = np.diff(edges)[:, None] / 2, (edges[1:, None] + edges[:-1, None]) / 2
        row[:] = np.einsum("in,ink->k", half * shares, spline(np.exp(middle + half * nodes)))
        row[0] += min(gamma, levels[0])
    return weights
