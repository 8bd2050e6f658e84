"""Encoders in a plan: cached features, what the prepared ones are made from, the probe, and the instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ..artifacts.demonstrations import Demonstrations
from ..artifacts.encoder import PreparedEncoder, PretrainingFrames
from ..artifacts.features import Features
from ..artifacts.instructions import EmbeddedInstructions
from ..artifacts.probe import Probe
from ..demos.frames import BLOCK, VALIDATION
from ..encoders.crops import Crop
from ..encoders.ladder import PRETRAINING, SMALLEST, frames_of, is_pose, share
from ..encoders.pin import AbsentPin, CheckpointPin
from ..encoders.registry import crop_of, is_prepared, reads_scaled_state
from ..encoders.state import ROUNDING, SIGNAL
from ..errors import UserError
from ..sims import instruction_of, sim_info
from ..store.graph import Graph
from .file import Study

T = TypeVar("T", bound=CheckpointPin)


def add_features(
    graph: Graph, encoder: str, demos: Sequence[Demonstrations], crop: Crop | None = None, seed: int = 0
) -> tuple[Features, ...]:
    """A frozen encoder's features of each set of demonstrations, of cropped images if ``crop`` says so.

    ``seed``: of an encoder that the study pretrains; it changes nothing of any other.
    """
    prepared = add_prepared(graph, encoder, demos, seed)
    own = crop_of(encoder, crop or Crop())
    return tuple(graph.add(Features(encoder=encoder, crop=own, demos=d, prepared=prepared)) for d in demos)


def add_prepared(
    graph: Graph, encoder: str, demos: Sequence[Demonstrations], seed: int = 0
) -> PreparedEncoder | None:
    """What a prepared encoder needs before it sees anything; None for any other.

    ``seed``: of its pretraining in this study. A checkpoint is the same whatever the seed.

    Raises ``UserError`` if the demonstrations do not say which simulator to pretrain in.
    """
    if not is_prepared(encoder):
        return None
    if reads_scaled_state(encoder):
        return graph.add(PreparedEncoder(encoder="oracle", demos=tuple(demos)))
    if is_pose(encoder):
        return _add_pose(graph, encoder, demos, seed)
    from ..encoders.checkpoints import resolve

    return graph.add(PreparedEncoder(encoder=encoder, pin=_resolved(graph, encoder, resolve)))


def _resolved(graph: Graph, name: str, resolve: Callable[[str], T]) -> T | AbsentPin:
    """A checkpoint's pin; in a sketch its name alone, if it is not on this machine and cannot be asked for."""
    from ..encoders.sources import Unreachable

    if name not in graph.absent:
        try:
            return resolve(name)
        except Unreachable as error:
            if not graph.sketch:
                raise
            graph.absent[name] = str(error)
    return AbsentPin(name)


def add_probe(
    graph: Graph,
    encoder: str,
    demos: Sequence[Demonstrations],
    state_names: Sequence[str],
    crop: Crop | None = None,
    seed: int = 0,
) -> Probe:
    """How much of the true state a frozen encoder's features tell; the demonstrations must hold it."""
    features = add_features(graph, encoder, demos, crop, seed)
    return graph.add(Probe(state_names=tuple(state_names), demos=tuple(demos), features=features))


def add_instructions(
    graph: Graph, study: Study, tasks: Sequence[str], known: Mapping[str, str]
) -> dict[str, EmbeddedInstructions | None]:
    """What a policy needs for each way in which the task may enter (``factors.task``): instructions for "text".

    ``known``: the instructions that the simulator gives; of other tasks the name is the instruction. Raises
    ``UserError`` for a text encoder that is not known or cannot be found.
    """
    needs: dict[str, EmbeddedInstructions | None] = dict.fromkeys(study.factors.task)
    if "text" in needs:
        from ..encoders.text import resolve_text

        words = tuple(instruction_of(task, known) for task in tasks)
        pin = _resolved(graph, study.policy.text_encoder, resolve_text)
        needs["text"] = graph.add(EmbeddedInstructions(pin=pin, instructions=words))
    return needs


def _add_pose(graph: Graph, name: str, demos: Sequence[Demonstrations], seed: int) -> PreparedEncoder:
    """A pretraining size: its frames are the first ones of each task, in the order of the demonstrations.

    The seed draws initial weights and batches. Frames are data, like demonstrations: all seeds see the same.
    """
    sims = [d.sim for d in demos if d.sim is not None]
    if len(sims) < len(demos):
        raise UserError(
            f"{name} is pretrained in the simulator, and these demonstrations were not collected in one: "
            "take another encoder"
        )
    first, frames = sims[0], frames_of(name)
    if any((s.cameras, s.image_size) != (first.cameras, first.image_size) for s in sims):
        raise UserError(f"{name} needs demonstrations that were all seen by the same cameras")
    if first.image_size < SMALLEST:
        raise UserError(f"{name} needs images of {SMALLEST} px or more: raise cameras.image_size")
    seen: dict[str, Any] = {
        "cameras": first.cameras or sim_info(first).cameras,
        "image_size": first.image_size,
    }
    if not frames:
        return graph.add(PreparedEncoder(encoder=name, pretraining={"seed": seed}, **seen))
    shares = share(frames, len(demos))
    blocks = []
    for d, sim, own in zip(demos, sims, shares, strict=True):
        of_task = [
            PretrainingFrames(sim=sim, task=d.task, versions=d.versions, block=block)
            for block in range(VALIDATION, -(-own // BLOCK) + 1)
        ]
        blocks.append(tuple(map(graph.add, of_task)))
    return graph.add(
        PreparedEncoder(
            encoder=name,
            pretraining={**PRETRAINING, "seed": seed},
            shares=tuple(shares),
            moving={"signal": SIGNAL, "rounding": ROUNDING},  # which dimensions of the state are its targets
            frames=tuple(blocks),
            **seen,
        )
    )
