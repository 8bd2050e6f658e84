"""Fixtures that several folders of tests share: one finished study of the channel, trained in seconds."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    def policy(self) -> Path:
        """The folder of a trained policy."""
        return Path(self.summary["cells"][0]["policies"][0])

    @property
    def page(self) -> str:
        """The report."""
        return (self.store / "studies" / "small" / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def small_study_text() -> str:
    """The study file of the finished study."""
    return SMALL_STUDY


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The study above, run once per session by the command line in this process."""
    from compression_gap.cli import main
    from compression_gap.study.builders import close_pools

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
    from compression_gap.cli import main
    from compression_gap.study.builders import close_pools

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
