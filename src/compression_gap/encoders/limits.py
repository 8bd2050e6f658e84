"""The limits of every encoder ladder: ``blind`` sees nothing, ``oracle`` reads the simulator's true state.

``oracle+retina-R`` has an image beside the state: what the state leaves out, an encoder may see. ``oracle-Bb`` reads
the state in B bits a dimension: the channel's encoder dial, of which every bit is known.

``oracle`` is prepared: a folder whose ``encoder.json`` holds the scale of each task's state (``state.Blocks``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from ..demos import DemoSet
from ..errors import UserError
from ..records import read_object
from ..sims import Observation
from ..sims.channel import quantise
from .base import Encoder
from .state import Blocks


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


class TrueState:
    """The true state (objects and goals), once per camera, so that the context has as many tokens.

    Kept in float32: half a millimetre, which float16 would lose at one metre, matters for insertion.
    """

    needs_images, frozen, std_floor = False, True, 1e-3
    feature_dim: int = 0
    dtype: type[np.generic] = np.float32
    state_dim: int = 0  # numbers of the state that it reads; 0: as many as the data has
    name: str

    def __init__(self, cameras: int) -> None:
        self.cameras = cameras

    def features(self, obs: Observation) -> np.ndarray:
        """What is read of the state [B, T, C, ...]."""
        if obs.state is None:
            raise UserError(
                "the oracle encoder needs the simulator's true state, which this data does not hold"
            )
        return np.repeat(self.read(obs.state, obs.task)[:, :, None], self.cameras, axis=2)

    def read(self, state: np.ndarray, task: np.ndarray) -> np.ndarray:
        """Of states [B, T, s] of the tasks with these numbers [B]."""
        raise NotImplementedError

    def network(self, *, weights: bool = True) -> nn.Module | None:
        """Nothing is trained."""
        return None


class QuantisedOracle(TrueState):
    """The true state, each dimension within [−1, 1] and quantised to 2ᴮ equal cells (their middles)."""

    def __init__(self, cameras: int, bits: int) -> None:
        super().__init__(cameras)
        self.name, self.bits = f"oracle-{bits}b", bits

    def read(self, state: np.ndarray, task: np.ndarray) -> np.ndarray:
        """The middle of each value's cell [B, T, s]."""
        return quantise(state, self.bits).astype(np.float32)


class Oracle(TrueState):
    """The state's moving dimensions, standardised within the task, one block a task: see ``state.Blocks``."""

    name = "oracle"

    def __init__(self, cameras: int, folder: Path) -> None:
        """Raises ``UserError`` if the folder holds no such encoder."""
        super().__init__(cameras)
        try:
            about = read_object(folder / "encoder.json")
            if about["name"] != self.name:
                raise ValueError(f"it was prepared for '{about['name']}'")
            self.blocks = Blocks.from_json(about)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} holds no oracle encoder that can be read: {error}") from error
        self.tasks, self.state_dim = self.blocks.tasks, self.blocks.state_dim
        self.feature_dim = self.blocks.width

    @staticmethod
    def prepare(demosets: Sequence[DemoSet], out: Path) -> None:
        """Fit to the training episodes of all sets and write the folder ``out``."""
        about = {"name": Oracle.name, **Blocks.fit(demosets).as_json()}
        (out / "encoder.json").write_text(json.dumps(about, indent=1))

    def read(self, state: np.ndarray, task: np.ndarray) -> np.ndarray:
        """The blocks [B, T, width]."""
        return self.blocks.features(state, task)


class OracleWithImage(TrueState):
    """The oracle's features with an image encoder's behind them, per camera."""

    needs_images = True

    def __init__(self, oracle: Oracle, image: Encoder) -> None:
        super().__init__(oracle.cameras)
        self.oracle, self.image, self.std_floor = oracle, image, image.std_floor
        self.name = f"{oracle.name}+{image.name}"
        self.tasks, self.state_dim = oracle.tasks, oracle.state_dim
        self.feature_dim = oracle.feature_dim + image.feature_dim

    def features(self, obs: Observation) -> np.ndarray:
        """Both [B, T, C, width + d], float32."""
        seen = self.image.features(obs).astype(np.float32)
        return np.concatenate([self.oracle.features(obs), seen], axis=-1)
