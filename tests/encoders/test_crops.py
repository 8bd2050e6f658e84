"""Crops: the same centre for every encoder, or none, or each encoder's habit; nothing else changes."""

import re

import numpy as np
import pytest
import torch

from compression_gap.encoders import make_encoder
from compression_gap.encoders.checkpoints import prepare_pretrained, resolve
from compression_gap.encoders.crops import Crop, centre
from compression_gap.encoders.registry import check_encoder, crop_of
from compression_gap.errors import UserError

from .conftest import observe, pictures

ALL = crop_of("retina-4", Crop("all"))


def test_the_centre_is_what_resnet18_sees_when_it_does_not_train():
    from compression_gap.encoders.resnet18 import crop

    for size, share, side in ((84, 0.9, 76), (128, 0.9, 115), (128, 0.59375, 76), (33, 1.0, 33)):
        image = pictures(2, size, size)
        found = centre(image, share)
        assert found.shape == (2, side, side, 3)
        expected = crop(torch.from_numpy(image), random=False, share=share)
        np.testing.assert_array_equal(found, expected.numpy())


@pytest.mark.parametrize("name", ["retina-4", "resnet18"])
def test_the_rim_is_seen_exactly_where_it_is_not_cropped(name):
    """With the same crop for all, what lies outside of it changes no feature; with none it does."""
    torch.manual_seed(0)
    inside = np.ascontiguousarray(pictures(1, 1, 40, 40))
    outside = inside.copy()
    outside[..., :2, :, :] = 255
    seen = [observe({"a": x, "b": x[:, :, ::-1]}) for x in (inside, outside)]
    for mode, blind in (("all", True), ("none", False)):
        encoder = make_encoder(name, cameras=2, crop=crop_of(name, Crop(mode)))
        a, b = (encoder.features(o) for o in seen)
        if name == "resnet18":
            network = encoder.network().train()  # no random crop either
            a, b = (network(torch.from_numpy(x[:, 0, 0].copy())).detach().numpy() for x in (a, b))
        assert np.array_equal(a, b) == blind


def test_cropped_features_are_those_of_the_cropped_image():
    image = pictures(3, 2, 40, 40)
    cropped = make_encoder("retina-4", cameras=1, crop=ALL)
    plain = make_encoder("retina-4", cameras=1)
    np.testing.assert_array_equal(
        cropped.features(observe({"a": image})), plain.features(observe({"a": image[:, :, 2:38, 2:38]}))
    )
    assert (cropped.name, cropped.frozen, cropped.feature_dim) == (plain.name, True, plain.feature_dim)
    assert (cropped.dtype, cropped.std_floor) == (plain.dtype, plain.std_floor)


@pytest.mark.parametrize("suffix", ["", "+finetune"])
def test_pretrained_encoders_see_the_same_centre(checkpoints, tmp_path, suffix):
    name = f"folder:{checkpoints['dinov2'][0]}{suffix}"
    prepare_pretrained(resolve(name), tmp_path)
    image = pictures(1, 1, 60, 60)
    cropped, plain = (make_encoder(name, cameras=1, folder=tmp_path, crop=c) for c in (ALL, None))
    found = cropped.features(observe({"a": image}))
    np.testing.assert_array_equal(found, plain.features(observe({"a": image[:, :, 3:57, 3:57]})))
    assert (cropped.network() is None) == (suffix == "")


@torch.no_grad()
def test_resnet18_by_default_crops_at_random_in_training_alone():
    network = make_encoder("resnet18", cameras=1).network()
    image = torch.from_numpy(pictures(1, 60, 60))
    torch.manual_seed(1)
    assert not torch.equal(network.train()(image), network(image))
    assert torch.equal(network.eval()(image), network(image))


@pytest.mark.parametrize(
    ("mode", "share", "encoder", "said"),
    [
        ("resnet-only", 0.9, "resnet18", None),
        ("resnet-only", 0.9, "retina-4", None),
        ("resnet-only", 0.5, "retina-4", None),
        ("resnet-only", 0.5, "resnet18", {"mode": "resnet-only", "share": 0.5}),
        ("none", 0.9, "resnet18", {"mode": "none"}),
        ("none", 0.5, "resnet18", {"mode": "none"}),
        ("none", 0.9, "siglip-base", None),
        ("all", 0.9, "resnet18", {"mode": "all", "share": 0.9}),
        ("all", 0.8, "siglip-base+finetune", {"mode": "all", "share": 0.8}),
        ("all", 0.9, "blind", None),
        ("all", 0.9, "oracle", None),
        ("all", 0.9, "oracle-3b", None),
        ("all", 0.9, "oracle+retina-4", {"mode": "all", "share": 0.9}),
        ("none", 0.9, "oracle+retina-4", None),
    ],
)
def test_a_specification_says_of_a_crop_what_changes_the_images(mode, share, encoder, said):
    assert crop_of(encoder, Crop(mode, share)) == said
    if said is not None:
        assert crop_of(encoder, Crop.read(said)) == said
        assert Crop.read(said).mode == mode


def test_limits_are_never_cropped():
    seen = observe({"a": pictures(1, 1, 20, 20)})
    assert type(make_encoder("blind", cameras=1, crop=ALL)) is type(make_encoder("blind", cameras=1))
    assert make_encoder("blind", cameras=1, crop=ALL).features(seen).shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "size", "crop", "words"),
    [
        ("retina-30", 32, Crop("all"), "finer than the images (29 px after cropping): take retina-29 or less"),
        ("resnet18", 50, Crop(share=0.5), "blind at 50 px (its last feature map is one cell): raise cameras.image_size to 66"),
        ("resnet18", 32, Crop("none"), "raise cameras.image_size to 33"),
        ("pose-100", 84, Crop("all"), "pose-100 is pretrained on whole images, and cameras.crop is 'all'"),
    ],
)  # fmt: skip
def test_what_a_crop_makes_too_small_is_a_sentence(name, size, crop, words):
    with pytest.raises(UserError, match=re.escape(words)):
        check_encoder(name, image_size=size, crop=crop)


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(UserError, match=r"unknown crop 'centre'; known: all, none, resnet-only"):
        make_encoder("retina-4", cameras=1, crop={"mode": "centre", "share": 0.9})
