"""Where a step runs: the nodes of a cluster with their cores, GPUs and memory, and what was built on each.

A step that needs a GPU goes to a node that has one, beside others up to the whole of it; where no node has any, to
cores. A step without such a need, a simulator above all, stays on the nodes without GPUs, where there are some. A node
first takes what needs artefacts that were built on it. The work for a step grows neither with the number of steps nor
with that of nodes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .artifact import Artifact, Needs
from .schedule import Report, Schedule

SLACK = 1e-6  # of sums of fractions


@dataclass(eq=False)
class Node:
    """A machine of a cluster: what it has, and what is free of it."""

    name: str
    has: Needs
    free: Needs = field(init=False)
    steps: int = 0
    near: deque[Artifact] = field(default_factory=deque)  # steps that need what was built on it

    def __post_init__(self) -> None:
        self.free = self.has

    def room_for(self, needs: Needs) -> bool:
        """Whether a step fits beside the node's own; one that is too large for any node has one for itself."""
        if needs.gpus and not self.has.gpus:
            return False
        free = self.free
        fits = needs.cpus <= free.cpus + SLACK and needs.gpus <= free.gpus + SLACK
        return not self.steps or (fits and needs.memory <= free.memory)

    def share(self, needs: Needs) -> Needs:
        """What of the node a step is given."""
        has = self.has
        return Needs(min(needs.cpus, has.cpus), min(needs.gpus, has.gpus), min(needs.memory, has.memory))

    def give(self, share: Needs, sign: int = 1) -> None:
        """A step takes its share, or with ``sign`` −1 gives it back."""
        free = self.free
        self.free = Needs(
            free.cpus - sign * share.cpus, free.gpus - sign * share.gpus, free.memory - sign * share.memory
        )
        self.steps += sign


class Placement:
    """The nodes, and which of them builds what of a schedule. ``local``: whether it matters where inputs were built."""

    def __init__(self, schedule: Schedule, *, local: bool) -> None:
        self.schedule, self.local = schedule, local
        self.nodes: dict[str, Node] = {}
        self.at: dict[str, tuple[Node, Needs]] = {}  # of each step under way: its node, and its share of it
        self._holder: dict[str, Node] = {}  # of a step: the node that built one of its inputs last
        self._roomy: dict[Needs, dict[Node, None]] = {}  # nodes that may have room, by what is needed
        self._gpus = self._without = False  # whether a node has a GPU, and whether one has none

    def add(self, name: str, has: Needs) -> None:
        """A node has come."""
        self.nodes[name] = Node(name, has)
        self._look()

    def remove(self, name: str) -> None:
        """A node is gone; what it was at is told of by whoever waits for it."""
        self.nodes.pop(name, None)
        self._look()

    def _look(self) -> None:
        """After a node has come or gone, other steps may go where they could not."""
        self._gpus = any(n.has.gpus for n in self.nodes.values())
        self._without = any(not n.has.gpus for n in self.nodes.values())
        self._roomy.clear()

    def place(self) -> Iterator[tuple[Artifact, Node, Needs]]:
        """Begin ready steps, one after the other, each on a node with room for it, until none fits any more."""
        while placed := self._next():
            step, node, needs = placed
            share = node.share(needs)
            node.give(share)
            self.at[step.key] = node, share
            self.schedule.begin(step)
            yield step, node, share

    def left(self, step: Artifact) -> Node:
        """A step is no longer at its node, however it ended."""
        node, share = self.at.pop(step.key)
        node.give(share, -1)
        self._freed(node)
        return node

    def went(self, step: Artifact, report: Report) -> None:
        """How building a step went: what is ready now goes to the same node first."""
        node = self.left(step)
        for user in self.schedule.went(step, report):
            if self.local:
                self._holder[user.key] = node
                node.near.append(user)

    def _next(self) -> tuple[Artifact, Node, Needs] | None:
        for head in self.schedule.heads():
            needs = self._effective(head.needs)
            node = self._holder.get(head.key)
            if node is None or self.nodes.get(node.name) is not node or not self._may(node, needs):
                node = self._node_for(needs)
            if node is not None:
                return self._nearest(node, head), node, needs
        return None

    def _effective(self, needs: Needs) -> Needs:
        """Without any GPU, cores do."""
        return needs if self._gpus else Needs(needs.cpus, 0.0, needs.memory)

    def _may(self, node: Node, needs: Needs) -> bool:
        kept = not needs.gpus and node.has.gpus and self._without
        return not kept and node.room_for(needs)

    def _node_for(self, needs: Needs) -> Node | None:
        roomy = self._roomy.setdefault(needs, dict.fromkeys(self.nodes.values()))
        while roomy:
            node = next(iter(roomy))
            if self.nodes.get(node.name) is node and self._may(node, needs):
                return node
            del roomy[node]
        return None

    def _freed(self, node: Node) -> None:
        for roomy in self._roomy.values():
            roomy[node] = None

    def _nearest(self, node: Node, head: Artifact) -> Artifact:
        """Of what needs the same as the head of the queue, a step whose inputs were built on the node, if there is one."""
        while node.near:
            step = node.near[0]
            if self.schedule.is_ready(step):
                return step if step.needs == head.needs else head
            node.near.popleft()
        return head
