"""How the task enters a policy: each way is learned, survives a round trip, and text needs no tower to load."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from compression_gap.demos import DemoSet, DemoWriter, Normaliser
from compression_gap.encoders import make_encoder, text
from compression_gap.encoders.cache import frame_batch
from compression_gap.encoders.text import Instructions, embed, prepare_text, resolve_text
from compression_gap.errors import UserError
from compression_gap.policies import Policy
from compression_gap.policies.card import Card, write_card
from compression_gap.policies.train import TrainingSpec, train_policy
from compression_gap.sims import Observation

TASKS = ("push", "reach", "place")
WORDS = ("push the block", "reach the red bowl", "place the bowl on the plate")
AIMS = np.array([[1.0, 0.0], [-1.0, 0.5], [0.0, -1.0]])  # what each task's actions are


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Three tasks whose frames look alike: what to do is told by the task alone."""
    folder, rng = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)
    writer = DemoWriter(folder, source={})
    for episode in range(60):
        number = episode % 3
        steps = range(5)
        seen = [
            Observation(
                images={"front": np.zeros((1, 1, 16, 16, 3), np.uint8)},
                proprio=rng.normal(0, 1, (1, 1, 2)).astype(np.float32),
                task=np.zeros(1, np.int64),
            )
            for _ in steps
        ]
        writer.add(TASKS[number], episode, seen, [AIMS[number] + rng.normal(0, 0.1, 2) for _ in steps])
    writer.close()
    return DemoSet.load(folder)


@pytest.fixture(scope="module")
def instructions(text_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    prepare_text(resolve_text(f"folder:{text_checkpoint[0]}"), WORDS, folder)
    return Instructions.load(folder)


def spec(task, steps):
    return {
        "sim": "plane",
        "encoder": "blind",
        "head": "regression",
        "size": "xs",
        "horizon": 4,
        "n_obs_steps": 1,
        "tasks": TASKS,
        "seed": 0,
        "options": {},
        "training": {
            "steps": steps, "batch_size": 32, "lr": 2e-3, "encoder_lr": 1e-3, "warmup": 5, "weight_decay": 0.0,
            "schedule": "cosine", "validations": 1,
        },
    } | ({} if task == "embedding" else {"task": task})  # fmt: skip


def trained(demos, task, instructions, out, steps=400):
    frames = np.concatenate([np.arange(e.start, e.start + e.length) for e in demos.split("train")])
    normaliser = Normaliser.fit(demos.actions[frames])
    features = [make_encoder("blind", cameras=1).features(frame_batch(demos, slice(None)))[:, 0]]
    given = instructions if task == "text" else None
    what = TrainingSpec(**spec(task, steps))
    train_policy(what, [demos], features, normaliser, None, None, instructions=given, out=out)
    return Policy.load(out)


def asked(*numbers):
    return Observation(
        images={"front": np.zeros((len(numbers), 1, 16, 16, 3), np.uint8)},
        proprio=np.zeros((len(numbers), 1, 2), np.float32),
        task=np.array(numbers),
    )


def acts(policy, *numbers):
    return policy.act(asked(*numbers), np.arange(len(numbers))).chunk


@pytest.mark.parametrize("task", ["embedding", "index", "text"])
def test_every_way_tells_the_tasks_apart(tasks, instructions, tmp_path, task):
    policy = trained(tasks, task, instructions, tmp_path)
    chunks = acts(policy, 0, 1, 2)
    for number in range(3):
        assert np.abs(chunks[number] - AIMS[number]).mean() < 0.3
    assert policy.spec.task == task
    about = json.loads((tmp_path / "policy.json").read_text())
    assert about.get("task", "embedding") == task
    assert ("task" in about) == (task != "embedding")  # folders of before this choice lack it
    assert policy.on_tasks(("place", "push")) is policy
    np.testing.assert_allclose(acts(policy, 1, 0), chunks[[0, 2]], atol=1e-6)


def test_a_text_policy_s_folder_stands_alone(tasks, instructions, tmp_path, monkeypatch):
    """It is loaded, shared and loaded again without the tower; the copy acts as the original does, to the bit."""
    monkeypatch.setattr(text, "_tower", lambda pin: pytest.fail("the tower was asked for"))
    (tmp_path / "own").mkdir()
    policy = trained(tasks, "text", instructions, tmp_path / "own", steps=8)
    np.testing.assert_array_equal(policy.module.instructions.table, instructions.table)
    shared = Policy.from_pretrained(policy.save_pretrained(tmp_path / "shared"))
    assert shared.module.instructions.texts == WORDS
    assert torch.equal(shared.module.adapter.task.table, torch.from_numpy(instructions.table))
    np.testing.assert_array_equal(acts(shared, 0, 1, 2), acts(policy, 0, 1, 2))
    sums = json.loads((tmp_path / "shared" / "checksums.json").read_text())
    assert {"text/text.json", "text/text.safetensors"} <= set(sums)
    card = (tmp_path / "shared" / "README.md").read_text()
    assert "task conditioning | text: instructions embedded by folder:" in card
    assert card == write_card(policy.facts(), Card())


def test_a_damaged_or_missing_table_is_a_sentence(tasks, instructions, tmp_path):
    trained(tasks, "text", instructions, tmp_path, steps=2)
    file = tmp_path / "text" / "text.json"
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"texts": about["texts"][:2]}))
    with pytest.raises(
        UserError, match=r"no instructions that can be read .2 instructions, and a table .3, 12"
    ):
        Policy.load(tmp_path)
    shutil.rmtree(tmp_path / "text")
    with pytest.raises(UserError, match="holds no instructions that can be read"):
        Policy.load(tmp_path)


def test_a_new_instruction_gets_a_number(tasks, instructions, tmp_path):
    """Words that it knows stand for their task; new ones are embedded by the tower that it was trained with."""
    policy = trained(tasks, "text", instructions, tmp_path, steps=30)
    before = acts(policy, 0, 1, 2)
    known = policy.instruct(" reach the  red bowl")
    new = policy.instruct("push the bowl")
    assert (known, new) == (3, 4)
    chunks = acts(policy, 0, 1, 2, known, new)
    np.testing.assert_allclose(chunks[:3], before, atol=1e-6)
    np.testing.assert_allclose(chunks[3], before[1], atol=1e-6)
    row = torch.from_numpy(embed(instructions.pin, ["push the bowl"])[0])
    with torch.no_grad():
        token = policy.module.adapter.task.linear(row * 12**0.5)
        own = policy.module.adapter(
            torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 2), torch.from_numpy(policy.task_index[[new]])
        )
    torch.testing.assert_close(own[0, -1], token)
    assert np.abs(chunks[4] - chunks[:3]).max(axis=(1, 2)).min() > 1e-4


def test_without_the_tower_a_new_instruction_is_a_sentence(tasks, instructions, tmp_path):
    gone = Instructions(
        instructions.texts,
        instructions.table,
        replace(instructions.pin, source={"folder": str(tmp_path / "gone"), "sha256": "0"}),
    )
    policy = trained(tasks, "text", gone, tmp_path, steps=2)
    assert policy.instruct(WORDS[2]) == 3
    with pytest.raises(
        UserError, match=r"policy.text_encoder: .*gone has changed or gone since it was prepared"
    ):
        policy.instruct("open the drawer")


def test_a_policy_without_text_takes_no_instructions(tasks, tmp_path):
    policy = trained(tasks, "index", None, tmp_path, steps=2)
    with pytest.raises(
        UserError, match=re.escape("knows tasks by their index, not by instructions: push, reach")
    ):
        policy.instruct("push")
