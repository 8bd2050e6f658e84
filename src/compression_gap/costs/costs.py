"""What a policy costs, from shapes alone: parameters, and floating point operations of a decision and of a training.

No torch is imported here, no weights are read and nothing is run: a plan of a thousand cells shows its costs at once
(20 µs a shape; torch alone takes a second to import, and samplers and decoders do not run on its meta device). Operations are those of matrix products and convolutions, two for each multiplication with its addition, as
``Policy.flops`` counts them; the tests hold these formulas against the modules themselves.

What a shape does not tell is None: heads, encoders and tokenizers of other packages, checkpoints that were not
looked at. FAST's sequences have the length that its data gives them; here they take ``FAST_SHARE`` of the chunk's
numbers, and such costs are marked as rough.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..encoders.crops import Crop
from ..encoders.pin import Pin
from ..nn.sizes import AUTOENCODER_SIZES, SIZES, TrunkSize
from .encoders import encoder_costs

# Tokens for each number of a chunk: published, 442 bits at 10 a token for 32 × 7 numbers (arXiv 2602.04215).
FAST_SHARE = 0.2


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


def policy_costs(shape: Shape, pin: Pin | None = None) -> Costs:
    """The costs of one policy."""
    crop = Crop.read(shape.crop)
    seen = encoder_costs(
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
    w, _, layers, heads = AUTOENCODER_SIZES[options["size"]]
    if shape.tokenizer == "rvq":
        return 2 * (w * 4 * w + (layers - 1) * 16 * w * w + 4 * w * h * d)
    tokens, dims = options["tokens"], len(options["levels"][0])
    size = TrunkSize(layers, w, heads)
    block = _rows(h, w, h, _look(size, tokens, False))
    return 2 * tokens * dims * w + layers * (4 * tokens * w * w + block) + 2 * h * w * d


def _encode_oat(shape: Shape) -> int:
    """Operations of OAT's tokens of one chunk: the last layer computes the registers' rows alone."""
    options, h, d = shape.tokenizer_options, shape.horizon, shape.action_dim
    w, layers, _, _ = AUTOENCODER_SIZES[options["size"]]
    tokens, dims = options["tokens"], len(options["levels"][0])
    n = h + tokens
    last = 4 * n * w * w + tokens * (20 * w * w + 4 * n * w)
    return 2 * h * d * w + (layers - 1) * _rows(n, w, n, 0) + last + 2 * tokens * w * dims
