"""The health of codes whose every figure can be worked out by hand: bins of one dimension."""

import math

import numpy as np
import pytest

from compression_gap.information.health import (
    code_health,
    corrupted_failures,
    order_preservation,
    prefix,
    prefix_lengths,
    throughput,
)
from compression_gap.tokenizers import FAST, OAT, Bins, Tokens

RNG = np.random.default_rng(0)
CHUNKS = RNG.uniform(-1, 1, (400, 4, 2)).astype(np.float32)
CHUNKS[0], CHUNKS[1] = -1, 1  # the range is known
VALID = np.ones((400, 4), bool)
EPISODE = np.repeat(np.arange(20), 20)


@pytest.fixture(scope="module")
def bins():
    return Bins(bins=4).fit(CHUNKS)


@pytest.fixture(scope="module")
def health(bins):
    return code_health(bins, bins.encode(CHUNKS), CHUNKS, VALID, EPISODE, sigma=0.2)


def test_uniform_bins_of_uniform_actions(health):
    """Four bins of width ½: the error is uniform in ± ¼, so its square has the mean (½)² / 12."""
    assert health.capacity_bits == 8 * 2
    assert health.position_bits == pytest.approx(16, abs=0.05)
    assert health.distortion == pytest.approx(0.25 / 12, rel=0.05)
    assert health.distortion_low < 0.25 / 12 < health.distortion_high
    assert np.mean(health.distortion_per_dimension) == pytest.approx(health.distortion)
    assert (health.tokens_mean, health.tokens_p95) == (8, 8)
    assert (health.codes, health.dead_codes) == (32, 0)
    assert health.mean_perplexity == pytest.approx(4, abs=0.05)
    assert health.decode_failures_corrupted == 0
    assert health.clipped == 0


def test_the_gaussian_reference_is_that_of_the_covariance(health):
    """Variance ⅓ a dimension, nearly white: 8 × ½ log2(⅓ / D), up to the sample's spectrum."""
    white = 4 * math.log2(1 / 3 / health.distortion)
    assert health.gaussian_reference_rate == pytest.approx(white, rel=0.03)
    assert len(health.covariance_eigenvalues) == 8


def test_within_sigma_is_a_share_of_chunks_in_every_dimension(bins):
    tokens = bins.encode(CHUNKS)
    rms = np.sqrt(((bins.decode(tokens).chunk - CHUNKS) ** 2).mean(1))
    for sigma in (0.1, 0.15, 0.2):
        found = code_health(bins, tokens, CHUNKS, VALID, EPISODE, sigma=sigma).within_sigma
        assert found == pytest.approx((rms <= sigma).all(1).mean())


def test_actions_after_the_end_do_not_count(bins):
    chunks, valid = CHUNKS.copy(), VALID.copy()
    chunks[:, 2:], valid[:, 2:] = 0.99, False
    found = code_health(bins, bins.encode(CHUNKS), chunks, valid, EPISODE, sigma=0.2)
    error = (bins.decode(bins.encode(chunks)).chunk - chunks)[:, :2] ** 2
    assert found.distortion == pytest.approx(error.mean(), rel=1e-5)
    assert found.within_sigma == pytest.approx((np.sqrt(error.mean(1)) <= 0.2).all(1).mean())


def test_actions_outside_the_fitted_range_are_counted(bins):
    chunks = CHUNKS.copy()
    chunks[:100, 0, 0] = 3
    assert code_health(bins, bins.encode(CHUNKS), chunks, VALID, EPISODE, sigma=0.2).clipped == 0.25


def test_dead_codes_are_those_that_the_training_split_never_uses():
    chunks = CHUNKS.copy()
    bins = Bins(bins=4).fit(chunks)
    train = bins.encode(np.where(np.abs(chunks) < 0.5, chunks, np.sign(chunks) * 0.3))  # the inner two bins
    assert code_health(bins, train, chunks, VALID, EPISODE, sigma=0.2).dead_codes == 8 * 2


def test_order_is_kept_by_a_copy_and_lost_by_noise():
    rng = np.random.default_rng(1)
    assert order_preservation(CHUNKS, CHUNKS, rng) == pytest.approx(1)
    assert order_preservation(CHUNKS, 3 * CHUNKS + 1, rng) == pytest.approx(1)
    assert abs(order_preservation(CHUNKS, rng.normal(size=CHUNKS.shape), rng)) < 0.1
    assert order_preservation(CHUNKS, np.zeros_like(CHUNKS), rng) is None
    assert order_preservation(CHUNKS[:2], CHUNKS[:2], rng) is None


def test_a_finer_code_keeps_the_order_better():
    found = []
    for n in (2, 4, 16):
        bins = Bins(bins=n).fit(CHUNKS)
        coded = bins.decode(bins.encode(CHUNKS)).chunk
        found.append(order_preservation(CHUNKS, coded, np.random.default_rng(2)))
    assert found == sorted(found)
    assert found[-1] > 0.99


def test_wrong_tokens_break_sequences_of_fast_and_are_told():
    smooth = np.cumsum(RNG.normal(size=(300, 8, 3)), axis=1).astype(np.float32)
    fast = FAST(vocabulary=512).fit(smooth)
    share = corrupted_failures(fast, fast.encode(smooth), np.random.default_rng(0))
    assert 0.2 < share <= 1


def test_a_wrong_token_is_always_another_one():
    """A code of two: the replaced token is the other one, so every corrupted chunk decodes elsewhere."""

    class Spy(Bins):
        def decode(self, tokens):
            self.seen = tokens
            return super().decode(tokens)

    spy = Spy(bins=2).fit(CHUNKS)
    tokens = spy.encode(CHUNKS)
    corrupted_failures(spy, tokens, np.random.default_rng(0))
    seen = {row.tobytes() for row in tokens.ids}
    changed = [min((row != own).sum() for own in tokens.ids) for row in spy.seen.ids[:20]]
    assert max(changed) <= 1
    assert len(spy.seen.ids) == 400
    assert seen


def test_prefixes_of_ordered_codes_alone():
    assert prefix_lengths(OAT(tokens=8)) == [1, 2, 4, 8]
    assert prefix_lengths(OAT(tokens=6)) == [1, 2, 4, 6]
    assert prefix_lengths(OAT(tokens=1)) == [1]
    assert prefix_lengths(Bins().fit(CHUNKS)) == [8]
    tokens = prefix(Tokens(np.arange(8).reshape(2, 4), np.array([4, 1])), 2)
    assert tokens.ids.tolist() == [[0, 1], [4, 5]]
    assert tokens.lengths.tolist() == [2, 1]


def test_throughput_is_a_rate(bins):
    found = throughput(bins, CHUNKS[:10], seconds=0.0)
    assert set(found) == {"encode_per_second", "decode_per_second"}
    assert all(v > 0 for v in found.values())
