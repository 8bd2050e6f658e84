"""used_bits by an autoregressive prior: what a chunk's tokens cost, held out, knowing nothing but the code.

The prior is the autoregressive head on a context that is learned and always the same. Its held-out
cross-entropy is an upper bound on H(T).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..nn import SIZES, Schedule, train
from ..policies.autoregressive import AutoregressiveHead
from ..policies.base import Target
from ..tokenizers import ActionTokenizer, Tokens


@dataclass(frozen=True)
class PriorBits:
    """Bits per chunk [N] of the test split, and whether the prior's training had converged."""

    per_chunk: Tensor
    converged: bool


class _Prior(nn.Module):
    def __init__(self, tokenizer: ActionTokenizer, size: str) -> None:
        super().__init__()
        self.context = nn.Parameter(0.02 * torch.randn(1, 1, SIZES[size].width))
        self.head = AutoregressiveHead(
            SIZES[size], codebook_sizes=tokenizer.codebook_sizes, tokenizer=tokenizer
        )

    def given(self, batch: int) -> Tensor:
        return self.context.expand(batch, -1, -1)


def prior_bits(
    tokenizer: ActionTokenizer,
    tokens: Mapping[str, Tokens],
    *,
    size: str = "xs",
    steps: int = 500,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
    work: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PriorBits:
    """Train on the split "train", follow "validation", return what the chunks of "test" cost."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    longest = max(int(t.lengths.max()) for t in tokens.values())
    data = {
        name: (
            torch.from_numpy(t.ids[:, :longest]).to(device),
            torch.from_numpy(t.lengths).to(device),
        )
        for name, t in tokens.items()
    }
    torch.manual_seed(seed)
    prior = _Prior(tokenizer, size).to(device)

    def target(split: str, rows: Tensor) -> Target:
        ids, lengths = (column[rows] for column in data[split])
        empty = torch.zeros(len(rows), 0, device=device)
        return Target(chunk=empty, valid=empty, tokens=ids, lengths=lengths, coded=None)

    def loss_on(split: str) -> Callable[[nn.Module, Tensor, torch.Generator], Tensor]:
        def loss(module: nn.Module, rows: Tensor, rng: torch.Generator) -> Tensor:
            assert isinstance(module, _Prior)
            return module.head.loss(module.given(len(rows)), target(split, rows), rng=rng)

        return loss

    average, curve = train(
        prior,
        loss_on("train"),
        len(data["train"][0]),
        len(data["validation"][0]),
        Schedule(steps, batch_size, lr, warmup=min(100, steps // 10)),
        validation_loss=loss_on("validation"),
        seed=seed,
        device=device,
        work=work,
        should_stop=should_stop,
        progress=progress,
    )
    assert isinstance(average, _Prior)
    average.eval()
    rows = torch.arange(len(data["test"][0]), device=device)
    with torch.no_grad():
        parts = [average.head.score(average.given(len(r)), target("test", r)) for r in rows.split(256)]
    return PriorBits(torch.cat(parts).cpu(), curve.converged())
