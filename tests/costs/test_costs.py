"""Costs from shapes, against the modules themselves: parameters counted, operations counted while they run."""

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compression_gap.costs.costs import Shape, policy_costs
from compression_gap.costs.encoders import RESNET18_PARAMETERS, TOWERS, encoder_costs, tower_of_pin
from compression_gap.demos import Normaliser
from compression_gap.encoders import checkpoints, pose, pretrained
from compression_gap.encoders.crops import Crop
from compression_gap.encoders.pin import Pin
from compression_gap.policies.base import Target
from compression_gap.policies.policy import Policy, PolicyModule, PolicySpec
from compression_gap.tokenizers import make_tokenizer
from plain_state import oracle_folder

H, D, T, CAMERAS, PIXELS, PROPRIO, STATE, TASKS = 8, 3, 2, 2, 40, 4, 5, 3
FEATURES = {
    "retina-2": 12,
    "blind": 1,
    "oracle": STATE * TASKS,
    "oracle+retina-2": STATE * TASKS + 12,
    "resnet18": 64,
}
OAT = {"tokens": 4, "levels": [[8, 5]], "size": "xs"}


@pytest.fixture(scope="module")
def chunks():
    return np.cumsum(np.random.default_rng(0).normal(size=(300, H, D)), 1).astype(np.float32)


def fitted(name, options, chunks):
    made, valid = make_tokenizer(name, **options), np.ones(chunks.shape[:2], bool)
    how = {"seed": 0, "steps": 1, "batch_size": 8, "lr": 1e-3} if "size" in options else {}
    made.fit(chunks, valid, validation=(chunks[:20], valid[:20]), **how)
    return made


def counted(run):
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        run()
    return counter.get_total_flops()


def step_flops(module, shape, batch):
    """Of a forward and backward pass, as they are counted while they run."""
    pictures = (PIXELS, PIXELS, 3) if shape.encoder == "resnet18" else (FEATURES[shape.encoder],)
    features = torch.zeros(batch, T, CAMERAS, *pictures, dtype=torch.uint8 if len(pictures) > 1 else None)
    tokens = shape.codes[0] if shape.codes else 0
    target = Target(
        chunk=torch.zeros(batch, H, D),
        valid=torch.ones(batch, H, dtype=torch.bool),
        tokens=torch.zeros(batch, tokens, dtype=torch.int64),
        lengths=torch.full((batch,), tokens),
        coded=torch.zeros(batch, H, D),
    )
    where = torch.zeros(batch, T, PROPRIO), torch.zeros(batch, dtype=torch.int64)
    rng = torch.Generator().manual_seed(0)
    return counted(lambda: module.train().loss(features, *where, target, rng=rng).mean().backward())


@pytest.mark.parametrize(
    ("encoder", "head", "size", "task", "tokenizer", "options"),
    [
        ("retina-2", "diffusion", "xs", "embedding", None, {"sampling_steps": 4}),
        ("retina-2", "diffusion", "S", "embedding", None, {"sampling_steps": 1}),
        ("retina-2", "diffusion", "M", "index", None, {"attention": "causal-as-published"}),
        ("resnet18", "flow", "S", "index", None, {"sampling_steps": 3}),
        ("blind", "regression", "L", "embedding", None, {}),
        ("retina-2", "autoregressive", "xs", "embedding", "oat", OAT),
        ("retina-2", "autoregressive", "M", "index", "quest", {**OAT, "size": "S"}),
        ("oracle", "autoregressive", "xs", "embedding", "rvq", {"layers": 3, "codes": 4, "size": "xs"}),
        ("oracle", "autoregressive", "xs", "embedding", "bins", {"bins": 8}),
        ("oracle+retina-2", "regression", "xs", "embedding", None, {}),
        ("resnet18", "hybrid", "xs", "embedding", "oat", OAT),
    ],
)
def test_parameters_and_operations_are_those_of_the_module(
    encoder, head, size, task, tokenizer, options, chunks
):
    own = options if tokenizer is None else {}
    shape = Shape(
        encoder, head, size, H, T, TASKS, CAMERAS, PIXELS, PROPRIO, D, STATE, own, task,
        tokenizer=tokenizer, tokenizer_options=options if tokenizer else {},
    )  # fmt: skip
    given = {**options, "levels": options["levels"][0]} if "levels" in options else options
    made = fitted(tokenizer, given, chunks) if tokenizer else None
    spec = PolicySpec(
        "channel", encoder, head, size, H, T, ("a", "b", "c"), ("x", "y"), PIXELS, FEATURES[encoder], PROPRIO,
        D, own, task,
    )  # fmt: skip
    normaliser = Normaliser.fit(chunks.reshape(-1, D))
    prepared = oracle_folder(STATE, spec.tasks) if encoder.startswith("oracle") else None
    module, costs = PolicyModule(spec, normaliser, made, prepared), policy_costs(shape)
    # As if every number of the state moved in every task, as here.
    assert costs.rough == encoder.startswith("oracle")
    steps = [step_flops(module, shape, batch) for batch in (2, 3)]
    policy = Policy(spec, module, normaliser, made)
    assert policy.parameter_counts() == costs.parameters
    assert policy.flops() == costs.decision
    assert steps == [costs.step(2), costs.step(3)]


def test_fast_counts_the_most_that_its_vocabulary_may_hold_and_is_rough(chunks):
    shape = Shape(
        "blind", "autoregressive", "xs", H, T, TASKS, CAMERAS, PIXELS, PROPRIO, D, tokenizer="fast",
        tokenizer_options={"vocabulary": 64, "scale": 2.0},
    )  # fmt: skip
    made, costs = fitted("fast", {"vocabulary": 64, "scale": 2.0}, chunks), policy_costs(shape)
    assert made.codebook_sizes == (64,) * H * D
    spec = PolicySpec(
        "channel", "blind", "autoregressive", "xs", H, T, ("a", "b", "c"), ("x", "y"), PIXELS, 1, PROPRIO, D, {}
    )  # fmt: skip
    module = PolicyModule(spec, Normaliser.fit(chunks.reshape(-1, D)), made)
    assert sum(p.numel() for p in module.parameters()) == costs.parameters["total"]
    assert costs.rough
    assert shape.codes == (5, 64, True)  # a fifth of 24 numbers


def test_tokens_made_at_each_step_cost_an_encoding(chunks):
    shape = Shape(
        "blind", "autoregressive", "xs", H, T, TASKS, CAMERAS, PIXELS, PROPRIO, D, tokenizer="oat",
        tokenizer_options=OAT, retokenize=True,
    )  # fmt: skip
    made = fitted("oat", {**OAT, "levels": OAT["levels"][0]}, chunks)
    encoding = counted(lambda: made.ids_in_training(torch.from_numpy(chunks[:1])))
    from dataclasses import replace

    plain = policy_costs(replace(shape, retokenize=False))
    assert policy_costs(shape).step(7) - plain.step(7) == 7 * encoding


@pytest.mark.parametrize(
    ("kind", "config", "name"),
    [
        ("siglip_vision_model", {"hidden_size": 1152, "num_hidden_layers": 27, "num_attention_heads": 16,
                                 "intermediate_size": 4304, "patch_size": 14, "image_size": 224}, "siglip-so400m"),
        ("siglip_vision_model", {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                                 "intermediate_size": 3072, "patch_size": 16, "image_size": 224}, "siglip-base"),
        ("dinov2", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "mlp_ratio": 4,
                    "patch_size": 14, "image_size": 518}, "dinov2-l"),
        ("dinov2", {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "mlp_ratio": 4,
                    "patch_size": 14, "image_size": 518}, "dinov2-s"),
    ],
)  # fmt: skip
def test_towers_cost_what_the_networks_of_their_published_configurations_cost(kind, config, name):
    pin = Pin(encoder=name, source={}, model_type=kind, config=config, feature_dim=config["hidden_size"],
              image_size=224, grid=224 // config["patch_size"], blocks=config["num_hidden_layers"],
              mean=[0.5] * 3, std=[0.5] * 3, resample="bicubic", patches=1, finetune=None)  # fmt: skip
    with torch.device("meta"):
        network = pretrained.load_network(pin, weights=False)
    pixels = torch.zeros(1, 3, 224, 224, device="meta")
    found = counted(lambda: network.encode(pixels))
    tower = TOWERS[name]
    assert tower == tower_of_pin(pin)
    assert tower.flops == found
    assert tower.parameters == sum(p.numel() for p in network.parameters())
    seen = encoder_costs(f"{name}+patches2", image_size=64, state_dim=0, crop=Crop())
    assert (seen.feature_dim, seen.frozen, seen.trained) == (4 * config["hidden_size"], tower.parameters, 0)


def test_the_known_names_have_costs_or_say_that_they_have_none():
    from compression_gap.encoders.names import KNOWN

    for name in KNOWN:
        seen = encoder_costs(name, image_size=128, state_dim=0, crop=Crop())
        assert seen.feature_dim
        assert seen.flops > 1e9
    assert encoder_costs("hub:someone/something", image_size=128, state_dim=0, crop=Crop()).flops is None
    tuned = encoder_costs("dinov2-s+finetune3", image_size=128, state_dim=0, crop=Crop())
    assert tuned.trained == TOWERS["dinov2-s"].parameters
    assert tuned.backward == TOWERS["dinov2-s"].flops // 2  # 3 of 12 blocks, twice


@pytest.mark.parametrize("size", [32, 84, 128])
def test_the_ladder_costs_what_its_network_costs(size):
    seen = encoder_costs("pose-1k", image_size=size, state_dim=0, crop=Crop())
    network = pose.PoseNetwork(size)
    assert seen.frozen == sum(p.numel() for p in network.parameters())
    assert seen.flops == pose.flops(size)
    assert seen.feature_dim == pose.FEATURE_DIM


def test_the_crop_makes_resnet18_cheaper():
    from compression_gap.encoders.resnet18 import resnet18_trunk

    whole = encoder_costs("resnet18", image_size=128, state_dim=0, crop=Crop("none"))
    cut = encoder_costs("resnet18", image_size=128, state_dim=0, crop=Crop("all", 0.75))
    assert cut == encoder_costs("resnet18", image_size=96, state_dim=0, crop=Crop("none"))
    assert cut.flops < whole.flops
    assert sum(p.numel() for p in resnet18_trunk().parameters()) == RESNET18_PARAMETERS


def test_what_a_shape_does_not_tell_is_unknown():
    shape = Shape("hub:a/b", "diffusion", "M", H, T, TASKS, CAMERAS, PIXELS, PROPRIO, D)
    assert policy_costs(shape).parameters is None
    assert policy_costs(shape).step(64) is None
    other = Shape("blind", "someones-head", "M", H, T, TASKS, CAMERAS, PIXELS, PROPRIO, D)
    assert policy_costs(other).decision is None
    text = Shape("blind", "diffusion", "M", H, T, TASKS, CAMERAS, PIXELS, PROPRIO, D, task="text")
    assert policy_costs(text).parameters is None


def test_families_that_are_known_are_those_that_can_be_resolved():
    assert {"siglip", "dinov2", "resnet"} <= set(checkpoints.FAMILIES)
