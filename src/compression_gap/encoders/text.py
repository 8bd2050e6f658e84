"""Instructions as vectors: a frozen text tower (SigLIP's) embeds each once, and policies carry the table.

A name (``siglip-base``, ``hub:OWNER/NAME[@REVISION]``, ``folder:PATH``; see ``names.py``) is pinned as a vision
encoder is (``checkpoints.py``): the commit or the SHA-256, the text tower's configuration, the tokenizer's files.
An embedding is the tower's pooled output on token ids padded to the tower's length, as SigLIP was trained (no
attention mask), divided by its Euclidean norm. ``Instructions`` holds the texts and their embeddings; with it a
policy needs the tower only for an instruction that it has not met.

This module imports neither torch nor transformers until something is resolved or embedded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..demos.source import check_files
from ..errors import UserError, unknown_name
from ..records import read_object
from ..store.store import file_sha256, write_json
from .checkpoints import NOT_SHAPE, read_config
from .names import KNOWN, is_pretrained, parse
from .pin import TextPin
from .sources import source_of, weights_folder

TOWERS = {  # by model_type: configuration and model in transformers; of a whole model the text tower is taken
    "siglip": ("SiglipTextConfig", "SiglipTextModel"),
    "siglip_text_model": ("SiglipTextConfig", "SiglipTextModel"),
    "siglip2": ("Siglip2TextConfig", "Siglip2TextModel"),
    "siglip2_text_model": ("Siglip2TextConfig", "Siglip2TextModel"),
}
FORMS = (*(n for n in KNOWN if n.startswith("siglip")), "hub:OWNER/NAME", "folder:PATH")
TOKENIZER = (  # the files that a tokenizer may consist of
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("spiece.model", "tokenizer.model"),
)
BATCH = 64
FILES = ("text.json", "text.safetensors")  # of ``Instructions``


@dataclass(frozen=True)
class Instructions:
    """Texts, and what a text tower makes of them: ``table`` float32 [n, d], rows of norm 1. ``pin``: the tower."""

    texts: tuple[str, ...]
    table: np.ndarray
    pin: TextPin

    def save(self, folder: Path) -> None:
        """Write ``text.json`` and ``text.safetensors``."""
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({"embeddings": np.ascontiguousarray(self.table)}, folder / FILES[1])
        write_json(folder / FILES[0], {"pin": asdict(self.pin), "texts": list(self.texts)})

    @staticmethod
    def load(folder: Path) -> Instructions:
        """Read what ``save`` wrote. Raises ``UserError`` if it is not that."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        check_files(folder, FILES)
        try:
            about = read_object(folder / FILES[0])
            if not all(isinstance(text, str) for text in about["texts"]):
                raise ValueError("an instruction is no text")
            made = Instructions(
                tuple(about["texts"]),
                load_file(folder / FILES[1])["embeddings"],
                TextPin.from_json(dict(about["pin"])),
            )
            if len(made.texts) != len(made.table) or made.table.ndim != 2:
                raise ValueError(f"{len(made.texts)} instructions, and a table {made.table.shape}")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise UserError(
                f"{folder} holds no instructions that can be read ({error}); run the study again"
            ) from error
        return made

    def with_text(self, text: str) -> tuple[Instructions, int]:
        """Instructions that hold ``text`` and its row; the tower is needed, unless it is among them already.

        Raises ``UserError`` if the tower's weights are not on this machine and cannot be fetched.
        """
        if text in self.texts:
            return self, self.texts.index(text)
        table = np.concatenate([self.table, embed(self.pin, [text])])
        return Instructions((*self.texts, text), table, self.pin), len(self.texts)


def check_text_encoder(name: str) -> None:
    """Raise ``UserError`` for a name that can be no text encoder. Imports nothing heavy."""
    if not is_pretrained(name) or (name in KNOWN and name not in FORMS):
        raise unknown_name("text encoder", name, FORMS)
    with _of_text():
        asked = parse(name)
    if asked.patches > 1 or asked.finetune is not None:
        raise UserError(
            f"policy.text_encoder '{name}': leave out +patches and +finetune, which images alone have"
        )


def resolve_text(name: str) -> TextPin:
    """The pin of a text encoder's name.

    Raises ``UserError`` in a sentence: no such model or folder, no text tower, no tokenizer.
    """
    with _of_text():
        check_text_encoder(name)
        source, read = source_of(name)
        config = read_config(name, read("config.json"), "config.json")
        kind = config.get("model_type", "checkpoint without model_type")
        tower = config.get("text_config") if kind in ("siglip", "siglip2") else config
        if kind not in TOWERS or tower is None:
            raise UserError(
                f"encoder '{name}' is a '{kind}', which has no text tower that is known here ({', '.join(TOWERS)}): "
                "choose a SigLIP checkpoint"
            )
        found = {f: path for f in TOKENIZER if (path := read(f)) is not None}
        if not found.keys() & {"tokenizer.json", "spiece.model", "tokenizer.model"}:
            raise UserError(
                f"encoder '{name}' comes without a tokenizer (tokenizer.json or spiece.model): put the tokenizer's "
                "files beside its weights, with save_pretrained"
            )
        about = read_config(name, found.get("tokenizer_config.json"), "tokenizer_config.json")
        if "auto_map" in about:
            raise UserError(
                f"encoder '{name}': its tokenizer is code that comes with the checkpoint, which is never run here: "
                "choose another checkpoint"
            )
        tower = {k: v for k, v in tower.items() if k not in NOT_SHAPE}
        shape = _config(name, kind, tower)
    return TextPin(
        encoder=name,
        source=source,
        model_type=kind,
        config=tower,
        tokenizer={f: file_sha256(path) for f, path in found.items()},
        length=shape.max_position_embeddings,
        feature_dim=shape.projection_size,
    )


def prepare_text(pin: TextPin, texts: Sequence[str], out: Path) -> None:
    """Embed the texts with the tower of the pin, and save both to the folder ``out``."""
    Instructions(tuple(texts), embed(pin, texts), pin).save(out)


def embed(pin: TextPin, texts: Sequence[str]) -> np.ndarray:
    """Embeddings float32 [n, d] of n texts, each of norm 1.

    Raises ``UserError`` if the checkpoint is not the pinned one or not to be had, or a text is too long for it.
    """
    import torch

    with _of_text():
        tokenizer, model = _tower(pin)
    own = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
    for text, tokens in zip(texts, own, strict=True):
        if tokens > pin.length:
            raise UserError(
                f"policy.text_encoder: the instruction '{text[:60]}…' has {tokens} tokens, and '{pin.encoder}' reads "
                f"{pin.length}: shorten it, or take another text encoder"
            )
    rows = []
    for start in range(0, len(texts), BATCH):
        part = list(texts[start : start + BATCH])
        ids = tokenizer(part, padding="max_length", max_length=pin.length, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            pooled = model(input_ids=ids).pooler_output.float()
        rows.append((pooled / pooled.norm(dim=-1, keepdim=True)).numpy())
    made = np.concatenate(rows).astype(np.float32)
    if not np.isfinite(made).all():
        raise UserError(f"policy.text_encoder: '{pin.encoder}' gives no finite embeddings; take another copy")
    return made


@functools.lru_cache(maxsize=1)
def _tower(pin: TextPin) -> tuple[Any, Any]:
    """Tokenizer and text tower of a pin, on the processor: a study embeds a few dozen sentences."""
    import torch
    import transformers
    from safetensors import SafetensorError

    from .pretrained import quiet

    name, folder = pin.encoder, weights_folder(pin)
    for file, sha in pin.tokenizer.items():
        if not (folder / file).is_file():
            source_of(name)[1](file)  # a hub model's, of which the cache held the weights alone
        if not (folder / file).is_file() or file_sha256(folder / file) != sha:
            raise UserError(
                f"encoder '{name}': its {file} in {folder} has changed or gone since it was pinned; put it back, or "
                "run the study again"
            )
    try:
        with quiet(transformers):
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            model, report = getattr(transformers, TOWERS[pin.model_type][1]).from_pretrained(
                str(folder),
                config=_config(name, pin.model_type, pin.config),
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except ImportError as error:
        raise UserError(
            f"encoder '{name}': its tokenizer needs sentencepiece and protobuf: "
            'pip install "compression-gap[text]"'
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"encoder '{name}': its text tower cannot be read ({first}); take another copy of the checkpoint"
        ) from error
    lacking = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    if lacking:
        raise UserError(
            f"encoder '{name}': its checkpoint lacks {len(lacking)} of the text tower's weights (first: {lacking[0]}); "
            "take a complete copy"
        )
    return tokenizer, model.eval().requires_grad_(False)


def _config(name: str, kind: str, tower: Mapping[str, Any]) -> Any:
    import transformers

    from .pretrained import quiet

    try:
        with quiet(transformers):  # token ids of a tokenizer that is not used
            return getattr(transformers, TOWERS[kind][0])(**tower)
    except Exception as error:  # the library checks its fields by classes of its own
        raise UserError(
            f"encoder '{name}': its config.json cannot be read ({error}); take another copy"
        ) from error


@contextlib.contextmanager
def _of_text() -> Iterator[None]:
    """Sentences about a checkpoint name the key of the study file that asks for it."""
    try:
        yield
    except UserError as error:
        if str(error).startswith("policy.text_encoder"):
            raise
        raise type(error)(f"policy.text_encoder: {error}") from error
