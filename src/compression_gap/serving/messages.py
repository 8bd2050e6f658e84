"""What clients send: a message is checked and becomes an observation, or is refused in one sentence.

An observation is a map. ``images``: camera → uint8 [h, w, 3], or [T, h, w, 3] for T consecutive steps, oldest
first (also flat, as ``observation/CAMERA`` or ``CAMERA``); ``proprio`` (openpi's ``state``) [p] or [T, p];
``true_state`` [s] or [T, s], for oracles; ``task``, a name or its number, or ``prompt``, its words: the name or,
of a policy that is conditioned on text, the instruction. Further: ``reset`` starts an episode, ``act: false`` shows
a step without asking for a chunk, ``step`` is the number of the newest step within the episode, ``seed`` the
decision's noise, 0 ≤ seed < 2⁶³.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import UserError, counted, unknown_name
from ..policies import Policy
from ..sims import Observation
from .wire import Message

FIELDS = ("proprio", "state", "true_state", "task", "prompt", "reset", "act", "step", "seed")
SEEDS = 2**63


@dataclass(frozen=True)
class Request:
    """A message that has been checked. ``seen`` [1, T, ...]: None for a message that only resets."""

    reset: bool
    act: bool
    seen: Observation | None
    step: int | None
    seed: int | None

    @property
    def steps(self) -> int:
        """T, the observation steps of this message."""
        return 0 if self.seen is None else self.seen.proprio.shape[1]


def needs_true_state(policy: Policy) -> bool:
    """Whether its encoder reads the simulator's true state."""
    return policy.state_dim > 0


def check_task(policy: Policy, task: str) -> str:
    """The policy's task of that name. Raises ``UserError`` with the list of its tasks."""
    if task not in policy.spec.tasks:
        raise unknown_name("task of this policy", task, policy.spec.tasks)
    return task


def read_request(message: Any, policy: Policy, task: str | None = None) -> Request:
    """Check a message and make an observation of it. ``task``: that of messages which name none.

    Raises ``UserError`` that says what was expected, and what was given.
    """
    if not isinstance(message, dict):
        raise UserError(f"a message is a map, not {_what(message)}")
    fields, images = _flatten(message, policy)
    reset, act = _switch(fields, "reset", False), _switch(fields, "act", True)
    step, seed = _number(fields, "step"), _number(fields, "seed")
    if reset and not images and not fields.keys() - {"reset", "act", "step", "seed"}:
        return Request(reset, False, None, None, None)
    return Request(reset, act, _observation(fields, images, policy, task), step, seed)


def _flatten(message: Mapping[Any, Any], policy: Policy) -> tuple[Message, Message]:
    """The fields and the images of a message, whichever way its keys are written."""
    fields: Message = {}
    images: Message = {}
    cameras = policy.spec.cameras

    def put(where: Message, name: Any, value: Any) -> None:
        if name in where:
            raise UserError(f"'{name}' is given twice")
        where[name] = value

    for key, value in message.items():
        name = key.removeprefix("observation/") if isinstance(key, str) else repr(key)
        if name == "images":
            if not isinstance(value, dict):
                raise UserError(f"images is a map from camera to array, not {_what(value)}")
            for camera, image in value.items():
                if camera not in cameras:
                    raise unknown_name("camera", _name(camera), cameras)
                put(images, camera, image)
        elif name in FIELDS:
            put(fields, name, value)
        elif name in cameras:
            put(images, name, value)
        else:
            raise unknown_name("key", _name(name), ("images", *FIELDS, *cameras))
    if "state" in fields:  # openpi's name
        put(fields, "proprio", fields.pop("state"))
    return fields, images


def _observation(
    fields: Mapping[str, Any], given: Mapping[str, Any], policy: Policy, task: str | None
) -> Observation:
    spec = policy.spec
    size = spec.image_size
    images = {c: _image(c, given[c], size) for c in spec.cameras if c in given}
    if policy.needs_images and len(images) < len(spec.cameras):
        missing = [c for c in spec.cameras if c not in images]
        raise UserError(
            f"no image of {', '.join(missing)}; this policy sees {', '.join(spec.cameras)}, "
            f"each uint8 [{size}, {size}, 3]"
        )
    if "proprio" not in fields:
        raise UserError(f"no proprio; this policy wants {counted(spec.proprio_dim, 'number')}")
    proprio = _vectors("proprio", fields["proprio"], spec.proprio_dim)
    state = None
    if "true_state" in fields:
        wanted = policy.state_dim or None
        state = _vectors("true_state", fields["true_state"], wanted)
    elif needs_true_state(policy):
        raise UserError(
            f"no true_state; the encoder {spec.encoder} reads {counted(policy.state_dim, 'number')} of the simulator's state"
        )
    streams = {"proprio": proprio, **images, **({} if state is None else {"true_state": state})}
    lengths = {name: len(a) for name, a in streams.items()}
    if len(set(lengths.values())) > 1:
        steps = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise UserError(f"the streams differ in their observation steps: {steps}")
    return Observation(
        # Encoders read cameras in the policy's order.
        images={c: a[None] for c, a in images.items()} if policy.needs_images else {},
        proprio=proprio[None],
        task=np.array([_task(fields, policy, task)], np.int64),
        state=None if state is None else state[None],
    )


def _image(camera: str, value: Any, size: int) -> np.ndarray:
    """Images [T, h, w, 3]."""
    expected = f"uint8 [{size}, {size}, 3] or [steps, {size}, {size}, 3]"
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        raise UserError(f"the image of {camera} is {_what(value)}; expected {expected}")
    if value.shape[-3:] != (size, size, 3) or value.ndim not in (3, 4) or 0 in value.shape:
        raise UserError(f"the image of {camera} is {_what(value)}; expected {expected}")
    return value[None] if value.ndim == 3 else value


def _vectors(name: str, value: Any, dim: int | None) -> np.ndarray:
    """Numbers [T, dim], float32, all finite."""
    expected = "[numbers]" if dim is None else f"[{dim}] or [steps, {dim}]"
    array = value
    if isinstance(value, list) and all(type(x) in (int, float) for x in value):
        array = np.asarray(value, np.float64)
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise UserError(f"{name} is {_what(value)}; expected numbers {expected}")
    if array.ndim not in (1, 2) or len(array) == 0 or dim not in (None, array.shape[-1]):
        raise UserError(f"{name} is {_what(array)}; expected {expected}")
    with np.errstate(over="ignore"):
        out = np.atleast_2d(array).astype(np.float32)
    if not np.isfinite(out).all():
        raise UserError(f"{name} holds NaN or infinite values; send finite numbers")
    return out


def _task(fields: Mapping[str, Any], policy: Policy, task: str | None) -> int:
    """The number of a message's task among the policy's."""
    tasks = policy.spec.tasks
    named = fields.get("task")
    if named is not None:
        if isinstance(named, str):
            return tasks.index(check_task(policy, _name(named)))
        if _whole(named) and 0 <= named < len(tasks):
            return int(named)
        raise UserError(
            f"task is {_what(named)}; give a number below {len(tasks)}, or one of {', '.join(tasks)}"
        )
    if task is not None:
        return tasks.index(task)
    if "prompt" in fields:
        prompt = fields["prompt"]
        if not isinstance(prompt, str):
            raise UserError(f"prompt is {_what(prompt)}; expected text")
        found = [i for i, name in enumerate(tasks) if prompt == name]
        found = found or [i for i, name in enumerate(tasks) if _same_words(prompt, name)]
        found = found or [i for i, said in enumerate(policy.instructions) if _same_words(prompt, said)]
        if len(found) == 1:
            return found[0]
        raise UserError(
            f"the prompt '{_name(prompt)}' names no task of this policy ({', '.join(tasks)}); "
            "send 'task', or serve with --task"
        )
    if len(tasks) > 1:
        raise UserError(f"no task; send 'task' or 'prompt', one of {', '.join(tasks)}")
    return 0


def _same_words(prompt: str, task: str) -> bool:
    """Whether a prompt is a task's name, be it with or without its version, in whatever spelling of words."""

    def words(text: str) -> str:
        return re.sub(r"[\W_]+", " ", text.casefold()).strip()

    return words(prompt) in {words(task), words(re.sub(r"-v\d+$", "", task))} - {""}


def _switch(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool | np.bool_):
        raise UserError(f"{name} is {_what(value)}; expected true or false")
    return bool(value)


def _number(fields: Mapping[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not _whole(value) or not 0 <= value < SEEDS:
        raise UserError(f"{name} is {_what(value)}; expected a whole number from 0 to 2⁶³ − 1")
    return int(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _name(given: Any) -> str:
    """A name as it is told back: on one line, and not long."""
    return " ".join(str(given).split())[:80]


def _what(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype.name} {list(value.shape)}"
    if isinstance(value, bool | int | float | str | np.generic):
        return repr(value)[:80]
    known: dict[type, str] = {dict: "a map", list: "a list", bytes: "bytes", type(None): "nothing"}
    return known.get(type(value), f"a {type(value).__name__}")
