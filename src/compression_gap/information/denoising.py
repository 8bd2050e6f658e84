"""How the denoisers of I-MMSE are made and trained. No torch here: plans and pages read it."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Denoising:
    """How the networks are made and trained, which differ by their seed: the spread of the estimates is theirs."""

    steps: int = 1500
    seeds: int = 3
    reduction_steps: int = 500  # of the networks that reduce wide parts
    batch_size: int = 512
    width: int = 256
    layers: int = 2
    lr: float = 2e-3
    weight_decay: float = 1e-2
    neighbours: int = 8192  # training chunks that the kernels average, at most
    seed: int = 0

    def shared(self, share: int) -> Denoising:
        """For one of ``share`` training episodes: as many epochs, by one seed."""
        steps, reduction = max(1, self.steps // share), max(1, self.reduction_steps // share)
        return replace(self, steps=steps, reduction_steps=reduction, seeds=1)
