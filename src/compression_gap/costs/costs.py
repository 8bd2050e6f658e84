"""What a policy costs, from shapes alone: parameters, and floating point operations of a decision and of a training.

No torch is imported here, no weights are read and nothing is run, so that a plan can show what it would cost at
once. Operations are those of matrix products and convolutions, two for each multiplication with its addition, as
``Policy.flops`` counts them; the tests hold these formulas against the modules themselves.

What a shape does not tell is None: heads, encoders and tokenizers of other packages, checkpoints that were not
looked at. FAST's sequences have the length that its data gives them; here they take ``FAST_SHARE`` of the chunk's
numbers, and such costs are marked as rough.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..encoders import ladder
from ..encoders.crops import Crop
from ..encoders.names import ALL, is_pretrained, parse
from ..encoders.registry import BESIDE, reads_scaled_state
from ..nn.sizes import SIZES, TrunkSize

# Tokens for each number of a chunk: published, 442 bits at 10 a token for 32 × 7 numbers (arXiv 2602.04215).
FAST_SHARE = 0.2
# Tokenizers with a network: width, encoder layers, decoder layers, heads; as ``tokenizers.autoencoder.SIZES``.
TOKENIZER_SIZES = {"xs": (64, 2, 2, 4), "S": (128, 2, 3, 4), "M": (256, 2, 4, 4)}


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


def tower_of_pin(pin: Mapping[str, Any]) -> Tower | None:
    """The tower of a resolved checkpoint (``encoders.checkpoints.resolve``); None for one that is no plain ViT."""
    config, kind = pin["config"], pin["model_type"]
    try:
        if kind in ("siglip", "siglip_vision_model"):
            positions = (config["image_size"] // config["patch_size"]) ** 2
            return Tower(
                config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"],
                config["patch_size"], pin["image_size"], positions=positions,
            )  # fmt: skip
        if kind == "dinov2" and not config.get("use_swiglu_ffn"):
            positions = (config["image_size"] // config["patch_size"]) ** 2 + 1
            return Tower(
                config["hidden_size"], config["num_hidden_layers"],
                int(config["hidden_size"] * config.get("mlp_ratio", 4)), config["patch_size"],
                pin["image_size"], 1, positions, True,
            )  # fmt: skip
    except KeyError:  # a config.json that leaves its family's defaults out
        return None
    return None


@dataclass(frozen=True)
class Seen:
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


def _pose(image_size: int) -> Seen:
    channels, width = (16, 24, 48, 64), 128
    flops, side = conv(image_size, 3, channels[0], 5, 2)
    parameters = 75 * channels[0] + channels[0]
    for a, b in itertools.pairwise(channels):
        shortcut = conv(side, a, b, 1, 2)[0]
        opening, side = conv(side, a, b, 3, 2)
        flops += shortcut + opening + conv(side, b, b, 3, 1)[0]
        parameters += 9 * a * b + 9 * b * b + a * b + 6 * b
    last = channels[-1] * side**2 * width
    return Seen(width, frozen=parameters + last + width, flops=flops + 2 * last)


def seen_by(
    encoder: str,
    *,
    image_size: int,
    state_dim: int,
    crop: Crop,
    tasks: int = 1,
    pin: Mapping[str, Any] | None = None,
) -> Seen:
    """What an encoder gives and costs, by name; ``pin``: what a checkpoint's name was resolved to, if it was."""
    if encoder == "blind":
        return Seen(1)
    if encoder.startswith("oracle-"):
        return Seen(state_dim, scalar_bytes=4)
    if reads_scaled_state(encoder):
        side = int(encoder.removeprefix("oracle+retina-")) if encoder.startswith(BESIDE) else 0
        return Seen(max(1, tasks * state_dim) + 3 * side**2, scalar_bytes=4, rough=True)
    if match := re.fullmatch(r"retina-([1-9]\d*)", encoder):
        return Seen(3 * int(match[1]) ** 2)
    if ladder.is_pose(encoder):
        return _pose(image_size)
    if encoder == "resnet18":
        flops, first, side = resnet18_flops(crop.side(image_size, encoder))
        points = 2 * 512 * 32 * side**2
        return Seen(64, RESNET18_PARAMETERS + 512 * 32 + 32, 0, flops + points, 2 * (flops + points) - first)
    if is_pretrained(encoder):
        return _pretrained(encoder, pin)
    return Seen(None, None, None, None, None)


def _pretrained(encoder: str, pin: Mapping[str, Any] | None) -> Seen:
    asked = parse(encoder)
    short = str(replace(asked, patches=1, finetune=None))
    if short == "resnet18-imagenet" and pin is None:
        flops, _, _ = resnet18_flops(224)
        width, parameters, blocks = 512, RESNET18_PARAMETERS, 8
    else:
        tower = TOWERS.get(short) if pin is None else tower_of_pin(pin) or TOWERS.get(short)
        if tower is None:
            if pin is None:
                return Seen(None, None, None, None, None)
            return Seen(pin["feature_dim"], None, None, None, None)
        width, flops, parameters, blocks = tower.width, tower.flops, tower.parameters, tower.layers
    dim = width * asked.patches**2
    if asked.finetune is None:
        return Seen(dim, 0, parameters, flops)
    # All of the network belongs to the policy; gradients go through the blocks that are trained.
    share = 1.0 if asked.finetune == ALL else int(asked.finetune) / blocks
    return Seen(dim, parameters, 0, flops, round(2 * share * flops))


@dataclass(frozen=True)
class Shape:
    """What decides a policy's cost. ``tokenizer``: its name, and the options that it was asked for."""

    encoder: str
    head: str
    size: str
    horizon: int
    n_obs_steps: int
    tasks: int
    cameras: int
    image_size: int
    proprio_dim: int
    action_dim: int
    state_dim: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    task: str = "embedding"
    text_dim: int | None = None
    crop: Mapping[str, Any] | None = None
    tokenizer: str | None = None
    tokenizer_options: Mapping[str, Any] = field(default_factory=dict)
    retokenize: bool = False

    @property
    def context_tokens(self) -> int:
        """As ``ContextAdapter`` lays them out."""
        return self.n_obs_steps * self.cameras + self.n_obs_steps + (self.task != "index")

    @property
    def codes(self) -> tuple[int, int, bool] | None:
        """Tokens a chunk, codes of a token at most, and whether that is rough; None if not known."""
        options = self.tokenizer_options
        if self.tokenizer in ("bins", "bins-quantile"):
            return self.horizon * self.action_dim, options["bins"], False
        if self.tokenizer == "fast":
            return max(1, round(FAST_SHARE * self.horizon * self.action_dim)), options["vocabulary"], True
        if self.tokenizer == "rvq":
            return options["layers"], options["codes"], False
        if self.tokenizer in ("oat", "oat-unordered", "quest"):
            return options["tokens"], max(math.prod(p) for p in options["levels"]), False
        return None


@dataclass(frozen=True)
class Costs:
    """What a policy costs; None where its shape does not tell."""

    parameters: dict[str, int] | None  # trained ones: encoder, adapter, trunk, head, total
    frozen: int | None  # of its encoder
    decision: int | None  # operations of one decision: encoder, network, decoder of the tokens
    encoder: int | None  # of these, the encoder's
    sample: int | None  # operations of one sample of a training step, forward and backward
    shared: int  # operations of a training step that do not grow with the batch
    rough: bool  # FAST's sequences have an assumed length, the oracle's features an assumed width

    def step(self, batch_size: int) -> int | None:
        """Operations of one training step."""
        return None if self.sample is None else self.sample * batch_size + self.shared


def policy_costs(shape: Shape, pin: Mapping[str, Any] | None = None) -> Costs:
    """The costs of one policy."""
    crop = Crop.read(dict(shape.crop)) if shape.crop else Crop()
    seen = seen_by(
        shape.encoder,
        image_size=shape.image_size,
        state_dim=shape.state_dim,
        tasks=shape.tasks,
        crop=crop,
        pin=pin,
    )
    images = shape.n_obs_steps * shape.cameras
    encoder = None if seen.flops is None else seen.flops * images
    trained = seen.trained != 0
    head = _head(shape)
    unknown = seen.feature_dim is None or seen.trained is None or head is None
    if unknown or (shape.task == "text" and shape.text_dim is None):
        return Costs(None, seen.frozen, None, encoder, None, 0, False)
    assert head is not None
    assert seen.feature_dim is not None
    assert seen.trained is not None
    parameters, forward, leaf = _adapter(shape, seen.feature_dim, trained)
    own = seen.trained * shape.cameras
    trunk = _trunk_parameters(SIZES[shape.size])
    counts = {
        "encoder": own, "adapter": parameters, "trunk": trunk, "head": head.parameters - trunk,
        "total": own + parameters + head.parameters,
    }  # fmt: skip
    sample: int | None = 3 * forward - leaf + head.sample
    if trained and (seen.flops is None or seen.backward is None):
        sample = None
    elif trained:
        assert sample is not None
        sample += images * ((seen.flops or 0) + (seen.backward or 0))
    decision = None if encoder is None or head.decision is None else encoder + forward + head.decision
    return Costs(counts, seen.frozen, decision, encoder, sample, head.shared, head.rough or seen.rough)


def _adapter(shape: Shape, features: int, trained: bool) -> tuple[int, int, int]:
    """Parameters, operations for one sample, and those of layers whose input takes no gradient."""
    w, t, c = SIZES[shape.size].width, shape.n_obs_steps, shape.cameras
    robot = shape.proprio_dim + (shape.task == "index")
    parameters = (features + 1) * w + (w + 1) * w + (robot + 1) * w + (w + 1) * w + t * c * w + t * w
    leaf = 2 * t * robot * w + (0 if trained else 2 * t * c * features * w)
    forward = 2 * t * c * (features * w + w * w) + 2 * t * (robot * w + w * w)
    if shape.task == "embedding":
        parameters += shape.tasks * w
    elif shape.task == "text":
        assert shape.text_dim is not None
        parameters += (shape.text_dim + 1) * w
        forward, leaf = forward + 2 * shape.text_dim * w, leaf + 2 * shape.text_dim * w
    return parameters, forward, leaf


@dataclass(frozen=True)
class _Head:
    parameters: int
    decision: int | None
    sample: int  # forward and backward of one sample
    shared: int = 0
    rough: bool = False


def _trunk_parameters(size: TrunkSize) -> int:
    w = size.width
    return size.layers * (16 * w * w + 19 * w) + 2 * w


def _rows(length: int, w: int, looked_at: int, cross: int) -> int:
    """A block's operations for ``length`` tokens that look at ``looked_at`` of their own, and at a memory."""
    return length * (24 * w * w + 4 * looked_at * w + cross)


def _look(size: TrunkSize, memory: int, folded: bool) -> int:
    """The cross-attention of one token (``Trunk.fold``)."""
    w = size.width
    return 4 * size.heads * memory * w if folded else 4 * w * w + 4 * memory * w


def _folds(size: TrunkSize, memory: int, uses: int) -> bool:
    return uses * size.heads * memory + memory * size.width < uses * (size.width + memory)


def _head(shape: Shape) -> _Head | None:
    size = SIZES[shape.size]
    if shape.head in ("diffusion", "flow"):
        return _denoiser(shape, size)
    if shape.head == "regression":
        return _regression(shape, size)
    if shape.head == "autoregressive":
        return _autoregressive(shape, size)
    if shape.head == "hybrid":
        tokens = _autoregressive(shape, size)
        if tokens is None:
            return None
        w, h, d, n = size.width, shape.horizon, shape.action_dim, shape.context_tokens
        one = size._replace(layers=1)
        parameters = (d + 1) * w + h * w + _trunk_parameters(one) + (w + 1) * d
        forward = 4 * h * d * w + 4 * n * w * w + _rows(h, w, h, _look(size, n, False))
        return replace(
            tokens,
            parameters=tokens.parameters + parameters,
            decision=None if tokens.decision is None else tokens.decision + forward,
            sample=tokens.sample + 3 * forward - 2 * h * d * w,
        )
    return None


def _denoiser(shape: Shape, size: TrunkSize) -> _Head:
    w, h, d, n = size.width, shape.horizon, shape.action_dim, shape.context_tokens
    steps = shape.options.get("sampling_steps", 10)
    parameters = (d + 1) * w + h * w + 8 * w * w + 5 * w + _trunk_parameters(size) + (w + 1) * d
    folded = _folds(size, 1 + n, steps * h)
    block = _rows(h, w, h, _look(size, 1 + n, folded))
    once = 16 * steps * w * w + size.layers * (steps + n) * w * w * (8 if folded else 4)
    decision = once + steps * (4 * h * d * w + size.layers * block)
    block = _rows(h, w, h, _look(size, 1 + n, False))
    forward = 16 * w * w + 4 * h * d * w + size.layers * (4 * (1 + n) * w * w + block)
    # Neither the noisy chunk nor the time takes a gradient.
    return _Head(parameters, decision, 3 * forward - 2 * h * d * w - 8 * w * w)


def _regression(shape: Shape, size: TrunkSize) -> _Head:
    w, h, d, n = size.width, shape.horizon, shape.action_dim, shape.context_tokens
    parameters = h * w + _trunk_parameters(size) + (w + 1) * d
    block = _rows(h, w, h, _look(size, n, False))
    forward = size.layers * (4 * n * w * w + block) + 2 * h * w * d
    # The queries are one row for the whole batch until they meet the context.
    shared = h * (8 * w * w + 4 * h * w) + 2 * h * w * w
    return _Head(parameters, forward, 3 * (forward - shared), 3 * shared)


def _autoregressive(shape: Shape, size: TrunkSize) -> _Head | None:
    if shape.codes is None:
        return None
    tokens, vocabulary, rough = shape.codes
    w, n, ragged = size.width, shape.context_tokens, shape.tokenizer == "fast"
    # A ragged sequence may have a token for each number of the chunk, and ends with one more.
    positions = shape.horizon * shape.action_dim + 1 if ragged else tokens
    parameters = (
        (vocabulary + 1) * w + positions * w + _trunk_parameters(size) + (w + 1) * (vocabulary + ragged)
    )
    length = tokens + ragged
    out = 2 * w * (vocabulary + ragged)
    folded = _folds(size, n, positions)
    cross = _look(size, n, folded)
    decision: int | None = size.layers * 4 * n * w * w * (2 if folded else 1) + sum(
        out + size.layers * _rows(1, w, i + 1, cross) for i in range(length)
    )
    decode = _decode(shape)
    decision = None if decode is None or decision is None else decision + decode
    block = _rows(length, w, length, _look(size, n, False))
    forward = size.layers * (4 * n * w * w + block) + length * out
    sample = 3 * forward + (_encode_oat(shape) if shape.retokenize else 0)
    return _Head(parameters, decision, sample, 0, rough)


def _decode(shape: Shape) -> int | None:
    """Operations of decoding one chunk's tokens, in torch; bins and FAST decode without."""
    if shape.tokenizer in ("bins", "bins-quantile", "fast"):
        return 0
    options, h, d = shape.tokenizer_options, shape.horizon, shape.action_dim
    w, _, layers, heads = TOKENIZER_SIZES[options["size"]]
    if shape.tokenizer == "rvq":
        return 2 * (w * 4 * w + (layers - 1) * 16 * w * w + 4 * w * h * d)
    tokens, dims = options["tokens"], len(options["levels"][0])
    size = TrunkSize(layers, w, heads)
    block = _rows(h, w, h, _look(size, tokens, False))
    return 2 * tokens * dims * w + layers * (4 * tokens * w * w + block) + 2 * h * w * d


def _encode_oat(shape: Shape) -> int:
    """Operations of OAT's tokens of one chunk: the last layer computes the registers' rows alone."""
    options, h, d = shape.tokenizer_options, shape.horizon, shape.action_dim
    w, layers, _, _ = TOKENIZER_SIZES[options["size"]]
    tokens, dims = options["tokens"], len(options["levels"][0])
    n = h + tokens
    last = 4 * n * w * w + tokens * (20 * w * w + 4 * n * w)
    return 2 * h * d * w + (layers - 1) * _rows(n, w, n, 0) + last + 2 * tokens * w * dims
