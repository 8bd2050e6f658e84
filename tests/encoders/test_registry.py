import numpy as np
import pytest
import torch

from compression_gap.encoders import check_encoder, make_encoder, registry
from compression_gap.encoders.registry import EncoderEntry
from compression_gap.encoders.resnet18 import CroppedResNet
from compression_gap.errors import UserError


class Brightness:
    """An encoder from elsewhere: the mean of each image."""

    name, needs_images, frozen, std_floor, dtype = "brightness", True, True, 0.01, np.float16

    def __init__(self, asked):
        self.cameras = asked.cameras


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


def test_an_entry_point_is_an_encoder_like_any_other(plug_in):
    plug_in("encoders", "brightness", EncoderEntry(Brightness))
    check_encoder("brightness", image_size=8)
    made = make_encoder("brightness", cameras=3)
    assert isinstance(made, Brightness)
    assert made.cameras == 3
    assert registry.names()[-1] == "brightness"
    assert not registry.is_trained("brightness")
    with pytest.raises(UserError, match="known: blind, brightness, dinov2-b"):
        check_encoder("dark", image_size=8)


def test_a_family_of_another_package_says_which_names_are_its_own_and_what_it_checks(plug_in):
    def check(name, setting):
        if setting.image_size < 8:
            raise UserError(f"{name} needs 8 px")

    family = EncoderEntry(
        Brightness,
        r"brightness-\d+",
        ("brightness-N",),
        check,
        prepared=True,
        trained=lambda n: n.endswith("0"),
    )
    plug_in("encoders", "brightness-N", family)
    assert registry.names()[-1] == "brightness-N"
    for name, trained in (("brightness-10", True), ("brightness-3", False)):
        assert (registry.is_prepared(name), registry.is_trained(name)) == (True, trained)
        check_encoder(name, image_size=8)
        with pytest.raises(UserError, match=f"{name} needs 8 px"):
            check_encoder(name, image_size=7)
    with pytest.raises(UserError, match="unknown encoder 'brightness-x'"):
        check_encoder("brightness-x", image_size=8)


@pytest.mark.parametrize(
    ("names", "limit", "prepared", "trained", "scaled_state"),
    [
        (["blind"], True, False, False, False),
        (["oracle", "oracle+retina-8"], True, True, False, True),
        (["oracle-2b", "retina-8", "dark"], False, False, False, False),
        (["pose-1k", "siglip-base", "hub:a/b", "folder:/x+y"], False, True, False, False),
        (["dinov2-s+finetune", "folder:/x+finetune2"], False, True, True, False),
        (["resnet18"], False, False, True, False),
    ],
)
def test_what_the_registry_says_of_each(names, limit, prepared, trained, scaled_state):
    """Of names that are not known it says nothing: ``check_encoder`` refuses them."""
    for name in names:
        found = [
            f(name)
            for f in (
                registry.is_limit,
                registry.is_prepared,
                registry.is_trained,
                registry.reads_scaled_state,
            )
        ]
        assert found == [limit, prepared, trained, scaled_state], name


def test_without_the_entry_point_the_name_is_unknown():
    with pytest.raises(UserError, match="unknown encoder 'brightness'"):
        check_encoder("brightness", image_size=8)


@pytest.mark.parametrize(
    ("name", "dim"), [("blind", 1), ("oracle-2b", 0), ("retina-5", 75), ("resnet18", 64)]
)
def test_an_encoder_says_how_long_its_features_are(name, dim):
    """0: as many as the simulator's state has."""
    assert make_encoder(name, cameras=2).feature_dim == dim
