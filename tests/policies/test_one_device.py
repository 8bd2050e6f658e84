"""No GPU is needed to see that all of a training and of sampling happens on one device, nor that bfloat16 trains.

Tensors are shapes on a device that is not the CPU (torch's fake tensors on "meta"): an operation on tensors of two devices is
an error there as it is on a GPU, and a value that the host asks for is one, too.
"""

from dataclasses import fields, is_dataclass, replace

import pytest
import torch
import yaml
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from compression_gap.costs.benchmark import _random_training
from compression_gap.costs.estimate import planned_policies
from compression_gap.policies.train import TrainingData
from compression_gap.study.file import parse_study
from compression_gap.study.plan import make_plan

CONTINUOUS = ("diffusion", "flow", "regression")
ACTIONS = (*CONTINUOUS, "oat", "bins", "fast", "rvq", "quest", "oat-hybrid")
STUDY = {
    "name": "devices",
    "suite": "channel",
    "cameras": {"image_size": 48},
    "factors": {"encoder": ["retina-4", "resnet18"], "action": list(ACTIONS), "seed": [0], "demos": [6]},
    "policy": {"sampling_steps": 3},
    "tokenizer": {"steps": 1, "batch_size": 8},
    "limits": False,
    "references": False,
}
DEVICE = torch.device("meta")


@pytest.fixture(scope="module")
def planned():
    """The shapes of all policies, by action and encoder."""
    plan = make_plan(parse_study(yaml.safe_dump(STUDY), "devices"))
    return {(p.shape.head + str(p.shape.tokenizer), p.shape.encoder): p.shape for p in planned_policies(plan)}


def made(planned, action, encoder):
    """A policy of random weights, and the random frames of its training, on the CPU."""
    plan = make_plan(parse_study(yaml.safe_dump(STUDY), "devices"))
    (cell,) = [c for c in plan.cells if (c.action, c.encoder) == (action, encoder)]
    shape = planned[
        cell.policy.head + str(cell.policy.tokenizer and cell.policy.tokenizer.tokenizer), encoder
    ]
    module, loss = _random_training(shape, torch.device("cpu"))
    (data,) = [c.cell_contents for c in loss.__closure__ if isinstance(c.cell_contents, TrainingData)]
    return module, data


def moved(mode, of):
    """Tensors, and those in dictionaries and records, as shapes on the device."""
    if isinstance(of, torch.Tensor):
        return FakeTensor(mode, torch.empty_like(of, device="meta"), DEVICE)
    if isinstance(of, dict):
        return {name: moved(mode, value) for name, value in of.items()}
    if is_dataclass(of):
        return replace(of, **{f.name: moved(mode, getattr(of, f.name)) for f in fields(of)})
    return of


def adopt(mode, module):
    """Put a module's parameters and buffers there; what it holds besides stays where it is."""
    for own in module.modules():
        for name, value in own._parameters.items():
            if value is not None:
                own._parameters[name] = torch.nn.Parameter(moved(mode, value.data), value.requires_grad)
        for name, value in own._buffers.items():
            if value is not None:
                own._buffers[name] = moved(mode, value)


def test_two_devices_are_an_error_here():
    with FakeTensorMode() as mode:
        there = FakeTensor(mode, torch.empty(3, 4, device="meta"), DEVICE)
        for mixed in (
            lambda: there + torch.ones(3, 4),
            lambda: torch.nn.functional.linear(there, torch.ones(2, 4)),
        ):
            with pytest.raises(RuntimeError, match="device"):
                mixed()


@pytest.mark.parametrize("encoder", ["retina-4", "resnet18"])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_training_step_is_all_on_one_device(planned, action, encoder):
    module, data = made(planned, action, encoder)
    mode = FakeTensorMode()
    adopt(mode, module)
    data = moved(mode, data)
    with mode:
        rows = torch.randint(64, (8,), device=DEVICE)
        value = data.loss("train")(module.train(), rows, torch.Generator())
        assert (value.shape, value.device) == ((8,), DEVICE)
        value.mean().backward()
    trained = [p for p in module.parameters() if p.requires_grad]
    assert trained
    assert all(p.grad is not None and (p.grad.shape, p.grad.device) == (p.shape, DEVICE) for p in trained)


@pytest.mark.parametrize("action", CONTINUOUS)
def test_a_chunk_is_sampled_on_one_device(planned, action, monkeypatch):
    monkeypatch.setattr(
        "compression_gap.policies.denoiser.row_generators",
        lambda seeds, device: [torch.Generator().manual_seed(s) for s in seeds],
    )
    module, data = made(planned, action, "retina-4")
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # torch.tensor(…, device="meta") is none
    adopt(mode, module)
    data = moved(mode, data)
    with mode, torch.no_grad():
        frames = torch.zeros(5, 2, dtype=torch.int64, device=DEVICE)
        task = torch.zeros(5, dtype=torch.int64, device=DEVICE)
        context = module.eval().adapter(data.features[frames], data.proprio[frames], task)
        chunk = module.head.sample(context, [1, 2, 3, 4, 5]).chunk
    assert (chunk.shape, chunk.device) == ((5, 16, 2), DEVICE)


@pytest.mark.parametrize("action", ACTIONS)
def test_half_precision_gives_the_loss_and_the_gradient_of_full_precision(planned, action):
    """As on a GPU, under autocast: within what bfloat16's eight bits leave."""
    module, data = made(planned, action, "retina-4")
    rows, found = torch.arange(64), []
    for half in (False, True):
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            torch.manual_seed(0)
            value = data.loss("train")(module.eval(), rows, torch.Generator().manual_seed(0)).mean()
        value.backward()
        gradient = torch.cat([p.grad.float().ravel() for p in module.parameters() if p.grad is not None])
        found.append((float(value), gradient))
    (full, exact), (rough, near) = found
    assert rough == pytest.approx(full, rel=0.02)
    assert torch.isfinite(near).all()
    assert torch.nn.functional.cosine_similarity(exact, near, dim=0) > 0.98
