import math

import pytest
import torch
from torch import nn

from compression_gap.errors import UserError
from compression_gap.nn import Curve, Diverged, Interrupted, Schedule, train
from compression_gap.nn.training import step_seed

CPU = torch.device("cpu")
X = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
Y = X @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]]) + 1


def mean_squares(module, rows, rng):
    """A loss that uses every source of randomness: rows, noise from ``rng``, dropout."""
    x = X[rows] + 0.01 * torch.randn(X[rows].shape, generator=rng)
    return (module(x) - Y[rows]).square().mean(1)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2), nn.Linear(16, 1))


def run(module, schedule, *, loss=mean_squares, seed=3, **options):
    return train(module, loss, 64, 64, schedule, validation_loss=loss, seed=seed, device=CPU, **options)


SHORT = Schedule(steps=30, batch_size=8, lr=1e-2, warmup=5, validations=6)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_training_lowers_the_loss():
    average, curve = run(network(), Schedule(steps=300, batch_size=16, lr=1e-2, warmup=10))
    assert curve.validation[-1] < 0.1 * Y.var().item()
    assert curve.step == list(range(30, 301, 30))
    assert not average.training


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    (first, curve), (again, curve2) = run(network(), SHORT), run(network(), SHORT)
    assert same(first, again)
    assert curve.validation == curve2.validation
    other, _ = run(network(), SHORT, seed=4)
    assert not same(first, other)


@pytest.mark.parametrize("stops", [(7,), (1, 12, 29)])
def test_a_resumed_run_ends_with_the_bits_of_one_that_was_not_stopped(tmp_path, stops):
    module = network()
    slow = list(module[0].parameters())
    expected, curve = run(module, SHORT, encoder_parameters=slow)

    done = 0
    for stop in stops:

        class Counter:
            asked = done

            def __call__(self, stop=stop):
                self.asked += 1
                return self.asked == stop

        # Another seed for the module and for torch: everything must come from the checkpoint and the step.
        resumed = network(0 if done == 0 else 99)
        with pytest.raises(Interrupted):
            run(
                resumed,
                SHORT,
                encoder_parameters=list(resumed[0].parameters()),
                work=tmp_path,
                should_stop=Counter(),
            )
        assert [f.name for f in tmp_path.glob("*.safetensors")] == [f"checkpoint-{stop}.safetensors"]
        done = stop
    last = network(99)
    torch.manual_seed(1234)
    average, curve2 = run(last, SHORT, encoder_parameters=list(last[0].parameters()), work=tmp_path)
    assert same(average, expected)
    assert same(last, module)
    assert (curve2.step, curve2.train, curve2.validation) == (curve.step, curve.train, curve.validation)
    assert curve2.seconds == sorted(curve2.seconds)


def test_a_half_written_checkpoint_does_not_count(tmp_path):
    """Tensors without the JSON that names them are what a crash in between leaves behind."""
    expected, _ = run(network(), SHORT)
    (tmp_path / "checkpoint-9.safetensors").write_bytes(b"torn")
    (tmp_path / "checkpoint.json.tmp").write_text("{")
    average, _ = run(network(), SHORT, work=tmp_path)
    assert same(average, expected)


def test_a_finished_run_asks_nothing_more(tmp_path):
    """A stop that comes with the last step is no interruption."""
    average, curve = run(network(), SHORT, work=tmp_path, should_stop=lambda: False)
    assert curve.step[-1] == 30
    calls = []

    def at_the_end():
        calls.append(1)
        return len(calls) >= 30

    again, _ = run(network(), SHORT, should_stop=at_the_end)
    assert same(again, average)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_loss_is_a_divergence_that_names_its_step(bad):
    def loss(module, rows, rng):
        return mean_squares(module, rows, rng) * (bad if module.training else 1)

    with pytest.raises(Diverged, match=r"diverged at step 5 of 30 .*lower the learning rate") as error:
        run(network(), SHORT, loss=loss)
    assert isinstance(error.value, UserError)


def test_a_bad_loss_at_the_end_is_found_too():
    short = Schedule(steps=7, batch_size=4, lr=1e-2, warmup=1, validations=1)

    def loss(module, rows, rng):
        return mean_squares(module, rows, rng) * math.nan

    with pytest.raises(Diverged, match="step 7 of 7"):
        run(network(), short, loss=loss)


def test_warm_up_and_cosine():
    s = Schedule(steps=1000, batch_size=1, lr=1.0, warmup=10)
    assert s.factor(0) == pytest.approx(0.1)
    assert s.factor(4) == pytest.approx(0.5 * 0.5 * (1 + math.cos(math.pi * 4 / 1000)))
    assert s.factor(250) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert s.factor(500) == pytest.approx(0.5)
    assert s.factor(750) == pytest.approx(0.5 * (1 - math.sqrt(0.5)))
    assert s.factor(1000) == pytest.approx(0, abs=1e-12)


def test_constant_rate_after_the_warm_up():
    s = Schedule(steps=1000, batch_size=1, lr=1.0, warmup=100, schedule="constant")
    assert [s.factor(i) for i in (0, 49, 99, 100, 999)] == [0.01, 0.5, 1, 1, 1]
    assert Schedule(steps=9, batch_size=1, lr=1.0, warmup=0, schedule="constant").factor(0) == 1


def test_encoder_parameters_have_a_rate_of_their_own():
    """One step of Adam moves a weight by the learning rate, whatever its gradient."""
    module = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(0.5)
    schedule = Schedule(
        1, 8, lr=1e-2, encoder_lr=1e-3, warmup=0, weight_decay=0, schedule="constant", validations=1, clip=1e9
    )
    run(module, schedule, encoder_parameters=list(module[0].parameters()))
    moved = [(p - 0.5).abs() for p in module.parameters()]
    for p in moved[:2]:
        torch.testing.assert_close(p, torch.full_like(p, 1e-3), rtol=1e-3, atol=0)
    for p in moved[2:]:
        torch.testing.assert_close(p, torch.full_like(p, 1e-2), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("validation", "expected"),
    [
        ([4.0, 3.0, 2.0, 1.0], False),
        ([4.0, 1.0, 0.995, 0.99], True),
        ([1.0, 1.0, 1.0, 0.97], False),
        ([1.0, 1.0, 1.0, 0.981], True),
        ([1.0, 0.5, 0.6, 0.9], False),  # it rises
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 1.0, 1.0], False),  # the last quarter is two values
        ([8.0, 7.0, 6.0, 5.0, 1.0, 1.0, 1.0, 0.99], True),
        ([-4.0, -5.0, -6.0, -6.5], False),  # a share of the magnitude, also below zero
        ([-6.0, -6.0, -6.0, -6.05], True),
        ([1.0, 1.0, 1.0], False),  # too short to say
        ([], False),
    ],
)
def test_converged(validation, expected):
    assert Curve(validation=validation).converged() is expected


def rows_seen(module, seed):
    steps = []

    def loss(module, rows, rng):
        if module.training:
            steps.append(tuple(rows.tolist()))
        return mean_squares(module, rows, rng)

    train(module, loss, 64, 64, SHORT, validation_loss=mean_squares, seed=seed, device=CPU)
    return dict(enumerate(steps))


def test_rows_depend_on_seed_and_step_alone():
    torch.manual_seed(1)
    a = rows_seen(network(0), 5)
    torch.manual_seed(2)
    b = rows_seen(nn.Linear(4, 1), 5)  # another module draws other numbers, and another number of them
    assert a == b
    c = rows_seen(network(0), 6)
    assert all(a[step] != c[step] for step in a)
    assert len(set(a.values())) == len(a)


def test_step_seeds_differ_by_seed_step_and_purpose():
    seeds = {step_seed(a, b, c) for a in range(10) for b in range(50) for c in range(3)}
    assert len(seeds) == 1500
    assert all(0 <= s < 2**63 for s in seeds)
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)


def test_validation_noise_is_the_same_for_every_seed():
    """A module that learns nothing has the same validation loss at each point, with whatever seed."""
    still = Schedule(steps=6, batch_size=4, lr=0.0, encoder_lr=0.0, weight_decay=0.0, validations=3)
    losses = {v for seed in (0, 1) for v in run(network(), still, seed=seed)[1].validation}
    assert len(losses) == 1


def test_what_is_kept_on_the_way_is_what_a_shorter_training_ends_with():
    """At a constant rate a training's first steps are those of a shorter one; keeping disturbs nothing."""
    how = {"batch_size": 8, "lr": 1e-2, "warmup": 5, "schedule": "constant"}
    kept = {}

    def keep(step, average):
        kept[step] = {n: t.clone() for n, t in average.state_dict().items()}

    whole, _ = run(network(), Schedule(steps=30, **how), keep_at=(7, 20), keep=keep)
    plain, _ = run(network(), Schedule(steps=30, **how))
    assert same(whole, plain)
    assert list(kept) == [7, 20]
    for step, weights in kept.items():
        short, _ = run(network(), Schedule(steps=step, **how))
        assert all(torch.equal(weights[n], t) for n, t in short.state_dict().items())


def test_what_has_diverged_is_not_kept():
    def bad(module, rows, rng):
        return module(X[rows]).square().mean(1) * math.nan

    with pytest.raises(Diverged):
        run(network(), SHORT, loss=bad, keep_at=(3,), keep=lambda *_: pytest.fail("it was kept"))
