"""Encoders: the facts of each, or of each family (``retina-R``), stated once. No torch: a plan checks names at once.

A new encoder is a file, and one entry here or in another package. What a checkpoint's name says is ``names``'; the
controlled ladder's numbers are ``ladder``'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError, unknown_name
from ..registry import Registry, located
from . import ladder
from .crops import CentreCropped, Crop
from .names import FORMS, KNOWN, parse

if TYPE_CHECKING:
    from .base import Encoder

BESIDE = "oracle+"  # an image beside the state
RESNET_SMALLEST = 33  # pixels after cropping; of less, one cell is left, and its keypoints cannot move


@dataclass(frozen=True)
class Asked:
    """What an encoder is made from: its name, how many cameras, its prepared folder if it has one, the images' crop."""

    name: str
    cameras: int
    folder: Path | None
    crop: Crop

    @property
    def prepared(self) -> Path:
        """The prepared folder of an encoder that needs one."""
        if self.folder is None:
            raise ValueError(f"encoder '{self.name}' is made from its prepared folder")
        return self.folder


@dataclass(frozen=True)
class Setting:
    """What an encoder is to suit: the images' side in pixels, their crop, and the simulator if there is one."""

    image_size: int
    crop: Crop
    sim: str | None


def _never(name: str) -> bool:
    return False


@dataclass(frozen=True)
class EncoderEntry:
    """What is known of an encoder, or a family of them, before anything heavy is imported.

    ``pattern``: the names that are meant for it, also such as ``check`` refuses (none: the entry's name alone);
    ``forms``: how they are listed. ``check`` raises ``UserError`` for a name or a setting that does not do.
    """

    make: str | Callable[[Asked], Encoder]  # or "package.module:function"
    pattern: str = ""
    forms: tuple[str, ...] = ()
    check: Callable[[str, Setting], None] = lambda name, setting: None
    prepared: bool = False  # made from a folder, an artefact of its own
    trained: Callable[[str], bool] = _never  # with the policy: it then has no cached features
    limit: bool = False  # an end of the ladder, and no encoder under test
    state: bool = False  # reads the simulator's true state
    images: bool = True  # sees images
    crops: bool = False  # takes crops of its own, at random in training, unless told otherwise


def _resolution(name: str) -> int:
    digits = name.removeprefix("retina-")
    if not digits.isdecimal() or digits.startswith("0"):
        raise UserError(f"encoder '{name}' needs a whole number of pixels, as in retina-16")
    return int(digits)


def _check_retina(name: str, setting: Setting) -> None:
    size = setting.image_size
    seen = side_seen(name, size, setting.crop)
    if _resolution(name) > seen:
        raise UserError(
            f"encoder '{name}' is finer than the images ({seen} px{'' if seen == size else ' after cropping'}): "
            f"take retina-{seen} or less, or raise cameras.image_size"
        )


def _check_beside(name: str, setting: Setting) -> None:
    image = name.removeprefix(BESIDE)
    if not image.startswith("retina-") or image == "retina-R":
        raise UserError(f"encoder '{name}': beside the state stands a retina, as in oracle+retina-16")
    _check_retina(image, setting)


def _check_dial(name: str, setting: Setting) -> None:
    if setting.sim not in (None, "channel"):
        raise UserError(f"{name} cuts states within [-1, 1] and is for the channel alone; take oracle")


def _check_pose(name: str, setting: Setting) -> None:
    ladder.frames_of(name)
    if setting.crop.mode == "all":
        raise UserError(
            f"{name} is pretrained on whole images, and cameras.crop is 'all': leave one of the two out"
        )
    if setting.image_size < ladder.SMALLEST:
        raise UserError(f"{name} needs images of {ladder.SMALLEST} px or more: raise cameras.image_size")


def _check_resnet18(name: str, setting: Setting) -> None:
    crop, size = setting.crop, setting.image_size
    if side_seen(name, size, crop) < RESNET_SMALLEST:
        enough = next(n for n in count(size) if side_seen(name, n, crop) >= RESNET_SMALLEST)
        raise UserError(
            f"resnet18 is blind at {size} px (its last feature map is one cell): "
            f"raise cameras.image_size to {enough} or more"
        )


def _check_pretrained(name: str, setting: Setting) -> None:
    parse(name)


def _own_class(where: str) -> Any:
    return located(f"{__package__}.{where}")


def _oracle(asked: Asked) -> Any:
    return _own_class("limits:Oracle")(asked.cameras, asked.prepared)


def _beside(asked: Asked) -> Encoder:
    image = make_encoder(asked.name.removeprefix(BESIDE), cameras=asked.cameras, crop=vars(asked.crop))
    made: Encoder = _own_class("limits:OracleWithImage")(_oracle(asked), image)
    return made


def _quantised_oracle(asked: Asked) -> Any:
    bits = int(asked.name.removeprefix("oracle-").removesuffix("b"))
    return _own_class("limits:QuantisedOracle")(asked.cameras, bits)


def _resnet18(asked: Asked) -> Any:
    share = asked.crop.share if asked.crop.mode == "resnet-only" else None
    return _own_class("resnet18:ResNet18")(share)


def _read_from(where: str) -> Callable[[Asked], Encoder]:
    """What makes a class from its prepared folder, which must be that of the name."""

    def make(asked: Asked) -> Encoder:
        made: Encoder = _own_class(where)(asked.prepared)
        if made.name != asked.name:
            raise ValueError(f"{asked.folder} was prepared for encoder '{made.name}', not for '{asked.name}'")
        return made

    return make


ENCODERS: Registry[EncoderEntry] = Registry(
    "encoder",
    "compression_gap.encoders",
    EncoderEntry,
    {
        "blind": EncoderEntry(lambda a: _own_class("limits:Blind")(a.cameras), limit=True, images=False),
        "oracle": EncoderEntry(_oracle, prepared=True, limit=True, state=True, images=False),
        # the channel's encoder dial
        "oracle-Bb": EncoderEntry(
            _quantised_oracle, r"oracle-[1-9]b", check=_check_dial, state=True, images=False
        ),
        "oracle+retina-R": EncoderEntry(
            _beside, r"oracle\+.*", check=_check_beside, prepared=True, limit=True, state=True
        ),
        "pose-K": EncoderEntry(
            _read_from("pose:Pose"), f"{ladder.PREFIX}.*", check=_check_pose, prepared=True
        ),
        "resnet18": EncoderEntry(_resnet18, check=_check_resnet18, trained=lambda name: True, crops=True),
        "retina-R": EncoderEntry(
            lambda a: _own_class("retina:Retina")(_resolution(a.name)), "retina-.*", check=_check_retina
        ),
        "pretrained": EncoderEntry(
            _read_from("pretrained:Pretrained"),
            rf"(hub:|folder:).*|({'|'.join(KNOWN)})(\+.*)?",
            FORMS,
            _check_pretrained,
            prepared=True,
            trained=lambda name: parse(name).finetune is not None,
        ),
    },
)


def names() -> tuple[str, ...]:
    """All names that are known; those with an R, B or K, ``hub:`` and ``folder:`` stand for many."""
    return tuple(form for name, entry in ENCODERS.items() for form in entry.forms or (name,))


def _meant(key: str, entry: EncoderEntry, name: str) -> bool:
    return re.fullmatch(entry.pattern or re.escape(key), name) is not None


@cache  # a plan asks for each cell
def _own(name: str) -> EncoderEntry | None:
    return next((e for key, e in ENCODERS.own.items() if _meant(key, e, name)), None)


def _entry(name: str) -> EncoderEntry | None:
    """What other packages bring is imported for names alone that are none of ours."""
    if (own := _own(name)) is not None:
        return own
    return next((e for key, e in ENCODERS.items() if _meant(key, e, name)), None)


def encoder_entry(name: str) -> EncoderEntry:
    """What is known of an encoder by its name. Raises ``UserError`` for a name that is not known."""
    found = _entry(name)
    if found is None:
        raise unknown_name("encoder", name, names())
    return found


def is_prepared(name: str) -> bool:
    """Whether the encoder is made from a prepared folder, an artefact of its own."""
    found = _entry(name)
    return found is not None and found.prepared


def reads_scaled_state(name: str) -> bool:
    """Whether the encoder is the oracle, alone or beside an image: its folder holds the state's scales."""
    return reads_state(name) and is_prepared(name)


def reads_state(name: str) -> bool:
    """Whether the encoder reads the simulator's true state: a reference, and none for a robot."""
    found = _entry(name)
    return found is not None and found.state


def is_limit(name: str) -> bool:
    """Whether the encoder is a limit of a ladder and no encoder under test."""
    found = _entry(name)
    return found is not None and found.limit


def is_trained(name: str) -> bool:
    """Whether the encoder is trained with the policy: it then has no cached features."""
    found = _entry(name)
    return found is not None and found.trained(name)


def crop_of(name: str, crop: Crop) -> Mapping[str, Any] | None:
    """What a specification says of an encoder's crop: None if its images are those of the default."""
    found = _entry(name)
    if found is not None and not found.images:
        return None
    itself = found is not None and found.crops and crop != Crop()
    return crop.as_json() if crop.mode == "all" or itself else None


def side_seen(name: str, size: int, crop: Crop) -> int:
    """Pixels of an image's side that the encoder sees, of ``size``."""
    found = _entry(name)
    itself = crop.mode == "resnet-only" and found is not None and found.crops
    return round(crop.share * size) if crop.mode == "all" or itself else size


def check_encoder(name: str, *, image_size: int, sim: str | None = None, crop: Crop | None = None) -> None:
    """Raise ``UserError`` for a name that is not known, and for images or a simulator that do not suit it."""
    encoder_entry(name).check(name, Setting(image_size, crop or Crop(), sim))


def make_encoder(
    name: str, *, cameras: int, folder: Path | None = None, crop: Mapping[str, Any] | None = None
) -> Encoder:
    """The encoder of that name for ``cameras`` cameras; ``folder``: the prepared one, if ``is_prepared``.

    ``crop``: what ``crop_of`` says of it.
    """
    entry, how = encoder_entry(name), Crop.read(crop)
    made: Encoder = located(entry.make)(Asked(name, cameras, folder, how))
    # Beside the state the image alone is cropped; resnet18 crops by itself, unless all do.
    whole = how.mode != "all" or not made.needs_images or entry.state
    return made if whole else CentreCropped(made, how.share)
