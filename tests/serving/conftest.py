"""Small policies to serve, untrained: what they answer is compared with what they do, bit by bit."""

import numpy as np
import pytest
import torch

from compression_gap.demos import Normaliser
from compression_gap.policies import Policy
from compression_gap.policies.policy import PolicyModule, PolicySpec
from plain_state import oracle_folder

FEATURES = {"retina-2": 12, "oracle": 6, "blind": 1}


def make_policy(encoder="retina-2", *, n_obs_steps=2, tasks=("reach-v3", "pick-place-v3")):
    normaliser = Normaliser.fit(np.random.default_rng(0).normal([1, -2], [0.1, 5], (500, 2)))
    spec = PolicySpec(
        sim="plane",
        encoder=encoder,
        head="diffusion",
        size="xs",
        horizon=4,
        n_obs_steps=n_obs_steps,
        tasks=tasks,
        cameras=("wrist", "front"),
        image_size=8,
        feature_dim=FEATURES[encoder],
        proprio_dim=5,
        action_dim=2,
        options={"sampling_steps": 2},
    )
    torch.manual_seed(0)
    prepared = oracle_folder(3, tasks) if encoder == "oracle" else None
    return Policy(spec, PolicyModule(spec, normaliser, None, prepared), normaliser, None)


@pytest.fixture(scope="package", autouse=True)
def processor():
    """Numbers are compared bit by bit, with generators of the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture(scope="package")
def policy():
    """Sees two cameras and two steps; knows two tasks."""
    return make_policy()


@pytest.fixture(scope="package")
def made():
    """``make_policy``."""
    return make_policy


@pytest.fixture(scope="package")
def frame():
    """Observations of one step, as a client sends them: ``frame(n)`` differs with n."""

    def make(n=0, **more):
        rng = np.random.default_rng(n)
        return {
            "images": {c: rng.integers(0, 256, (8, 8, 3), np.uint8) for c in ("front", "wrist")},
            "proprio": rng.normal(size=5).astype(np.float32),
            "task": "reach-v3",
            **more,
        }

    return make


@pytest.fixture(scope="package")
def acted():
    """What a policy does on the frames that it should have seen (oldest first)."""
    from compression_gap.sims import Observation

    def act(policy, frames, seed, task=0):
        asked = Observation(
            images={c: np.stack([f["images"][c] for f in frames])[None] for c in policy.spec.cameras},
            proprio=np.stack([f["proprio"] for f in frames])[None],
            task=np.array([task]),
        )
        return policy.act(asked, np.array([seed])).chunk[0]

    return act
