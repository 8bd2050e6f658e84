"""A policy: encoder, context adapter, head, normaliser and tokenizer; saved and loaded as one folder."""

from __future__ import annotations

import copy
import hashlib
import json
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..demos import Normaliser
from ..demos.source import check_files
from ..encoders import is_prepared, make_encoder
from ..encoders.base import ContextAdapter, InstructionToken
from ..encoders.limits import TrueState
from ..encoders.names import is_pretrained
from ..encoders.text import Instructions
from ..errors import UserError
from ..nn import SIZES
from ..nn.shapes import check_shapes, shapes_in
from ..sims import Observation
from ..tokenizers import ActionTokenizer, load_tokenizer
from ..tokenizers.base import UNREADABLE
from .base import Emission, Target
from .card import Card, PolicyFacts, write_card
from .registry import make_head
from .sharing import FILES, fetch, one_line, share
from .spec import PolicySpec

PREPARED_FILES = (
    "encoder.json",
    "encoder.safetensors",
)  # a pretrained checkpoint's weights stay where they are


Module = TypeVar("Module", bound=nn.Module)


class PolicyModule(nn.Module):
    """The trainable part."""

    def __init__(
        self,
        spec: PolicySpec,
        normaliser: Normaliser,
        tokenizer: ActionTokenizer | None,
        prepared: Path | None = None,
        *,
        instructions: Instructions | None = None,
        weights: bool = True,
    ) -> None:
        """``prepared``: the folder of a prepared encoder; without ``weights``, ``load_state_dict`` must follow.

        ``instructions``: those of the tasks, in their order, for a policy that is conditioned on text.
        """
        super().__init__()
        size, self.prepared, self.instructions = SIZES[spec.size], prepared, instructions
        self.adapter = ContextAdapter(
            make_encoder(spec.encoder, cameras=len(spec.cameras), folder=prepared, crop=spec.crop),
            cameras=len(spec.cameras),
            feature_dim=spec.feature_dim,
            proprio_dim=spec.proprio_dim,
            tasks=len(spec.tasks),
            n_obs_steps=spec.n_obs_steps,
            width=size.width,
            weights=weights,
            conditioning=spec.task,
            instructions=None if instructions is None else torch.from_numpy(instructions.table),
        )
        self.head: Any = make_head(
            spec.head,
            size,
            horizon=spec.horizon,
            action_dim=spec.action_dim,
            context_tokens=self.adapter.tokens,
            clip=float(max(1.0, np.abs([normaliser.low, normaliser.high]).max())),
            tokenizer=tokenizer,
            options=spec.options,
        )

    def loss(
        self, features: Tensor, proprio: Tensor, task: Tensor, target: Target, *, rng: torch.Generator
    ) -> Tensor:
        """The head's loss per sample [B]."""
        value: Tensor = self.head.loss(self.adapter(features, proprio, task), target, rng=rng)
        return value


def lay_out(module: Module) -> Module:
    """Store weights of layers that widen by input: products with few rows read them twice as fast.

    Shapes and values stay as they are.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and layer.out_features > layer.in_features:
            layer.weight.data = layer.weight.data.t().contiguous().t()
    return module


class Policy:
    """Observations in, action chunks out. An actor: ``run_episodes`` drives it as it is."""

    asks = "observation"

    def __init__(
        self,
        spec: PolicySpec,
        module: PolicyModule,
        normaliser: Normaliser,
        tokenizer: ActionTokenizer | None = None,
    ) -> None:
        self.spec, self.module = spec, lay_out(module.eval().requires_grad_(False))
        self.normaliser, self.tokenizer = normaliser, tokenizer
        self.encoder = make_encoder(
            spec.encoder, cameras=len(spec.cameras), folder=module.prepared, crop=spec.crop
        )
        self.n_obs_steps, self.horizon = spec.n_obs_steps, spec.horizon
        self.needs_images = self.encoder.needs_images
        self.device = next(module.parameters()).device
        self.task_index = np.arange(len(spec.tasks))

    def on_tasks(self, tasks: tuple[str, ...]) -> Policy:
        """This policy for observations whose task numbers count over ``tasks``, some of those it knows."""
        if unknown := sorted(set(tasks) - set(self.spec.tasks)):
            raise UserError(
                f"the policy was not trained on {', '.join(unknown)}; it knows {', '.join(self.spec.tasks)}"
            )
        self.task_index = np.array([self.spec.tasks.index(t) for t in tasks])
        return self

    @property
    def instructions(self) -> tuple[str, ...]:
        """The instructions of its tasks, in their order; none, if it is not conditioned on text."""
        known = self.module.instructions
        return () if known is None else known.texts[: len(self.spec.tasks)]

    def instruct(self, text: str) -> int:
        """The task number that stands for an instruction, in observations from now on.

        One that is new is embedded by the text tower that the policy was trained with. Raises ``UserError`` if that
        is not to be had, or the policy is not conditioned on text.
        """
        known, token = self.module.instructions, self.module.adapter.task
        if known is None or not isinstance(token, InstructionToken):
            raise UserError(
                f"this policy knows tasks by their {self.spec.task}, not by instructions: {', '.join(self.spec.tasks)}"
            )
        known, row = known.with_text(" ".join(text.split()))
        self.module.instructions = known
        token.table = torch.from_numpy(known.table).to(token.table.device)
        self.task_index = np.append(self.task_index, row)
        return len(self.task_index) - 1

    @property
    def state_dim(self) -> int:
        """Numbers of the simulator's true state that its encoder reads; 0: it reads none."""
        if not isinstance(self.encoder, TrueState):
            return 0
        return self.encoder.state_dim or self.spec.feature_dim

    def act(self, asked: Observation, seeds: np.ndarray) -> Emission:
        """Chunks float32 [B, H, d] in raw action units for B observations; one seed per row."""
        return in_raw_units(self.emit(asked, seeds), self.normaliser)

    @torch.no_grad()
    def emit(self, asked: Observation, seeds: np.ndarray) -> Emission:
        """What ``act`` returns, in normalised units."""
        features = self.encoder.features(replace(asked, task=self.task_index[asked.task]))
        if self.encoder.frozen:
            features = features.astype(self.encoder.dtype)  # as it was cached for training
        return self.emit_from(features, asked.proprio, asked.task, seeds)

    @torch.no_grad()
    def emit_from(
        self, features: np.ndarray, proprio: np.ndarray, task: np.ndarray, seeds: np.ndarray
    ) -> Emission:
        """``emit`` from features [B, T, C, ...] as they are cached, proprio [B, T, p] and task numbers [B]."""
        context = self.module.adapter(
            torch.from_numpy(np.ascontiguousarray(features)).to(self.device),
            torch.from_numpy(np.ascontiguousarray(proprio, np.float32)).to(self.device),
            torch.from_numpy(self.task_index[task]).to(self.device),
        )
        dtype = next(self.module.head.parameters()).dtype
        emitted = self.module.head.sample(context.to(dtype), [int(s) for s in seeds])
        return replace(emitted, chunk=emitted.chunk.float().cpu().numpy(), ok=np.asarray(emitted.ok))

    def to_bfloat16(self) -> Policy:
        """A copy whose head computes in bfloat16, its weights cast once: to act faster, not to be saved.

        The context stays float32 (features may need it), and so does the arithmetic between network calls.
        """
        module = copy.deepcopy(self.module)
        module.head.to(torch.bfloat16)
        made = Policy(self.spec, module, self.normaliser, self.tokenizer)
        made.task_index = self.task_index
        return made

    def digest(self) -> str:
        """A hash of its parameters and of its normaliser: what tells two trainings of one design apart."""
        found = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            found.update(name.encode())
            found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        for array in (self.normaliser.mean, self.normaliser.std):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()[:20]

    def parameter_counts(self) -> dict[str, int]:
        """Trained parameters: encoder, adapter without it, trunk, the head's own layers, and all."""

        def count(module: nn.Module) -> int:
            return sum(p.numel() for p in module.parameters())

        encoder = count(self.module.adapter.networks)
        trunk = count(self.module.head.trunk)
        return {
            "encoder": encoder,
            "adapter": count(self.module.adapter) - encoder,
            "trunk": trunk,
            "head": count(self.module.head) - trunk,
            "total": count(self.module),
        }

    def example(self) -> Observation:
        """An observation of zeros [1, T, ...], to measure with."""
        s, t = self.spec, self.spec.n_obs_steps
        shape = (1, t, s.image_size, s.image_size, 3)
        return Observation(
            images={c: np.zeros(shape, np.uint8) for c in s.cameras},
            proprio=np.zeros((1, t, s.proprio_dim), np.float32),
            task=np.zeros(1, np.int64),
            state=np.zeros((1, t, self.state_dim), np.float32) if self.state_dim else None,
        )

    def flops(self) -> int:
        """Floating point operations of one decision at batch 1 (matrix products and convolutions).

        The counter knows no fused attention of the CPU and no fast path of ``nn.MultiheadAttention``, and
        would count them as nothing: both are taken apart into plain products while it counts.
        """
        from torch.nn.attention import SDPBackend, sdpa_kernel
        from torch.utils.flop_counter import FlopCounterMode

        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
                self.act(self.example(), np.zeros(1, np.int64))
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        return int(counter.get_total_flops())

    def facts(self) -> PolicyFacts:
        """What its card says of it. Counts parameters and the operations of a decision."""
        code, known = self.tokenizer, self.module.instructions
        return PolicyFacts(
            self.spec,
            self.parameter_counts(),
            self.flops(),
            tokenizer=None if code is None else f"{code.name}, {code.capacity_bits:.1f} bits a chunk",
            text_encoder=None if known is None else known.pin.encoder,
        )

    def latency(self, calls: int = 10) -> float:
        """Median seconds of one decision at batch 1."""
        obs, seconds = self.example(), []
        for _ in range(calls + 2):
            begun = time.perf_counter()
            self.act(obs, np.zeros(1, np.int64))
            seconds.append(time.perf_counter() - begun)
        return float(np.median(seconds[2:]))

    def save(self, folder: Path) -> None:
        """Write ``policy.json``, ``policy.safetensors``, the normaliser, the tokenizer and the prepared encoder."""
        state = {n: t.cpu().contiguous() for n, t in self.module.state_dict().items()}
        save_file(state, folder / "policy.safetensors")
        (folder / "policy.json").write_text(json.dumps(self.spec.as_json(), indent=1, allow_nan=False))
        self.normaliser.save(folder)
        if self.tokenizer is not None:
            (folder / "tokenizer").mkdir(exist_ok=True)
            self.tokenizer.save(folder / "tokenizer")
        if self.module.instructions is not None:
            self.module.instructions.save(folder / "text")
        if self.module.prepared is not None:  # the policy is loadable by itself
            (folder / "encoder").mkdir(exist_ok=True)
            for file in PREPARED_FILES:
                if (self.module.prepared / file).exists():
                    shutil.copyfile(self.module.prepared / file, folder / "encoder" / file)

    @staticmethod
    def load(folder: Path | str) -> Policy:
        """Read what ``save`` wrote; runs no code from the folder. Raises ``UserError`` if it is no policy."""
        folder = Path(folder)
        if not folder.is_dir():
            raise UserError(
                f"{folder} holds no policy: there is no such folder; name a policy's, as in store/policy/KEY"
            )
        check_files(folder, FILES)
        try:
            spec = PolicySpec.read(folder / "policy.json")
        except OSError as error:
            raise UserError(f"{folder} holds no policy (policy.json): {error}") from error
        except ValueError as error:
            raise UserError(f"{folder} holds no policy that can be read: policy.json: {error}") from error
        try:
            normaliser = Normaliser.load(folder)
            if len(normaliser.mean) != spec.action_dim:
                raise ValueError(
                    f"normaliser.json is of {len(normaliser.mean)} numbers an action, policy.json of {spec.action_dim}"
                )
            tokenizer = load_tokenizer(folder / "tokenizer") if (folder / "tokenizer").is_dir() else None
            prepared = folder / "encoder" if is_prepared(spec.encoder) else None
            instructions = Instructions.load(folder / "text") if spec.task == "text" else None
            make = partial(
                PolicyModule, spec, normaliser, tokenizer, prepared, instructions=instructions, weights=False
            )
            check_shapes(make, shapes_in(folder / "policy.safetensors"))
            module = make()
            module.load_state_dict(load_file(folder / "policy.safetensors"))
        except UNREADABLE as error:
            raise UserError(f"{folder} holds no policy that can be read: {error}") from error
        return Policy(spec, module, normaliser, tokenizer)

    def save_pretrained(self, folder: Path | str, *, card: Card | None = None) -> Path:
        """``save`` to a new folder with checksums and a model card, by one rename; returns the folder.

        ``card``: what is known of its training and its success (``Card()``: nothing). Raises ``UserError`` for a
        folder that holds something already, or cannot be written.
        """
        pretrained = is_pretrained(self.spec.encoder)
        return share(
            Path(folder),
            self.save,
            write_card(self.facts(), card or Card()),
            checkpoint=self.module.prepared if pretrained else None,
        )

    @staticmethod
    def from_pretrained(folder_or_hub_id: Path | str, *, revision: str | None = None) -> Policy:
        """The policy in a folder, or else of the Hub's repository ``owner/name`` (at ``revision``, if given).

        Raises ``UserError``, one sentence, if there is neither, or if what is there is no policy.
        """
        folder = fetch(folder_or_hub_id, revision=revision)
        try:
            return Policy.load(folder)
        except UserError as error:
            raise UserError(one_line(error, 400)) from error


def in_raw_units(emitted: Emission, normaliser: Normaliser) -> Emission:
    """From normalised to raw action units."""
    return replace(emitted, chunk=normaliser.denormalise(emitted.chunk).astype(np.float32))
