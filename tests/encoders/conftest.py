"""Small checkpoints of every family, as a user would have them: written by transformers, random weights."""

import json

import numpy as np
import pytest
import torch

from compression_gap.sims import Observation

VIT = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# family → (configuration, model, its settings, its preprocessor_config.json)
FAMILIES = {
    "resnet": (
        "ResNetConfig",
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 1, 2], "layer_type": "basic"},
        {"crop_pct": 0.875, "resample": 3, "size": 64, **IMAGENET},
    ),
    "siglip": (
        "SiglipVisionConfig",
        "SiglipVisionModel",
        {**VIT, "image_size": 32, "patch_size": 8},
        {"size": {"height": 32, "width": 32}, "resample": 2, "rescale_factor": 1 / 255},
    ),
    "siglip2": (
        "Siglip2VisionConfig",
        "Siglip2VisionModel",
        {**VIT, "num_patches": 16, "patch_size": 8},
        None,
    ),
    "dinov2": (
        "Dinov2Config",
        "Dinov2Model",
        {**VIT, "mlp_ratio": 2, "image_size": 70, "patch_size": 14},
        {"size": {"shortest_edge": 48}, "crop_size": {"height": 42, "width": 42}, "resample": 3, **IMAGENET},
    ),
    "dinov2-registers": (
        "Dinov2WithRegistersConfig",
        "Dinov2WithRegistersModel",
        {**VIT, "mlp_ratio": 2, "image_size": 42, "patch_size": 14, "num_register_tokens": 4},
        {"size": {"height": 42, "width": 42}, "resample": 3, **IMAGENET},
    ),
}


def write_checkpoint(family, folder, *, model=None):
    """A checkpoint folder of that family; returns the library's model."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config, kind, settings, images = FAMILIES[family]
    torch.manual_seed(1)
    if model is None:
        model = getattr(transformers, kind)(getattr(transformers, config)(**settings)).eval()
        with torch.no_grad():  # away from the zeros and ones that a new model starts with
            for p in (*model.parameters(), *model.buffers()):
                if p.is_floating_point():
                    p.add_(0.1 * torch.rand_like(p))
            if family == "resnet":  # batch statistics that fit the weights, as training would leave them
                model.train()
                for _ in range(40):
                    model(torch.randn(8, 3, 64, 64))
                model.eval()
    model.save_pretrained(folder)
    if images is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(images))
    return model


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """Family → (folder, the library's model)."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {f: (root / f, write_checkpoint(f, root / f)) for f in FAMILIES}


def pictures(*shape, seed=0):
    """Smooth random images uint8 [*shape, 3]."""
    *lead, h, w = shape
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (int(np.prod(lead)), 3, 6, 6)))
    fine = torch.nn.functional.interpolate(coarse, (h, w), mode="bilinear").numpy()
    fine = np.clip(fine + rng.normal(0, 8, fine.shape), 0, 255).astype(np.uint8)
    return fine.transpose(0, 2, 3, 1).reshape(*lead, h, w, 3)


def observe(images):
    """An observation of these images: camera → uint8 [B, T, h, w, 3]."""
    b, t = next(iter(images.values())).shape[:2]
    return Observation(images=images, proprio=np.zeros((b, t, 1), np.float32), task=np.zeros(b, np.int64))
