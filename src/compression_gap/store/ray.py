"""The engine of a Ray cluster (extra ``ray``): a step is a task on the node that ``Placement`` chose for it.

The nodes share the store's folder, or reach it by a URL (``remote``). A node that is lost has its steps built by others,
a training from its last checkpoint. The cluster keeps nothing: the local engine goes on where this one stopped.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UserError
from ..extras import install
from .artifact import AGAIN, Artifact, Needs
from .engine import attempt
from .outcome import failure_record
from .placement import Node, Placement
from .remote import open_store
from .schedule import Report, Schedule, stopping_at_interrupt
from .store import Store

LOOK_AT_NODES = 2.0  # seconds between two looks at which nodes are there
NOTE = 1.0  # seconds between two notes of a step's progress, or two looks whether it should stop


@dataclass(frozen=True)
class OnRay:
    """The engine. ``address``: "auto", "HOST:PORT", or None: Ray is started on this machine and ended again.

    ``prepare``: called in each process of the cluster before it builds anything.
    """

    address: str | None = None
    prepare: Callable[[], None] | None = None

    def run(self, schedule: Schedule) -> None:
        """As an engine does. Raises ``UserError`` without Ray, or without a cluster at the address."""
        with _connected(self.address) as ray, _marked(schedule.store) as mark:
            Tasks(ray, schedule, Visit(schedule.store.address, mark, self.prepare)).run()


@dataclass(frozen=True)
class Visit:
    """What a process of the cluster is told. ``mark``: a file's name, which only who sees the same folder finds."""

    store: str
    mark: str
    prepare: Callable[[], None] | None

    def open(self) -> Store:
        """The store, once in a process."""
        return _opened(self)


@cache
def _opened(visit: Visit) -> Store:
    if visit.prepare is not None:
        visit.prepare()
    place = Path(visit.store)
    if visit.mark and not (place / "tmp" / visit.mark).exists():
        raise UserError(
            f"the node {os.uname().nodename} does not see the store {place}: use a folder that all nodes share, or a URL"
        )
    return open_store(visit.store)


class Board:
    """Where steps write how far they are, and read whether they should stop: an actor of the cluster."""

    def __init__(self) -> None:
        self.notes: dict[str, tuple[int, int]] = {}
        self.stopped = False

    def note(self, key: str, done: int, total: int) -> None:
        """A step has done so much."""
        self.notes[key] = done, total

    def news(self) -> dict[str, tuple[int, int]]:
        """What was noted since the last time."""
        notes, self.notes = self.notes, {}
        return notes

    def stop(self) -> None:
        """Steps are to end at their next checkpoint."""
        self.stopped = True

    def should_stop(self) -> bool:
        """Whether they are."""
        return self.stopped


class Tasks:
    """The steps that the cluster builds for one run."""

    def __init__(self, ray: ModuleType, schedule: Schedule, visit: Visit) -> None:
        self.ray, self.schedule, self.visit = ray, schedule, visit
        shared = type(schedule.store) is Store
        self.placement = Placement(schedule, local=not shared)
        self.tasks: dict[Any, Artifact] = {}
        self.looked = self.told = 0.0
        # If its node is lost it begins anew elsewhere: notes come again, and a run that stops says so again and again.
        self.board = (
            ray.remote(num_cpus=0, max_restarts=-1)(Board)
            .options(scheduling_strategy=self._on(_own_node(ray)))
            .remote()
        )
        self.build = ray.remote(max_retries=0)(_build)

    def run(self) -> None:
        """Give out ready steps until none is left, or the budget is spent."""
        try:
            with stopping_at_interrupt(self.schedule, self._stop):
                while self.schedule.go_on():
                    if self.schedule.should_stop():
                        self._stop()
                    self._look_at_nodes()
                    for step, node, share in self.placement.place():
                        self.tasks[self._submit(step, node, share)] = step
                    self._listen()
        finally:
            for task in self.tasks:
                with suppress(Exception):
                    self.ray.cancel(task, force=True)

    def _submit(self, step: Artifact, node: Node, share: Needs) -> Any:
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "memory": share.memory, "name": step.label}
        return self.build.options(scheduling_strategy=self._on(node.name), **options).remote(
            step, self.visit, self.board, max(1, int(share.cpus))
        )

    def _on(self, node: str) -> Any:
        strategies = self.ray.util.scheduling_strategies
        return strategies.NodeAffinitySchedulingStrategy(node, soft=True)

    def _stop(self) -> None:
        self.board.stop.remote()

    def _look_at_nodes(self) -> None:
        if time.monotonic() - self.looked < LOOK_AT_NODES and self.placement.nodes:
            return
        self.looked = time.monotonic()
        alive = {n["NodeID"]: n["Resources"] for n in self.ray.nodes() if n["Alive"]}
        for name in self.placement.nodes.keys() - alive.keys():
            print(f"the Ray node {name[:8]} is gone; its steps are built by others", file=sys.stderr)
            self.placement.remove(name)
        for name, has in alive.items():
            if name not in self.placement.nodes and has.get("CPU"):
                needs = Needs(float(has["CPU"]), float(has.get("GPU", 0.0)), int(has.get("memory", 0)))
                self.placement.add(name, needs)

    def _listen(self) -> None:
        if not self.tasks:
            if not self.schedule.stopping:
                time.sleep(AGAIN)  # what is left, another run builds; or no node is there yet
            return
        ready, _ = self.ray.wait(list(self.tasks), timeout=AGAIN)
        for task in ready:
            self._ended(self.tasks.pop(task), task)
        if time.monotonic() - self.told > NOTE:
            self.told = time.monotonic()
            under_way = {s.key: s for s in self.tasks.values()}
            with suppress(self.ray.exceptions.RayError):  # it is on its way to another node
                for key, note in self.ray.get(self.board.news.remote(), timeout=NOTE).items():
                    if key in under_way:
                        self.schedule.watcher.progress(under_way[key], *note)

    def _ended(self, step: Artifact, task: Any) -> None:
        lost = self.ray.exceptions
        try:
            report = self.ray.get(task)
        except lost.NodeDiedError:
            self.placement.left(step)
            self.schedule.again(step)
        except (lost.WorkerCrashedError, lost.OutOfMemoryError, lost.LocalRayletDiedError) as error:
            self.placement.left(step)
            self.schedule.died(step, f"({type(error).__name__})")
        except lost.RayError as error:
            self.placement.left(step)
            self.schedule.failed(step, failure_record(step, error))
        else:
            self.placement.went(step, report)


def _build(step: Artifact, visit: Visit, board: Any, threads: int) -> Report:
    """Build one step, in a process of the cluster."""
    import ray
    import torch

    torch.set_num_threads(threads)
    noted = looked = time.monotonic()
    stopped = False

    def progress(done: int, total: int) -> None:
        nonlocal noted
        if time.monotonic() - noted > NOTE:
            noted = time.monotonic()
            board.note.remote(step.key, done, total)

    def should_stop() -> bool:
        nonlocal looked, stopped
        if not stopped and time.monotonic() - looked > NOTE:
            looked = time.monotonic()
            with suppress(ray.exceptions.RayError):  # as in ``Tasks._listen``
                stopped = ray.get(board.should_stop.remote(), timeout=NOTE)
        return stopped

    try:
        store = visit.open()
    except Exception as error:
        return "failed", failure_record(step, error)
    return attempt(step, store, progress, should_stop)


def _own_node(ray: ModuleType) -> str:
    node: str = ray.get_runtime_context().get_node_id()
    return node


@contextmanager
def _connected(address: str | None) -> Iterator[ModuleType]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study reports to nobody
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise UserError(f"--engine ray needs Ray: {install('ray')}") from error
    if ray.is_initialized():
        yield ray
        return
    options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
    try:
        if host := re.fullmatch(r"([\w.-]+):(\d+)", address or ""):
            socket.create_connection(
                (host[1], int(host[2])), timeout=10
            ).close()  # Ray itself tries for minutes
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(
            f"no Ray cluster can be joined at '{address or 'this machine'}' ({words}): start one with 'ray start --head', "
            "with the same versions of Python and Ray, and the same token"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _marked(store: Store) -> Iterator[str]:
    """A file in the store's folder, by which a node knows it; none of a store that has a URL."""
    if type(store) is not Store:
        yield ""
        return
    mark = store.root / "tmp" / f"seen.{uuid.uuid4().hex}"
    mark.parent.mkdir(exist_ok=True)
    mark.touch()
    try:
        yield mark.name
    finally:
        mark.unlink(missing_ok=True)
