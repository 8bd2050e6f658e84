"""Where success falls below a share of what it was: a logistic curve in ln σ, fitted near there, with its draws.

The curve of success over the size σ of a disturbance is

    p(σ) = c · (φ + (1 − φ) / (1 + (σ / σ½)ᵏ)),

c: the undisturbed success, φ: the share that no noise takes (a floor), σ½ and k: where and how steeply it falls. It
falls below ``share`` · c at

    ln σ* = ln σ½ − logit((share − φ) / (1 − φ)) / k.

Its four numbers are fitted by penalised maximum likelihood (binomial, ``CENTRES`` and ``SPREADS`` on the logit of c,
ln σ½, ln k and the logit of φ), from the grid's first σ to the first at which success is below ``NEAR`` of the
undisturbed one: a tail that has another form then does not bend the curve where it is read.

Uncertainty: initial states are drawn anew within tasks, each with its outcomes at every σ; deviations are stretched
by √(n / (n − 1)); and one more state is added, which fails beyond a place of the grid drawn at random, with the
weight that one of n + 1 has (exponential, as in Rubin's Bayesian bootstrap, 1981). It stands for what n states
without a failure do not exclude; without it, intervals miss the truth two or three times too often below. The
penalty's centre of ln k is drawn from the penalty, too: where the grid does not tell how steeply success falls, the
interval then says so (in a linear model with Gaussian noise such draws are those of the posterior).
"""

from __future__ import annotations

import numpy as np

NEAR = 0.85
CENTRES = (3.0, 0.0, float(np.log(3.0)), -4.0)  # ln σ½: around the middle of the grid
SPREADS = (2.0, 1.5, 1.2, 1.5)
STEPS = 40  # of the fit to the data; draws start there and take STEPS_AGAIN
STEPS_AGAIN = 15
MOST_STEEP = 6.0  # ln k


def near(rates: np.ndarray, undisturbed: float) -> int:
    """How many of the rates [S] at an increasing grid the curve is fitted to."""
    from scipy.optimize import isotonic_regression

    falling = isotonic_regression(rates, increasing=False).x
    below = np.flatnonzero(falling < NEAR * undisturbed)
    return int(below[0]) + 1 if len(below) else len(rates)


def fit(
    x: np.ndarray,
    rates: np.ndarray,
    undisturbed: np.ndarray,
    states: float,
    begin: np.ndarray | None = None,
    steepness: np.ndarray | None = None,
) -> np.ndarray:
    """Curves [B, 4] (logit c, ln σ½, ln k, logit φ) of B sets of rates [B, S] at ln σ = x [S]; Levenberg–Marquardt.

    ``undisturbed`` [B]; ``states``: how many each rate is of; ``begin`` [4]: a curve near all of them;
    ``steepness`` [B]: the penalty's centre of ln k, in its spreads from the usual one.
    """
    weight = 1 / np.square(SPREADS)
    centre = np.tile(CENTRES, (len(rates), 1))
    centre[:, 1] = x.mean()
    if steepness is not None:
        centre[:, 2] += SPREADS[2] * steepness
    y = np.column_stack([rates, undisturbed])
    curve = centre.copy() if begin is None else np.tile(begin, (len(y), 1))
    damping = np.full(len(y), 1e-2)

    def loss(curve: np.ndarray) -> np.ndarray:
        p = np.clip(_success(curve, x)[0], 1e-9, 1 - 1e-9)
        likelihood = states * (y * np.log(p) + (1 - y) * np.log1p(-p)).sum(1)
        return np.asarray((weight * (curve - centre) ** 2).sum(1) / 2 - likelihood)

    now = loss(curve)
    for _ in range(STEPS if begin is None else STEPS_AGAIN):
        p, slope = _success(curve, x)
        p = np.clip(p, 1e-9, 1 - 1e-9)
        information = states / (p * (1 - p))
        gradient = ((information * (p - y))[..., None] * slope).sum(1) + weight * (curve - centre)
        hessian = np.swapaxes(information[..., None] * slope, 1, 2) @ slope + np.diag(weight)
        hessian[:, range(4), range(4)] *= 1 + damping[:, None]
        other = curve - np.linalg.solve(hessian, gradient[..., None])[..., 0]
        then = loss(other)
        better = then <= now
        curve, now = np.where(better[:, None], other, curve), np.where(better, then, now)
        damping = np.where(better, damping / 5, np.minimum(damping * 8, 1e6))
    return curve


def _success(curve: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """p [B, S + 1] at ln σ = x, undisturbed behind; its slope in the curve's numbers [B, S + 1, 4]."""
    c, floor = _logistic(curve[:, :1]), _logistic(curve[:, 3:])
    k = np.exp(np.clip(curve[:, 2:3], -MOST_STEEP, MOST_STEEP))
    z = -k * (x - curve[:, 1:2])
    s = _logistic(z)
    left, bend = floor + (1 - floor) * s, c * (1 - floor) * s * (1 - s)
    slope = np.stack([c * (1 - c) * left, bend * k, bend * z, c * (1 - s) * floor * (1 - floor)], 2)
    last = np.zeros((len(curve), 1, 4))
    last[:, 0, 0] = (c * (1 - c))[:, 0]
    return np.concatenate([c * left, c], 1), np.concatenate([slope, last], 1)


def _logistic(z: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def falls_at(curve: np.ndarray, share: float) -> np.ndarray:
    """ln σ* of curves [B, 4]: +inf for a floor above the share."""
    floor = _logistic(curve[:, 3])
    left = (share - floor) / (1 - floor)
    k = np.exp(np.clip(curve[:, 2], -MOST_STEEP, MOST_STEEP))
    with np.errstate(invalid="ignore", divide="ignore"):
        at = curve[:, 1] - np.log(left / (1 - left)) / k
    return np.where(left > 0, at, np.inf)


def resampled_rates(outcomes: np.ndarray, strata: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Rates [draws, R] of resampled initial states, for outcomes [R, states]: the last row is the undisturbed one."""
    rng = np.random.default_rng(seed)
    rows, states = outcomes.shape
    tasks = np.unique(strata)
    drawn = np.zeros((draws, rows))
    for task in tasks:
        own = outcomes[:, strata == task]
        n, centre = own.shape[1], own.mean(1)
        times = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
        drawn += (centre + (times @ own.T - centre) * np.sqrt(n / max(1, n - 1))) / len(tasks)
    fails_from = rng.integers(0, rows, draws)  # rows − 1: beyond the grid
    further = np.arange(rows) < fails_from[:, None]
    further[:, -1] = True
    weight = rng.exponential(size=(draws, 1)) / (states + 1)
    return np.clip(drawn * (1 - weight) + weight * further, 0, 1)
