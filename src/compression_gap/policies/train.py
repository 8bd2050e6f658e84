"""Training a policy: features and chunks live on the device and are sampled by index; no loader processes."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..demos import DemoSet, Normaliser, Windows, make_windows
from ..encoders import make_encoder
from ..encoders.cache import frame_batch
from ..encoders.text import Instructions
from ..nn import Schedule, train
from ..tokenizers import ActionTokenizer, Tokens
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


def _split(
    windows: Windows, tokens: Tokens | None, longest: int, coded: np.ndarray | None, device: torch.device
) -> Split:
    if tokens is not None and len(tokens.ids) != len(windows):
        raise ValueError(f"{len(tokens.ids)} target token rows for {len(windows)} decision points")
    if coded is not None and len(coded) != len(windows):
        raise ValueError(f"{len(coded)} coded chunks for {len(windows)} decision points")

    def on_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return Split(
        frames=on_device(windows.frames),
        actions=on_device(windows.actions),
        valid=on_device(windows.valid),
        task=on_device(windows.task),
        tokens=None if tokens is None else on_device(tokens.ids[:, :longest]),
        lengths=None if tokens is None else on_device(tokens.lengths),
        coded=None if coded is None else on_device(coded.astype(np.float32)),
    )


def _retokenizer(tokenizer: ActionTokenizer | None, mode: str) -> Callable[[Tensor], Tensor] | None:
    """How target tokens are made at each step, where they are not computed once."""
    if mode == "eval":
        return None
    if mode != "train-as-published" or not isinstance(tokenizer, NetworkTokenizer):
        raise ValueError(f"no target tokens of {tokenizer and tokenizer.name} in the mode '{mode}'")
    return tokenizer.ids_in_training


def train_policy(
    spec: Mapping[str, Any],
    demosets: Sequence[DemoSet],
    features: Sequence[np.ndarray] | None,
    normaliser: Normaliser,
    tokenizer: ActionTokenizer | None,
    tokens: Mapping[str, Tokens] | None,
    coded: Mapping[str, np.ndarray] | None = None,
    *,
    prepared: Path | None = None,
    instructions: Instructions | None = None,
    out: Path,
    work: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Train and save a policy; returns its record (curve, convergence, counts, speed).

    ``spec``: encoder, head, size, horizon, n_obs_steps, stride (1 if not there), tasks, seed, training, options;
    ``task``, how the task enters ("embedding" if not there); ``crop`` of the images (``Crop.for_encoder``; the
    encoder's habit if not there); ``checkpoints``, the steps before the last whose
    averaged weights are kept too, each a policy's folder ``checkpoints/STEP`` (none if not there); ``tokenizer_mode``,
    "eval" if not there, or "train-as-published": target tokens are then made at each step with the tokenizer's dropout
    on (``NetworkTokenizer.ids_in_training``); and ``target``: "chunk", or "coded" for a head that
    is trained on what the code makes of the chunks (THEORY, section 6; nothing else changes, no random draw
    either). ``features``: the cached ones, one array per set, or None for a trained encoder. ``prepared``: the
    folder of a prepared encoder. ``instructions``: those of the tasks, in their order. ``tokens``: target ids per
    split. ``coded``: what they decode to, float32 [N, H, d], normalised. Rows of both are in the order of
    ``make_windows``.
    """
    swapped = {"chunk": False, "coded": True}[spec.get("target", "chunk")]
    if coded is None and (swapped or HEADS[spec["head"]].targets == "both"):
        raise ValueError(f"the {spec['head']} head on '{spec.get('target', 'chunk')}' needs the coded chunks")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = make_encoder(
        spec["encoder"], cameras=len(demosets[0].images), folder=prepared, crop=spec.get("crop")
    )
    if features is None:
        features = [encoder.features(frame_batch(d, slice(None)))[:, 0] for d in demosets]
    tasks = tuple(spec["tasks"])
    if (known := getattr(encoder, "tasks", tasks)) != tasks:
        raise ValueError(f"{spec['encoder']} was fitted to the tasks {known}, and the policy has {tasks}")
    windows = {
        name: make_windows(demosets, tasks, spec["horizon"], spec["n_obs_steps"], name, spec.get("stride", 1))
        for name in ("train", "validation")
    }
    actions = normaliser.normalise(np.concatenate([d.actions for d in demosets]))
    longest = max(int(tokens[n].lengths.max(initial=0)) for n in windows) if tokens else 0
    data = TrainingData(
        features=torch.from_numpy(np.concatenate(features)).to(device),
        proprio=torch.from_numpy(np.concatenate([d.proprio for d in demosets])).to(device),
        actions=torch.from_numpy(actions).to(device),
        splits={
            n: _split(w, tokens[n] if tokens else None, longest, coded[n] if coded else None, device)
            for n, w in windows.items()
        },
        swapped=swapped,
        retokenize=_retokenizer(tokenizer, spec.get("tokenizer_mode", "eval")),
    )
    images = demosets[0].images
    policy_spec = PolicySpec(
        sim=spec["sim"],
        encoder=spec["encoder"],
        head=spec["head"],
        size=spec["size"],
        horizon=spec["horizon"],
        n_obs_steps=spec["n_obs_steps"],
        tasks=tasks,
        cameras=tuple(images),
        image_size=next(iter(images.values())).shape[1],
        feature_dim=data.features.shape[-1] if encoder.frozen else encoder.feature_dim,
        proprio_dim=data.proprio.shape[-1],
        action_dim=data.actions.shape[-1],
        options=dict(spec["options"]),
        task=spec.get("task", "embedding"),
        crop=spec.get("crop"),
    )
    torch.manual_seed(spec["seed"])
    module = PolicyModule(policy_spec, normaliser, tokenizer, prepared, instructions=instructions).to(device)
    seen = data.splits["train"].frames.unique()
    module.adapter.fit(data.features[seen] if encoder.frozen else None, data.proprio[seen])
    schedule = Schedule(**spec["training"])
    kept = (work or out) / "checkpoints"

    def keep(step: int, average: nn.Module) -> None:
        assert isinstance(average, PolicyModule)
        folder = kept / str(step)
        folder.mkdir(parents=True, exist_ok=True)
        Policy(policy_spec, copy.deepcopy(average), normaliser, tokenizer).save(folder)

    average, curve = train(
        module,
        data.loss("train"),
        len(windows["train"]),
        len(windows["validation"]),
        schedule,
        validation_loss=data.loss("validation"),
        seed=spec["seed"],
        device=device,
        encoder_parameters=list(module.adapter.networks.parameters()),
        work=work,
        should_stop=should_stop,
        progress=progress,
        keep_at=spec.get("checkpoints", ()),
        keep=keep,
    )
    assert isinstance(average, PolicyModule)
    policy = Policy(policy_spec, average, normaliser, tokenizer)
    policy.save(out)
    if work is not None:
        for step in spec.get("checkpoints", ()):
            shutil.copytree(kept / str(step), out / "checkpoints" / str(step))
    return {
        "curve": vars(curve),
        "train_seconds": curve.seconds[-1],
        "steps_per_second": schedule.steps / max(1e-9, curve.seconds[-1]),
        "decision_points": len(windows["train"]),
        "parameters": policy.parameter_counts(),
        "flops": policy.flops(),
        "latency_seconds": policy.latency(),
    }
