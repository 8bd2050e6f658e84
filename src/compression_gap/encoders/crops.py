"""Which part of an image an encoder sees: everyone's own habit, or the same crop for all.

* "resnet-only", as in Diffusion Policy and as published: ``resnet18`` takes a random crop at each step of training
  and the centre crop otherwise; every other encoder sees the whole image.
* "all", the controlled choice: the same centre crop for every encoder, in training and otherwise. A random crop is
  not to be had for all: the features of frozen encoders are computed once, before training.
* "none": the whole image for every encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from ..errors import UserError, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from ..sims import Observation
    from .base import Encoder

Mode = Literal["none", "resnet-only", "all"]
SHARE = 0.9  # of the image's side that is kept; 76 of 84 pixels


@dataclass(frozen=True)
class Crop:
    """A mode, and the share of the image's side that a crop keeps."""

    mode: str = "resnet-only"
    share: float = SHARE

    @staticmethod
    def read(value: Mapping[str, Any] | None) -> Crop:
        """From a specification's ``{"mode": …, "share": …}``; None: the default."""
        made = Crop() if value is None else Crop(**value)
        if made.mode not in get_args(Mode):
            raise unknown_name("crop", str(made.mode), get_args(Mode))
        if type(made.share) not in (int, float) or not 0 < made.share <= 1:
            raise UserError(
                f"a crop's share of {str(made.share)[:40]!r} is none: it lies above 0, and up to 1"
            )
        return made

    def as_json(self) -> Mapping[str, Any]:
        """What ``read`` takes."""
        return {"mode": self.mode, **({} if self.mode == "none" else {"share": self.share})}


def centre(images: np.ndarray, share: float) -> np.ndarray:
    """The centre of images [..., h, w, 3], each side cut to ``share``: a view."""
    h, w = images.shape[-3:-1]
    ch, cw = round(share * h), round(share * w)
    y, x = (h - ch) // 2, (w - cw) // 2
    return images[..., y : y + ch, x : x + cw, :]


class CentreCropped:
    """An encoder that sees the centre of every image."""

    def __init__(self, encoder: Encoder, share: float) -> None:
        self.encoder, self.share = encoder, share
        self.name: str = encoder.name
        self.needs_images: bool = encoder.needs_images
        self.frozen: bool = encoder.frozen
        self.dtype: type[np.generic] = encoder.dtype
        self.std_floor: float = encoder.std_floor
        self.feature_dim: int = encoder.feature_dim

    def features(self, obs: Observation) -> np.ndarray:
        """The encoder's, of the cropped images."""
        # Contiguous: the last bits of a sum depend on the layout.
        images = {camera: np.ascontiguousarray(centre(a, self.share)) for camera, a in obs.images.items()}
        return self.encoder.features(replace(obs, images=images))

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """The encoder's."""
        return self.encoder.network(weights=weights)
