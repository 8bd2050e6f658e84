"""The seconds of a run that was stopped between two validations and resumed."""

import pytest
import torch
from torch import nn

from compression_gap.nn import Interrupted, Schedule, training


def test_seconds_between_the_last_validation_and_the_stop_count(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: now[0])

    def loss(module, rows, rng):
        now[0] += 1.0  # a step takes one second
        return module(torch.ones(len(rows), 1))[:, 0] ** 2

    def run(**more):
        return training.train(
            nn.Linear(1, 1),
            loss,
            8,
            8,
            Schedule(40, 4, 1e-3, validations=2),
            validation_loss=lambda m, rows, rng: m(torch.ones(len(rows), 1))[:, 0] ** 2,
            seed=0,
            device=torch.device("cpu"),
            work=tmp_path,
            **more,
        )

    slept = 0.0
    for stop in (13, 17):  # in the first half, and once more before the second validation
        with pytest.raises(Interrupted):
            run(should_stop=lambda at=stop + slept: now[0] >= at)
        slept += 1000.0  # nobody trains meanwhile
        now[0] += 1000.0
    _, curve = run()
    assert curve.seconds == [20.0, 40.0]
