"""Encoders in a plan: cached features, what the prepared ones are made from, and the probe; how these are built.

A prepared encoder is an artefact of its own (kind "encoder"): the scales of the oracle's state, the pin of a
checkpoint, or a rung of the controlled ladder, which needs pretraining frames (kind "frames", in blocks that all rungs share) from the simulator and tasks
of the demonstrations. The steps import no torch; the builders import what they need.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..demos.frames import BLOCK, VALIDATION
from ..encoders.crops import Crop
from ..encoders.ladder import PRETRAINING, SMALLEST, frames_of, is_pose, share
from ..encoders.registry import is_prepared, reads_scaled_state
from ..encoders.state import ROUNDING, SIGNAL
from ..errors import UserError
from ..sims import SimSpec, instruction_of, sim_info
from ..store.store import Recipe

if TYPE_CHECKING:
    from ..artifacts.builders import Job
    from .file import Study
    from .plan import Graph

SECONDS_PER_FRAME = 0.03  # rendered, physics included
SECONDS_PER_SAMPLE = 1.5e-3  # trained on, at 84 pixels


def add_features(
    graph: Graph, encoder: str, demos: Sequence[Recipe], crop: Crop | None = None, seed: int = 0
) -> list[Recipe]:
    """A frozen encoder's features of each set of demonstrations, of cropped images if ``crop`` says so.

    ``seed``: of an encoder that the study pretrains; it changes nothing of any other.
    """
    spec: dict[str, Any] = {"encoder": encoder}
    if (own := (crop or Crop()).for_encoder(encoder)) is not None:
        spec["crop"] = own
    needs = prepared_inputs(graph, encoder, demos, seed)
    return [graph.add("features", spec, {"demos": d, **needs}, f"features of {encoder}", 5) for d in demos]


def prepared_inputs(graph: Graph, encoder: str, demos: Sequence[Recipe], seed: int = 0) -> dict[str, Recipe]:
    """The input "encoder" of features and policies: its artefact, if it is a prepared one; else nothing.

    ``seed``: of its pretraining in this study. A checkpoint is the same whatever the seed.

    Raises ``UserError`` if the demonstrations do not say which simulator to pretrain in.
    """
    if not is_prepared(encoder):
        return {}
    if reads_scaled_state(encoder):
        sets = {f"demos/{i}": d for i, d in enumerate(demos)}
        return {"encoder": graph.add("encoder", {"encoder": "oracle"}, sets, "scales of the true state", 1)}
    if is_pose(encoder):
        return {"encoder": _add_pose(graph, encoder, demos, seed)}
    from ..encoders.checkpoints import resolve

    pin = _resolved(graph, encoder, resolve)
    return {"encoder": graph.add("encoder", pin, {}, f"weights of {encoder}", 10)}


def _resolved(graph: Graph, name: str, resolve: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """A checkpoint's pin; in a sketch its name alone, if it is not on this machine and cannot be asked for."""
    from ..encoders.sources import Unreachable

    if name not in graph.absent:
        try:
            return resolve(name)
        except Unreachable as error:
            if not graph.sketch:
                raise
            graph.absent[name] = str(error)
    return {"encoder": name, "absent": True}


def add_probe(
    graph: Graph,
    encoder: str,
    demos: Sequence[Recipe],
    state_names: Sequence[str],
    crop: Crop | None = None,
    seed: int = 0,
) -> Recipe:
    """How much of the true state a frozen encoder's features tell; the demonstrations must hold it."""
    inputs = {f"demos/{i}": d for i, d in enumerate(demos)}
    inputs |= {f"features/{i}": f for i, f in enumerate(add_features(graph, encoder, demos, crop, seed))}
    spec = {"state_names": list(state_names)}
    return graph.add("probe", spec, inputs, f"probe of {encoder}", 10.0 * len(demos))


def add_instructions(
    graph: Graph, study: Study, tasks: Sequence[str], known: Mapping[str, str]
) -> dict[str, dict[str, Recipe]]:
    """What a policy needs for each way in which the task may enter (``factors.task``): for "text", the input "text".

    ``known``: the instructions that the simulator gives; of other tasks the name is the instruction. Raises
    ``UserError`` for a text encoder that is not known or cannot be found.
    """
    needs: dict[str, dict[str, Recipe]] = {task: {} for task in study.factors.task}
    if "text" in needs:
        from ..encoders.text import resolve_text

        words = [instruction_of(task, known) for task in tasks]
        name = study.policy.text_encoder
        spec = {"pin": _resolved(graph, name, resolve_text), "instructions": words}
        needs["text"] = {"text": graph.add("text", spec, {}, f"instructions embedded by {name}", 20)}
    return needs


def _add_pose(graph: Graph, name: str, demos: Sequence[Recipe], seed: int) -> Recipe:
    """A rung: its frames are the first ones of each task, in the order of the demonstrations.

    The seed draws initial weights and batches. Frames are data, like demonstrations: all seeds see the same.
    """
    sims = []
    for recipe in demos:
        if recipe.kind != "demos" or "sim" not in recipe.spec:
            raise UserError(
                f"{name} is pretrained in the simulator, and these demonstrations were not collected in one: "
                "take another encoder"
            )
        sims.append(SimSpec.model_validate_json(json.dumps(recipe.spec["sim"])))
    first, frames = sims[0], frames_of(name)
    if any((s.cameras, s.image_size) != (first.cameras, first.image_size) for s in sims):
        raise UserError(f"{name} needs demonstrations that were all seen by the same cameras")
    if first.image_size < SMALLEST:
        raise UserError(f"{name} needs images of {SMALLEST} px or more: raise cameras.image_size")
    cameras = first.cameras or sim_info(first).cameras
    spec = {"encoder": name, "cameras": list(cameras), "image_size": first.image_size}
    if not frames:
        spec["pretraining"] = {"seed": seed}
        return graph.add("encoder", spec, {}, f"{name}: initial weights, seed {seed}", 2)
    shares = share(frames, len(demos))
    inputs = {}
    for i, recipe in enumerate(demos):
        blocks = -(-shares[i] // BLOCK)
        for block in range(VALIDATION, blocks + 1):
            inputs[f"frames/{i}/{block}"] = _add_frames(graph, recipe, block, f"{block} of {blocks}")
    moving = {"signal": SIGNAL, "rounding": ROUNDING}  # which dimensions of the state are its targets
    spec |= {"pretraining": {**PRETRAINING, "seed": seed}, "shares": shares, "moving": moving}
    samples = PRETRAINING["steps"] * PRETRAINING["batch_size"] * len(cameras)
    cost = 5 + SECONDS_PER_SAMPLE * samples * (first.image_size / 84) ** 2
    return graph.add("encoder", spec, inputs, f"pretraining {name}, seed {seed}", cost)


def _add_frames(graph: Graph, demos: Recipe, block: int, which: str) -> Recipe:
    spec = {n: demos.spec[n] for n in ("sim", "task", "versions")} | {"block": block, "frames": BLOCK}
    label = "validation frames" if block == VALIDATION else f"pretraining frames {which}"
    return graph.add("frames", spec, {}, f"{label} of {demos.spec['task']}", SECONDS_PER_FRAME * BLOCK)


def build_frames(job: Job) -> dict[str, Any]:
    """One block of pretraining frames of one task."""
    from ..demos.frames import collect_frames

    spec = job.spec
    sim = SimSpec.model_validate_json(json.dumps(spec["sim"]))
    made = collect_frames(
        sim, spec["task"], spec["block"], job.out, frames=spec["frames"], progress=job.progress
    )
    return {**made}


def build_encoder(job: Job) -> dict[str, Any]:
    """A prepared folder. A rung's record holds curve, R² of its own heads, frames, seconds, FLOPs."""
    if reads_scaled_state(job.spec["encoder"]):
        from ..encoders.limits import Oracle

        Oracle.prepare(job.demosets(), job.out)
        return {}
    if not is_pose(job.spec["encoder"]):
        from ..encoders.checkpoints import prepare_pretrained

        prepare_pretrained(job.spec, job.out)
        return {}
    from ..demos.frames import FrameSet, join_frames
    from ..encoders.pose import prepare

    sets, validation = [], []
    for i, count in enumerate(job.spec.get("shares", ())):
        held, *blocks = [FrameSet.load(job.store.open(r)) for r in job.recipes(f"frames/{i}")]
        validation.append(held)
        sets.append(join_frames(blocks, count))
    return prepare(
        job.spec["encoder"],
        sets,
        validation,
        job.out,
        cameras=job.spec["cameras"],
        image_size=job.spec["image_size"],
        pretraining=job.spec["pretraining"],
        work=job.store.work(job.step.recipe),
        should_stop=job.should_stop,
        progress=job.progress,
    )


def build_text(job: Job) -> dict[str, Any]:
    """The tasks' instructions and their embeddings."""
    from ..encoders.text import prepare_text

    prepare_text(job.spec, job.out)
    return {}


def build_probe(job: Job) -> dict[str, Any]:
    """Ridge regression from the cached features to the true state, per task."""
    from ..encoders.probe import probe

    features = [
        np.load(job.store.open(r) / "features.npy", mmap_mode="r", allow_pickle=False)
        for r in job.recipes("features")
    ]
    return probe(features, job.demosets(), state_names=job.spec["state_names"], progress=job.progress)
