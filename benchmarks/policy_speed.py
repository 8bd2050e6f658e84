"""How long a decision and a training step of every head take, beside the time of their matrix products alone.

    OMP_NUM_THREADS=1 python benchmarks/policy_speed.py [--repeats 20] [--sizes M] [--heads diffusion oat]
    python benchmarks/policy_speed.py --device cuda     # training rate and the share of the peak, bfloat16

Chunks of 32 × 7, six context tokens, OAT with eight tokens of 1000 codes (size M, hardly fitted: that does not
matter here). A decision starts from the context, detokenizing included; a training step is forward, backward and
AdamW. The limit is measured in the same run: the matrix products (attention included) that the call makes are recorded
with their own arguments, and run again with nothing between them. So it holds what streaming the weights takes.
Published: their own code with the same shapes, one thread (size L: two) of an AMD EPYC (Zen 4).
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
from rows import show
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from compression_gap.nn import SIZES
from compression_gap.policies.base import Target
from compression_gap.policies.policy import lay_out
from compression_gap.policies.registry import HEADS, make_head
from compression_gap.tokenizers import OAT

HORIZON, ACTION_DIM, CONTEXT = 32, 7, 6
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "_scaled_dot_product", "convolution")
PUBLISHED = {  # ms: the published code's time; size L on two threads
    "M autoregressive: decision, batch 1": 26.0,
    "M autoregressive: decision, batch 32": 73.0,
    "M diffusion: decision, batch 1": 79.0,
    "M diffusion: decision, batch 32": 1184.0,
    "M autoregressive: training step, batch 64": 234.0,
    "M diffusion: training step, batch 64": 790.0,
}
WANTED = {
    "M autoregressive: decision, batch 1": "≤ 12 ms",
    "M diffusion: decision, batch 1": "≤ 40 ms in the better precision",
}


class Products(TorchDispatchMode):
    """Records the matrix products of what runs inside it, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the call, and make it."""
        if func.overloadpacket.__name__.startswith(PRODUCTS):
            self.calls.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    def again(self) -> None:
        """All of them, one after the other."""
        with torch.no_grad():
            for func, args, kwargs in self.calls:
                func(*args, **kwargs)


def times(call: Callable[[], Any], repeats: int, device: str) -> list[float]:
    """Milliseconds of ``repeats`` calls, after two others."""
    out = []
    for _ in range(repeats + 2):
        begun = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        out.append(1e3 * (time.perf_counter() - begun))
    return out[2:]


def beside_products(what: str, call: Callable[[], Any], repeats: int) -> None:
    """A call beside its matrix products, in turns."""
    call()
    with Products() as products:
        call()
    ours, limit = [], []
    for _ in range(repeats):
        ours += times(call, 1, "cpu")
        limit += times(products.again, 1, "cpu")
    wanted = WANTED.get(what.removesuffix(", bfloat16"), "≥ 0.6" if "training" in what else "≥ 0.5")
    show(what, "ms", ours, beside=limit, of="its matrix products", wanted=wanted)
    if what in PUBLISHED:
        show(f"{what}, published", "ms", ours, beside=PUBLISHED[what], of="published code")


def make(name: str, size: str, tokenizer: OAT, device: str) -> nn.Module:
    """A head with random weights."""
    torch.manual_seed(0)
    return make_head(
        name,
        SIZES[size],
        horizon=HORIZON,
        action_dim=ACTION_DIM,
        context_tokens=CONTEXT,
        clip=3.0,
        tokenizer=tokenizer,
        options={},
    ).to(device)


def training_step(head: Any, size: str, batch: int, device: str) -> Callable[[], None]:
    """One step on random targets; bfloat16 on an accelerator, as in ``nn.train``."""
    rng = torch.Generator(device).manual_seed(0)
    target = Target(
        chunk=torch.randn(batch, HORIZON, ACTION_DIM, device=device),
        valid=torch.ones(batch, HORIZON, dtype=torch.bool, device=device),
        tokens=torch.randint(1000, (batch, 8), device=device),
        lengths=torch.full((batch,), 8, device=device),
        coded=torch.randn(batch, HORIZON, ACTION_DIM, device=device),
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


def fitted() -> OAT:
    """A tokenizer of the published size."""
    tokenizer = OAT(tokens=8, size="M")
    chunks = np.random.default_rng(0).normal(size=(64, HORIZON, ACTION_DIM)).cumsum(1)
    tokenizer.fit(chunks, steps=1, batch_size=16)
    return tokenizer


def on_cpu(repeats: int, sizes: list[str], heads: list[str]) -> None:
    """Decisions and training steps, at one thread."""
    torch.set_num_threads(1)
    tokenizer = fitted()
    tokens = tokenizer.encode(np.zeros((1, HORIZON, ACTION_DIM)))
    show("detokenizing 8 tokens of a chunk", "ms", times(lambda: tokenizer.decode(tokens), repeats, "cpu"))
    for size in sizes:
        for name in heads:
            head = lay_out(
                make(name, size, tokenizer, "cpu").eval().requires_grad_(False)
            )  # as in ``Policy``
            half = lay_out(copy.deepcopy(head).to(torch.bfloat16))
            for batch in (1, 32):
                given, seeds = torch.randn(batch, CONTEXT, SIZES[size].width), list(range(batch))
                for label, module, context in (("", head, given), (", bfloat16", half, given.bfloat16())):
                    what = f"{size} {name}: decision, batch {batch}{label}"
                    few = repeats if batch == 1 else max(2, repeats // 5)
                    beside_products(what, lambda m=module, c=context, s=seeds: m.sample(c, s), few)
            step = training_step(make(name, size, tokenizer, "cpu"), size, 64, "cpu")
            beside_products(f"{size} {name}: training step, batch 64", step, max(3, repeats // 6))


def on_cuda(repeats: int, batch: int, peak: float, sizes: list[str], heads: list[str]) -> None:
    """Training steps, and what share of the accelerator's peak they use."""
    tokenizer = fitted()
    print(f"{torch.cuda.get_device_name()}, bfloat16, batch {batch}, peak {peak:.0f} TFLOP/s")
    for size in sizes:
        for name in heads:
            step = training_step(make(name, size, tokenizer, "cuda"), size, batch, "cuda")
            with FlopCounterMode(display=False) as counter:
                step()
            taken = times(step, repeats, "cuda")
            rates = [counter.get_total_flops() / ms / 1e9 for ms in taken]
            show(f"{size} {name}: training step, batch {batch}", "ms", taken)
            show(f"{size} {name}: training rate", "TFLOP/s", rates, beside=peak, of="peak")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["xs", "M"])
    parser.add_argument("--heads", nargs="+", choices=list(HEADS), default=list(HEADS))
    parser.add_argument("--batch", type=int, default=512, help="of a training step on cuda")
    parser.add_argument(
        "--peak", type=float, default=989.0, help="bfloat16 TFLOP/s of the accelerator (H200: 989)"
    )
    options = parser.parse_args()
    if options.device == "cuda":
        on_cuda(options.repeats, options.batch, options.peak, options.sizes, options.heads)
    else:
        on_cpu(options.repeats, options.sizes, options.heads)


if __name__ == "__main__":
    main()
