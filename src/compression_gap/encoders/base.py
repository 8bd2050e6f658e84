"""Encoders: camera images → features (cached when frozen) → context tokens.

``Encoder.features`` is what a frozen encoder computes, without parameters that are trained here.
``ContextAdapter`` is the one place where features, proprioception and task become the context, the same for
every encoder: one token per camera and observation step, one proprio token per observation step, one task
token. So all frozen encoders give the policy the same number of tokens.

The task enters in one of three ways (``names.CONDITIONINGS``):
* "embedding": a learned vector per task, as a token of its own.
* "index": its number, as one more number of the robot's state at every step, scaled to [−1, 1] over the tasks;
  there is no task token. So it is in the earlier snapshot of the published code, whose configuration lists the
  task's number among the state ports; the scale is that of its normaliser's default ("limits"): assumed.
* "text": a frozen text tower's embedding of the instruction (``text.py``), through a trained linear layer, as a
  token of its own.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..demos.rounding import is_constant
from ..sims import Observation


class Encoder(Protocol):
    """What the program asks of an encoder."""

    name: str
    needs_images: bool
    frozen: bool  # its features can be cached
    dtype: type[np.generic]  # of the cached features
    std_floor: float  # in the features' units: dimensions that vary less are not blown up when standardised
    feature_dim: int  # of a camera's features, or of the network's vectors; 0: as many as the data has

    def features(self, obs: Observation) -> np.ndarray:
        """Features [B, T, C, ...] with C cameras; float for frozen encoders, the images for trained ones.

        An encoder that reads ``obs.task`` has an attribute ``tasks``: the names that these numbers count.
        """

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """The trained part, features [M, ...] of one camera → vectors [M, d]; None if frozen.

        Without ``weights`` it need not hold those of a checkpoint: a policy's own are put in their place.
        """


class InstructionToken(nn.Module):
    """Task numbers [B] → tokens [B, width]: a linear layer on the instructions' embeddings, float32 [tasks, d].

    The embeddings have norm 1. Times √d their entries are of the size that a linear layer's first weights are for.
    """

    table: Tensor

    def __init__(self, table: Tensor, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(table.shape[1], width)
        self.register_buffer("table", table.float(), persistent=False)  # its file is that of the instructions

    def forward(self, task: Tensor) -> Tensor:
        """The tokens of these tasks."""
        vectors: Tensor = self.linear(self.table[task] * self.table.shape[1] ** 0.5)
        return vectors


class ContextAdapter(nn.Module):
    """Features [B, T, C, ...], proprio [B, T, p] and task [B] → context tokens [B, T·C + T + 1, width].

    With the task's index there is no task token: [B, T·C + T, width].
    """

    mean: Tensor
    std: Tensor
    proprio_mean: Tensor
    proprio_std: Tensor
    numbers: Tensor | None

    def __init__(
        self,
        encoder: Encoder,
        *,
        cameras: int,
        feature_dim: int,
        proprio_dim: int,
        tasks: int,
        n_obs_steps: int,
        width: int,
        weights: bool = True,
        conditioning: str = "embedding",
        instructions: Tensor | None = None,
    ) -> None:
        """``instructions``: their embeddings float32 [tasks, d], for the conditioning "text"."""
        super().__init__()
        indexed = conditioning == "index"
        networks = [encoder.network(weights=weights) for _ in range(cameras)]
        self.networks = nn.ModuleList(n for n in networks if n is not None)
        self.std_floor = encoder.std_floor
        self.register_buffer("mean", torch.zeros(cameras, feature_dim))
        self.register_buffer("std", torch.ones(cameras, feature_dim))
        self.register_buffer("proprio_mean", torch.zeros(proprio_dim))
        self.register_buffer("proprio_std", torch.ones(proprio_dim))
        self.visual = nn.Sequential(nn.Linear(feature_dim, width), nn.GELU(), nn.Linear(width, width))
        own = nn.Linear(proprio_dim + indexed, width)
        self.proprio = nn.Sequential(own, nn.GELU(), nn.Linear(width, width))
        self.task: nn.Module | None = None
        if conditioning == "embedding":
            self.task = nn.Embedding(tasks, width)
        elif conditioning == "text" and instructions is not None and len(instructions) >= tasks:
            self.task = InstructionToken(instructions, width)
        elif not indexed:
            raise ValueError(f"the conditioning '{conditioning}' on {tasks} tasks needs their instructions")
        numbers = torch.linspace(-1, 1, tasks) if tasks > 1 else torch.zeros(1)
        self.register_buffer("numbers", numbers if indexed else None, persistent=False)
        self.visual_position = nn.Parameter(0.02 * torch.randn(n_obs_steps, cameras, width))
        self.proprio_position = nn.Parameter(0.02 * torch.randn(n_obs_steps, width))
        self.tokens = n_obs_steps * cameras + n_obs_steps + (self.task is not None)

    def fit(self, features: Tensor | None, proprio: Tensor) -> None:
        """Take the training split's statistics: features [F, C, d] (None if trained), proprio [F, p].

        What is constant up to rounding is not blown up: ``demos.rounding``.
        """
        if features is not None:
            std, mean = torch.std_mean(features.float(), dim=0)
            self.mean.copy_(mean)
            constant, unit = _constant(features)
            noise = constant & (std > self.std_floor)
            self.std.copy_(torch.where(noise, unit, std.clamp_min(self.std_floor)))
        std, mean = torch.std_mean(proprio.float(), dim=0)
        self.proprio_mean.copy_(mean)
        constant, unit = _constant(proprio)
        self.proprio_std.copy_(torch.where(constant, unit, std))

    def forward(self, features: Tensor, proprio: Tensor, task: Tensor) -> Tensor:
        """The context: visual tokens (oldest step first), proprio tokens, the task token if there is one."""
        b, t = proprio.shape[:2]
        if self.networks:
            per_camera = [n(features[:, :, c].flatten(0, 1)) for c, n in enumerate(self.networks)]
            vectors = torch.stack(per_camera, 1).unflatten(0, (b, t))
        else:
            vectors = (features.float() - self.mean) / self.std
        seen = self.visual(vectors) + self.visual_position
        robot = (proprio - self.proprio_mean) / self.proprio_std
        if self.numbers is not None:
            robot = torch.cat([robot, self.numbers[task][:, None, None].expand(b, t, 1)], -1)
        tokens = [seen.flatten(1, 2), self.proprio(robot) + self.proprio_position]
        if self.task is not None:
            tokens.append(self.task(task)[:, None])
        return torch.cat(tokens, 1)


def _constant(values: Tensor) -> tuple[Tensor, Tensor]:
    """Which columns of [N, ...] are constant up to rounding, and the unit of those: bool and float32 [...]."""
    width = (values.amax(0).float() - values.amin(0).float()).clamp_min(1.0)
    return torch.from_numpy(is_constant(values.cpu().numpy())).to(values.device), width
