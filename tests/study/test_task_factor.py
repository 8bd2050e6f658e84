"""Task conditioning as a factor of a study: from the file to the report's labels."""

from dataclasses import asdict

import pytest

from compression_gap.encoders.text import Instructions
from compression_gap.policies import Policy
from compression_gap.report.page import render_page
from compression_gap.results.summary import summarise
from compression_gap.rollouts.pools import close_pools
from compression_gap.store.engine import InProcess, run_plan
from compression_gap.store.store import Store
from compression_gap.study.file import parse_study
from compression_gap.study.plan import make_plan

FILE = """\
name: ways
suite: channel
cameras: {{image_size: 16}}
factors: {{encoder: [retina-4], action: [regression], seed: [0], demos: [6], task: {ways}}}
training: {{steps: 4, batch_size: 8, warmup: 2, validations: 4}}
policy: {{text_encoder: "folder:{tower}"}}
rollout: {{execute: 16, episodes_per_task: 2}}
references: false
limits: false
"""


class Quiet:
    def started(self, step):
        pass

    def progress(self, step, done, total):
        pass

    def finished(self, step, seconds):
        pass

    def failed(self, step, record):
        pass


@pytest.fixture(scope="module")
def ways(tmp_path_factory, text_checkpoint):
    """A study of all three ways, run."""
    plan = make_plan(
        parse_study(FILE.format(ways="[embedding, index, text]", tower=text_checkpoint[0]), "test")
    )
    store = Store(tmp_path_factory.mktemp("ways") / "store")
    outcome = run_plan(plan, store, engine=InProcess(), watcher=Quiet())
    close_pools()
    assert not outcome.failures, outcome.failures
    return plan, store


def test_labels_show_the_way_where_there_are_several(ways, text_checkpoint):
    plan, store = ways
    summary = summarise(plan, store)
    assert [(c.label, c.task) for c in summary.cells] == [
        ("regression · retina-4 · task as embedding", "embedding"),
        ("regression · retina-4 · task as index", "index"),
        ("regression · retina-4 · task as text", "text"),
    ]
    assert "task as text" in render_page(summary)
    one = make_plan(parse_study(FILE.format(ways="[text]", tower=text_checkpoint[0]), "test"))
    assert [c.label for c in summarise(one, store).cells] == ["regression · retina-4"]


def test_cells_of_one_way_are_no_replicates_of_another(ways):
    plan, _ = ways
    assert len({c.levels for c in plan.cells}) == 3
    assert len({c.evidence.key for c in plan.cells}) == 3


def test_the_artefacts_hold_the_table_and_the_policy_its_copy(ways):
    plan, store = ways
    (step,) = [s for s in plan.steps.values() if s.recipe.kind == "text"]
    made = Instructions.load(store.open(step.recipe))
    assert (made.texts, made.table.shape) == (("reach",), (1, 12))
    (cell,) = [c for c in plan.cells if c.task == "text"]
    policy = Policy.load(store.open(cell.policy))
    assert (policy.module.instructions.table == made.table).all()
    assert asdict(policy.module.instructions.pin) == step.recipe.spec["pin"]
