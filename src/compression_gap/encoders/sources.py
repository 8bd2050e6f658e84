"""Where a checkpoint's files are: a folder, or the Hugging Face Hub and its cache; and whether they are those pinned.

Nothing is loaded here, and safetensors alone are taken.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from ..demos.source import inside
from ..errors import UserError
from ..records import read_object
from ..store.store import file_sha256
from .names import parse
from .pin import CheckpointPin

INDEX = "model.safetensors.index.json"
Read = Callable[[str], Path | None]  # a file's name → its path; None if there is no such file


class Unreachable(UserError):
    """The hub cannot be reached, and the cache does not hold what is asked for."""


def source_of(name: str) -> tuple[dict[str, str], Read]:
    """Where a name's checkpoint is (hub, revision, commit; or folder, sha256), and how its files are read.

    Raises ``UserError`` if there is no such model or folder, or no safetensors in it.
    """
    asked = parse(name)
    if asked.folder is not None:
        return _folder_source(name, Path(asked.folder).expanduser().resolve())
    assert asked.repo is not None
    return _hub_source(name, asked.repo, asked.revision)


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads the weights from."""
    return sorted((*folder.glob("model*.safetensors"), *folder.glob("model.safetensors.index.json")))


def _folder_source(name: str, folder: Path) -> tuple[dict[str, str], Read]:
    for file in folder.glob("*.json"):
        inside(folder, file.name)
    if not (folder / "config.json").is_file():
        raise UserError(
            f"encoder '{name}': {folder} holds no config.json; give a folder that save_pretrained wrote, "
            "or a download of a hub model"
        )
    if not weight_files(folder):
        raise UserError(_no_safetensors(name, any(folder.glob("*.bin"))))

    _check_parts(name, folder)

    def read(what: str) -> Path | None:
        return inside(folder, what) if (folder / what).is_file() else None

    return {"folder": str(folder), "sha256": folder_hash(folder)}, read


def _check_parts(name: str, folder: Path) -> None:
    """Refuse weights that are links to elsewhere, and an index that names files which are no weights of the folder."""
    files = [inside(folder, file.name) for file in weight_files(folder)]
    index = folder / INDEX
    if not index.is_file():
        return
    try:
        named = set(read_object(index)["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"encoder '{name}': {INDEX} cannot be read ({error}); take another copy") from error
    if wrong := sorted(map(str, named - {file.name for file in files} | named & {INDEX})):
        raise UserError(
            f"encoder '{name}': {INDEX} names '{wrong[0]}', which is no model*.safetensors of its folder; take another copy"
        )


def _no_safetensors(name: str, pickled: bool) -> str:
    only = ", only pickled .bin weights, which are never opened here" if pickled else ""
    return (
        f"encoder '{name}' has no model.safetensors{only}: take a revision that has one, or load it once with "
        "transformers where you trust it and write it with save_pretrained"
    )


def folder_hash(folder: Path) -> str:
    """SHA-256 over config.json and the weights: names and contents."""
    lines = []
    for file in sorted((folder / "config.json", *weight_files(folder))):
        stat = file.stat()
        lines.append(f"{file.name} {_sha256(file, stat.st_size, stat.st_mtime_ns)}\n")
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def _sha256(file: Path, size: int, modified: int) -> str:
    return file_sha256(file)


def _hub_source(name: str, repo: str, revision: str) -> tuple[dict[str, str], Read]:
    commit, pickled_only = _hub_commit(name, repo, revision)
    if pickled_only:
        raise UserError(_no_safetensors(name, pickled=True))

    def read(what: str) -> Path | None:
        import huggingface_hub as hub
        from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

        found = hub.try_to_load_from_cache(repo, what, revision=commit)
        if found is None:
            try:
                found = hub.hf_hub_download(repo, what, revision=commit)
            except LocalEntryNotFoundError as error:
                raise _unreachable(name, f"its {what} is not in the cache", error) from error
            except RemoteEntryNotFoundError:
                return None
            except Exception as error:  # the client's network errors depend on its version
                raise _unreachable(name, f"its {what} cannot be downloaded", error) from error
        return Path(found) if isinstance(found, str) else None  # or the note that there is no such file

    return {"hub": repo, "revision": revision, "commit": commit}, read


# One answer a process: a study does not move to another commit while it is planned.
_commits: dict[tuple[str, str], tuple[str, bool]] = {}


def _hub_commit(name: str, repo: str, revision: str) -> tuple[str, bool]:
    """The commit of a revision, and whether it is known to have pickled weights alone; without a network the
    commit that the cache last saw there."""
    if (repo, revision) in _commits:
        return _commits[repo, revision]
    import huggingface_hub as hub
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = hub.HfApi().model_info(repo, revision=revision, timeout=10)
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise UserError(
            f"encoder '{name}': the hub has no model {repo} at revision {revision} that is open to you; "
            "check the name, or give a copy of it as folder:PATH"
        ) from error
    except Exception as error:  # the client's network errors depend on its version
        cached = hub.try_to_load_from_cache(repo, "config.json", revision=revision)
        if not isinstance(cached, str):
            raise _unreachable(name, f"{repo} is not in the cache", error) from error
        found = Path(cached).parent.name, False
    else:
        files = [s.rfilename for s in info.siblings or ()]
        safe = any(re.fullmatch(r"model.*\.safetensors", f) for f in files)
        found = str(info.sha), bool(files) and not safe
    _commits[repo, revision] = found
    return found


def _unreachable(name: str, what: str, error: Exception) -> Unreachable:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120].rstrip(". ")
    return Unreachable(
        f"encoder '{name}': {what}, and the hub cannot be reached ({reason}); connect once, or give a copy of the "
        "model as folder:PATH"
    )


def weights_folder(pin: CheckpointPin) -> Path:
    """The folder with config.json and weights; a hub model is downloaded if need be.

    Raises ``UserError`` if what is there is not what was pinned.
    """
    name, source = pin.encoder, pin.source
    if "folder" in source:
        folder = Path(source["folder"])
        if not (folder / "config.json").is_file() or folder_hash(folder) != source["sha256"]:
            raise UserError(
                f"encoder '{name}': the checkpoint in {folder} has changed or gone since it was prepared; put the "
                "files back, or run the study again to make its artefacts from the new ones"
            )
        return folder
    return _hub_folder(name, source["hub"], source["commit"])


def _hub_folder(name: str, repo: str, commit: str) -> Path:
    import huggingface_hub as hub

    cached = hub.try_to_load_from_cache(repo, "config.json", revision=commit)
    if isinstance(cached, str) and _complete(Path(cached).parent):
        return Path(cached).parent
    wanted = ["config.json", "model*.safetensors", "model.safetensors.index.json"]
    try:
        folder = Path(hub.snapshot_download(repo, revision=commit, allow_patterns=wanted))
    except Exception as error:  # the client's network errors depend on its version
        raise _unreachable(
            name, f"the weights of {repo} at {commit[:12]} are not in the cache", error
        ) from error
    if not _complete(folder):
        raise UserError(
            f"encoder '{name}': the weights of {repo} at {commit[:12]} are not all in the cache at {folder}; "
            "connect to the hub once, or give a copy of the model as folder:PATH"
        )
    return folder


def _complete(folder: Path) -> bool:
    """Whether the weights are all there, in one file or in those that the index names."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return (folder / "model.safetensors").is_file()
    try:
        return all((folder / f).is_file() for f in set(read_object(index)["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # it is downloaded again
        return False
