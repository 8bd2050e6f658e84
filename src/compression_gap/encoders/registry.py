"""Encoders by name. This module imports no torch, so that a plan can check names at once."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, unknown_name
from . import ladder
from .crops import CentreCropped, Crop
from .names import FORMS, is_pretrained, parse

if TYPE_CHECKING:
    from .base import Encoder
    from .limits import Oracle

GROUP = "compression_gap.encoders"  # entry points: name → callable(cameras: int) → Encoder
OWN = ("blind", "oracle", "oracle-Bb", "oracle+retina-R", ladder.FORM, "resnet18", "retina-R")
DIAL = re.compile(r"oracle-([1-9])b")  # the channel's encoder dial
BESIDE = "oracle+"  # an image beside the state
RESNET_SMALLEST = 33  # pixels after cropping; of less, one cell is left, and its keypoints cannot move


def names() -> tuple[str, ...]:
    """All names that are known; those with an R, B or K, ``hub:`` and ``folder:`` stand for many."""
    return (*OWN, *FORMS, *(e.name for e in entry_points(group=GROUP)))


def is_prepared(name: str) -> bool:
    """Whether the encoder is made from a prepared folder, an artefact of its own."""
    return reads_scaled_state(name) or ladder.is_pose(name) or is_pretrained(name)


def reads_scaled_state(name: str) -> bool:
    """Whether the encoder is the oracle, alone or beside an image: its folder holds the state's scales."""
    return name == "oracle" or name.startswith(BESIDE)


def is_limit(name: str) -> bool:
    """Whether the encoder is a limit of a ladder and no encoder under test."""
    return name == "blind" or reads_scaled_state(name)


def is_trained(name: str) -> bool:
    """Whether the encoder is trained with the policy: it then has no cached features."""
    if is_pretrained(name):
        return parse(name).finetune is not None
    return name == "resnet18"


def check_encoder(name: str, *, image_size: int, sim: str | None = None, crop: Crop | None = None) -> None:
    """Raise ``UserError`` for a name that is not known, and for images or a simulator that do not suit it."""
    crop = crop or Crop()
    seen = crop.side(image_size, name)
    if ladder.is_pose(name):
        ladder.frames_of(name)
        if crop.mode == "all":
            raise UserError(
                f"{name} is pretrained on whole images, and cameras.crop is 'all': leave one of the two out"
            )
        if image_size < ladder.SMALLEST:
            raise UserError(f"{name} needs images of {ladder.SMALLEST} px or more: raise cameras.image_size")
    elif is_pretrained(name):
        parse(name)
    elif name.startswith(BESIDE):
        image = name.removeprefix(BESIDE)
        if not image.startswith("retina-") or image == "retina-R":
            raise UserError(f"encoder '{name}': beside the state stands a retina, as in oracle+retina-16")
        check_encoder(image, image_size=image_size, sim=sim, crop=crop)
    elif name.startswith("retina-"):
        resolution = _resolution(name)
        if resolution > seen:
            raise UserError(
                f"encoder '{name}' is finer than the images ({seen} px{'' if seen == image_size else ' after cropping'}): "
                f"take retina-{seen} or less, or raise cameras.image_size"
            )
    elif DIAL.fullmatch(name):
        if sim not in (None, "channel"):
            raise UserError(f"{name} cuts states within [-1, 1] and is for the channel alone; take oracle")
    elif name not in names() or name in ("retina-R", "oracle-Bb", ladder.FORM, *FORMS[-2:]):
        raise unknown_name("encoder", name, names())
    elif name == "resnet18" and seen < RESNET_SMALLEST:
        enough = next(n for n in count(image_size) if crop.side(n, name) >= RESNET_SMALLEST)
        raise UserError(
            f"resnet18 is blind at {image_size} px (its last feature map is one cell): "
            f"raise cameras.image_size to {enough} or more"
        )


def _resolution(name: str) -> int:
    digits = name.removeprefix("retina-")
    if not digits.isdecimal() or digits.startswith("0"):
        raise UserError(f"encoder '{name}' needs a whole number of pixels, as in retina-16")
    return int(digits)


def make_encoder(
    name: str, *, cameras: int, folder: Path | None = None, crop: dict[str, Any] | None = None
) -> Encoder:
    """The encoder of that name for ``cameras`` cameras; ``folder``: the prepared one, if ``is_prepared``.

    ``crop``: what ``Crop.for_encoder`` says of it.
    """
    if name.startswith(BESIDE):
        from .limits import OracleWithImage

        image = make_encoder(name.removeprefix(BESIDE), cameras=cameras, crop=crop)
        return OracleWithImage(_oracle(name, cameras, folder), image)
    how = Crop.read(crop)
    if name == "resnet18":
        from .resnet18 import ResNet18

        made: Encoder = ResNet18(how.share if how.mode == "resnet-only" else None)
    else:
        made = _make(name, cameras, folder)
    return CentreCropped(made, how.share) if how.mode == "all" and made.needs_images else made


def _make(name: str, cameras: int, folder: Path | None) -> Encoder:
    """The encoder of that name, which sees the whole of its images."""
    if name == "oracle":
        return _oracle(name, cameras, folder)
    if is_prepared(name):
        return _from_folder(name, folder)
    if name.startswith("retina-"):
        from .retina import Retina

        return Retina(_resolution(name))
    if name == "blind":
        from .limits import Blind

        return Blind(cameras)
    if dial := DIAL.fullmatch(name):
        from .limits import QuantisedOracle

        return QuantisedOracle(cameras, int(dial[1]))
    for entry in entry_points(group=GROUP):
        if entry.name == name:
            made: Encoder = entry.load()(cameras)
            return made
    raise unknown_name("encoder", name, names())


def _oracle(name: str, cameras: int, folder: Path | None) -> Oracle:
    from .limits import Oracle

    return Oracle(cameras, _needed(name, folder))


def _needed(name: str, folder: Path | None) -> Path:
    if folder is None:
        raise ValueError(f"encoder '{name}' is made from its prepared folder")
    return folder


def _from_folder(name: str, folder: Path | None) -> Encoder:
    """An encoder that was pretrained."""
    folder = _needed(name, folder)
    made: Encoder
    if ladder.is_pose(name):
        from .pose import Pose

        made = Pose(folder)
    else:
        from .pretrained import Pretrained

        made = Pretrained(folder)
    if made.name != name:
        raise ValueError(f"{folder} was prepared for encoder '{made.name}', not for '{name}'")
    return made
