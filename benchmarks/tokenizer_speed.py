"""How fast the tokenizers are, beside the published implementations.

FAST and OAT at their published sizes, on smooth chunks of 32 steps × 7 dimensions, and FSQ's forward pass with
levels [8, 5, 5, 5]. What is published was measured once, on one thread of an AMD EPYC (Zen 4, AVX-512, bf16)
with torch 2.13: FAST's processor, OAT's tokenizer, vector-quantize-pytorch. FSQ is also compared with plain
torch here: bound, round, straight-through gradient, and nothing else.

    OMP_NUM_THREADS=1 python benchmarks/tokenizer_speed.py [--rounds 5] [--steps 60]

One process, one thread, the median over rounds; each round has chunks that none before had. Time is that of
the process: what others take from the core meanwhile does not count. A fitted OAT makes its tokens in float32
whatever the caller's autocast; bf16 is therefore measured on its network, after ``--steps`` quick training
steps: the distortion must stay that of float32 to one per cent.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import torch
from rows import show

from compression_gap.tokenizers import FAST, FSQ, OAT
from compression_gap.tokenizers.autoencoder import BATCH

HORIZON, DIM = 32, 7
LEVELS = (8, 5, 5, 5)
FAST_PUBLISHED = {"encode": 13_000, "decode": 30_000}  # chunks/s
OAT_PUBLISHED = {"encode": 480, "decode": 298}
FSQ_PUBLISHED = 14e6  # vectors/s


def smooth(n: int, seed: int) -> np.ndarray:
    """Chunks [n, 32, 7] of a few slow cosines, as filtered human motion has."""
    rng = np.random.default_rng(seed)
    t = np.arange(HORIZON)[:, None]
    chunks = np.zeros((n, HORIZON, DIM))
    for k in range(6):
        amplitude, phase = rng.normal(size=(n, 1, DIM)) / (1 + k), rng.uniform(0, 2 * np.pi, (n, 1, DIM))
        chunks += amplitude * np.cos(np.pi * k * t / HORIZON + phase)
    return chunks.astype(np.float32)


def rate(work: Callable[[], object], items: int) -> float:
    """Items per second of processor time, of one call."""
    start = time.process_time()
    work()
    return items / (time.process_time() - start)


PEER = "published code"


def measure_fast(rounds: int) -> None:
    """Encode and decode."""
    tokenizer = FAST().fit(smooth(4000, 0))
    found: dict[str, list[float]] = {"encode": [], "decode": []}
    for k in range(rounds + 1):  # the first warms up
        chunks = smooth(4000, k + 1)
        found["encode"].append(rate(lambda c=chunks: tokenizer.encode(c), len(chunks)))
        tokens = tokenizer.encode(chunks)
        found["decode"].append(rate(lambda t=tokens: tokenizer.decode(t), len(chunks)))
    for what, wanted in (("encode", "≥ 1.7"), ("decode", "≥ 1.5")):
        show(f"FAST {what}", "chunks/s", found[what][1:], beside=FAST_PUBLISHED[what], of=PEER, wanted=wanted)


def plain_fsq(levels: tuple[int, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The paper's forward pass in plain torch."""
    n = torch.tensor(levels)
    half = (n - 1) * (1 + 1e-3) / 2
    offset = torch.where(n % 2 == 0, 0.5, 0.0)
    shift, width = (offset / half).atanh(), n // 2

    def forward(z: torch.Tensor) -> torch.Tensor:
        bounded = (z + shift).tanh() * half - offset
        return (bounded + (bounded.round() - bounded).detach()) / width

    return forward


def measure_fsq(rounds: int) -> None:
    """The forward pass, ours and plain torch in turns."""
    ours, plain = FSQ(LEVELS), plain_fsq(LEVELS)
    z = torch.randn(64, 8 * 64, len(LEVELS))  # 0.5 MB: in the cache
    vectors = z.shape[0] * z.shape[1]
    found: list[list[float]] = [[], []]
    with torch.no_grad():
        assert torch.equal(ours(z), plain(z))
        for _ in range(20 * rounds):
            for at, forward in enumerate((ours, plain)):
                found[at].append(rate(lambda f=forward: f(z), vectors))
    show("FSQ forward", "vectors/s", found[0], beside=FSQ_PUBLISHED, of=PEER, wanted="≥ 1")
    show(
        "FSQ forward beside plain torch",
        "vectors/s",
        found[0],
        beside=found[1],
        of="plain torch",
        wanted="≥ 0.77",
    )


def measure_oat(rounds: int, steps: int) -> None:
    """Encode and decode in float32 and in bf16, and what bf16 does to the distortion."""
    tokenizer = OAT(tokens=8, levels=LEVELS, size="M")
    tokenizer.fit(smooth(2000, 0), validation=(smooth(64, 1), None), steps=steps, batch_size=64)
    network = tokenizer.network.cpu()

    def encode(chunks: np.ndarray) -> torch.Tensor:
        return torch.cat([network.ids(network.units(part)) for part in torch.from_numpy(chunks).split(BATCH)])

    def decode(ids: torch.Tensor) -> torch.Tensor:
        keep = torch.full((len(ids),), ids.shape[1])
        pairs = zip(ids.split(BATCH), keep.split(BATCH), strict=True)
        return torch.cat([network.units.back(network.chunks(*pair)).float() for pair in pairs])

    held_out, ids, distortion = smooth(1024, 2), {}, {}
    for dtype, wanted in (("float32", "≥ 1.3"), ("bf16", "≥ 2")):
        found: dict[str, list[float]] = {"encode": [], "decode": []}
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            for k in range(rounds + 1):  # the first warms up
                chunks = smooth(256, 10 + k)
                tokens = encode(chunks)
                found["encode"].append(rate(lambda c=chunks: encode(c), len(chunks)))
                found["decode"].append(rate(lambda t=tokens: decode(t), len(chunks)))
            ids[dtype] = encode(held_out)
            distortion[dtype] = float(np.square(decode(ids[dtype]).numpy() - held_out).mean())
        for what in found:
            beside = OAT_PUBLISHED[what]
            show(f"OAT M {what}, {dtype}", "chunks/s", found[what][1:], beside=beside, of=PEER, wanted=wanted)
    show(
        "OAT M distortion in bf16",
        "sd²",
        [distortion["bf16"]],
        beside=distortion["float32"],
        of="float32",
        wanted="1 ± 0.01",
    )
    differ = (ids["bf16"] != ids["float32"]).float().mean()
    show("OAT M tokens that differ in bf16", "%", [100 * float(differ)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    measure_fast(options.rounds)
    measure_fsq(options.rounds)
    measure_oat(options.rounds, options.steps)


if __name__ == "__main__":
    main()
