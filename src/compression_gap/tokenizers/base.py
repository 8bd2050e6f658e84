"""What an action tokenizer is: chunks [N, H, d] ⇄ tokens. All tokenizers share what stands here.

Chunks are NumPy arrays or torch tensors of any robot, in one unit per dimension (a study hands over
standardised ones: docs/theory.md). A tokenizer is fitted once and frozen from then on. Actions outside the
range seen in fitting are clipped to it, and counted. A dimension that is constant up to rounding is one value. No
unit is preferred: chunks times a power of two give the same tokens, and reconstructions times it.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from ..demos.rounding import is_constant, rounding
from ..errors import UserError
from ..records import read_object, whole

SLACK = 1e-5  # of a dimension's range: what arithmetic on the way adds to the outermost action is no clipping

# What a record of wrong sizes or another network's tensors lead to.
UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError, MemoryError),
    SafetensorError,
)
LONGEST = 2**12  # tokens of a chunk, and layers, in a record
Arrays = dict[str, np.ndarray]
LARGEST = 2**20  # a chunk's steps, and the dimensions of an action, in a record


@dataclass(frozen=True)
class Tokens:
    """Token ids int64 [B, L], and how many of each row count (int64 [B]); the rest is padding.

    ``clipped`` int64 [B]: how many of the row's actions lay outside the range that the code can tell apart (that
    seen in fitting, or less: quantile bins), and how many of its coefficients did, in codes that have any (FAST).
    """

    ids: np.ndarray
    lengths: np.ndarray
    clipped: np.ndarray | None = None


@dataclass(frozen=True)
class Decoded:
    """Chunks float32 [B, H, d], and whether each token sequence could be decoded (bool [B])."""

    chunk: np.ndarray
    ok: np.ndarray


@dataclass(frozen=True)
class Fitting:
    """How a tokenizer with a network is trained; those without one read nothing of it."""

    seed: int = 0
    steps: int = 1500
    batch_size: int = 256
    lr: float = 1e-3
    work: Path | None = None  # folder of checkpoints
    should_stop: Callable[[], bool] = lambda: False
    progress: Callable[[int, int], None] = lambda done, total: None


@dataclass(frozen=True)
class Chunks:
    """Checked chunks float32 [N, H, d], and which actions count: bool [N, H]."""

    values: np.ndarray
    valid: np.ndarray

    @property
    def actions(self) -> np.ndarray:
        """The actions that count, [M, d]."""
        return self.values[self.valid]


class ActionTokenizer(ABC):
    """Chunk ⇄ tokens. A subclass keeps its constructor's options and gives the five methods below."""

    name: ClassVar[str]
    ordered: bool = False  # every prefix of a sequence decodes, from coarse to fine
    ragged: ClassVar[bool] = False  # lengths differ: a sequence ends with an end token

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.fitted = False
        self.horizon = self.action_dim = 0
        self.low = self.high = np.zeros(0, np.float32)  # [d]: the range seen in fitting
        self.report: Mapping[str, Any] = {}  # what the last fit said: learning curve, convergence

    # What a subclass gives.

    @property
    @abstractmethod
    def codebook_sizes(self) -> tuple[int, ...]:
        """The number of codes at each of the L positions (ragged: of the longest sequence)."""

    @abstractmethod
    def _fit(self, chunks: Chunks, validation: Chunks, how: Fitting) -> Mapping[str, Any]:
        """Learn; ``horizon``, ``action_dim`` and the range are set. Returns the report."""

    @abstractmethod
    def _encode(self, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and lengths of checked and clipped chunks."""

    @abstractmethod
    def _decode(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Chunks, and which decoded, of checked ids; padding is 0."""

    @abstractmethod
    def _arrays(self) -> Arrays:
        """What was learned, by name."""

    @abstractmethod
    def _restore(self, arrays: Arrays) -> None:
        """Take what ``_arrays`` gave."""

    # What all share.

    @property
    def capacity_bits(self) -> float:
        """Σ log2 of the codebook sizes; for ragged codes, with the end token at the mean length in fitting."""
        if not self.ragged:
            return sum(math.log2(v) for v in self.codebook_sizes)
        mean = float(self.report.get("mean_length", len(self.codebook_sizes)))
        return (mean + 1) * math.log2(self.codebook_sizes[0] + 1)

    def fit(
        self, chunks: Any, valid: Any = None, *, validation: tuple[Any, Any] | None = None, **how: Any
    ) -> Self:
        """Learn from chunks [N, H, d]; ``valid`` [N, H] is False after an episode's end.

        ``validation`` (chunks, valid) is for the learning curve of trained tokenizers; ``how``: the fields of
        ``Fitting``. Raises ``UserError`` for chunks that are no chunks.
        """
        train = _checked(chunks, valid)
        self.horizon, self.action_dim = train.values.shape[1:]
        train = self._take_range(train)
        held = train if validation is None else _checked(*validation, like=train.values)
        self.fitted = False
        self.report = self._fit(train, held, Fitting(**how))
        self.fitted = True
        return self

    def encode(self, chunks: Any) -> Tokens:
        """Tokens of chunks [B, H, d]."""
        self._need_fit()
        array = self._as_chunks(chunks)
        clipped = outside(array, self.low, self.high)
        ids, lengths = self._encode(np.clip(array, self.low, self.high))
        return Tokens(ids, lengths, clipped)

    def decode(self, tokens: Tokens) -> Decoded:
        """Chunks of tokens, inside the range seen in fitting. What does not decode is marked.

        The chunk of a sequence that does not decode is the tokenizer's documented best guess, ``ok`` is False.
        """
        self._need_fit()
        ids, lengths = self._checked_ids(tokens)
        chunk, ok = self._decode(ids, lengths)
        return Decoded(np.clip(chunk, self.low, self.high, dtype=np.float32), ok)

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Which ids may follow a prefix: bool [V], for ragged codes [V + 1] with the end as the last one."""
        self._need_fit()
        sizes = self.codebook_sizes
        if len(prefix) >= len(sizes):
            raise UserError(
                f"a sequence of {self.name} has {len(sizes)} tokens; the prefix has {len(prefix)}"
            )
        return np.ones(sizes[len(prefix)] + self.ragged, bool)

    def save(self, folder: Path | str) -> None:
        """Write ``tokenizer.json`` and ``tokenizer.safetensors``."""
        self._need_fit()
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "name": self.name,
            "options": self.options,
            "horizon": self.horizon,
            "action_dim": self.action_dim,
            "report": self.report,
        }
        arrays = {"range/low": self.low, "range/high": self.high}
        arrays |= {f"learned/{n}": np.asarray(a, order="C") for n, a in self._arrays().items()}
        save_file(arrays, folder / "tokenizer.safetensors")
        (folder / "tokenizer.json").write_text(json.dumps(about, indent=1, allow_nan=False))

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Read what ``save`` wrote. Runs no code from the folder; ``UserError`` if it holds another thing."""
        folder = Path(folder)
        try:
            about = read_object(folder / "tokenizer.json")
            if about["name"] != cls.name:
                raise UserError(f"{folder} holds the tokenizer '{about['name']}', not '{cls.name}'")
            _check_options(about["options"])
            tokenizer = cls(**about["options"])
            tokenizer.horizon = whole(about, "horizon", 1, LARGEST)
            tokenizer.action_dim = whole(about, "action_dim", 1, LARGEST)
            if tokenizer.horizon * tokenizer.action_dim > LARGEST:
                raise ValueError(f"a chunk of more than {LARGEST:,} numbers")
            tokenizer.report = dict(about["report"])
            arrays = load_file(folder / "tokenizer.safetensors")
            tokenizer.low, tokenizer.high = arrays.pop("range/low"), arrays.pop("range/high")
            if not tokenizer.low.shape == tokenizer.high.shape == (tokenizer.action_dim,):
                raise ValueError(f"a range of {tokenizer.low.shape} for {tokenizer.action_dim} dimensions")
            mean = tokenizer.report.get("mean_length", 0)
            if type(mean) not in (int, float) or not 0 <= mean < math.inf:
                raise ValueError("the mean length in its report is no length")
            tokenizer._restore({n.removeprefix("learned/"): a for n, a in arrays.items()})
        except UNREADABLE as error:
            raise UserError(f"{folder} holds no {cls.name} tokenizer that can be read: {error}") from error
        tokenizer.fitted = True
        return tokenizer

    def _take_range(self, train: Chunks) -> Chunks:
        """Keep the range of the actions that count; a dimension that is constant up to rounding becomes one value."""
        self.low, self.high = train.actions.min(0), train.actions.max(0)
        constant = is_constant(train.actions)
        if np.array_equal(self.low[constant], self.high[constant]):
            return train
        middle = (self.low + (self.high - self.low) / 2)[constant]
        self.low[constant] = self.high[constant] = middle
        values = train.values.copy()
        values[..., constant] = middle
        return Chunks(values, train.valid)

    def _need_fit(self) -> None:
        if not self.fitted:
            raise UserError(f"this {self.name} tokenizer has not been fitted; call fit(chunks) first")

    def _as_chunks(self, chunks: Any) -> np.ndarray:
        array = as_chunks(chunks)
        if array.shape[1:] != (self.horizon, self.action_dim):
            raise UserError(
                f"chunks have shape {array.shape}; this {self.name} tokenizer was fitted on chunks "
                f"[N, {self.horizon}, {self.action_dim}]: cut chunks of that horizon, or fit one on yours"
            )
        return array

    def _checked_ids(self, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
        """Ids with zeros in the padding, and lengths; ``UserError`` for what this tokenizer cannot emit."""
        ids, lengths = np.asarray(tokens.ids), np.asarray(tokens.lengths)
        most = len(self.codebook_sizes)
        if ids.size and ids.dtype.kind not in "iu":
            raise UserError(f"token ids are whole numbers, not {ids.dtype}")
        if ids.ndim != 2 or lengths.shape != (len(ids),) or lengths.min(initial=0) < 0:
            raise UserError(
                f"tokens are ids [B, L] and B lengths, none below 0; got {ids.shape}, {lengths.shape}"
            )
        if lengths.max(initial=0) > min(most, ids.shape[1]):
            raise UserError(
                f"{lengths.max()} tokens a chunk; this {self.name} tokenizer has at most {most}: "
                "tokens of another tokenizer?"
            )
        if not (self.ordered or self.ragged) and (lengths != most).any():
            raise UserError(
                f"a chunk is {most} tokens of {self.name}; got {lengths.min()}: prefixes do not decode"
            )
        ids = ids[:, :most]
        used = np.arange(ids.shape[1]) < lengths[:, None]
        ids = np.where(used, ids, 0)
        sizes = np.array(self.codebook_sizes[: ids.shape[1]])
        if ((ids < 0) | (ids >= sizes)).any():
            raise UserError(
                f"token ids outside the codebook 0 … {sizes.max(initial=0) - 1} of this {self.name} tokenizer: "
                "tokens of another one?"
            )
        return ids.astype(np.int64), lengths.astype(np.int64)


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for options of a record that would fill the memory before a tensor is read."""
    if not isinstance(options, dict):
        raise ValueError("its options are no map")
    for name, value in options.items():
        most = LONGEST if name in ("tokens", "layers") else LARGEST
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > LONGEST or any(isinstance(n, int) and n > most for n in numbers):
            raise ValueError(f"its option '{name}' is larger than {most:,}")


def outside(chunks: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """How many actions of each of the chunks [B, H, d] lie outside low … high ([d] each): int64 [B]."""
    width = high.astype(np.float64) - low
    slack = np.maximum(SLACK * width, rounding(np.maximum(np.abs(low), np.abs(high))))
    count: np.ndarray = (np.abs(chunks - np.clip(chunks, low, high)) > slack).sum((1, 2))
    return count


def as_chunks(chunks: Any) -> np.ndarray:
    """Chunks as a contiguous float32 array [N, H, d], or ``UserError`` that says what is wrong."""
    array = chunks.detach().cpu().float().numpy() if hasattr(chunks, "detach") else np.asarray(chunks)
    with np.errstate(over="ignore"):  # what becomes infinite is refused below
        array = np.ascontiguousarray(array, dtype=np.float32)
    if array.ndim != 3 or 0 in array.shape[1:]:
        raise UserError(
            f"chunks have shape {array.shape}; a tokenizer takes [N, H, d]: chunks, steps, dimensions"
        )
    if not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).any((1, 2)).sum())
        raise UserError(f"{bad} of {len(array)} chunks hold NaN or infinite actions; remove those episodes")
    return array


def _checked(chunks: Any, valid: Any, like: np.ndarray | None = None) -> Chunks:
    values = as_chunks(chunks)
    if not len(values):
        raise UserError("no chunks to fit a tokenizer on; give it at least one demonstration")
    if like is not None and values.shape[1:] != like.shape[1:]:
        raise UserError(f"validation chunks have shape {values.shape}, the training chunks {like.shape}")
    mask = np.ones(values.shape[:2], bool) if valid is None else np.asarray(valid, bool)
    if mask.shape != values.shape[:2] or not mask[:, 0].all():
        raise UserError(
            f"valid has shape {mask.shape} for chunks {values.shape}; it marks actions, the first always"
        )
    return Chunks(values, mask)
