import numpy as np
import pytest
import torch

from compression_gap.encoders import make_encoder
from compression_gap.encoders.base import ContextAdapter


def adapter(name, feature_dim, *, cameras=2, steps=2):
    torch.manual_seed(0)
    return ContextAdapter(
        make_encoder(name, cameras=cameras),
        cameras=cameras,
        feature_dim=feature_dim,
        proprio_dim=3,
        tasks=4,
        n_obs_steps=steps,
        width=16,
    )


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("cameras", "steps", "tokens"), [(1, 1, 3), (2, 2, 7), (3, 2, 9)])
@pytest.mark.parametrize(("name", "dim"), [("blind", 1), ("oracle-3b", 5), ("retina-2", 12)])
def test_all_encoders_give_the_policy_as_many_tokens(name, dim, cameras, steps, tokens):
    made = adapter(name, dim, cameras=cameras, steps=steps)
    out = made(normal(5, steps, cameras, dim), normal(5, steps, 3), torch.arange(5) % 4)
    assert made.tokens == tokens
    assert out.shape == (5, tokens, 16)
    assert out.std(1).min() > 0  # no two tokens of a sample are one


def test_statistics_are_those_of_the_training_frames():
    made = adapter("oracle-3b", 2)
    features, proprio = 3 * normal(500, 2, 2) + 7, 0.1 * normal(500, 3, seed=1) - 2
    made.fit(features, proprio)
    torch.testing.assert_close(made.mean, features.mean(0))
    torch.testing.assert_close(made.std, features.std(0))
    torch.testing.assert_close(made.proprio_mean, proprio.mean(0))
    torch.testing.assert_close(made.proprio_std, proprio.std(0))


@torch.no_grad()
def test_units_of_features_and_proprioception_do_not_matter():
    """Fitted on scaled and shifted data, the adapter gives the same context for it."""
    made, task = adapter("oracle-3b", 2), torch.zeros(3, dtype=torch.long)
    features, proprio = normal(500, 2, 2), normal(500, 3, seed=1)
    x, p = normal(3, 2, 2, 2, seed=2), normal(3, 2, 3, seed=3)
    made.fit(features, proprio)
    first = made(x, p, task)
    made.fit(100 * features + 5, 0.01 * proprio - 3)
    torch.testing.assert_close(made(100 * x + 5, 0.01 * p - 3, task), first, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("name", "floor"), [("blind", 1.0), ("oracle-3b", 1e-3), ("retina-1", 0.02)])
def test_features_that_hardly_vary_are_not_blown_up(name, floor):
    made = adapter(name, 3)
    features = normal(400, 2, 3) * torch.tensor([0.0, floor / 10, 10 * floor])
    made.fit(features, normal(400, 3))
    torch.testing.assert_close(made.std[:, :2], torch.full((2, 2), floor))
    torch.testing.assert_close(made.std[:, 2], features.std(0)[:, 2])


def test_constant_proprioception_is_left_unscaled():
    made = adapter("oracle-3b", 2)
    proprio = normal(100, 3)
    proprio[:, 1] = 0.3
    made.fit(normal(100, 2, 2), proprio)
    assert made.proprio_std[1] == 1
    assert made.proprio_mean[1] == pytest.approx(0.3)


def test_rounding_is_not_blown_up_and_small_units_are():
    """A joint that holds at 90 ± 1 unit in the last place of float32; one that moves by 1e-7; a feature of float16."""
    made, flicker = adapter("retina-1", 2), torch.arange(100) % 2
    proprio = normal(100, 3)
    proprio[:, 1] = 90 + flicker * float(np.spacing(np.float32(90)))
    proprio[:, 2] *= 1e-7
    features = normal(100, 2, 2)
    features[..., 1] = 200 + flicker[:, None] * 2**-3
    made.fit(features.half(), proprio)
    assert made.proprio_std[1] == 1
    assert made.proprio_std[2] == pytest.approx(1e-7, rel=0.3)
    assert made.std[:, 1].tolist() == [1, 1]
    torch.testing.assert_close(made.std[:, 0], features.half().float().std(0)[:, 0])


@torch.no_grad()
def test_float16_features_count_as_their_float32_values():
    made, task = adapter("retina-1", 3), torch.zeros(2, dtype=torch.long)
    half, p = torch.rand(2, 2, 2, 3).half(), normal(2, 2, 3)
    made.fit(torch.rand(50, 2, 3).half(), normal(50, 3))
    assert torch.equal(made(half, p, task), made(half.float(), p, task))


@torch.no_grad()
def test_each_token_holds_what_its_place_says():
    """Camera c at step t is token 2·t + c, proprioception at step t is 4 + t, the task is the last."""
    made = adapter("oracle-3b", 5)
    x, p, task = normal(1, 2, 2, 5), normal(1, 2, 3, seed=1), torch.tensor([1])
    before = made(x, p, task)

    def changed(x=x, p=p, task=task):
        return (made(x, p, task) != before).any(-1)[0].nonzero()[:, 0].tolist()

    for t in range(2):
        for c in range(2):
            other = x.clone()
            other[:, t, c] += 1
            assert changed(x=other) == [2 * t + c]
        other = p.clone()
        other[:, t] += 1
        assert changed(p=other) == [4 + t]
    assert changed(task=torch.tensor([2])) == [6]


@torch.no_grad()
def test_a_trained_encoder_has_a_network_per_camera():
    made = adapter("resnet18", 64).eval()
    assert len(made.networks) == 2
    images = torch.randint(0, 256, (2, 2, 2, 40, 40, 3), dtype=torch.uint8)
    p, task = normal(2, 2, 3), torch.zeros(2, dtype=torch.long)
    out = made(images, p, task)
    for c in range(2):
        for t in range(2):
            alone = made.visual(made.networks[c](images[:, t, c])) + made.visual_position[t, c]
            torch.testing.assert_close(out[:, 2 * t + c], alone, rtol=1e-3, atol=1e-5)
    made.fit(None, normal(50, 3))
    assert made.mean.abs().max() == 0
    assert (made.std == 1).all()


# How the task enters


def conditioned(conditioning, instructions=None):
    torch.manual_seed(0)
    return ContextAdapter(
        make_encoder("oracle-3b", cameras=2),
        cameras=2,
        feature_dim=5,
        proprio_dim=3,
        tasks=4,
        n_obs_steps=2,
        width=16,
        conditioning=conditioning,
        instructions=instructions,
    )


@torch.no_grad()
@pytest.mark.parametrize(
    ("conditioning", "tokens", "touched"), [("embedding", 7, [6]), ("index", 6, [4, 5]), ("text", 7, [6])]
)
def test_the_task_changes_its_tokens_and_no_other(conditioning, tokens, touched):
    """A token of its own; or, as an index, part of the robot's state at each step."""
    instructions = torch.nn.functional.normalize(normal(4, 9), dim=-1) if conditioning == "text" else None
    made = conditioned(conditioning, instructions)
    x, p = normal(1, 2, 2, 5), normal(1, 2, 3, seed=1)
    found = [made(x, p, torch.tensor([i]))[0] for i in range(4)]
    assert made.tokens == tokens == len(found[0])
    for i in range(4):
        for j in range(i):
            assert (found[i] != found[j]).any(-1).nonzero()[:, 0].tolist() == touched


@torch.no_grad()
def test_the_index_is_a_number_between_minus_one_and_one_behind_the_robot_s():
    made = conditioned("index")
    made.fit(normal(50, 2, 5), normal(50, 3, seed=1))
    x, p = normal(4, 2, 2, 5), normal(4, 2, 3, seed=2)
    numbers = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
    robot = torch.cat(
        [(p - made.proprio_mean) / made.proprio_std, numbers[:, None, None].expand(4, 2, 1)], -1
    )
    own = made.proprio(robot) + made.proprio_position
    torch.testing.assert_close(made(x, p, torch.arange(4))[:, 4:], own)


@torch.no_grad()
def test_the_text_token_is_a_linear_layer_on_the_embedding():
    instructions = torch.nn.functional.normalize(normal(4, 9), dim=-1)
    made = conditioned("text", instructions)
    token = made(normal(2, 2, 2, 5), normal(2, 2, 3), torch.tensor([3, 0]))[:, -1]
    expected = made.task.linear(3 * instructions[[3, 0]])  # √9
    torch.testing.assert_close(token, expected)
    assert not any("table" in n for n in made.state_dict())  # it lies in a file of its own
    assert not any("table" in n for n, _ in made.named_parameters())


def test_text_needs_an_instruction_for_each_task():
    for instructions in (None, normal(3, 9)):
        with pytest.raises(ValueError, match="'text' on 4 tasks needs their instructions"):
            conditioned("text", instructions)
