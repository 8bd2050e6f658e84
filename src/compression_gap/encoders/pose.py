"""``pose-K``: the controlled ladder, in which the quality of pretraining is all that changes.

A small residual network predicts the simulator's true state from one frame; it is pretrained on K frames, frozen,
and its last hidden layer (128-d, after the ReLU) is the feature. One network per camera, each from the same
initial weights, each trained on what its camera saw of the same K moments.

Targets are the dimensions of the state that move within a task, standardised within the task, with a linear head
for each task: a network gets nothing for telling tasks apart. The heads are left behind.

A prepared folder holds ``encoder.safetensors`` (all cameras' networks) and ``encoder.json``.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..demos.frames import FrameSet
from ..errors import UserError
from ..nn import Schedule, train
from ..records import read_object, whole
from ..sims import Observation
from .ladder import CHANNELS, FEATURE_DIM, PRETRAINING, SMALLEST, frames_of
from .state import Scale

BATCH = 64  # frames at a time; larger batches fall out of the processor's cache
VALIDATIONS = 10


class Block(nn.Module):
    """Two 3 × 3 convolutions with a shortcut (He et al. 2016), halving the side; GroupNorm."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, 2, bias=False)
        self.norm1, self.norm2, self.norm3 = (nn.GroupNorm(c_out // 8, c_out) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """[M, c_in, h, w] → [M, c_out, h / 2, w / 2]."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.norm3(self.shortcut(x)))


class PoseNetwork(nn.Module):
    """uint8 images [M, h, w, 3] → features [M, 128]. The last map is flattened: places matter here."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS[0], 5, 2, 2)
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in pairwise(CHANNELS)))
        side = image_size
        for _ in CHANNELS:
            side = (side + 1) // 2
        self.last = nn.Linear(CHANNELS[-1] * side * side, FEATURE_DIM)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on a CPU

    def forward(self, images: Tensor) -> Tensor:
        """The features."""
        x = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        x = self.blocks(torch.relu(self.stem(x)))
        return torch.relu(self.last(x.flatten(1)))


def initial_network(image_size: int, seed: int) -> PoseNetwork:
    """The weights that pretraining begins with, whatever K; torch's own generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return PoseNetwork(image_size)


def flops(image_size: int) -> int:
    """Floating point operations of one frame and camera (a multiplication and an addition are two)."""
    from torch.utils.flop_counter import FlopCounterMode

    network = PoseNetwork(image_size).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, image_size, image_size, 3, dtype=torch.uint8))
    return int(counter.get_total_flops())


class Pose:
    """A frozen encoder of the ladder, read from its prepared folder."""

    needs_images, frozen, feature_dim = True, True, FEATURE_DIM
    std_floor = 1e-2
    dtype: type[np.generic] = np.float16

    def __init__(self, folder: Path) -> None:
        """Raises ``UserError`` if the folder holds no such encoder."""
        try:
            about = read_object(folder / "encoder.json")
            self.name, self.cameras = str(about["name"]), tuple(about["cameras"])
            self.image_size = whole(about, "image_size", 1, 2**12)
            tensors = load_file(folder / "encoder.safetensors")
            networks = []
            for camera in self.cameras:
                network, prefix = PoseNetwork(self.image_size), f"{camera}/"
                own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
                network.load_state_dict(own)
                networks.append(network.eval().requires_grad_(False))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder} holds no pose encoder that can be read: {error}") from error
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.networks = [n.to(device) for n in networks]
        self.device = device

    @torch.no_grad()
    def features(self, obs: Observation) -> np.ndarray:
        """Features float32 [B, T, C, 128]. Raises ``UserError`` for other cameras than it was made for."""
        if tuple(obs.images) != self.cameras:
            raise UserError(
                f"{self.name} was pretrained for the cameras {', '.join(self.cameras)} in this order, "
                f"not for {', '.join(obs.images)}"
            )
        out = []
        for network, images in zip(self.networks, obs.images.values(), strict=True):
            frames = (
                torch.from_numpy(np.require(images, requirements=("C", "W"))).flatten(0, 1).to(self.device)
            )
            found = torch.cat([network(part) for part in frames.split(BATCH)])
            out.append(found.cpu().numpy().reshape(*images.shape[:2], FEATURE_DIM))
        return np.stack(out, axis=2)

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """Nothing is trained with the policy."""
        return None


class Pretrained(nn.Module):
    """A network with its heads, all tasks' side by side: uint8 images → standardised states [M, D]."""

    def __init__(self, network: PoseNetwork, targets: int) -> None:
        super().__init__()
        self.network, self.head = network, nn.Linear(FEATURE_DIM, targets)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """The predictions of all heads."""
        out: Tensor = self.head(self.network(images))
        return out


@dataclass(frozen=True)
class Targets:
    """Standardised states of a split. A row's entries in other tasks' heads weigh nothing."""

    values: Tensor  # float32 [N, D]
    weight: Tensor  # float32 [N, D]; sums to 1 over the D of a row


def _targets(sets: Sequence[FrameSet], scales: Sequence[Scale], device: torch.device) -> Targets:
    total, at = sum(len(s.moving) for s in scales), 0
    rows = sum(map(len, sets))
    values, weight = np.zeros((rows, total), np.float32), np.zeros((rows, total), np.float32)
    row = 0
    for frames, scale in zip(sets, scales, strict=True):
        block = slice(row, row + len(frames)), slice(at, at + len(scale.moving))
        values[block] = scale.standardise(frames.state)
        weight[block] = 1 / max(1, len(scale.moving))
        row, at = row + len(frames), at + len(scale.moving)
    return Targets(torch.from_numpy(values).to(device), torch.from_numpy(weight).to(device))


def prepare(
    name: str,
    sets: Sequence[FrameSet],
    validation: Sequence[FrameSet],
    out: Path,
    *,
    cameras: Sequence[str],
    image_size: int,
    pretraining: Mapping[str, Any] = PRETRAINING,
    work: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Mapping[str, Any]:
    """Pretrain the encoder ``name`` and write its folder ``out``; returns its record.

    ``sets``: each task's share of the frames; ``validation``: each task's frames that are not trained on. Both
    are empty for pose-0. Raises ``UserError`` for images that are too small.
    """
    if image_size < SMALLEST:
        raise UserError(f"{name} needs images of {SMALLEST} px or more: raise cameras.image_size")
    if sum(map(len, sets)) != frames_of(name):
        raise ValueError(f"{sum(map(len, sets))} frames for {name}")
    begun = time.perf_counter()
    tensors: dict[str, Tensor] = {}
    record: dict[str, Any] = {"frames": frames_of(name), "flops": flops(image_size), "cameras": {}}
    for number, camera in enumerate(cameras):
        network = initial_network(image_size, pretraining["seed"])
        record["parameters"] = sum(p.numel() for p in network.parameters())
        if sets:
            network, told = _pretrain(
                network,
                sets,
                validation,
                camera,
                pretraining,
                work=None if work is None else work / f"camera-{number}",
                should_stop=should_stop,
                progress=_from(number * pretraining["steps"], len(cameras) * pretraining["steps"], progress),
            )
            record["cameras"][camera] = told
        tensors |= {f"{camera}/{n}": t.detach().cpu().contiguous() for n, t in network.state_dict().items()}
    save_file(tensors, out / "encoder.safetensors")
    about = {"name": name, "cameras": list(cameras), "image_size": image_size}
    (out / "encoder.json").write_text(json.dumps(about, indent=1, allow_nan=False))
    return {**record, "seconds": time.perf_counter() - begun}


def _from(before: int, total: int, progress: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """Progress of one camera as a part of the whole."""
    return lambda done, _: progress(before + done, total)


def _pretrain(
    network: PoseNetwork,
    sets: Sequence[FrameSet],
    validation: Sequence[FrameSet],
    camera: str,
    pretraining: Mapping[str, Any],
    *,
    work: Path | None,
    should_stop: Callable[[], bool],
    progress: Callable[[int, int], None],
) -> tuple[PoseNetwork, Mapping[str, Any]]:
    """The averaged network after all steps, and its curve and R² per task and dimension."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    scales = [Scale.fit(s.state) for s in sets]

    def images(of: Sequence[FrameSet]) -> Tensor:
        return torch.from_numpy(np.concatenate([s.images[camera] for s in of])).to(device)

    seen = {"train": images(sets), "validation": images(validation)}
    targets = {"train": _targets(sets, scales, device), "validation": _targets(validation, scales, device)}

    def loss(split: str) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
        def of(module: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
            wanted = targets[split]
            error = (module(seen[split][rows]).float() - wanted.values[rows]) ** 2
            return (error * wanted.weight[rows]).sum(1)

        return of

    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
    module = Pretrained(network, targets["train"].values.shape[1]).to(device)
    average, curve = train(
        module,
        loss("train"),
        len(seen["train"]),
        len(seen["validation"]),
        Schedule(
            steps=pretraining["steps"],
            batch_size=pretraining["batch_size"],
            lr=pretraining["lr"],
            weight_decay=pretraining["weight_decay"],
            validations=VALIDATIONS,
        ),
        validation_loss=loss("validation"),
        seed=pretraining["seed"],
        device=device,
        work=work,
        should_stop=should_stop,
        progress=progress,
    )
    assert isinstance(average, Pretrained)
    with torch.no_grad():
        predicted = torch.cat([average(p) for p in seen["validation"].split(BATCH)]).float().cpu().numpy()
    r2, row, at = {}, 0, 0
    for frames, scale in zip(validation, scales, strict=True):
        block = predicted[row : row + len(frames), at : at + len(scale.moving)]
        names = frames.state_names or tuple(f"state_{i}" for i in range(frames.state.shape[1]))
        r2[frames.task] = {
            names[d]: _r2(scale.standardise(frames.state)[:, i], block[:, i])
            for i, d in enumerate(scale.moving)
        }
        row, at = row + len(frames), at + len(scale.moving)
    known = [v for task in r2.values() for v in task.values() if v is not None]
    told = {"curve": vars(curve), "r2": r2, "mean_r2": float(np.mean(known)) if known else None}
    return average.network, told


def _r2(true: np.ndarray, predicted: np.ndarray) -> float | None:
    """1 − Σ(y − ŷ)² / Σ(y − ȳ)²; None where y does not vary."""
    y, p = np.asarray(true, np.float64), np.asarray(predicted, np.float64)
    spread = float(((y - y.mean()) ** 2).sum())
    if spread == 0 or not math.isfinite(spread):
        return None
    return 1 - float(((y - p) ** 2).sum()) / spread
