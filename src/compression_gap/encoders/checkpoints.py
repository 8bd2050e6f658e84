"""Pretrained checkpoints: what a name stands for today (the pin), and the prepared folder that holds it.

A name (``names.py``) says what is asked for; ``resolve`` finds what that is: the commit of a hub model, the SHA-256
of a folder, image size, normalisation and pooling. ``prepare_pretrained`` writes this pin to a folder, from which
the encoder is made (``pretrained.py``).

This module imports neither torch nor transformers until something is resolved.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..records import read_json, read_object
from ..store.store import write_json
from .names import parse
from .pin import Pin
from .sources import source_of, weight_files, weights_folder

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


def resolve(name: str) -> Pin:
    """The pin of a name.

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
    size, grid, blocks, width = _shape(name, family, tower, images)
    if asked.patches > grid:
        raise UserError(f"encoder '{name}' has {grid} × {grid} patches: ask for no more of them")
    if isinstance(asked.finetune, int) and asked.finetune > blocks:
        raise UserError(f"encoder '{name}' has {blocks} blocks: finetune that many or fewer")
    mean, std, resample = _normalisation(name, family, images)
    return Pin(
        encoder=name,
        source=source,
        model_type=config["model_type"],
        config=tower,
        image_size=size,
        grid=grid,
        blocks=blocks,
        mean=mean,
        std=std,
        resample=resample,
        patches=asked.patches,
        finetune=asked.finetune,
        feature_dim=width * asked.patches**2,
    )


def _shape(
    name: str, family: Family, tower: Mapping[str, Any], images: Mapping[str, Any]
) -> tuple[int, int, int, int]:
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
    except Exception as error:  # the library checks its fields by classes of its own
        raise UserError(
            f"encoder '{name}': its config.json cannot be read ({error}); take another copy"
        ) from error
    return size, grid, blocks, width


def _square(side: Any) -> int:
    """One number, or two equal ones."""
    if isinstance(side, list | tuple) and len(set(side)) == 1:
        side = side[0]
    if not isinstance(side, int):
        raise ValueError(f"a size of {side} is not square")
    return side


def _side(images: Mapping[str, Any]) -> int | None:
    """The side that the images have in the end, in pixels. They are never cropped here, only resized."""
    size = images.get("crop_size") if images.get("do_center_crop", True) else None
    size = size or images.get("size")
    if isinstance(size, dict):
        size = [size[k] for k in ("height", "width", "shortest_edge") if size.get(k)]
    return _square(size) if size else None


def _normalisation(
    name: str, family: Family, images: Mapping[str, Any]
) -> tuple[list[float], list[float], str]:
    """Mean, standard deviation and filter."""
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
    return [float(v) for v in mean], [float(v) for v in std], RESAMPLE[resample]


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


def prepare_pretrained(pin: Pin, out: Path) -> None:
    """Write the pin to the folder ``out``, once its weights are on this machine; no weights are copied."""
    weights_folder(pin)
    write_json(out / PIN, asdict(pin))


def carry_checkpoint(prepared: Path, out: Path) -> None:
    """Copy a prepared encoder's local frozen checkpoint beside its pin in ``out``, which then works elsewhere too.

    Nothing is copied of a model of the hub, or of one whose trained weights the policy holds.
    """
    pin = read_pin(prepared)
    if "folder" not in pin.source or pin.finetune is not None:
        return
    at = weights_folder(pin)
    (out / CARRIED).mkdir()
    for file in (at / "config.json", *weight_files(at)):
        shutil.copy(file, out / CARRIED)


def read_pin(folder: Path) -> Pin:
    """The pin in a prepared folder, with the checkpoint's place now. Raises ``UserError`` if it holds none."""
    try:
        pin = Pin.from_json(read_object(folder / PIN))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} holds no prepared encoder ({PIN}): run the study again to prepare it"
        ) from error
    if (folder / CARRIED).is_dir():
        return replace(pin, source={**pin.source, "folder": str(folder / CARRIED)})
    return pin
