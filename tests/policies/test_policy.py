import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from compression_gap.demos import Normaliser
from compression_gap.errors import UserError
from compression_gap.policies import Policy, SnappedPolicy, coded_round_trip
from compression_gap.policies.policy import PolicyModule, PolicySpec, lay_out
from compression_gap.sims import Observation
from compression_gap.tokenizers import OAT, Decoded, Tokens
from plain_state import oracle_folder

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
        feature_dim={"oracle": 6, "blind": 1, "resnet18": 64}[encoder],
        proprio_dim=5,
        action_dim=2,
        options=options,
    )
    torch.manual_seed(seed)
    prepared = oracle_folder(3, spec.tasks) if encoder == "oracle" else None
    return Policy(spec, PolicyModule(spec, NORMALISER, tokenizer, prepared), NORMALISER, tokenizer)


def observation(n=6, seed=1):
    rng = np.random.default_rng(seed)
    return Observation(
        images={},
        proprio=rng.normal(size=(n, 2, 5)).astype(np.float32),
        task=rng.integers(0, 2, n),
        state=rng.normal(size=(n, 2, 3)).astype(np.float32),
    )


SEEDS = np.arange(6) + 2**61


HEADS = ("autoregressive", "diffusion", "flow", "hybrid", "regression")
TOKENS = ("autoregressive", "hybrid")


@pytest.fixture(params=HEADS)
def policy(request, grid):
    return make(request.param, grid if request.param in TOKENS else None)


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
    drawn = not np.array_equal(policy.act(observation(), SEEDS + 1).chunk, first)
    assert drawn == (policy.spec.head != "regression")
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


def test_weights_are_laid_out_for_products_with_few_rows_and_saved_as_ever(tmp_path):
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 24), nn.Linear(24, 8))
    before, x = {n: t.clone() for n, t in layers.state_dict().items()}, torch.randn(3, 8)
    expected = layers(x)
    lay_out(layers)
    assert layers[0].weight.stride() == (1, 24)
    assert layers[1].weight.stride() == (24, 1)
    assert all(torch.equal(t, before[n]) for n, t in layers.state_dict().items())
    torch.testing.assert_close(layers(x), expected)
    policy = make()
    policy.save(tmp_path)
    saved = load_file(tmp_path / "policy.safetensors")
    assert all(torch.equal(t, saved[n]) for n, t in policy.module.state_dict().items())


def test_parameter_counts_add_up(policy):
    counts = policy.parameter_counts()
    assert counts["total"] == sum(p.numel() for p in policy.module.parameters())
    assert counts["encoder"] + counts["adapter"] + counts["trunk"] + counts["head"] == counts["total"]
    assert counts["encoder"] == 0
    assert counts["trunk"] == 2 * (16 * 128**2 + 19 * 128) + 2 * 128
    # Adapter: two layers each for features (3 a task) and proprioception (5), two tasks, positions of 2 · 2 and 2.
    w = 128
    assert counts["adapter"] == (6 * w + w) + (5 * w + w) + 2 * (w * w + w) + 2 * w + 4 * w + 2 * w


def test_all_heads_share_trunk_and_adapter_and_add_their_own(grid):
    counts = {h: make(h, grid if h in TOKENS else None).parameter_counts() for h in HEADS}
    assert len({(c["trunk"], c["adapter"]) for c in counts.values()}) == 1
    own, w = {h: c["head"] for h, c in counts.items()}, 128
    # 9 codes and a start to embed, 2 positions, 9 logits.
    assert own["autoregressive"] == 10 * w + 2 * w + w * 9 + 9
    # Actions in and out (2), 4 positions, the time's two layers.
    ends = (2 * w + w) + 4 * w + (w * 2 + 2)
    assert own["diffusion"] == own["flow"] == ends + (w * 512 + 512 + 512 * w + w)
    assert own["regression"] == 4 * w + (w * 2 + 2)
    assert own["hybrid"] == own["autoregressive"] + ends + (16 * w**2 + 19 * w) + 2 * w  # one block, its norm


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
    """The adapter's share: blind features (1 → w → w at 4 tokens) against oracle features (6 → w → w)."""
    assert make().flops() - make(encoder="blind").flops() == 2 * 4 * (6 - 1) * 128


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


def test_a_prefix_of_the_code_is_decoded_alone():
    chunks = np.random.default_rng(0).normal(size=(40, 4, 2)).astype(np.float32)
    oat = OAT(tokens=2, levels=(8, 5)).fit(chunks, steps=3, batch_size=16)
    raw = NORMALISER.denormalise(chunks)
    first = coded_round_trip(oat, NORMALISER, 1)(raw)
    tokens = oat.encode(NORMALISER.normalise(raw))
    expected = oat.decode(Tokens(tokens.ids, np.ones(40, np.int64))).chunk
    np.testing.assert_allclose(NORMALISER.normalise(first.chunk), expected, atol=1e-4)
    assert first.lengths.tolist() == [1] * 40
    whole = coded_round_trip(oat, NORMALISER)(raw)
    np.testing.assert_array_equal(coded_round_trip(oat, NORMALISER, 2)(raw).chunk, whole.chunk)
    assert not np.array_equal(first.chunk, whole.chunk)


@pytest.mark.parametrize("head", ["diffusion", "flow", "regression"])
def test_a_snapped_policy_executes_the_code_of_what_it_emits(head, grid, monkeypatch):
    """On a grid on which odd first tokens do not decode."""
    decode = grid.decode
    monkeypatch.setattr(grid, "decode", lambda t: Decoded(decode(t).chunk, t.ids[:, 0] % 2 == 0))
    policy = make(head)
    snapped = SnappedPolicy(policy, grid)
    emitted, found = policy.act(observation(), SEEDS), snapped.act(observation(), SEEDS)
    means = ((emitted.chunk - NORMALISER.mean) / NORMALISER.std).mean(1)
    ids = np.clip(np.rint((means + 2.25) / 0.5625), 0, 8)
    np.testing.assert_array_equal(found.tokens, ids)
    expected = np.repeat((ids * 0.5625 - 2.25)[:, None] * NORMALISER.std + NORMALISER.mean, 4, 1)
    np.testing.assert_allclose(found.chunk, expected, rtol=1e-5, atol=1e-5)
    assert found.ok.tolist() == (ids[:, 0] % 2 == 0).tolist()
    assert found.chunk.dtype == np.float32
    assert emitted.tokens is None
    attributes = ("asks", "n_obs_steps", "horizon", "needs_images")
    assert all(getattr(snapped, a) == getattr(policy, a) for a in attributes)


def test_a_snapped_policy_on_some_of_its_tasks(grid):
    obs = dataclasses.replace(observation(), task=np.zeros(6, np.int64))
    second = dataclasses.replace(obs, task=np.ones(6, np.int64))
    wanted = SnappedPolicy(make(), grid).act(second, SEEDS).chunk
    np.testing.assert_array_equal(
        SnappedPolicy(make(), grid).on_tasks(("push",)).act(obs, SEEDS).chunk, wanted
    )


def test_a_policy_is_not_snapped_to_a_code_of_other_chunks(grid, monkeypatch):
    monkeypatch.setattr(grid, "horizon", 8)
    with pytest.raises(UserError, match=r"emits chunks \[4, 2\]; this grid tokenizer was fitted on \[8, 2\]"):
        SnappedPolicy(make(), grid)


def test_bfloat16_acts_nearly_the_same(policy):
    half = policy.to_bfloat16()
    assert {p.dtype for p in half.module.head.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in half.module.adapter.parameters()} == {torch.float32}
    assert {p.dtype for p in policy.module.parameters()} == {torch.float32}
    a, b = (NORMALISER.normalise(p.act(observation(), SEEDS).chunk) for p in (policy, half))
    if policy.tokenizer is None:
        assert 0 < np.abs(a - b).max() < 0.1
    else:  # a token may flip
        assert (np.abs(a - b).max((1, 2)) < 0.1).mean() >= 5 / 6
    np.testing.assert_array_equal(half.act(observation(), SEEDS).chunk, half.act(observation(), SEEDS).chunk)


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
