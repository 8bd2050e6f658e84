"""``resnet18``: trained end to end with the policy, as in Diffusion Policy (arXiv 2303.04137).

GroupNorm in place of BatchNorm (an average of weights and batch statistics do not go together), spatial
softmax over 32 keypoints (64-d per camera), a random crop in training and the centre crop otherwise.
One network per camera.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..sims import Observation
from .crops import SHARE

FEATURE_DIM = 64  # 32 keypoints


class Residual(nn.Module):
    """Two 3 × 3 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = _norm(c_out), _norm(c_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or c_in != c_out:
            self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), _norm(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """[M, c_in, h, w] → [M, c_out, h / stride, w / stride]."""
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(channels // 16, channels)


def resnet18_trunk() -> nn.Sequential:
    """The convolutions of ResNet-18: [M, 3, h, w] → [M, 512, h / 32, w / 32]; 11,176,512 parameters."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), _norm(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    stages = []
    for c_in, c_out, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        stages += [Residual(c_in, c_out, stride), Residual(c_out, c_out, 1)]
    return nn.Sequential(*stem, *stages)


class SpatialSoftmax(nn.Module):
    """Expected image coordinates in [−1, 1] of K keypoints: [M, C, h, w] → [M, 2K]."""

    def __init__(self, channels: int, keypoints: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(channels, keypoints, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The mean position under each keypoint's softmax."""
        h, w = x.shape[-2:]
        p = self.project(x).flatten(2).softmax(-1).unflatten(-1, (h, w))
        ys = torch.linspace(-1, 1, h, device=x.device, dtype=p.dtype)
        xs = torch.linspace(-1, 1, w, device=x.device, dtype=p.dtype)
        return torch.cat([p.sum(2) @ xs, p.sum(3) @ ys], -1)


class CroppedResNet(nn.Module):
    """uint8 images [M, h, w, 3] → [M, 64]. Images become floats after cropping, on the device.

    ``share`` of the side is kept by the crop; None: no crop.
    """

    def __init__(self, share: float | None = SHARE) -> None:
        super().__init__()
        self.share = share
        self.trunk = resnet18_trunk()
        self.pool = SpatialSoftmax(512, 32)

    def forward(self, images: Tensor) -> Tensor:
        """Crop, then convolve."""
        x = images if self.share is None else crop(images, random=self.training, share=self.share)
        return self.pool(self.trunk(x.permute(0, 3, 1, 2).float() / 127.5 - 1))


def crop(images: Tensor, *, random: bool, share: float = SHARE) -> Tensor:
    """Crop [M, h, w, 3] to ``share`` of its side: each at its own random place, or all at the centre.

    Draws from torch's global generator, which the training loop seeds anew at each step.
    """
    m, h, w, _ = images.shape
    ch, cw = round(share * h), round(share * w)
    if not random:
        y, x = (h - ch) // 2, (w - cw) // 2
        return images[:, y : y + ch, x : x + cw]
    top = torch.randint(h - ch + 1, (m, 1, 1), device=images.device)
    left = torch.randint(w - cw + 1, (m, 1, 1), device=images.device)
    rows = top + torch.arange(ch, device=images.device)[None, :, None]
    columns = left + torch.arange(cw, device=images.device)[None, None, :]
    return images[torch.arange(m, device=images.device)[:, None, None], rows, columns]


class ResNet18:
    """The trained encoder; its features are the images themselves. ``share``: see ``CroppedResNet``."""

    name, needs_images, frozen, std_floor = "resnet18", True, False, 1.0
    dtype: type[np.generic] = np.uint8
    feature_dim: int = FEATURE_DIM

    def __init__(self, share: float | None = SHARE) -> None:
        self.share = share

    def features(self, obs: Observation) -> np.ndarray:
        """uint8 images [B, T, C, h, w, 3]; all cameras must have one size."""
        return np.stack(list(obs.images.values()), axis=2)

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """A network for one camera."""
        return CroppedResNet(self.share)
