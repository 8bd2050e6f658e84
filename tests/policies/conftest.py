"""A reach task on the plane, and a tokenizer that needs no fitting."""

import json

import numpy as np
import pytest
import torch

from compression_gap.demos import DemoSet, DemoWriter
from compression_gap.sims import Observation
from compression_gap.tokenizers import Decoded, Tokens
from compression_gap.tokenizers.registry import TOKENIZERS, TokenizerEntry

EDGE, CODES = 2.25, 9


class Grid:
    """One token per action dimension: the chunk's mean on a grid of nine values from −2.25 to 2.25."""

    name, horizon, action_dim, codebook_sizes = "grid", 4, 2, (CODES, CODES)

    def encode(self, chunks):
        means = np.asarray(chunks).mean(1)
        ids = np.clip(np.rint((means + EDGE) / (2 * EDGE) * (CODES - 1)), 0, CODES - 1).astype(np.int64)
        return Tokens(ids, np.full(len(ids), 2))

    def decode(self, tokens):
        values = (tokens.ids / (CODES - 1) * 2 * EDGE - EDGE).astype(np.float32)
        return Decoded(np.repeat(values[:, None], self.horizon, 1), np.ones(len(values), bool))

    def save(self, folder):
        (folder / "tokenizer.json").write_text(json.dumps({"name": self.name}))

    @classmethod
    def load(cls, folder):
        return cls()


@pytest.fixture(scope="module", autouse=True)
def processor():
    """Numbers are compared bit by bit, with generators of the processor: no accelerator, where there is one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        yield


@pytest.fixture
def grid(monkeypatch):
    monkeypatch.setitem(TOKENIZERS.own, "grid", TokenizerEntry(Grid))
    return Grid()


@pytest.fixture(scope="session")
def reach(tmp_path_factory):
    """100 episodes of six frames: the arm goes to a goal that images and state show, proprioception not."""
    folder, rng = tmp_path_factory.mktemp("reach"), np.random.default_rng(0)
    writer = DemoWriter(folder, source={})
    for episode in range(100):
        goal, arm, seen, actions = rng.uniform(-1, 1, 2), rng.uniform(-1, 1, 2), [], []
        image = np.zeros((40, 40, 3), np.uint8)
        y, x = np.round(17 + 16 * goal).astype(int)
        image[y : y + 6, x : x + 6] = 255
        for _ in range(6):
            seen.append(
                Observation(
                    images={"front": image[None, None]},
                    proprio=arm[None, None].astype(np.float32),
                    task=np.zeros(1, np.int64),
                    state=goal[None, None].astype(np.float32),
                )
            )
            actions.append(0.05 * (goal - arm))
            arm = arm + actions[-1]
        writer.add("reach", episode, seen, actions)
    writer.close()
    return DemoSet.load(folder)
