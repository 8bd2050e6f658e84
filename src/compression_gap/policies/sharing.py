"""Policies as folders that travel: to another machine, or to and from the Hugging Face Hub.

A shared policy is what ``Policy.save`` writes, with a local encoder's frozen weights, the checksums of its files
and a model card (``README.md``). Nothing here knows what a policy is: ``policy.Policy`` writes and reads it.
Of a repository on the Hub only the policy's files are taken: JSON and safetensors, never code.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from ..demos.source import check_files
from ..encoders.checkpoints import carry_checkpoint
from ..errors import UserError
from ..records import read_json
from ..store.store import MANIFEST, file_sha256

FILES = (
    "policy.json",
    "policy.safetensors",
    "normaliser.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer.safetensors",
    "encoder/encoder.json",
    "encoder/encoder.safetensors",
    "text/text.json",
    "text/text.safetensors",
)
CHECKPOINT = ("encoder/checkpoint/config.json", "encoder/checkpoint/model*.safetensors*")  # patterns
CHECKSUMS = "checksums.json"  # file → SHA-256
CARD = "README.md"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")  # owner/name


def check_new(folder: Path) -> None:
    """Raise ``UserError`` for a folder that holds something already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is there already and not empty; name a new folder")


def share(folder: Path, save: Callable[[Path], None], card: str, *, checkpoint: Path | None = None) -> Path:
    """Write a policy (``save``), its checksums and its card to a new folder, by one rename; returns the folder.

    ``checkpoint``: the prepared folder of a pretrained encoder, whose local files travel along. Raises ``UserError``
    for a folder that holds something already, or cannot be written.
    """
    target = folder.absolute()  # "." has no name of its own
    scratch = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        check_new(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
        save(scratch)
        if checkpoint is not None:
            carry_checkpoint(checkpoint, scratch / "encoder")
        sums = {name: file_sha256(scratch / name) for name in _files(scratch)}
        (scratch / CHECKSUMS).write_text(json.dumps(sums, indent=1))
        (scratch / CARD).write_text(card, encoding="utf-8")
        os.rename(scratch, target)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror or error}); name another folder") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def fetch(folder_or_hub_id: Path | str, *, revision: str | None = None) -> Path:
    """The folder here, or that of the Hub's repository ``owner/name``: its files are those of their checksums.

    Raises ``UserError``, one sentence, if there is neither, or if what is there is no policy.
    """
    folder = Path(folder_or_hub_id)
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"{folder} is a folder; a revision ({revision}) belongs to a Hub id")
    elif HUB_ID.fullmatch(str(folder_or_hub_id)):
        folder = _download(str(folder_or_hub_id), revision)
    else:
        raise UserError(
            f"{folder_or_hub_id} is neither a folder that is here nor a Hub id (owner/name); "
            "name a policy's folder, as in store/policy/KEY"
        )
    check_files(folder, (*FILES, CHECKSUMS, *_files(folder)))
    _verify(folder)
    return folder


def _verify(folder: Path) -> None:
    """Compare the policy's files with their checksums, where the folder has some (an artefact of a store does).

    A weight or a number of the normaliser that is wrong by a bit would load, and act otherwise.
    """
    try:
        if (folder / CHECKSUMS).is_file():
            sums = read_json(folder / CHECKSUMS)
        elif (folder / MANIFEST).is_file():
            files = read_json(folder / MANIFEST)["files"]
            sums = {name: about["sha256"] for name, about in files.items()}
        else:
            return
        wrong = [
            n
            for n in dict.fromkeys((*_files(folder), *(n for n in sums if _is_policys(n))))
            if _sum(folder / n) != sums.get(n)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder} holds no policy whose checksums can be read; fetch it again") from error
    if wrong:
        raise UserError(
            f"{folder} holds no policy as it was saved ({', '.join(wrong)}: missing, or not of its checksum); "
            "fetch it again"
        )


def _files(folder: Path) -> list[str]:
    """The policy's files that are there."""
    there = (f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())
    return sorted(filter(_is_policys, there))


def _is_policys(name: str) -> bool:
    return ".." not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in (*FILES, *CHECKPOINT))


def _sum(file: Path) -> str | None:
    return file_sha256(file) if file.is_file() else None


def _download(hub_id: str, revision: str | None) -> Path:
    """The local snapshot of a repository's policy files."""
    try:
        from huggingface_hub import snapshot_download

        return Path(
            snapshot_download(hub_id, revision=revision, allow_patterns=[*FILES, *CHECKPOINT, CHECKSUMS])
        )
    except Exception as error:  # the library, its transport and the disk each have their own
        at = "" if revision is None else f" at revision '{revision}'"
        raise UserError(
            f"there is no folder {hub_id} here, and the policy '{hub_id}'{at} could not be downloaded from the "
            f"Hugging Face Hub ({type(error).__name__}: {one_line(error, 120)}); check its name and the network, "
            "or give the local folder of a copy"
        ) from error


def one_line(error: Exception, longest: int) -> str:
    """An error's words in one line; what others wrote in it may be long and of many lines."""
    words = " ".join(str(error).split())
    return words if len(words) <= longest else words[: longest - 1] + "…"
