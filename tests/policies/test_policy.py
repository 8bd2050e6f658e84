import dataclasses
import json

import numpy as np
import pytest
import torch

from compression_gap.demos import Normaliser
from compression_gap.errors import UserError
from compression_gap.policies import Policy, coded_round_trip
from compression_gap.policies.policy import PolicyModule, PolicySpec
from compression_gap.sims import Observation

NORMALISER = Normaliser.fit(np.random.default_rng(0).normal([1, -2], [0.1, 5], (500, 2)))


def make(head="diffusion", tokenizer=None, *, encoder="oracle", size="xs", seed=0, **options):
    spec = PolicySpec(
        sim="plane",
        encoder=encoder,
        head=head,
        size=size,
        horizon=4,
        n_obs_steps=2,
        tasks=("reach", "push"),
        cameras=("front", "wrist"),
        image_size=40,
        feature_dim={"oracle": 3, "blind": 1, "resnet18": 64}[encoder],
        proprio_dim=5,
        action_dim=2,
        options=options,
    )
    torch.manual_seed(seed)
    return Policy(spec, PolicyModule(spec, NORMALISER, tokenizer), NORMALISER, tokenizer)


def observation(n=6, seed=1):
    rng = np.random.default_rng(seed)
    return Observation(
        images={},
        proprio=rng.normal(size=(n, 2, 5)).astype(np.float32),
        task=rng.integers(0, 2, n),
        state=rng.normal(size=(n, 2, 3)).astype(np.float32),
    )


SEEDS = np.arange(6) + 2**61


@pytest.fixture(params=["diffusion", "autoregressive"])
def policy(request, grid):
    return make(request.param, grid if request.param == "autoregressive" else None)


def test_save_and_load_give_identical_acts(policy, tmp_path):
    policy.save(tmp_path)
    loaded = Policy.load(str(tmp_path))
    a, b = (p.act(observation(), SEEDS) for p in (policy, loaded))
    np.testing.assert_array_equal(a.chunk, b.chunk)
    np.testing.assert_array_equal(a.ok, b.ok)
    assert a.chunk.dtype == np.float32
    assert loaded.spec == policy.spec
    if policy.tokenizer is not None:
        np.testing.assert_array_equal(a.tokens, b.tokens)


def test_another_seed_and_another_network_act_otherwise(policy):
    first = policy.act(observation(), SEEDS).chunk
    np.testing.assert_array_equal(policy.act(observation(), SEEDS).chunk, first)
    assert not np.array_equal(policy.act(observation(), SEEDS + 1).chunk, first)
    other = make(policy.spec.head, policy.tokenizer, seed=1)
    assert not np.array_equal(other.act(observation(), SEEDS).chunk, first)


def test_acts_come_in_raw_action_units(grid):
    """Normalised acts lie within the clip, or on the grid; raw ones around the demonstrations' mean."""
    raw = make().act(observation(), SEEDS).chunk
    limit = max(1, np.abs([NORMALISER.low, NORMALISER.high]).max())
    assert np.abs((raw - NORMALISER.mean) / NORMALISER.std).max() <= limit + 1e-4
    emitted = make("autoregressive", grid).act(observation(), SEEDS)
    values = emitted.tokens / 8 * 4.5 - 2.25
    expected = np.repeat(values[:, None] * NORMALISER.std + NORMALISER.mean, 4, 1)
    np.testing.assert_allclose(emitted.chunk, expected, rtol=1e-5, atol=1e-5)


def test_a_row_is_the_same_alone_and_in_a_batch(policy):
    whole, obs = policy.act(observation(), SEEDS).chunk, observation()
    for b in (0, 5):
        at = slice(b, b + 1)
        one = Observation(images={}, proprio=obs.proprio[at], task=obs.task[at], state=obs.state[at])
        np.testing.assert_allclose(policy.act(one, SEEDS[at]).chunk[0], whole[b], rtol=1e-4, atol=1e-4)


def test_parameter_counts_add_up(policy):
    counts = policy.parameter_counts()
    assert counts["total"] == sum(p.numel() for p in policy.module.parameters())
    assert counts["encoder"] + counts["adapter"] + counts["trunk"] + counts["head"] == counts["total"]
    assert counts["encoder"] == 0
    assert counts["trunk"] == 2 * (16 * 128**2 + 19 * 128) + 2 * 128
    # Adapter: two layers each for features (3) and proprioception (5), two tasks, positions of 2 · 2 and 2.
    w = 128
    assert counts["adapter"] == (3 * w + w) + (5 * w + w) + 2 * (w * w + w) + 2 * w + 4 * w + 2 * w


def test_both_heads_share_trunk_and_adapter(grid):
    a, b = make().parameter_counts(), make("autoregressive", grid).parameter_counts()
    assert (a["trunk"], a["adapter"]) == (b["trunk"], b["adapter"])
    # Autoregressive: 9 codes and a start to embed, 2 positions, 9 logits.
    assert b["head"] == 10 * 128 + 2 * 128 + 128 * 9 + 9
    # Diffusion: actions in and out (2), 4 positions, the time's two layers.
    assert a["head"] == (2 * 128 + 128) + 4 * 128 + (128 * 512 + 512 + 512 * 128 + 128) + (128 * 2 + 2)


def test_trained_encoders_count_as_encoder():
    counts = make(encoder="resnet18").parameter_counts()
    assert counts["encoder"] == 2 * (11_176_512 + 512 * 32 + 32)
    assert counts["adapter"] + counts["trunk"] + counts["head"] + counts["encoder"] == counts["total"]


def test_flops_grow_with_size_and_with_sampling_steps():
    flops = [make(size=s).flops() for s in ("xs", "S", "M", "L")]
    assert flops == sorted(flops)
    assert len(set(flops)) == 4
    five, ten, twenty = (make(sampling_steps=n).flops() for n in (5, 10, 20))
    assert twenty - ten == 2 * (ten - five) > 0  # the context is conditioned once, whatever the steps


def test_flops_of_a_linear_layer_are_two_per_weight():
    """The adapter's share: blind features (1 → w → w at 4 tokens) against oracle features (3 → w → w)."""
    assert make().flops() - make(encoder="blind").flops() == 2 * 4 * (3 - 1) * 128


def test_a_policy_is_in_eval_mode_without_gradients(policy):
    assert not any(m.training for m in policy.module.modules())
    assert not any(p.requires_grad for p in policy.module.parameters())


def test_the_example_fits_the_policy():
    policy = make(encoder="resnet18")
    example = policy.example()
    assert {c: a.shape for c, a in example.images.items()} == dict.fromkeys(
        ("front", "wrist"), (1, 2, 40, 40, 3)
    )
    assert np.isfinite(policy.act(example, np.zeros(1)).chunk).all()


def test_an_unknown_head_is_named():
    with pytest.raises(UserError, match=r"unknown head 'difusion' \(did you mean 'diffusion'\?\)"):
        make("difusion")


def test_the_autoregressive_head_needs_a_tokenizer():
    with pytest.raises(UserError, match="needs a fitted tokenizer"):
        make("autoregressive")


def test_a_folder_that_is_no_policy(tmp_path):
    with pytest.raises(UserError, match=r"holds no policy \(policy.json\)"):
        Policy.load(tmp_path)
    with pytest.raises(UserError, match="holds no policy"):
        Policy.load(tmp_path / "missing")
    (tmp_path / "policy.json").write_text("{")
    with pytest.raises(UserError, match="holds no policy"):
        Policy.load(tmp_path)


@pytest.mark.parametrize("missing", ["normaliser.json", "policy.safetensors"])
def test_a_policy_that_lost_a_file(tmp_path, missing):
    make().save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(UserError, match="holds no policy that can be read"):
        Policy.load(tmp_path)


def test_a_policy_of_another_kind(tmp_path):
    make().save(tmp_path)
    about = json.loads((tmp_path / "policy.json").read_text())
    for wrong in (
        about | {"size": "S"},
        about | {"colour": "red"},
        {"encoder": "blind"},
        about | {"size": "Q"},
    ):
        (tmp_path / "policy.json").write_text(json.dumps(wrong))
        with pytest.raises(UserError, match="holds no policy that can be read"):
            Policy.load(tmp_path)


class Trap:
    """Unpickling this would leave a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_a_pickle_in_place_of_the_tensors_is_refused_and_not_run(tmp_path):
    make().save(tmp_path)
    mark = tmp_path / "mark"
    torch.save({"weights": Trap(mark)}, tmp_path / "policy.safetensors")
    with pytest.raises(UserError, match="holds no policy that can be read"):
        Policy.load(tmp_path)
    assert not mark.exists()


def test_the_round_trip_through_the_code_is_encode_then_decode(grid):
    raw = np.random.default_rng(3).normal([1, -2], [0.1, 5], (20, 4, 2))
    emitted = coded_round_trip(grid, NORMALISER)(raw)
    means = ((raw - NORMALISER.mean) / NORMALISER.std).mean(1)
    values = np.clip(np.rint((means + 2.25) / 0.5625), 0, 8) * 0.5625 - 2.25
    expected = np.repeat(values[:, None] * NORMALISER.std + NORMALISER.mean, 4, 1)
    np.testing.assert_allclose(emitted.chunk, expected, rtol=1e-5, atol=1e-5)
    assert emitted.ok.all()
    again = coded_round_trip(grid, NORMALISER)(emitted.chunk)
    np.testing.assert_array_equal(again.tokens, emitted.tokens)


def test_a_policy_on_some_of_its_tasks_keeps_each_tasks_own_number(tmp_path):
    """Rolled out on the second task alone, that task is number 0 of the simulator and 1 of the policy."""

    torch.manual_seed(0)
    spec = PolicySpec(
        "metaworld", "blind", "diffusion", "xs", 4, 1, ("push-v3", "hammer-v3"), ("c",), 8, 1, 2, 3, {}
    )
    normaliser = Normaliser(*(np.full(3, v, np.float32) for v in (0, 1, -1, 1)))
    policy = Policy(spec, PolicyModule(spec, normaliser, None), normaliser)
    first, second = policy.example(), dataclasses.replace(policy.example(), task=np.array([1]))
    seeds = np.zeros(1, np.int64)
    wanted = policy.act(second, seeds).chunk
    assert not np.array_equal(policy.act(first, seeds).chunk, wanted)
    assert np.array_equal(policy.on_tasks(("hammer-v3",)).act(first, seeds).chunk, wanted)
    with pytest.raises(UserError, match="not trained on door-open-v3; it knows push-v3, hammer-v3"):
        policy.on_tasks(("door-open-v3",))
