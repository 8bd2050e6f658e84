"""Pretrained vision encoders (ResNet, SigLIP, SigLIP 2, DINOv2): frozen, or trained with the policy.

Features are the mean over the patch tokens of the last layer, as in the paper (arXiv 2604.03191): of DINOv2
without class and register tokens, of SigLIP without its attention pooling, of ResNet the average pool; or, with
``+patchesK``, the same over K × K regions. The whole image is resized to the model's size: no crop, so that
every encoder sees the same scene.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError
from ..sims import Observation
from .checkpoints import FAMILIES, read_pin, weights_folder
from .names import ALL
from .pin import Pin

BATCH = 64  # images a forward pass; larger batches fall out of the processor's cache
STD_FLOOR = 1e-3  # about two units of float16's last place at 1: below lies rounding, not the scene


def preprocess(images: Tensor, pin: Pin) -> Tensor:
    """uint8 [M, h, w, 3] → pixel values float32 [M, 3, R, R], on the images' device.

    Resized as Pillow does it (bicubic or bilinear, as the model's processor says; antialiased; columns first, then
    rows, and after each pass back to the 256 levels of an image), rescaled and normalised.
    """
    x = images.permute(0, 3, 1, 2).float()
    size, h, w = pin.image_size, *x.shape[-2:]
    for after, before in (((h, size), (h, w)), ((size, size), (h, size))):
        if after != before:
            x = functional.interpolate(x, after, mode=pin.resample, align_corners=False, antialias=True)
            x = x.add_(0.5).floor_().clamp_(0, 255)
    mean, std = (x.new_tensor(of)[:, None, None] for of in (pin.mean, pin.std))
    return (x / 255 - mean) / std


def patch_grid(model: Any, pixels: Tensor, pin: Pin) -> Tensor:
    """The last layer's patch tokens as a map: [M, 3, R, R] → [M, d, grid, grid]."""
    family, grid = FAMILIES[pin.model_type].model, pin.grid
    if family == "ResNetModel":
        out: Tensor = model(pixels).last_hidden_state
        return out
    if family == "Siglip2VisionModel":
        tokens = model(**_packed(pixels, grid)).last_hidden_state
    else:
        tokens = model(pixels).last_hidden_state[:, -(grid**2) :]  # behind DINOv2's class and register tokens
    return tokens.transpose(1, 2).unflatten(2, (grid, grid))


def _packed(pixels: Tensor, grid: int) -> dict[str, Tensor]:
    """SigLIP 2 of any size takes patches [M, grid², p·p·3], with a mask and their number a side."""
    m, patch = len(pixels), pixels.shape[-1] // grid
    x = pixels.unflatten(3, (grid, patch)).unflatten(2, (grid, patch))  # [M, 3, grid, p, grid, p]
    return {
        "pixel_values": x.permute(0, 2, 4, 3, 5, 1).reshape(m, grid**2, -1),
        "pixel_attention_mask": torch.ones(m, grid**2, dtype=torch.long, device=pixels.device),
        "spatial_shapes": torch.full((m, 2), grid, device=pixels.device),
    }


def blocks(model: Any) -> list[nn.Module]:
    """A vision model's blocks, from the image upwards; for DINOv2 and SigLIP the last norm belongs to the last."""
    if hasattr(model.encoder, "stages"):
        return [layer for stage in model.encoder.stages for layer in stage.layers]
    layers = list(model.encoder.layers if hasattr(model.encoder, "layers") else model.encoder.layer)
    norm = model.post_layernorm if hasattr(model, "post_layernorm") else model.layernorm
    return [*layers[:-1], nn.ModuleList([layers[-1], norm])]


class VisionNetwork(nn.Module):
    """uint8 images [M, h, w, 3] → features float32 [M, d], d = width · K².

    Always in eval mode: no dropout, and BatchNorm keeps the statistics that it came with, for an average of
    weights and batch statistics do not go together. ``finetune`` says which parameters take gradients.
    """

    def __init__(self, model: nn.Module, pin: Pin) -> None:
        super().__init__()
        self.model, self.pin = model.requires_grad_(False), pin
        if pin.finetune == ALL:
            self.model.requires_grad_(True)
        elif pin.finetune:
            for block in blocks(model)[-int(pin.finetune) :]:
                block.requires_grad_(True)
        self.eval()

    def train(self, mode: bool = True) -> VisionNetwork:
        """Eval mode, whatever is asked."""
        super().train(False)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Preprocess, encode, pool. Layers below the trained blocks leave no graph."""
        return self.encode(preprocess(images, self.pin))

    def encode(self, pixels: Tensor) -> Tensor:
        """Pixel values [M, 3, R, R] → features [M, d]."""
        grid = patch_grid(self.model, pixels, self.pin)
        pooled = functional.adaptive_avg_pool2d(grid, self.pin.patches)  # [M, width, K, K]
        return pooled.permute(0, 2, 3, 1).flatten(1).float()


def load_network(pin: Pin, *, weights: bool = True) -> VisionNetwork:
    """The network of a pin: the vision tower alone, in float32.

    Without ``weights`` its parameters are random, for a policy that brings its own. Raises ``UserError`` if the
    checkpoint is not the pinned one, or does not hold every weight.
    """
    import transformers

    family = FAMILIES[pin.model_type]
    config = getattr(transformers, family.config)(**pin.config)
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False  # SigLIP's attention pooling
    kind = getattr(transformers, family.model)
    if not weights:
        return VisionNetwork(kind(config), pin)
    folder = weights_folder(pin)
    try:
        with quiet(transformers):
            model, report = kind.from_pretrained(
                str(folder),
                config=config,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"encoder '{pin.encoder}': its weights cannot be read ({first}); take another copy of the checkpoint"
        ) from error
    lacking = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    lacking = [k for k in lacking if not k.endswith("num_batches_tracked")]  # a counter that nothing reads
    if lacking:
        raise UserError(
            f"encoder '{pin.encoder}': its checkpoint lacks {len(lacking)} of the weights (first: {lacking[0]}); "
            "take a complete copy"
        )
    return VisionNetwork(model, pin)


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """No bars, and no list of the other tower's weights, which are left out on purpose."""
    logs = transformers.utils.logging
    verbosity, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(verbosity)
        if bars:
            logs.enable_progress_bar()


@functools.lru_cache(maxsize=2)
def _frozen_network(pin: Pin, device: str) -> VisionNetwork:
    """One copy a process: a policy, its twin and the cache share it."""
    return load_network(pin).requires_grad_(False).to(device)


@contextlib.contextmanager
def _float32_products(device: torch.device) -> Iterator[None]:
    """On an accelerator float32 products may round their factors to TF32, as precise as float16 is."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Pretrained:
    """A pretrained encoder from its prepared folder. The weights are loaded when they are first needed."""

    needs_images, std_floor = True, STD_FLOOR

    def __init__(self, folder: Path) -> None:
        self.pin = read_pin(folder)
        self.name: str = self.pin.encoder
        self.feature_dim: int = self.pin.feature_dim
        self.frozen: bool = self.pin.finetune is None
        self.dtype: type[np.generic] = np.float16 if self.frozen else np.uint8
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def features(self, obs: Observation) -> np.ndarray:
        """float32 [B, T, C, d] when frozen; else the images themselves, uint8 [B, T, C, h, w, 3].

        Trained encoders need cameras of one size; frozen ones do not.
        """
        if not self.frozen:
            return np.stack(list(obs.images.values()), axis=2)
        network = _frozen_network(self.pin, str(self.device))
        b, t = next(iter(obs.images.values())).shape[:2]
        cameras = [images.reshape(b * t, *images.shape[2:]) for images in obs.images.values()]
        out = np.empty((b * t, len(cameras), self.pin.feature_dim), np.float32)
        rows = max(1, BATCH // len(cameras))
        with torch.no_grad(), _float32_products(self.device):
            for start in range(0, b * t, rows):
                part = slice(start, start + rows)
                pixels = [self._pixels(images[part]) for images in cameras]
                found = network.encode(torch.cat(pixels)).unflatten(0, (len(cameras), -1))
                out[part] = found.transpose(0, 1).cpu().numpy()
        return out.reshape(b, t, *out.shape[1:])

    def _pixels(self, images: np.ndarray) -> Tensor:
        # np.array copies: torch wants writable memory, which a memory map is not
        return preprocess(torch.from_numpy(np.array(images)).to(self.device), self.pin)

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """The trained part for one camera, None if frozen. Without ``weights``: see ``load_network``."""
        return None if self.frozen else load_network(self.pin, weights=weights)
