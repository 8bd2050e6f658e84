"""The switches that heads have: what each may be. No torch here: the study file is checked by the same types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ..errors import UserError, unknown_name

Attention = Literal["full", "causal-as-published"]
Prediction = Literal["epsilon", "sample", "v_prediction"]
Sampler = Literal["ddim", "ddim-trailing", "ddpm", "dpm-solver++"]
SamplingSteps = Annotated[int, Field(ge=1, le=100)]
Temperature = Annotated[float, Field(ge=0)]
TopK = Annotated[int, Field(ge=1)] | None
OPTIONS: dict[str, Any] = {
    "attention": Attention,
    "constrained": bool,
    "offset_weight": Annotated[float, Field(ge=0)],
    "prediction": Prediction,
    "sampler": Sampler,
    "sampling_steps": SamplingSteps,
    "temperature": Temperature,
    "top_k": TopK,
}


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse a switch that no head has, and a value that its switch cannot take, with ``UserError``."""
    for name, value in options.items():
        if name not in OPTIONS:
            raise unknown_name("option of a head", name, OPTIONS)
        adapter = TypeAdapter(OPTIONS[name], config=ConfigDict(strict=True, allow_inf_nan=False))
        try:
            adapter.validate_python(value)
        except ValidationError as error:
            about = error.errors()[0]["msg"]
            raise UserError(
                f"the head's option '{name}' is {str(value)[:40]!r}: {about[0].lower()}{about[1:]}"
            ) from error
