"""Prepared encoders in a plan, and run from nothing to a policy that is loaded by itself."""

import json
import shutil

import numpy as np
import pytest

from compression_gap.encoders import make_encoder
from compression_gap.errors import UserError
from compression_gap.policies import Policy
from compression_gap.rollouts.pools import close_pools
from compression_gap.store.engine import InProcess, run_plan
from compression_gap.store.store import Store
from compression_gap.study import encoders
from compression_gap.study.file import parse_study
from compression_gap.study.plan import make_plan

STUDY = """\
name: prepared
suite: channel
cameras: {{image_size: 16}}
factors: {{encoder: [{}], action: [diffusion], seed: [0], demos: [6]}}
training: {{steps: 6, batch_size: 8, warmup: 2, validations: 4}}
policy: {{sampling_steps: 2}}
rollout: {{execute: 16, episodes_per_task: 3}}
references: false
limits: false
"""


def write_checkpoint(folder):
    """A small SigLIP, as transformers saves it."""
    import transformers

    size = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.SiglipVisionConfig(**size, image_size=16, patch_size=8)
    transformers.SiglipVisionModel(config).save_pretrained(folder)


class Quiet:
    """A watcher that keeps sentences of failures."""

    def __init__(self):
        self.sentences = []

    def started(self, step): ...

    def progress(self, step, done, total): ...

    def finished(self, step, seconds): ...

    def failed(self, step, record):
        self.sentences.append(record["sentence"])


def plan_of(*names):
    return make_plan(parse_study(STUDY.format(", ".join(f"'{n}'" for n in names)), "test"))


def run(plan, folder):
    store, quiet = Store(folder), Quiet()
    outcome = run_plan(plan, store, engine=InProcess(), watcher=quiet)
    close_pools()
    assert not outcome.failures, quiet.sentences
    return store


def steps(plan, kind):
    return [s for s in plan.steps.values() if s.kind == kind]


def test_rungs_share_their_frames_and_differ_in_nothing_else():
    plan = plan_of("pose-0", "pose-300", "pose-1k")
    none, few, many = steps(plan, "encoder")
    assert (len(none.inputs), len(few.inputs), len(many.inputs)) == (0, 2, 3)  # blocks of 500, one held out
    assert few.inputs.items() <= many.inputs.items()
    assert len(steps(plan, "frames")) == 3
    drop = {"encoder", "shares"}
    assert {k: v for k, v in few.recipe.spec.items() if k not in drop} == {
        k: v for k, v in many.recipe.spec.items() if k not in drop
    }
    assert (few.recipe.spec["shares"], many.recipe.spec["shares"]) == ([300], [1000])
    for cell in plan.cells:
        needs = plan.steps[cell.policy.key].inputs
        assert needs["encoder"].spec["encoder"] == cell.encoder
        assert needs["features/0"].inputs["encoder"] == needs["encoder"]


def test_a_rung_runs_from_nothing_to_a_policy_that_stands_alone(tmp_path, monkeypatch):
    short = {**encoders.PRETRAINING, "steps": 10, "batch_size": 8}
    monkeypatch.setattr(encoders, "PRETRAINING", short)
    plan = plan_of("pose-20")
    store = run(plan, tmp_path / "store")
    (cell,) = plan.cells
    shutil.copytree(store.path(cell.policy), tmp_path / "alone")
    shutil.move(tmp_path / "store", tmp_path / "gone")
    policy = Policy.load(tmp_path / "alone")
    assert policy.encoder.name == "pose-20"
    chunk = policy.act(policy.example(), np.zeros(1, np.int64)).chunk
    again = Policy.load(tmp_path / "alone").act(policy.example(), np.zeros(1, np.int64)).chunk
    np.testing.assert_array_equal(chunk, again)
    policy.save_pretrained(tmp_path / "shared")
    sums = json.loads((tmp_path / "shared" / "checksums.json").read_text())
    assert {"encoder/encoder.json", "encoder/encoder.safetensors"} <= sums.keys()
    shared = Policy.from_pretrained(tmp_path / "shared").act(policy.example(), np.zeros(1, np.int64)).chunk
    np.testing.assert_array_equal(chunk, shared)


def test_a_local_checkpoint_is_used_frozen_and_fine_tuned(tmp_path):
    write_checkpoint(tmp_path / "siglip")
    frozen = f"folder:{tmp_path / 'siglip'}"
    tuned = f"{frozen}+finetune1"
    plan = plan_of(frozen, tuned)
    assert [s.recipe.spec["encoder"] for s in steps(plan, "features")] == [frozen]
    store = run(plan, tmp_path / "store")
    cells = {c.encoder: c for c in plan.cells}
    # what the policy computes in a rollout is what was cached for its training, to fp16
    (step,) = steps(plan, "features")
    cached = np.load(store.path(step) / "features.npy", allow_pickle=False)
    policy = Policy.load(store.path(cells[frozen].policy))
    images = np.load(next(store.path(step.inputs["demos"]).glob("images-*.npy")), allow_pickle=False)[:5]
    seen = policy.example()
    seen = type(seen)(
        images={policy.spec.cameras[0]: images[:, None]}, proprio=np.zeros((5, 1, 1)), task=np.zeros(5, int)
    )
    np.testing.assert_allclose(policy.encoder.features(seen)[:, 0], cached[:5], rtol=2e-3, atol=2e-3)
    # the fine-tuned one carries its own weights, and they moved in the last block alone
    shutil.rmtree(tmp_path / "siglip")
    policy = Policy.load(store.path(cells[tuned].policy))
    assert policy.parameter_counts()["encoder"] > 0
    policy.act(policy.example(), np.zeros(1, np.int64))
    from compression_gap.encoders import pretrained

    pretrained._frozen_network.cache_clear()  # another process would not have it
    policy = Policy.load(store.path(cells[frozen].policy))
    with pytest.raises(UserError, match="has changed or gone since it was prepared"):
        policy.act(policy.example(), np.zeros(1, np.int64))


def test_a_checkpoint_that_changes_gives_other_artefacts(tmp_path):
    write_checkpoint(tmp_path / "model")
    name = f"folder:{tmp_path / 'model'}"
    before = plan_of(name)
    weights = tmp_path / "model" / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(bytes(changed))
    after = plan_of(name)
    kinds = {s.kind for k, s in after.steps.items() if k not in before.steps}
    assert kinds == {"encoder", "features", "probe", "policy", "episodes"}


def test_a_rung_needs_a_simulator_and_enough_frames():
    with pytest.raises(UserError, match="pose-5 has too few frames for 1 tasks"):
        plan_of("pose-5")
    with pytest.raises(ValueError, match="is made from its prepared folder"):
        make_encoder("pose-20", cameras=1)
