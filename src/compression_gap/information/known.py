"""Distributions whose I(C; A_σ) is known, in closed form or by a numerical integral: what estimators are held to.

The non-Gaussian ones are products of independent, equal dimensions (or have one), so that the truth is a one- or
two-dimensional integral.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import i0e

from ..errors import UserError

Draw = Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Known:
    """``draw(n, rng)`` → A [n, d] and C [n, p]; ``bits``: I(C; A_σ); ``demand``: I(A; A_σ), where it is known."""

    name: str
    gaussian: bool
    dimensions: int
    sigma: float
    draw: Draw
    bits: float
    demand: float | None = None


def gaussian(dimensions: int, bits: float, sigma: float = 0.3, seed: int = 0) -> Known:
    """C ~ N(0, I), A = C·M + N(0, s²): a random map whose directions differ eightfold, scaled to give ``bits``."""
    rng = np.random.default_rng([seed, dimensions])
    mixing = np.linalg.qr(rng.standard_normal((dimensions, dimensions)))[0] * np.geomspace(
        1, 1 / 8, dimensions
    )
    power = (mixing**2).sum(0).mean()

    def total(scale: float) -> float:
        noise = 1 - scale**2 * power + sigma**2
        values = np.linalg.eigvalsh(scale**2 * mixing.T @ mixing)
        return float(0.5 * np.log2(1 + values / noise).sum())

    low, high = 0.0, float(np.sqrt(1 / power))
    if total(high) < bits:
        raise ValueError(f"{dimensions} dimensions at σ = {sigma} hold no {bits} bits")
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) < bits else (low, middle)
    scale = (low + high) / 2
    spread = np.sqrt(max(0.0, 1 - scale**2 * power))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        c = rng.standard_normal((n, dimensions))
        return scale * c @ mixing + spread * rng.standard_normal((n, dimensions)), c

    variances = scale**2 * np.linalg.eigvalsh(mixing.T @ mixing) + spread**2
    demand = float(0.5 * np.log2(1 + variances / sigma**2).sum())
    return Known(
        f"Gaussian, {dimensions}-d, {bits:g} bits", True, dimensions, sigma, draw, total(scale), demand
    )


def correlated(
    dimensions: int, inputs: int, bits: float, sigma: float, largest: float = 8.0, seed: int = 1
) -> Known:
    """A = C·M + noise, where neither C, nor M, nor the noise has equal or independent directions; A's std is 1.

    The share of C in A is what gives ``bits``; raises ``UserError`` if no share does.
    """
    rng = np.random.default_rng([seed, dimensions, inputs])

    def covariance(size: int) -> np.ndarray:
        turn = np.linalg.qr(rng.standard_normal((size, size)))[0]
        return np.asarray((turn * np.geomspace(1, 1 / largest, size)) @ turn.T)

    of_c, mixing = covariance(inputs), rng.standard_normal((inputs, dimensions))
    signal, rest = mixing.T @ of_c @ mixing, covariance(dimensions)
    signal, rest = signal * dimensions / np.trace(signal), rest * dimensions / np.trace(rest)

    def parts(share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        unit = 1 / np.sqrt(np.diag(share * signal + (1 - share) * rest))
        both = np.outer(unit, unit)
        return share * signal * both, (1 - share) * rest * both, unit

    white = sigma**2 * np.eye(dimensions)

    def total(share: float) -> float:
        told, untold, _ = parts(share)
        return float(_log2_det(told + untold + white) - _log2_det(untold + white)) / 2

    low, high = 0.0, 1.0
    if total(high) < bits:
        raise UserError(
            f"A of {dimensions} dimensions at σ = {sigma:g} holds {total(high):.2f} bits of a C of {inputs}, "
            f"not {bits:g}; ask for fewer bits or a smaller σ"
        )
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) < bits else (low, middle)
    told, untold, unit = parts(high)
    map_, root = np.sqrt(high * dimensions / np.trace(mixing.T @ of_c @ mixing)) * mixing * unit, _root(of_c)
    spread = _root(untold)

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        c = rng.standard_normal((n, inputs)) @ root.T
        return c @ map_ + rng.standard_normal((n, dimensions)) @ spread.T, c

    demand = float(_log2_det(told + untold + white) - _log2_det(white)) / 2
    name = f"correlated, {inputs} → {dimensions}-d, {bits:g} bits"
    return Known(name, True, dimensions, sigma, draw, total(high), demand)


def _log2_det(matrix: np.ndarray) -> float:
    return float(np.linalg.slogdet(matrix)[1] / np.log(2))


def _root(covariance: np.ndarray) -> np.ndarray:
    """R with R·Rᵀ = the covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


def ring(cells: int = 16, sigma: float = 0.2) -> Known:
    """A: even on a circle of radius √2; C: cosine and sine of the middle of its cell, of ``cells`` equal arcs."""
    radius, width = np.sqrt(2), 2 * np.pi / cells
    r = np.arange(max(0.0, radius - 9 * sigma), radius + 9 * sigma, sigma / 200) + sigma / 400
    density = (
        i0e(r * radius / sigma**2) * np.exp(-((r - radius) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    )
    whole = -float((2 * np.pi * r * density * np.log2(np.maximum(density, 1e-300))).sum() * sigma / 200)
    # One arc: the density on a plane grid, the midpoint rule of a function as smooth as the noise.
    angle = (np.arange(400) + 0.5) / 400 * width - width / 2
    step = sigma / 3
    points = [radius * np.cos(angle), radius * np.sin(angle)]
    x, y = (np.arange(v.min() - 8 * sigma, v.max() + 8 * sigma, step) for v in points)
    across = np.exp(-0.5 * ((x[:, None] - points[0]) / sigma) ** 2)
    arc = across @ np.exp(-0.5 * ((y[:, None] - points[1]) / sigma) ** 2).T
    arc /= arc.sum() * step**2
    inside = -float((arc * np.log2(np.maximum(arc, 1e-300))).sum() * step**2)

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        turn = rng.uniform(0, 2 * np.pi, n)
        seen = (np.floor(turn / width) + 0.5) * width
        a, c = (np.stack([np.cos(t), np.sin(t)], 1) for t in (turn, seen))
        return radius * a, c

    demand = whole - 2 * _normal_entropy(sigma**2)
    return Known(f"ring, {cells} arcs", False, 2, sigma, draw, whole - inside, demand)


def _entropy(density: np.ndarray, step: float) -> float:
    """−∫ p log2 p of a density on an even grid."""
    p = density / (density.sum() * step)
    return float(-(p * np.log2(np.maximum(p, 1e-300))).sum() * step)


def _normal_entropy(variance: float) -> float:
    return 0.5 * float(np.log2(2 * np.pi * np.e * variance))


def _smoothed(values: np.ndarray, weights: np.ndarray, variance: float) -> tuple[np.ndarray, float]:
    """The density of a discrete variable plus a Gaussian, on an even grid, and the grid's step."""
    spread = np.sqrt(variance)
    step = spread / 12
    grid = np.arange(values.min() - 8 * spread, values.max() + 8 * spread, step)
    density = np.zeros(len(grid))
    for part in np.array_split(np.arange(len(values)), max(1, len(values) // 500)):
        away = (grid[:, None] - values[part]) / spread
        density += np.exp(-0.5 * away**2) @ weights[part]
    return density, step


def discrete(levels: int = 4, dimensions: int = 2, sigma: float = 0.1) -> Known:
    """C: one of ``levels`` names in each dimension, in no order; A: the value of that name, and a little noise."""
    values = np.linspace(-1.5, 1.5, levels)
    names = np.random.default_rng(3).standard_normal(
        (levels, 3)
    )  # a name is a vector that says nothing of order
    noise = 0.05
    density, step = _smoothed(values, np.full(levels, 1 / levels), noise**2 + sigma**2)
    bits = dimensions * (_entropy(density, step) - _normal_entropy(noise**2 + sigma**2))
    demand = dimensions * (_entropy(density, step) - _normal_entropy(sigma**2))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        k = rng.integers(levels, size=(n, dimensions))
        return values[k] + noise * rng.standard_normal(k.shape), names[k].reshape(n, -1)

    return Known(f"discrete, {levels}² names", False, dimensions, sigma, draw, bits, demand)


def mixture(dimensions: int = 2, sigma: float = 0.1) -> Known:
    """A: in each dimension near −1 or 1; C: a value whose sign names which, with a tenth of the signs wrong."""
    spread, wrong = 0.2, 0.1
    variance = spread**2 + sigma**2
    density, step = _smoothed(np.array([-1.0, 1.0]), np.array([0.5, 0.5]), variance)
    told, _ = _smoothed(np.array([-1.0, 1.0]), np.array([wrong, 1 - wrong]), variance)
    bits = dimensions * (_entropy(density, step) - _entropy(told, step))
    demand = dimensions * (_entropy(density, step) - _normal_entropy(sigma**2))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        sign = rng.choice([-1.0, 1.0], (n, dimensions))
        seen = np.where(rng.random(sign.shape) < wrong, -sign, sign)
        c = seen * rng.uniform(0.2, 2.0, sign.shape)
        return sign + spread * rng.standard_normal(sign.shape), c

    return Known("mixture, a tenth misnamed", False, dimensions, sigma, draw, bits, demand)


def nonlinear(dimensions: int = 2, sigma: float = 0.2) -> Known:
    """A = √2·cos(πC) + noise in each dimension, C uniform on [−1, 1]: a line explains nothing of it."""
    noise = 0.2
    c = (np.arange(20_000) + 0.5) / 10_000 - 1
    density, step = _smoothed(np.sqrt(2) * np.cos(np.pi * c), np.full(len(c), 1.0), noise**2 + sigma**2)
    bits = dimensions * (_entropy(density, step) - _normal_entropy(noise**2 + sigma**2))
    demand = dimensions * (_entropy(density, step) - _normal_entropy(sigma**2))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        told = rng.uniform(-1, 1, (n, dimensions))
        return np.sqrt(2) * np.cos(np.pi * told) + noise * rng.standard_normal(told.shape), told

    return Known("nonlinear, cos πC", False, dimensions, sigma, draw, bits, demand)


def heavy(dimensions: int = 4, sigma: float = 0.2) -> Known:
    """C: Laplace of variance 1; A = C + noise."""
    noise = 0.5
    grid = np.linspace(-16, 16, 16_001)
    weights = np.exp(-np.sqrt(2) * np.abs(grid))
    density, step = _smoothed(grid, weights, noise**2 + sigma**2)
    bits = dimensions * (_entropy(density, step) - _normal_entropy(noise**2 + sigma**2))
    demand = dimensions * (_entropy(density, step) - _normal_entropy(sigma**2))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        c = rng.laplace(scale=np.sqrt(0.5), size=(n, dimensions))
        return c + noise * rng.standard_normal(c.shape), c

    return Known("heavy tails, Laplace", False, dimensions, sigma, draw, bits, demand)


def heavy_noise(dimensions: int = 4, sigma: float = 0.2) -> Known:
    """C ~ N(0, 1); A = 0.9·C + noise, of Student's t with 3 degrees of freedom and a spread of 0.4."""
    from scipy.stats import t

    spread = 0.4 / np.sqrt(3)
    grid = np.linspace(-60, 60, 240_001) * spread
    weights = t.pdf(grid / spread, 3)
    told, step = _smoothed(grid[::8], weights[::8], sigma**2)
    both, wider = _smoothed(grid[::8], weights[::8], 0.9**2 + sigma**2)
    bits = dimensions * (_entropy(both, wider) - _entropy(told, step))
    demand = dimensions * (_entropy(both, wider) - _normal_entropy(sigma**2))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        c = rng.standard_normal((n, dimensions))
        return 0.9 * c + spread * rng.standard_t(3, c.shape), c

    return Known("heavy noise, t(3)", False, dimensions, sigma, draw, bits, demand)


def signs(dimensions: int = 4, sigma: float = 0.2) -> Known:
    """A ~ N(0, 1); C: the sign of each dimension, a code of one bit."""
    half = np.linspace(1e-4, 9, 40_000)
    inside, step = _smoothed(half, np.exp(-0.5 * half**2), sigma**2)
    bits = dimensions * (_normal_entropy(1 + sigma**2) - _entropy(inside, step))
    demand = dimensions * (_normal_entropy(1 + sigma**2) - _normal_entropy(sigma**2))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        a = rng.standard_normal((n, dimensions))
        return a, np.sign(a)

    return Known("signs, a code of one bit", False, dimensions, sigma, draw, bits, demand)


def quantised(cells: int = 8, dimensions: int = 2, sigma: float = 0.1) -> Known:
    """A uniform on [−√3, √3]; C: which of ``cells`` equal cells it lies in."""
    half = np.sqrt(3)
    fine = (np.arange(20_000) + 0.5) / 10_000 * half - half
    density, step = _smoothed(fine, np.full(len(fine), 1.0), sigma**2)
    inside = fine[fine < -half + 2 * half / cells]
    cell, cell_step = _smoothed(inside, np.full(len(inside), 1.0), sigma**2)
    bits = dimensions * (_entropy(density, step) - _entropy(cell, cell_step))
    demand = dimensions * (_entropy(density, step) - _normal_entropy(sigma**2))

    def draw(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        a = rng.uniform(-half, half, (n, dimensions))
        width = 2 * half / cells
        return a, (np.floor((a + half) / width) + 0.5) * width - half

    return Known(f"uniform, {cells}² cells", False, dimensions, sigma, draw, bits, demand)


def distributions(quick: bool = False) -> tuple[Known, ...]:
    """Those of the calibration page."""
    gaussians = [(1, 0.5), (2, 2.0), (8, 5.0), (32, 10.0)] if not quick else [(2, 2.0), (32, 10.0)]
    turned = (
        ()
        if quick
        else (correlated(8, 2, 2.0, 0.2), correlated(16, 32, 5.0, 0.3), correlated(32, 32, 10.0, 0.5))
    )
    others = (discrete(), mixture(), nonlinear(), heavy(), quantised(), ring(), heavy_noise(), signs())
    chosen = (others[0], others[2]) if quick else others
    return (*(gaussian(d, b) for d, b in gaussians), *turned, *chosen)
