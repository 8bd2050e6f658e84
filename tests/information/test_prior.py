"""The prior's bits against entropies that are known: of independent tokens, and of tokens that follow from others."""

import numpy as np
import pytest

from compression_gap.information.prior import prior_bits
from compression_gap.tokenizers import OAT, Tokens

SIZES = {"train": 6_000, "validation": 1_500, "test": 3_000}
SKEWED = np.array([0.5, 0.25, 0.125, 0.125])  # 1.75 bits


def entropy(p):
    return float(-(p * np.log2(p)).sum())


def measured(draw, **how):
    """The prior of tokens that ``draw(rng, n)`` gives, two of 8 codes each: the splits' own draws."""
    rng = np.random.default_rng(0)
    tokens = {}
    for split, n in SIZES.items():
        ids = draw(rng, n).astype(np.int64)
        tokens[split] = Tokens(ids, np.full(n, ids.shape[1]))
    tokenizer = OAT(tokens=2, levels=(8,))
    assert tokenizer.codebook_sizes == (8, 8)
    found = prior_bits(tokenizer, tokens, batch_size=256, **{"lr": 3e-3, "steps": 300, **how})
    assert found.per_chunk.shape == (SIZES["test"],)
    return found.per_chunk.numpy()


def independent(rng, n):
    return np.stack([rng.integers(0, 4, n), rng.choice(4, n, p=SKEWED)], 1)


def test_independent_tokens_cost_their_entropies():
    """2 bits of a uniform choice of four, 1.75 bits of a skewed one; four codes of eight are never seen."""
    bits = measured(independent)
    assert bits.mean() == pytest.approx(2 + entropy(SKEWED), abs=0.08)


def test_a_token_that_follows_from_the_one_before_costs_nothing():
    bits = measured(lambda rng, n: np.repeat(rng.integers(0, 8, n)[:, None], 2, axis=1))
    assert bits.mean() == pytest.approx(3, abs=0.08)


def test_constant_tokens_cost_nothing():
    assert measured(lambda rng, n: np.full((n, 2), 5)).mean() < 0.05


def test_a_prior_that_has_learned_nothing_costs_the_code_s_capacity():
    """An upper bound it is, whatever it learned: 6 bits for two of eight codes."""
    assert measured(independent, steps=1, lr=1e-6).mean() == pytest.approx(6, abs=0.6)
