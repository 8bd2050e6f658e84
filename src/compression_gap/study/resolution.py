"""σ* in a plan: the experts that are disturbed.

White noise and an offset in every action dimension; noise shaped like each code's error on its training chunks; and,
on demand, white noise in one action dimension at a time. All act from the same initial states as the undisturbed
expert, so that every σ is paired with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..artifacts.episodes import Episodes
from ..artifacts.normaliser import FittedNormaliser
from ..artifacts.tokens import TargetTokens
from ..sims import EvaluationProtocol, sim_info
from ..store.graph import Graph

# Standard deviations. The first of these keep all success, the last lose most of it: between them lies the crossing.
# At one number of episodes in all, more of them with fewer states measure σ* less well, not better.
GRID = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)
GRID_OF_ONE = (0.1, 0.2, 0.4, 0.8, 1.6)  # of one dimension alone, which tolerates more
ALL = ("white", "offset", "code")  # kinds of noise


@dataclass
class Disturbed:
    """The experts' episodes: undisturbed, and by noise (see ``name``) and σ."""

    protocol: EvaluationProtocol
    undisturbed: Episodes
    noises: dict[str, dict[float, Episodes]] = field(default_factory=dict)
    dimensions: dict[int, dict[float, Episodes]] = field(default_factory=dict)

    @property
    def wanted(self) -> list[Episodes]:
        """All of them."""
        every = [*self.noises.values(), *self.dimensions.values()]
        return [self.undisturbed, *(r for of in every for r in of.values())]


def name(kind: str, code: str = "") -> str:
    """What a noise is called: its kind, or "code NAME"."""
    return f"{kind} {code}" if code else kind


def add_disturbed(
    graph: Graph,
    normaliser: FittedNormaliser,
    codes: Mapping[str, TargetTokens],
    protocol: EvaluationProtocol,
    *,
    episodes: int,
    horizon: int,
    stride: int,
    kinds: Sequence[str],
    dimensions: bool,
) -> Disturbed:
    """The steps. ``codes``: each one's target tokens, by name."""
    info = sim_info(protocol.sim)
    per_task = -(-episodes // len(protocol.sim.tasks))
    if info.evaluation_states is not None:
        per_task = min(per_task, info.evaluation_states)
    protocol = protocol.model_copy(update={"episodes_per_task": per_task, "repeats": 1})
    made = Disturbed(
        protocol, graph.add(Episodes(protocol=protocol, actor="expert-chunked", horizon=horizon))
    )

    def add(kind: str, grid: Sequence[float], **more: Any) -> dict[float, Episodes]:
        return {
            sigma: graph.add(
                Episodes(
                    protocol=protocol,
                    actor="expert-disturbed",
                    horizon=horizon,
                    disturbance=kind,
                    sigma=sigma,
                    normaliser=normaliser,
                    **more,
                )
            )
            for sigma in grid
        }

    for kind in kinds:
        if kind == "code":
            for code, tokens in codes.items():
                made.noises[name(kind, code)] = add(
                    kind, GRID, stride=stride, tokens=tokens, demos=normaliser.demos
                )
        else:
            made.noises[kind] = add(kind, GRID)
    for d in range(info.action_dim if dimensions else 0):
        made.dimensions[d] = add("white", GRID_OF_ONE, dimension=d)
    return made
