"""Kinds of artefacts: what is an input, what is specification, what stands in the key; building and registering."""

import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from pydantic import BaseModel

from compression_gap.errors import UserError
from compression_gap.store import artifact as module
from compression_gap.store.artifact import KINDS, Artifact, Job, build, elided, kind_named, role
from compression_gap.store.engine import InProcess, missing_steps, run_plan
from compression_gap.store.graph import Graph
from compression_gap.store.store import Recipe, Store, digest


class Shape(BaseModel):
    sides: int


@dataclass(frozen=True)
class Levels:
    low: float
    high: float


class Numbers(Artifact, kind="test-numbers", version=2):
    count: int
    shape: Shape = field(default_factory=lambda: Shape(sides=3))
    levels: Levels = Levels(0.5, 1.0)
    names: tuple[str, ...] = ()
    noise: float = elided(default=0.0)

    @property
    def label(self):
        return f"{self.count} numbers"

    def build(self, job: Job) -> Mapping[str, int]:
        np.save(job.out / "values.npy", np.arange(self.count), allow_pickle=False)
        job.progress(1, 1)
        return {"sum": int(np.arange(self.count).sum())}

    def load(self, store):
        return np.load(store.open(self) / "values.npy", allow_pickle=False)


class Doubled(Artifact, kind="test-doubled", version=1):
    factor: int
    numbers: tuple[tuple[Numbers, ...], ...]
    best: Numbers | None = role("first", default=None)

    @property
    def label(self):
        return "doubled"

    def build(self, job: Job) -> None:
        values = [n.load(job.store) for row in self.numbers for n in row]
        np.save(job.out / "values.npy", self.factor * np.concatenate(values), allow_pickle=False)


def test_the_recipe_says_what_the_fields_say():
    numbers = Numbers(count=2, names=("a", "b"))
    assert numbers.spec == {
        "count": 2,
        "shape": {"sides": 3},
        "levels": {"low": 0.5, "high": 1.0},
        "names": ["a", "b"],
    }
    doubled = Doubled(factor=2, numbers=((numbers,), (Numbers(count=3), numbers)), best=numbers)
    assert doubled.spec == {"factor": 2}
    assert list(doubled.inputs) == ["numbers/0/0", "numbers/1/0", "numbers/1/1", "first"]
    keys = {role: of.key for role, of in doubled.inputs.items()}
    assert doubled.recipe == Recipe("test-doubled", {"factor": 2}, keys, 1)
    assert doubled.key == digest(
        {"kind": "test-doubled", "spec": {"factor": 2}, "inputs": keys, "version": 1}
    )
    assert list(Doubled(factor=2, numbers=()).inputs) == []


def test_a_later_option_at_its_default_leaves_the_key_as_it_was():
    assert "noise" not in Numbers(count=2, noise=0.0).spec
    assert Numbers(count=2, noise=0.1).spec["noise"] == 0.1
    assert Numbers(count=2, noise=0.1).key != Numbers(count=2).key


def test_equal_keys_are_equal_artefacts():
    assert Numbers(count=2) == Numbers(count=2) != Numbers(count=3)
    assert len({Numbers(count=2), Numbers(count=2), Numbers(count=3)}) == 2
    assert Numbers(count=2) != "2 numbers"
    graph = Graph()
    first = graph.add(Numbers(count=2))
    assert graph.add(Numbers(count=2)) is first
    assert list(graph.steps) == [first.key]


@dataclass
class Wanted(Graph):
    goal: Artifact | None = None

    @property
    def wanted(self):
        return [self.goal]


class Silent:
    def started(self, step): ...
    def progress(self, step, done, total): ...
    def finished(self, step, seconds): ...
    def failed(self, step, record): ...


def test_what_is_missing_is_built_once_and_in_order(tmp_path):
    graph, store = Wanted(), Store(tmp_path)
    numbers = graph.add(Numbers(count=3))
    graph.add(Numbers(count=9))  # nothing needs it
    graph.goal = graph.add(Doubled(factor=2, numbers=((numbers, numbers),)))
    assert missing_steps(graph, store) == [numbers, graph.goal]
    outcome = run_plan(graph, store, engine=InProcess(), watcher=Silent())
    assert outcome.built == [numbers.key, graph.goal.key]
    assert (np.load(store.open(graph.goal) / "values.npy") == [0, 2, 4, 0, 2, 4]).all()
    assert store.meta(numbers)["sum"] == 3
    assert {"build_seconds", "machine"} <= store.meta(numbers).keys()
    assert missing_steps(graph, store) == []


def test_an_input_that_was_made_elsewhere_need_not_be_a_step(tmp_path):
    graph, store, numbers = Wanted(), Store(tmp_path), Numbers(count=3)
    graph.goal = graph.add(Doubled(factor=2, numbers=((numbers,),)))
    with pytest.raises(UserError, match=f"test-numbers {numbers.key} is no longer in the store"):
        missing_steps(graph, store)
    build(numbers, store, progress=lambda done, total: None, should_stop=lambda: False)
    assert missing_steps(graph, store) == [graph.goal]


def test_a_kind_is_one_file_and_one_registration(tmp_path, monkeypatch):
    """Another package's module: its class is the kind, and an entry point names the module."""
    (tmp_path / "their_kind.py").write_text(
        textwrap.dedent(
            '''
            from compression_gap.store.artifact import Artifact


            class Squared(Artifact, kind="their-squares", version=1):
                """The squares of the first numbers."""

                count: int

                @property
                def label(self):
                    return "squares"

                def build(self, job):
                    (job.out / "squares.txt").write_text(" ".join(str(i * i) for i in range(self.count)))
            '''
        )
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    class Entry:
        name = "their-squares"

        def load(self):
            __import__("their_kind")

    monkeypatch.setattr(module.metadata, "entry_points", lambda group: [Entry()])
    try:
        squared = kind_named("their-squares")(count=4)
        store = Store(tmp_path / "store")
        build(squared, store, progress=lambda done, total: None, should_stop=lambda: False)
        assert (store.open(squared) / "squares.txt").read_text() == "0 1 4 9"
        with pytest.raises(UserError, match=r"unknown kind of artefact 'their-cubes' .did you mean"):
            kind_named("their-cubes")
    finally:
        KINDS.pop("their-squares", None)
        sys.modules.pop("their_kind", None)
