"""σ* in a plan: the experts that are disturbed, and what is read from their episodes.

White noise and an offset in every action dimension; noise shaped like each code's error on its training chunks; and,
on demand, white noise in one action dimension at a time. All act from the same initial states as the undisturbed
expert, so that every σ is paired with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..demos import DemoSet, Normaliser, make_windows
from ..results.evidence import episode_columns
from ..sims import EvaluationProtocol, sim_info
from ..store.store import Recipe, Store

if TYPE_CHECKING:
    from ..information.resolution import Disturbance, Resolution
    from .plan import Graph, Step

# Standard deviations. The first of these keep all success, the last lose most of it: between them lies the crossing.
# At one number of episodes in all, more of them with fewer states measure σ* less well, not better.
GRID = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
GRID_OF_ONE = (0.1, 0.2, 0.4, 0.8, 1.6)  # of one dimension alone, which tolerates more
ALL = ("white", "offset", "code")  # kinds of noise


@dataclass
class Disturbed:
    """The experts' episodes: undisturbed, and by noise (see ``name``) and σ."""

    protocol: EvaluationProtocol
    undisturbed: Recipe
    noises: dict[str, dict[float, Recipe]] = field(default_factory=dict)
    dimensions: dict[int, dict[float, Recipe]] = field(default_factory=dict)

    @property
    def wanted(self) -> list[Recipe]:
        """All of them."""
        every = [*self.noises.values(), *self.dimensions.values()]
        return [self.undisturbed, *(r for of in every for r in of.values())]


def name(kind: str, code: str = "") -> str:
    """What a noise is called: its kind, or "code NAME"."""
    return f"{kind} {code}" if code else kind


def add_disturbed(
    graph: Graph,
    base: Mapping[str, Recipe],
    codes: Mapping[str, Recipe],
    protocol: EvaluationProtocol,
    *,
    episodes: int,
    horizon: int,
    stride: int,
    kinds: Sequence[str],
    dimensions: bool,
) -> Disturbed:
    """The steps. ``base``: demonstrations and normaliser; ``codes``: each one's target tokens, by name."""
    info = sim_info(protocol.sim)
    per_task = -(-episodes // len(protocol.sim.tasks))
    if info.evaluation_states is not None:
        per_task = min(per_task, info.evaluation_states)
    protocol = protocol.model_copy(update={"episodes_per_task": per_task, "repeats": 1})
    spec = {"protocol": protocol.model_dump(mode="json"), "horizon": horizon}
    cost = 5 + 0.6 * len(protocol.episodes())
    undisturbed = graph.add(
        "episodes", {**spec, "actor": "expert-chunked"}, {}, "episodes of expert-chunked", cost
    )
    made = Disturbed(protocol, undisturbed)

    def add(
        words: str, grid: Sequence[float], inputs: Mapping[str, Recipe], **more: Any
    ) -> dict[float, Recipe]:
        own = {**spec, "actor": "expert-disturbed", **more}
        label = f"episodes of the expert disturbed by {words} of"
        return {
            s: graph.add("episodes", {**own, "sigma": s}, dict(inputs), f"{label} {s:g}", cost) for s in grid
        }

    only = {"normaliser": base["normaliser"]}
    for kind in kinds:
        if kind == "code":
            for code, tokens in codes.items():
                inputs = {**base, "tokens": tokens}
                made.noises[name(kind, code)] = add(
                    f"noise like the error of {code},", GRID, inputs, disturbance=kind, stride=stride
                )
        else:
            made.noises[kind] = add(f"{kind} noise", GRID, only, disturbance=kind)
    for d in range(info.action_dim if dimensions else 0):
        words = f"white noise in action dimension {d}"
        made.dimensions[d] = add(words, GRID_OF_ONE, only, disturbance="white", dimension=d)
    return made


def disturbance_of(step: Step, store: Store) -> Disturbance:
    """The noise of an ``expert-disturbed`` actor."""
    from ..information.resolution import disturbance, error_factor

    spec, normaliser = step.recipe.spec, Normaliser.load(store.open(step.inputs["normaliser"]))
    factor = None
    if spec["disturbance"] == "code":
        factor = error_factor(_errors(step, store, normaliser))
    return disturbance(
        spec["disturbance"], spec["sigma"], normaliser, dimension=spec.get("dimension"), factor=factor
    )


def _errors(step: Step, store: Store, normaliser: Normaliser) -> np.ndarray:
    """What a code adds to the training chunks that lie wholly within their episode: [N, H, d], normalised."""
    spec = step.recipe.spec
    sets = {role: r for role, r in step.inputs.items() if role.startswith("demos/")}
    demosets = [DemoSet.load(store.open(sets[f"demos/{i}"])) for i in range(len(sets))]
    tasks = sorted({t for d in demosets for t in d.tasks})  # as the tokens' builder orders them
    windows = make_windows(demosets, tasks, spec["horizon"], 1, "train", spec["stride"])
    chunks = normaliser.normalise(np.concatenate([d.actions for d in demosets]))[windows.actions]
    coded = np.load(store.open(step.inputs["tokens"]) / "coded-train.npy", allow_pickle=False)
    whole = windows.valid.all(1)
    return np.asarray((coded - chunks)[whole] if whole.any() else coded - chunks)


def measured(disturbed: Disturbed, store: Store, noise: str = "white") -> Resolution:
    """σ* pooled over the tasks under that noise, with its interval and its draws."""
    from ..information.resolution import task_resolution

    plain, tasks = _success(store, disturbed.undisturbed)
    return task_resolution(*_curve(disturbed.noises[noise], store), plain, tasks)


def _curve(of: Mapping[float, Recipe], store: Store) -> tuple[tuple[float, ...], np.ndarray]:
    return tuple(of), np.stack([_success(store, r)[0] for r in of.values()])


def _success(store: Store, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    rows = episode_columns(store, recipe)
    return rows["success"].astype(float), rows["task"]


def read_disturbed(disturbed: Disturbed, store: Store) -> dict[str, Any]:
    """What is shown: σ* of each noise, pooled and per task, and of single dimensions; JSON values."""
    from ..information.resolution import task_resolution

    plain, tasks = _success(store, disturbed.undisturbed)
    noises = []
    for noise, of in disturbed.noises.items():
        grid, success = _curve(of, store)
        per_task = {}
        for task in dict.fromkeys(tasks):
            own = tasks == task
            if plain[own].any():
                per_task[str(task)] = task_resolution(grid, success[:, own], plain[own], tasks[own]).as_json()
        pooled = task_resolution(grid, success, plain, tasks)
        noises.append({"noise": noise, **pooled.as_json(), "per_task": per_task})
    return {
        "episodes": len(plain),
        "noises": noises,
        "dimensions": [
            {"dimension": d, **task_resolution(*_curve(of, store), plain, tasks).as_json()}
            for d, of in disturbed.dimensions.items()
        ],
    }
