"""FAST (arXiv 2501.09747): quantised cosine coefficients of a chunk, compressed by byte-pair encoding.

    x = (a − centre) / half: the 1st … 99th percentile of each dimension to [−1, 1] (``bins.percentile_range``)
    C = DCT-II of x over time, orthonormal;     q = round(scale · C), integers [H, d]
    tokens = BPE of q, the lowest frequency of all dimensions first

Each coefficient is off by at most ½ / scale, and the DCT is orthonormal: so is a dimension's L2 error over the
chunk by at most ½ · √H / scale, in units of x (where nothing was clipped).

The number of tokens differs by chunk. A sequence decodes exactly if its tokens stand for H·d integers; the
published code turns any other into zeros without a word, here ``ok`` is False, and ``allowed`` lets a policy
sample only what decodes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Self

import numpy as np
from scipy.fft import dct, idct
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from ..errors import UserError
from .base import ActionTokenizer, Arrays, Chunks, Fitting, Tokens
from .bins import NARROW, percentile_range

# Integers are the characters from U+0001 up to the surrogates: without a normaliser none of them is special, and
# those take fewer bytes, which means less time, than the supplementary planes. U+0000 stands between sequences.
FIRST, SURROGATES = 0x1, 0xD800
LEADING = 8  # merges done on all sequences at once
RARE = 0.1  # of the whole range: where the vocabulary is too small, percentiles so near give way to it
MOST_INTEGERS = SURROGATES - FIRST - LEADING
ROWS = 512  # sequences at a time: more fall out of the cache


class IntegerBPE:
    """Byte-pair encoding of sequences of integers, lossless for those in least … least + A − 1.

    The first A tokens are these integers; a further one is what two earlier ones in a row stand for.
    ``integers`` int64: what the tokens stand for, one after the other; ``sizes`` int64 [V]: how many integers
    each stands for; ``merges`` int64 [M, 2]: pairs of tokens that become one, the first merge first.

    The first merges (runs of zeros, mostly) are done with NumPy and leave the Rust tokenizer a third of the
    characters. It would do the same: a pair with a new token comes later in ``merges`` than that token.
    """

    def __init__(self, least: int, integers: np.ndarray, sizes: np.ndarray, merges: np.ndarray) -> None:
        """Raises ``ValueError`` if the arrays, as they may come from a file, do not belong together."""
        self.least, self.integers, self.sizes, self.merges = least, integers, sizes, merges
        alphabet = int((sizes == 1).sum())
        characters = integers - least + FIRST
        if not (
            sizes.min(initial=1) > 0
            and sizes.sum() == len(characters)
            and alphabet <= MOST_INTEGERS
            and np.array_equal(characters[:alphabet], FIRST + np.arange(alphabet))
            and ((characters >= FIRST) & (characters < FIRST + alphabet)).all()
            and ((merges >= 0) & (merges < len(sizes))).all()
        ):
            raise ValueError("the arrays hold no byte-pair encoding")
        self.alphabet = alphabet  # A
        self.starts = sizes.cumsum() - sizes  # where a token begins in ``integers``
        text = "".join(map(chr, characters.tolist()))
        tokens = [text[i : i + n] for i, n in zip(self.starts.tolist(), sizes.tolist(), strict=True)]
        ids = {token: i for i, token in enumerate(tokens)}
        pairs = [(tokens[a], tokens[b]) for a, b in merges.tolist()]
        made = [ids.get(a + b) for a, b in pairs]
        if len(ids) < len(tokens) or None in made:
            raise ValueError("the arrays hold no byte-pair encoding")
        # Two merges may make one token; from then on, the order of the merges is not that of the tokens.
        new = [alphabet + k for k in range(len(made))]
        self._leading = next((k for k in range(len(made)) if made[k] != new[k]), len(made))
        self._leading = min(self._leading, LEADING)
        aliases = {chr(FIRST + i): i for i in new[: self._leading]}
        self._tokenizer = Tokenizer(BPE(vocab=ids | aliases, merges=pairs, cache_capacity=0))

    @classmethod
    def fit(cls, sequences: np.ndarray, vocabulary: int) -> Self:
        """Learn from int64 [N, L]; the alphabet is every integer from the least to the greatest.

        ``vocabulary`` is an upper bound: no pair that occurs only once becomes a token.
        """
        least, alphabet = int(sequences.min()), int(sequences.max()) - int(sequences.min()) + 1
        if alphabet > min(vocabulary, MOST_INTEGERS):
            raise ValueError(f"{alphabet} integers; at most {min(vocabulary, MOST_INTEGERS)}")
        trainer = BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=2,
            show_progress=False,
            initial_alphabet=[chr(FIRST + i) for i in range(alphabet)],
        )
        learner = Tokenizer(BPE())
        codes = ((sequences[i : i + ROWS] - least) for i in range(0, len(sequences), ROWS))
        learner.train_from_iterator((_texts(c) for c in codes), trainer)
        learned = json.loads(learner.to_str())["model"]
        ids: dict[str, int] = learned["vocab"]
        tokens = sorted(ids, key=ids.__getitem__)
        return cls(
            least,
            np.array([ord(c) for c in "".join(tokens)]) - FIRST + least,
            np.array([len(t) for t in tokens]),
            np.array([(ids[a], ids[b]) for a, b in learned["merges"]], np.int64).reshape(-1, 2),
        )

    def encode(self, sequences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Integers [N, L] of the alphabet → ids int64 [N, longest], padded with 0, and lengths int64 [N]."""
        codes = sequences - self.least
        if codes.size and not 0 <= codes.min() <= codes.max() < self.alphabet:
            raise ValueError(f"integers outside {self.least} … {self.least + self.alphabet - 1}")
        leading = [(int(a), int(b)) for a, b in self.merges[: self._leading]]
        rows: list[list[int]] = []
        for start in range(0, len(codes), ROWS):
            texts = _texts(codes[start : start + ROWS], leading, self.alphabet)
            rows += [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        ids = np.zeros((len(rows), lengths.max(initial=0)), np.int64)
        flat = np.fromiter(chain.from_iterable(rows), np.int64, int(lengths.sum()))
        ids[np.arange(ids.shape[1]) < lengths[:, None]] = flat
        return ids, lengths

    def decode(self, ids: np.ndarray, lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids [N, T] and lengths [N] → the first ``size`` integers [N, size], and how many there are [N].

        Integers that are missing are 0, those after the first ``size`` are left out.
        """
        used = np.arange(ids.shape[1]) < lengths[:, None]
        n = np.where(used, self.sizes[ids], 0)
        before = n.cumsum(1) - n
        found = n.sum(1)
        used &= before < size  # no more than one token's surplus
        each = (n * used).sum(1)
        n, tokens = n[used], ids[used]
        # The integers of all tokens of all rows in one line: which they are, and their place in their row.
        at = np.arange(n.sum())
        values = self.integers[np.repeat(self.starts[tokens] - (n.cumsum() - n), n) + at]
        place = at - np.repeat(each.cumsum() - each, each)
        integers = np.zeros((len(ids), size), np.int64)
        integers[np.arange(size) < found[:, None]] = values[place < size]
        return integers, found


class FAST(ActionTokenizer):
    """``FAST(vocabulary=1024, scale=10.0)``: at most H·d tokens a chunk, fewer for smooth ones.

    What lies far outside the percentiles makes large integers. Where these would not fit into the vocabulary, a
    dimension whose percentiles enclose less than a tenth of its range is scaled by the whole range instead.
    Every integer between the least and the greatest coefficient seen in fitting is a token, so that every
    chunk can be encoded; a coefficient outside is clipped, and counted in ``Tokens.clipped`` with the actions
    that were. A vocabulary that cannot be filled (few chunks) stays smaller: ``codebook_sizes`` says so.
    """

    name = "fast"
    ragged = True

    def __init__(self, *, vocabulary: int = 1024, scale: float = 10.0) -> None:
        if isinstance(vocabulary, bool) or not isinstance(vocabulary, int) or vocabulary < 2:
            raise UserError(
                f"vocabulary is {vocabulary!r}; it is the number of tokens: a whole number from 2 on"
            )
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 < scale < math.inf:
            raise UserError(f"scale is {scale!r}; coefficients are multiplied by it: a number above 0")
        super().__init__(vocabulary=vocabulary, scale=float(scale))
        self._centre = self._half = np.zeros(0)  # float64 [d]
        self._bpe: IntegerBPE | None = None

    @property
    def bpe(self) -> IntegerBPE:
        """The fitted byte-pair encoding."""
        if self._bpe is None:
            self._need_fit()
        assert self._bpe is not None
        return self._bpe

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """V for each token of the longest sequence: one token for each coefficient."""
        return (len(self.bpe.sizes),) * self.sequence_size

    @property
    def token_sizes(self) -> np.ndarray:
        """int64 [V]: how many integers a token stands for. What may follow: ``token_sizes <= what is left``."""
        return self.bpe.sizes

    @property
    def sequence_size(self) -> int:
        """How many integers a chunk is: H·d. The end may follow exactly when none is left."""
        return self.horizon * self.action_dim

    def encode(self, chunks: Any) -> Tokens:
        """Tokens of chunks [B, H, d]; ``clipped`` counts actions and coefficients that were."""
        tokens = super().encode(chunks)
        assert tokens.clipped is not None
        return replace(tokens, clipped=tokens.clipped + self.clipped_coefficients(chunks))

    def clipped_coefficients(self, chunks: Any) -> np.ndarray:
        """How many of each chunk's coefficients lie outside the alphabet: int64 [B]."""
        self._need_fit()
        q = self._quantised(np.clip(self._as_chunks(chunks), self.low, self.high))
        least = self.bpe.least
        return ((q < least) | (q >= least + self.bpe.alphabet)).sum(1)

    def allowed(self, prefix: Sequence[int]) -> np.ndarray:
        """Tokens that stand for no more integers than are left; the end, last, exactly when none is left."""
        self._need_fit()
        ids, sizes = np.array(prefix, np.int64).reshape(-1), self.token_sizes
        if ((ids < 0) | (ids >= len(sizes))).any():
            raise UserError(
                f"the prefix holds ids outside the codebook 0 … {len(sizes) - 1} of this fast tokenizer"
            )
        left = self.sequence_size - int(sizes[ids].sum())
        if left < 0:
            raise UserError(
                f"the prefix stands for {-left} integers more than the {self.sequence_size} of a chunk"
            )
        return np.append(sizes <= left, left == 0)

    def _fit(self, chunks: Chunks, validation: Chunks, how: Fitting) -> Mapping[str, Any]:
        # As in encoding: what stands after an episode's end may lie outside the range.
        clipped = np.clip(chunks.values, self.low, self.high)
        vocabulary, scale = self.options["vocabulary"], self.options["scale"]
        for narrow in (NARROW, RARE):
            low, high = percentile_range(chunks.actions, narrow)
            self._centre, self._half = (low + high) / 2, np.where(high > low, (high - low) / 2, 1)
            q = self._quantised(clipped)
            alphabet = q.max() - q.min() + 1
            if alphabet < vocabulary and alphabet <= MOST_INTEGERS:
                break
        if not alphabet < vocabulary:
            of_dimension = q.reshape(len(q), -1, self.action_dim)
            widest = int(np.ptp(of_dimension, axis=(0, 1)).argmax())
            raise UserError(
                f"the coefficients take {alphabet:.0f} values at scale {scale:g}, most of them in dimension {widest}, "
                f"and the vocabulary of {vocabulary} must hold them all and more: raise vocabulary above "
                f"{alphabet:.0f}, or lower scale"
            )
        if alphabet > MOST_INTEGERS:
            raise UserError(
                f"the coefficients take {alphabet:.0f} values at scale {scale:g}, more than the {MOST_INTEGERS} "
                "that the byte-pair encoding can tell apart: lower scale"
            )
        self._bpe = IntegerBPE.fit(q.astype(np.int64), vocabulary)
        _, lengths = self._bpe.encode(q.astype(np.int64))
        return {
            "vocabulary": len(self._bpe.sizes),
            "alphabet": self._bpe.alphabet,
            "mean_length": float(lengths.mean()),
            "p95_length": float(np.percentile(lengths, 95)),
        }

    def _quantised(self, chunks: np.ndarray) -> np.ndarray:
        """Chunks [B, H, d] → q float64 [B, H·d], lowest frequency first."""
        x = (chunks - self._centre) / self._half
        q = np.rint(self.options["scale"] * dct(x, axis=1, norm="ortho"))
        return q.reshape(len(x), self.sequence_size)

    def _encode(self, chunks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        least, greatest = self.bpe.least, self.bpe.least + self.bpe.alphabet - 1
        return self.bpe.encode(self._quantised(chunks).clip(least, greatest).astype(np.int64))

    def _decode(self, ids: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best guess of a sequence with too few integers: 0 for the others; with too many: the first."""
        chunks = np.empty((len(ids), self.horizon, self.action_dim), np.float32)
        ok = np.empty(len(ids), bool)
        for start in range(0, len(ids), ROWS):
            rows = slice(start, start + ROWS)
            q, found = self.bpe.decode(ids[rows], lengths[rows], self.sequence_size)
            x = idct(q.reshape(chunks[rows].shape) / self.options["scale"], axis=1, norm="ortho")
            chunks[rows] = self._centre + x * self._half
            ok[rows] = found == self.sequence_size
        return chunks, ok

    def _arrays(self) -> Arrays:
        bpe = self.bpe
        tables = {"integers": bpe.integers, "sizes": bpe.sizes, "merges": bpe.merges}
        return {"centre": self._centre, "half": self._half, "least": np.array([bpe.least]), **tables}

    def _restore(self, arrays: Arrays) -> None:
        self._centre, self._half = arrays["centre"], arrays["half"]
        if not self._centre.shape == self._half.shape == (self.action_dim,):
            raise ValueError(
                f"units of {self._centre.shape} and {self._half.shape} for {self.action_dim} dimensions"
            )
        tables = (arrays[n].astype(np.int64) for n in ("integers", "sizes", "merges"))
        self._bpe = IntegerBPE(int(arrays["least"][0]), *tables)


def _texts(codes: np.ndarray, merges: Sequence[tuple[int, int]] = (), first_new: int = 0) -> list[str]:
    """Codes [N, L] from 0 on as N strings; before that, the pairs ``merges`` in turn become new codes."""
    line = np.full((len(codes), codes.shape[1] + 1), -FIRST, np.int32)
    line[:, :-1] = codes
    line = line.ravel()
    for k, (a, b) in enumerate(merges):
        at = np.flatnonzero((line[:-1] == a) & (line[1:] == b))
        if a == b:  # in a run, every second one from its start
            order = np.arange(len(at))
            begins = np.diff(at, prepend=-2) != 1
            at = at[(order - np.maximum.accumulate(np.where(begins, order, 0))) % 2 == 0]
        line[at] = first_new + k
        keep = np.ones(len(line), bool)
        keep[at + 1] = False
        line = line[keep]
    return (line + FIRST).astype("<u4").tobytes().decode("utf-32-le").split("\0")[: len(codes)]
