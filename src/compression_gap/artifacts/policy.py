"""Kind "policy": one training of an action head on what an encoder sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..demos import SPLITS
from ..errors import UserError
from ..policies.registry import action_name
from ..store.artifact import Artifact, Job, Needs, elided, role
from ..store.remote import open_store
from ..store.store import Store
from ..tokenizers.code import Code
from ..tokenizers.levels import codebook_name
from .demonstrations import Demonstrations
from .encoder import PreparedEncoder
from .features import Features, load_features
from .instructions import EmbeddedInstructions
from .normaliser import FittedNormaliser
from .tokenizer import FittedTokenizer
from .tokens import TargetTokens

if TYPE_CHECKING:
    from ..nn.ranks import Ranks
    from ..policies import Policy

TrainedOn = Literal["chunk", "coded"]
Executed = Literal["chunk", "snapped"]
_SWAPS: dict[tuple[TrainedOn, Executed], str] = {
    ("coded", "snapped"): "with the code of",
    ("coded", "chunk"): "trained on the code of",
    ("chunk", "snapped"): "requantised by the code of",
}
GPU_SHARES = {
    "xs": 0.1,
    "S": 0.2,
    "M": 0.25,
    "L": 0.5,
}  # a training's step keeps no more than this of one busy
SECONDS_PER_STEP = {"xs": 0.06, "S": 0.2, "M": 0.7, "L": 2.0}  # of 128 decision points


def representation(action: str, code: Code | None, trained_on: TrainedOn, executed: Executed) -> str:
    """An action representation in words, with how the matched-head ablation trains and executes it."""
    how = _SWAPS.get((trained_on, executed))
    return action if how is None or code is None else f"{action} {how} {code.tokenizer}"


def task_words(task: str) -> list[str]:
    """How the task enters a policy, in words; nothing for the learned embedding, which is the usual way."""
    return {"index": ["task as index"], "text": ["task as text"]}.get(task, [])


def codebook_words(code: Code | None) -> str:
    """A code's codebook, to be put behind a name."""
    return f" {codebook_name(code.codebook)}" if code and code.codebook else ""


class TrainedPolicy(Artifact, kind="policy", version=3):
    """A policy's levels, what it is trained with, and what it learns from.

    ``target``: "chunk", or "coded" for a head that is trained on what a code makes of the chunks (docs/theory.md);
    ``training``: the fields of ``nn.Schedule``; ``crop``: of the images, where it is not the encoder's habit;
    ``checkpoints``: earlier steps whose weights are kept, too; ``tokens`` are there wherever a code takes part.
    """

    sim: str
    encoder: str
    head: str
    size: str
    horizon: int
    n_obs_steps: int
    stride: int
    tasks: tuple[str, ...]
    seed: int
    training: Mapping[str, Any]
    options: Mapping[str, Any]
    target: TrainedOn
    task: str = elided(default="embedding")
    crop: Mapping[str, Any] | None = elided(default=None)
    tokenizer_mode: str = elided(default="eval")
    checkpoints: tuple[int, ...] = elided(default=())
    demos: tuple[Demonstrations, ...]
    normaliser: FittedNormaliser
    prepared: PreparedEncoder | None = role("encoder", default=None)
    features: tuple[Features, ...] = ()
    text: EmbeddedInstructions | None = None
    tokenizer: FittedTokenizer | None = None
    tokens: TargetTokens | None = None

    @property
    def code(self) -> Code | None:
        """The code of a token policy, or the one that the training targets went through."""
        return None if self.tokens is None else self.tokens.tokenizer.code

    @property
    def action(self) -> str:
        """The action representation, as a study names it."""
        return action_name(self.head, None if self.tokenizer is None else self.tokenizer.tokenizer)

    def words(self, code: Code | None, executed: Executed = "chunk") -> str:
        """Its levels and seed, with a code that it is trained on or snapped to."""
        name = representation(self.action, code, self.target, executed) + codebook_words(code)
        return " · ".join([name, *task_words(self.task), self.encoder, self.size, f"seed {self.seed}"])

    @property
    def label(self) -> str:
        """Which training."""
        return f"training {self.words(self.code)}"

    @property
    def cost(self) -> float:
        """Core-seconds."""
        slow = SECONDS_PER_STEP[self.size] * self.training["batch_size"] / 128
        # a token a step and dimension
        slow *= 3 if self.tokenizer is not None and self.tokenizer.tokenizer.startswith("bins") else 1
        return 5 + slow * int(self.training["steps"])

    @property
    def needs(self) -> Needs:
        """A share of a GPU by its size; all of one where images are encoded at each step; or as many as it asks for."""
        if self.devices > 1:
            return Needs(cpus=self.devices, gpus=self.devices)
        return Needs(gpus=GPU_SHARES[self.size] if self.features else 1.0)

    @property
    def devices(self) -> int:
        """The parts of its batches: on as many devices, where they are there."""
        return int(self.training.get("devices", 1))

    def build(self, job: Job) -> Mapping[str, Any]:
        """Train and save. The record holds curve, counts, speed."""
        from ..nn.ranks import started

        with started(self.devices, partial(_take_part, self, job.store.address, job.out)) as ranks:
            return self._train(job, ranks)

    def _train(self, job: Job, ranks: Ranks) -> Mapping[str, Any]:
        from ..policies.train import TrainingSpec, train_policy

        store, sets = job.store, self.normaliser.demosets(job.store)
        if any(of is not None and of.demos != self.demos for of in (self.normaliser, self.tokens)):
            raise ValueError("the normaliser or the target tokens are those of other demonstrations")
        return train_policy(
            TrainingSpec(**{f.name: getattr(self, f.name) for f in fields(TrainingSpec)}),
            sets,
            load_features(self.features, self.demos, sets, store) if self.features else None,
            self.normaliser.load(store),
            None if self.tokenizer is None else self.tokenizer.load(store),
            None if self.tokens is None else {s: self.tokens.load(store, s) for s in SPLITS if s != "test"},
            prepared=None if self.prepared is None else self.prepared.load(store),
            instructions=None if self.text is None else self.text.load(store),
            out=job.out,
            work=job.work,
            should_stop=job.should_stop,
            progress=job.progress,
            ranks=ranks,
        )

    def load(self, store: Store, checkpoint: int | None = None) -> Policy:
        """The trained policy, or its weights of an earlier step."""
        from ..policies import Policy

        folder = store.open(self)
        return Policy.load(folder if checkpoint is None else folder / "checkpoints" / str(checkpoint))


def _take_part(policy: TrainedPolicy, store: str, out: Path, ranks: Ranks) -> None:
    """What another process of the same training does: all that the first one does, but for writing."""
    policy._train(Job(policy, open_store(store), out, lambda done, total: None, lambda: False), ranks)


def diverged(policy: TrainedPolicy) -> UserError:
    """The sentence for a policy that emits no finite numbers."""
    return UserError(
        f"the policy {policy.key} emits actions that are no finite numbers: its training has diverged; train it again "
        "with a lower learning rate"
    )
