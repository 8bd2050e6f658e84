"""One training by two processes against the same training by one, which takes the parts one after the other."""

from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compression_gap.errors import Interrupted, UserError
from compression_gap.nn import Schedule, train
from compression_gap.nn.ranks import ALONE, Ranks, started

CPU = torch.device("cpu")
X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]) + 1
SCHEDULE = Schedule(steps=20, batch_size=8, lr=1e-2, warmup=5, validations=4, devices=2)


def loss(network, rows, rng):
    """Uses every source of randomness, and leaves one layer without a gradient."""
    x = X[rows] + 0.1 * torch.randn(X[rows].shape, generator=rng)
    return (network["used"](x) - Y[rows]).square().mean(1)


def network():
    torch.manual_seed(0)
    used = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))
    return nn.ModuleDict({"used": used, "unused": nn.Linear(2, 2)})


def trained(ranks=ALONE, schedule=SCHEDULE, **options):
    return train(
        network(), loss, 64, 64, schedule, validation_loss=loss, seed=3, device=CPU, ranks=ranks, **options
    )


def part(folder, ranks):
    """What the second process does; its weights, to be compared."""
    average, curve = trained(ranks, work=folder / "work")
    assert len(curve.validation) < 4  # those of the checkpoint alone
    save_file(average.state_dict(), folder / "second.safetensors")


def stops_after(steps):
    left = [steps]

    def should_stop():
        left[0] -= 1
        return left[0] == 0

    return should_stop


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def close(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[n], b[n], rtol=1e-5, atol=1e-7) for n in a)


def test_a_batch_in_parts_has_other_noise_than_one_in_one():
    whole, _ = trained(schedule=Schedule(**{**vars(SCHEDULE), "devices": 1}))
    parts, _ = trained()
    assert not close(whole.state_dict(), parts.state_dict())
    assert same(parts.state_dict(), trained()[0].state_dict())


def test_the_parts_gradients_are_that_of_the_whole_batch():
    """Without noise and dropout a batch in parts is the whole batch, to rounding."""

    def plain(network, rows, rng):
        return (network["used"][3](network["used"][0](X[rows]).tanh()) - Y[rows]).square().mean(1)

    def run(devices):
        schedule = Schedule(**{**vars(SCHEDULE), "devices": devices})
        return train(network(), plain, 64, 64, schedule, validation_loss=plain, seed=3, device=CPU)

    (whole, curve), (parts, other) = run(1), run(4)
    assert close(whole.state_dict(), parts.state_dict())
    assert other.train == pytest.approx(curve.train, rel=1e-5)
    assert other.validation == pytest.approx(curve.validation, rel=1e-5)


def test_two_processes_train_what_one_does_also_when_they_were_stopped(tmp_path):
    pytest.importorskip("accelerate")
    alone, curve = trained()
    (tmp_path / "work").mkdir()
    with pytest.raises(Interrupted), started(2, partial(part, tmp_path)) as ranks:
        trained(ranks, work=tmp_path / "work", should_stop=stops_after(7))
    assert not (tmp_path / "second.safetensors").exists()  # it has stopped, too
    with started(2, partial(part, tmp_path)) as ranks:
        assert ranks == Ranks(0, 2)
        average, other = trained(ranks, work=tmp_path / "work")
    assert close(alone.state_dict(), average.state_dict())
    assert same(load_file(tmp_path / "second.safetensors"), average.state_dict())
    assert other.train == pytest.approx(curve.train, rel=1e-4)
    assert other.validation == pytest.approx(curve.validation, rel=1e-4)


def fails(ranks):
    raise ValueError("by hand")


def test_a_process_that_fails_does_not_leave_the_others_waiting():
    pytest.importorskip("accelerate")
    with pytest.raises(RuntimeError), started(2, fails) as ranks:
        trained(ranks)


def test_one_gpu_takes_the_parts_one_after_the_other(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with started(2, fails) as ranks:
        assert ranks == ALONE
        assert list(ranks.own(2)) == [0, 1]


def test_without_accelerate_it_is_said_what_is_needed(monkeypatch):
    import builtins

    real = builtins.__import__

    def without(name, *rest):
        if name == "accelerate":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with (
        pytest.raises(UserError, match=r"training.devices above 1 needs accelerate: .*\[devices\]"),
        started(2, fails),
    ):
        pass
