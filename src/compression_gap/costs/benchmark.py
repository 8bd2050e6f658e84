"""Training steps measured on this machine: each distinct policy at its batch size, on random data, for a few steps.

What was measured is kept in the store, by the machine's name, so that a later plan shows it at once. The steps are
those of the training loop itself (``nn.train``), gather, optimizer and average included; only the data is random.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..records import read_object
from ..store.store import Store, disk_error, write_json
from .estimate import FEATURES, PlannedPolicy
from .records import Measured, MeasuredStep

if TYPE_CHECKING:
    import torch

    from ..policies.policy import PolicyModule, PolicySpec
    from ..tokenizers import ActionTokenizer
    from .costs import Shape

FILE = "measured-steps.json"
WARM = 1  # steps before the clock starts
STEPS = 6  # at most, after these
SECONDS = 5.0  # after which the two steps that are needed suffice
ROWS = 64  # frames of random data: steps gather from them
TRAINED_FEATURES = 64  # of resnet18
CHUNKS = 400  # random chunks that a tokenizer is fitted on


def read_measured(store: Store) -> Measured | None:
    """This machine's measurements, if there are any. Raises ``UserError`` if their file is damaged."""
    return _file(store).get(platform.node())


def _file(store: Store) -> dict[str, Measured]:
    """All machines' measurements, by name."""
    path = store.root / FILE
    try:
        return {
            name: Measured(**{**m, "steps": {key: MeasuredStep(**s) for key, s in m["steps"].items()}})
            for name, m in read_object(path).items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); remove it and measure again with --measure") from error


def measure_steps(
    policies: Sequence[PlannedPolicy],
    store: Store,
    progress: Callable[[int, int, str], None] = lambda done, total, label: None,
) -> Measured:
    """Measure what was not measured yet on this machine and its device; returns ``read_measured``.

    Policies whose weights are needed for a step (pretrained encoders that are trained) are left out.
    """
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    everyone, name = _file(store), platform.node()
    own = Measured(device, torch.get_num_threads(), str(torch.__version__), {})
    if (old := everyone.get(name)) is not None and replace(old, steps={}) == own:
        own = old
    todo = {p.measure_key: p for p in policies if p.measure_key not in own.steps and _can(p)}
    for done, (key, policy) in enumerate(todo.items()):
        label = f"{policy.action} · {policy.shape.encoder} · {policy.shape.size}"
        progress(done, len(todo), label)
        step = MeasuredStep(step_seconds(policy), label, policy.batch_size)
        own = replace(own, steps={**own.steps, key: step})
        try:
            write_json(store.root / FILE, {n: asdict(m) for n, m in {**everyone, name: own}.items()})
        except OSError as error:
            raise disk_error(error, store.root) from error
    return own


def _can(policy: PlannedPolicy) -> bool:
    return policy.costs.parameters is not None and "+finetune" not in policy.shape.encoder


def step_seconds(policy: PlannedPolicy) -> float:
    """Median seconds of a training step of this policy on the device at hand."""
    import torch

    from ..nn import Interrupted, Schedule, train

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    module, loss = _random_training(policy.shape, device)
    stamps: list[float] = []

    def stamped(of: torch.nn.Module, rows: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        if device.type == "cuda":
            torch.cuda.synchronize()
        stamps.append(time.perf_counter())
        value: torch.Tensor = loss(of, rows, rng)
        return value

    def enough() -> bool:
        return len(stamps) > WARM + 2 and stamps[-1] - stamps[WARM] > SECONDS

    schedule = Schedule(WARM + STEPS + 1, policy.batch_size, policy.lr, validations=1)
    with contextlib.suppress(Interrupted):
        train(
            module, stamped, ROWS, 1, schedule,
            validation_loss=loss, seed=0, device=device,
            encoder_parameters=list(module.adapter.networks.parameters()), should_stop=enough,
        )  # fmt: skip
    return float(np.median(np.diff(stamps[WARM:])))


@dataclass(frozen=True)
class HeadSpeed:
    """Seconds of a training step (batch of 128) and of sampling one chunk, at size xs on the device at hand."""

    action: str
    step_seconds: float
    sample_seconds: float


def head_speed(action: str) -> HeadSpeed:
    """Train a few steps of a small policy on random data, and sample from it: whatever the device cannot do is raised."""
    import torch

    from ..study.file import Factors, Study
    from ..study.plan import make_plan
    from .estimate import planned_policies

    factors = Factors(encoder=("retina-4",), action=(action,), seed=(0,))
    (policy,) = planned_policies(
        make_plan(Study(name="speed", suite="channel", factors=factors, limits=False))
    )
    step = step_seconds(policy)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module, _ = _random_training(policy.shape, device)
    with torch.no_grad():
        frames = torch.zeros(1, policy.shape.n_obs_steps, 1, FEATURES, device=device)
        proprio = torch.zeros(1, policy.shape.n_obs_steps, policy.shape.proprio_dim, device=device)
        context = module.eval().adapter(frames, proprio, torch.zeros(1, dtype=torch.int64, device=device))
        for _ in range(2):  # the first call loads what it needs
            begun = time.perf_counter()
            module.head.sample(context, [0]).chunk.float().cpu()
    return HeadSpeed(action, step, time.perf_counter() - begun)


def _random_training(shape: Shape, device: torch.device) -> tuple[PolicyModule, Any]:
    """A new policy of that shape, and its loss on random frames."""
    import torch

    from ..demos import Normaliser
    from ..policies.policy import PolicyModule
    from ..policies.train import Split, TrainingData, _retokenizer

    rng = np.random.default_rng(0)
    chunks = np.cumsum(rng.normal(0, 0.1, (CHUNKS, shape.horizon, shape.action_dim)), 1).astype(np.float32)
    tokenizer = _tokenizer(shape, chunks)
    spec = _spec(shape)
    normaliser = Normaliser.fit(chunks.reshape(-1, shape.action_dim))
    module = PolicyModule(spec, normaliser, tokenizer, instructions=_instructions(shape)).to(device)
    cameras, size = shape.cameras, shape.image_size
    if spec.encoder == shape.encoder != "blind":
        features = torch.randint(256, (ROWS, cameras, size, size, 3), dtype=torch.uint8)
    else:
        features = torch.randn(ROWS, cameras, spec.feature_dim).half()
    tokens = lengths = None
    if shape.codes is not None:
        vocabulary = min(shape.codes[1], *tokenizer.codebook_sizes) if tokenizer else shape.codes[1]
        tokens = torch.randint(vocabulary, (ROWS, shape.codes[0]), device=device)
        lengths = torch.full((ROWS,), shape.codes[0], device=device)
    h = shape.horizon
    rows = torch.arange(ROWS, device=device)[:, None]
    split = Split(
        frames=(rows - torch.arange(shape.n_obs_steps, device=device)).clamp_min(0),
        actions=(rows + torch.arange(h, device=device)) % ROWS,
        valid=torch.ones(ROWS, h, dtype=torch.bool, device=device),
        task=torch.zeros(ROWS, dtype=torch.int64, device=device),
        tokens=tokens,
        lengths=lengths,
        coded=torch.randn(ROWS, h, shape.action_dim, device=device),
    )
    data = TrainingData(
        features=features.to(device),
        proprio=torch.randn(ROWS, shape.proprio_dim, device=device),
        actions=torch.randn(ROWS, shape.action_dim, device=device),
        splits={"train": split},
        retokenize=_retokenizer(tokenizer, "train-as-published" if shape.retokenize else "eval"),
    )
    return module, data.loss("train")


def _spec(shape: Shape) -> PolicySpec:
    """The specification. Of a frozen encoder a training sees nothing but features: ``blind`` stands for any."""
    from ..encoders.registry import is_trained
    from ..policies.policy import PolicySpec

    trained = is_trained(shape.encoder)
    return PolicySpec(
        sim="measured",
        encoder=shape.encoder if trained else "blind",
        head=shape.head,
        size=shape.size,
        horizon=shape.horizon,
        n_obs_steps=shape.n_obs_steps,
        tasks=tuple(map(str, range(shape.tasks))),
        cameras=tuple(map(str, range(shape.cameras))),
        image_size=shape.image_size,
        feature_dim=TRAINED_FEATURES if trained else FEATURES,
        proprio_dim=shape.proprio_dim,
        action_dim=shape.action_dim,
        options=dict(shape.options),
        task=shape.task,
        crop=dict(shape.crop) if trained and shape.crop else None,
    )


def _instructions(shape: Shape) -> Any:
    if shape.task != "text" or shape.text_dim is None:
        return None
    from ..encoders.pin import TextPin
    from ..encoders.text import Instructions

    table = np.random.default_rng(0).normal(size=(shape.tasks, shape.text_dim)).astype(np.float32)
    nowhere = TextPin(
        encoder="measured",
        source={},
        model_type="",
        config={},
        feature_dim=shape.text_dim,
        tokenizer={},
        length=0,
    )
    return Instructions(tuple(map(str, range(shape.tasks))), table, nowhere)


def _tokenizer(shape: Shape, chunks: np.ndarray) -> ActionTokenizer | None:
    """The policy's tokenizer, fitted for one step where it has a network: its weights cost what they cost."""
    if shape.tokenizer is None:
        return None
    from ..tokenizers import make_tokenizer, tokenizer_entry

    made = make_tokenizer(shape.tokenizer, **shape.tokenizer_options)
    how: dict[str, Any] = {}
    if tokenizer_entry(shape.tokenizer).trained:
        how = {"seed": 0, "steps": 1, "batch_size": 8, "lr": 1e-3}
    valid = np.ones(chunks.shape[:2], bool)
    made.fit(chunks, valid, validation=(chunks[:20], valid[:20]), **how)
    return made
