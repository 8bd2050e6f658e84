import numpy as np
import pytest
import torch

from compression_gap.demos import Normaliser, make_windows
from compression_gap.encoders import make_encoder
from compression_gap.encoders.cache import frame_batch
from compression_gap.nn import Interrupted
from compression_gap.policies import Policy
from compression_gap.policies.autoregressive import AutoregressiveHead
from compression_gap.policies.card import Card, write_card
from compression_gap.policies.flow import FlowHead
from compression_gap.policies.policy import PolicyModule
from compression_gap.policies.train import TrainingSpec, train_policy
from compression_gap.sims import Observation
from compression_gap.tokenizers import FAST, OAT, Tokens
from plain_state import oracle_folder
from token_tables import token_tables


def spec(encoder, head, *, steps, batch_size=64, lr=2e-3, **options):
    return {
        "sim": "plane",
        "encoder": encoder,
        "head": head,
        "size": "xs",
        "horizon": 4,
        "n_obs_steps": 1,
        "tasks": ("reach",),
        "seed": 0,
        "options": options,
        "training": {
            "steps": steps,
            "batch_size": batch_size,
            "lr": lr,
            "encoder_lr": 1e-3,
            "warmup": min(10, steps),
            "weight_decay": 0.0,
            "schedule": "cosine",
            "validations": 1,
        },
    }


def chunks_of(reach, normaliser):
    actions = normaliser.normalise(reach.actions)
    return {s: actions[make_windows([reach], ("reach",), 4, 1, s).actions] for s in ("train", "validation")}


def run(reach, what, out, tokenizer=None, **options):
    frames = np.concatenate([np.arange(e.start, e.start + e.length) for e in reach.split("train")])
    normaliser = Normaliser.fit(reach.actions[frames])
    tokens = tokenizer and {s: tokenizer.encode(c) for s, c in chunks_of(reach, normaliser).items()}
    prepared = oracle_folder(reach.state.shape[1]) if what["encoder"] == "oracle" else None
    encoder = make_encoder(what["encoder"], cameras=1, folder=prepared)
    features = [encoder.features(frame_batch(reach, slice(None)))[:, 0]] if encoder.frozen else None
    coded = tokenizer and {s: tokenizer.decode(t).chunk for s, t in tokens.items()}
    record = train_policy(
        TrainingSpec(**what),
        [reach],
        features,
        normaliser,
        tokenizer,
        token_tables([reach], tokens, coded),
        prepared=prepared,
        out=out,
        **options,
    )
    return record, Policy.load(out)


def validation_error(reach, policy):
    """Mean squared error of acts on the validation episodes, as a share of the constant predictor's."""
    windows = make_windows([reach], ("reach",), 4, 1, "validation")
    asked = Observation.batch([reach.observation(int(f)) for f in windows.frames[:, 0]])
    found = policy.act(asked, np.arange(len(windows))).chunk
    weight = windows.valid[..., None] / policy.normaliser.std**2
    truth = reach.actions[windows.actions]
    constant = (weight * np.square(policy.normaliser.mean - truth)).sum()
    return float((weight * np.square(found - truth)).sum() / constant)


@pytest.mark.parametrize(
    ("head", "steps", "most"),
    [
        ("autoregressive", 150, 0.9),
        ("diffusion", 90, 0.3),
        ("flow", 70, 0.2),
        ("hybrid", 100, 0.9),
        ("regression", 50, 0.2),
    ],
)
def test_a_policy_learns_what_the_encoder_shows_it(reach, grid, tmp_path, head, steps, most):
    """With the goal in view a policy beats the constant predictor; without it, it does not."""
    tokenizer = grid if head in ("autoregressive", "hybrid") else None
    options = {"temperature": 0} if tokenizer else {}
    error, loss = {}, {}
    for encoder in ("oracle", "blind"):
        out = tmp_path / encoder
        out.mkdir()
        record, policy = run(
            reach, spec(encoder, head, steps=steps, batch_size=32, **options), out, tokenizer
        )
        error[encoder], loss[encoder] = validation_error(reach, policy), record["curve"]["validation"][-1]
        assert record["decision_points"] == 80 * 6
        assert record["curve"]["step"] == [steps]
        assert record["parameters"] == policy.parameter_counts()
    assert error["oracle"] < most
    assert error["blind"] > 1.3 * error["oracle"]
    assert loss["blind"] > 1.2 * loss["oracle"]
    if head == "autoregressive":
        assert loss["oracle"] < np.log(9) - 0.8  # nats a token, against those of a uniform guess


def test_target_tokens_do_not_change_while_a_policy_trains(reach, tmp_path):
    """Neither the tokens that were given, nor those that the tokenizer would give after training."""
    normaliser = Normaliser.fit(reach.actions)
    chunks = chunks_of(reach, normaliser)["train"]
    tokenizer = OAT(tokens=2, levels=(8, 5))
    tokenizer.fit(chunks, steps=3, batch_size=16)
    before, weights = tokenizer.encode(chunks), tokenizer.network.state_dict()
    weights = {n: t.clone() for n, t in weights.items()}
    modes = []

    def look(done, total):
        modes.append(tokenizer.network.training)
        np.testing.assert_array_equal(tokenizer.encode(chunks).ids, before.ids)

    _, policy = run(
        reach, spec("oracle", "autoregressive", steps=20, batch_size=8), tmp_path, tokenizer, progress=look
    )
    assert modes == [False]
    np.testing.assert_array_equal(tokenizer.encode(chunks).ids, before.ids)
    np.testing.assert_array_equal(policy.tokenizer.encode(chunks).ids, before.ids)
    assert all(torch.equal(t, weights[n]) for n, t in tokenizer.network.state_dict().items())


def swap(reach, out, coded, target, head="flow"):
    """Train on ``coded`` [N, H, d] per split, or beside it; the saved weights' bytes and the policy."""
    out.mkdir()
    normaliser = Normaliser.fit(reach.actions)
    features = [reach.state[:, None]]
    what = {**spec("oracle", head, steps=5, batch_size=8), "target": target}
    tables = token_tables([reach], coded=coded)
    train_policy(
        TrainingSpec(**what), [reach], features, normaliser, None, tables, prepared=oracle_folder(2), out=out
    )
    return (out / "policy.safetensors").read_bytes(), Policy.load(out)


def test_the_swap_changes_the_target_alone(reach, tmp_path, monkeypatch):
    """A code that changes nothing gives the same weights, bit by bit; another changes the chunks alone."""
    chunks = chunks_of(reach, Normaliser.fit(reach.actions))
    plain, _ = swap(reach, tmp_path / "plain", None, "chunk")
    same, _ = swap(reach, tmp_path / "same", chunks, "coded")
    assert same == plain
    shown = []
    loss = FlowHead.loss

    def look(self, context, target, *, rng):
        shown.append((target, rng.get_state(), context.detach().clone()))
        return loss(self, context, target, rng=rng)

    monkeypatch.setattr(FlowHead, "loss", look)
    unused, _ = swap(reach, tmp_path / "unused", {s: c + 1 for s, c in chunks.items()}, "chunk")
    assert unused == plain
    raw, shown = shown, []
    other, _ = swap(reach, tmp_path / "other", {s: c.round() for s, c in chunks.items()}, "coded")
    assert other != plain
    assert len(shown) == len(raw) > 5
    for (a, a_rng, _), (b, b_rng, _) in zip(raw, shown, strict=True):
        assert torch.equal(b.chunk, a.chunk.round())
        assert torch.equal(b.valid, a.valid)
        assert torch.equal(a_rng, b_rng)
        assert b.tokens is None
    assert torch.equal(raw[0][2], shown[0][2])  # the same weights to begin with


def test_the_swap_needs_coded_chunks_of_the_same_decision_points(reach, tmp_path):
    with pytest.raises(ValueError, match="the flow head on 'coded' needs the coded chunks"):
        swap(reach, tmp_path / "a", None, "coded")
    short = {s: c[1:] for s, c in chunks_of(reach, Normaliser.fit(reach.actions)).items()}
    with pytest.raises(ValueError, match="rows of target tokens"):
        swap(reach, tmp_path / "b", short, "coded")
    with pytest.raises(ValueError, match="the hybrid head on 'chunk' needs the coded chunks"):
        swap(reach, tmp_path / "c", None, "chunk", head="hybrid")


def test_ragged_tokens_are_trimmed_to_the_longest_of_train_and_validation(reach, tmp_path, monkeypatch):
    normaliser = Normaliser.fit(reach.actions)
    chunks = chunks_of(reach, normaliser)
    fast = FAST(vocabulary=200).fit(chunks["train"])
    tokens = {s: fast.encode(c) for s, c in chunks.items()}
    longest = max(t.lengths.max() for t in tokens.values())
    wide = {s: Tokens(np.pad(t.ids, ((0, 0), (0, 3))), t.lengths) for s, t in tokens.items()}
    seen = []
    loss = AutoregressiveHead.loss

    def look(self, context, target, *, rng):
        seen.append(target)
        return loss(self, context, target, rng=rng)

    monkeypatch.setattr(AutoregressiveHead, "loss", look)
    train_policy(
        TrainingSpec(**spec("oracle", "autoregressive", steps=3, batch_size=8)),
        [reach],
        [reach.state[:, None]],
        normaliser,
        fast,
        token_tables([reach], wide),
        prepared=oracle_folder(2),
        out=tmp_path,
    )
    assert {t.tokens.shape[1] for t in seen} == {longest}
    assert len({n for t in seen for n in t.lengths.tolist()}) > 1
    assert {t.valid.dtype for t in seen} == {torch.bool}
    assert Policy.load(tmp_path).act(Observation.batch([reach.observation(0)]), np.zeros(1)).ok.all()


def test_a_policy_is_resumed_with_the_same_bits(reach, tmp_path):
    for name in ("straight", "resumed", "work"):
        (tmp_path / name).mkdir()
    what = spec("oracle", "diffusion", steps=6, batch_size=8)
    run(reach, what, tmp_path / "straight")
    answers = iter([False, True])
    options = {"work": tmp_path / "work"}
    with pytest.raises(Interrupted):
        run(reach, what, tmp_path / "resumed", should_stop=lambda: next(answers), **options)
    assert list((tmp_path / "resumed").iterdir()) == []
    run(reach, what, tmp_path / "resumed", **options)
    files = [(tmp_path / name / "policy.safetensors").read_bytes() for name in ("straight", "resumed")]
    assert files[0] == files[1]


def test_resnet18_trains_from_images(reach, tmp_path):
    what = spec("resnet18", "diffusion", steps=2, batch_size=4)
    record, policy = run(reach, what, tmp_path)
    assert record["parameters"]["encoder"] == 11_176_512 + 512 * 32 + 32
    assert np.isfinite(record["curve"]["validation"]).all()
    torch.manual_seed(what["seed"])
    start = PolicyModule(policy.spec, policy.normaliser, None).adapter.networks.state_dict()
    now = policy.module.adapter.networks.state_dict()
    moved = [n for n in now if not torch.equal(now[n], start[n])]
    assert {n for n in now if "conv" in n or n.endswith("0.weight")} <= set(moved)
    seen = policy.example()
    other = policy.example()
    other.images["front"][..., :20, :, :] = 255
    a, b = (policy.act(o, np.zeros(1)).chunk for o in (seen, other))
    assert not np.array_equal(a, b)


def test_statistics_come_from_the_training_split_alone(reach, tmp_path):
    _, policy = run(reach, spec("oracle", "diffusion", steps=1, batch_size=2), tmp_path)
    frames = np.concatenate([np.arange(e.start, e.start + e.length) for e in reach.split("train")])
    adapter = policy.module.adapter
    np.testing.assert_allclose(adapter.mean[0], reach.state[frames].mean(0), atol=1e-6)
    np.testing.assert_allclose(adapter.std[0], reach.state[frames].std(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(adapter.proprio_mean, reach.proprio[frames].mean(0), atol=1e-6)
    assert not np.allclose(reach.state.mean(0), reach.state[frames].mean(0), atol=1e-6)


def test_tokens_of_other_decision_points_are_refused(reach, grid, tmp_path):
    normaliser = Normaliser.fit(reach.actions)
    tokens = {s: grid.encode(c[1:]) for s, c in chunks_of(reach, normaliser).items()}
    features = [np.zeros((600, 1, 1), np.float32)]
    with pytest.raises(ValueError, match="479 rows of target tokens for 480 decision points"):
        train_policy(
            TrainingSpec(**spec("blind", "autoregressive", steps=1)),
            [reach],
            features,
            normaliser,
            grid,
            token_tables([reach], tokens),
            out=tmp_path,
        )


def test_checkpoints_are_kept_beside_the_same_final_policy(reach, tmp_path):
    """Also when the training is stopped behind the first of them and resumed."""
    for name in ("plain", "kept", "resumed", "work"):
        (tmp_path / name).mkdir()
    plain = spec("oracle", "regression", steps=9, batch_size=8)
    run(reach, plain, tmp_path / "plain")
    what = plain | {"checkpoints": [3, 6]}
    run(reach, what, tmp_path / "kept")
    asked = []
    with pytest.raises(Interrupted):
        run(
            reach,
            what,
            tmp_path / "resumed",
            work=tmp_path / "work",
            should_stop=lambda: bool(asked.append(1)) or len(asked) == 4,
        )
    assert list((tmp_path / "resumed").iterdir()) == []
    run(reach, what, tmp_path / "resumed", work=tmp_path / "work")

    def weights(*path):
        return tmp_path.joinpath(*path, "policy.safetensors").read_bytes()

    assert weights("plain") == weights("kept") == weights("resumed")
    early = [weights("kept", "checkpoints", step) for step in ("3", "6")]
    assert early == [weights("resumed", "checkpoints", step) for step in ("3", "6")]
    assert len({*early, weights("kept")}) == 3
    assert Policy.load(tmp_path / "kept" / "checkpoints" / "3").spec == Policy.load(tmp_path / "kept").spec


def test_the_published_mode_makes_target_tokens_anew_at_every_step(reach, tmp_path, monkeypatch):
    """With the tokenizer's dropout on, in training alone: a share of them flips. Resumed, it is the same."""
    normaliser = Normaliser.fit(reach.actions)
    chunks = chunks_of(reach, normaliser)
    tokenizer = OAT(tokens=2, levels=(8, 5), dropout=0.1).fit(
        chunks["train"], steps=40, batch_size=32, lr=3e-3
    )
    tokens = {s: tokenizer.encode(c) for s, c in chunks.items()}
    known = {c.tobytes(): i for s in chunks for c, i in zip(chunks[s], tokens[s].ids, strict=True)}
    flips = {True: [], False: []}
    loss = AutoregressiveHead.loss

    def look(self, context, target, *, rng):
        own = np.stack([known[c.tobytes()] for c in target.chunk.numpy()])
        flips[self.training].append((target.tokens.numpy() != own).mean())
        return loss(self, context, target, rng=rng)

    monkeypatch.setattr(AutoregressiveHead, "loss", look)

    def weights(name, mode=None, **options):
        (tmp_path / name).mkdir(exist_ok=True)
        what = spec("oracle", "autoregressive", steps=6, batch_size=16) | (
            {"tokenizer_mode": mode} if mode else {}
        )
        train_policy(
            TrainingSpec(**what),
            [reach],
            [reach.state[:, None]],
            normaliser,
            tokenizer,
            token_tables([reach], tokens),
            prepared=oracle_folder(2),
            out=tmp_path / name,
            **options,
        )
        return (tmp_path / name / "policy.safetensors").read_bytes()

    plain = weights("plain")
    assert set(flips[True]) == set(flips[False]) == {0}
    assert weights("eval", "eval") == plain
    flips[True].clear()
    published = weights("published", "train-as-published")
    assert len(flips[True]) == 6
    assert 0.005 < np.mean(flips[True]) < 0.7
    assert set(flips[False]) == {0}
    assert published != plain
    assert not tokenizer.network.training
    np.testing.assert_array_equal(tokenizer.encode(chunks["train"]).ids, tokens["train"].ids)
    (tmp_path / "work").mkdir()
    answers = iter([False, False, True])
    with pytest.raises(Interrupted):
        weights("resumed", "train-as-published", work=tmp_path / "work", should_stop=lambda: next(answers))
    assert weights("resumed", "train-as-published", work=tmp_path / "work") == published


def test_tokens_without_a_network_have_no_training_mode(reach, grid, tmp_path):
    normaliser = Normaliser.fit(reach.actions)
    tokens = {s: grid.encode(c) for s, c in chunks_of(reach, normaliser).items()}
    what = spec("oracle", "autoregressive", steps=1) | {"tokenizer_mode": "train-as-published"}
    with pytest.raises(ValueError, match="no target tokens of grid in the mode 'train-as-published'"):
        train_policy(
            TrainingSpec(**what),
            [reach],
            [reach.state[:, None]],
            normaliser,
            grid,
            token_tables([reach], tokens),
            prepared=oracle_folder(2),
            out=tmp_path,
        )


def test_a_policy_acts_on_the_crop_that_it_was_trained_on(reach, tmp_path):
    """The same centre in the features of training and in what the loaded policy sees."""
    crop = {"mode": "all", "share": 0.5}
    normaliser = Normaliser.fit(reach.actions)
    encoder = make_encoder("retina-4", cameras=1, crop=crop)
    features = encoder.features(frame_batch(reach, slice(None)))[:, 0]
    what = spec("retina-4", "regression", steps=2, batch_size=8) | {"crop": crop}
    train_policy(TrainingSpec(**what), [reach], [features], normaliser, None, None, out=tmp_path)
    policy = Policy.load(tmp_path)
    assert policy.spec.crop == crop
    assert "| crop of its images | 50 % of the side, the centre" in write_card(policy.facts(), Card())
    asked = reach.observation(0)
    np.testing.assert_array_equal(policy.encoder.features(asked)[0, 0], features[0])
    rim = np.full_like(asked.images["front"], 7)
    rim[..., 10:30, 10:30, :] = asked.images["front"][..., 10:30, 10:30, :]
    other = Observation({"front": rim}, asked.proprio, asked.task)
    np.testing.assert_array_equal(policy.act(other, np.zeros(1)).chunk, policy.act(asked, np.zeros(1)).chunk)
