"""Pretrained checkpoints: what a name stands for today (the pin), and the prepared folder that holds it.

A name (``names.py``) says what is asked for; ``resolve`` finds what that is: the commit of a hub model, the SHA-256
of a folder, image size, normalisation and pooling. This is the pin. It belongs in the key of whatever is made
with the encoder, and ``prepare_pretrained`` writes it to a folder, from which the encoder is made
(``pretrained.py``).

This module imports neither torch nor transformers until something is resolved.
"""

from __future__ import annotations

import functools
import hashlib
import math
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..records import read_json, read_object, whole
from ..store.store import file_sha256, write_json
from .names import parse

PIN = "encoder.json"  # in the prepared folder
CARRIED = "checkpoint"  # in the prepared folder of a shared policy: the files of a checkpoint that no hub has

# The families: what transformers calls them, and how they want their images when no file says it.

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@dataclass(frozen=True)
class Family:
    """One architecture: its classes in transformers, normalisation, filter; image size where it is free."""

    config: str
    model: str
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    resample: int = 3
    image_size: int = 224


_SIGLIP = Family("SiglipVisionConfig", "SiglipVisionModel", HALF)
_SIGLIP2 = Family("Siglip2VisionConfig", "Siglip2VisionModel", HALF, resample=2)  # any size, "NaFlex"
FAMILIES = {  # by model_type; SigLIP 2 of a fixed size has the type of SigLIP
    "resnet": Family("ResNetConfig", "ResNetModel", IMAGENET),
    "siglip": _SIGLIP,
    "siglip_vision_model": _SIGLIP,
    "siglip2": _SIGLIP2,
    "siglip2_vision_model": _SIGLIP2,
    "dinov2": Family("Dinov2Config", "Dinov2Model", IMAGENET),
    "dinov2_with_registers": Family("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", IMAGENET),
}
NOT_SHAPE = (  # entries of config.json that change no feature, some of them with every release
    *("_name_or_path", "architectures", "transformers_version", "torch_dtype", "dtype"),
    *("id2label", "label2id", "problem_type"),
)


class Unreachable(UserError):
    """The hub cannot be reached, and the cache does not hold what is asked for."""


def resolve(name: str) -> dict[str, Any]:
    """The pin of a name: all that decides its features, as JSON.

    ``source`` (hub, revision, commit; or folder, sha256), ``model_type``, ``config`` of the vision tower,
    ``image_size`` (pixels), ``mean`` and ``std`` (of images in [0, 1]), ``resample``, ``grid`` (patches a side),
    ``blocks``, ``patches``, ``finetune``, ``feature_dim``, ``precision``.

    Raises ``UserError`` in a sentence: no such model or folder, another architecture, no safetensors.
    """
    asked = parse(name)
    source, read = source_of(name)
    config = read_config(name, read("config.json"), "config.json")
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise UserError(
            f"encoder '{name}' is a '{config.get('model_type', 'checkpoint without model_type')}', which is not among "
            f"the vision models known here ({', '.join(FAMILIES)}): choose another checkpoint"
        )
    tower = config
    if config["model_type"] in ("siglip", "siglip2"):
        tower = config.get("vision_config") or {}
    tower = {k: v for k, v in tower.items() if k not in NOT_SHAPE}
    images = read_config(name, read("preprocessor_config.json"), "preprocessor_config.json")
    if not images:
        images = read_config(name, read("processor_config.json"), "processor_config.json").get(
            "image_processor", {}
        )
    shape = _shape(name, family, tower, images)
    if asked.patches > shape["grid"]:
        raise UserError(
            f"encoder '{name}' has {shape['grid']} × {shape['grid']} patches: ask for no more of them"
        )
    if isinstance(asked.finetune, int) and asked.finetune > shape["blocks"]:
        raise UserError(f"encoder '{name}' has {shape['blocks']} blocks: finetune that many or fewer")
    width = shape.pop("width")
    return {
        "encoder": name,
        "source": source,
        "model_type": config["model_type"],
        "config": tower,
        **shape,
        **_normalisation(name, family, images),
        "patches": asked.patches,
        "finetune": asked.finetune,
        "feature_dim": width * asked.patches**2,
        "precision": "float32",
    }


def _shape(name: str, family: Family, tower: dict[str, Any], images: dict[str, Any]) -> dict[str, int]:
    """Image size, patches a side, blocks and width."""
    import transformers

    try:
        config = getattr(transformers, family.config)(**tower)
        if family.model == "ResNetModel":
            size = _side(images) or family.image_size
            halvings = 2 + len(config.depths) - (0 if config.downsample_in_first_stage else 1)
            grid = functools.reduce(lambda n, _: math.ceil(n / 2), range(halvings), size)
            blocks, width = sum(config.depths), config.hidden_sizes[-1]
        else:
            patch = _square(config.patch_size)
            if family is _SIGLIP:  # its positions are learned for one size
                size = _square(config.image_size)
            elif family is _SIGLIP2:
                size = patch * math.isqrt(config.num_patches)
            else:
                size = _side(images) or family.image_size
            grid, blocks, width = size // patch, config.num_hidden_layers, config.hidden_size
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"encoder '{name}': its config.json cannot be read ({error}); take another copy"
        ) from error
    return {"image_size": size, "grid": grid, "blocks": blocks, "width": width}


def _square(side: Any) -> int:
    """One number, or two equal ones."""
    if isinstance(side, list | tuple) and len(set(side)) == 1:
        side = side[0]
    if not isinstance(side, int):
        raise ValueError(f"a size of {side} is not square")
    return side


def _side(images: dict[str, Any]) -> int | None:
    """The side that the images have in the end, in pixels. They are never cropped here, only resized."""
    size = images.get("crop_size") if images.get("do_center_crop", True) else None
    size = size or images.get("size")
    if isinstance(size, dict):
        size = [size[k] for k in ("height", "width", "shortest_edge") if size.get(k)]
    return _square(size) if size else None


def _normalisation(name: str, family: Family, images: dict[str, Any]) -> dict[str, Any]:
    resample = images.get("resample", family.resample)
    if resample not in RESAMPLE:
        raise UserError(
            f"encoder '{name}' asks for Pillow's filter {resample} in its preprocessor_config.json; known here: "
            "2 (bilinear) and 3 (bicubic)"
        )
    if not math.isclose(images.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6):
        raise UserError(
            f"encoder '{name}' rescales by {images['rescale_factor']} in its preprocessor_config.json; "
            "known here: 1/255"
        )
    mean, std = family.normalisation
    mean, std = images.get("image_mean", mean), images.get("image_std", std)
    if not images.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return {
        "mean": [float(v) for v in mean],
        "std": [float(v) for v in std],
        "resample": RESAMPLE[resample],
    }


def read_config(name: str, file: Path | None, what: str) -> dict[str, Any]:
    """A file's JSON object; empty without a file."""
    if file is None:
        return {}
    try:
        found = read_json(file)
    except (OSError, ValueError) as error:
        raise UserError(f"encoder '{name}': {what} cannot be read ({error}); take another copy") from error
    if not isinstance(found, dict):
        raise UserError(f"encoder '{name}': {what} holds no JSON object; take another copy")
    return found


# Where the files are.

Read = Callable[[str], Path | None]  # a file's name → its path; None if there is no such file


def source_of(name: str) -> tuple[dict[str, str], Read]:
    """Where a name's checkpoint is (hub, revision, commit; or folder, sha256), and how its files are read.

    Raises ``UserError`` if there is no such model or folder, or no safetensors in it.
    """
    asked = parse(name)
    if asked.folder is not None:
        return _folder_source(name, Path(asked.folder).expanduser().resolve())
    assert asked.repo is not None
    return _hub_source(name, asked.repo, asked.revision)


def _weights(folder: Path) -> list[Path]:
    """The files that transformers reads the weights from."""
    return sorted((*folder.glob("model*.safetensors"), *folder.glob("model.safetensors.index.json")))


def _folder_source(name: str, folder: Path) -> tuple[dict[str, str], Read]:
    if not (folder / "config.json").is_file():
        raise UserError(
            f"encoder '{name}': {folder} holds no config.json; give a folder that save_pretrained wrote, "
            "or a download of a hub model"
        )
    if not _weights(folder):
        raise UserError(_no_safetensors(name, any(folder.glob("*.bin"))))

    def read(what: str) -> Path | None:
        return folder / what if (folder / what).is_file() else None

    return {"folder": str(folder), "sha256": folder_hash(folder)}, read


def _no_safetensors(name: str, pickled: bool) -> str:
    only = ", only pickled .bin weights, which are never opened here" if pickled else ""
    return (
        f"encoder '{name}' has no model.safetensors{only}: take a revision that has one, or load it once with "
        "transformers where you trust it and write it with save_pretrained"
    )


def folder_hash(folder: Path) -> str:
    """SHA-256 over config.json and the weights: names and contents."""
    lines = []
    for file in sorted((folder / "config.json", *_weights(folder))):
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


# The prepared folder.


def prepare_pretrained(pin: dict[str, Any], out: Path) -> None:
    """Write the pin to the folder ``out``, once its weights are on this machine; no weights are copied."""
    weights_folder(pin)
    write_json(out / PIN, pin)


def carry_checkpoint(prepared: Path, out: Path) -> None:
    """Copy a prepared encoder's local frozen checkpoint beside its pin in ``out``, which then works elsewhere too.

    Nothing is copied of a model of the hub, or of one whose trained weights the policy holds.
    """
    pin = read_pin(prepared)
    if "folder" not in pin["source"] or pin["finetune"] is not None:
        return
    at = weights_folder(pin)
    (out / CARRIED).mkdir()
    for file in (at / "config.json", *_weights(at)):
        shutil.copy(file, out / CARRIED)


def read_pin(folder: Path) -> dict[str, Any]:
    """The pin in a prepared folder, with the checkpoint's place now. Raises ``UserError`` if it holds none."""
    try:
        pin = read_object(folder / PIN)
        whole(pin, "feature_dim", 1, 2**20)
        kinds: dict[str, Any] = {"encoder": str, "source": dict, "config": dict, "finetune": str | int | None}
        if wrong := [name for name, kind in kinds.items() if not isinstance(pin[name], kind)]:
            raise ValueError(f"its {wrong[0]} is of another type")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} holds no prepared encoder ({PIN}): run the study again to prepare it"
        ) from error
    if (folder / CARRIED).is_dir():
        pin["source"]["folder"] = str(folder / CARRIED)
    return pin


def weights_folder(pin: dict[str, Any]) -> Path:
    """The folder with config.json and weights; a hub model is downloaded if need be.

    Raises ``UserError`` if what is there is not what was pinned.
    """
    name, source = pin["encoder"], pin["source"]
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
