"""Encoders: camera images → features (cached when frozen) → context tokens.

``Encoder.features`` is what a frozen encoder computes, without parameters that are trained here.
``ContextAdapter`` is the one place where features, proprioception and task become the context, the same for
every encoder: one token per camera and observation step, one proprio token per observation step, one task
token. So all frozen encoders give the policy the same number of tokens.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..sims import Observation


class Encoder(Protocol):
    """What the program asks of an encoder."""

    name: str
    needs_images: bool
    frozen: bool  # its features can be cached
    dtype: type[np.generic]  # of the cached features
    std_floor: float  # feature dimensions that vary less than this are not blown up when standardised
    feature_dim: int  # of a camera's features, or of the network's vectors; 0: as many as the data has

    def features(self, obs: Observation) -> np.ndarray:
        """Features [B, T, C, ...] with C cameras; float for frozen encoders, the images for trained ones."""

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """The trained part, features [M, ...] of one camera → vectors [M, d]; None if frozen.

        Without ``weights`` it need not hold those of a checkpoint: a policy's own are put in their place.
        """


class ContextAdapter(nn.Module):
    """Features [B, T, C, ...], proprio [B, T, p] and task [B] → context tokens [B, T·C + T + 1, width]."""

    mean: Tensor
    std: Tensor
    proprio_mean: Tensor
    proprio_std: Tensor

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
    ) -> None:
        super().__init__()
        networks = [encoder.network(weights=weights) for _ in range(cameras)]
        self.networks = nn.ModuleList(n for n in networks if n is not None)
        self.std_floor = encoder.std_floor
        self.register_buffer("mean", torch.zeros(cameras, feature_dim))
        self.register_buffer("std", torch.ones(cameras, feature_dim))
        self.register_buffer("proprio_mean", torch.zeros(proprio_dim))
        self.register_buffer("proprio_std", torch.ones(proprio_dim))
        self.visual = nn.Sequential(nn.Linear(feature_dim, width), nn.GELU(), nn.Linear(width, width))
        self.proprio = nn.Sequential(nn.Linear(proprio_dim, width), nn.GELU(), nn.Linear(width, width))
        self.task = nn.Embedding(tasks, width)
        self.visual_position = nn.Parameter(0.02 * torch.randn(n_obs_steps, cameras, width))
        self.proprio_position = nn.Parameter(0.02 * torch.randn(n_obs_steps, width))
        self.tokens = n_obs_steps * cameras + n_obs_steps + 1

    def fit(self, features: Tensor | None, proprio: Tensor) -> None:
        """Take the training split's statistics: features [F, C, d] (None if trained), proprio [F, p]."""
        if features is not None:
            std, mean = torch.std_mean(features.float(), dim=0)
            self.mean.copy_(mean)
            self.std.copy_(std.clamp_min(self.std_floor))
        std, mean = torch.std_mean(proprio.float(), dim=0)
        self.proprio_mean.copy_(mean)
        self.proprio_std.copy_(torch.where(std < 1e-4, torch.ones_like(std), std))

    def forward(self, features: Tensor, proprio: Tensor, task: Tensor) -> Tensor:
        """The context: visual tokens (oldest step first), proprio tokens, task token."""
        b, t = proprio.shape[:2]
        if self.networks:
            per_camera = [n(features[:, :, c].flatten(0, 1)) for c, n in enumerate(self.networks)]
            vectors = torch.stack(per_camera, 1).unflatten(0, (b, t))
        else:
            vectors = (features.float() - self.mean) / self.std
        seen = self.visual(vectors) + self.visual_position
        own = self.proprio((proprio - self.proprio_mean) / self.proprio_std) + self.proprio_position
        return torch.cat([seen.flatten(1, 2), own, self.task(task)[:, None]], 1)
