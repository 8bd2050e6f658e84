"""What an encoder gives and costs, from its name and the images' size. No torch, as in ``costs.py``."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace

from ..encoders import ladder
from ..encoders.crops import Crop
from ..encoders.names import ALL, is_pretrained, parse
from ..encoders.pin import Pin
from ..encoders.registry import BESIDE, reads_scaled_state, side_seen


@dataclass(frozen=True)
class Tower:
    """A vision transformer: tokens are its patches and ``extra`` ones; ``positions``: learned ones."""

    width: int
    layers: int
    mlp: int
    patch: int
    image_size: int
    extra: int = 0
    positions: int = 0
    scaled: bool = False  # a learned scale for each branch

    @property
    def parameters(self) -> int:
        """All, of the vision tower alone."""
        w = self.width
        layer = 4 * w + 4 * (w * w + w) + 2 * w * self.mlp + self.mlp + w + 2 * w * self.scaled
        # The class token and the mask token of DINOv2 come with its extra tokens.
        outside = self.patch**2 * 3 * w + w + self.positions * w + (self.extra + 1) * w * bool(self.extra)
        return outside + self.layers * layer + 2 * w

    @property
    def flops(self) -> int:
        """Of one image."""
        w, patches = self.width, (self.image_size // self.patch) ** 2
        n = patches + self.extra
        return 2 * patches * 3 * self.patch**2 * w + self.layers * (
            8 * n * w * w + 4 * n * n * w + 4 * n * w * self.mlp
        )


# Published configurations of the checkpoints that have a name of their own (their config.json on the hub).
TOWERS = {
    "siglip-base": Tower(768, 12, 3072, 16, 224, positions=196),
    "siglip2-base": Tower(768, 12, 3072, 16, 224, positions=196),
    "siglip-so400m": Tower(1152, 27, 4304, 14, 224, positions=256),
    "siglip2-so400m": Tower(1152, 27, 4304, 14, 224, positions=256),
    "dinov2-s": Tower(384, 12, 1536, 14, 224, extra=1, positions=37**2 + 1, scaled=True),
    "dinov2-b": Tower(768, 12, 3072, 14, 224, extra=1, positions=37**2 + 1, scaled=True),
    "dinov2-l": Tower(1024, 24, 4096, 14, 224, extra=1, positions=37**2 + 1, scaled=True),
}
TEXT_WIDTHS = {"siglip-base": 768, "siglip2-base": 768, "siglip-so400m": 1152, "siglip2-so400m": 1152}
RESNET18_PARAMETERS = 11_176_512  # convolutions and norms, no classifier


def tower_of_pin(pin: Pin) -> Tower | None:
    """The tower of a resolved checkpoint (``encoders.checkpoints.resolve``); None for one that is no plain ViT."""
    config, kind = pin.config, pin.model_type
    try:
        if kind in ("siglip", "siglip_vision_model"):
            positions = (config["image_size"] // config["patch_size"]) ** 2
            return Tower(
                config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"],
                config["patch_size"], pin.image_size, positions=positions,
            )  # fmt: skip
        if kind == "dinov2" and not config.get("use_swiglu_ffn"):
            positions = (config["image_size"] // config["patch_size"]) ** 2 + 1
            return Tower(
                config["hidden_size"], config["num_hidden_layers"],
                int(config["hidden_size"] * config.get("mlp_ratio", 4)), config["patch_size"],
                pin.image_size, 1, positions, True,
            )  # fmt: skip
    except KeyError:  # a config.json that leaves its family's defaults out
        return None
    return None


@dataclass(frozen=True)
class EncoderCosts:
    """One encoder: numbers it gives for an image, and what it costs; None where that is not known."""

    feature_dim: int | None
    trained: int | None = 0  # parameters trained with the policy, for one camera
    frozen: int | None = 0  # parameters that are not
    flops: int | None = 0  # of one image, at a decision
    backward: int | None = 0  # further ones of one image in training; 0 for features that are cached
    in_torch: bool = True  # whether ``Policy.flops`` sees them
    scalar_bytes: int = 2  # of the cached features
    rough: bool = (
        False  # the oracle: its moving dimensions are known with the demonstrations; here all of them
    )


def conv(side: int, c_in: int, c_out: int, kernel: int, stride: int) -> tuple[int, int]:
    """Operations of a convolution with half a kernel of padding on a square map, and the map's side after it."""
    after = (side - 1) // stride + 1
    return 2 * c_in * c_out * kernel**2 * after**2, after


def resnet18_flops(side: int) -> tuple[int, int, int]:
    """Operations of ResNet-18's convolutions on an image, those of the first, and the last map's side."""
    first, side = conv(side, 3, 64, 7, 2)
    side = (side - 1) // 2 + 1  # pooled
    total = first
    for c_in, c_out, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        shortcut = conv(side, c_in, c_out, 1, stride)[0] if stride > 1 else 0
        opening, side = conv(side, c_in, c_out, 3, stride)
        total += opening + shortcut + 3 * conv(side, c_out, c_out, 3, 1)[0]
    return total, first, side


def _pose(image_size: int) -> EncoderCosts:
    channels, width = ladder.CHANNELS, ladder.FEATURE_DIM
    flops, side = conv(image_size, 3, channels[0], 5, 2)
    parameters = 75 * channels[0] + channels[0]
    for a, b in itertools.pairwise(channels):
        shortcut = conv(side, a, b, 1, 2)[0]
        opening, side = conv(side, a, b, 3, 2)
        flops += shortcut + opening + conv(side, b, b, 3, 1)[0]
        parameters += 9 * a * b + 9 * b * b + a * b + 6 * b
    last = channels[-1] * side**2 * width
    return EncoderCosts(width, frozen=parameters + last + width, flops=flops + 2 * last)


def encoder_costs(
    encoder: str,
    *,
    image_size: int,
    state_dim: int,
    crop: Crop,
    tasks: int = 1,
    pin: Pin | None = None,
) -> EncoderCosts:
    """What an encoder gives and costs, by name; ``pin``: what a checkpoint's name was resolved to, if it was."""
    if encoder == "blind":
        return EncoderCosts(1)
    if encoder.startswith("oracle-"):
        return EncoderCosts(state_dim, scalar_bytes=4)
    if reads_scaled_state(encoder):
        side = int(encoder.removeprefix("oracle+retina-")) if encoder.startswith(BESIDE) else 0
        return EncoderCosts(max(1, tasks * state_dim) + 3 * side**2, scalar_bytes=4, rough=True)
    if match := re.fullmatch(r"retina-([1-9]\d*)", encoder):
        return EncoderCosts(3 * int(match[1]) ** 2)
    if ladder.is_pose(encoder):
        return _pose(image_size)
    if encoder == "resnet18":
        flops, first, side = resnet18_flops(side_seen(encoder, image_size, crop))
        points = 2 * 512 * 32 * side**2
        return EncoderCosts(
            64, RESNET18_PARAMETERS + 512 * 32 + 32, 0, flops + points, 2 * (flops + points) - first
        )
    if is_pretrained(encoder):
        return _pretrained(encoder, pin)
    return EncoderCosts(None, None, None, None, None)


def _pretrained(encoder: str, pin: Pin | None) -> EncoderCosts:
    asked = parse(encoder)
    short = str(replace(asked, patches=1, finetune=None))
    if short == "resnet18-imagenet" and pin is None:
        flops, _, _ = resnet18_flops(224)
        width, parameters, blocks = 512, RESNET18_PARAMETERS, 8
    else:
        tower = TOWERS.get(short) if pin is None else tower_of_pin(pin) or TOWERS.get(short)
        if tower is None:
            if pin is None:
                return EncoderCosts(None, None, None, None, None)
            return EncoderCosts(pin.feature_dim, None, None, None, None)
        width, flops, parameters, blocks = tower.width, tower.flops, tower.parameters, tower.layers
    dim = width * asked.patches**2
    if asked.finetune is None:
        return EncoderCosts(dim, 0, parameters, flops)
    # All of the network belongs to the policy; gradients go through the blocks that are trained.
    share = 1.0 if asked.finetune == ALL else int(asked.finetune) / blocks
    return EncoderCosts(dim, parameters, 0, flops, round(2 * share * flops))
