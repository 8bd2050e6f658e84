"""LIBERO's evaluation protocols by name: evaluation harnesses disagree, and their numbers cannot be compared.

Each value is read from the code of the harness it is named after. ``libero-fixed`` is the default: the official
initial states, settled, so that every policy starts from the same scene and sees it at rest.

What none of them can repeat exactly: with official initial states the *fixtures* (cabinets, stoves) still stand
where the simulator's random generator puts them, because a stored state holds joint positions alone. The
harnesses draw them from one stream over all episodes, so they depend on what ran before; here they are drawn
from the number of the initial state, the same for every policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import unknown_name

Rendering = Literal["fast", "default"]


@dataclass(frozen=True)
class LiberoProtocol:
    """How an episode starts and when it ends; ``settings`` travels with every evidence row's protocol."""

    name: str
    fixed_states: bool  # the 50 official initial states, or a random reset seeded by the number
    settling_steps: int  # control steps with the gripper open and no motion, before the policy acts
    first_observation: Literal["settled", "before-settling"]
    step_limits: tuple[tuple[str, int], ...]  # of each suite
    execute: int  # actions executed per decision
    rendering: Rendering = "default"

    def step_limit(self, suites: tuple[str, ...]) -> int:
        """The longest limit of these suites."""
        limits = dict(self.step_limits)
        return max(limits[s] for s in suites)

    @property
    def settings(self) -> dict[str, str | int]:
        """The resolved values, for the evaluation protocol's hash."""
        return {
            "name": self.name,
            "initial_states": "official" if self.fixed_states else "random",
            "settling_steps": self.settling_steps,
            "first_observation": self.first_observation,
        }


def _limits(spatial: int, object_: int, goal: int, ten: int, ninety: int) -> tuple[tuple[str, int], ...]:
    return (
        ("libero_spatial", spatial),
        ("libero_object", object_),
        ("libero_goal", goal),
        ("libero_10", ten),
        ("libero_90", ninety),
    )


PROTOCOLS: dict[str, LiberoProtocol] = {
    p.name: p
    for p in (
        LiberoProtocol("libero-fixed", True, 10, "settled", _limits(220, 280, 300, 520, 400), execute=16),
        # Random resets; the scene settles after the first observation was taken.
        LiberoProtocol(
            "oat-as-published", False, 10, "before-settling", _limits(550, 550, 550, 550, 550), execute=16
        ),
        LiberoProtocol("lerobot", True, 10, "settled", _limits(280, 280, 300, 520, 400), execute=10),
        LiberoProtocol("openpi", True, 10, "settled", _limits(220, 280, 300, 520, 400), execute=5),
    )
}
DEFAULT = "libero-fixed"


def protocol(name: str) -> LiberoProtocol:
    """A protocol by name; an empty name is the default. Raises ``UserError`` for a name that is not known."""
    if name and name not in PROTOCOLS:
        raise unknown_name("LIBERO protocol", name, PROTOCOLS)
    return PROTOCOLS[name or DEFAULT]
