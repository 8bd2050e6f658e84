"""One training over several devices: each process takes a part of every batch, and gradients are averaged (extra ``devices``).

A batch in n parts is the same training wherever it runs: every part has its own noise, so n processes and one process
that takes the parts one after the other end with the same numbers, to rounding.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import Interrupted, UserError
from ..extras import install
from ..store.environment import environment
from ..store.workers import die_with_parent


@dataclass(frozen=True)
class Ranks:
    """Which of the processes of a training this one is. ``world``: how many there are."""

    rank: int = 0
    world: int = 1

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", self.rank) if self.world > 1 else torch.device("cuda")

    def own(self, parts: int) -> Sequence[int]:
        """The parts of a batch that this process takes: all of them, if it is alone."""
        return range(parts) if self.world == 1 else [self.rank]

    def averaged(self, parameters: Sequence[nn.Parameter], loss: Tensor, stop: bool) -> tuple[Tensor, bool]:
        """Average the gradients, in place, and the loss over the processes; whether any of them wants to stop."""
        if self.world == 1:
            return loss, stop
        from accelerate.utils import reduce

        gradients = [p.grad for p in parameters if p.grad is not None]
        told = torch.stack([loss.float(), torch.full_like(loss.float(), stop)])
        flat = torch.cat([g.reshape(-1).float() for g in gradients] + [told])
        mean = reduce(flat, "mean")
        at = 0
        for gradient in gradients:
            gradient.copy_(mean[at : at + gradient.numel()].view_as(gradient))
            at += gradient.numel()
        return mean[at], bool(mean[at + 1] > 0)


ALONE = Ranks()


@contextmanager
def started(parts: int, take_part: Callable[[Ranks], None]) -> Iterator[Ranks]:
    """This process as the first of ``parts``; the others run ``take_part``, which must be picklable.

    Without so many GPUs (but with one) this process is alone, and takes the parts one after the other.
    Raises ``UserError`` without accelerate.
    """
    count = torch.cuda.device_count()
    if parts == 1 or 0 < count < parts:
        yield ALONE
        return
    _check_accelerate()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_take_part, args=(take_part, rank, parts, port, os.getpid()))
        for rank in range(1, parts)
    ]
    for process in others:
        process.start()
    try:
        with joined(0, parts, port) as ranks:
            yield ranks
        for process in others:
            process.join()
    finally:
        for process in others:
            process.kill()  # whatever ended this one ends them
            process.join()


def _take_part(take_part: Callable[[Ranks], None], rank: int, world: int, port: int, parent: int) -> None:
    die_with_parent(parent)
    with suppress(Interrupted), joined(rank, world, port) as ranks:
        take_part(ranks)


@contextmanager
def joined(rank: int, world: int, port: int) -> Iterator[Ranks]:
    """Meet the other processes of a training on this machine, and part from them at the end."""
    from accelerate import PartialState

    names = {
        "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world,
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
    }  # fmt: skip
    with environment({n: str(v) for n, v in names.items()}):
        state = PartialState(cpu=not torch.cuda.is_available())
        try:
            yield Ranks(rank, world)
        finally:
            state.destroy_process_group()
            PartialState._reset_state()  # the next training of this process has other ranks


def _check_accelerate() -> None:
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        raise UserError(f"training.devices above 1 needs accelerate: {install('devices')}") from error
