import numpy as np
import pytest
import torch
from torch import nn

from compression_gap.encoders.resnet18 import (
    FEATURE_DIM,
    CroppedResNet,
    ResNet18,
    SpatialSoftmax,
    crop,
    resnet18_trunk,
)
from compression_gap.sims import Observation


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CroppedResNet()


def images(n, size, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, size, size, 3), generator=g, dtype=torch.uint8)


def test_the_trunk_is_resnet18_without_its_classifier(network):
    """11,689,512 of the published network less the last layer's 512 · 1000 + 1000; group norms have as many."""
    assert sum(p.numel() for p in network.trunk.parameters()) == 11_689_512 - 513_000 == 11_176_512


def test_group_norms_alone(network):
    norms = [m for m in network.modules() if "Norm" in type(m).__name__]
    assert len(norms) == 20
    assert all(isinstance(m, nn.GroupNorm) and m.num_channels // m.num_groups == 16 for m in norms)
    assert list(network.buffers()) == []  # no running statistics, which an average of weights would not fit


def test_every_stage_halves_the_image():
    with torch.no_grad():
        out = resnet18_trunk()(torch.zeros(1, 3, 96, 64))
    assert out.shape == (1, 512, 3, 2)
    assert out.min() >= 0


def peak(h, w, y, x, height=1e4):
    image = torch.zeros(1, 1, h, w)
    image[0, 0, y, x] = height
    return image


@pytest.mark.parametrize(("y", "x"), [(0, 0), (0, 4), (2, 1), (1, 2)])
def test_spatial_softmax_of_a_peak_is_its_place(y, x):
    pool = SpatialSoftmax(1, 1)
    nn.init.ones_(pool.project.weight)
    found = pool(peak(3, 5, y, x))[0]
    torch.testing.assert_close(found, torch.tensor([x / 2 - 1, y - 1.0]))


def test_spatial_softmax_of_nothing_is_the_centre_and_of_two_peaks_their_middle():
    pool = SpatialSoftmax(1, 1)
    nn.init.ones_(pool.project.weight)
    torch.testing.assert_close(pool(torch.zeros(1, 1, 4, 6))[0], torch.zeros(2), atol=1e-6, rtol=0)
    two = peak(3, 5, 0, 0) + peak(3, 5, 0, 4)
    torch.testing.assert_close(pool(two)[0], torch.tensor([0.0, -1.0]))


def test_keypoints_come_as_all_x_then_all_y():
    pool = SpatialSoftmax(2, 2)
    with torch.no_grad():
        pool.project.weight.copy_(torch.eye(2)[:, :, None, None])
    x = torch.cat([peak(3, 3, 0, 2), peak(3, 3, 2, 1)], 1)
    torch.testing.assert_close(pool(x)[0], torch.tensor([1.0, 0.0, -1.0, 1.0]))


def test_the_centre_crop_is_the_centre():
    x = images(2, 20)
    assert torch.equal(crop(x, random=False), x[:, 1:19, 1:19])
    assert crop(images(1, 84), random=False).shape == (1, 76, 76, 3)


def test_random_crops_are_windows_each_at_a_place_of_its_own():
    y, x = torch.meshgrid(torch.arange(20), torch.arange(20), indexing="ij")
    address = torch.stack([y, x, torch.zeros_like(x)], -1).to(torch.uint8).expand(400, -1, -1, -1)
    torch.manual_seed(0)
    found = crop(address, random=True).long()
    top, left = found[:, 0, 0, 0], found[:, 0, 0, 1]
    assert torch.equal(found[..., 0], (top[:, None, None] + torch.arange(18)[:, None]).expand(-1, 18, 18))
    assert torch.equal(found[..., 1], (left[:, None, None] + torch.arange(18)).expand(-1, 18, 18))
    places = set(zip(top.tolist(), left.tolist(), strict=True))
    assert places == {(a, b) for a in range(3) for b in range(3)}  # every place, both edges included


def test_random_crops_repeat_with_their_seed_alone():
    x = images(8, 40)
    torch.manual_seed(1)
    first = crop(x, random=True)
    torch.manual_seed(1)
    assert torch.equal(crop(x, random=True), first)
    torch.manual_seed(2)
    assert not torch.equal(crop(x, random=True), first)


@torch.no_grad()
def test_eval_is_deterministic_and_training_crops(network):
    x = images(3, 48)
    network.eval()
    first = network(x)
    assert torch.equal(network(x), first)
    assert first.shape == (3, FEATURE_DIM)
    assert first.abs().max() <= 1
    network.train()
    torch.manual_seed(0)
    assert not torch.equal(network(x), network(x))


@torch.no_grad()
def test_an_image_does_not_depend_on_its_batch(network):
    x = images(3, 40)
    network.eval()
    torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-3, atol=1e-5)


def test_features_are_the_images_camera_by_camera():
    seen = {c: images(6, 8, seed=s).numpy().reshape(3, 2, 8, 8, 3) for s, c in enumerate(("front", "wrist"))}
    obs = Observation(images=seen, proprio=np.zeros((3, 2, 1), np.float32), task=np.zeros(3, np.int64))
    features = ResNet18().features(obs)
    assert features.dtype == np.uint8
    np.testing.assert_array_equal(features[:, :, 0], seen["front"])
    np.testing.assert_array_equal(features[:, :, 1], seen["wrist"])
