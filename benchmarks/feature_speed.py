"""How fast cached features come, and what share of a training step is anything but the network.

    OMP_NUM_THREADS=1 python benchmarks/feature_speed.py [--frames 20000] [--steps 12] [--images 64]

1. Rows of a warm cache (memory map, 1536 × float16) in random batches of 256, read as NumPy gathers them from the
   file's pages, and as a training step gathers them from a tensor on its device.
2. Training steps of ``nn.train`` on cached features (two cameras, two observation steps, 1152-d): the share
   outside forward, backward and optimizer (gathering, seeds, clipping, EMA), and that of gathering alone.
3. Frames a second of a pretrained encoder with random weights: preprocessing alone, and the whole of it.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from rows import show
from torch import Tensor, nn

from compression_gap.demos import Normaliser
from compression_gap.encoders.checkpoints import prepare_pretrained, resolve
from compression_gap.encoders.pretrained import Pretrained, preprocess
from compression_gap.nn import Schedule, train
from compression_gap.policies.policy import PolicyModule, PolicySpec
from compression_gap.policies.train import Split, TrainingData
from compression_gap.sims import Observation

ROWS, DIM, ROW_TARGET, SHARE_TARGET = 256, 1536, 200_000, 0.05
HORIZON, ACTION_DIM, STEPS, CAMERAS, FEATURES = 32, 7, 2, 2, 1152
SIZE, BATCH = "M", 64  # of the training step that encoding is compared with
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronised() -> float:
    """The time, when the device has done what it was asked."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def rows_per_second(gather: Callable[[np.ndarray], Any], frames: int, batches: int = 200) -> list[float]:
    """Rows a second of random batches, each drawn anew."""
    rng, seconds = np.random.default_rng(0), []
    for _ in range(batches):
        rows = rng.integers(0, frames, ROWS)
        begun = synchronised()
        gather(rows)
        seconds.append(synchronised() - begun)
    return [ROWS / s for s in seconds[batches // 10 :]]


def cache_speed(folder: Path, frames: int) -> None:
    """Random rows of a warm cache."""
    file = folder / "features.npy"
    out = np.lib.format.open_memmap(file, "w+", np.float16, (frames, DIM))
    rng = np.random.default_rng(0)
    for start in range(0, frames, 1000):
        out[start : start + 1000] = rng.normal(size=(len(out[start : start + 1000]), DIM))
    out.flush()
    mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    resident = torch.from_numpy(np.array(mapped)).to(DEVICE)
    mapped.max()  # warm: every page has been touched
    block = resident[:ROWS].clone()
    copied = rows_per_second(lambda rows: block.clone(), frames)  # in the cache: nothing is gathered faster
    for what, gather in (
        ("memory map, NumPy", lambda rows: mapped[rows]),
        ("memory map, to a tensor", lambda rows: torch.from_numpy(mapped[rows]).to(DEVICE)),
        (f"tensor on {DEVICE.type}", lambda rows: resident[torch.from_numpy(rows).to(DEVICE)]),
    ):
        what = f"random feature rows ({DIM} × float16): {what}"
        found = rows_per_second(gather, frames)
        show(what, "rows/s", found, beside=copied, of="a copy of as many", wanted=f"≥ {ROW_TARGET:,} rows/s")


def training_data(frames: int, batch: int) -> TrainingData:
    """Random features, proprioception and actions of ``frames`` frames, as ``train_policy`` lays them out."""
    rng = torch.Generator().manual_seed(0)
    at = torch.arange(frames)

    def split(n: int) -> Split:
        rows = at[torch.randint(frames - HORIZON, (n,), generator=rng)]
        return Split(
            frames=(rows[:, None] - torch.arange(STEPS).flip(0)).clamp_min(0).to(DEVICE),
            actions=(rows[:, None] + torch.arange(HORIZON)).to(DEVICE),
            valid=torch.ones(n, HORIZON, dtype=torch.bool, device=DEVICE),
            task=torch.zeros(n, dtype=torch.long, device=DEVICE),
            tokens=None,
            lengths=None,
            coded=None,
        )

    return TrainingData(
        features=torch.randn(frames, CAMERAS, FEATURES, generator=rng).half().to(DEVICE),
        proprio=torch.randn(frames, 8, generator=rng).to(DEVICE),
        actions=torch.randn(frames, ACTION_DIM, generator=rng).clamp(-1, 1).to(DEVICE),
        splits={"train": split(frames), "validation": split(batch)},
    )


def training_share(frames: int, steps: int, size: str, head: str, batch: int) -> float:
    """Run the real training loop and time its parts from outside; seconds a step."""
    data = training_data(frames, batch)
    spec = PolicySpec(
        sim="none", encoder="blind", head=head, size=size, horizon=HORIZON, n_obs_steps=STEPS, tasks=("one",),
        cameras=("front", "wrist"), image_size=128, feature_dim=FEATURES, proprio_dim=8, action_dim=ACTION_DIM,
        options={},
    )  # fmt: skip
    ones = np.ones(ACTION_DIM, np.float32)
    module = PolicyModule(spec, Normaliser(0 * ones, ones, -ones, ones), None).to(DEVICE)
    spent = {"forward": 0.0, "backward": 0.0, "optimizer": 0.0, "gather": 0.0}
    starts: list[tuple[float, dict[str, float]]] = []

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **how: Any) -> Any:
            begun = synchronised()
            out = call(*args, **how)
            spent[part] += synchronised() - begun
            return out

        return wrapped

    def loss(module: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
        starts.append((synchronised(), dict(spent)))
        before = spent["forward"]
        out: Tensor = data.loss("train")(module, rows, rng)
        whole = synchronised() - starts[-1][0]
        spent["gather"] += whole - (spent["forward"] - before)
        return out

    with (
        patch.object(PolicyModule, "loss", timed("forward", PolicyModule.loss)),
        patch.object(Tensor, "backward", timed("backward", Tensor.backward)),
        patch.object(torch.optim.AdamW, "step", timed("optimizer", torch.optim.AdamW.step)),
    ):
        train(
            module,
            loss,
            frames,
            batch,
            Schedule(steps=steps, batch_size=batch, lr=1e-4, validations=1),
            validation_loss=data.loss("validation"),
            seed=0,
            device=DEVICE,
        )
    seconds, outside, gather = [], [], []
    for (a, x), (b, y) in itertools.pairwise(starts[2:]):  # the first two steps warm up
        seconds.append(b - a)
        outside.append(1 - sum(y[k] - x[k] for k in ("forward", "backward", "optimizer")) / (b - a))
        gather.append((y["gather"] - x["gather"]) / (b - a))
    what = f"training loop on cached features, {size} {head}, batch {batch}"
    show(
        f"{what}: outside of network and optimizer",
        "%",
        [100 * s for s in outside],
        wanted=f"≤ {SHARE_TARGET:.0%}",
    )
    show(f"{what}: gathering", "%", [100 * s for s in gather])
    return float(np.median(seconds))


def encoder_speed(folder: Path, images: int, step: float) -> None:
    """A ViT-S/14 of DINOv2's shape and ResNet-18, with random weights: the speed does not depend on them.

    ``step``: seconds of a training step on cached features, which another step would add the encoder to.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    small = transformers.Dinov2Config(hidden_size=384, num_attention_heads=6, num_hidden_layers=12, image_size=518,
                                      patch_size=14)  # fmt: skip
    resnet = transformers.ResNetConfig(
        embedding_size=64, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic"
    )
    seen = np.random.default_rng(0).integers(0, 256, (images, 1, 128, 128, 3), dtype=np.uint8)
    asked = Observation({"front": seen}, np.zeros((images, 1, 1), np.float32), np.zeros(images, np.int64))
    for name, model in (
        ("resnet18-imagenet", transformers.ResNetModel(resnet)),
        ("dinov2-s", transformers.Dinov2Model(small)),
    ):
        where = folder / name
        model.save_pretrained(where)
        pin = resolve(f"folder:{where}")
        prepare_pretrained(pin, where)
        encoder = Pretrained(where)
        pixels = torch.from_numpy(seen[:, 0]).to(DEVICE)
        rates = []
        for call in (lambda p=pixels, e=encoder: preprocess(p, e.pin), lambda e=encoder: e.features(asked)):
            call()
            begun = synchronised()
            call()
            rates.append(images / (synchronised() - begun))
        show(f"{name}, 128 px", "frames/s", rates[1:], beside=rates[0], of="preprocessing alone")
        encoding = step + BATCH * STEPS * CAMERAS / rates[1]
        what = f"training step on cached features, {SIZE} diffusion, batch {BATCH}"
        show(what, "s", [step], beside=encoding, of=f"with {name} in every step")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--images", type=int, default=64)
    options = parser.parse_args()
    if DEVICE.type == "cpu":
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        cache_speed(Path(scratch), options.frames)
        for size, batch in (("xs", 64), ("S", 64), (SIZE, BATCH), ("M", 256)):
            seconds = training_share(options.frames, options.steps, size, "diffusion", batch)
            if (size, batch) == (SIZE, BATCH):
                step = seconds
        encoder_speed(Path(scratch), options.images, step)


if __name__ == "__main__":
    main()
