"""The engine of a Ray cluster, on a real cluster of two nodes on this machine: the same artefacts, whatever dies."""

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from plain_steps import Piece, Quiet, graph

ray = pytest.importorskip("ray")
from ray.cluster_utils import Cluster  # noqa: E402

from compression_gap.errors import UserError  # noqa: E402
from compression_gap.store.engine import InProcess, missing_steps, run_plan  # noqa: E402
from compression_gap.store.ray import OnRay  # noqa: E402
from compression_gap.store.remote import RemoteStore  # noqa: E402
from compression_gap.store.store import Store  # noqa: E402
from compression_gap.store.workers import Workers  # noqa: E402


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head without cores of its own, and what tests add to it; its processes find the tests' steps."""
    path = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    os.environ["COMPRESSION_GAP_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.fixture
def nodes(cluster):
    """Two nodes of a core each."""
    added = [cluster.add_node(num_cpus=1, memory=8 * 2**30) for _ in range(2)]
    cluster.wait_for_nodes()
    yield added
    ray.shutdown()
    for node in added:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def files(store, plan):
    return {
        s.label: {n: f["sha256"] for n, f in store.manifest(s)["files"].items()} for s in plan.steps.values()
    }


def tree():
    leaves = [Piece(number=i) for i in range(4)]
    pairs = [Piece(number=10 + i, of=(leaves[i], leaves[i + 1])) for i in range(3)]
    return graph([*leaves, *pairs, Piece(number=20, of=tuple(pairs))])


def test_a_cluster_builds_what_this_process_builds(cluster, nodes, tmp_path):
    here, there, watcher = Store(tmp_path / "here"), Store(tmp_path / "there"), Quiet()
    run_plan(tree(), here, engine=InProcess(), watcher=Quiet())
    outcome = run_plan(tree(), there, engine=OnRay(cluster.address), watcher=watcher)
    assert not outcome.failures
    assert sorted(outcome.built) == sorted(tree().steps)
    assert not outcome.stopped
    assert files(there, tree()) == files(here, tree())
    assert list((tmp_path / "there" / "tmp").iterdir()) == []
    assert missing_steps(tree(), there) == []
    pids = {there.meta(s)["pid"] for s in tree().steps.values()}
    assert os.getpid() not in pids


def test_failures_and_needs_are_told_as_by_the_local_engine(cluster, nodes, tmp_path):
    bad, good = Piece(number=0, fails="by hand"), Piece(number=1, gpus=1.0)  # no node has a GPU: cores do
    last = Piece(number=2, of=(bad, good))
    plan, store, watcher = graph([bad, good, last], goals=[last, good]), Store(tmp_path), Quiet()
    outcome = run_plan(plan, store, engine=OnRay(cluster.address), watcher=watcher)
    assert outcome.built == [good.key]
    assert watcher.sentences == ["ValueError: by hand"]
    assert outcome.failures[last.key]["because"] == bad.key
    assert "by hand" in outcome.failures[bad.key]["traceback"]


class KillsANode(Quiet):
    """When two steps wait at the gate, a node is killed; when one was given out again, the gate is opened."""

    def __init__(self, cluster, node, gate):
        super().__init__()
        self.cluster, self.node, self.gate = cluster, node, gate

    def started(self, step):
        super().started(step)
        if len(self.begun) == 2:
            threading.Thread(target=self.kill).start()
        if len(self.begun) == 3:
            self.gate.touch()

    def kill(self):
        while len(list(self.gate.parent.glob("gate.*"))) < 2:
            time.sleep(0.05)
        self.cluster.remove_node(self.node, allow_graceful=False)


def test_the_steps_of_a_lost_node_are_built_by_another_one(cluster, nodes, tmp_path):
    gate = tmp_path / "gate"
    steps = [Piece(number=i, gate=str(gate)) for i in range(2)]
    plan = graph([*steps, Piece(number=9, of=tuple(steps))])
    store, watcher = Store(tmp_path / "store"), KillsANode(cluster, nodes[1], gate)
    outcome = run_plan(plan, store, engine=OnRay(cluster.address), watcher=watcher)
    assert not outcome.failures
    assert sorted(outcome.built) == sorted(plan.steps)  # each once
    assert len(watcher.begun) == 4


def test_a_process_that_is_killed_is_replaced_twice(cluster, nodes, tmp_path):
    step = Piece(number=0, fails="signal")
    watcher, store = Quiet(), Store(tmp_path)
    outcome = run_plan(graph([step]), store, engine=OnRay(cluster.address), watcher=watcher)
    assert watcher.begun == ["piece 0"] * 3
    assert "the worker of 'piece 0' died three times (WorkerCrashedError)" in watcher.sentences[0]
    assert outcome.failures[step.key]["kind"] == "crash"


def test_a_node_that_does_not_see_the_folder_says_so(cluster, nodes, tmp_path, monkeypatch):
    from compression_gap.store import ray as module

    @contextmanager
    def elsewhere(store):
        yield "seen.nowhere"

    monkeypatch.setattr(module, "_marked", elsewhere)
    watcher = Quiet()
    run_plan(graph([Piece(number=0)]), Store(tmp_path), engine=OnRay(cluster.address), watcher=watcher)
    assert "does not see the store" in watcher.sentences[0]
    assert "use a folder that all nodes share, or a URL" in watcher.sentences[0]


class Stops(Quiet):
    """Ctrl-C, once so many steps are done and one waits at its gate."""

    def __init__(self, done, waiting):
        super().__init__()
        self.at, self.waiting = done, waiting

    def finished(self, step, seconds):
        super().finished(step, seconds)
        if len(self.done) == self.at:
            while not self.waiting.exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)


def test_after_ctrl_c_what_is_under_way_ends_and_the_local_engine_goes_on(cluster, nodes, tmp_path):
    gate = tmp_path / "gate"
    steps = [Piece(number=0), Piece(number=1, gate=str(gate)), Piece(number=2)]
    plan, store = graph([*steps, Piece(number=9, of=tuple(steps))]), Store(tmp_path / "store")
    watcher = Stops(2, tmp_path / "gate.1")
    outcome = run_plan(plan, store, engine=OnRay(cluster.address), watcher=watcher)
    assert outcome.stopped
    assert outcome.interrupted
    assert {steps[0].key, steps[2].key} == set(outcome.built)
    gate.touch()
    outcome = run_plan(plan, store, engine=Workers(2), watcher=Quiet())
    assert set(outcome.built) == {steps[1].key, plan.wanted[0].key}


def test_nodes_without_the_folder_fetch_their_inputs_from_a_url(cluster, nodes, tmp_path, monkeypatch):
    store, watcher = RemoteStore(f"file://{tmp_path}/bucket"), Quiet()
    outcome = run_plan(tree(), store, engine=OnRay(cluster.address), watcher=watcher)
    assert not outcome.failures
    assert sorted(outcome.built) == sorted(tree().steps)
    run_plan(tree(), here := Store(tmp_path / "here"), engine=InProcess(), watcher=Quiet())
    assert files(store, tree()) == files(here, tree())
    monkeypatch.setenv("COMPRESSION_GAP_CACHE", str(tmp_path / "another machine"))
    again = RemoteStore(f"file://{tmp_path}/bucket")
    assert tree().wanted[0].value(again) == tree().wanted[0].value(here)
    assert missing_steps(tree(), again) == []


def test_no_cluster_at_the_address_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"no Ray cluster can be joined at '127\.0\.0\.1:1'"):
        run_plan(graph([Piece(number=0)]), Store(tmp_path), engine=OnRay("127.0.0.1:1"), watcher=Quiet())
