"""I-MMSE: bits from denoising errors (Guo, Shamai and Verdú 2005; with learned denoisers Kong et al. 2023).

For y = √u·A + ε the conditional rate at resolution σ is

    R(A_σ|C) = I(A; A_σ|C) = ½ ∫₀^γ mmse(u|C) du,   γ = 1/σ²,

and every quantity of docs/theory.md is a difference of two rates on the same held-out chunks: supply I(Z; A_σ) =
R(A_σ) − R(A_σ|Z), kept I(T; A_σ) = R(A_σ) − R(A_σ|T), gap I(Z; A_σ|T) = R(A_σ|T) − R(A_σ|Z,T).

The denoiser is the linear one (``information/gaussian.py``, whose integral is known exactly) plus a network that starts
at zero: only what is not Gaussian has to be learned, and only its gain over the linear part is integrated by
drawing. One network serves all contexts, each with a linear part of its own: what they share is learned once,
and what the network has not learned of it cancels in their differences (``information/denoiser.py``).

A wide part, such as an encoder's features, enters by the few columns that it is reduced to (``information/reduction.py``),
so that no estimator depends on how many columns it has. A rate from any denoiser is at least the true one. So the estimates of a context, and of every context it
contains, by the linear part, the network and kernels over the training chunks (``information/kernel.py``), are stacked
(Breiman 1996): weights ≥ 0 that sum to 1, for each noise level, fit on validation episodes. What a context adds is
then not lost to what the network overfits in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..nn import Schedule, train
from . import kernel
from .denoiser import Network, Problem, Split
from .denoising import Denoising
from .gaussian import Columns, LinearPart, Part, fit_linear, join
from .reduction import Reducing, reduce

LEVELS = 32  # strata of ln u at which denoisers are judged
LOWEST = (
    0.02  # uλ of the largest direction, below which a gain over the linear part is taken as constant in u
)
STILL = 1e-3  # λγ below which a direction holds no information to speak of
GROUPS = 8  # contexts in a batch
CHUNKS = 1024  # judged at once

Contexts = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Rates:
    """R(A_σ|C) of each held-out chunk, in bits: float64 [N, S], by the resolutions asked for.

    ``linear``: by linear regression alone; the difference of two is the Gaussian probe. ``by_seed`` [K, S]: the mean
    over chunks, by the network's seed.
    """

    bits: np.ndarray
    linear: np.ndarray
    by_seed: np.ndarray


def conditional_rates(
    chunks: Mapping[str, np.ndarray],
    parts: Mapping[str, Part],
    contexts: Contexts,
    episode: np.ndarray,
    sigmas: Sequence[float] | np.ndarray,
    how: Denoising | None = None,
    *,
    work: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, Rates], bool]:
    """R(A_σ|C) of the chunks of "test" for every context, by one denoiser of "train", stacked on "validation".

    ``chunks``: standardised [N, n] by split. ``parts``: what contexts are made of, with the same rows.
    ``contexts``: the parts of each one; none for the marginal rate. ``episode`` [N] of the training split.
    ``sigmas``: increasing. Also says whether the network's training had converged.
    """
    how = how or Denoising()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    at = torch.as_tensor(np.asarray(sigmas, np.float64), device=device)
    a = {s: torch.from_numpy(np.ascontiguousarray(c, np.float64)).to(device) for s, c in chunks.items()}
    common = fit_linear(a["train"], [], episode, float(at[0]))
    active = common.variances > STILL * float(at[0]) ** 2
    turn = common.basis[:, active]
    spread = (common.variances[active] + float(at[0]) ** 2).sqrt()
    targets = {s: (chunk - common.mean) @ turn / spread for s, chunk in a.items()}
    straight, columns = _columns(parts, contexts, targets, episode, how, device, should_stop)

    def fitted(
        columns: Mapping[str, Columns],
    ) -> tuple[list[LinearPart], list[list[Columns]], list[np.ndarray]]:
        told = [[columns[p] for p in of] for of in contexts.values()]
        linear = [fit_linear(a["train"], of, episode, float(at[0])) for of in told]
        rates = [
            p.rates(a["test"], join(of, "test", a["test"]), at) for p, of in zip(linear, told, strict=True)
        ]
        return linear, told, [r.cpu().numpy() for r in rates]

    linear, told, of_linear = fitted(columns)
    probe = fitted(straight)[2]
    if not how.steps:
        return {n: Rates(b, b, b.mean(0)[None]) for n, b in zip(contexts, probe, strict=True)}, True

    splits = {}
    for split, chunk in a.items():
        guesses = [_guess(p, of, split, chunk) for p, of in zip(linear, told, strict=True)]
        splits[split] = Split(
            ((chunk - common.mean) @ turn).float(),
            torch.stack([(g - common.mean) @ turn for g in guesses]).float(),
            {n: c[split].float() for n, c in columns.items() if c[split].shape[1]},  # else it tells nothing
        )
    eigen = [torch.linalg.eigh(turn.T @ p.covariance @ turn) for p in linear]
    problem = Problem(
        tuple(contexts.values()),
        torch.stack([values.clamp_min(1e-12) for values, _ in eigen]).float(),
        torch.stack([vectors for _, vectors in eigen]).float(),
        spread.float(),
        (math.log(LOWEST / float(common.variances.max())), -2 * math.log(float(at[0]))),
        splits,
        how.neighbours,
    )
    sizes = {n: t.shape[1] for n, t in splits["train"].parts.items()}
    networks, converged = [], True
    for k in range(how.seeds):
        torch.manual_seed(how.seed + k)
        network, curve = train(
            Network(len(spread), sizes, len(told), how).to(device),
            _loss(problem, "train"),
            len(a["train"]),
            len(a["validation"]),
            Schedule(
                how.steps,
                how.batch_size,
                how.lr,
                warmup=min(100, how.steps // 10),
                weight_decay=how.weight_decay,
            ),
            validation_loss=_loss(problem, "validation"),
            seed=how.seed + k,
            device=device,
            work=None if work is None else work / f"network-{k}",
            should_stop=should_stop,
            progress=partial(_of_all, progress, k, how.seeds),
        )
        networks.append(network.eval())
        converged &= curve.converged()
    found = {}
    for name, bits, probed, gain in zip(contexts, of_linear, probe, _gains(problem, networks), strict=True):
        own = np.stack([bits - integrated(g, problem.reach, np.asarray(sigmas)) for g in gain])
        found[name] = Rates(own.mean(0), probed, own.mean(1))
    return found, converged


def _of_all(progress: Callable[[int, int], None], which: int, runs: int, done: int, total: int) -> None:
    """Report the steps of one of several runs as a share of all."""
    progress(which * total + done, runs * total)


def _columns(
    parts: Mapping[str, Part],
    contexts: Contexts,
    targets: Mapping[str, Tensor],
    episode: np.ndarray,
    how: Denoising,
    device: torch.device,
    should_stop: Callable[[], bool],
) -> tuple[dict[str, Columns], dict[str, Columns]]:
    """What stands for each part: for the Gaussian probe, and for the estimators.

    A wide part is reduced; a narrow one stands for itself, and is reduced as well, since what it tells may be far from
    linear. A part is reduced together with those that no context shows it without: it may tell something only beside
    them.
    """
    straight: dict[str, Columns] = {}
    full: dict[str, Columns] = {}
    reducing = Reducing(how.reduction_steps if how.steps else 0, seed=how.seed)
    values = {name: part.standardised(device) for name, part in parts.items()}
    for name, part in parts.items():
        beside = set.intersection(*(set(of) for of in contexts.values() if name in of))
        seen = {s: torch.cat([values[p][s] for p in parts if p in beside], 1) for s in targets}
        found = reduce(seen, targets, episode, reducing, should_stop=should_stop)
        straight[name] = _unit(found.linear) if part.wide else values[name]
        full[name] = {s: torch.cat([v, _unit(found.learned)[s]], 1) for s, v in straight[name].items()}
    return straight, full


def _unit(columns: Columns) -> Columns:
    """Columns in units of the training split's standard deviation."""
    spread = columns["train"].square().mean(0).sqrt().clamp_min(1e-300)
    return {s: v / spread for s, v in columns.items()}


def _guess(part: LinearPart, of: Sequence[Columns], split: str, chunks: Tensor) -> Tensor:
    """Linear predictions; of training chunks by the folds that they are not in, as blurred as on new ones."""
    return part.out_of_fold if split == "train" else part.predict(join(of, split, chunks))


def _loss(problem: Problem, split: str) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
    def loss(network: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
        groups = math.gcd(len(rows), GROUPS)
        which = torch.randint(len(problem.contexts), (groups,), generator=rng, device=rows.device)
        rows = rows.view(groups, -1)
        level = torch.rand(rows.shape, generator=rng, device=rows.device)
        shape = (*rows.shape, len(problem.scale))
        noise = torch.randn(shape, generator=rng, device=rows.device)
        u, _, error = problem.denoise(network, split, which, rows, level, noise)
        return (u * error.square()).sum(-1).flatten()

    return loss


@torch.no_grad()
def _errors(
    problem: Problem, networks: Sequence[nn.Module], split: str, level: int, seed: int
) -> tuple[list[Tensor], list[Tensor]]:
    """√u × the errors of each context's denoisers at one point of a stratum.

    The networks' [K, N, n]; and the others' [k, N, n], of which the linear one comes first. Every chunk has a u and a
    noise of its own, which all share.
    """
    data, m = problem.splits[split], len(problem.contexts)
    n, device = len(data.chunks), data.chunks.device
    rng = torch.Generator(device).manual_seed(seed * LEVELS + level)
    at = (level + torch.rand(n, generator=rng, device=device)) / LEVELS
    noise = torch.randn(data.chunks.shape, generator=rng, device=device)
    learned: list[list[Tensor]] = [[] for _ in range(m)]
    others: list[list[Tensor]] = [[] for _ in range(m)]
    for rows in torch.arange(n, device=device).split(CHUNKS):
        root = problem.power(at[rows]).sqrt()[:, None]
        seen = kernel.evidence(root * data.chunks[rows] + noise[rows], root, problem.near)
        for i in range(m):
            which = torch.tensor([i], device=device)
            errors = [
                problem.denoise(net, split, which, rows[None], at[rows][None], noise[rows][None])
                for net in networks
            ]
            told = problem.told(i, data.guess[i, rows])
            kernels = [kernel.average(seen + t, problem.near) - data.chunks[rows] for t in told]
            learned[i].append(root * torch.stack([own[0] for _, _, own in errors]))
            others[i].append(root * torch.stack([errors[0][1][0], *kernels]))
    return [torch.cat(f, 1) for f in learned], [torch.cat(f, 1) for f in others]


def _gains(problem: Problem, networks: Sequence[nn.Module]) -> list[np.ndarray]:
    """Each context's gain over its linear part, by network, chunk and stratum, in nats per unit of ln u [K, N, L]."""
    sets = [set(of) for of in problem.contexts]
    gains: list[list[Tensor]] = [[] for _ in sets]
    for level in range(LEVELS):
        validation = _errors(problem, networks, "validation", level, 1)
        test = _errors(problem, networks, "test", level, 2)
        for i, own in enumerate(sets):
            within = [j for j, other in enumerate(sets) if other <= own]
            linear, by_seed = test[1][i][0], []
            for k in range(len(networks)):
                judged, applied = (
                    torch.cat([e for j in within for e in (learned[j][k : k + 1], others[j])])
                    for learned, others in (validation, test)
                )
                flat = judged.flatten(1).double()
                weights = torch.from_numpy(stacked((flat @ flat.T).cpu().numpy())).to(applied)
                mixed = torch.tensordot(weights, applied, 1)
                by_seed.append(0.5 * (linear.square() - mixed.square()).sum(1))
            gains[i].append(torch.stack(by_seed))
    return [torch.stack(g, 2).double().cpu().numpy() for g in gains]


def stacked(gram: np.ndarray) -> np.ndarray:
    """Weights α ≥ 0 with Σα = 1 that minimise αᵀGα, for the Gram matrix G [k, k] of errors."""
    from scipy.optimize import nnls

    values, vectors = np.linalg.eigh(gram / max(np.trace(gram), 1e-300))
    root = (vectors * np.sqrt(np.maximum(values, 0))).T
    heavy = 1e3  # what breaking the sum costs
    weights, _ = nnls(np.vstack([root, np.full(len(gram), heavy)]), np.append(np.zeros(len(gram)), heavy))
    return np.asarray(weights / weights.sum())


def integrated(gains: np.ndarray, reach: tuple[float, float], sigmas: np.ndarray) -> np.ndarray:
    """∫ gain d ln u up to each γ, in bits [N, S], of gains [N, K] that are constant within strata of ln u.

    Below the lowest stratum a gain in u is constant, so that its integral is one unit of ln u at the edge.
    """
    strata = gains.shape[1]
    edges = np.linspace(*reach, strata + 1)
    size = edges[1] - edges[0]
    below = gains[:, :1]
    cumulative = np.concatenate([below, below + np.cumsum(gains, 1) * size], 1)  # at each edge
    at = np.clip((-2 * np.log(sigmas) - edges[0]) / size, None, strata)
    whole = np.clip(np.floor(at).astype(int), 0, strata - 1)
    inside = cumulative[:, whole] + (at - whole) * (cumulative[:, whole + 1] - cumulative[:, whole])
    early = below * np.exp(np.minimum(at, 0) * size)  # left of the reach the integral falls with u itself
    return np.asarray(np.where(at < 0, early, inside) / np.log(2))
