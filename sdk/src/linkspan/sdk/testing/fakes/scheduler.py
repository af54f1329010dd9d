"""A scheduler that takes the first node that will have the task."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Self

import attrs
import trio

from linkspan.sdk.drivers.base import NoConfig
from linkspan.sdk.drivers.scheduler import Decision, NodeView, Scheduler, SchedulerCap
from linkspan.sdk.generic_resources import claim_resources, free_resources
from linkspan.sdk.host import Host
from linkspan.sdk.model.service import GenericResource, Node, Task, TaskState
from linkspan.sdk.placement import parse_constraint


@attrs.define
class FakeScheduler(Scheduler[NoConfig]):
    """First fit.

    Attributes:
        refuse: Node id → reason; a test may make nodes unwilling.
    """

    config_type = NoConfig

    refuse: dict[str, str] = attrs.field(factory=dict)

    @classmethod
    @asynccontextmanager
    async def open(cls, config: NoConfig, host: Host) -> AsyncIterator[Self]:
        await trio.lowlevel.checkpoint()
        yield cls()

    @property
    def capabilities(self) -> SchedulerCap:
        return SchedulerCap.NONE

    def place(self, tasks: Sequence[Task], nodes: Sequence[NodeView]) -> list[Decision]:
        carried = {view.node.id: list(view.tasks) for view in nodes}
        return [self._place_one(task, nodes, carried) for task in tasks]

    def _place_one(
        self, task: Task, nodes: Sequence[NodeView], carried: dict[str, list[Task]]
    ) -> Decision:
        reasons: dict[str, int] = {}
        for view in nodes:
            node = view.node
            if task.node_id and task.node_id != node.id:
                continue
            reason = self.refuse.get(node.id) or _reason(task, node, carried[node.id])
            if reason is None:
                got = _claimed(task, node, carried[node.id]) or ()
                carried[node.id].append(attrs.evolve(task, generic_resources=got))
                return Decision(task_id=task.id, node_id=node.id, generic_resources=got)
            reasons[reason] = reasons.get(reason, 0) + 1
        return Decision(task_id=task.id, node_id=None, reasons=reasons)


def _reason(task: Task, node: Node, carried: Sequence[Task]) -> str | None:
    active = [t for t in carried if t.state <= TaskState.RUNNING]
    spec = task.spec
    if node.state != "ready" or node.availability != "active":
        return "not available"
    if any(not parse_constraint(text).holds(node) for text in spec.placement.constraints):
        return "constraint not satisfied"
    memory = spec.reservation.memory_bytes
    if memory and memory + sum(t.spec.reservation.memory_bytes for t in active) > node.memory_bytes:
        return "insufficient memory"
    cpus = spec.reservation.nano_cpus
    if cpus and cpus + sum(t.spec.reservation.nano_cpus for t in active) > node.nano_cpus:
        return "insufficient cpu"
    if _claimed(task, node, active) is None:
        return "insufficient resources"
    limit = spec.placement.max_replicas_per_node
    wanted = [t for t in active if t.desired <= TaskState.COMPLETE]
    if limit and sum(t.service_id == task.service_id for t in wanted) >= limit:
        return "limit of replicas reached"
    taken = {_ports(t) for t in active}
    if any(_ports(task) & ports for ports in taken):
        return "host port in use"
    return None


def _claimed(task: Task, node: Node, carried: Sequence[Task]) -> tuple[GenericResource, ...] | None:
    taken = [one for t in carried if t.state <= TaskState.RUNNING for one in t.generic_resources]
    free = free_resources(node.generic_resources, taken)
    return claim_resources(free, task.spec.reservation.generic)


def _ports(task: Task) -> frozenset[tuple[str, int]]:
    return frozenset(
        (p.protocol, p.published_port)
        for p in task.spec.ports
        if p.mode == "host" and p.published_port
    )
