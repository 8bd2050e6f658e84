"""Heads by name, and the operations that a decision costs, against counts by hand."""

from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from compression_gap.demos import Normaliser
from compression_gap.errors import UserError
from compression_gap.nn import SIZES
from compression_gap.policies.policy import Policy, PolicyModule, PolicySpec
from compression_gap.policies.registry import HEADS, HeadEntry, make_head
from compression_gap.registry import Option, located
from compression_gap.tokenizers import OAT

H, D, W, LAYERS = 16, 4, 128, 2
CONTEXT = 5  # two visual tokens, two of proprioception, the task
NORMALISER = Normaliser(*(np.full(D, v, np.float32) for v in (0, 1, -2, 2)))


def policy(head):
    spec = PolicySpec(
        sim="channel",
        encoder="blind",
        head=head,
        size="xs",
        horizon=H,
        n_obs_steps=2,
        tasks=("reach",),
        cameras=("front",),
        image_size=8,
        feature_dim=1,
        proprio_dim=4,
        action_dim=D,
        options={},
    )
    tokenizer = OAT(size="xs")
    tokenizer.fit(np.random.default_rng(0).normal(size=(8, H, D)), steps=1, batch_size=4)
    return Policy(spec, PolicyModule(spec, NORMALISER, tokenizer), NORMALISER, tokenizer)


def linear(rows, a, b):
    return 2 * rows * a * b


def attention(queries, keys, width):
    return 4 * queries * keys * width


ADAPTER = linear(2, 1, W) + linear(2, 4, W) + 2 * linear(2, W, W)


ATTENTION_HEADS = SIZES["xs"].heads


def folded(memory):
    """The layers around the cross-attention, multiplied into a memory of so many tokens."""
    return 2 * linear(memory, W, W)


def around(rows, memory):
    """A folded cross-attention of so many rows."""
    return attention(rows, ATTENTION_HEADS * memory, W)


def test_flops_of_a_diffusion_decision_by_hand():
    layer = linear(H, W, 3 * W) + linear(H, W, W) + 2 * linear(H, W, 4 * W)
    layer += attention(H, H, W) + around(H, CONTEXT + 1)
    step = LAYERS * layer + linear(H, D, W) + linear(H, W, D)
    memory = LAYERS * (linear(CONTEXT + 10, W, 2 * W) + folded(CONTEXT + 10))  # ten times, made once
    assert policy("diffusion").flops() == ADAPTER + memory + 2 * linear(10, W, 4 * W) + 10 * step


def test_flops_of_a_token_decision_by_hand():
    layer = linear(1, W, 3 * W) + linear(1, W, W) + 2 * linear(1, W, 4 * W) + around(1, CONTEXT)
    tokens = sum(LAYERS * (layer + attention(1, i + 1, W)) + linear(1, W, 1000) for i in range(8))
    w = 64
    decoder = linear(H, w, 3 * w) + 3 * linear(H, w, w) + linear(8, w, 2 * w) + 2 * linear(H, w, 4 * w)
    decoder += attention(H, H, w) + attention(H, 8, w)
    decode = linear(8, 4, w) + 2 * decoder + linear(H, w, D)
    memory = LAYERS * (linear(CONTEXT, W, 2 * W) + folded(CONTEXT))
    assert policy("autoregressive").flops() == ADAPTER + memory + tokens + decode


def test_flops_of_one_pass_by_hand():
    layer = linear(H, W, 3 * W) + 3 * linear(H, W, W) + 2 * linear(H, W, 4 * W)
    layer += attention(H, H, W) + attention(H, CONTEXT, W)
    expected = ADAPTER + LAYERS * (linear(CONTEXT, W, 2 * W) + layer) + linear(H, W, D)
    assert policy("regression").flops() == expected


def test_flops_of_a_hybrid_are_those_of_its_tokens_and_of_one_more_block():
    layer = linear(H, W, 3 * W) + 3 * linear(H, W, W) + 2 * linear(H, W, 4 * W)
    layer += attention(H, H, W) + attention(H, CONTEXT, W)
    offset = linear(H, D, W) + linear(CONTEXT, W, 2 * W) + layer + linear(H, W, D)
    assert policy("hybrid").flops() == policy("autoregressive").flops() + offset


def test_flow_costs_what_diffusion_does():
    assert policy("flow").flops() == policy("diffusion").flops()


def test_counting_leaves_the_fast_path_as_it_was():
    before = torch.backends.mha.get_fastpath_enabled()
    policy("autoregressive").flops()
    assert torch.backends.mha.get_fastpath_enabled() == before


def make(name, tokenizer=None, **options):
    return make_head(
        name,
        SIZES["xs"],
        horizon=H,
        action_dim=D,
        context_tokens=CONTEXT,
        clip=2.0,
        tokenizer=tokenizer,
        options=options,
    )


def test_unknown_heads_and_missing_tokenizers_are_told():
    with pytest.raises(UserError, match="did you mean 'diffusion'"):
        make("difusion")
    for name in ("autoregressive", "hybrid"):
        with pytest.raises(UserError, match=f"the {name} head needs a fitted tokenizer"):
            make(name)


def test_a_tokenizer_of_other_chunks_is_refused():
    other = SimpleNamespace(name="bins", horizon=H, action_dim=D + 1, codebook_sizes=(4,))
    with pytest.raises(
        UserError, match=r"emits chunks \[16, 4\]; this bins tokenizer was fitted on \[16, 5\]"
    ):
        make("autoregressive", other)


def test_a_head_gets_the_options_it_knows():
    code = SimpleNamespace(name="code", horizon=H, action_dim=D, codebook_sizes=(4, 4))
    options = {
        "attention": "causal-as-published", "sampling_steps": 3, "sampler": "ddpm", "prediction": "sample",
        "temperature": 0.5, "top_k": 7, "constrained": False, "offset_weight": 3.0,
    }  # fmt: skip
    diffusion, flow = make("diffusion", **options), make("flow", **options)
    assert (diffusion.sampler, diffusion.prediction) == ("ddpm", "sample")
    for made in (diffusion, flow):
        assert made.sampling_steps == 3
        assert made.network.causal
    hybrid = make("hybrid", code, **options)
    assert hybrid.offset_weight == 3.0
    for made in (make("autoregressive", code, **options), hybrid.tokens):
        assert (made.temperature, made.top_k, made.constrained) == (0.5, 7, False)
    make("regression", **options)
    with pytest.raises(UserError, match=r"unknown option of a head 'topk' .did you mean 'top_k'"):
        make("regression", topk=3)


@pytest.mark.parametrize("name", HEADS.own)
def test_an_entry_states_what_the_constructor_says(name):
    """The options, their defaults and whether it takes a tokenizer stand in the registry, where planning reads them."""
    entry = HEADS[name]
    asked = signature(located(entry.cls)).parameters
    shapes = {"size", "horizon", "action_dim", "context_tokens", "clip", "tokenizer", "codebook_sizes"}
    assert {n: p.default for n, p in asked.items() if n not in shapes} == {
        n: o.default for n, o in entry.options.items()
    }
    assert entry.continuous == ("tokenizer" not in asked)


def test_what_a_head_learns_from():
    assert {name: entry.targets for name, entry in HEADS.items()} == {
        "autoregressive": "tokens", "diffusion": "chunk", "flow": "chunk", "hybrid": "both", "regression": "chunk"
    }  # fmt: skip


def other_head(size, *, horizon, clip, tokenizer, depth=1):
    return SimpleNamespace(size=size, given=(horizon, clip, tokenizer, depth))


def test_a_head_of_another_package(plug_in):
    """It gets what it asks for, and the options that it has."""
    plug_in("heads", "other", HeadEntry(other_head, options={"depth": Option(int, 1)}))
    head = make("other", depth=3, sampling_steps=2)
    assert head.size == SIZES["xs"]
    assert head.given == (H, 2.0, None, 3)
    assert [*HEADS] == [*HEADS.own, "other"]
    with pytest.raises(UserError, match="the head's option 'depth' is '3': input should be a valid integer"):
        make("other", depth="3")
