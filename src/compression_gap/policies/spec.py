"""What a policy is, apart from its weights: the record that stands in ``policy.json``. No torch."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ..encoders.names import CONDITIONINGS
from ..nn.sizes import SIZES
from ..records import read_object

Steps = Annotated[int, Field(ge=1, le=2**12)]
Numbers = Annotated[int, Field(ge=1, le=2**20)]  # of a vector
Names = Annotated[tuple[str, ...], Field(min_length=1, max_length=2**12)]


@dataclass(frozen=True)
class PolicySpec:
    """What a policy is, apart from its weights. ``read`` checks a record's types and ranges."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    sim: str
    encoder: str
    head: str
    size: str
    horizon: Steps
    n_obs_steps: Steps
    tasks: Names
    cameras: Annotated[tuple[str, ...], Field(max_length=64)]
    image_size: Annotated[int, Field(ge=1, le=2**12)]  # pixels, square
    feature_dim: Numbers
    proprio_dim: Annotated[int, Field(ge=0, le=2**20)]
    action_dim: Numbers
    options: dict[str, Any]
    task: str = "embedding"  # how the task enters: ``encoders.names.CONDITIONINGS``
    crop: dict[str, Any] | None = (
        None  # of the images, where the encoder's habit does not hold: ``encoders.crops``
    )

    def as_json(self) -> dict[str, Any]:
        """The fields, without those that are at their default: older folders lack them."""
        every = {f.name: (getattr(self, f.name), f.default) for f in fields(self)}
        return {
            name: value for name, (value, default) in every.items() if default is MISSING or value != default
        }

    @staticmethod
    def read(file: Path) -> PolicySpec:
        """What ``as_json`` gave. Raises ``OSError`` or ``ValueError``, one line that names the field."""
        try:
            spec = TypeAdapter(PolicySpec).validate_json(json.dumps(read_object(file)))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"'{'.'.join(map(str, first['loc']))}': {first['msg'].lower()}") from error
        for name, known in (("size", tuple(SIZES)), ("task", CONDITIONINGS)):
            if (given := getattr(spec, name)) not in known:
                raise ValueError(f"'{name}' is {given[:40]!r}, and none of {', '.join(known)}")
        for names in (spec.tasks, spec.cameras):
            if len(set(names)) < len(names):
                raise ValueError(f"a name is given twice among {', '.join(names)}")
        return spec
