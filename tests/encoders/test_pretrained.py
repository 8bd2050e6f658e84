import copy
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from compression_gap.encoders import make_encoder
from compression_gap.encoders.base import ContextAdapter
from compression_gap.encoders.checkpoints import prepare_pretrained, resolve
from compression_gap.encoders.pin import Pin
from compression_gap.encoders.pretrained import BATCH, Pretrained, load_network, preprocess
from compression_gap.errors import UserError
from compression_gap.nn import EMA

from .conftest import FAMILIES, observe, pictures, write_checkpoint


@pytest.fixture
def make(tmp_path):
    """The encoder of a name, by way of its prepared folder."""

    def make(name, cameras=1):
        folder = tmp_path / "prepared"
        folder.mkdir(exist_ok=True)
        prepare_pretrained(resolve(name), folder)
        return make_encoder(name, cameras=cameras, folder=folder)

    return make


@torch.no_grad()
def library_tokens(family, model, pixels):
    """What the library's own model says of pixel values: patch tokens [M, grid, grid, d]."""
    m, _, size, _ = pixels.shape
    if family == "resnet":
        return model.resnet(pixels).last_hidden_state.permute(0, 2, 3, 1)
    if family == "siglip2":  # patches cut by hand
        patches = [
            torch.stack(
                [
                    p[:, y : y + 8, x : x + 8].permute(1, 2, 0).flatten()
                    for y in range(0, size, 8)
                    for x in range(0, size, 8)
                ]
            )
            for p in pixels
        ]
        side = size // 8
        tokens = model(
            pixel_values=torch.stack(patches),
            pixel_attention_mask=torch.ones(m, side**2, dtype=torch.long),
            spatial_shapes=torch.tensor([[side, side]] * m),
        ).last_hidden_state
    else:
        tokens = model(pixels).last_hidden_state[
            :, {"siglip": 0, "dinov2": 1, "dinov2-registers": 5}[family] :
        ]
    side = int(tokens.shape[1] ** 0.5)
    return tokens.reshape(m, side, side, -1)


GRID = {"resnet": 2, "siglip": 4, "siglip2": 4, "dinov2": 3, "dinov2-registers": 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_features_are_the_means_of_the_librarys_patch_tokens(family, checkpoints, make):
    folder, model = checkpoints[family]
    encoder = make(f"folder:{folder}", cameras=2)
    images = {c: pictures(3, 2, 40, 40, seed=s) for s, c in enumerate(("front", "wrist"))}
    found = encoder.features(observe(images))
    assert found.dtype == np.float32
    assert found.shape == (3, 2, 2, encoder.feature_dim)
    for c, seen in enumerate(images.values()):
        pixels = preprocess(torch.from_numpy(seen.reshape(6, 40, 40, 3)), encoder.pin)
        tokens = library_tokens(family, model, pixels)
        assert tokens.shape[1:3] == (GRID[family],) * 2 == (encoder.pin.grid,) * 2
        want = tokens.mean((1, 2)).numpy().reshape(3, 2, -1)
        assert want.std(0).max() > 1e-3  # the images differ, and so do their features
        np.testing.assert_allclose(found[:, :, c], want, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_patches_are_pooled_region_by_region(family, checkpoints, make):
    folder, model = checkpoints[family]
    encoder = make(f"folder:{folder}+patches2")
    seen = pictures(2, 1, 50, 50)
    tokens = library_tokens(family, model, preprocess(torch.from_numpy(seen[:, 0]), encoder.pin))
    n = tokens.shape[1]
    halves = (slice(0, -(-n // 2)), slice(n // 2, n))  # an odd grid's middle belongs to both
    want = torch.stack([tokens[:, y, x].mean((1, 2)) for y in halves for x in halves], 1)
    found = encoder.features(observe({"front": seen}))
    assert encoder.feature_dim == 4 * want.shape[-1]
    np.testing.assert_allclose(found[:, 0, 0], want.flatten(1).numpy(), rtol=1e-4, atol=2e-5)


def test_cameras_of_other_sizes_and_more_rows_than_a_batch(checkpoints, make):
    encoder = make(f"folder:{checkpoints['siglip'][0]}", cameras=2)
    images = {"front": pictures(BATCH, 1, 40, 40), "wrist": pictures(BATCH, 1, 24, 36, seed=1)}
    found = encoder.features(observe(images))
    for row in (0, BATCH // 2 - 1, BATCH // 2, BATCH - 1):
        alone = encoder.features(observe({c: a[row : row + 1] for c, a in images.items()}))
        np.testing.assert_allclose(found[row : row + 1], alone, rtol=1e-4, atol=2e-5)
    assert np.abs(found[:, 0, 0] - found[:, 0, 1]).max() > 1e-2


# Preprocessing


def pin_of(size, resample, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)):
    return Pin(encoder="any", source={}, model_type="dinov2", config={}, feature_dim=1, grid=1, blocks=1,
               patches=1, finetune=None, image_size=size, resample=resample, mean=mean, std=std)  # fmt: skip


def test_images_of_the_models_size_are_rescaled_alone():
    images = pictures(2, 24, 24)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = preprocess(torch.from_numpy(images), pin_of(24, "bicubic", mean, std)).numpy()
    want = (images / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found, want.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("size", "to"), [((84, 84), 224), ((128, 128), 56), ((60, 90), 48), ((128, 128), 224)]
)
@pytest.mark.parametrize(("resample", "number"), [("bilinear", 2), ("bicubic", 3)])
def test_resizing_is_pillows(size, to, resample, number):
    """All levels are Pillow's but for ties, which fall one way here and another there.

    Noise, as no camera makes it, has the most of them; bilinear weights are simple fractions and tie more often.
    """
    image = pytest.importorskip("PIL.Image")
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    found = preprocess(torch.from_numpy(images), pin_of(to, resample)).permute(0, 2, 3, 1).numpy()
    levels = (found + 1) * 127.5
    want = np.stack([np.asarray(image.fromarray(i).resize((to, to), number)) for i in images]).astype(float)
    apart = np.abs(levels - want)
    assert apart.max() < 2.01
    assert (apart > 0.01).mean() < (0.15 if resample == "bilinear" else 0.01)


def test_pixel_values_are_those_of_the_librarys_processor(checkpoints, make):
    """With its crop switched off, for here every encoder sees the whole image."""
    pytest.importorskip("PIL")
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    kinds = {
        "dinov2": BitImageProcessorPil,
        "siglip": SiglipImageProcessorPil,
        "resnet": BitImageProcessorPil,
    }
    images = pictures(2, 40, 40)
    for family, kind in kinds.items():
        folder = checkpoints[family][0]
        pin = make(f"folder:{folder}").pin
        side = {"height": pin.image_size, "width": pin.image_size}
        processor = kind.from_pretrained(str(folder), size=side, do_center_crop=False)
        want = processor(list(images), return_tensors="pt")["pixel_values"]
        apart = (preprocess(torch.from_numpy(images), pin) - want).abs()
        level = 1 / (255 * min(pin.std))
        assert apart.max() < 1.01 * level
        assert (apart > 0.01 * level).float().mean() < 0.1


def test_bright_edges_do_not_overshoot():
    """Bicubic weights are negative in places; pixel values stay between black and white."""
    images = np.zeros((1, 8, 8, 3), np.uint8)
    images[:, :, 4:] = 255
    found = preprocess(torch.from_numpy(images), pin_of(32, "bicubic"))
    assert found.min() == -1
    assert found.max() == 1


# Trained with the policy


@pytest.mark.parametrize(
    ("suffix", "trained"),
    [
        ("+finetune1", ("encoder.layers.2.", "post_layernorm.")),
        ("+finetune2", ("encoder.layers.1.", "encoder.layers.2.", "post_layernorm.")),
        ("+finetune", ("embeddings.", "encoder.", "post_layernorm.")),
    ],
)
def test_the_last_blocks_alone_are_trained(suffix, trained, checkpoints, make):
    encoder = make(f"folder:{checkpoints['siglip'][0]}{suffix}")
    network = encoder.network()
    network(torch.from_numpy(pictures(4, 40, 40))).square().sum().backward()
    moved = {n for n, p in network.model.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    allowed = {n for n, p in network.model.named_parameters() if p.requires_grad}
    assert allowed == {n for n, _ in network.model.named_parameters() if n.startswith(trained)}
    # a key's bias shifts all scores of a row alike: softmax does not see it, and its gradient is but rounding
    assert moved | {n for n in allowed if n.endswith("k_proj.bias")} == allowed


@pytest.mark.parametrize(
    ("family", "last"),
    [
        ("dinov2", ("encoder.layer.2.", "layernorm.")),
        ("dinov2-registers", ("encoder.layer.2.", "layernorm.")),
        ("siglip2", ("encoder.layers.2.", "post_layernorm.")),
        ("resnet", ("encoder.stages.3.layers.1.",)),
    ],
)
def test_the_last_block_of_each_family(family, last, checkpoints, make):
    network = make(f"folder:{checkpoints[family][0]}+finetune1").network()
    trained = {n for n, p in network.model.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in network.model.named_parameters() if n.startswith(last)}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_network_gives_the_frozen_features(family, checkpoints, make):
    folder = checkpoints[family][0]
    seen = pictures(3, 1, 40, 40)
    trained = make(f"folder:{folder}+patches2+finetune1")
    assert not trained.frozen
    images = trained.features(observe({"front": seen}))
    np.testing.assert_array_equal(images[:, :, 0], seen)
    assert images.dtype == trained.dtype == np.uint8
    with torch.no_grad():
        found = trained.network()(torch.from_numpy(images[:, 0, 0]))
    assert found.shape == (3, trained.feature_dim)
    frozen = make(f"folder:{folder}+patches2")
    assert frozen.network() is None
    np.testing.assert_allclose(
        frozen.features(observe({"front": seen}))[:, 0, 0], found, rtol=1e-4, atol=2e-5
    )


def test_batch_statistics_stay_in_training(checkpoints, make):
    network = make(f"folder:{checkpoints['resnet'][0]}+finetune").network()
    before = copy.deepcopy(dict(network.named_buffers()))
    network.train()
    assert not any(m.training for m in network.modules())
    network(torch.from_numpy(pictures(4, 40, 40)))
    assert all(torch.equal(before[n], b) for n, b in network.named_buffers())


def test_a_policys_adapter_trains_it_slowly_and_leaves_the_rest(checkpoints, make):
    """The adapter's networks are the encoder's parameter group; frozen layers keep their bits, and so does EMA's copy."""
    encoder = make(f"folder:{checkpoints['dinov2'][0]}+finetune1", cameras=2)
    torch.manual_seed(0)
    adapter = ContextAdapter(
        encoder,
        cameras=2,
        feature_dim=encoder.feature_dim,
        proprio_dim=1,
        tasks=1,
        n_obs_steps=1,
        width=8,
    )
    before, ema = copy.deepcopy(adapter.state_dict()), EMA(adapter)
    optimizer = torch.optim.AdamW(adapter.networks.parameters(), lr=1e-2, weight_decay=0.1, fused=True)
    images = encoder.features(observe({c: pictures(4, 1, 40, 40, seed=s) for s, c in enumerate("ab")}))
    for step in range(2):
        tokens = adapter(torch.from_numpy(images), torch.zeros(4, 1, 1), torch.zeros(4, dtype=torch.long))
        tokens.square().mean().backward()
        nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
        optimizer.step()
        ema.update(adapter, step + 1)
    for name, value in adapter.state_dict().items():
        if not name.startswith("networks."):
            continue
        trains = ".encoder.layer.2." in name or ".model.layernorm." in name
        assert torch.equal(value, before[name]) != trains, name
        if not trains:
            assert torch.equal(ema.average.state_dict()[name], value), name


# The checkpoint


def test_a_whole_siglip_gives_what_its_vision_tower_gives(checkpoints, make, tmp_path):
    """Hub checkpoints of SigLIP hold a text tower, too; it is not loaded."""
    import transformers

    vision = FAMILIES["siglip"][2]
    text = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(2)
    model = transformers.SiglipModel(
        transformers.SiglipConfig(
            vision_config=vision, text_config={**text, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
        )
    ).eval()
    write_checkpoint("siglip", tmp_path / "both", model=model)
    encoder = make(f"folder:{tmp_path / 'both'}")
    assert encoder.pin.model_type == "siglip"
    seen = pictures(2, 1, 32, 32)
    pixels = preprocess(torch.from_numpy(seen[:, 0]), encoder.pin)
    want = library_tokens("siglip", model.vision_model, pixels).mean((1, 2))
    np.testing.assert_allclose(encoder.features(observe({"a": seen}))[:, 0, 0], want, rtol=1e-4, atol=2e-5)
    assert not [n for n, _ in load_network(encoder.pin).named_parameters() if "text" in n or "head" in n]


def test_a_policy_can_bring_its_own_weights(checkpoints, make):
    """Without the checkpoint's weights the network has the same shape, and takes the saved ones."""
    encoder = make(f"folder:{checkpoints['resnet'][0]}+finetune")
    trained, blank = encoder.network(), encoder.network(weights=False)
    images = torch.from_numpy(pictures(2, 40, 40))
    with torch.no_grad():
        assert not torch.allclose(blank(images), trained(images), rtol=1e-2)
        blank.load_state_dict(trained.state_dict())
        assert torch.equal(blank(images), trained(images))


def test_a_checkpoint_that_changed_is_not_used(make, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "mine"
    write_checkpoint("dinov2", folder)
    encoder = make(f"folder:{folder}")
    first = resolve(f"folder:{folder}")
    weights = load_file(folder / "model.safetensors")
    weights["layernorm.bias"] += 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=r"mine has changed or gone since it was prepared; put the files back, or run"
    ):
        encoder.features(observe({"a": pictures(1, 1, 8, 8)}))
    changed = resolve(f"folder:{folder}")  # the study that is run again makes other artefacts
    assert changed != first
    assert replace(changed, source=first.source) == first


def test_a_checkpoint_that_lost_weights_is_not_filled_with_random_ones(make, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "mine"
    write_checkpoint("dinov2", folder)
    weights = load_file(folder / "model.safetensors")
    gone = next(n for n in sorted(weights) if n.endswith("layer.1.mlp.fc1.weight"))
    del weights[gone]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UserError, match=rf"lacks 1 of the weights \(first: .*{gone[-20:]}\); take a complete copy"
    ):
        make(f"folder:{folder}").features(observe({"a": pictures(1, 1, 8, 8)}))


def test_weights_that_are_no_weights(make, tmp_path):
    folder = tmp_path / "mine"
    write_checkpoint("dinov2", folder)
    (folder / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0 not a header, no.")
    with pytest.raises(UserError, match=r"its weights cannot be read .*take another copy"):
        make(f"folder:{folder}").features(observe({"a": pictures(1, 1, 8, 8)}))


def test_the_prepared_folder_is_the_pin_alone(checkpoints, tmp_path):
    name = f"folder:{checkpoints['dinov2'][0]}+patches3"
    pin = resolve(name)
    prepare_pretrained(pin, tmp_path)
    assert [f.name for f in tmp_path.iterdir()] == ["encoder.json"]
    assert json.loads((tmp_path / "encoder.json").read_text()) == asdict(pin)
    assert Pretrained(tmp_path).name == name
    with pytest.raises(ValueError, match="was prepared for encoder"):
        make_encoder("dinov2-s", cameras=1, folder=tmp_path)
    with pytest.raises(ValueError, match="made from its prepared folder"):
        make_encoder("dinov2-s", cameras=1)
    for wrong in ({}, {**asdict(pin), "finetune": 0.5}, {**asdict(pin), "feature_dim": 0}):
        (tmp_path / "encoder.json").write_text(json.dumps(wrong))
        with pytest.raises(
            UserError, match=r"holds no prepared encoder \(encoder.json\): run the study again"
        ):
            Pretrained(tmp_path)
