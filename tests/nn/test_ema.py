import pytest
import torch
from torch import nn

from compression_gap.nn import EMA


class One(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([value], dtype=torch.float64))
        self.register_buffer("count", torch.zeros(1))


def test_decay_known_values():
    """1 − (1 + step)^−¾: 16^¾ = 8, 81^¾ = 27."""
    ema = EMA(One(0.0))
    assert ema.decay(15) == pytest.approx(1 - 1 / 8)
    assert ema.decay(80) == pytest.approx(1 - 1 / 27)
    assert ema.decay(0) == 0
    assert ema.decay(10**9) == 0.9999
    assert EMA(One(0.0), power=1.0, maximum=0.5).decay(3) == 0.5


def test_decay_never_falls():
    ema = EMA(One(0.0))
    values = [ema.decay(s) for s in range(1, 2000)]
    assert values == sorted(values)


def test_closed_form():
    """After n updates the average is Π dₛ · start + Σ (1 − dₛ) Πₖ₌ₛ₊₁ dₖ · xₛ."""
    module = One(3.0)
    ema = EMA(module)
    xs = [1.0, -2.0, 0.5, 7.0, 4.0]
    for step, x in enumerate(xs, start=1):
        with torch.no_grad():
            module.weight.fill_(x)
        ema.update(module, step)
    d = [1 - (1 + s) ** -0.75 for s in range(1, 6)]
    expected, tail = 0.0, 1.0
    for x, decay in zip(reversed(xs), reversed(d), strict=True):
        expected += (1 - decay) * tail * x
        tail *= decay
    assert ema.average.weight.item() == pytest.approx(expected + tail * 3.0, rel=1e-12)


def test_converges_to_weights_that_stand_still():
    module = One(0.0)
    ema = EMA(module)
    with torch.no_grad():
        module.weight.fill_(1.0)
    distances = []
    for step in range(1, 201):
        ema.update(module, step)
        distances.append(abs(1 - ema.average.weight.item()))
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-4


def test_the_average_is_a_copy_in_eval_mode_with_the_newest_buffers():
    module = One(2.0).train()
    ema = EMA(module)
    with torch.no_grad():
        module.weight.fill_(-1.0)
        module.count.fill_(5)
    assert ema.average.weight.item() == 2.0
    assert not ema.average.training
    assert not ema.average.weight.requires_grad
    ema.update(module, 15)
    assert ema.average.count.item() == 5
    assert module.weight.item() == -1.0
    assert module.training
    assert module.weight.requires_grad
