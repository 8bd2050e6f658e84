"""A kind of artefact as a class: its fields are the specification and the inputs, and its key follows from them.

A field that holds artefacts (one, a tuple, a tuple of tuples) is an input; its role is the field's name, with
``/0``, ``/1``, … for the places of a tuple. Every other field is part of the specification. A kind says how it is
built, and how it is read; the names of its files are known to its own file alone.

    class Doubled(Artifact, kind="doubled", version=1):
        factor: int
        numbers: Numbers                       # an input

        def build(self, job): np.save(job.out / "values.npy", …, allow_pickle=False)
        def load(self, store): return np.load(store.open(self) / "values.npy", allow_pickle=False)

Other packages add kinds by importing this module; an entry point of the group ``compression_gap.artifacts`` names a
module that is imported when a kind is looked up by its name.
"""

from __future__ import annotations

import platform
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass
from functools import cached_property, wraps
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform, get_args, get_type_hints

from pydantic import BaseModel

from ..errors import Interrupted, UserError, unknown_name
from .claims import Busy, Claim, claim
from .store import Recipe, Store, Superseded

GROUP = "compression_gap.artifacts"  # entry points: modules that define kinds
KINDS: dict[str, type[Artifact]] = {}

UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, SyntaxError)

AGAIN = 0.5  # seconds until one looks again whether another process has built an artefact

Progress = Callable[[int, int], None]
Value = TypeVar("Value")


ELIDED = {"elided": True}  # a field's metadata: see ``elided``
UNKEYED = {
    "unkeyed": True
}  # of a field that is no part of the specification: where a thing is found, not what it is


def elided(*, default: Value) -> Value:
    """A field that is left out of the specification at its default, so that the keys of older artefacts hold."""
    made: Value = field(default=default, metadata=ELIDED)
    return made


def role(name: str, *, default: Any) -> Any:
    """An input whose role is not the field's name."""
    return field(default=default, metadata={"role": name})


@dataclass(frozen=True, order=True)
class Needs:
    """What a build takes of a machine: cores, a share of one GPU where there is one, and bytes of memory."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory: int = 2 * 2**30


@dataclass(frozen=True)
class Job:
    """What building an artefact is given: the store with its inputs, where to write, and who wants to know."""

    artifact: Artifact
    store: Store
    out: Path
    progress: Progress
    should_stop: Callable[[], bool]

    @property
    def work(self) -> Path:
        """A folder for checkpoints, which outlives a crash."""
        return self.store.work(self.artifact)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field, elided, role))
class Artifact:
    """One artefact. Subclasses are frozen dataclasses with keywords only; equal keys are equal artefacts."""

    kind: ClassVar[str]
    version: ClassVar[int]  # raised when the bytes that ``build`` writes change
    simulated: ClassVar[bool]  # whether ``build`` runs a simulator
    gpus: ClassVar[float]  # the share of a GPU that ``build`` makes use of

    def __init_subclass__(
        cls, *, kind: str, version: int, simulated: bool = False, gpus: float = 0.0
    ) -> None:
        cls.kind, cls.version, cls.simulated, cls.gpus = kind, version, simulated, gpus
        if "load" in cls.__dict__:
            cls.load = _in_words(cls.__dict__["load"])  # type: ignore[attr-defined]
        dataclass(frozen=True, eq=False, kw_only=True)(cls)
        KINDS[kind] = cls

    @property
    @abstractmethod
    def label(self) -> str:
        """What it is, in a few words, for progress and logs."""

    @property
    def cost(self) -> float:
        """Core-seconds of building it: a rough guess that a run corrects as it goes."""
        return 1.0

    @property
    def needs(self) -> Needs:
        """What building it takes."""
        return Needs(gpus=self.gpus)

    @property
    def patience(self) -> float | None:
        """Seconds without progress after which the worker that builds it counts as hung; None: it may take any time."""
        return None

    @property
    def packages(self) -> Mapping[str, str]:
        """The simulator's packages that its bytes rest on, with their versions; none of most kinds."""
        return {}

    @abstractmethod
    def build(self, job: Job) -> Mapping[str, Any] | None:
        """Write the files to ``job.out``; what is returned stands in the manifest as ``meta``."""

    @property
    def spec(self) -> dict[str, Any]:
        """The specification, as JSON."""
        own = {f.name: getattr(self, f.name) for f in _fields(type(self)) if f.name not in _needs(type(self))}
        left_out = {
            f.name
            for f in _fields(type(self))
            if f.metadata.get("unkeyed") or (f.metadata.get("elided") and own.get(f.name) == f.default)
        }
        return {name: _json(value) for name, value in own.items() if name not in left_out}

    @cached_property
    def inputs(self) -> dict[str, Artifact]:
        """What it is made from, by role."""
        needs = (f for f in _fields(type(self)) if f.name in _needs(type(self)))
        return dict(
            pair for f in needs for pair in _roles(f.metadata.get("role", f.name), getattr(self, f.name))
        )

    @cached_property
    def recipe(self) -> Recipe:
        """What the store knows it by."""
        return Recipe(self.kind, self.spec, {r: a.key for r, a in self.inputs.items()}, self.version)

    @cached_property
    def key(self) -> str:
        """The hash of its recipe."""
        return self.recipe.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Artifact) and (self.kind, self.key) == (other.kind, other.key)

    def __hash__(self) -> int:
        return hash(self.key)


def _in_words(load: Callable[..., Value]) -> Callable[..., Value]:
    """``load``, with a sentence for files that match their checksums and are not what the kind writes: another's."""

    @wraps(load)
    def loaded(self: Artifact, *args: Any, **kwargs: Any) -> Value:
        try:
            return load(self, *args, **kwargs)
        except UNREADABLE as error:
            words = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            raise UserError(
                f"{self.kind} {self.key} holds files that are not of its kind ({words}): if it was imported, do not use "
                "it; else report this with the version of the program that wrote it"
            ) from error

    return loaded


_FIELDS: dict[Any, tuple[Field[Any], ...]] = {}
_NEEDS: dict[Any, frozenset[str]] = {}


def _fields(cls: Any) -> tuple[Field[Any], ...]:
    """``dataclasses.fields``, found once a class: a plan of 10,000 cells asks a million times."""
    if cls not in _FIELDS:
        _FIELDS[cls] = fields(cls)
    return _FIELDS[cls]


def _needs(cls: Any) -> frozenset[str]:
    """The names of the fields whose types hold artefacts."""
    if cls not in _NEEDS:
        hints = get_type_hints(cls)
        _NEEDS[cls] = frozenset(f.name for f in _fields(cls) if _holds_artifacts(hints[f.name]))
    return _NEEDS[cls]


def _holds_artifacts(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, Artifact):
        return True
    return any(_holds_artifacts(of) for of in get_args(hint))


def _roles(name: str, value: Any) -> Iterator[tuple[str, Artifact]]:
    if isinstance(value, Artifact):
        yield name, value
    elif value is not None:
        for place, of in enumerate(value):
            yield from _roles(f"{name}/{place}", of)


def _json(value: Any) -> Any:
    """A specification's value as JSON."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return _json(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_json(v) for v in value]
    return value


def kind_named(name: str) -> type[Artifact]:
    """The class of a kind, of this program or of another package. Raises ``UserError`` for a name that is not known."""
    if name not in KINDS:
        for entry in metadata.entry_points(group=GROUP):
            entry.load()
    if name not in KINDS:
        raise unknown_name("kind of artefact", name, KINDS)
    return KINDS[name]


def build(
    artifact: Artifact,
    store: Store,
    *,
    progress: Progress,
    should_stop: Callable[[], bool],
    wait: bool = True,
) -> bool:
    """Build one artefact and commit it; its inputs must be there. False if it was there, or another process built it.

    While another process builds it this one waits, until ``should_stop()`` (``Interrupted``), or raises ``Busy`` at
    once without ``wait``.
    """
    while not store.has(artifact):
        with claim(store, artifact) as mine:
            if mine:
                if store.has(artifact):
                    return False

                def noted(done: int, total: int, mine: Claim = mine) -> None:
                    mine.note(done, total)
                    progress(done, total)

                _build(artifact, store, noted, should_stop)
                return True
        if not wait:
            raise Busy
        if should_stop():
            raise Interrupted
        time.sleep(AGAIN)
    return False


def _build(artifact: Artifact, store: Store, progress: Progress, should_stop: Callable[[], bool]) -> None:
    meta: dict[str, Any] = {}
    begun = time.perf_counter()
    try:
        with store.working(artifact), store.create(artifact.recipe, meta) as out:
            meta |= artifact.build(Job(artifact, store, out, progress, should_stop)) or {}
            meta["build_seconds"] = time.perf_counter() - begun
            meta["machine"] = machine()
    except Superseded:
        if not store.has(artifact):
            raise


def machine() -> dict[str, str]:
    """What an artefact was built on; it is no part of any key."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }
