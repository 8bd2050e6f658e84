"""The limits of every encoder ladder: ``blind`` sees nothing, ``oracle`` reads the simulator's true state.

``oracle-Bb`` reads it in B bits a dimension: the channel's encoder dial, of which every bit is known.
"""

from __future__ import annotations

import numpy as np
from torch import nn

from ..errors import UserError
from ..sims import Observation
from ..sims.channel import quantise


class Blind:
    """A constant feature: the policy has proprioception and task alone."""

    name, needs_images, frozen, std_floor = "blind", False, True, 1.0
    feature_dim: int = 1
    dtype: type[np.generic] = np.float16

    def __init__(self, cameras: int) -> None:
        self.cameras = cameras

    def features(self, obs: Observation) -> np.ndarray:
        """Zeros [B, T, C, 1]."""
        return np.zeros((*obs.proprio.shape[:2], self.cameras, 1), np.float32)

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """Nothing is trained."""
        return None


class Oracle:
    """The true state (objects and goals), once per camera, so that the context has as many tokens.

    Kept in float32: half a millimetre, which float16 would lose at one metre, matters for insertion.
    """

    name, needs_images, frozen, std_floor = "oracle", False, True, 1e-3
    feature_dim: int = 0  # as many as the simulator's state
    dtype: type[np.generic] = np.float32

    def __init__(self, cameras: int) -> None:
        self.cameras = cameras

    def features(self, obs: Observation) -> np.ndarray:
        """The state [B, T, C, s]."""
        if obs.state is None:
            raise UserError(
                "the oracle encoder needs the simulator's true state, which this data does not hold"
            )
        return np.repeat(obs.state[:, :, None], self.cameras, axis=2)

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """Nothing is trained."""
        return None


class QuantisedOracle(Oracle):
    """The true state, each dimension within [−1, 1] and quantised to 2ᴮ equal cells (their middles)."""

    def __init__(self, cameras: int, bits: int) -> None:
        super().__init__(cameras)
        self.name, self.bits = f"oracle-{bits}b", bits

    def features(self, obs: Observation) -> np.ndarray:
        """The middle of each value's cell [B, T, C, s]."""
        return quantise(super().features(obs), self.bits).astype(np.float32)
