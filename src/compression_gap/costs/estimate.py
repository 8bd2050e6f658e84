"""What a study would cost before any of it is built: parameters, operations, disk, memory, hours.

Parameters and operations follow from shapes (``costs.py``), with no weights and no demonstrations at hand. Hours come
from a training step that was measured on this machine (``benchmark.py``), where one was; beside them stands what a
GPU would take under ``GPU``, an assumption that is printed with the number. Bytes follow from shapes and the number
of frames, which is assumed as long as the demonstrations are not there.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..artifacts.episodes import Episodes
from ..artifacts.features import Features
from ..artifacts.policy import TrainedPolicy
from ..artifacts.tokens import TargetTokens
from ..encoders.pin import Pin, TextPin
from ..encoders.registry import is_trained
from ..nn.sizes import SIZES
from ..policies.registry import action_name
from ..store.store import Store, digest
from ..study.base import Dimensions, StudyPlan
from .costs import Costs, Shape, policy_costs
from .encoders import TEXT_WIDTHS, EncoderCosts, encoder_costs
from .records import (
    EncoderSummary,
    Estimate,
    FeatureCosts,
    Frames,
    GpuHours,
    MachineHours,
    Measured,
    PolicyCosts,
    RolloutCosts,
    TrainingCosts,
)

# One process and core: seconds of a control step, frames at the decision points and resets included. Rough; LIBERO's
# is that of benchmarks/libero_speed.py on a busy machine of two cores.
SECONDS_PER_SIM_STEP = {"channel": 0.0005, "metaworld": 0.004, "libero": 0.03}
OTHER_SIM = 0.01
FEATURES = 1024  # of the frozen encoder at which training steps are measured


@dataclass(frozen=True)
class Gpu:
    """An assumed GPU: what it sustains in large products, and how long a step takes however small it is."""

    flops: float = 40e12  # a second, bfloat16: an eighth of an A100's peak, a twenty-fifth of an H200's
    step_seconds: float = 0.004  # optimizer, average, gather
    layer_seconds: float = 0.003  # a layer's kernels forward and backward, started one after another
    decision_seconds: float = 0.05  # published latencies: 10 to 42 ms

    def training_step(self, flops: int, layers: int) -> float:
        """Seconds of a training step."""
        return max(flops / self.flops, self.step_seconds + self.layer_seconds * layers)

    @property
    def words(self) -> str:
        """The assumption in a sentence."""
        return (
            f"assumed, not measured: {self.flops / 1e12:.0f} TFLOP/s sustained, and at least "
            f"{1000 * self.step_seconds:.0f} ms a training step and {1000 * self.layer_seconds:.0f} ms a layer of it"
        )


GPU = Gpu()


@dataclass(frozen=True)
class PlannedPolicy:
    """A training of the plan."""

    key: str
    action: str
    shape: Shape
    costs: Costs
    batch_size: int
    steps: int
    copies: int  # the final weights and the kept checkpoints
    lr: float

    @property
    def measure_key(self) -> str:
        """Equal for trainings whose step takes the same time.

        Frozen encoders differ by one linear layer for the features, so that one of ``FEATURES`` stands for all.
        """
        shape = self.shape
        if not is_trained(shape.encoder):
            shape = replace(shape, encoder=f"{FEATURES} features", image_size=0, state_dim=0, crop=None)
        return digest({"shape": asdict(shape), "batch_size": self.batch_size})


def _pin(policy: TrainedPolicy) -> Pin | None:
    """What the policy's checkpoint was resolved to, if it has one and it was."""
    pin = None if policy.prepared is None else policy.prepared.pin
    return pin if isinstance(pin, Pin) else None


def policy_shape(policy: TrainedPolicy, dims: Dimensions) -> Shape:
    """The shape of a planned policy."""
    tokenizer, width = policy.tokenizer, None
    if policy.text is not None:
        pin = policy.text.pin
        width = pin.feature_dim if isinstance(pin, TextPin) else TEXT_WIDTHS.get(pin.encoder)
    return Shape(
        encoder=policy.encoder,
        head=policy.head,
        size=policy.size,
        horizon=policy.horizon,
        n_obs_steps=policy.n_obs_steps,
        tasks=len(policy.tasks),
        cameras=dims.cameras,
        image_size=dims.image_size,
        proprio_dim=dims.proprio_dim,
        action_dim=dims.action_dim,
        state_dim=dims.state_dim,
        options=dict(policy.options),
        task=policy.task,
        text_dim=width,
        crop=policy.crop,
        tokenizer=None if tokenizer is None else tokenizer.tokenizer,
        tokenizer_options={} if tokenizer is None else dict(tokenizer.options),
        retokenize=policy.tokenizer_mode != "eval",
    )


def planned_policies(plan: StudyPlan[Any]) -> list[PlannedPolicy]:
    """Every training of the plan, with its costs."""
    dims, actions = plan.dimensions, {c.policy.key: c for c in plan.cells}
    out = []
    for key, step in plan.steps.items():
        if not isinstance(step, TrainedPolicy):
            continue
        cell = actions.get(key)
        shape = policy_shape(step, dims)
        name = action_name(shape.head, shape.tokenizer)
        if step.target == "coded" and cell is not None and cell.code is not None:
            name += f" trained on {cell.code.name}"
        elif cell is not None and cell.code is not None and shape.tokenizer:
            name = name.replace(shape.tokenizer, cell.code.name)
        training = step.training
        out.append(
            PlannedPolicy(
                key, name, shape, policy_costs(shape, _pin(step)), training["batch_size"],
                training["steps"], 1 + len(step.checkpoints), training["lr"],
            )
        )  # fmt: skip
    return out


def estimate(plan: StudyPlan[Any], store: Store, missing: set[str], measured: Measured | None) -> Estimate:
    """The costs of a plan; hours are of what is ``missing``. ``measured``: ``benchmark.read_measured``."""
    policies, dims = planned_policies(plan), plan.dimensions
    frames, assumed = plan.frames(store)
    seen = _encoders(plan, dims)
    left = [p for p in policies if p.key in missing]
    return Estimate(
        policies=_rows(policies, measured),
        encoders=[
            EncoderSummary(name, s.feature_dim, s.frozen, s.trained, s.flops, plan.absent.get(name))
            for name, s in seen.items()
        ],
        frames=Frames(round(sum(frames.values())), assumed),
        disk=_disk(plan, policies, seen, frames, dims),
        device_memory=_largest(plan, policies, seen, frames, dims),
        training=_training(left, measured),
        features=_features_time(plan, seen, frames, dims, missing),
        rollouts=_rollouts(plan, missing),
        unknown=sorted({f"{p.action} with {p.shape.encoder}" for p in policies if p.costs.sample is None}),
    )


def _encoders(plan: StudyPlan[Any], dims: Dimensions) -> dict[str, EncoderCosts]:
    out = {}
    for step in plan.steps.values():
        if isinstance(step, TrainedPolicy) and (name := step.encoder) not in out:
            out[name] = encoder_costs(
                name,
                image_size=dims.image_size,
                state_dim=dims.state_dim,
                tasks=len(step.tasks),
                crop=plan.study.cameras.cropped(),
                pin=_pin(step),
            )
    return out


def _rows(policies: list[PlannedPolicy], measured: Measured | None) -> list[PolicyCosts]:
    """One row for each encoder, action and size."""
    alike: dict[str, list[PlannedPolicy]] = {}
    for p in policies:
        alike.setdefault(digest([p.action, p.shape.encoder, p.measure_key, p.steps]), []).append(p)
    rows = []
    for p, *others in alike.values():
        step = None if measured is None else measured.steps.get(p.measure_key)
        rows.append(
            PolicyCosts(
                encoder=p.shape.encoder,
                action=p.action,
                size=p.shape.size,
                task=p.shape.task,
                trainings=1 + len(others),
                parameters=p.costs.parameters,
                decision_flops=p.costs.decision,
                encoder_flops=p.costs.encoder,
                step_flops=p.costs.step(p.batch_size),
                batch_size=p.batch_size,
                steps=p.steps,
                rough=p.costs.rough,
                step_seconds=None if step is None else step.seconds,
            )
        )
    return rows


def _disk(
    plan: StudyPlan[Any],
    policies: list[PlannedPolicy],
    seen: Mapping[str, EncoderCosts],
    frames: Mapping[str, float],
    dims: Dimensions,
) -> dict[str, int]:
    """Bytes of what a study leaves behind, by kind; encoders of unknown size count as nothing."""
    image = dims.cameras * dims.image_size**2 * 3
    own = 4 * (dims.action_dim + dims.proprio_dim + dims.state_dim)
    features = tokens = 0.0
    for step in plan.steps.values():
        if isinstance(step, Features):
            s = seen.get(step.encoder)
            if s is not None and s.feature_dim is not None:
                scalars = frames[step.demos.key] * dims.cameras * s.feature_dim
                features += scalars * s.scalar_bytes
        elif isinstance(step, TargetTokens):
            points = sum(frames[d.key] for d in step.demos)
            tokens += points / step.stride * step.horizon * dims.action_dim * 4
    weights = {n: 4 * s.frozen for n, s in seen.items() if s.frozen and not n.startswith("pose-")}
    return {
        "demonstrations": round(sum(frames.values()) * (image + own)),
        "features": round(features),
        "tokens": round(tokens),
        "policies": sum(4 * p.costs.parameters["total"] * p.copies for p in policies if p.costs.parameters),
        "encoder weights": sum(weights.values()),
    }


def _largest(
    plan: StudyPlan[Any],
    policies: list[PlannedPolicy],
    seen: Mapping[str, EncoderCosts],
    frames: Mapping[str, float],
    dims: Dimensions,
) -> int:
    """Bytes that the largest training keeps on its device: features, or the images of a trained encoder."""
    most = 0.0
    for p in policies:
        s, step = seen[p.shape.encoder], plan.steps[p.key]
        assert isinstance(step, TrainedPolicy)
        own = sum(frames[d.key] for d in step.demos)
        if is_trained(p.shape.encoder):
            scalars = dims.cameras * dims.image_size**2 * 3
        else:
            scalars = dims.cameras * (s.feature_dim or 0) * s.scalar_bytes
        most = max(most, own * scalars)
    return round(most)


def _training(left: list[PlannedPolicy], measured: Measured | None) -> TrainingCosts:
    known = [(p, flops) for p in left if (flops := p.costs.step(p.batch_size)) is not None]
    seconds = sum(p.steps * GPU.training_step(flops, SIZES[p.shape.size].layers) for p, flops in known)
    here = None
    if measured is not None:
        found = [(p, measured.steps.get(p.measure_key)) for p in left]
        here = MachineHours(
            machine=platform.node(),
            device=measured.device,
            threads=measured.threads,
            hours=sum(p.steps * f.seconds for p, f in found if f) / 3600,
            unmeasured=sum(f is None for _, f in found),
        )
    return TrainingCosts(
        trainings=len(left),
        steps=sum(p.steps for p in left),
        flops=sum(p.steps * flops for p, flops in known),
        unknown=len(left) - len(known),
        gpu=GpuHours(seconds / 3600, GPU.words),
        measured=here,
    )


def _features_time(
    plan: StudyPlan[Any],
    seen: Mapping[str, EncoderCosts],
    frames: Mapping[str, float],
    dims: Dimensions,
    missing: set[str],
) -> FeatureCosts:
    """Operations of computing the features once, and a GPU's hours for them."""
    flops = 0.0
    for key, step in plan.steps.items():
        if not isinstance(step, Features) or key not in missing:
            continue
        s = seen.get(step.encoder)
        if s is not None and s.flops is not None:
            flops += frames[step.demos.key] * dims.cameras * s.flops
    return FeatureCosts(flops, flops / GPU.flops / 3600)


def _rollouts(plan: StudyPlan[Any], missing: set[str]) -> RolloutCosts | None:
    """Episodes to roll out, at most the step limit long; hours of one core, the policy's decisions included."""
    protocol = plan.rolled_out
    if protocol is None:
        return None
    each = len(protocol.episodes())
    runs = [s for k, s in plan.steps.items() if isinstance(s, Episodes) and k in missing]
    physics = protocol.step_limit * SECONDS_PER_SIM_STEP.get(protocol.sim.sim, OTHER_SIM)
    decisions = -(-protocol.step_limit // protocol.execute) * GPU.decision_seconds
    seconds = sum(each * (physics + decisions * (r.policy is not None)) for r in runs)
    return RolloutCosts(each * len(runs), seconds / 3600)
