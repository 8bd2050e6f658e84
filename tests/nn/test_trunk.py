import pytest
import torch

from compression_gap.nn import SIZES, KVCache, Memory, Trunk
from compression_gap.nn.sizes import TrunkSize

SMALL = TrunkSize(layers=3, width=32, heads=4)


@pytest.fixture
def trunk():
    torch.manual_seed(0)
    trunk = Trunk(SMALL).eval()
    for p in trunk.parameters():  # large weights, so that what leaks shows
        if p.ndim == 2:
            torch.nn.init.normal_(p, std=0.3)
    return trunk


def tokens(*shape, seed=1):
    return torch.randn(*shape, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("folded", [False, True])
@torch.no_grad()
def test_steps_equal_the_whole(trunk, folded):
    x, memory = tokens(3, 6), trunk.condition(tokens(3, 5, seed=2))
    whole = trunk(x, memory, causal=True)
    cache = KVCache(SMALL, 3, 6, x)
    used = trunk.fold(memory) if folded else memory
    one_by_one = torch.stack([trunk.step(x[:, i], used, cache) for i in range(6)], 1)
    assert cache.filled == 6
    torch.testing.assert_close(one_by_one, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("masked", [False, True])
@torch.no_grad()
def test_a_folded_memory_gives_the_same(trunk, rows, masked):
    """With biases, with a mask, and with one row of queries for all rows of the memory."""
    for block in trunk.blocks:
        for layer in (block.cross_q, block.cross_kv, block.cross_out):
            torch.nn.init.normal_(layer.bias)
    x, memory = tokens(rows, 4), trunk.condition(tokens(3, 5, seed=2))
    mask = torch.ones(4, 5, dtype=torch.bool).tril() if masked else None
    expected = trunk(x, memory, causal=False, memory_mask=mask)
    folded = trunk(x, trunk.fold(memory), causal=False, memory_mask=mask)
    assert expected.shape == (3, 4, 32)
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_memory_folded_in_parts_equals_the_whole(trunk):
    x, m = tokens(2, 4), tokens(2, 7, seed=2)
    parts = [trunk.fold(trunk.condition(part)) for part in (m[:, :2], m[:, 2:])]
    whole = trunk(x, trunk.condition(m), causal=False)
    torch.testing.assert_close(trunk(x, parts[0].join(parts[1]), causal=False), whole, rtol=1e-4, atol=1e-4)


def test_folding_pays_for_short_memories_that_are_used_often():
    """A query costs 4·w² + 4·N·w operations, folded 4·heads·N·w; the folding costs 4·N·w² once."""
    for size in SIZES.values():
        for n, uses in ((1, 1), (5, 8), (7, 320), (20, 8), (60, 320), (70, 10_000)):
            w, folds = size.width, Trunk(size._replace(layers=1)).folds(n, uses)
            plain, folded = uses * (4 * w * w + 4 * n * w), uses * 4 * size.heads * n * w + 4 * n * w * w
            assert folds == (folded < plain)
    m = Trunk(SIZES["M"])
    assert m.folds(6, uses=8)  # eight tokens
    assert m.folds(7, uses=320)  # ten steps of 32 actions
    assert not m.folds(6, uses=1)
    assert not m.folds(100, uses=10_000)


@torch.no_grad()
def test_memory_conditioned_in_parts_equals_the_whole(trunk):
    """Keys and values are made per token, so a memory can be put together from parts made at other times."""
    x, m = tokens(2, 4), tokens(2, 7, seed=2)
    parts = trunk.condition(m[:, :2]).join(trunk.condition(m[:, 2:]))
    whole = trunk.condition(m)
    torch.testing.assert_close(
        trunk(x, parts, causal=False), trunk(x, whole, causal=False), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_memory_made_once_equals_memory_made_each_time(trunk):
    m, once = tokens(2, 7, seed=2), trunk.condition(tokens(2, 7, seed=2))
    for seed in range(3, 6):
        x = tokens(2, 4, seed=seed)
        torch.testing.assert_close(
            trunk(x, once, causal=False), trunk(x, trunk.condition(m), causal=False), rtol=0, atol=0
        )


@torch.no_grad()
def test_the_order_of_memory_tokens_does_not_matter(trunk):
    x, m = tokens(2, 4), tokens(2, 7, seed=2)
    turned = trunk(x, trunk.condition(m.flip(1)), causal=False)
    torch.testing.assert_close(turned, trunk(x, trunk.condition(m), causal=False), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_hidden_memory_token_does_not_matter(trunk):
    """Token i sees memory tokens 0 … i; with causal self-attention nothing later leaks in over two layers."""
    x, m = tokens(2, 4), tokens(2, 4, seed=2)
    mask = torch.ones(4, 4, dtype=torch.bool).tril()
    before = trunk(x, trunk.condition(m), causal=True, memory_mask=mask)
    for hidden in range(1, 4):
        changed = m.clone()
        changed[:, hidden] += 5
        after = trunk(x, trunk.condition(changed), causal=True, memory_mask=mask)
        assert torch.equal(after[:, :hidden], before[:, :hidden])
        assert (after[:, hidden:] - before[:, hidden:]).abs().amin(0).amax(-1).min() > 1e-3


@torch.no_grad()
def test_a_mask_of_ones_equals_none(trunk):
    x, memory = tokens(2, 4), trunk.condition(tokens(2, 4, seed=2))
    ones = trunk(x, memory, causal=False, memory_mask=torch.ones(4, 4, dtype=torch.bool))
    torch.testing.assert_close(ones, trunk(x, memory, causal=False), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@torch.no_grad()
def test_later_tokens_change_earlier_outputs_only_without_causality(trunk, causal):
    x, memory = tokens(2, 5), trunk.condition(tokens(2, 3, seed=2))
    before = trunk(x, memory, causal=causal)
    changed = x.clone()
    changed[:, 3] = tokens(2, seed=3)
    after = trunk(changed, memory, causal=causal)
    assert torch.equal(after[:, :3], before[:, :3]) == causal
    assert (after[:, 3:] - before[:, 3:]).abs().amax(-1).min() > 1e-2


@torch.no_grad()
def test_samples_of_a_batch_do_not_mix(trunk):
    x, m = tokens(3, 4), tokens(3, 5, seed=2)
    whole = trunk(x, trunk.condition(m), causal=True)
    for b in range(3):
        alone = trunk(x[b : b + 1], trunk.condition(m[b : b + 1]), causal=True)
        torch.testing.assert_close(alone[0], whole[b], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_without_blocks_weights_the_trunk_is_its_last_norm():
    """Output layers of zero leave the residual stream alone: the trunk is then a LayerNorm of its input."""
    trunk = Trunk(SMALL)
    for block in trunk.blocks:
        for layer in (block.out, block.cross_out, block.down):
            torch.nn.init.zeros_(layer.weight)
    x = tokens(2, 4)
    expected = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    found = trunk(x, trunk.condition(tokens(2, 3)), causal=False)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    trunk = Trunk(SMALL, dropout=0.5)
    x, memory = tokens(1, 4), trunk.condition(tokens(1, 3))
    assert not torch.equal(trunk(x, memory, causal=True), trunk(x, memory, causal=True))
    trunk.eval()
    assert torch.equal(trunk(x, memory, causal=True), trunk(x, memory, causal=True))


@pytest.mark.parametrize("name", SIZES)
def test_parameter_count_of_each_size(name):
    """Per layer: 4w² + 4w (self), 4w² + 4w (cross), 8w² + 5w (MLP), 6w (norms); one last norm of 2w."""
    layers, w, heads = SIZES[name]
    found = sum(p.numel() for p in Trunk(SIZES[name]).parameters())
    assert found == layers * (16 * w * w + 19 * w) + 2 * w
    assert w % heads == 0


def test_published_sizes():
    assert SIZES["M"] == (4, 256, 4)
    assert SIZES["L"] == (6, 384, 6)


def test_joined_memories_keep_their_order():
    a = Memory(((torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)),))
    b = Memory(((torch.ones(1, 2, 1, 4), torch.ones(1, 2, 1, 4)),))
    ((k, v),) = a.join(b).layers
    assert k[0, 0, :, 0].tolist() == v[0, 0, :, 0].tolist() == [0, 0, 0, 1]
