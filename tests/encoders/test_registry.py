import numpy as np
import pytest
import torch

from compression_gap.encoders import check_encoder, make_encoder, registry
from compression_gap.encoders.resnet18 import CroppedResNet
from compression_gap.errors import UserError


class Brightness:
    """An encoder from elsewhere: the mean of each image."""

    name, needs_images, frozen, std_floor, dtype = "brightness", True, True, 0.01, np.float16

    def __init__(self, cameras):
        self.cameras = cameras


class Entry:
    name = "brightness"

    @staticmethod
    def load():
        return Brightness


@pytest.fixture
def plugin(monkeypatch):
    def entry_points(*, group):
        return (Entry,) if group == "compression_gap.encoders" else ()

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    monkeypatch.setattr(registry, "entry_points", entry_points)


@pytest.mark.parametrize("name", ["blind", "oracle-2b", "resnet18", "retina-1", "retina-84"])
def test_own_names_are_known_and_made(name):
    check_encoder(name, image_size=84)
    assert make_encoder(name, cameras=1).name == name


@pytest.mark.parametrize(
    "act", [lambda n: check_encoder(n, image_size=84), lambda n: make_encoder(n, cameras=1)]
)
def test_an_unknown_name_lists_those_that_are_known(act):
    with pytest.raises(UserError) as error:
        act("resnet81")
    assert str(error.value) == (
        "unknown encoder 'resnet81' (did you mean 'resnet18'?); known: blind, dinov2-b, dinov2-l, dinov2-s, "
        "folder:PATH, hub:OWNER/NAME, oracle, oracle+retina-R, oracle-Bb, pose-K, resnet18, "
        "resnet18-imagenet, retina-R, siglip-base, siglip-so400m, siglip2-base, siglip2-so400m"
    )


@pytest.mark.parametrize("name", ["retina-R", "retina-", "retina-0", "retina--4", "retina-2.5", "retina-²"])
@pytest.mark.parametrize(
    "act", [lambda n: check_encoder(n, image_size=84), lambda n: make_encoder(n, cameras=1)]
)
def test_a_retina_needs_a_whole_number(act, name):
    with pytest.raises(UserError, match="needs a whole number of pixels, as in retina-16"):
        act(name)


def test_a_retina_finer_than_the_image():
    check_encoder("retina-32", image_size=32)
    with pytest.raises(UserError, match=r"'retina-33' is finer than the images \(32 px\).*retina-32 or less"):
        check_encoder("retina-33", image_size=32)


@torch.no_grad()
def test_resnet18_is_refused_exactly_where_it_is_blind():
    """One cell in the last feature map: the keypoints then lie at one place, whatever the image shows."""
    torch.manual_seed(0)
    network = CroppedResNet().eval()
    check_encoder("resnet18", image_size=37)
    with pytest.raises(UserError, match=r"blind at 36 px .*37 or more"):
        check_encoder("resnet18", image_size=36)
    spread = {
        size: network(torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8)).std(0).max().item()
        for size in (36, 37)
    }
    assert spread[36] == 0
    assert spread[37] > 0


@pytest.mark.usefixtures("plugin")
def test_an_entry_point_is_an_encoder_like_any_other():
    check_encoder("brightness", image_size=8)
    made = make_encoder("brightness", cameras=3)
    assert isinstance(made, Brightness)
    assert made.cameras == 3
    assert registry.names()[-1] == "brightness"
    assert not registry.is_trained("brightness")
    with pytest.raises(UserError, match="known: blind, brightness, dinov2-b"):
        check_encoder("dark", image_size=8)


def test_without_the_entry_point_the_name_is_unknown():
    with pytest.raises(UserError, match="unknown encoder 'brightness'"):
        check_encoder("brightness", image_size=8)


@pytest.mark.parametrize(
    ("name", "dim"), [("blind", 1), ("oracle-2b", 0), ("retina-5", 75), ("resnet18", 64)]
)
def test_an_encoder_says_how_long_its_features_are(name, dim):
    """0: as many as the simulator's state has."""
    assert make_encoder(name, cameras=2).feature_dim == dim
