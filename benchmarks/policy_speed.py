"""How long a decision and a training step take, beside the published implementations.

    OMP_NUM_THREADS=1 python benchmarks/policy_speed.py [--repeats 30]
    python benchmarks/policy_speed.py --device cuda     # training rate and the share of the peak, bfloat16

Chunks of 32 × 7, six context tokens, OAT with eight tokens of 1000 codes (size M, hardly fitted: that does not
matter here). A decision is at batch 1, detokenizing included, from the context on; a training step is
forward, backward and AdamW. Medians; the fastest run stands beside, since other processes only ever add time. Published:
their own code with the same shapes, one thread (size L: two) of the machine of the design notes.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compression_gap.nn import SIZES
from compression_gap.policies.base import Target
from compression_gap.policies.policy import lay_out
from compression_gap.policies.registry import make_head
from compression_gap.tokenizers import OAT

HORIZON, ACTION_DIM, CONTEXT = 32, 7, 6
PUBLISHED = {  # ms
    "M: 8 tokens": 26.0,
    "M: 10 DDIM steps, float32": 79.0,
    "M: autoregressive training step, batch 64": 234.0,
    "M: diffusion training step, batch 64": 790.0,
    "L: autoregressive training step, batch 64": 360.0,
    "L: diffusion training step, batch 64": 1360.0,
}
TARGET = {  # ms
    "M: 8 tokens": 10.0,
    "M: 10 DDIM steps, float32": 50.0,
    "M: 10 DDIM steps, bfloat16": 35.0,
}
RATIO = 0.65  # of 8 tokens to 10 DDIM steps, at most


def milliseconds(call: Callable[[], Any], repeats: int, device: str) -> tuple[float, float]:
    """Median and least of ``repeats`` calls, after three others."""
    seconds = []
    for _ in range(repeats + 3):
        begun = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(1e3 * (time.perf_counter() - begun))
    return float(np.median(seconds[3:])), min(seconds[3:])


def heads(size: str, tokenizer: OAT, device: str) -> dict[str, nn.Module]:
    """An autoregressive and a diffusion head with random weights."""
    torch.manual_seed(0)
    return {
        name: make_head(
            name,
            SIZES[size],
            horizon=HORIZON,
            action_dim=ACTION_DIM,
            context_tokens=CONTEXT,
            clip=3.0,
            tokenizer=tokenizer,
            options={},
        ).to(device)
        for name in ("autoregressive", "diffusion")
    }


def training_step(head: Any, size: str, batch: int, device: str) -> Callable[[], None]:
    """One step on random targets; bfloat16 on an accelerator, as in ``nn.train``."""
    rng = torch.Generator(device).manual_seed(0)
    target = Target(
        chunk=torch.randn(batch, HORIZON, ACTION_DIM, device=device),
        valid=torch.ones(batch, HORIZON, dtype=torch.bool, device=device),
        tokens=torch.randint(1000, (batch, 8), device=device),
        lengths=torch.full((batch,), 8, device=device),
    )
    context = torch.randn(batch, CONTEXT, SIZES[size].width, device=device)
    optimizer = torch.optim.AdamW(head.parameters(), fused=True)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = head.loss(context, target, rng=rng).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def decisions(size: str, tokenizer: OAT, repeats: int) -> dict[str, tuple[float, float]]:
    """Milliseconds of one decision of each head."""
    both, found = heads(size, tokenizer, "cpu"), {}
    context = torch.randn(1, CONTEXT, SIZES[size].width)
    names = {"autoregressive": "8 tokens", "diffusion": "10 DDIM steps"}
    for name, what in names.items():
        head = lay_out(both[name].eval().requires_grad_(False))  # as in ``Policy``
        half = lay_out(copy.deepcopy(head).to(torch.bfloat16))
        for label, module, given in (("", head, context), (", bfloat16", half, context.bfloat16())):
            label = ", float32" if name == "diffusion" and not label else label
            found[f"{size}: {what}{label}"] = milliseconds(
                lambda m=module, c=given: m.sample(c, [1]), repeats, "cpu"
            )
    return found


def on_cpu(repeats: int) -> None:
    """Decisions and training steps, at one thread."""
    torch.set_num_threads(1)
    tokenizer = OAT(tokens=8, size="M")
    chunks = np.random.default_rng(0).normal(size=(64, HORIZON, ACTION_DIM)).cumsum(1)
    tokenizer.fit(chunks, steps=1, batch_size=16)
    tokens = tokenizer.encode(chunks[:1])
    print(
        f"{'what':46s} {'here (ms)':>10s} {'fastest':>8s} {'published':>10s} {'ratio':>6s} {'target':>7s}",
        flush=True,
    )

    def row(what: str, median: float, least: float) -> None:
        published, target = PUBLISHED.get(what), TARGET.get(what)
        cells = [f"{what:46s} {median:10.1f} {least:8.1f}"]
        cells.append(f"{published:10.0f} {median / published:6.2f}" if published else " " * 17)
        cells.append(f"{target:7.0f}" if target else "")
        print(" ".join(cells), flush=True)

    row("detokenizing alone", *milliseconds(lambda: tokenizer.decode(tokens), repeats, "cpu"))
    for size in ("M", "L"):
        found = decisions(size, tokenizer, repeats)
        for what, times in found.items():
            row(what, *times)
        tokens_ms, steps_ms = (found[f"{size}: {w}"][0] for w in ("8 tokens", "10 DDIM steps, float32"))
        print(f"{size + ': 8 tokens / 10 DDIM steps, float32':46s} {tokens_ms / steps_ms:10.2f}", end="")
        print(f"{RATIO:35.2f}", flush=True)
        for name, head in heads(size, tokenizer, "cpu").items():
            step = training_step(head, size, 64, "cpu")
            times = milliseconds(step, max(3, repeats // 6), "cpu")
            row(f"{size}: {name} training step, batch 64", *times)


def on_cuda(repeats: int, batch: int, peak: float) -> None:
    """Training steps a second, and what share of the accelerator's peak they use."""
    tokenizer = OAT(tokens=8, size="M")
    chunks = np.random.default_rng(0).normal(size=(64, HORIZON, ACTION_DIM)).cumsum(1)
    tokenizer.fit(chunks, steps=1, batch_size=16)
    print(f"{torch.cuda.get_device_name()}, bfloat16, batch {batch}, peak {peak:.0f} TFLOP/s")
    print(f"{'what':32s} {'ms':>8s} {'steps/s':>8s} {'samples/s':>10s} {'TFLOP/s':>8s} {'MFU':>6s}")
    for size in ("M", "L"):
        for name, head in heads(size, tokenizer, "cuda").items():
            step = training_step(head, size, batch, "cuda")
            with FlopCounterMode(display=False) as counter:
                step()
            median, _ = milliseconds(step, repeats, "cuda")
            rate = counter.get_total_flops() / median / 1e9
            print(
                f"{f'{size}: {name}':32s} {median:8.2f} {1e3 / median:8.0f} {1e3 * batch / median:10.0f} "
                f"{rate:8.1f} {rate / peak:6.1%}",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--batch", type=int, default=512, help="of a training step on cuda")
    parser.add_argument(
        "--peak", type=float, default=989.0, help="bfloat16 TFLOP/s of the accelerator (H200: 989)"
    )
    options = parser.parse_args()
    if options.device == "cuda":
        on_cuda(options.repeats, options.batch, options.peak)
    else:
        on_cpu(options.repeats)


if __name__ == "__main__":
    main()
