"""Fixtures that several folders of tests share: one finished study of the channel, trained in seconds."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SMALL_STUDY = """\
name: small
suite: channel
cameras: {image_size: 16}
factors:
  encoder: [retina-4]
  action: [diffusion, oat]
  seed: [0, 1]
  demos: [6]
training: {steps: 6, batch_size: 8, lr: 1e-3, warmup: 2, validations: 4}
tokenizer: {steps: 6, batch_size: 8}
policy: {sampling_steps: 2}
rollout: {execute: 16, episodes_per_task: 6}
"""


@dataclass(frozen=True)
class Finished:
    """A study that has run: its file, its store, and what ``study run --json`` printed."""

    file: Path
    store: Path
    printed: str
    log: str

    @property
    def summary(self) -> dict[str, Any]:
        """A fresh copy of the summary."""
        return json.loads(self.printed)

    @property
    def record(self) -> Any:
        """The summary as a record."""
        from compression_gap.api.results import summarise_study
        from compression_gap.api.study import load_study, open_study

        opened = open_study(load_study(self.file), self.store)
        return replace(summarise_study(opened), command=self.summary["command"])

    @property
    def policy(self) -> Path:
        """The folder of a trained policy."""
        return Path(self.summary["cells"][0]["policies"][0])

    @property
    def page(self) -> str:
        """The report."""
        return (self.store / "studies" / "small" / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Entries of another package, by name, as the entry points of an installed one bring them."""
    package, found = ModuleType("elsewhere"), []
    monkeypatch.setitem(sys.modules, "elsewhere", package)

    def add(group: str, name: str, entry: Any) -> None:
        where = f"entry_{len(found)}"
        monkeypatch.setattr(package, where, entry, raising=False)
        found.append(EntryPoint(name, f"elsewhere:{where}", f"compression_gap.{group}"))

    monkeypatch.setattr(
        "compression_gap.registry.installed", lambda group: EntryPoints(found).select(group=group)
    )
    return add


@pytest.fixture(scope="session")
def small_study_text() -> str:
    """The study file of the finished study."""
    return SMALL_STUDY


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The study above, run once per session by the command line in this process."""
    from compression_gap.cli.main import main
    from compression_gap.rollouts.pools import close_pools

    folder = tmp_path_factory.mktemp("finished")
    file = folder / "small.yaml"
    file.write_text(SMALL_STUDY)
    out, log = io.StringIO(), io.StringIO()
    store = folder / "store"
    with redirect_stdout(out), redirect_stderr(log):
        code = main(["study", "run", str(file), "--store", str(store), "--processes", "0", "--json"])
    close_pools()
    assert code == 0, log.getvalue()
    return Finished(file, store, out.getvalue(), log.getvalue())


@pytest.fixture(scope="session")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The store and the printed table of ``cgap tokenizers`` on a few demonstrations of the channel."""
    from compression_gap.cli.main import main
    from compression_gap.rollouts.pools import close_pools

    store = tmp_path_factory.mktemp("compared") / "store"
    out, log = io.StringIO(), io.StringIO()
    arguments = [
        "--demo-episodes",
        "12",
        "--steps",
        "6",
        "--batch-size",
        "8",
        "--episodes",
        "3",
        "--seeds",
        "0",
        "1",
    ]
    arguments += ["--prior-steps", "4", "--processes", "0", "--store", str(store), "--json"]
    with redirect_stdout(out), redirect_stderr(log):
        code = main(["tokenizers", "channel", "--tokenizers", "bins", "fast", "oat", *arguments])
    close_pools()
    assert code == 0, log.getvalue()
    return store, json.loads(out.getvalue())


@pytest.fixture(scope="session")
def text_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small SigLIP as a user would have it: a folder with a tokenizer of words, and the library's model."""
    import tokenizers
    import torch
    import transformers
    from tokenizers.processors import TemplateProcessing

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    folder = tmp_path_factory.mktemp("tower") / "siglip"
    words = [
        "</s>",
        "<unk>",
        "reach",
        "push",
        "pick",
        "place",
        "the",
        "red",
        "block",
        "open",
        "drawer",
        "put",
        "bowl",
        "on",
        "plate",
    ]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")
    )
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="</s>", eos_token="</s>", unk_token="<unk>", model_max_length=8
    ).save_pretrained(folder)
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": len(words), "max_position_embeddings": 8, "projection_size": 12}
    text |= {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
    torch.manual_seed(3)
    config = transformers.SiglipConfig(
        text_config=text, vision_config={**tower, "image_size": 16, "patch_size": 8}
    )
    model = transformers.SiglipModel(config).eval()
    with torch.no_grad():  # away from the zeros and ones that a new model starts with
        for p in model.parameters():
            p.add_(0.1 * torch.rand_like(p))
    model.save_pretrained(folder)
    return folder, model


def record(
    root: Path,
    *,
    seed: int = 0,
    tasks: Sequence[str] = ("pick the cube", "open the drawer"),
    episodes: int = 10,
    sizes: dict[str, tuple[int, int]] | None = None,
    action_dim: int = 3,
    proprio_dim: int = 4,
    state_dim: int | None = 5,
    fps: float = 10.0,
    spec: dict[str, Any] | None = None,
) -> Path:
    """A set of recordings in the store ``root``, as an import makes it: its folder. Goals are seen and in the state."""
    from compression_gap.demos.demoset import DemoWriter
    from compression_gap.store.store import Recipe, Store

    rng = np.random.default_rng(seed)
    sizes = {"front": (16, 16), "wrist": (16, 16)} if sizes is None else sizes
    about = {"source": {"format": "hdf5", "sha256": f"{seed:064d}"}, "cameras": list(sizes)}
    recipe = Recipe("demos", spec or {"import": about, "tasks": list(tasks)})
    with Store(root).create(recipe) as out:
        writer = DemoWriter(out, source={"kind": "import", "fps": fps, **about}, cameras=list(sizes))
        for number in range(episodes * len(tasks)):
            length, goal = int(rng.integers(18, 26)), rng.uniform(-1, 1, action_dim)
            writer.episode(tasks[number % len(tasks)], length)
            noise = rng.normal(0, 0.1, (length, action_dim))
            writer.stream("actions", (goal + noise).astype(np.float32))
            writer.stream("proprio", rng.normal(0, 1, (length, proprio_dim)).astype(np.float32))
            if state_dim is not None:
                state = np.concatenate([goal, np.zeros(state_dim)])[:state_dim] + rng.normal(
                    0, 0.1, state_dim
                )
                writer.stream("state", np.tile(state, (length, 1)).astype(np.float32))
            for camera, (h, w) in sizes.items():
                shade = np.uint8(100 + 80 * goal[0])
                frames = np.full((length, h, w, 3), shade, np.uint8)
                frames[:, : h // 2] += rng.integers(0, 20, (length, h // 2, w, 3), dtype=np.uint8)
                writer.stream(f"images-{camera}", frames)
        writer.close()
    return Store(root).path(recipe)


@pytest.fixture(scope="session", name="record")
def _record() -> Callable[..., Path]:
    """The function above."""
    return record


RECORDED_STUDY = """\
name: recorded
data: [{folder}]
factors:
  encoder: [retina-4]
  action: [regression, oat]
  seed: [0, 1]
training: {{steps: 6, batch_size: 8, lr: 1e-3, warmup: 2, validations: 4}}
tokenizer: {{steps: 6, batch_size: 8}}
"""


@dataclass(frozen=True)
class Recorded(Finished):
    """A study of recordings that has run."""

    demos: Path = Path()

    @property
    def page(self) -> str:
        """The report."""
        return (self.store / "studies" / "recorded" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A study of recordings with the true state and two tasks, run once per session by the command line."""
    from compression_gap.cli.main import main

    folder = tmp_path_factory.mktemp("recorded")
    store = folder / "store"
    demos = record(store)
    file = folder / "recorded.yaml"
    file.write_text(RECORDED_STUDY.format(folder=demos))
    out, log = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(log):
        code = main(["study", "run", str(file), "--store", str(store), "--processes", "0", "--json"])
    assert code == 0, log.getvalue()
    return Recorded(file, store, out.getvalue(), log.getvalue(), demos)
