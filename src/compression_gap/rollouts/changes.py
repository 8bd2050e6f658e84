"""One change to what a policy sees or to what it does, at test time: how much does its success need?

The policy was not trained on what it is shown here, so a fall in success says what it is sensitive to, not what an
encoder or a code that it was trained with would be worth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from ..policies import Emission
from ..sims import Observation
from .actors import Actor, SessionActor, Turn

Seen = Literal["averaged", "blurred", "grey", "black", "mean state", "other prompt", "empty prompt"]
See = Callable[[Observation], Observation]
Move = Callable[[np.ndarray, np.ndarray], Emission]  # raw chunks [B, H, d], seeds int64 [B] → chunks
Keep = Callable[[Turn, np.ndarray, np.ndarray], None]  # turn, own state [p], raw chunk [H, d]


@dataclass(frozen=True)
class Sight:
    """A change of what is seen.

    "averaged": over ``size`` × ``size`` blocks of the image, R = ``size``, and scaled back; "blurred": with a Gaussian
    of ``size`` times the image's width; "grey"; "black": of one ``camera``, or of all. "mean state": the robot's own
    state at ``mean``; "other prompt": the next task's, of ``words``; "empty prompt".
    """

    kind: Seen
    size: float | None = None
    camera: str | None = None

    @property
    def words(self) -> str:
        """The change, in words."""
        if self.kind == "averaged":
            return f"images of {self.size:g} × {self.size:g}"
        if self.kind == "blurred":
            return f"blur, {self.size:g} of the width"
        if self.kind == "black":
            return "all cameras black" if self.camera is None else f"{self.camera} black"
        return {"grey": "grey images", "mean state": "own state at its mean"}.get(self.kind, self.kind)

    def see(self, words: Sequence[str], mean: np.ndarray | None = None) -> See:
        """The change as a function. ``words``: of each task; ``mean`` [p]."""
        if self.kind == "mean state":
            assert mean is not None
            return lambda seen: replace(
                seen, proprio=np.broadcast_to(mean, seen.proprio.shape).astype(np.float32)
            )
        if self.kind == "empty prompt":
            return lambda seen: replace(seen, text=("",) * len(seen.task))
        if self.kind == "other prompt":
            return lambda seen: _asked_for_another(seen, words)
        return lambda seen: replace(
            seen,
            images={
                c: self._picture(frames) if self.camera in (None, c) else frames
                for c, frames in seen.images.items()
            },
        )

    def _picture(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 [B, T, h, w, 3]."""
        if self.kind == "black":
            return np.zeros_like(frames)
        every = frames.reshape(-1, *frames.shape[2:])
        return np.stack([self._frame(f) for f in every]).reshape(frames.shape)

    def _frame(self, frame: np.ndarray) -> np.ndarray:
        from PIL import Image, ImageFilter

        height, width = frame.shape[:2]
        image = Image.fromarray(frame)
        if self.kind == "grey":
            return np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
        assert self.size is not None
        if self.kind == "blurred":
            return np.asarray(image.filter(ImageFilter.GaussianBlur(self.size * width)))
        small = image.resize((int(self.size), int(self.size)), Image.Resampling.BOX)
        return np.asarray(small.resize((width, height), Image.Resampling.NEAREST))


def _asked_for_another(seen: Observation, words: Sequence[str]) -> Observation:
    """Each task's number and words become the next one's."""
    other = (seen.task + 1) % len(words)
    return replace(seen, task=other, text=tuple(words[i] for i in other))


@dataclass
class ChangedActor:
    """An actor with one change before it (``see``) or behind it (``move``); ``keep`` is told what it did.

    What is kept is the chunk before ``move``.
    """

    inner: Actor
    see: See | None = None
    move: Move | None = None
    keep: Keep | None = None

    def __post_init__(self) -> None:
        self.asks, self.n_obs_steps = self.inner.asks, self.inner.n_obs_steps
        self.horizon, self.needs_images = self.inner.horizon, self.inner.needs_images

    def act(self, asked: Any, seeds: np.ndarray) -> Emission:
        """Each as the first decision of an episode of its own."""
        shown = asked if self.see is None else self.see(asked)
        emitted: Emission = self.inner.act(shown, seeds)
        return self._moved(emitted, seeds)

    def act_in(
        self, turns: Sequence[Turn], asked: Observation, seeds: np.ndarray
    ) -> tuple[Emission, np.ndarray]:
        """As ``SessionActor``; an actor without sessions loses none."""
        shown = asked if self.see is None else self.see(asked)
        if isinstance(self.inner, SessionActor):
            emitted, lost = self.inner.act_in(turns, shown, seeds)
        else:
            emitted, lost = self.inner.act(shown, seeds), np.zeros(len(turns), bool)
        if self.keep is not None:
            for row, turn in enumerate(turns):
                if lost[row]:
                    continue
                self.keep(turn, asked.proprio[row, -1], np.asarray(emitted.chunk[row], np.float32))
        return self._moved(emitted, seeds), lost

    def end(self, episode: int) -> None:
        """An episode has ended."""
        if isinstance(self.inner, SessionActor):
            self.inner.end(episode)

    def _moved(self, emitted: Emission, seeds: np.ndarray) -> Emission:
        if self.move is None:
            return emitted
        moved = self.move(np.asarray(emitted.chunk, np.float32), seeds)
        return replace(moved, ok=np.asarray(moved.ok, bool) & np.asarray(emitted.ok, bool))
