"""Training a policy: features and chunks live on the device and are sampled by index; no loader processes."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..demos import ChunkSet, DemoSet, Normaliser, make_chunks
from ..encoders import make_encoder
from ..encoders.cache import frame_batch
from ..encoders.text import Instructions
from ..nn import Schedule, train
from ..nn.ranks import ALONE, Ranks
from ..tokenizers import ActionTokenizer
from ..tokenizers.autoencoder import NetworkTokenizer
from .base import Target
from .policy import Policy, PolicyModule
from .registry import HEADS
from .spec import PolicySpec


@dataclass(frozen=True)
class Split:
    """One split's decision points as tensors on the device."""

    frames: Tensor  # int64 [N, T]
    actions: Tensor  # int64 [N, H]
    valid: Tensor  # bool [N, H]
    task: Tensor  # int64 [N]
    tokens: Tensor | None  # int64 [N, L]
    lengths: Tensor | None  # int64 [N]
    coded: Tensor | None  # float32 [N, H, d], normalised


@dataclass(frozen=True)
class TrainingData:
    """Everything a training step gathers from.

    ``swapped``: the code's chunks stand in for the recorded ones. ``retokenize`` makes target tokens anew at each
    step, in place of those that were computed once; validation keeps the latter.
    """

    features: Tensor  # [F, C, ...]
    proprio: Tensor  # float32 [F, p]
    actions: Tensor  # float32 [F, d], normalised
    splits: dict[str, Split]
    swapped: bool = False
    retokenize: Callable[[Tensor], Tensor] | None = None  # chunks [B, H, d] → the training split's target ids

    def target(self, split: str, rows: Tensor) -> Target:
        """The training targets of rows of one split."""
        s = self.splits[split]
        tokens, lengths, coded = (None if t is None else t[rows] for t in (s.tokens, s.lengths, s.coded))
        chunk = coded if self.swapped else self.actions[s.actions[rows]]
        assert chunk is not None
        if self.retokenize is not None and split == "train":
            tokens = self.retokenize(chunk)
        return Target(chunk=chunk, valid=s.valid[rows], tokens=tokens, lengths=lengths, coded=coded)

    def loss(self, split: str) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
        """The loss per sample of rows of one split."""
        s = self.splits[split]

        def loss(module: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
            assert isinstance(module, PolicyModule)
            frames, target = s.frames[rows], self.target(split, rows)
            return module.loss(self.features[frames], self.proprio[frames], s.task[rows], target, rng=rng)

        return loss


def _split(points: ChunkSet, table: TargetTable | None, longest: int | None, device: torch.device) -> Split:
    """One split on the device; ``longest``: tokens of the longest sequence, None of a head that predicts none."""

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    windows, own = points.windows, None if table is None else table.of(points)
    return Split(
        frames=on_device(windows.frames),
        actions=on_device(windows.actions),
        valid=on_device(windows.valid),
        task=on_device(windows.task),
        tokens=None if own is None or longest is None else on_device(own.ids[:, :longest]),
        lengths=None if own is None or longest is None else on_device(own.lengths),
        coded=None if own is None else on_device(own.coded.astype(np.float32)),
    )


def _retokenizer(tokenizer: ActionTokenizer | None, mode: str) -> Callable[[Tensor], Tensor] | None:
    """How target tokens are made at each step, where they are not computed once."""
    if mode == "eval":
        return None
    if mode != "train-as-published" or not isinstance(tokenizer, NetworkTokenizer):
        raise ValueError(f"no target tokens of {tokenizer and tokenizer.name} in the mode '{mode}'")
    return tokenizer.ids_in_training


class TargetTable(Protocol):
    """Tokens and coded chunks of one split's decision points."""

    @property
    def ids(self) -> np.ndarray:
        """Int64 [N, L]."""

    @property
    def lengths(self) -> np.ndarray:
        """Int64 [N]."""

    @property
    def coded(self) -> np.ndarray:
        """What they decode to, float32 [N, H, d], standardised."""

    def of(self, points: ChunkSet) -> TargetTable:
        """The rows of these decision points. Raises ``ValueError`` if they are not all there, or not in order."""


@dataclass(frozen=True)
class TrainingSpec:
    """One training. ``task``: how the task enters; ``crop``: of the images (``encoders.registry.crop_of``; None is the encoder's
    habit); ``checkpoints``: the steps before the last whose averaged weights are kept too, each a policy's folder
    ``checkpoints/STEP``; ``tokenizer_mode``: "eval", or "train-as-published": target tokens are then made at each step
    with the tokenizer's dropout on (``NetworkTokenizer.ids_in_training``); ``target``: "chunk", or "coded" for a head
    that is trained on what the code makes of the chunks (docs/theory.md; nothing else changes, no random draw
    either); ``training``: the fields of ``nn.Schedule``.
    """

    sim: str
    encoder: str
    head: str
    size: str
    horizon: int
    n_obs_steps: int
    tasks: tuple[str, ...]
    seed: int
    training: Mapping[str, Any]
    options: Mapping[str, Any]
    stride: int = 1
    target: str = "chunk"
    task: str = "embedding"
    crop: Mapping[str, Any] | None = None
    tokenizer_mode: str = "eval"
    checkpoints: tuple[int, ...] = ()


def train_policy(
    spec: TrainingSpec,
    demosets: Sequence[DemoSet],
    features: Sequence[np.ndarray] | None,
    normaliser: Normaliser,
    tokenizer: ActionTokenizer | None,
    tables: Mapping[str, TargetTable] | None,
    *,
    prepared: Path | None = None,
    instructions: Instructions | None = None,
    out: Path,
    work: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    ranks: Ranks = ALONE,
) -> Mapping[str, Any]:
    """Train and save a policy; returns its record (curve, convergence, counts, speed).

    Of several processes (``ranks``) the first one alone saves, and returns a record.

    ``features``: the cached ones, one array per set, or None for a trained encoder. ``tokenizer``: of a head whose
    targets are tokens. ``tables``: tokens and coded chunks of the splits "train" and "validation", wherever a code takes
    part. ``prepared``: the folder of a prepared encoder. ``instructions``: those of the tasks, in their order.
    """
    swapped = {"chunk": False, "coded": True}[spec.target]
    if tables is None and (swapped or HEADS[spec.head].targets == "both"):
        raise ValueError(f"the {spec.head} head on '{spec.target}' needs the coded chunks")
    device = ranks.device
    encoder = make_encoder(spec.encoder, cameras=len(demosets[0].images), folder=prepared, crop=spec.crop)
    if features is None:
        features = [encoder.features(frame_batch(d, slice(None)))[:, 0] for d in demosets]
    tasks = tuple(spec.tasks)
    if (known := getattr(encoder, "tasks", tasks)) != tasks:
        raise ValueError(f"{spec.encoder} was fitted to the tasks {known}, and the policy has {tasks}")
    points = {
        split: make_chunks(
            demosets,
            normaliser,
            split,
            horizon=spec.horizon,
            n_obs_steps=spec.n_obs_steps,
            stride=spec.stride,
            tasks=tasks,
        )
        for split in ("train", "validation")
    }
    longest = None
    if tables and tokenizer is not None:
        longest = max(int(tables[s].lengths.max(initial=0)) for s in points)
    data = TrainingData(
        features=torch.from_numpy(np.concatenate(features)).to(device),
        proprio=torch.from_numpy(np.concatenate([d.proprio for d in demosets])).to(device),
        actions=torch.from_numpy(points["train"].actions).to(device),
        splits={s: _split(p, tables[s] if tables else None, longest, device) for s, p in points.items()},
        swapped=swapped,
        retokenize=_retokenizer(tokenizer, spec.tokenizer_mode),
    )
    images = demosets[0].images
    policy_spec = PolicySpec(
        sim=spec.sim,
        encoder=spec.encoder,
        head=spec.head,
        size=spec.size,
        horizon=spec.horizon,
        n_obs_steps=spec.n_obs_steps,
        tasks=tasks,
        cameras=tuple(images),
        image_size=next(iter(images.values())).shape[1],
        feature_dim=data.features.shape[-1] if encoder.frozen else encoder.feature_dim,
        proprio_dim=data.proprio.shape[-1],
        action_dim=data.actions.shape[-1],
        options=dict(spec.options),
        task=spec.task,
        crop=None if spec.crop is None else dict(spec.crop),
    )
    torch.manual_seed(spec.seed)
    module = PolicyModule(policy_spec, normaliser, tokenizer, prepared, instructions=instructions).to(device)
    seen = data.splits["train"].frames.unique()
    module.adapter.fit(data.features[seen] if encoder.frozen else None, data.proprio[seen])
    schedule = Schedule(**spec.training)
    kept = (work or out) / "checkpoints"

    def keep(step: int, average: nn.Module) -> None:
        assert isinstance(average, PolicyModule)
        folder = kept / str(step)
        folder.mkdir(parents=True, exist_ok=True)
        Policy(policy_spec, copy.deepcopy(average), normaliser, tokenizer).save(folder)

    average, curve = train(
        module,
        data.loss("train"),
        len(points["train"]),
        len(points["validation"]),
        schedule,
        validation_loss=data.loss("validation"),
        seed=spec.seed,
        device=device,
        encoder_parameters=list(module.adapter.networks.parameters()),
        work=work,
        should_stop=should_stop,
        progress=progress,
        keep_at=spec.checkpoints,
        keep=keep,
        ranks=ranks,
    )
    if ranks.rank:
        return {}
    assert isinstance(average, PolicyModule)
    policy = Policy(policy_spec, average, normaliser, tokenizer)
    policy.save(out)
    if work is not None:
        for step in spec.checkpoints:
            shutil.copytree(kept / str(step), out / "checkpoints" / str(step))
    return {
        "curve": vars(curve),
        "train_seconds": curve.seconds[-1],
        "steps_per_second": schedule.steps / max(1e-9, curve.seconds[-1]),
        "decision_points": len(points["train"]),
        "parameters": policy.parameter_counts(),
        "flops": policy.flops(),
        "latency_seconds": policy.latency(),
    }
