"""How a simulator's observation becomes a served policy's message, and the answer an action chunk.

A binding is a record, by name (``BINDINGS``) or in a YAML file with these fields. Facts of the two for LIBERO are
read from openpi's LIBERO example (https://github.com/Physical-Intelligence/openpi, examples/libero/main.py) and from
vla-eval 0.8 (https://pypi.org/project/vla-eval, benchmarks/libero/benchmark.py). Both turn robosuite's frames by 180°;
this program's frames are upright already, so that left and right remain to be mirrored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..errors import UserError
from ..sims import Observation
from .wire import Message

Count = Annotated[int, Field(ge=1)]
Form = Literal["as is", "axis-angle", "shortest axis-angle"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Part(_Frozen):
    """Columns ``start`` to ``stop`` of the robot's own state.

    ``form``: a quaternion x, y, z, w may be sent as axis-angle; "axis-angle" takes it as it is, as openpi and
    robosuite do (angles to 2π), "shortest axis-angle" the one of q and −q with the angle up to π, as vla-eval does.
    """

    start: int = Field(ge=0)
    stop: Count
    form: Form = "as is"

    @model_validator(mode="after")
    def _not_empty(self) -> Part:
        if self.stop <= self.start or (self.form != "as is" and self.stop - self.start != 4):
            raise ValueError(f"{self.start} to {self.stop} is no part; a quaternion has four numbers")
        return self


class State(_Frozen):
    """The robot's own state under one key: its parts in order; none: all of it."""

    key: str
    parts: tuple[Part, ...] = ()


class Actions(_Frozen):
    """Where the answer's chunk [H, d] lies, and what is done to it: a ↦ scale · a + offset, then signs.

    ``scale`` and ``offset``: one number, or one for each of d. ``signs``: columns that become −1 below 0, else +1.
    """

    key: str = "actions"
    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    signs: tuple[Annotated[int, Field(ge=0)], ...] = ()


class Binding(_Frozen):
    """One way to speak to a policy. Keys that are None are not sent.

    ``wire``: whose messages are spoken, openpi's or vla-eval's; ``cameras``: the simulator's → the message's key;
    ``image_size``: pixels that the simulator renders, square; ``mirror``: left for right; ``resize``: pixels that are
    sent, scaled bilinearly and padded with black; ``n_obs_steps``: above 1, arrays have a leading axis of steps;
    ``execute``: actions executed per decision; ``protocol``: the simulator's evaluation protocol.
    """

    wire: Literal["openpi", "vla-eval"] = "openpi"
    protocol: str = ""
    cameras: dict[str, str] = {}
    image_size: Count = 256
    mirror: bool = False
    resize: Count | None = None
    state: State | None = None
    true_state: str | None = None
    prompt: str | None = "prompt"
    task: str | None = None
    seed: str | None = None
    n_obs_steps: Count = 1
    execute: Count = 8
    actions: Actions = Actions()

    def message(self, seen: Observation, row: int, task: str, words: str, seed: int) -> Message:
        """What is sent for one row of an observation of the task ``task``, whose instruction is ``words``."""
        out: Message = {}
        images: Message = {}
        for camera, key in self.cameras.items():
            images[key] = self._steps(self._pixels(seen.images[camera][row]))
        if self.wire == "vla-eval":
            out["images"] = images
        else:
            out |= images
        if self.state is not None:
            out[self.state.key] = self._steps(_numbers(seen.proprio[row], self.state.parts))
        if self.true_state is not None and seen.state is not None:
            out[self.true_state] = self._steps(seen.state[row])
        given = {self.prompt: words, self.task: task, self.seed: seed}
        return out | {key: value for key, value in given.items() if key is not None}

    def chunk(self, answer: Mapping[str, Any], action_dim: int) -> np.ndarray:
        """The chunk of an answer, float32 [H, d], finite or not. Raises ``UserError`` that says what is wrong with it."""
        if self.actions.key not in answer:
            there = ", ".join(str(k)[:40] for k in answer) or "nothing"
            raise UserError(f"the answer has no '{self.actions.key}' (it has {there})")
        value = answer[self.actions.key]
        try:
            given = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise UserError(
                f"'{self.actions.key}' is a {type(value).__name__}, no array of numbers"
            ) from error
        chunk = given[None] if given.ndim == 1 else given
        if chunk.ndim != 2 or chunk.shape[1] != action_dim or not len(chunk):
            raise UserError(
                f"'{self.actions.key}' is {list(given.shape)}; the simulator's actions have {action_dim} numbers, so "
                f"[{action_dim}] or [steps, {action_dim}] was expected"
            )
        scale, offset = self._each("scale", action_dim), self._each("offset", action_dim)
        chunk = chunk * scale + offset
        for column in self.actions.signs:
            if column >= action_dim:
                raise UserError(f"the binding's actions.signs names column {column} of {action_dim}")
            values = chunk[:, column]
            chunk[:, column] = np.where(np.isnan(values), np.nan, np.where(values < 0, -1.0, 1.0))
        return chunk.astype(np.float32)

    def _each(self, name: str, action_dim: int) -> np.ndarray:
        values = np.asarray(getattr(self.actions, name))
        if len(values) not in (1, action_dim):
            raise UserError(
                f"the binding's actions.{name} has {len(values)} numbers; give 1, or {action_dim} as an action has"
            )
        return values

    def _steps(self, values: np.ndarray) -> np.ndarray:
        """Arrays [T, ...]; of one step, without that axis."""
        return np.ascontiguousarray(values if self.n_obs_steps > 1 else values[-1])

    def _pixels(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 [T, h, w, 3] as they are sent."""
        turned = frames[:, :, ::-1] if self.mirror else frames
        if self.resize is None:
            return turned
        return np.stack([resize_with_pad(f, self.resize) for f in turned])


def resize_with_pad(frame: np.ndarray, size: int) -> np.ndarray:
    """An image uint8 [h, w, 3] scaled bilinearly to fit into a square of ``size`` pixels, the rest black.

    As openpi-client's ``image_tools.resize_with_pad``.
    """
    from PIL import Image

    height, width = frame.shape[:2]
    if (height, width) == (size, size):
        return frame
    ratio = max(width / size, height / size)
    new_width, new_height = int(width / ratio), int(height / ratio)
    scaled = Image.fromarray(np.ascontiguousarray(frame)).resize(
        (new_width, new_height), Image.Resampling.BILINEAR
    )
    out = np.zeros((size, size, 3), np.uint8)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    out[top : top + new_height, left : left + new_width] = np.asarray(scaled)
    return out


def axis_angle(quaternions: np.ndarray, *, shortest: bool = False) -> np.ndarray:
    """Quaternions [..., 4] (x, y, z, w) as axis times angle [..., 3]. ``shortest``: angles up to π, else up to 2π."""
    q = np.asarray(quaternions, np.float64)
    if shortest:
        q = np.where(q[..., 3:] < 0, -q, q)
    w = np.clip(q[..., 3], -1.0, 1.0)
    sine = np.sqrt(1.0 - w * w)
    small = sine < 1e-8
    factor = np.where(small, 0.0, 2.0 * np.arccos(w) / np.where(small, 1.0, sine))
    return q[..., :3] * factor[..., None]


def _numbers(proprio: np.ndarray, parts: tuple[Part, ...]) -> np.ndarray:
    """The robot's own state [T, p], in the parts asked for, float32."""
    if not parts:
        return proprio
    return np.concatenate([_formed(proprio, p) for p in parts], axis=1).astype(np.float32)


def _formed(proprio: np.ndarray, part: Part) -> np.ndarray:
    if part.stop > proprio.shape[1]:
        raise UserError(
            f"the binding sends columns {part.start} to {part.stop} of the robot's state, which has {proprio.shape[1]}"
        )
    values = proprio[:, part.start : part.stop]
    if part.form == "as is":
        return values
    return axis_angle(values, shortest=part.form == "shortest axis-angle")


LIBERO_STATE = (Part(start=0, stop=3), Part(start=3, stop=7, form="axis-angle"), Part(start=7, stop=9))
BINDINGS: dict[str, Binding] = {
    "openpi-libero": Binding(
        protocol="openpi",
        cameras={"agentview": "observation/image", "robot0_eye_in_hand": "observation/wrist_image"},
        mirror=True,
        resize=224,
        state=State(key="observation/state", parts=LIBERO_STATE),
        execute=5,
    ),
    "vla-eval-libero": Binding(
        wire="vla-eval",
        protocol="openpi",  # the same states, settling and limits
        cameras={"agentview": "agentview", "robot0_eye_in_hand": "wrist"},
        mirror=True,
        state=State(
            key="states",
            parts=(
                LIBERO_STATE[0],
                Part(start=3, stop=7, form="shortest axis-angle"),
                LIBERO_STATE[2],
            ),
        ),
        prompt="task_description",
        execute=1,
        actions=Actions(signs=(6,)),
    ),
}
# What ``cgap serve`` says of itself in its greeting, and not of the policy.
HOW_SERVED = {"version", "history", "execute", "task", "max_message_bytes"}


def is_own(metadata: Mapping[str, Any]) -> bool:
    """Whether a server is ``cgap serve``."""
    return metadata.get("library") == "compression-gap"


@dataclass(frozen=True)
class OwnSetting:
    """The simulator, tasks and cameras of a policy that ``cgap serve`` serves; it may not look at the cameras."""

    sim: str
    tasks: tuple[str, ...]
    cameras: tuple[str, ...]


def own_setting(metadata: Mapping[str, Any]) -> OwnSetting | None:
    """Where a policy of ``cgap serve`` was trained; None of another server's."""
    if not is_own(metadata):
        return None
    sim, names = metadata.get("sim"), [metadata.get("tasks"), metadata.get("cameras")]
    if not isinstance(sim, str) or not all(
        isinstance(of, list) and all(isinstance(n, str) for n in of) for of in names
    ):
        raise UserError(
            "the server's greeting is not that of 'cgap serve' (it names no simulator, tasks and cameras)"
        )
    return OwnSetting(sim, *(tuple(of or ()) for of in names))


def own_binding(metadata: Mapping[str, Any]) -> Binding:
    """The binding of a policy that ``cgap serve`` serves, from what it greets with. Raises ``UserError``."""
    try:
        cameras = metadata["cameras"] if metadata["needs_images"] else []
        return Binding(
            cameras={c: f"observation/{c}" for c in cameras},
            image_size=metadata["image_size"],
            state=State(key="observation/proprio"),
            true_state="observation/true_state" if metadata["needs_true_state"] else None,
            prompt=None,
            task="task",
            seed="seed",
            n_obs_steps=metadata["n_obs_steps"],
            execute=metadata["execute"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"the server's greeting is not that of 'cgap serve' ({' '.join(str(error).split())[:200]})"
        ) from error
