"""A policy of anyone's under one change, wherever it is found: what episodes and recordings are measured with.

The policy lies in a folder, or is served: where is no part of a key. What it is, is its name and a hash: of the files
of its folder, or of what its server says of it. A remote policy's identity is only as good as that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..rollouts.actors import Actor
from ..rollouts.changes import ChangedActor, Move, Sight
from ..serving.binding import HOW_SERVED, Binding
from ..sims import SimInfo
from ..sims.base import instruction_of
from ..store.artifact import ELIDED, UNKEYED
from ..store.store import Store, digest
from .normaliser import FittedNormaliser
from .tokenizer import FittedTokenizer

START = 5.0  # seconds to wait for a server that is not there: every change asks anew


@dataclass(frozen=True)
class PolicyIdentity:
    """A policy: its name, as the user declares it, and a hash of its files, or of what its server says of it."""

    name: str
    digest: str

    @staticmethod
    def in_folder(name: str, folder: Path) -> PolicyIdentity:
        """That of a policy's files, without what says when and where it was made."""
        every = sorted(f for f in folder.rglob("*.*") if f.suffix in (".json", ".safetensors"))
        files = [f for f in every if f.name != "artifact.json"]
        return PolicyIdentity(
            name,
            digest({str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}),
        )

    @staticmethod
    def served(name: str, metadata: Mapping[str, Any]) -> PolicyIdentity:
        """That of what a server greets with, but for how it serves."""
        told = {str(k): repr(v) for k, v in sorted(metadata.items()) if k not in HOW_SERVED}
        return PolicyIdentity(name, digest(told))


@dataclass(frozen=True)
class Where:
    """Where a policy is found: its folder, or the addresses of its servers and how long to wait for an answer."""

    folder: Path | None = None
    addresses: tuple[str, ...] = ()
    timeout: float = 60.0
    horizon: int = 0  # of a served policy's chunks, known from the first question


@dataclass(frozen=True, eq=False, kw_only=True)
class UnderChange:
    """Fields of a kind that measures a policy under one change at the most.

    Of its ``sight``, or of its chunks: through the ``tokenizer`` (``prefix``: its first tokens alone), or with
    ``noise`` of size ``sigma``.
    """

    policy: PolicyIdentity
    binding: Binding | None = field(default=None, metadata=ELIDED)
    sight: Sight | None = field(default=None, metadata=ELIDED)
    noise: str | None = field(default=None, metadata=ELIDED)
    sigma: float | None = field(default=None, metadata=ELIDED)
    prefix: int | None = field(default=None, metadata=ELIDED)
    normaliser: FittedNormaliser | None = None
    tokenizer: FittedTokenizer | None = None
    where: Where = field(default_factory=Where, metadata=UNKEYED)

    @property
    def change(self) -> str:
        """The change, in words; empty for none."""
        if self.tokenizer is not None:
            kept = "" if self.prefix is None else f", first {self.prefix}"
            bins = self.tokenizer.options.get("bins")
            name = self.tokenizer.code.words if bins is None else f"{self.tokenizer.tokenizer} {bins}"
            return f"chunks through {name}{kept}"
        if self.noise is not None:
            return f"{'white noise' if self.noise == 'white' else self.noise}, σ {self.sigma:g}"
        return "" if self.sight is None else self.sight.words

    @contextmanager
    def acting(
        self, store: Store, tasks: tuple[str, ...], info: SimInfo, mean: np.ndarray | None
    ) -> Iterator[ChangedActor]:
        """The policy under its change, on ``tasks``; ``mean``: of the robot's own state [p], where that is shown."""
        see = None
        if self.sight is not None:
            see = self.sight.see([instruction_of(t, info.instructions) for t in tasks], mean)
        inner = self._found(tasks, info)
        try:
            yield ChangedActor(inner, see, self._move(store))
        finally:
            if close := getattr(inner, "close", None):
                close()

    def _found(self, tasks: tuple[str, ...], info: SimInfo) -> Actor:
        where = self.where
        if where.folder is not None:
            from ..policies import Policy

            return Policy.load(where.folder).on_tasks(tasks)
        from ..serving.remote import RemoteActor

        assert self.binding is not None
        actor = RemoteActor(where.addresses, self.binding, tasks, info, where.timeout, START, where.horizon)
        if PolicyIdentity.served(self.policy.name, actor.metadata or {}) != self.policy:
            actor.close()
            raise UserError(
                f"{', '.join(where.addresses)} serves another policy than the one that this run began with (its greeting "
                "has changed); serve the first one again, or begin anew under another --name"
            )
        return actor

    def _move(self, store: Store) -> Move | None:
        if self.tokenizer is not None:
            code = self.tokenizer.round_trip(store, self.prefix)
            return lambda chunks, seeds: code(chunks)
        if self.noise is None:
            return None
        from ..information.resolution import disturbance
        from ..policies import Emission

        assert self.normaliser is not None
        assert self.sigma is not None
        disturb = disturbance(self.noise, self.sigma, self.normaliser.load(store))
        return lambda chunks, seeds: Emission(disturb(chunks, seeds), np.ones(len(chunks), bool))
