"""The study file: a YAML file checked against frozen models. No torch here: planning must be instant.

An unknown or ill-typed key is one sentence that names the file, the line, the path and the nearest name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    create_model,
    field_validator,
    model_validator,
)

from ..encoders.crops import SHARE, Crop, Mode
from ..encoders.names import Conditioning
from ..encoders.registry import BESIDE, is_limit
from ..errors import UserError, unknown_name
from ..nn.sizes import Size
from ..policies.registry import HEADS, head_options
from ..records import LARGEST_YAML
from ..registry import Options, specified
from ..tokenizers.levels import as_levels
from ..tokenizers.registry import tokenizer_options
from .yaml import Written, parse_model


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]


def _codebook(value: Any) -> Any:
    try:
        return as_levels(value)
    except UserError as error:
        raise ValueError(str(error)) from error


# FSQ levels, one tuple for all positions or one for each: fsq-1000, [8, 5, 5, 5], or a list of such.
Codebook = Annotated[tuple[tuple[int, ...], ...], BeforeValidator(_codebook)]
Demos = Annotated[int, Field(ge=3)]  # per task; a three-way split needs three


def _unique_levels(levels: tuple) -> tuple:
    if len(set(levels)) != len(levels):
        raise ValueError("a level is listed twice")
    return levels


Level = TypeVar("Level")
Factor = Annotated[tuple[Level, ...], Field(min_length=1), AfterValidator(_unique_levels)]


class Factors(_Model):
    """What is crossed. Every combination is a cell.

    ``codebook`` applies to tokenizers with FSQ levels (oat, quest), ``tokenizer_seed`` to those that are trained.
    A replicate repeats everything that is fitted: "training" gives each training seed a tokenizer and a pretrained
    encoder of its own, fitted with that seed. A number fixes one for all training seeds, and its luck is then in no
    interval; several tokenizer seeds are crossed with the training seeds.
    """

    encoder: Annotated[tuple[str, ...], AfterValidator(_unique_levels)]  # none: no policies, codes alone
    action: Factor[str]
    size: Factor[Size] = ("xs",)
    seed: Factor[Seed] = (0, 1)
    codebook: Factor[Codebook] = (((8, 5, 5, 5),),)
    tokenizer_seed: Literal["training"] | Factor[Seed] = "training"
    encoder_seed: Literal["training"] | Seed = "training"  # of pose-K
    demos: Factor[Demos] = (100,)
    task: Factor[Conditioning] = ("embedding",)  # how the task enters the policy


class Swap(_Model):
    """The matched-head ablation (docs/theory.md): these continuous heads with and without these codes.

    Each head is trained on the demonstrations' chunks and on what the code makes of them, and each policy is
    executed as it is and requantised at execution: the codebook alone is switched on.
    """

    head: Factor[str] = ("diffusion",)
    tokenizer: Factor[str] = ("oat",)


class Cameras(_Model):
    """What the cameras see. An empty list of names takes the simulator's default camera."""

    names: tuple[str, ...] = ()
    image_size: int = Field(default=84, ge=8)
    rendering: Literal["fast", "default"] | None = None  # None: as the simulator's scores are measured
    crop: Mode = "resnet-only"  # which encoders see a crop of the image: ``encoders.crops``
    crop_share: float = Field(default=SHARE, gt=0, le=1)  # of the image's side

    def cropped(self) -> Crop:
        """The crop as encoders know it."""
        return Crop(self.crop, self.crop_share)


class Training(_Model):
    """How every policy of the study is trained; learning rates and steps may be set per action."""

    steps: Count | dict[str, Count] = 2000
    batch_size: int = Field(default=128, ge=1)
    lr: Rate | dict[str, Rate] = 1e-3
    encoder_lr: Rate = 1e-4  # trained encoders
    warmup: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    validations: int = Field(default=10, ge=4)  # evenly spaced; the convergence flag needs four
    devices: int = Field(default=1, ge=1)  # over which a batch is divided

    @model_validator(mode="after")
    def _divides(self) -> Training:
        if self.batch_size % self.devices:
            raise ValueError(f"batch_size {self.batch_size} cannot be divided over {self.devices} devices")
        return self

    def for_action(self, action: str) -> dict[str, float | str]:
        """The values that hold for one action representation."""
        values = self.model_dump()
        if self.devices == 1:
            del values["devices"]  # as the keys of older policies have it
        for name in ("steps", "lr"):
            if isinstance(values[name], dict):
                if action not in values[name]:
                    raise UserError(f"training.{name} has no entry for the action '{action}'; add one")
                values[name] = values[name][action]
        return values


def _options(name: str, options: Options) -> type[Any]:
    """A section's keys that a registry states."""
    keys: dict[str, Any] = {n: (option.kind, option.default) for n, option in options.items()}
    return create_model(name, __base__=_Model, **keys)


if TYPE_CHECKING:

    class _TokenizerOptions(_Model):
        def __init__(self, **values: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    _HeadOptions = _TokenizerOptions

else:
    _TokenizerOptions = _options("TokenizerOptions", tokenizer_options())
    _HeadOptions = _options("HeadOptions", head_options())


class Tokenizer(_TokenizerOptions):
    """What the study's tokenizers are (the options of all: ``tokenizers.registry``), and how networks are trained."""

    # oat: how target tokens are made while a policy trains
    mode: Literal["eval", "train-as-published"] = "eval"
    steps: int = Field(default=1500, ge=1)
    batch_size: int = Field(default=128, ge=1)
    lr: Rate = 2e-3

    @model_validator(mode="after")
    def _something_to_switch_on(self) -> Tokenizer:
        if self.mode != "eval" and not self.dropout:
            raise ValueError(
                "'mode: train-as-published' leaves the tokenizer's dropout on, and there is none: set 'dropout' "
                "(0.1 in the published code)"
            )
        return self


class Policy(_HeadOptions):
    """What all policies share, and the options of single heads (``policies.registry``)."""

    horizon: int = Field(default=16, ge=1)
    n_obs_steps: int = Field(default=2, ge=1)
    stride: int = Field(default=1, ge=1)  # training takes every so many frames as decision points
    text_encoder: str = "siglip-base"  # of instructions, where factors.task holds "text"; or hub:…, folder:…

    @model_validator(mode="after")
    def _options_go_together(self) -> Policy:
        try:
            for head in HEADS.values():
                head.check({name: getattr(self, name) for name in head.options})
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def of_head(self, head: str) -> dict[str, Any]:
        """The options that this head has, as its recipes hold them."""
        return specified(HEADS[head].options, self)


class Rollout(_Model):
    """How success is measured."""

    episodes_per_task: int = Field(default=20, ge=1)
    protocol: str = ""  # how episodes start and end, where the simulator has several ways; empty: its default
    execute: Count | None = None  # None: the protocol's, or 8
    repeats: int = Field(default=1, ge=1)
    step_limit: int | None = Field(default=None, ge=1)  # None: the simulator's
    states: Literal["evaluation", "tuning"] = "evaluation"
    checkpoints: int = Field(
        default=1, ge=1
    )  # of each training that are evaluated, evenly spaced up to the last
    select: Literal["final", "peak"] = "final"  # the one whose success counts; the peak is optimistic

    @model_validator(mode="after")
    def _peak_of_several(self) -> Rollout:
        if self.select == "peak" and self.checkpoints == 1:
            raise ValueError(
                "'select: peak' is the best of several evaluations: set 'checkpoints' to 2 or more"
            )
        return self

    def earlier(self, steps: int) -> list[int]:
        """The training steps before the last one, of ``steps``, whose weights are evaluated as well."""
        if self.checkpoints > steps:
            raise UserError(
                f"rollout.checkpoints ({self.checkpoints}) is more than training.steps ({steps}); evaluate fewer"
            )
        return [round(steps * k / self.checkpoints) for k in range(1, self.checkpoints)]


class Ledger(_Model):
    """How bits are measured. Without ``sigma`` the task's resolution σ* is measured in the simulator."""

    sigma: Rate | None = None  # standard deviations
    steps: int = Field(default=1500, ge=1)  # of the denoiser of all contexts
    seeds: int = Field(default=3, ge=1, le=20)  # of the denoiser: their spread is in the intervals
    batch_size: int = Field(default=512, ge=8)
    seed: Seed = 0
    prior_steps: int = Field(default=300, ge=1)  # of each code's prior
    episodes_per_sigma: int = Field(default=60, ge=1)  # of disturbed experts, over all tasks
    # What the expert is disturbed by; "code": noise like each code's error. σ* itself is that of white noise.
    disturbances: Factor[Literal["white", "offset", "code"]] = ("white", "offset", "code")
    dimensions: bool = False  # white noise in each action dimension alone, too
    delivered_chunks: int = Field(
        default=1000, ge=8
    )  # at most, of each policy: its network runs 200 times a chunk

    @field_validator("disturbances")
    @classmethod
    def _white(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "white" not in value:
            raise ValueError("σ* is that of white noise: add 'white'")
        return value


class Until(_Model):
    """A study that grows by seeds until its question is answered; ``factors.seed`` holds the most."""

    question: Literal["bottleneck", "upgrade", "interaction"] = "bottleneck"
    # ± percentage points (of recordings: standard deviations²) at which an interval is narrow enough
    within: Rate | None = None


class Study(_Model):
    """A study: what is crossed, and how it is trained and measured: in a simulator, or on recordings alone."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    suite: str | None = None  # a simulator's tasks
    data: Factor[str] | None = None  # recordings in place of them: folders STORE/demos/KEY, or their keys
    factors: Factors
    demonstrations: Literal["expert", "official"] = (
        "expert"  # scripted, or recorded by the benchmark's authors
    )
    cameras: Cameras = Cameras()
    policy: Policy = Policy()
    training: Training = Training()
    tokenizer: Tokenizer = Tokenizer()
    rollout: Rollout = Rollout()
    swap: Swap | None = None
    ledger: Ledger | None = None  # bits are measured where there is this section
    until: Until | None = None
    references: bool = True  # expert, expert-chunked, expert-coded
    limits: bool = True  # adds blind and oracle to the encoders
    # The experiment of arXiv 2604.03191 whose table the report shows beside the study's own.
    published: Literal["factorial", "encoder-gradient", "codebook-size"] | None = None
    _written: Written = PrivateAttr(default_factory=Written)

    @model_validator(mode="after")
    def _one_source(self) -> Study:
        if self.suite is None and self.data is None:
            raise ValueError(
                "what to learn from is missing: add 'suite' (tasks of a simulator) or 'data' (folders STORE/demos/KEY)"
            )
        if self.suite is not None and self.data is not None:
            raise ValueError("'suite' and 'data' exclude each other: keep one of them")
        if not self.encoders and (self.suite is None or not self.references):
            raise ValueError(
                "'factors.encoder' is empty: name an encoder; codes alone, without policies, are measured in a simulator "
                "(suite) by the expert's coded chunks (references)"
            )
        return self

    @property
    def encoders(self) -> tuple[str, ...]:
        """The encoder levels from the lower limit to the upper, the file's own order between them."""
        own = tuple(e for e in self.factors.encoder if not is_limit(e))
        has = self.factors.encoder
        lower = ("blind",) if self.limits or "blind" in has else ()
        upper = ("oracle",) if self.limits or "oracle" in has else ()
        return (*lower, *own, *upper, *(e for e in has if e.startswith(BESIDE)))

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Name file and line in errors whose sentence begins with the path of a key (``of_key``)."""
        try:
            yield
        except UserError as error:
            at = self._written.place_of(str(error), Study)
            if at is None:
                raise
            raise type(error)(f"{at}: {error}") from error


SCALE = ("training", "tokenizer", "rollout", "cameras")  # what a preset brings to another file's factors


def presets() -> tuple[str, ...]:
    """Names of the study files that ship with the program; a folder's are written FOLDER/NAME."""
    found: dict[str, str] = {}
    for entry in resources.files("compression_gap.presets").iterdir():
        inside = [(f"{entry.name}/{f.name}") for f in entry.iterdir()] if entry.is_dir() else [entry.name]
        found |= {n.removesuffix(".yaml"): n for n in inside if n.endswith(".yaml")}
    return tuple(sorted(found))


def load_study(file: Path | None, preset: str | None) -> Study:
    """Read a study file, or a preset; with both, the file's factors at the preset's scale.

    At a preset's scale: its training, tokenizer, rollout and camera sections, at most two seeds, and no
    more demonstrations than the preset's. Of a study of recordings: training, tokenizer and seeds alone.
    """
    if preset is not None and preset not in presets():
        raise unknown_name("preset", preset, presets())
    if file is None and preset is None:
        raise UserError(f"name a study file, or --preset with one of: {', '.join(presets())}")
    at = None
    if preset is not None:
        at = parse_study(
            (resources.files("compression_gap.presets") / f"{preset}.yaml").read_text(), f"preset {preset}"
        )
    if file is None:
        assert at is not None
        return at
    try:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(LARGEST_YAML + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the study file {file}: {error}; name an existing YAML file") from error
    study = parse_study(text, str(file))
    if at is None:
        return study
    at_scale = at.name  # a preset's file, its folder in front
    if study.data is not None:  # recordings bring their own cameras and number, and are not rolled out
        factors = study.factors.model_copy(update={"seed": study.factors.seed[:2]})
        scale = {name: getattr(at, name) for name in ("training", "tokenizer")} | {"until": None}
        return study.model_copy(update={"name": f"{study.name}-{at_scale}", "factors": factors, **scale})
    most = max(at.factors.demos)
    factors = study.factors.model_copy(
        update={
            "seed": study.factors.seed[:2],
            "demos": tuple(dict.fromkeys(min(n, most) for n in study.factors.demos)),
        }
    )
    scale = {name: getattr(at, name) for name in SCALE} | {"until": None}
    return study.model_copy(update={"name": f"{study.name}-{at_scale}", "factors": factors, **scale})


def parse_study(text: str, where: str) -> Study:
    """Check a study file's text; ``where`` names it in errors."""
    study, written = parse_model(text, where, Study)
    study._written = written
    return study
